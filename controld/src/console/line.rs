//! A VM's side of a console: what its node brings, after it was ordered to.
//!
//! A screen is opened anew for each viewer: QEMU serves several. A serial line is one: it is opened once, and all who look
//! at it share what it says. One of them who doesn't read is waited for while it is alone, and cut off once others wait.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use horcrux_envelope::v1::{ConsoleClose, ConsoleOpen};
use horcrux_proto::agent::v1::{CarryRequest, CarryResponse, carry_request, carry_response};
use horcrux_proto::console::{CloseCode, MAX_MESSAGE};
use horcrux_proto::name::VmUuid;
use horcrux_proto::v1::ConsoleKind;
use horcrux_transport::clock;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tonic::{Status, Streaming};

use super::place::Place;
use super::{Consoles, End};
use crate::fleet::orders::{Operation, OrderError, Orders};

/// From the order being carried out to its stream being here.
const BROUGHT_WITHIN: Duration = Duration::from_secs(10);
/// No console is open for longer, whoever holds it; it can be opened again.
const LONGEST_MS: i64 = 12 * 3600 * 1000;
/// Messages on their way to the VM, and to one viewer of a shared line: a mebibyte.
pub const QUEUE: usize = 16;
/// What one who joins a serial line is shown of it.
const BACKLOG: usize = 16 << 10;
/// How long one who doesn't read keeps the others waiting.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_secs(1);

pub type ToNode = mpsc::Sender<Result<CarryResponse, Status>>;

/// The stream that a node brought.
#[derive(Debug)]
pub struct Carried {
    pub from_node: Streaming<CarryRequest>,
    pub to_node: ToNode,
}

/// What comes from a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Bytes(Bytes),
    /// No more, for this reason; an empty one: the VM's side closed.
    Ended(String),
}

/// One viewer's.
#[derive(Debug)]
pub struct Line {
    from_vm: FromVm,
    to_vm: ToNode,
}

#[derive(Debug)]
enum FromVm {
    Own(Box<Streaming<CarryRequest>>),
    Shared(mpsc::Receiver<Said>),
}

/// Opens them.
#[derive(Clone, Debug)]
pub struct Lines {
    pub orders: Orders,
    pub consoles: Consoles,
    pub tasks: TaskTracker,
    serial: Arc<Mutex<HashMap<VmUuid, Slot>>>,
}

/// Held while it is opened, so that two who come at once share one.
type Slot = Arc<tokio::sync::Mutex<Option<Serial>>>;

#[derive(Debug)]
struct Serial {
    node_id: String,
    joining: mpsc::Sender<mpsc::Sender<Said>>,
    /// Held by those who look at it: without one, its node closes it.
    to_vm: mpsc::WeakSender<Result<CarryResponse, Status>>,
}

impl Lines {
    #[must_use]
    pub fn new(orders: Orders, consoles: Consoles, tasks: TaskTracker) -> Self {
        Self { orders, consoles, tasks, serial: Arc::default() }
    }

    /// Has the VM's node open it, for `actor`.
    pub async fn open(
        &self,
        id: &str,
        vm: &VmUuid,
        kind: ConsoleKind,
        place: &Place,
        actor: &str,
    ) -> Result<Line, End> {
        if kind != ConsoleKind::Serial {
            let Carried { from_node, to_node } = self.order(id, vm, kind, place, actor).await?;
            return Ok(Line { from_vm: FromVm::Own(Box::new(from_node)), to_vm: to_node });
        }
        let slot = {
            let mut all = self.serial.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody holds are over.
            all.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|s| s.is_some()));
            Arc::clone(all.entry(*vm).or_default())
        };
        let mut slot = slot.lock().await;
        let (viewer, from_vm) = mpsc::channel(QUEUE);
        if let Some(serial) = slot.as_ref().filter(|serial| serial.node_id == place.node_id)
            && let Some(to_vm) = serial.to_vm.upgrade()
            && serial.joining.send(viewer.clone()).await.is_ok()
        {
            return Ok(Line { from_vm: FromVm::Shared(from_vm), to_vm });
        }
        let Carried { from_node, to_node } = self.order(id, vm, kind, place, actor).await?;
        let (joining, joins) = mpsc::channel(1);
        let shared = Shared { from_node, joins, viewers: vec![viewer], backlog: VecDeque::new() };
        self.tasks.spawn(shared.run());
        *slot = Some(Serial { node_id: place.node_id.clone(), joining, to_vm: to_node.downgrade() });
        Ok(Line { from_vm: FromVm::Shared(from_vm), to_vm: to_node })
    }

    /// Has the node end a screen that is given up, whatever its agent does.
    pub async fn close(&self, id: &str, node_id: &str, actor: &str) {
        let close = Operation::ConsoleClose(ConsoleClose { console_id: id.to_owned() });
        if let Err(error) = self.orders.carry_out(node_id, actor, close).await {
            tracing::debug!(console = id, %error, "the node was not made to end a console");
        }
    }

    async fn order(
        &self,
        id: &str,
        vm: &VmUuid,
        kind: ConsoleKind,
        place: &Place,
        actor: &str,
    ) -> Result<Carried, End> {
        let failed = |words: String| End::new(CloseCode::Failed, words);
        let awaited = self.consoles.awaits(&place.node_id).map_err(|error| failed(error.to_string()))?;
        let open = Operation::ConsoleOpen(ConsoleOpen {
            console_id: id.to_owned(),
            vm_uuid: vm.to_string(),
            // Numbered alike.
            kind: kind.into(),
            rendezvous: awaited.rendezvous.to_vec(),
            until_unix_ms: clock::unix_ms() + LONGEST_MS,
        });
        self.orders.carry_out(&place.node_id, actor, open).await.map_err(|error| refused(place, &error))?;
        let mut awaited = awaited;
        match tokio::time::timeout(BROUGHT_WITHIN, &mut awaited.brought).await {
            Ok(Ok(carried)) => Ok(carried),
            Ok(Err(_)) | Err(_) => Err(failed(format!("nodes/{} did not bring what it opened", place.node))),
        }
    }
}

