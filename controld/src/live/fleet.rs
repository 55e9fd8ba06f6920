//! The current state of everything: a pure model. One task owns it and tells it what came and what time it is.
//!
//! A node speaks for itself only. What it says of a VM that another connected node holds is refused and counted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use horcrux_proto::agent::v1::{self as agent, SampleBatch, series};
use horcrux_proto::name::{ContainerId, NodeName, Resource, VmUuid};
use horcrux_proto::rates::Point;
use horcrux_proto::v1::{self, EventKind, NodeState};

use super::derive::{self, Host};
use super::names::Names;
use super::object::{Facts, Object, Owner, Place};
use crate::store::nodes::NodeRow;

/// When a silent node is late, and when it is down.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub late_after: Duration,
    pub down_after: Duration,
}

/// By then each lane of an agent has read, the slowest as it comes every 30 s.
const DECLARES_WITHIN: Duration = Duration::from_secs(90);

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
    link: Option<Link>,
    /// When anything last came from it.
    heard: Option<Instant>,
    /// Until it is first heard of, it gets the time since this controller's start.
    known_since: Instant,
    ever_seen: bool,
}

#[derive(Debug)]
struct Link {
    id: LinkId,
    /// Series ids of this stream: object and place in it.
    dictionary: HashMap<u32, (u32, Place)>,
    /// Since when it stands; `None` once what earlier streams declared was forgotten.
    young_since: Option<Instant>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    Yes,
    /// It used ids that were not declared: the node should declare all again.
    Unknown,
    /// It came from a stream that is no longer the node's.
    Stale,
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
            counts: BTreeMap::new(),
        }
    }

    /// A node that may attach.
    pub fn enrolled(&mut self, row: &NodeRow, now: Instant, now_ms: i64) {
        let Ok(name) = row.name.parse::<NodeName>() else { return };
        let ever_seen = row.last_seen_ms.is_some();
        let state = if ever_seen { NodeState::Late } else { NodeState::NeverSeen };
        let node = v1::Node {
            name: format!("nodes/{name}"),
            id: row.id.clone(),
            state: state.into(),
            state_since_unix_ms: row.last_seen_ms.unwrap_or(row.enrolled_ms).min(now_ms),
            enrolled_unix_ms: row.enrolled_ms,
            certificate_expires_unix_ms: row.expires_ms,
            agent_version: row.agent_version.clone(),
            ..v1::Node::default()
        };
        let slot = self.insert(Resource::Node(name.clone()), name.clone(), Facts::Node(Box::new(node)));
        self.nodes.insert(name, Node { slot, link: None, heard: None, known_since: now, ever_seen });
    }

    /// A node that is no longer enrolled.
    pub fn deleted(&mut self, name: &NodeName, now_ms: i64) {
        if self.nodes.remove(name).is_none() {
            return;
        }
        let slots: Vec<u32> = self.objects.values().filter(|o| o.node == *name).map(|o| o.slot).collect();
        for slot in slots {
            self.remove(slot);
        }
        self.node_event(name, EventKind::NodeDeleted, String::new(), now_ms);
    }

    /// A stream of a node begins, and replaces the one before it.
    pub fn attached(
        &mut self,
        name: &NodeName,
        link: LinkId,
        hello: &agent::Hello,
        now: Instant,
        now_ms: i64,
    ) {
        self.replays(name, link, now);
        let Some(node) = self.nodes.get_mut(name) else { return };
        (node.heard, node.ever_seen) = (Some(now), true);
        let slot = node.slot;
        if let Some(Facts::Node(facts)) = self.objects.get_mut(&slot).map(|o| &mut o.facts) {
            facts.agent_version = Some(hello.agent_version.clone());
            facts.clock_offset_ms = Some(hello.node_unix_ms - now_ms);
        }
        self.touch_facts(slot);
        self.set_state(name, NodeState::Connected, now_ms);
    }

    /// What comes next is of `link`, which may be a stream of the past: it says nothing of the node now.
    pub fn replays(&mut self, name: &NodeName, link: LinkId, now: Instant) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.link = Some(Link { id: link, dictionary: HashMap::new(), young_since: Some(now) });
        }
    }

    /// A stream of a node ended. Of one that was replaced nothing is said.
    pub fn detached(&mut self, name: &NodeName, link: LinkId, now_ms: i64) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        if node.link.as_ref().is_some_and(|l| l.id == link) {
            node.link = None;
            self.set_state(name, NodeState::Late, now_ms);
        }
    }

    /// Something came from a node.
    pub fn heard(&mut self, name: &NodeName, now: Instant, now_ms: i64) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.heard = Some(now);
        if node.link.is_some() {
            self.set_state(name, NodeState::Connected, now_ms);
        }
    }

    /// Whether `link` is the node's current stream.
    #[must_use]
    pub fn is_current(&self, name: &NodeName, link: LinkId) -> bool {
        self.nodes.get(name).and_then(|n| n.link.as_ref()).is_some_and(|l| l.id == link)
    }

    /// Notes silence. To be called at every tick.
    pub fn pass_time(&mut self, now: Instant, now_ms: i64) {
        self.forget_earlier_streams(now);
        let patience = self.patience;
        let due: Vec<_> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.ever_seen)
            .filter_map(|(name, node)| {
                let silent = now.saturating_duration_since(node.heard.unwrap_or(node.known_since));
                if silent >= patience.down_after {
                    Some((name.clone(), NodeState::Down))
                } else if silent >= patience.late_after {
                    Some((name.clone(), NodeState::Late))
                } else {
                    None
                }
            })
            .collect();
        for (name, state) in due {
            self.set_state(&name, state, now_ms);
        }
    }

    /// What a node says is on it.
    pub fn inventory(&mut self, name: &NodeName, inventory: &agent::Inventory, now_ms: i64) {
        let Some(slot) = self.nodes.get(name).map(|n| n.slot) else { return };
        if let Some(facts) = &inventory.node {
            if let Some(Facts::Node(node)) = self.objects.get_mut(&slot).map(|o| &mut o.facts) {
                node.facts = Some(facts.clone());
            }
            self.touch_facts(slot);
        }
        let mut listed = HashSet::from([slot]);
        for vm in &inventory.vms {
            listed.extend(self.vm(name, vm));
        }
        for container in &inventory.containers {
            listed.extend(self.container(name, container));
        }
        let gone: Vec<u32> = if inventory.complete {
            let here = self.objects.values().filter(|o| o.node == *name).map(|o| o.slot);
            here.filter(|slot| !listed.contains(slot)).collect()
        } else {
            let vms = inventory.gone_vms.iter().filter_map(|u| u.parse().ok()).map(Resource::Vm);
            let containers = inventory.gone_containers.iter().filter_map(|id| id.parse().ok());
            let containers = containers.map(|id: ContainerId| Resource::Container(name.clone(), id));
            let named = vms.chain(containers).filter_map(|r| self.by_resource.get(&r).copied());
            named.filter(|slot| self.objects.get(slot).is_some_and(|o| o.node == *name)).collect()
        };
        for slot in gone {
            self.remove(slot);
        }
        self.heard_of(name, now_ms);
    }

    /// A new stream declares what its agent reads; what only an earlier one declared isn't read any more.
    fn forget_earlier_streams(&mut self, now: Instant) {
        for (name, node) in &mut self.nodes {
            let Some(link) = node.link.as_mut() else { continue };
            if link.young_since.is_some_and(|since| now.saturating_duration_since(since) >= DECLARES_WITHIN) {
                link.young_since = None;
                for object in self.objects.values_mut().filter(|object| object.node == *name) {
                    object.forget_others(link.id);
                    if object.values_changed {
                        self.changes.touched.insert(object.slot);
                    }
                }
            }
        }
    }

    fn heard_of(&mut self, name: &NodeName, now_ms: i64) {
        // Facts that came with an inventory make a node's state visible again; time itself is kept by `heard`.
        if self.nodes.get(name).is_some_and(|n| n.link.is_some()) {
            self.set_state(name, NodeState::Connected, now_ms);
        }
    }

    fn vm(&mut self, node: &NodeName, facts: &v1::VmFacts) -> Option<u32> {
        let uuid: VmUuid = facts.uuid.parse().ok()?;
        let resource = Resource::Vm(uuid);
        if let Some(&slot) = self.by_resource.get(&resource) {
            let owner = self.objects.get(&slot)?.node.clone();
            if owner != *node && self.nodes.get(&owner).is_some_and(|n| n.link.is_some()) {
                *self.counts.entry("foreign_guest").or_default() += 1;
                return None;
            }
            if owner != *node {
                self.move_to(slot, node);
            }
        }
        let vm = v1::Vm {
            name: resource.to_string(),
            node: format!("nodes/{node}"),
            facts: Some(facts.clone()),
            last_sample_unix_ms: None,
        };
        Some(self.put(resource, node.clone(), Facts::Vm(Box::new(vm))))
    }

    fn container(&mut self, node: &NodeName, facts: &v1::ContainerFacts) -> Option<u32> {
        let id: ContainerId = facts.id.parse().ok()?;
        let resource = Resource::Container(node.clone(), id);
        let container = v1::Container {
            name: resource.to_string(),
            node: format!("nodes/{node}"),
            facts: Some(facts.clone()),
            last_sample_unix_ms: None,
        };
        Some(self.put(resource, node.clone(), Facts::Container(Box::new(container))))
    }

    /// A reading of one lane.
    pub fn samples(&mut self, name: &NodeName, link: LinkId, batch: &SampleBatch) -> Applied {
        let Some(node) = self.nodes.get_mut(name) else { return Applied::Stale };
        let (node_slot, host) = (node.slot, host(&self.objects, node.slot));
        let Some(current) = node.link.as_mut().filter(|l| l.id == link) else { return Applied::Stale };
        for declared in &batch.declared {
            let resource = match &declared.object {
                Some(series::Object::Node(true)) => Some(Resource::Node(name.clone())),
                Some(series::Object::VmUuid(uuid)) => uuid.parse().ok().map(Resource::Vm),
                Some(series::Object::ContainerId(id)) => {
                    id.parse().ok().map(|id| Resource::Container(name.clone(), id))
                }
                Some(series::Object::Node(false)) | None => None,
            };
            let slot = resource.and_then(|r| self.by_resource.get(&r).copied());
            // Its owner may be another node, which is the one to speak for it.
            let object = slot.and_then(|slot| self.objects.get_mut(&slot)).filter(|o| o.node == *name);
            let Some(object) = object else {
                *self.counts.entry("series_of_unknown_object").or_default() += 1;
                continue;
            };
            let owner = Owner { link, id: declared.id };
            let instance = self.names.shared(&declared.instance);
            let place = object.declare(declared.metric(), &instance, declared.source(), Some(owner));
            current.dictionary.insert(declared.id, (object.slot, place));
        }
        for id in &batch.retired {
            if let Some((slot, place)) = current.dictionary.remove(id)
                && let Some(object) = self.objects.get_mut(&slot)
            {
                object.retire(place, Owner { link, id: *id });
            }
        }
        let mut unknown = 0_u64;
        let mut updated: BTreeMap<u32, Vec<Place>> = BTreeMap::new();
        let (at_ns, taken_ms) = (batch.taken_boottime_ns, batch.taken_unix_ms);
        let objects = &mut self.objects;
        let mut each = |id: &u32, set: &dyn Fn(&mut Object, Place)| match current.dictionary.get(id) {
            Some(&(slot, place)) => {
                if let Some(object) = objects.get_mut(&slot) {
                    set(object, place);
                    updated.entry(slot).or_default().push(place);
                }
            }
            None => unknown += 1,
        };
        for (id, &count) in batch.counter_ids.iter().zip(&batch.counters) {
            each(id, &|object, place| object.set_counter(place, Point { at_ns, count }, taken_ms));
        }
        for (id, &value) in batch.gauge_ids.iter().zip(&batch.gauges) {
            each(id, &|object, place| object.set_gauge(place, value, taken_ms));
        }
        for (slot, updated) in updated {
            let Some(object) = self.objects.get_mut(&slot) else { continue };
            derive::update(object, &updated, host, taken_ms);
            object.last_sample_ms = object.last_sample_ms.max(Some(taken_ms));
            object.values_changed = true;
            self.changes.touched.insert(slot);
        }
        if let Some(node) = self.objects.get_mut(&node_slot) {
            node.last_sample_ms = node.last_sample_ms.max(Some(taken_ms));
        }
        if unknown > 0 {
            *self.counts.entry("values_of_undeclared_series").or_default() += unknown;
            return Applied::Unknown;
        }
        Applied::Yes
    }

    /// Something that happened on a node, told by it.
    pub fn event(&mut self, name: &NodeName, event: &agent::Event) {
        let resource = match &event.object {
            Some(agent::event::Object::VmUuid(uuid)) => uuid.parse().ok().map(Resource::Vm),
            Some(agent::event::Object::ContainerId(id)) => {
                id.parse().ok().map(|id| Resource::Container(name.clone(), id))
            }
            Some(agent::event::Object::Node(_)) | None => Some(Resource::Node(name.clone())),
        };
        let Some(resource) = resource else { return };
        self.changes.events.push(FleetEvent {
            node: name.clone(),
            event: v1::Event {
                at_unix_ms: event.at_unix_ms,
                resource: resource.to_string(),
                kind: event.kind,
                detail: event.detail.clone(),
            },
        });
    }

    pub fn node_event(&mut self, name: &NodeName, kind: EventKind, detail: String, at_unix_ms: i64) {
        let event = v1::Event { at_unix_ms, resource: format!("nodes/{name}"), kind: kind.into(), detail };
        self.changes.events.push(FleetEvent { node: name.clone(), event });
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

    /// How many nodes are in each state.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.nodes.values().filter(|n| n.link.is_some()).count()
    }

    fn set_state(&mut self, name: &NodeName, state: NodeState, now_ms: i64) {
        let Some(slot) = self.nodes.get(name).map(|n| n.slot) else { return };
        let Some(Facts::Node(node)) = self.objects.get_mut(&slot).map(|o| &mut o.facts) else { return };
        if node.state() == state {
            return;
        }
        node.set_state(state);
        node.state_since_unix_ms = now_ms;
        self.touch_facts(slot);
        let kind = match state {
            NodeState::Connected => EventKind::NodeConnected,
            NodeState::Late => EventKind::NodeLate,
            NodeState::Down => EventKind::NodeDown,
            NodeState::Unspecified | NodeState::NeverSeen => return,
        };
        self.node_event(name, kind, String::new(), now_ms);
    }

    fn put(&mut self, resource: Resource, node: NodeName, facts: Facts) -> u32 {
        let Some(&slot) = self.by_resource.get(&resource) else { return self.insert(resource, node, facts) };
        let changed = self.objects.get_mut(&slot).is_some_and(|object| {
            let changed = object.facts != facts;
            object.facts = facts;
            changed
        });
        if changed {
            self.touch_facts(slot);
        }
        slot
    }

    fn insert(&mut self, resource: Resource, node: NodeName, facts: Facts) -> u32 {
        let slot = self.next_slot;
        self.next_slot += 1;
        self.by_resource.insert(resource.clone(), slot);
        self.objects.insert(slot, Object::new(slot, resource, node, facts));
        self.changes.touched.insert(slot);
        slot
    }

    /// A VM that turned up on another node. Its series begin anew: another kernel counts them.
    fn move_to(&mut self, slot: u32, node: &NodeName) {
        if let Some(object) = self.objects.get_mut(&slot) {
            let fresh = Object::new(slot, object.resource.clone(), node.clone(), object.facts.clone());
            *object = fresh;
            self.changes.touched.insert(slot);
        }
    }

    fn remove(&mut self, slot: u32) {
        if let Some(object) = self.objects.remove(&slot) {
            self.by_resource.remove(&object.resource);
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

fn host(objects: &BTreeMap<u32, Object>, node_slot: u32) -> Host {
    let facts = objects.get(&node_slot).and_then(|o| match &o.facts {
        Facts::Node(node) => node.facts.as_ref(),
        Facts::Vm(_) | Facts::Container(_) => None,
    });
    facts.map_or_else(Host::default, |f| Host {
        cpus: f64::from(f.cpus),
        memory_bytes: horcrux_proto::rates::float(f.memory_bytes),
    })
}
