//! The screen in a VNC viewer, by a port of this host.
//!
//! Only who runs this may connect, though a port is open to all who are logged in. One viewer at a time: its bytes are one conversation with the VM. It ends when the viewer leaves. When the VM goes on
//! elsewhere the conversation begins anew: the viewer's connection is closed, and the next one goes on with the console.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use bytes::BytesMut;
use horcrux_transport::signal;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::connection::{Asked, Console, Heard, Inlet, Outlet};
use super::port::{self, Ended, Viewer, down, gone, up};
use crate::App;
use crate::failure::Failure;
use crate::session::Session;

/// Before a viewer has answered a server's greeting nothing comes but the greeting, which is 12 bytes.
const MAX_GREETING: usize = 4 << 10;
/// Viewers that take an address, and how they write one. Looked for where packages put them, and nowhere else.
const VIEWERS: [(&str, &str); 4] = [
    ("/usr/bin/remote-viewer", "vnc://"),
    ("/usr/bin/xtigervncviewer", ""),
    ("/usr/bin/vncviewer", ""),
    ("/usr/bin/krdc", "vnc://"),
];

pub(super) async fn run(
    app: &App,
    session: &Session,
    asked: &Asked<'_>,
    listen: Option<SocketAddr>,
) -> Result<(), Failure> {
    let (listener, address) = port::open(listen).await?;
    let Console { mut to, mut from, .. } = Console::open(app, session, asked, |text| app.say(text)).await?;
    // From here on: a signal ends the program at once while it waits to be let in.
    let terminated = signal::terminate().context("wait for signals")?;
    let mut viewer = if listen.is_none() { started(address)? } else { None };
    match &viewer {
        Some(viewer) => app.say(&format!("{} shows {address}", viewer.program)),
        None => app.say(&format!("connect a VNC viewer of this host to {address}")),
    }
    let ended = tokio::select! {
        ended = serve(app, &listener, &mut to, &mut from) => ended,
        ended = gone(&mut viewer) => ended,
        () = terminated => Ok(()),
    };
    to.close().await;
    ended
}

async fn serve(app: &App, listener: &TcpListener, to: &mut Outlet, from: &mut Inlet) -> Result<(), Failure> {
    loop {
        let Some((viewer, greeting)) = first(app, listener, from).await? else { return Ok(()) };
        let (reader, mut writer) = viewer.into_split();
        if writer.write_all(&greeting).await.is_err() {
            return Ok(());
        }
        let ended = tokio::select! {
            ended = up(reader, to) => ended,
            ended = down(app, writer, from) => ended,
            () = refuse(listener) => Ok(Ended::ByViewer),
        };
        match ended? {
            Ended::ByViewer | Ended::ByVm => return Ok(()),
            Ended::Restarted => app.say("the VM goes on elsewhere: connect the viewer again"),
        }
    }
}

/// The viewer, and what the VM said before it was there. `None`: the console ended.
async fn first(
    app: &App,
    listener: &TcpListener,
    from: &mut Inlet,
) -> Result<Option<(TcpStream, BytesMut)>, Failure> {
    let mut greeting = BytesMut::new();
    loop {
        tokio::select! {
            viewer = port::visitor(app, listener) => return Ok(Some((viewer?, greeting))),
            heard = from.next() => match heard? {
                None => return Ok(None),
                Some(Heard::Bytes(bytes)) if greeting.len() + bytes.len() <= MAX_GREETING => {
                    greeting.extend_from_slice(&bytes);
                }
                Some(Heard::Bytes(_)) => {
                    return Err(Failure::Refused("the VM's screen speaks before it is asked".to_owned()));
                }
                Some(Heard::Restarted) => greeting.clear(),
                Some(Heard::Words(words)) => app.say(&words),
            },
        }
    }
}

/// One viewer is there: others are turned away.
async fn refuse(listener: &TcpListener) {
    while let Ok((other, _)) = listener.accept().await {
        drop(other);
    }
    // It can't accept any more: the viewer that is there isn't concerned.
    std::future::pending::<()>().await;
}

/// Starts the first viewer that there is, where it has a display.
fn started(address: SocketAddr) -> Result<Option<Viewer>, Failure> {
    let found = VIEWERS.iter().find(|(program, _)| port::has_display() && Path::new(program).exists());
    found.map(|(program, scheme)| Viewer::start(program, argument(scheme, address))).transpose()
}

/// Without a scheme a port stands behind two colons: behind one it would be a display's number.
fn argument(scheme: &str, address: SocketAddr) -> String {
    if scheme.is_empty() {
        format!("{}::{}", address.ip(), address.port())
    } else {
        format!("{scheme}{address}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_gets_a_port_and_no_display_number() {
        let address = "127.0.0.1:5999".parse().unwrap();
        assert_eq!(argument("", address), "127.0.0.1::5999");
        assert_eq!(argument("vnc://", address), "vnc://127.0.0.1:5999");
    }
}