/// What a viewer is told of an order that was not carried out.
fn refused(place: &Place, error: &OrderError) -> End {
    let code = match error {
        OrderError::NotSaid(_) | OrderError::Unreached(_) => CloseCode::Node,
        OrderError::Forbidden(_) | OrderError::Refused(_) => CloseCode::Refused,
        OrderError::Failed(_) | OrderError::Unknown(_) | OrderError::Random => CloseCode::Failed,
    };
    End::new(code, format!("nodes/{}: {error}", place.node))
}

impl Line {
    /// Can be dropped while it waits, and asked again.
    pub async fn next(&mut self) -> Said {
        match &mut self.from_vm {
            FromVm::Own(stream) => said(stream).await,
            FromVm::Shared(queue) => {
                let over = || Said::Ended("others look at this line too, and you read too slowly".to_owned());
                queue.recv().await.unwrap_or_else(over)
            }
        }
    }

    #[must_use]
    pub fn to_vm(&self) -> ToNode {
        self.to_vm.clone()
    }
}

/// The next of a node's stream.
async fn said(stream: &mut Streaming<CarryRequest>) -> Said {
    loop {
        match stream.message().await {
            Ok(Some(CarryRequest { message: Some(carry_request::Message::Data(bytes)) })) => {
                if bytes.len() > MAX_MESSAGE {
                    return Said::Ended("the node sent more at once than it may".to_owned());
                }
                return Said::Bytes(bytes);
            }
            Ok(Some(CarryRequest { message: Some(carry_request::Message::Ended(why)) })) => {
                return Said::Ended(crate::fleet::said::bounded(why));
            }
            Ok(Some(CarryRequest { message: Some(carry_request::Message::Rendezvous(_)) | None })) => {}
            Ok(None) => return Said::Ended("the node's stream ended".to_owned()),
            Err(status) => return Said::Ended(crate::fleet::said::bounded(status.message().to_owned())),
        }
    }
}

/// For the VM, as the node takes it.
#[must_use]
pub fn for_vm(bytes: Bytes) -> CarryResponse {
    CarryResponse { message: Some(carry_response::Message::Data(bytes)) }
}

/// A serial line that some look at.
struct Shared {
    from_node: Streaming<CarryRequest>,
    joins: mpsc::Receiver<mpsc::Sender<Said>>,
    viewers: Vec<mpsc::Sender<Said>>,
    backlog: VecDeque<u8>,
}

impl Shared {
    async fn run(mut self) {
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                said = said(&mut self.from_node) => {
                    self.remember(&said);
                    self.deliver(&said).await;
                    if matches!(said, Said::Ended(_)) {
                        return;
                    }
                }
                Some(viewer) = self.joins.recv() => self.join(viewer),
                _ = look.tick() => {}
            }
            self.viewers.retain(|viewer| !viewer.is_closed());
            // The node notices that nobody looks any more by the end of its stream.
            if self.viewers.is_empty() && self.joins.is_empty() {
                return;
            }
        }
    }

    fn join(&mut self, viewer: mpsc::Sender<Said>) {
        let before: Vec<u8> = self.backlog.iter().copied().collect();
        if !before.is_empty() && viewer.try_send(Said::Bytes(before.into())).is_err() {
            return;
        }
        self.viewers.push(viewer);
    }

    fn remember(&mut self, said: &Said) {
        if let Said::Bytes(bytes) = said {
            self.backlog.extend(bytes.iter());
            let over = self.backlog.len().saturating_sub(BACKLOG);
            self.backlog.drain(..over);
        }
    }

    async fn deliver(&mut self, said: &Said) {
        let mut slow = Vec::new();
        for (at, viewer) in self.viewers.iter().enumerate() {
            while let Err(waits) = tokio::time::timeout(PATIENCE, viewer.send(said.clone())).await {
                if self.viewers.len() > 1 || !self.joins.is_empty() {
                    tracing::info!(%waits, "a viewer of a serial line reads too slowly, and is cut off");
                    slow.push(at);
                    break;
                }
            }
        }
        for at in slow.into_iter().rev() {
            self.viewers.remove(at);
        }
    }
}
