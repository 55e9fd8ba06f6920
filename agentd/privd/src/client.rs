//! The agent's side: one connection for one question. It blocks, so it belongs on a thread of its own.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use horcrux_envelope::v1::SignedEnvelope;
use horcrux_local::clock;
use horcrux_local::connection::connected;
use prost::Message as _;
use rustix::net::SocketType;

use crate::packets::{MAX_MESSAGE, PacketError, Packets};
use crate::v1::{
    Answer, ContainersAnswer, ContainersQuestion, OrderAnswer, OrderStatus, PolicyAnswer, PolicyQuestion,
    Question, answer, question,
};

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("connect to it")]
    Connect(#[source] io::Error),
    #[error("it did not answer in time")]
    TimedOut,
    /// It ended meanwhile, or doesn't answer this user id.
    #[error("it closed the connection without an answer; it answers the users of its --allow-user only")]
    NoAnswer,
    #[error("ask it")]
    Exchange(#[source] PacketError),
    #[error("it refused: {0}")]
    Refused(String),
    /// An answer to something else.
    #[error("its answer is not one to the question")]
    Other,
    /// It was not asked.
    #[error("decode the order")]
    Order(#[source] prost::DecodeError),
}

/// How an order was taken.
#[derive(Debug)]
pub enum Submitted {
    /// It is settled already: refused, forbidden, or known from before.
    Answered(OrderAnswer),
    Accepted(Pending),
}

/// An order that is being carried out. Whoever drops it gives up what may come of it.
#[derive(Debug)]
pub struct Pending(Packets);

/// How an order ended.
#[derive(Debug)]
pub struct Settled {
    pub answer: OrderAnswer,
    pub console: Option<OpenedConsole>,
}

#[derive(Debug)]
pub struct OpenedConsole {
    /// What the VM's side says and is told.
    pub stream: OwnedFd,
    /// While it is open the console may be: dropping it ends the console. When its other end is closed, it was ended.
    pub lease: OwnedFd,
}

/// Asks the `horcrux-privd` that listens at `socket` what the runtimes say of their containers.
///
/// It gives each runtime two seconds, and looks four times a second at most: a deadline below three seconds gives up on
/// answers that would come.
pub fn containers(socket: &Path, deadline: Duration) -> Result<ContainersAnswer, AskError> {
    let question = question::Question::Containers(ContainersQuestion {});
    match answer(&asked(socket, question, deadline)?)? {
        (answer::Answer::Containers(answer), None) => Ok(answer),
        _ => Err(AskError::Other),
    }
}

/// Asks what the node lets a controller do.
pub fn policy(socket: &Path, deadline: Duration) -> Result<PolicyAnswer, AskError> {
    let question = question::Question::Policy(PolicyQuestion {});
    match answer(&asked(socket, question, deadline)?)? {
        (answer::Answer::Policy(answer), None) => Ok(answer),
        _ => Err(AskError::Other),
    }
}

/// Hands in a `SignedEnvelope`, encoded, and waits for the first answer.
///
/// Orders are taken in the order of their sequence, and one that comes after its successor is refused: so hand in the next
/// of a controller when this has returned. What is accepted may take longer, and others needn't wait for it.
pub fn submit(socket: &Path, order: &[u8], deadline: Duration) -> Result<Submitted, AskError> {
    let order = SignedEnvelope::decode(order).map_err(AskError::Order)?;
    let packets = asked(socket, question::Question::Order(order), deadline)?;
    match answer(&packets)? {
        (answer::Answer::Order(answer), None) if answer.status() == OrderStatus::Accepted => {
            Ok(Submitted::Accepted(Pending(packets)))
        }
        (answer::Answer::Order(answer), None) if answer.console_opened.is_none() => {
            Ok(Submitted::Answered(answer))
        }
        _ => Err(AskError::Other),
    }
}

impl Pending {
    /// Waits for the end of it. It has a bound of its own, of about half a minute.
    pub fn wait(self, deadline: Duration) -> Result<Settled, AskError> {
        let Self(mut packets) = self;
        packets.set_deadline(clock::now() + deadline);
        match answer(&packets)? {
            (answer::Answer::Order(answer), stream) if answer.status() != OrderStatus::Accepted => {
                // A descriptor and what says which console it is belong together.
                if stream.is_some() != answer.console_opened.is_some() {
                    return Err(AskError::Other);
                }
                let console = stream.map(|stream| OpenedConsole { stream, lease: packets.into_socket() });
                Ok(Settled { answer, console })
            }
            _ => Err(AskError::Other),
        }
    }
}

fn asked(socket: &Path, question: question::Question, deadline: Duration) -> Result<Packets, AskError> {
    let until = clock::now() + deadline;
    let connection = connected(socket, SocketType::SEQPACKET, until).map_err(|error| {
        if error.kind() == io::ErrorKind::TimedOut { AskError::TimedOut } else { AskError::Connect(error) }
    })?;
    let packets = Packets::new(connection, until);
    packets.write(&Question { question: Some(question) }).map_err(ended)?;
    Ok(packets)
}

fn answer(packets: &Packets) -> Result<(answer::Answer, Option<OwnedFd>), AskError> {
    let (Answer { answer }, descriptor) = packets.read_with(MAX_MESSAGE).map_err(ended)?;
    match answer {
        Some(answer::Answer::Refused(why)) => Err(AskError::Refused(why)),
        Some(answer) => Ok((answer, descriptor)),
        None => Err(AskError::Other),
    }
}

fn ended(error: PacketError) -> AskError {
    if error.is_late() {
        AskError::TimedOut
    } else if error.is_gone() {
        AskError::NoAnswer
    } else {
        AskError::Exchange(error)
    }
}

#[cfg(test)]
mod tests;
