//! Somebody at a console's WebSocket, with nothing but what a test has them say.

use std::sync::mpsc::{Receiver as Queue, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use horcrux_proto::console::{MAX_MESSAGE, Notice, PATH, SUBPROTOCOL};
use horcrux_transport::client::{Connect, Trust};
use horcrux_transport::clock;
use horcrux_transport::websocket::{Ask, Heard, Receiver, Sender};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::PATIENCE;
use crate::caller::{Caller, runtime};

/// It leaves when it is dropped.
#[derive(Debug)]
pub struct Viewer {
    say: mpsc::Sender<Said>,
    heard: Queue<(Instant, Heard)>,
}

#[derive(Debug)]
enum Said {
    Text(String),
    Bytes(Vec<u8>),
}

const DEADLINE: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(120);
/// More messages than any test leaves unread.
const UNREAD: usize = 100_000;

impl Caller {
    /// Opens a console's WebSocket, for somebody who reads it as they like.
    pub async fn websocket(&self) -> anyhow::Result<(Sender, Receiver)> {
        let connect = Connect::new(self.url.parse()?, Trust::Pinned(self.fingerprint.parse()?), DEADLINE);
        let bearer = self.token.clone().context("a token")?.into();
        let ask = Ask { path: PATH, subprotocol: SUBPROTOCOL, max_message: MAX_MESSAGE, silence: SILENCE };
        Ok(connect.websocket(ask, &bearer).await?)
    }

    /// Opens one, and says nothing yet.
    pub fn viewer(&self) -> anyhow::Result<Viewer> {
        let runtime = runtime()?;
        let opened = runtime.block_on(self.websocket())?;
        Viewer::on(runtime, opened)
    }

    /// The same, with this ticket, until its console is open.
    pub fn at_console(&self, ticket: &str) -> anyhow::Result<Viewer> {
        self.viewer()?.with(ticket)
    }
}

impl Viewer {
    /// At a WebSocket that was opened on `runtime`.
    pub(crate) fn on(runtime: Runtime, opened: (Sender, Receiver)) -> anyhow::Result<Self> {
        let (mut sender, mut receiver) = opened;
        let (say, mut said) = mpsc::channel(64);
        let (put, heard) = sync_channel(UNREAD);
        let talk = move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        said = said.recv() => {
                            let sent = match said {
                                Some(Said::Text(text)) => sender.text(&text).await,
                                Some(Said::Bytes(bytes)) => sender.bytes(bytes.into()).await,
                                None => return drop(sender.close().await),
                            };
                            // What it hears next is the end.
                            drop(sent);
                        }
                        heard = receiver.next() => {
                            let Ok(heard) = heard else { return };
                            let is_over = matches!(heard, Heard::Closed { .. });
                            if put.send((clock::monotonic(), heard)).is_err() || is_over {
                                return;
                            }
                        }
                    }
                }
            });
        };
        thread::Builder::new().name("viewer".to_owned()).spawn(talk)?;
        Ok(Self { say, heard })
    }

    /// With this ticket, until its console is open.
    pub fn with(self, ticket: &str) -> anyhow::Result<Self> {
        self.text(ticket)?;
        self.notice("the console", |notice| matches!(notice, Notice::Opened { .. }).then_some(()))?;
        Ok(self)
    }

    pub fn text(&self, text: &str) -> anyhow::Result<()> {
        self.say.blocking_send(Said::Text(text.to_owned())).context("the WebSocket is over")
    }

    pub fn bytes(&self, bytes: &[u8]) -> anyhow::Result<()> {
        self.say.blocking_send(Said::Bytes(bytes.to_vec())).context("the WebSocket is over")
    }

    /// The first notice of which `pick` takes something; what comes before it is left.
    pub fn notice<T>(&self, what: &str, mut pick: impl FnMut(Notice) -> Option<T>) -> anyhow::Result<T> {
        loop {
            match self.next(what)?.1 {
                Heard::Text(text) => {
                    if let Some(found) = pick(serde_json::from_str(&text)?) {
                        return Ok(found);
                    }
                }
                Heard::Bytes(_) => {}
                Heard::Closed { code, reason } => bail!("{what}: it ended first: {code} {reason}"),
            }
        }
    }

    /// Reads the VM's bytes until they end so.
    pub fn read_until(&self, what: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut read = Vec::new();
        while !read.ends_with(what) {
            match self.next(&String::from_utf8_lossy(what))?.1 {
                Heard::Bytes(bytes) => read.extend_from_slice(&bytes),
                Heard::Text(_) => {}
                Heard::Closed { code, reason } => bail!("it ended first: {code} {reason}, after {read:?}"),
            }
        }
        Ok(read)
    }

    /// When and how the controller ends it.
    pub fn end(&self) -> anyhow::Result<(Instant, u16, String)> {
        loop {
            if let (at, Heard::Closed { code, reason }) = self.next("the end")? {
                return Ok((at, code, reason));
            }
        }
    }

    /// What it hears next, and when it came.
    pub fn next(&self, what: &str) -> anyhow::Result<(Instant, Heard)> {
        self.heard.recv_timeout(PATIENCE).with_context(|| format!("waited for {what}"))
    }
}
