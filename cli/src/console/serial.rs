//! The serial line in this terminal, or in a pipe.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use horcrux_proto::v1::ConsoleMode;
use horcrux_transport::{files, signal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::connection::{Asked, Console, Heard, Inlet, Outlet};
use super::raw::Raw;
use crate::App;
use crate::failure::Failure;
use crate::session::Session;
use crate::view::{bare, shown};

/// Ctrl-].
const LEAVE: u8 = 0x1d;
/// Ctrl-C, which leaves where no key reaches the VM.
const INTERRUPT: u8 = 0x03;
/// What is typed comes in small pieces; what is pasted need not be one message.
const TYPED: usize = 8 << 10;

/// Where talk goes while the console is open.
#[derive(Clone, Copy)]
enum Talk {
    Lines,
    /// A terminal that does nothing by itself at the end of a line.
    Raw,
}

pub(super) async fn run(
    app: &App,
    session: &Session,
    asked: &Asked<'_>,
    log: Option<&Path>,
) -> Result<(), Failure> {
    let mut log = match log {
        Some(path) => Some(files::append_private(path).with_context(|| format!("open {}", path.display()))?),
        None => None,
    };
    let Console { mut to, mut from, opened } =
        Console::open(app, session, asked, |text| app.say(text)).await?;
    // From here on: a signal ends the program at once while it waits to be let in.
    let terminated = signal::terminate().context("wait for signals")?;
    let mut hung_up = signal::reload().context("wait for signals")?;
    let (vm, node) = (shown(&opened.vm_name), shown(bare(&opened.node)));
    let is_terminal = io::stdin().is_terminal();
    if is_terminal {
        let only =
            if asked.mode == ConsoleMode::View { ", only looking: what you type goes nowhere" } else { "" };
        app.say(&format!("the serial line of {vm} on {node}: Ctrl-] leaves{only}"));
    }
    let raw = is_terminal.then(|| Raw::start(io::stdin())).transpose().context("take over the terminal")?;
    let talk = if raw.is_some() { Talk::Raw } else { Talk::Lines };
    let ended = tokio::select! {
        ended = listen(&mut from, log.as_mut(), talk) => ended,
        left = speak(&mut to, asked.mode, is_terminal) => left,
        () = terminated => Ok(()),
        _ = hung_up.recv() => Ok(()),
    };
    to.close().await;
    if raw.is_some() {
        drop(raw);
        app.say(&format!("\nleft the serial line of {vm}"));
    }
    ended
}

/// Until the console ends, or nobody reads any more.
async fn listen(from: &mut Inlet, mut log: Option<&mut File>, talk: Talk) -> Result<(), Failure> {
    let mut out = tokio::io::stdout();
    while let Some(heard) = from.next().await? {
        match heard {
            Heard::Bytes(bytes) => {
                if let Some(log) = &mut log {
                    log.write_all(&bytes).context("write the log")?;
                }
                match async {
                    out.write_all(&bytes).await?;
                    out.flush().await
                }
                .await
                {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                    Err(error) => Err(error).context("write to standard output")?,
                }
            }
            Heard::Restarted => talk.say("the VM goes on elsewhere"),
            Heard::Words(words) => talk.say(&words),
        }
    }
    Ok(())
}

/// Until whoever types leaves. A pipe that has ended is no reason to.
async fn speak(to: &mut Outlet, mode: ConsoleMode, is_terminal: bool) -> Result<(), Failure> {
    let mut keys = tokio::io::stdin();
    let mut typed = vec![0; TYPED];
    if mode == ConsoleMode::View && !is_terminal {
        return std::future::pending().await;
    }
    loop {
        let length = keys.read(&mut typed).await.context("read standard input")?;
        let typed = &typed[..length];
        let leaves = |&key: &u8| key == LEAVE || (mode == ConsoleMode::View && key == INTERRUPT);
        let left = if is_terminal { typed.iter().position(leaves) } else { None };
        let sent = &typed[..left.unwrap_or(length)];
        if mode != ConsoleMode::View && !sent.is_empty() {
            to.bytes(Bytes::copy_from_slice(sent)).await?;
        }
        if left.is_some() {
            return Ok(());
        }
        if length == 0 {
            return if is_terminal { Ok(()) } else { std::future::pending().await };
        }
    }
}

impl Talk {
    /// Between what the VM says, on lines of its own.
    fn say(self, text: &str) {
        let mut out = io::stderr().lock();
        // Nobody is left to hear that nobody hears.
        drop(match self {
            Self::Lines => writeln!(out, "{text}"),
            Self::Raw => write!(out, "\r\n[{text}]\r\n"),
        });
    }
}
