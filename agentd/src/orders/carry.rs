//! Consoles on their way to the controller: each on a connection of its own, all on one thread that does nothing else, so that
//! no sample waits for them.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use horcrux_privd::OpenedConsole;
use horcrux_proto::agent::v1::console_link_client::ConsoleLinkClient;
use horcrux_proto::agent::v1::{CarryRequest, CarryResponse, carry_request, carry_response};
use horcrux_proto::console::MAX_MESSAGE;
use horcrux_transport::client::ConnectError;
use horcrux_transport::error::Chain;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::identity::{Enrolled, IdentityError};

/// At once.
const MOST: usize = 256;
/// That were opened and are not yet taken up.
const WAITING: usize = 16;
const CONNECT: Duration = Duration::from_secs(8);
/// What is read of a VM at once. With the headers of gRPC and HTTP/2, or those of a WebSocket, it fills four TLS records.
const PIECE: usize = MAX_MESSAGE - 18;
/// Messages on their way to the controller: a quarter of a mebibyte.
const QUEUE: usize = 4;

/// A console that privd opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) console_id: String,
    pub(super) rendezvous: Bytes,
    pub(super) console: OpenedConsole,
}

/// The thread that carries them.
#[derive(Clone, Debug)]
pub(super) struct Carriers(mpsc::Sender<Opened>);

#[derive(Debug, thiserror::Error)]
enum CarryError {
    #[error("know this node's identity")]
    Identity(#[source] IdentityError),
    #[error("take up what was opened")]
    Socket(#[source] io::Error),
    #[error("connect")]
    Connect(#[source] ConnectError),
    #[error("the controller doesn't take it: {0}")]
    NotTaken(String),
    #[error("no answer")]
    NoAnswer,
}

impl Carriers {
    pub(super) fn start(state_dir: PathBuf) -> io::Result<Self> {
        let (opened, to_carry) = mpsc::channel(WAITING);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let carry = move || runtime.block_on(carry_all(state_dir.into(), to_carry));
        thread::Builder::new().name("consoles".to_owned()).spawn(carry)?;
        Ok(Self(opened))
    }

    /// `false` where there are too many: the console is dropped, and so ended.
    pub(super) fn carry(&self, opened: Opened) -> bool {
        self.0.try_send(opened).is_ok()
    }
}

/// Until nobody can open another.
async fn carry_all(state_dir: Arc<Path>, mut to_carry: mpsc::Receiver<Opened>) {
    let mut carried = JoinSet::new();
    loop {
        tokio::select! {
            opened = to_carry.recv(), if carried.len() < MOST => {
                let Some(opened) = opened else { return };
                let state_dir = Arc::clone(&state_dir);
                carried.spawn(async move {
                    let id = opened.console_id.clone();
                    match carry(&state_dir, opened).await {
                        Ok(why) => tracing::debug!(console = id, why, "console ended"),
                        Err(error) => tracing::warn!(console = id, error = %Chain(&error), "console not carried"),
                    }
                });
            }
            Some(_) = carried.join_next() => {}
        }
    }
}

/// Returns why it ended.
async fn carry(state_dir: &Path, opened: Opened) -> Result<String, CarryError> {
    let Opened { rendezvous, console: OpenedConsole { stream, lease }, .. } = opened;
    // Held until the end: the console is open as long as this is.
    let _lease: OwnedFd = lease;
    let (vm_says, to_vm) = nonblocking(stream).map_err(CarryError::Socket)?.into_split();
    let enrolled = Enrolled::load(state_dir).map_err(CarryError::Identity)?;
    let channel = enrolled.connect(CONNECT).channel().await.map_err(CarryError::Connect)?;
    let (outgoing, messages) = mpsc::channel(QUEUE);
    let first = CarryRequest { message: Some(carry_request::Message::Rendezvous(rendezvous)) };
    outgoing.try_send(first).map_err(|_| CarryError::NoAnswer)?;
    let mut client = ConsoleLinkClient::new(channel);
    let incoming = tokio::time::timeout(CONNECT, client.carry(ReceiverStream::new(messages))).await;
    let incoming = incoming.map_err(|_| CarryError::NoAnswer)?;
    let incoming = incoming.map_err(|status| CarryError::NotTaken(status.message().to_owned()))?;
    let mut incoming = incoming.into_inner();
    let why = tokio::select! {
        why = up(vm_says, &outgoing) => why,
        why = down(&mut incoming, to_vm) => return Ok(why),
    };
    let ended = CarryRequest { message: Some(carry_request::Message::Ended(why.clone())) };
    // A controller that takes nothing more doesn't hear it. One that does ends its side then: left before that, the stream
    // would be broken off, and the word with it.
    let told = async {
        drop(outgoing.send(ended).await);
        drop(outgoing);
        while let Ok(Some(_)) = incoming.message().await {}
    };
    drop(tokio::time::timeout(CONNECT, told).await);
    Ok(why)
}

fn nonblocking(stream: OwnedFd) -> io::Result<UnixStream> {
    let stream = StdStream::from(stream);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// From the VM to the controller, as fast as that takes it.
async fn up(mut vm_says: OwnedReadHalf, outgoing: &mpsc::Sender<CarryRequest>) -> String {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        // No more than a piece, however much room there is.
        match (&mut vm_says).take(PIECE as u64).read_buf(&mut buffer).await {
            Ok(0) => return String::new(),
            Ok(_) => {}
            Err(error) => return format!("read from the VM: {error}"),
        }
        let message = Some(carry_request::Message::Data(buffer.split().freeze()));
        if outgoing.send(CarryRequest { message }).await.is_err() {
            return "the controller left".to_owned();
        }
    }
}

/// From the controller to the VM, as fast as that takes it.
async fn down(incoming: &mut Streaming<CarryResponse>, mut to_vm: OwnedWriteHalf) -> String {
    loop {
        let bytes = match incoming.message().await {
            Ok(Some(CarryResponse { message: Some(carry_response::Message::Data(bytes)) })) => bytes,
            Ok(Some(CarryResponse { message: None })) => continue,
            Ok(None) => return "the controller closed it".to_owned(),
            Err(status) => return ended(&status),
        };
        if let Err(error) = to_vm.write_all(&bytes).await {
            return format!("write to the VM: {error}");
        }
    }
}

fn ended(status: &Status) -> String {
    format!("the controller's stream ended: {}", status.message())
}
