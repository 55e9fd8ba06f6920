//! A horcrux-privd that checks nothing: an agent's orders to open a console are carried out with one end of a socket pair, as
//! QEMU's display is one. The other end is the VM.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use horcrux_envelope::v1::Envelope;
use horcrux_envelope::v1::envelope::Operation;
use horcrux_privd::packets::{MAX_QUESTION, Packets};
use horcrux_privd::v1::{
    Answer, ConsoleOpened, ContainersAnswer, Mode, OrderAnswer, OrderStatus, PolicyAnswer, Question, answer,
    question,
};
use horcrux_transport::clock;
use prost::Message as _;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, accept, bind, listen, socket};

/// For a question, and for the lease of a console: longer than any bench.
const LONG: Duration = Duration::from_secs(3600);
const WAITING: usize = 16;

/// A VM's end of a console, which is open while this is held.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) stream: UnixStream,
    _lease: Packets,
}

/// Listens, and gives what it opens.
pub(crate) fn start(at: &Path) -> anyhow::Result<Receiver<Vm>> {
    let listener = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
    bind(&listener, &SocketAddrUnix::new(at)?)?;
    listen(&listener, 16)?;
    let (put, opened) = sync_channel(WAITING);
    thread::spawn(move || {
        while let Ok(connection) = accept(&listener) {
            let put = put.clone();
            thread::spawn(move || {
                if let Err(error) = answered(connection, &put) {
                    tracing::warn!("a question to the played privd: {error:#}");
                }
            });
        }
    });
    Ok(opened)
}

fn answered(connection: OwnedFd, put: &SyncSender<Vm>) -> anyhow::Result<()> {
    let packets = Packets::new(connection, clock::monotonic() + LONG);
    let say = |answer| packets.write(&Answer { answer: Some(answer) });
    let order = match packets.read::<Question>(MAX_QUESTION)?.question.context("a question")? {
        question::Question::Containers(_) => {
            return Ok(say(answer::Answer::Containers(ContainersAnswer::default()))?);
        }
        question::Question::Policy(_) => {
            let policy = PolicyAnswer { mode: Mode::Console.into(), ..PolicyAnswer::default() };
            return Ok(say(answer::Answer::Policy(policy))?);
        }
        question::Question::Order(order) => Envelope::decode(order.envelope.as_slice())?,
    };
    let accepted = OrderAnswer { status: OrderStatus::Accepted.into(), ..OrderAnswer::default() };
    say(answer::Answer::Order(accepted.clone()))?;
    let done = OrderAnswer { status: OrderStatus::Done.into(), ..accepted };
    match order.operation.context("an operation")? {
        Operation::ConsoleClose(_) => say(answer::Answer::Order(done))?,
        Operation::ConsoleOpen(open) => {
            let (ours, theirs) = UnixStream::pair()?;
            let opened = ConsoleOpened { console_id: open.console_id, rendezvous: open.rendezvous };
            let done = OrderAnswer { console_opened: Some(opened), ..done };
            packets.write_with(&Answer { answer: Some(answer::Answer::Order(done)) }, theirs.as_fd())?;
            drop(put.send(Vm { stream: ours, _lease: packets }));
        }
    }
    Ok(())
}
