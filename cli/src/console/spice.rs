//! The screen in a SPICE client, by a port of this host.
//!
//! As with VNC, only who runs this may connect. A client makes a connection for each of SPICE's channels, and each has a
//! WebSocket of its own: a channel that is slow holds up no other. The first is the main channel; it ends when the client
//! leaves, and all ends with it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use horcrux_proto::console::ChannelKey;
use horcrux_transport::{files, signal};
use rustix::process::geteuid;
use tokio::net::{TcpListener, TcpStream};

use super::connection::{Asked, Console, Heard, Inlet, Opened, Outlet, channel};
use super::port::{self, Ended, Viewer, down, gone, up};
use crate::App;
use crate::failure::Failure;
use crate::private::SecretFile;
use crate::session::Session;
use crate::view::{bare, shown};

/// Where packages put it.
const REMOTE_VIEWER: &str = "/usr/bin/remote-viewer";

/// How soon a console that is ending says why.
const TELLS_WITHIN: Duration = Duration::from_secs(2);

/// What tells a client where to connect. It is removed when this is dropped.
struct ConnectionFile(PathBuf);

struct Served<'a> {
    app: &'a App,
    session: &'a Session,
    listener: TcpListener,
    key: ChannelKey,
}

pub(super) async fn run(
    app: &App,
    session: &Session,
    asked: &Asked<'_>,
    listen: Option<SocketAddr>,
    file: Option<&Path>,
) -> Result<(), Failure> {
    let (listener, address) = port::open(listen).await?;
    let Console { to, mut from, opened } = Console::open(app, session, asked, |text| app.say(text)).await?;
    let Opened { vm_name, node, in_control, channel_key } = opened;
    // From here on: a signal ends the program at once while it waits to be let in.
    let terminated = signal::terminate().context("wait for signals")?;
    let ended = async {
        if !in_control {
            from.has_control(asked).await?;
        }
        let none = || Failure::Refused("the controller gave no key for SPICE's channels".to_owned());
        let served = Served { app, session, listener, key: channel_key.ok_or_else(none)? };
        // Before a client is: whether the node lets it be opened is told here, and not by the client.
        let main = channel(app, session, &served.key).await;
        let main = match main {
            Ok(main) => main,
            // The console ends with its first channel, in better words.
            Err(failure) => {
                let told = tokio::time::timeout(TELLS_WITHIN, told(&mut from)).await;
                return Err(told.ok().and_then(Result::err).unwrap_or(failure));
            }
        };
        let title = format!("{} on {}", shown(&vm_name), shown(bare(&node)));
        let written = ConnectionFile::write(app, file, address, &title)?;
        let starts = listen.is_none() && file.is_none() && port::has_display();
        let mut viewer = (starts && Path::new(REMOTE_VIEWER).exists())
            .then(|| Viewer::start(REMOTE_VIEWER, &written.0))
            .transpose()?;
        match &viewer {
            Some(viewer) => app.say(&format!("{} shows {title}", viewer.program)),
            None => app.say(&format!(
                "connect a SPICE client of this host to spice://{address}: remote-viewer {}",
                written.0.display()
            )),
        }
        served.serve(main, &mut from, &mut viewer).await
    };
    let ended = tokio::select! {
        ended = ended => ended,
        () = terminated => Ok(()),
    };
    to.close().await;
    ended
}

/// How a console ends that is about to.
async fn told(from: &mut Inlet) -> Result<(), Failure> {
    while from.next().await?.is_some() {}
    Ok(())
}

impl Served<'_> {
    async fn serve(
        &self,
        main: (Outlet, Inlet),
        from: &mut Inlet,
        viewer: &mut Option<Viewer>,
    ) -> Result<(), Failure> {
        let (mut main, mut channels, mut vm_left) = (Some(main), FuturesUnordered::new(), false);
        loop {
            tokio::select! {
                connected = port::visitor(self.app, &self.listener) => {
                    channels.push(self.carry(connected?, main.take()));
                }
                Some(ended) = channels.next() => match ended {
                    None => {}
                    Some(Ended::ByViewer) => return Ok(()),
                    // The console says why: its end is what is waited for, however soon the client goes.
                    Some(Ended::ByVm | Ended::Restarted) => vm_left = true,
                },
                heard = from.next() => match heard? {
                    None => return Ok(()),
                    Some(Heard::Words(words)) => self.app.say(&words),
                    Some(Heard::Bytes(_) | Heard::Restarted) => {}
                },
                ended = gone(viewer), if !vm_left => return ended,
            }
        }
    }

    /// One channel, from its client's connection to its end; says how the main one ended.
    async fn carry(&self, client: TcpStream, main: Option<(Outlet, Inlet)>) -> Option<Ended> {
        let is_main = main.is_some();
        let opened = match main {
            Some(main) => Ok(main),
            None => channel(self.app, self.session, &self.key).await,
        };
        let (mut to, mut from) = match opened {
            Ok(opened) => opened,
            Err(failure) => {
                self.app.say(&format!("a channel can't be opened: {}", failure.text()));
                return None;
            }
        };
        let (reader, writer) = client.into_split();
        let ended = tokio::select! {
            ended = up(reader, &mut to) => ended,
            ended = down(self.app, writer, &mut from) => ended,
        };
        to.close().await;
        // One that broke did so by the controller's doing, which says why where the console ends.
        is_main.then(|| ended.unwrap_or(Ended::ByVm))
    }
}

impl ConnectionFile {
    fn write(app: &App, given: Option<&Path>, at: SocketAddr, title: &str) -> Result<Self, Failure> {
        let text = text(at, title);
        let Some(path) = given else {
            // It is named by the port, which nobody else has now: what is there was left behind.
            let path = directory().unwrap_or_else(|| app.home.file(""));
            let path = path.join(format!("horcruxctl-{}.vv", at.port()));
            files::write_private(&path, text.as_bytes())
                .with_context(|| format!("write {}", path.display()))?;
            return Ok(Self(path));
        };
        SecretFile::create(path).map_err(anyhow::Error::from)?.fill(&text).map_err(anyhow::Error::from)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for ConnectionFile {
    fn drop(&mut self) {
        // The client may have removed it, as it was told to.
        drop(fs::remove_file(&self.0));
    }
}

/// Where what one session needs is kept, if it is ours alone.
fn directory() -> Option<PathBuf> {
    let dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute())?;
    let found = fs::metadata(&dir).ok()?;
    (found.is_dir() && found.uid() == geteuid().as_raw() && !files::is_exposed(&found)).then_some(dir)
}

/// As virt-viewer reads it. There is no password: the port asks for none, and lets nobody else in.
fn text(at: SocketAddr, title: &str) -> String {
    let (host, port) = (at.ip(), at.port());
    // In such a file a backslash begins an escape.
    let title = title.replace('\\', "\\\\");
    format!(
        "[virt-viewer]\ntype=spice\nhost={host}\nport={port}\ntitle={title}\ndelete-this-file=1\n\
         enable-usb-autoshare=0\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_the_port_and_no_name_of_a_vm_adds_to_that() {
        let title = shown("web1\npassword=x");
        let written = text("127.0.0.1:5999".parse().unwrap(), &format!("{title} on web1"));
        let lines: Vec<&str> = written.lines().collect();
        assert_eq!(lines[..4], ["[virt-viewer]", "type=spice", "host=127.0.0.1", "port=5999"]);
        assert_eq!(lines[4], r"title=web1\\u{a}password=x on web1");
        assert_eq!(lines.len(), 7);
    }
}
