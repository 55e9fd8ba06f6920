//! What is on this node now, as the lanes found it: what a controller is told in full when a stream begins, and in
//! changes after that. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use horcrux_proto::agent::v1::{Event, Inventory, event};
use horcrux_proto::name::VmUuid;
use horcrux_proto::parts::Parts;
use horcrux_proto::v1::{
    ContainerFacts, ContainerHealth, ContainerState, EventKind, NodeFacts, Source, SourceState, SourceStatus,
    VmFacts, VmState,
};
use prost::Message as _;

use crate::sample::{Cycle, Found, Happened, Object, SourceReport};

/// The whole.
#[derive(Debug, Default)]
pub struct Present {
    node: Option<NodeFacts>,
    /// By source and instance.
    sources: BTreeMap<(i32, Arc<str>), SourceStatus>,
    vms: BTreeMap<String, VmFacts>,
    /// By the lane that lists them: several do. A VM is in one list at a time.
    listed: HashMap<&'static str, Listed>,
    /// VMs of which it was told what happened to them, so that their next state is no news.
    told: HashSet<VmUuid>,
    containers: BTreeMap<String, ContainerFacts>,
    containers_known: bool,
}

/// A lane's list of VMs, by uuid.
#[derive(Debug)]
struct Listed {
    uuids: BTreeSet<String>,
    extent: Extent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// All that the lane may ever know were in it.
    Whole,
    SoFar,
}

/// Containers that came and went at once are told of one by one up to here: whoever makes and ends groups in a loop leaves
/// room for what else happens.
const MOST_AT_ONCE: usize = 256;
/// Controllers take messages of 4 MiB.
pub const PIECE_BYTES: usize = 1 << 20;

/// What one reading changed. `inventory` is `None` when nothing did.
#[derive(Debug, Default, PartialEq)]
pub struct News {
    pub inventory: Option<Inventory>,
    pub events: Vec<Event>,
}

