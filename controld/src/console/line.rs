//! A VM's side of a console: what its node brings, after it was ordered to.
//!
//! A screen is opened anew for each viewer: QEMU serves several. A serial line is one: it is opened once, and all who look
//! at it share what it says ([`super::shared`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
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
use super::shared::{Shared, Viewer};
use super::{Consoles, End};
use crate::fleet::orders::{Operation, OrderError, Orders};

/// From the order being carried out to its stream being here.
const BROUGHT_WITHIN: Duration = Duration::from_secs(10);
/// That it was closed is waited for so long, also by a controller that stops.
const CLOSED_WITHIN: Duration = Duration::from_secs(2);
/// No console is open for longer, whoever holds it; it can be opened again.
const LONGEST_MS: i64 = 12 * 3600 * 1000;
/// Messages on their way to the VM, and to one viewer of a shared line: a mebibyte.
pub const QUEUE: usize = 16;

/// How the VM's side ends where its node's agent was stopped, or is out of reach.
pub(super) const AGENT_LEFT: &str = "the node's agent went away";

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
    /// Others have it too where the line is shared.
    ordered: Arc<Ordered>,
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
    joining: mpsc::Sender<Viewer>,
    /// Held by those who look at it.
    ordered: Weak<Ordered>,
}

/// What a node brought.
#[derive(Debug)]
struct Ordered {
    to_vm: ToNode,
    _to_close: ToClose,
}

/// A node that was ordered to open something is ordered to close it when nobody has it any more: whatever its agent keeps
/// of it is of no use then.
#[derive(Debug)]
struct ToClose {
    lines: Lines,
    id: String,
    node_id: String,
    actor: String,
    /// It was not opened.
    is_not: bool,
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
            let (from_node, ordered) = self.order(id, vm, kind, place, actor).await?;
            return Ok(Line { from_vm: FromVm::Own(Box::new(from_node)), ordered: Arc::new(ordered) });
        }
        let slot = {
            let mut all = self.serial.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody holds are over.
            all.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|s| s.is_some()));
            Arc::clone(all.entry(*vm).or_default())
        };
        let mut slot = slot.lock().await;
        let (queue, from_vm) = mpsc::channel(QUEUE);
        let (viewer, from_vm) = (Viewer { id: id.to_owned(), queue }, FromVm::Shared(from_vm));
        let there = slot.as_ref().filter(|serial| serial.node_id == place.node_id);
        let joined = match there {
            Some(serial) => serial.join(viewer).await,
            None => Err(viewer),
        };
        let viewer = match joined {
            Ok(ordered) => return Ok(Line { from_vm, ordered }),
            Err(viewer) => viewer,
        };
        let (from_node, ordered) = self.order(id, vm, kind, place, actor).await?;
        let ordered = Arc::new(ordered);
        let (joining, joins) = mpsc::channel(1);
        self.tasks.spawn(Shared::new(from_node, viewer, joins, self.consoles.clone()).run());
        *slot = Some(Serial { node_id: place.node_id.clone(), joining, ordered: Arc::downgrade(&ordered) });
        Ok(Line { from_vm, ordered })
    }

    /// Has the node end what was opened there, whatever its agent does.
    async fn close(&self, id: &str, node_id: &str, actor: &str) {
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
    ) -> Result<(Streaming<CarryRequest>, Ordered), End> {
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
        let mut to_close = ToClose {
            lines: self.clone(),
            id: id.to_owned(),
            node_id: place.node_id.clone(),
            actor: actor.to_owned(),
            is_not: false,
        };
        if let Err(error) = self.orders.carry_out(&place.node_id, actor, open).await {
            to_close.is_not = error.is_not_done();
            return Err(refused(place, &error));
        }
        let mut awaited = awaited;
        match tokio::time::timeout(BROUGHT_WITHIN, &mut awaited.brought).await {
            Ok(Ok(Carried { from_node, to_node: to_vm })) => {
                Ok((from_node, Ordered { to_vm, _to_close: to_close }))
            }
            Ok(Err(_)) | Err(_) => Err(failed(format!("nodes/{} did not bring what it opened", place.node))),
        }
    }
}

/// What a viewer is told of an order that was not carried out.
fn refused(place: &Place, error: &OrderError) -> End {
    let code = match error {
        OrderError::NotSaid(_) | OrderError::Unreached(_) => CloseCode::Node,
        OrderError::Forbidden(_) | OrderError::Refused(_) => CloseCode::Refused,
        OrderError::TooMany => CloseCode::TooMany,
        OrderError::Failed(_) | OrderError::Unknown(_) | OrderError::Random => CloseCode::Failed,
    };
    End::new(code, format!("nodes/{}: {error}", place.node))
}

impl Serial {
    /// Gives the viewer back where the line is over.
    async fn join(&self, viewer: Viewer) -> Result<Arc<Ordered>, Viewer> {
        let Some(ordered) = self.ordered.upgrade() else { return Err(viewer) };
        match self.joining.send(viewer).await {
            Ok(()) => Ok(ordered),
            Err(mpsc::error::SendError(viewer)) => Err(viewer),
        }
    }
}

impl Drop for ToClose {
    fn drop(&mut self) {
        if self.is_not {
            return;
        }
        let (lines, id) = (self.lines.clone(), std::mem::take(&mut self.id));
        let (node_id, actor) = (std::mem::take(&mut self.node_id), std::mem::take(&mut self.actor));
        self.lines.tasks.spawn(async move {
            if tokio::time::timeout(CLOSED_WITHIN, lines.close(&id, &node_id, &actor)).await.is_err() {
                tracing::debug!(console = id, "the node doesn't say that it ended a console");
            }
        });
    }
}

impl Line {
    /// Can be dropped while it waits, and asked again.
    pub async fn next(&mut self) -> Said {
        match &mut self.from_vm {
            FromVm::Own(stream) => said(stream).await,
            FromVm::Shared(queue) => {
                // One who was cut off has its console ended.
                let over = || Said::Ended("the line ended".to_owned());
                queue.recv().await.unwrap_or_else(over)
            }
        }
    }

    #[must_use]
    pub fn to_vm(&self) -> ToNode {
        self.ordered.to_vm.clone()
    }
}

/// The next of a node's stream.
pub(super) async fn said(stream: &mut Streaming<CarryRequest>) -> Said {
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
            Ok(None) => return Said::Ended(AGENT_LEFT.to_owned()),
            Err(status) => {
                tracing::debug!(status = status.message(), "a console's stream broke off");
                return Said::Ended(AGENT_LEFT.to_owned());
            }
        }
    }
}

/// For the VM, as the node takes it.
#[must_use]
pub fn for_vm(bytes: Bytes) -> CarryResponse {
    CarryResponse { message: Some(carry_response::Message::Data(bytes)) }
}
