//! Nodes: enrolled, attached, silent, gone.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use horcrux_proto::agent::v1 as agent;
use horcrux_proto::name::{NodeName, Resource};
use horcrux_proto::v1::{self, EventKind, NodeState};

use super::clock::Clock;
use super::{Enrolled, Facts, Fleet, FleetEvent, Link, LinkId, Node, Told};

/// By then each lane of an agent has read, the slowest as it comes every 30 s.
const DECLARES_WITHIN: Duration = Duration::from_secs(90);

impl Fleet {
    /// A node that may attach. One that is known is only brought up to date.
    pub fn enrolled(&mut self, row: &Enrolled, now: Instant, now_ms: i64) {
        let Ok(name) = row.name.parse::<NodeName>() else { return };
        if let Some(slot) = self.nodes.get(&name).map(|node| node.slot)
            && let Some(Facts::Node(known)) = self.objects.get_mut(&slot).map(|o| &mut o.facts)
        {
            (known.id, known.enrolled_unix_ms) = (row.id.clone(), row.enrolled_ms);
            known.certificate_expires_unix_ms = row.expires_ms;
            self.touch_facts(slot);
            return;
        }
        let ever_seen = row.ever_seen;
        let state = if ever_seen { NodeState::Late } else { NodeState::NeverSeen };
        let node = v1::Node {
            name: format!("nodes/{name}"),
            id: row.id.clone(),
            state: state.into(),
            // Since when it was silent, a controller that was away itself can't know.
            state_since_unix_ms: if ever_seen { now_ms } else { row.enrolled_ms.min(now_ms) },
            enrolled_unix_ms: row.enrolled_ms,
            certificate_expires_unix_ms: row.expires_ms,
            agent_version: row.agent_version.clone(),
            locked_reason: row.locked_reason.clone(),
            ..v1::Node::default()
        };
        let slot = self.insert(Resource::Node(name.clone()), name.clone(), Facts::Node(Box::new(node)));
        let objects = BTreeSet::from([slot]);
        self.nodes.insert(
            name,
            Node {
                slot,
                objects,
                link: None,
                heard: None,
                known_since: now,
                ever_seen,
                is_here: false,
                clock: Clock::default(),
                told: Told::default(),
            },
        );
    }

    /// A node is shut out for a reason, or let in again.
    pub fn locked(&mut self, name: &NodeName, reason: Option<String>, now_ms: i64) {
        let Some(slot) = self.nodes.get(name).map(|node| node.slot) else { return };
        let kind = if reason.is_some() { EventKind::NodeLocked } else { EventKind::NodeUnlocked };
        let detail = reason.clone().unwrap_or_default();
        if let Some(Facts::Node(known)) = self.objects.get_mut(&slot).map(|o| &mut o.facts) {
            known.locked_reason = reason;
        }
        self.touch_facts(slot);
        self.node_event(name, kind, detail, now_ms);
    }

    /// A node that is no longer enrolled.
    pub fn deleted(&mut self, name: &NodeName, now_ms: i64) {
        let Some(node) = self.nodes.remove(name) else { return };
        for slot in node.objects {
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
        self.begins(name, link, &hello.agent_version, now, now_ms);
        self.clock_told(name, hello.node_unix_ms, now_ms);
    }

    /// As [`Fleet::attached`], of the node that this program runs on: there is no controller, and no clock but its own.
    pub fn is_here(&mut self, name: &NodeName, link: LinkId, agent_version: &str, now: Instant, now_ms: i64) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.is_here = true;
        self.begins(name, link, agent_version, now, now_ms);
    }

    fn begins(&mut self, name: &NodeName, link: LinkId, agent_version: &str, now: Instant, now_ms: i64) {
        self.replays(name, link, now);
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.ever_seen = true;
        let slot = node.slot;
        if let Some(Facts::Node(facts)) = self.objects.get_mut(&slot).map(|o| &mut o.facts) {
            facts.agent_version = Some(agent_version.to_owned());
        }
        self.touch_facts(slot);
        self.heard(name, now, now_ms);
    }

    /// What comes next is of `link`, which may be a stream of the past: it says nothing of the node now.
    pub fn replays(&mut self, name: &NodeName, link: LinkId, now: Instant) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.link = Some(Link {
                id: link,
                dictionary: HashMap::new(),
                others: HashSet::new(),
                young_since: Some(now),
            });
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

    /// Whether a node was silent for so long that it no longer speaks for its guests.
    pub(super) fn is_down(&self, name: &NodeName) -> bool {
        match self.node_state(name) {
            NodeState::Down | NodeState::NeverSeen | NodeState::Unspecified => true,
            NodeState::Connected | NodeState::Late | NodeState::Here => false,
        }
    }

    /// Unspecified: there is no such node.
    #[must_use]
    pub fn node_state(&self, name: &NodeName) -> NodeState {
        let object = self.nodes.get(name).and_then(|node| self.objects.get(&node.slot));
        object.map_or(NodeState::Unspecified, |object| match &object.facts {
            Facts::Node(node) => node.state(),
            Facts::Vm(_) | Facts::Container(_) => NodeState::Unspecified,
        })
    }

    /// Something came from a node.
    pub fn heard(&mut self, name: &NodeName, now: Instant, now_ms: i64) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.heard = Some(now);
        if node.link.is_some() {
            let state = if node.is_here { NodeState::Here } else { NodeState::Connected };
            self.set_state(name, state, now_ms);
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

    /// A new stream declares what its agent reads; what only an earlier one declared isn't read any more.
    fn forget_earlier_streams(&mut self, now: Instant) {
        for node in self.nodes.values_mut() {
            let Some(link) = node.link.as_mut() else { continue };
            if link.young_since.is_some_and(|since| now.saturating_duration_since(since) >= DECLARES_WITHIN) {
                link.young_since = None;
                for slot in &node.objects {
                    let Some(object) = self.objects.get_mut(slot) else { continue };
                    object.forget_others(link.id);
                    if object.values_changed {
                        self.changes.touched.insert(*slot);
                    }
                }
            }
        }
    }

    /// How many nodes have a stream.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.nodes.values().filter(|n| n.link.is_some()).count()
    }

    pub fn node_event(&mut self, name: &NodeName, kind: EventKind, detail: String, at_unix_ms: i64) {
        let event = v1::Event { at_unix_ms, resource: format!("nodes/{name}"), kind: kind.into(), detail };
        self.changes.events.push(FleetEvent { node: name.clone(), event });
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
            NodeState::Unspecified | NodeState::NeverSeen | NodeState::Here => return,
        };
        self.node_event(name, kind, String::new(), now_ms);
    }
}