/// What an event is about.
enum About<'a> {
    Node,
    Vm(&'a str),
    Container(&'a str),
}

impl Present {
    /// Everything, for a stream that begins, in pieces that fit a message.
    #[must_use]
    pub fn whole(&self) -> Vec<Inventory> {
        let first = Inventory { node: self.node_facts(), ..Inventory::default() };
        let mut parts = Parts::new(first, PIECE_BYTES);
        for vm in self.vms.values() {
            parts.for_next(vm.encoded_len()).vms.push(vm.clone());
        }
        for container in self.containers.values() {
            parts.for_next(container.encoded_len()).containers.push(container.clone());
        }
        let mut pieces = parts.all();
        let last = pieces.len() - 1;
        for (at, piece) in pieces.iter_mut().enumerate() {
            piece.complete = true;
            piece.piece = u32::try_from(at).unwrap_or(u32::MAX);
            piece.more_follows = at < last;
        }
        pieces
    }

    /// Takes up what `lane` read. `skipped` says how many readings of what it reports of were skipped so far.
    pub fn learn(
        &mut self,
        lane: &'static str,
        cycle: &Cycle,
        skipped: impl Fn(&SourceReport) -> u64,
    ) -> Vec<News> {
        let at = cycle.taken.unix_ms;
        let mut news = vec![self.happened(&cycle.events, at), self.found(lane, &cycle.found, at)];
        news.extend(cycle.sources.iter().map(|report| self.source(report, skipped(report), at)));
        news
    }

    /// Takes in what a lane found.
    pub fn found(&mut self, lane: &'static str, found: &Found, at_unix_ms: i64) -> News {
        let mut inventory = Inventory::default();
        let mut events = Vec::new();
        match found {
            Found::Nothing => {}
            Found::Node(facts) => {
                if self.node.as_ref() != Some(facts.as_ref()) {
                    self.node = Some((**facts).clone());
                    inventory.node = self.node_facts();
                }
            }
            Found::Vms(list) => {
                self.found_vms(lane, (list, Extent::Whole), at_unix_ms, &mut inventory, &mut events);
            }
            Found::VmsSoFar(list) => {
                self.found_vms(lane, (list, Extent::SoFar), at_unix_ms, &mut inventory, &mut events);
            }
            Found::Containers(list) => {
                let mut tell = |kind, id: &str, detail: String| {
                    events.push(happened(kind, &About::Container(id), detail, at_unix_ms));
                };
                let mut now = BTreeMap::new();
                for container in list {
                    let before = self.containers.get(&container.id);
                    match before {
                        None if self.containers_known => {
                            tell(EventKind::ContainerAppeared, &container.id, container.cgroup_path.clone());
                        }
                        None => {}
                        Some(before) => {
                            if let Some(states) = another_state(before, container) {
                                tell(EventKind::ContainerStateChanged, &container.id, states);
                            }
                            if let Some(healths) = another_health(before, container) {
                                tell(EventKind::ContainerHealthChanged, &container.id, healths);
                            }
                        }
                    }
                    if before != Some(container) {
                        inventory.containers.push(container.clone());
                    }
                    now.insert(container.id.clone(), container.clone());
                }
                for (id, container) in self.containers.iter().filter(|(id, _)| !now.contains_key(*id)) {
                    inventory.gone_containers.push(id.clone());
                    tell(EventKind::ContainerGone, id, container.cgroup_path.clone());
                }
                (self.containers, self.containers_known) = (now, true);
                if events.len() > MOST_AT_ONCE {
                    let detail = format!("{} more events of containers", events.len() - MOST_AT_ONCE);
                    events.truncate(MOST_AT_ONCE);
                    events.push(happened(EventKind::EventsShed, &About::Node, detail, at_unix_ms));
                }
            }
        }
        News { inventory: (inventory != Inventory::default()).then_some(inventory), events }
    }

    fn found_vms(
        &mut self,
        lane: &'static str,
        (list, extent): (&[VmFacts], Extent),
        at_unix_ms: i64,
        inventory: &mut Inventory,
        events: &mut Vec<Event>,
    ) {
        let mut tell = |kind, uuid: &str, detail: String| {
            events.push(happened(kind, &About::Vm(uuid), detail, at_unix_ms));
        };
        let listed = self.listed.get(lane);
        // A lane's first list is how things are, not something that happened.
        let is_first = listed.is_none_or(|before| before.extent == Extent::SoFar);
        let mut now = BTreeSet::new();
        for vm in list {
            let told = vm.uuid.parse().is_ok_and(|uuid| self.told.remove(&uuid));
            let before = self.vms.get(&vm.uuid);
            match before {
                None if !is_first => {
                    tell(EventKind::VmAppeared, &vm.uuid, vm.display_name.clone());
                }
                Some(before) if before.state != vm.state && !told && !is_first => {
                    let states = format!("{}: {} → {}", vm.display_name, word(before), word(vm));
                    tell(EventKind::VmStateChanged, &vm.uuid, states);
                }
                _ => {}
            }
            if before != Some(vm) {
                inventory.vms.push(vm.clone());
                self.vms.insert(vm.uuid.clone(), vm.clone());
            }
            now.insert(vm.uuid.clone());
        }
        let elsewhere =
            |uuid: &String| self.listed.iter().any(|(of, list)| *of != lane && list.uuids.contains(uuid));
        let before = listed.into_iter().flat_map(|list| &list.uuids);
        let gone = before.filter(|uuid| !now.contains(*uuid) && !elsewhere(uuid));
        for uuid in gone {
            if let Ok(uuid) = uuid.parse() {
                self.told.remove(&uuid);
            }
            if let Some(vm) = self.vms.remove(uuid) {
                inventory.gone_vms.push(uuid.clone());
                tell(EventKind::VmGone, uuid, vm.display_name);
            }
        }
        self.listed.insert(lane, Listed { uuids: now, extent });
    }

    /// What lanes saw happen, as news.
    pub fn happened(&mut self, events: &[Happened], at_unix_ms: i64) -> News {
        for Happened { kind, object, .. } in events {
            if let Object::Vm(uuid) = object
                && changes_state(*kind)
                && self.vms.contains_key(&uuid.to_string())
            {
                self.told.insert(*uuid);
            }
        }
        let event = |Happened { kind, object, detail }: &Happened| {
            let tell = |about: &About<'_>| happened(*kind, about, detail.clone(), at_unix_ms);
            match object {
                Object::Node => tell(&About::Node),
                Object::Vm(uuid) => tell(&About::Vm(&uuid.to_string())),
                Object::Container(id) => tell(&About::Container(id.as_str())),
            }
        };
        News { inventory: None, events: events.iter().map(event).collect() }
    }

    /// Takes in how a source is doing, and how many of its readings were skipped so far.
    pub fn source(&mut self, report: &SourceReport, skipped: u64, at_unix_ms: i64) -> News {
        let key = (report.source.into(), Arc::clone(&report.instance));
        let before = self.sources.get(&key);
        let same_state = before.is_some_and(|b| b.state() == report.state);
        if same_state && before.is_some_and(|b| b.detail == report.detail && b.skipped == skipped) {
            return News::default();
        }
        let since_unix_ms = before.filter(|_| same_state).map_or(at_unix_ms, |b| b.since_unix_ms);
        let was_good = before.is_none_or(|b| good(b.state()));
        let mut events = Vec::new();
        if was_good != good(report.state) {
            let kind = if was_good { EventKind::SourceLost } else { EventKind::SourceBack };
            let parts = [source_name(report.source), report.instance.to_string(), report.detail.clone()];
            let said: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            events.push(happened(kind, &About::Node, said.join(" "), at_unix_ms));
        }
        let status = SourceStatus {
            source: report.source.into(),
            state: report.state.into(),
            detail: report.detail.clone(),
            since_unix_ms,
            skipped,
            instance: report.instance.to_string(),
        };
        self.sources.insert(key, status);
        let node = self.node_facts();
        News { inventory: node.is_some().then(|| Inventory { node, ..Inventory::default() }), events }
    }

    /// The node, once it was read.
    #[must_use]
    pub fn node(&self) -> Option<&NodeFacts> {
        self.node.as_ref()
    }

    /// By uuid.
    #[must_use]
    pub fn vms(&self) -> &BTreeMap<String, VmFacts> {
        &self.vms
    }

    /// By id.
    #[must_use]
    pub fn containers(&self) -> &BTreeMap<String, ContainerFacts> {
        &self.containers
    }

    /// How each source is doing.
    pub fn sources(&self) -> impl Iterator<Item = &SourceStatus> {
        self.sources.values()
    }

    fn node_facts(&self) -> Option<NodeFacts> {
        let facts = self.node.as_ref()?;
        Some(NodeFacts { sources: self.sources.values().cloned().collect(), ..facts.clone() })
    }
}

/// Whether a VM's state is another after it.
fn changes_state(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::VmStarted
            | EventKind::VmSuspended
            | EventKind::VmResumed
            | EventKind::VmStopped
            | EventKind::VmMigratedAway
            | EventKind::VmShutDown
            | EventKind::VmPmSuspended
            | EventKind::VmCrashed
    )
}

