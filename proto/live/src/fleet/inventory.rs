//! What nodes say is on them and happens there.

use std::collections::{HashMap, HashSet};

use horcrux_proto::agent::v1 as agent;
use horcrux_proto::name::{ContainerId, NodeName, Resource, VmUuid};
use horcrux_proto::v1;

use super::{Facts, Fleet, FleetEvent};
use crate::object::Object;

/// VMs that another node than theirs says run there: so it is when one has migrated. Its own node has the word: it must say
/// that the VM has left, or that it has it no more.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// Their own nodes have said that they left.
    left: HashSet<VmUuid>,
    /// What others say of each, the newest last. It isn't said again unless it changes.
    claims: HashMap<VmUuid, Vec<(NodeName, v1::VmFacts)>>,
    /// Those that another took while their own node was silent. When that speaks again, it has the word.
    silent: HashMap<VmUuid, NodeName>,
}

/// How a node comes by a VM that another had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// That one has said that it left.
    GivenUp,
    /// That one is down.
    Silent,
    /// That one took it while this one was down.
    Back,
}

impl Elsewhere {
    fn claim(&mut self, vm: VmUuid, node: &NodeName, facts: &v1::VmFacts) {
        self.unclaim(&vm, node);
        self.claims.entry(vm).or_default().push((node.clone(), facts.clone()));
    }

    fn unclaim(&mut self, vm: &VmUuid, node: &NodeName) {
        if let Some(claims) = self.claims.get_mut(vm) {
            claims.retain(|(of, _)| of != node);
            if claims.is_empty() {
                self.claims.remove(vm);
            }
        }
    }
}

impl Fleet {
    /// What a node says is on it.
    pub fn inventory(&mut self, name: &NodeName, inventory: &agent::Inventory) {
        let Some(slot) = self.nodes.get(name).map(|n| n.slot) else { return };
        if let Some(facts) = &inventory.node {
            if let Some(Facts::Node(node)) = self.objects.get_mut(&slot).map(|o| &mut o.facts) {
                node.facts = Some(facts.clone());
            }
            self.touch_facts(slot);
        }
        let no_more = |uuid: &VmUuid| {
            inventory.complete || inventory.gone_vms.iter().any(|gone| gone.parse() == Ok(*uuid))
        };
        let left: Vec<VmUuid> = self.elsewhere.claims.keys().filter(|uuid| no_more(uuid)).copied().collect();
        left.iter().for_each(|uuid| self.elsewhere.unclaim(uuid, name));
        let has_back = |uuid: &VmUuid| inventory.vms.iter().any(|vm| vm.uuid.parse() == Ok(*uuid));
        self.elsewhere.silent.retain(|uuid, of| of != name || !no_more(uuid) || has_back(uuid));
        let mut listed = HashSet::from([slot]);
        for vm in &inventory.vms {
            listed.extend(self.vm(name, vm));
        }
        for container in &inventory.containers {
            listed.extend(self.container(name, container));
        }
        let gone: Vec<u32> = if inventory.complete {
            let here = self.nodes.get(name).map(|n| &n.objects);
            here.into_iter().flatten().filter(|slot| !listed.contains(slot)).copied().collect()
        } else {
            let vms = inventory.gone_vms.iter().filter_map(|u| u.parse().ok()).map(Resource::Vm);
            let containers = inventory.gone_containers.iter().filter_map(|id| id.parse().ok());
            let containers = containers.map(|id: ContainerId| Resource::Container(name.clone(), id));
            let named = vms.chain(containers).filter_map(|r| self.by_resource.get(&r).copied());
            named.filter(|slot| self.objects.get(slot).is_some_and(|o| o.node == *name)).collect()
        };
        for slot in gone {
            let vm = self.objects.get(&slot).and_then(|object| match &object.resource {
                Resource::Vm(uuid) => Some(*uuid),
                Resource::Node(_) | Resource::Container(..) | Resource::Pool(_) | Resource::Root => None,
            });
            self.remove(slot);
            if let Some(vm) = vm {
                self.free(vm);
            }
        }
    }

    /// A VM is nobody's any more, or was given up: who said last that it runs there has it.
    fn free(&mut self, vm: VmUuid) {
        self.elsewhere.silent.remove(&vm);
        let claims = self.elsewhere.claims.get(&vm).into_iter().flatten();
        if let Some((node, facts)) = claims.rev().find(|(node, _)| self.is_linked(node)).cloned() {
            self.elsewhere.unclaim(&vm, &node);
            self.vm(&node, &facts);
        }
    }

    /// Whether a VM is where it is by the word of that node alone: the one that had it was silent, or a third says that it
    /// runs there.
    #[must_use]
    pub fn is_contested(&self, vm: &VmUuid) -> bool {
        let claims = self.elsewhere.claims.get(vm).into_iter().flatten();
        self.elsewhere.silent.contains_key(vm) || claims.into_iter().any(|(node, _)| self.is_linked(node))
    }

    fn is_linked(&self, node: &NodeName) -> bool {
        self.nodes.get(node).is_some_and(|node| node.link.is_some())
    }

