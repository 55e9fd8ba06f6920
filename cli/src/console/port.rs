//! A port of this host at which a viewer finds a console, and the viewer that is started for it.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use horcrux_proto::console::MAX_MESSAGE;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use super::caller;
use super::connection::{Heard, Inlet, Outlet};
use crate::App;
use crate::failure::Failure;

const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How a viewer's connection did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    ByViewer,
    ByVm,
    /// The next viewer goes on.
    Restarted,
}

/// One that was started, and ends with this.
pub(super) struct Viewer {
    pub(super) program: &'static str,
    child: Child,
}

pub(super) async fn open(listen: Option<SocketAddr>) -> Result<(TcpListener, SocketAddr), Failure> {
    let at = listen.unwrap_or(ANY_PORT);
    let listener = TcpListener::bind(at).await.with_context(|| format!("listen at {at}"))?;
    let address = listener.local_addr().context("learn which port it is")?;
    Ok((listener, address))
}

/// The next connection of who runs this. Can be dropped while it waits, and asked again.
pub(super) async fn visitor(app: &App, listener: &TcpListener) -> Result<TcpStream, Failure> {
    loop {
        let (viewer, _) = listener.accept().await.context("take a viewer's connection")?;
        if caller::is_us(&viewer) {
            viewer.set_nodelay(true).context("take a viewer's connection")?;
            return Ok(viewer);
        }
        app.say("a connection of another user of this host was refused");
    }
}

pub(super) async fn up(mut reader: OwnedReadHalf, to: &mut Outlet) -> Result<Ended, Failure> {
    let mut said = BytesMut::new();
    loop {
        said.reserve(MAX_MESSAGE);
        match reader.read_buf(&mut said).await {
            Ok(0) | Err(_) => return Ok(Ended::ByViewer),
            Ok(_) => {
                while !said.is_empty() {
                    let message: Bytes = said.split_to(said.len().min(MAX_MESSAGE)).freeze();
                    to.bytes(message).await?;
                }
            }
        }
    }
}

pub(super) async fn down(app: &App, mut writer: OwnedWriteHalf, from: &mut Inlet) -> Result<Ended, Failure> {
    loop {
        match from.next().await? {
            None => return Ok(Ended::ByVm),
            Some(Heard::Restarted) => return Ok(Ended::Restarted),
            Some(Heard::Words(words)) => app.say(&words),
            Some(Heard::Bytes(bytes)) => {
                if writer.write_all(&bytes).await.is_err() {
                    return Ok(Ended::ByViewer);
                }
            }
        }
    }
}

pub(super) fn has_display() -> bool {
    ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some())
}

impl Viewer {
    pub(super) fn start(program: &'static str, argument: impl AsRef<OsStr>) -> Result<Self, Failure> {
        let mut command = Command::new(program);
        command.arg(argument);
        // Of its chatter nothing belongs on this terminal.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("start {program}"))?;
        Ok(Self { program, child })
    }
}

/// When the viewer that was started has ended.
pub(super) async fn gone(viewer: &mut Option<Viewer>) -> Result<(), Failure> {
    match viewer {
        Some(Viewer { program, child }) => {
            let ended = child.wait().await.with_context(|| format!("wait for {program}"))?;
            if ended.success() { Ok(()) } else { Err(Failure::Refused(format!("{program} failed: {ended}"))) }
        }
        None => std::future::pending().await,
    }
}