/// An absent source is as it should be.
pub(crate) fn good(state: SourceState) -> bool {
    match state {
        SourceState::Ok | SourceState::Absent | SourceState::Unspecified => true,
        SourceState::Failing | SourceState::Stuck => false,
    }
}

/// As people read it: `libvirt`, `cgroup_v2`.
#[must_use]
pub fn source_name(source: Source) -> String {
    source.as_str_name().trim_start_matches("SOURCE_").to_lowercase()
}

fn word(vm: &VmFacts) -> String {
    let state: VmState = vm.state();
    lower(state.as_str_name(), "VM_STATE_")
}

/// What its runtime doesn't tell is no state to come from or to go to.
fn another_state(before: &ContainerFacts, now: &ContainerFacts) -> Option<String> {
    let (was, is) = (before.state(), now.state());
    let both = was != ContainerState::Unspecified && is != ContainerState::Unspecified;
    let words = |state: ContainerState| lower(state.as_str_name(), "CONTAINER_STATE_");
    (both && was != is).then(|| format!("{}{} → {}", named(now), words(was), words(is)))
}

fn another_health(before: &ContainerFacts, now: &ContainerFacts) -> Option<String> {
    let (was, is) = (before.health(), now.health());
    let both = was != ContainerHealth::Unspecified && is != ContainerHealth::Unspecified;
    let words = |health: ContainerHealth| lower(health.as_str_name(), "CONTAINER_HEALTH_");
    (both && was != is).then(|| format!("{}{} → {}", named(now), words(was), words(is)))
}

fn named(container: &ContainerFacts) -> String {
    container.display_name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default()
}

fn lower(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase().replace('_', " ")
}

fn happened(kind: EventKind, about: &About<'_>, detail: String, at_unix_ms: i64) -> Event {
    let object = match about {
        About::Node => event::Object::Node(true),
        About::Vm(uuid) => event::Object::VmUuid((*uuid).to_owned()),
        About::Container(id) => event::Object::ContainerId((*id).to_owned()),
    };
    Event { sequence: 0, at_unix_ms, kind: kind.into(), object: Some(object), detail }
}

#[cfg(test)]
mod tests;
