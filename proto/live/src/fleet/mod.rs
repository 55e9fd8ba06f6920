//! The current state of everything: a pure model. One task owns it and tells it what came and what time it is.
//!
//! A node speaks for itself only. What it says of a VM that another connected node holds is refused and counted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use horcrux_proto::name::{NodeName, Resource};
use horcrux_proto::v1;

use self::inventory::Elsewhere;
use crate::names::Names;
use crate::object::{Facts, Object, Place};

mod clock;
mod inventory;
mod nodes;
mod samples;

pub use samples::{Applied, MAX_SERIES};

/// When a silent node is late, and when it is down.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub late_after: Duration,
    pub down_after: Duration,
}

/// What is on record of a node that may attach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enrolled {
    pub name: String,
    pub id: String,
    pub enrolled_ms: i64,
    /// Of its certificate.
    pub expires_ms: i64,
    /// It has attached before.
    pub ever_seen: bool,
    pub agent_version: Option<String>,
    /// Why it is shut out, where it is.
    pub locked_reason: Option<String>,
}

/// Names one stream of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkId(pub u64);

/// An event, with the node that it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetEvent {
    pub node: NodeName,
    pub event: v1::Event,
}

/// The model.
#[derive(Debug)]
pub struct Fleet {
    patience: Patience,
    nodes: BTreeMap<NodeName, Node>,
    objects: BTreeMap<u32, Object>,
    by_resource: HashMap<Resource, u32>,
    next_slot: u32,
    names: Names,
    changes: Changes,
    elsewhere: Elsewhere,
    /// Refused or unusable, by name.
    pub counts: BTreeMap<&'static str, u64>,
}

/// What changed since it was last taken.
#[derive(Debug, Default)]
pub struct Changes {
    /// Slots of objects with new facts or values.
    pub touched: HashSet<u32>,
    pub gone: Vec<Gone>,
    pub events: Vec<FleetEvent>,
}

/// An object that is no more, with what filters ask about.
#[derive(Clone, Debug)]
pub struct Gone {
    pub slot: u32,
    pub resource: Resource,
    pub node: NodeName,
}

#[derive(Debug)]
struct Node {
    slot: u32,
    /// Slots of all that is on it, itself included.
    objects: BTreeSet<u32>,
    link: Option<Link>,
    /// When anything last came from it.
    heard: Option<Instant>,
    /// Until it is first heard of, it gets the time since this controller's start.
    known_since: Instant,
    ever_seen: bool,
    /// This program runs on it.
    is_here: bool,
    clock: clock::Clock,
    told: Told,
}

/// Events of one node that watchers were told of: one that was not acknowledged comes again.
#[derive(Debug, Default)]
struct Told {
    all: HashSet<(u64, u64)>,
    oldest_first: VecDeque<(u64, u64)>,
}

/// More than an agent can send and have unacknowledged.
const MOST_TOLD: usize = 4096;

impl Told {
    /// Says whether it is new. What has no sequence comes once.
    fn is_new(&mut self, epoch: u64, sequence: u64) -> bool {
        if sequence == 0 {
            return true;
        }
        if !self.all.insert((epoch, sequence)) {
            return false;
        }
        self.oldest_first.push_back((epoch, sequence));
        if self.oldest_first.len() > MOST_TOLD
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.all.remove(&oldest);
        }
        true
    }
}

#[derive(Debug)]
struct Link {
    id: LinkId,
    /// Series ids of this stream: object and place in it.
    dictionary: HashMap<u32, (u32, Place)>,
    /// Ids of series of what another node lists too, for which that one speaks.
    others: HashSet<u32>,
    /// Since when it stands; `None` once what earlier streams declared was forgotten.
    young_since: Option<Instant>,
}

impl Fleet {
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            nodes: BTreeMap::new(),
            objects: BTreeMap::new(),
            by_resource: HashMap::new(),
            next_slot: 1,
            names: Names::default(),
            changes: Changes::default(),
            elsewhere: Elsewhere::default(),
            counts: BTreeMap::new(),
        }
    }

    /// What changed since this was last asked.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// To be called when the changes have been told.
    pub fn settle(&mut self, changes: &Changes) {
        for slot in &changes.touched {
            if let Some(object) = self.objects.get_mut(slot) {
                (object.facts_changed, object.values_changed) = (false, false);
            }
        }
    }

    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    #[must_use]
    pub fn object(&self, slot: u32) -> Option<&Object> {
        self.objects.get(&slot)
    }

    #[must_use]
    pub fn find(&self, resource: &Resource) -> Option<&Object> {
        self.by_resource.get(resource).and_then(|slot| self.objects.get(slot))
    }

    fn insert(&mut self, resource: Resource, node: NodeName, facts: Facts) -> u32 {
        let slot = self.next_slot;
        self.next_slot += 1;
        self.by_resource.insert(resource.clone(), slot);
        if let Some(node) = self.nodes.get_mut(&node) {
            node.objects.insert(slot);
        }
        self.objects.insert(slot, Object::new(slot, resource, node, facts));
        self.changes.touched.insert(slot);
        slot
    }

    fn remove(&mut self, slot: u32) {
        if let Some(object) = self.objects.remove(&slot) {
            self.by_resource.remove(&object.resource);
            if let Some(node) = self.nodes.get_mut(&object.node) {
                node.objects.remove(&slot);
            }
            self.changes.touched.remove(&slot);
            self.changes.gone.push(Gone { slot, resource: object.resource, node: object.node });
        }
    }

    fn touch_facts(&mut self, slot: u32) {
        if let Some(object) = self.objects.get_mut(&slot) {
            object.facts_changed = true;
            self.changes.touched.insert(slot);
        }
    }
}
