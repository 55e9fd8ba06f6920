//! Consoles: who looks at which VM, by which ticket, over which node's stream.
//!
//! A ticket is redeemed once, at a WebSocket ([`session`]). The VM's node is ordered to open the screen or the serial line,
//! and brings what it opened on a stream of its own, which shows the order's rendezvous ([`line`]). The two are joined here.
//! A SPICE console has such a stream and a WebSocket for each of its channels ([`channels`]); they end with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use horcrux_proto::console::CloseCode;
use horcrux_proto::name::{NodeName, VmUuid};
use horcrux_proto::v1::{Console, ConsoleGuest, ConsoleKind, ConsoleMode};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;

use self::channels::Held;
use self::line::Carried;
use self::ticket::TicketHash;
use self::viewers::Viewers;
use crate::access::keys::{KeyError, random};

pub mod channels;
mod down;
pub mod line;
pub mod place;
pub mod rfb;
pub mod session;
mod shared;
mod spice;
pub mod ticket;
mod up;
mod viewers;

/// Open at once: of one user, of one VM.
const PER_USER: usize = 64;
const PER_VM: usize = 16;
/// Of one user, where others want to look too.
const PER_USER_AND_VM: usize = 8;
const PER_USER_AND_NODE: usize = 32;
/// As many as its `horcrux-privd` opens: a SPICE console is as many as it has channels.
const PER_NODE: usize = 64;
const ALL: usize = 1024;
/// Of one guest link one console is open at a time.
const ELSEWHERE: &str = "the guest link was opened elsewhere";

/// All that are open, and those that are about to be.
#[derive(Clone, Debug, Default)]
pub struct Consoles(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<String, Arc<Open>>,
    /// By the rendezvous of their order: the node that may bring it, and who waits.
    awaited: HashMap<[u8; 32], (String, oneshot::Sender<Carried>)>,
    viewers: Viewers,
    /// SPICE consoles, by the key to their channels.
    held: HashMap<TicketHash, Held>,
}

/// An open console.
#[derive(Debug)]
pub struct Open {
    /// 32 hex digits.
    pub id: String,
    /// `user@realm`, or `guest link {id} of user@realm`.
    pub user: String,
    /// What opened it: a session's id, `token ID` or `link ID`.
    pub credential: String,
    pub guest: Option<ConsoleGuest>,
    pub vm: VmUuid,
    pub display_name: String,
    pub kind: ConsoleKind,
    pub mode: ConsoleMode,
    pub began_ms: i64,
    pub source: String,
    pub client: String,
    pub recorded: bool,
    node: Mutex<NodeName>,
    to_viewer: AtomicU64,
    from_viewer: AtomicU64,
    ending: watch::Sender<Option<End>>,
}

/// Why one ends, in a code for programs and words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub code: Code,
    pub words: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The viewer left.
    Left,
    Closed(CloseCode),
}

impl End {
    #[must_use]
    pub fn new(code: CloseCode, words: impl Into<String>) -> Self {
        Self { code: Code::Closed(code), words: words.into() }
    }

    #[must_use]
    pub fn left() -> Self {
        Self { code: Code::Left, words: "the viewer left".to_owned() }
    }
}

