//! Orders of a controller: handed to `horcrux-privd`, which alone can tell whether they are ones and may be carried out. What
//! it opens is carried to the controller.
//!
//! privd blocks, so it is asked on threads: one hands the orders in, in the order in which they came, and each that is
//! accepted is waited for on one of its own. One that takes long holds up no other.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use horcrux_privd::v1;
use horcrux_privd::{AskError, Pending, Settled, Submitted, submit};
use horcrux_proto::agent::v1::{CommandResult, OrderStatus};
use horcrux_transport::error::Chain;
use tokio::sync::mpsc;

use self::carry::{Carriers, Opened};

mod carry;

/// Orders that wait to be handed in, and results that wait to be told.
const WAITING: usize = 64;
/// For privd to take an order, which it puts on its disk first, and to carry it out: its own bound, and some more.
const TAKEN_WITHIN: Duration = Duration::from_secs(8);
const DONE_WITHIN: Duration = Duration::from_secs(45);

/// Hands orders in, and has their results. Its threads are there from the first order on.
#[derive(Debug)]
pub(crate) struct Orders {
    socket: PathBuf,
    state_dir: PathBuf,
    queue: Option<SyncSender<Order>>,
    told: mpsc::Sender<CommandResult>,
    results: mpsc::Receiver<CommandResult>,
}

#[derive(Debug)]
struct Order {
    command_id: String,
    /// A `SignedEnvelope`.
    bytes: Bytes,
}

impl Orders {
    /// To the privd that listens at `socket`; what it opens is carried to the controller of the identity in `state_dir`.
    pub(crate) fn new(socket: &Path, state_dir: &Path) -> Self {
        let (told, results) = mpsc::channel(WAITING);
        Self { socket: socket.to_owned(), state_dir: state_dir.to_owned(), queue: None, told, results }
    }

    /// Takes up an order; gives the result where it can't.
    pub(crate) fn take(&mut self, command_id: String, bytes: Bytes) -> Option<CommandResult> {
        let queue = match &self.queue {
            Some(queue) => queue,
            None => match self.start() {
                Ok(queue) => self.queue.insert(queue),
                Err(error) => {
                    let why = format!("start a thread: {error}");
                    return Some(result(command_id, OrderStatus::Unreached, &why));
                }
            },
        };
        let (why, order) = match queue.try_send(Order { command_id, bytes }) {
            Ok(()) => return None,
            Err(TrySendError::Full(order)) => ("too many orders wait already", order),
            Err(TrySendError::Disconnected(order)) => ("the agent takes no more orders", order),
        };
        Some(result(order.command_id, OrderStatus::Unreached, why))
    }

    fn start(&self) -> io::Result<SyncSender<Order>> {
        let (queue, orders) = sync_channel(WAITING);
        let carriers = Carriers::start(self.state_dir.clone())?;
        let desk = Desk { socket: self.socket.clone(), told: self.told.clone(), carriers };
        thread::Builder::new().name("orders".to_owned()).spawn(move || desk.run(&orders))?;
        Ok(queue)
    }

    /// The next result. Can be dropped while it waits, and asked again.
    pub(crate) async fn result(&mut self) -> Option<CommandResult> {
        self.results.recv().await
    }
}

/// Where orders are handed in.
#[derive(Clone, Debug)]
struct Desk {
    socket: PathBuf,
    told: mpsc::Sender<CommandResult>,
    carriers: Carriers,
}

impl Desk {
    fn run(self, orders: &Receiver<Order>) {
        while let Ok(Order { command_id, bytes }) = orders.recv() {
            match submit(&self.socket, &bytes, TAKEN_WITHIN) {
                Ok(Submitted::Accepted(pending)) => {
                    self.tell(result(command_id.clone(), OrderStatus::Accepted, ""));
                    self.wait(command_id, pending);
                }
                Ok(Submitted::Answered(answer)) => self.tell(answered(command_id, &answer)),
                Err(error) => self.tell(unanswered(command_id, &error)),
            }
        }
    }

    /// Waits for what becomes of an order, elsewhere.
    fn wait(&self, command_id: String, pending: Pending) {
        let (desk, id) = (self.clone(), command_id.clone());
        let waiting = move || desk.settle(id, pending);
        if let Err(error) = thread::Builder::new().name("order".to_owned()).spawn(waiting) {
            self.tell(result(command_id, OrderStatus::Unknown, &format!("start a thread: {error}")));
        }
    }

    fn settle(&self, command_id: String, pending: Pending) {
        let Settled { answer, console } = match pending.wait(DONE_WITHIN) {
            Ok(settled) => settled,
            // It was accepted: it may have been done.
            Err(error) => {
                return self.tell(result(command_id, OrderStatus::Unknown, &Chain(&error).to_string()));
            }
        };
        if let (Some(opened), Some(console)) = (&answer.console_opened, console) {
            let opened = Opened {
                console_id: opened.console_id.clone(),
                rendezvous: opened.rendezvous.clone().into(),
                console,
            };
            if !self.carriers.carry(opened) {
                let why = "the agent carries too many consoles";
                return self.tell(result(command_id, OrderStatus::Failed, why));
            }
        }
        self.tell(answered(command_id, &answer));
    }

    fn tell(&self, result: CommandResult) {
        // Without a link nobody is told any more.
        if self.told.blocking_send(result).is_err() {
            tracing::debug!("the result of an order is told to nobody");
        }
    }
}

fn answered(command_id: String, answer: &v1::OrderAnswer) -> CommandResult {
    let status = match answer.status() {
        v1::OrderStatus::Accepted => OrderStatus::Accepted,
        v1::OrderStatus::Done => OrderStatus::Done,
        v1::OrderStatus::Failed => OrderStatus::Failed,
        v1::OrderStatus::Refused => OrderStatus::Refused,
        v1::OrderStatus::Forbidden => OrderStatus::Forbidden,
        v1::OrderStatus::Unknown | v1::OrderStatus::Unspecified => OrderStatus::Unknown,
    };
    result(command_id, status, &answer.reason)
}

/// privd did not take it: where it may have all the same, nobody knows.
fn unanswered(command_id: String, error: &AskError) -> CommandResult {
    let status = match error {
        AskError::Connect(_) | AskError::Refused(_) | AskError::Order(_) => OrderStatus::Unreached,
        AskError::TimedOut | AskError::NoAnswer | AskError::Exchange(_) | AskError::Other => {
            OrderStatus::Unknown
        }
    };
    result(command_id, status, &Chain(error).to_string())
}

fn result(command_id: String, status: OrderStatus, why: &str) -> CommandResult {
    CommandResult { command_id, error: why.to_owned(), order_status: status.into() }
}