    fn vm(&mut self, node: &NodeName, facts: &v1::VmFacts) -> Option<u32> {
        let uuid: VmUuid = facts.uuid.parse().ok()?;
        let resource = Resource::Vm(uuid);
        if let Some(&slot) = self.by_resource.get(&resource) {
            let owner = self.objects.get(&slot)?.node.clone();
            let is_off = facts.state().is_off();
            if owner == *node {
                if !is_off {
                    self.elsewhere.left.remove(&uuid);
                }
            } else if let Some(how) = self.may_have(&uuid, node, &owner, is_off) {
                match how {
                    Taken::GivenUp => self.elsewhere.silent.remove(&uuid),
                    Taken::Silent => {
                        // Of several that were silent, the first had it.
                        self.elsewhere.silent.entry(uuid).or_insert(owner);
                        None
                    }
                    Taken::Back => {
                        *self.counts.entry("guest_given_back").or_default() += 1;
                        // It hasn't taken back what it says.
                        if let Some(Facts::Vm(vm)) = self.objects.get(&slot).map(|o| &o.facts)
                            && let Some(said) = vm.facts.clone().filter(|said| !said.state().is_off())
                        {
                            self.elsewhere.claim(uuid, &owner, &said);
                        }
                        self.elsewhere.silent.remove(&uuid)
                    }
                };
                self.elsewhere.left.remove(&uuid);
                self.elsewhere.unclaim(&uuid, node);
                self.move_to(slot, node);
                self.speaks_for_more(node);
            } else {
                // Its holder may only be reconnecting.
                *self.counts.entry("foreign_guest").or_default() += 1;
                if is_off {
                    self.elsewhere.unclaim(&uuid, node);
                } else {
                    self.elsewhere.claim(uuid, node, facts);
                }
                return None;
            }
        } else {
            self.speaks_for_more(node);
        }
        let vm = v1::Vm {
            name: resource.to_string(),
            node: format!("nodes/{node}"),
            facts: Some(facts.clone()),
            ..v1::Vm::default()
        };
        Some(self.put(resource, node.clone(), Facts::Vm(Box::new(vm))))
    }

    /// Whether a VM that another has is this node's from now on, and why.
    fn may_have(&mut self, vm: &VmUuid, node: &NodeName, owner: &NodeName, is_off: bool) -> Option<Taken> {
        let was_its = self.elsewhere.silent.get(vm) == Some(node);
        if was_its && !is_off {
            return Some(Taken::Back);
        }
        if was_its {
            // It agrees.
            self.elsewhere.silent.remove(vm);
        }
        if !is_off && self.elsewhere.left.contains(vm) {
            Some(Taken::GivenUp)
        } else {
            self.is_down(owner).then_some(Taken::Silent)
        }
    }

    /// Values that were another's to tell so far are asked for: of ids that are not known.
    fn speaks_for_more(&mut self, node: &NodeName) {
        if let Some(link) = self.nodes.get_mut(node).and_then(|node| node.link.as_mut()) {
            link.others.clear();
        }
    }

    fn container(&mut self, node: &NodeName, facts: &v1::ContainerFacts) -> Option<u32> {
        let id: ContainerId = facts.id.parse().ok()?;
        let resource = Resource::Container(node.clone(), id);
        let container = v1::Container {
            name: resource.to_string(),
            node: format!("nodes/{node}"),
            facts: Some(facts.clone()),
            ..v1::Container::default()
        };
        Some(self.put(resource, node.clone(), Facts::Container(Box::new(container))))
    }

    /// Something that happened on a node, told by it. What the controller itself tells isn't a node's to say.
    pub fn event(&mut self, name: &NodeName, epoch: u64, event: &agent::Event) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        if !node.told.is_new(epoch, event.sequence) {
            return;
        }
        let resource = match &event.object {
            Some(agent::event::Object::VmUuid(uuid)) => uuid.parse().ok().map(Resource::Vm),
            Some(agent::event::Object::ContainerId(id)) => {
                id.parse().ok().map(|id| Resource::Container(name.clone(), id))
            }
            Some(agent::event::Object::Node(_)) | None => Some(Resource::Node(name.clone())),
        };
        let Some(resource) = resource else { return };
        if self.find(&resource).is_some_and(|object| object.node != *name) {
            *self.counts.entry("foreign_guest").or_default() += 1;
            return;
        }
        if let (Resource::Vm(vm), v1::EventKind::VmMigratedAway) = (&resource, event.kind())
            && self.by_resource.contains_key(&resource)
        {
            self.elsewhere.left.insert(*vm);
            self.free(*vm);
        }
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

    /// A VM that turned up on another node. Its series begin anew: another kernel counts them.
    fn move_to(&mut self, slot: u32, node: &NodeName) {
        if let Some(object) = self.objects.get_mut(&slot) {
            let fresh = Object::new(slot, object.resource.clone(), node.clone(), object.facts.clone());
            let left = std::mem::replace(object, fresh).node;
            if let Some(left) = self.nodes.get_mut(&left) {
                left.objects.remove(&slot);
            }
            if let Some(node) = self.nodes.get_mut(node) {
                node.objects.insert(slot);
            }
            self.changes.touched.insert(slot);
        }
    }
}