impl Open {
    pub fn node(&self) -> NodeName {
        self.node.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_at(&self, node: &NodeName) {
        self.node.lock().unwrap_or_else(PoisonError::into_inner).clone_from(node);
    }

    /// Bytes to the viewer and from it, so far.
    pub fn bytes(&self) -> (u64, u64) {
        (self.to_viewer.load(Ordering::Relaxed), self.from_viewer.load(Ordering::Relaxed))
    }

    /// It is the user's own, or that of a guest of theirs.
    pub fn is_of(&self, user: &str) -> bool {
        self.user == user || self.guest.as_ref().is_some_and(|guest| guest.maker == user)
    }

    /// Ends it; the first reason counts.
    pub fn end(&self, end: End) {
        self.ending.send_if_modified(|told| {
            let is_first = told.is_none();
            if is_first {
                *told = Some(end);
            }
            is_first
        });
    }

    fn shown(&self, viewers: &Viewers) -> Console {
        let (to_viewer_bytes, from_viewer_bytes) = self.bytes();
        Console {
            name: format!("consoles/{}", self.id),
            vm: format!("vms/{}", self.vm),
            vm_display_name: self.display_name.clone(),
            node: format!("nodes/{}", self.node()),
            user: self.user.clone(),
            kind: self.kind.into(),
            mode: self.mode.into(),
            in_control: viewers.is_in_control(&self.vm, self.kind, &self.id),
            began_unix_ms: self.began_ms,
            source: self.source.clone(),
            client: self.client.clone(),
            to_viewer_bytes,
            from_viewer_bytes,
            recorded: self.recorded,
            guest: self.guest.clone(),
        }
    }
}

/// What is known of one that is about to be opened.
#[derive(Clone, Debug)]
pub struct Opening {
    pub id: String,
    pub user: String,
    pub credential: String,
    pub guest: Option<ConsoleGuest>,
    pub vm: VmUuid,
    pub display_name: String,
    pub node: NodeName,
    pub kind: ConsoleKind,
    pub mode: ConsoleMode,
    pub began_ms: i64,
    pub source: String,
    pub client: String,
    pub recorded: bool,
}

/// An open console's place among the others; it is given up when this is dropped.
#[derive(Debug)]
pub struct Seat {
    consoles: Consoles,
    pub open: Arc<Open>,
    /// Whether what this viewer types reaches the VM.
    pub control: watch::Receiver<bool>,
    /// What changes among those who look at the VM in the same way.
    pub notices: mpsc::Receiver<horcrux_proto::console::Notice>,
    pub ending: watch::Receiver<Option<End>>,
}

impl Consoles {
    /// Takes a place, unless there are too many.
    pub fn enter(&self, opening: Opening) -> Result<Seat, End> {
        let Opening { id, user, credential, guest, vm, display_name, node, kind, mode, .. } = opening;
        let Opening { began_ms, source, client, recorded, .. } = opening;
        let mut state = self.state();
        let count = |of: &dyn Fn(&Open) -> bool| state.open.values().filter(|open| of(open)).count();
        let full = [
            (count(&|open| open.user == user), PER_USER, "you have"),
            (count(&|open| open.user == user && open.vm == vm), PER_USER_AND_VM, "of this VM you have"),
            (
                count(&|open| open.user == user && open.node() == node),
                PER_USER_AND_NODE,
                "of this node you have",
            ),
            (count(&|open| open.vm == vm), PER_VM, "this VM has"),
            (state.carried(&node), PER_NODE, "this node has"),
            (state.open.len(), ALL, "this controller has"),
        ];
        if let Some((_, most, who)) = full.iter().find(|(open, most, _)| open >= most) {
            return Err(End::new(CloseCode::TooMany, format!("{who} {most} consoles open already")));
        }
        if guest.is_some() {
            // In the same breath, so that of two who come at once one stays.
            let older = state.open.values().filter(|open| open.user == user);
            older.for_each(|open| open.end(End::new(CloseCode::Taken, ELSEWHERE)));
        }
        let (ending, told) = watch::channel(None);
        let open = Arc::new(Open {
            id,
            user,
            credential,
            guest,
            vm,
            display_name,
            kind,
            mode,
            began_ms,
            source,
            client,
            recorded,
            node: Mutex::new(node),
            to_viewer: AtomicU64::new(0),
            from_viewer: AtomicU64::new(0),
            ending,
        });
        state.open.insert(open.id.clone(), Arc::clone(&open));
        let (control, notices) = state.viewers.join(&open);
        Ok(Seat { consoles: self.clone(), open, control, notices, ending: told })
    }

    /// Those that `wanted` picks, the oldest first.
    #[must_use]
    pub fn list(&self, wanted: impl Fn(&Open) -> bool) -> Vec<Console> {
        let state = self.state();
        let mut all: Vec<Console> =
            state.open.values().filter(|open| wanted(open)).map(|open| open.shown(&state.viewers)).collect();
        all.sort_by(|a, b| (a.began_unix_ms, &a.name).cmp(&(b.began_unix_ms, &b.name)));
        all
    }

    #[must_use]
    pub fn find(&self, id: &str) -> Option<Arc<Open>> {
        self.state().open.get(id).cloned()
    }

    /// Ends those that `of` picks.
    pub fn end_all(&self, of: impl Fn(&Open) -> bool, end: &End) {
        let state = self.state();
        state.open.values().filter(|open| of(open)).for_each(|open| open.end(end.clone()));
    }

    /// A viewer wants control, and may have it.
    pub fn take_control(&self, open: &Open) {
        self.state().viewers.take(open);
    }

    /// A viewer hands control to another.
    pub fn give_control(&self, open: &Open, to: &str) {
        self.state().viewers.give(open, to.strip_prefix("consoles/").unwrap_or(to));
    }

    /// What a node is to show for the stream of an order, and that stream, once it has.
    pub fn awaits(&self, node_id: &str) -> Result<Awaited, KeyError> {
        let rendezvous = random::<32>()?;
        let (bring, brought) = oneshot::channel();
        self.state().awaited.insert(rendezvous, (node_id.to_owned(), bring));
        Ok(Awaited { consoles: self.clone(), rendezvous, brought })
    }

    /// A node brings a stream. Whoever shows what another node was given, or nobody, is refused; it counts once.
    pub fn brought(&self, node_id: &str, rendezvous: &[u8], carried: Carried) -> Result<(), Status> {
        let unknown = || Status::permission_denied("nobody waits for this");
        let rendezvous: [u8; 32] = rendezvous.try_into().map_err(|_| unknown())?;
        let mut state = self.state();
        let (of, _) = state.awaited.get(&rendezvous).ok_or_else(unknown)?;
        if of != node_id {
            return Err(unknown());
        }
        let (_, bring) = state.awaited.remove(&rendezvous).ok_or_else(unknown)?;
        bring.send(carried).map_err(|_| unknown())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What a node carries, or is about to.
    fn carried(&self, node: &NodeName) -> usize {
        let there = self.open.values().filter(|open| open.node() == *node);
        there
            .map(|open| if open.kind == ConsoleKind::Spice { self.channels(&open.id).max(1) } else { 1 })
            .sum()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.consoles.state();
        state.open.remove(&self.open.id);
        state.viewers.leave(&self.open);
    }
}

/// A stream that is awaited, until this is dropped.
#[derive(Debug)]
pub struct Awaited {
    consoles: Consoles,
    pub rendezvous: [u8; 32],
    pub brought: oneshot::Receiver<Carried>,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.consoles.state().awaited.remove(&self.rendezvous);
    }
}
