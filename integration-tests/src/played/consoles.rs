//! Consoles of VMs that run nowhere: a serial line that says back what it is told, and a screen that knows no more of RFB than
//! its beginning. What each was told is kept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use horcrux_agentd::identity::Enrolled;
use horcrux_envelope::v1::envelope::Operation;
use horcrux_envelope::v1::{ConsoleKind, ConsoleOpen, Envelope, SignedEnvelope};
use horcrux_proto::agent::v1::console_link_client::ConsoleLinkClient;
use horcrux_proto::agent::v1::{
    AttachRequest, CarryRequest, CommandResult, OrderStatus, attach_request, carry_request, carry_response,
};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::DEADLINE;

/// What a played node opens.
#[derive(Clone, Debug)]
pub struct Consoles(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    enrolled: Enrolled,
    say: mpsc::Sender<AttachRequest>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    manner: Manner,
    opened: Vec<Opened>,
    closed: Vec<String>,
}

/// How it takes orders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// It does what it is told.
    #[default]
    Obeys,
    /// Its policy is against it.
    Forbids,
    /// It says that it is done, and brings nothing.
    BringsNothing,
}

/// One that it was ordered to open.
#[derive(Clone, Debug)]
pub struct Opened {
    pub order: ConsoleOpen,
    pub envelope: Envelope,
    /// What the VM was told.
    pub told: Vec<u8>,
    /// Its stream is over.
    pub is_over: bool,
    say: mpsc::Sender<CarryRequest>,
}

impl Opened {
    /// The VM says something.
    pub fn say(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let message = carry_request::Message::Data(bytes.to_vec().into());
        self.say.blocking_send(CarryRequest { message: Some(message) }).context("nobody listens to the VM")
    }

    /// The VM's side closes.
    pub fn end(&self) -> anyhow::Result<()> {
        let message = carry_request::Message::Ended(String::new());
        self.say.blocking_send(CarryRequest { message: Some(message) }).context("nobody listens to the VM")
    }
}

impl Consoles {
    pub(super) fn new(enrolled: Enrolled, say: mpsc::Sender<AttachRequest>) -> Self {
        Self(Arc::new(Inner { enrolled, say, state: Mutex::default() }))
    }

    pub fn behave(&self, manner: Manner) {
        self.state().manner = manner;
    }

    /// All that were opened, the first one first.
    #[must_use]
    pub fn opened(&self) -> Vec<Opened> {
        self.state().opened.clone()
    }

    /// Ids of those that it was ordered to close.
    #[must_use]
    pub fn closed(&self) -> Vec<String> {
        self.state().closed.clone()
    }

    pub(super) fn say(&self, message: attach_request::Message) -> anyhow::Result<()> {
        self.0.say.blocking_send(AttachRequest { message: Some(message) }).context("nobody listens")
    }

    pub(super) fn say_now(&self, message: attach_request::Message) -> anyhow::Result<()> {
        self.0.say.try_send(AttachRequest { message: Some(message) }).context("nobody listens")
    }

    pub(super) fn ordered(&self, command_id: &str, order: &[u8], carried: &mut JoinSet<()>) {
        let status = self.carry_out(order, carried).unwrap_or(OrderStatus::Refused);
        let accepted = [OrderStatus::Accepted].into_iter().filter(|_| status == OrderStatus::Done);
        for status in accepted.chain([status]) {
            let error = if status == OrderStatus::Forbidden {
                "its mode is observe".to_owned()
            } else {
                String::new()
            };
            let order_status = status.into();
            let result = CommandResult { command_id: command_id.to_owned(), error, order_status };
            // A controller that has gone is told nothing.
            drop(self.say_now(attach_request::Message::Result(result)));
        }
    }

    fn carry_out(&self, order: &[u8], carried: &mut JoinSet<()>) -> anyhow::Result<OrderStatus> {
        let envelope = Envelope::decode(SignedEnvelope::decode(order)?.envelope.as_slice())?;
        let manner = self.state().manner.clone();
        if manner == Manner::Forbids {
            return Ok(OrderStatus::Forbidden);
        }
        match envelope.operation.clone().context("an operation")? {
            Operation::ConsoleClose(close) => self.state().closed.push(close.console_id),
            Operation::ConsoleOpen(order) if manner == Manner::Obeys => {
                let (say, said) = mpsc::channel(8);
                let first = carry_request::Message::Rendezvous(order.rendezvous.clone().into());
                say.try_send(CarryRequest { message: Some(first) }).context("the first message")?;
                let kind = order.kind();
                let number = {
                    let mut state = self.state();
                    state.opened.push(Opened {
                        order,
                        envelope,
                        told: Vec::new(),
                        is_over: false,
                        say: say.clone(),
                    });
                    state.opened.len() - 1
                };
                let consoles = self.clone();
                carried.spawn(async move {
                    if let Err(status) = consoles.carry(number, kind, say, said).await {
                        tracing::debug!(%status, "a played console ended");
                    }
                    consoles.state().opened[number].is_over = true;
                });
            }
            Operation::ConsoleOpen(_) => {}
        }
        Ok(OrderStatus::Done)
    }

    async fn carry(
        &self,
        number: usize,
        kind: ConsoleKind,
        say: mpsc::Sender<CarryRequest>,
        said: mpsc::Receiver<CarryRequest>,
    ) -> Result<(), Status> {
        let unavailable = |why: String| Status::unavailable(why);
        let channel = self.0.enrolled.connect(DEADLINE).channel().await;
        let channel = channel.map_err(|error| unavailable(error.to_string()))?;
        let mut told = ConsoleLinkClient::new(channel).carry(ReceiverStream::new(said)).await?.into_inner();
        let mut screen = (kind == ConsoleKind::Vnc).then(Vec::new);
        if screen.is_some() {
            answer(&say, b"RFB 003.008\n").await?;
        }
        while let Some(message) = told.message().await? {
            let Some(carry_response::Message::Data(bytes)) = message.message else { continue };
            self.state().opened[number].told.extend_from_slice(&bytes);
            match &mut screen {
                None => answer(&say, &bytes).await?,
                Some(told) => {
                    let before = told.len();
                    told.extend_from_slice(&bytes);
                    for (at, reply) in GREETINGS {
                        if (before..told.len()).contains(&(at - 1)) {
                            answer(&say, reply).await?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// After how many bytes of a viewer what is said: that it may be without a password, that this is well, and a screen of 64 by
/// 48 pixels that is called `played`.
const GREETINGS: [(usize, &[u8]); 3] = [
    (12, &[1, 1]),
    (13, &[0, 0, 0, 0]),
    (14, b"\0\x40\0\x30\x20\x18\0\x01\0\xff\0\xff\0\xff\x10\x08\0\0\0\0\0\0\0\x06played"),
];

async fn answer(say: &mpsc::Sender<CarryRequest>, bytes: &[u8]) -> Result<(), Status> {
    let message = Some(carry_request::Message::Data(bytes.to_vec().into()));
    say.send(CarryRequest { message }).await.map_err(|_| Status::cancelled("nobody listens"))
}
