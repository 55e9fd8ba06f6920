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
    /// What another says of each. It isn't said again unless it changes.
    claims: HashMap<VmUuid, (NodeName, v1::VmFacts)>,
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
        self.elsewhere.claims.retain(|uuid, (of, _)| of != name || !no_more(uuid));
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

    /// A VM is nobody's any more, or was given up: who said that it runs there has it.
    fn free(&mut self, vm: VmUuid) {
        if let Some((node, facts)) = self.elsewhere.claims.remove(&vm)
            && self.nodes.get(&node).is_some_and(|node| node.link.is_some())
        {
            self.vm(&node, &facts);
        }
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
            } else if self.is_down(&owner) || (!is_off && self.elsewhere.left.contains(&uuid)) {
                self.elsewhere.left.remove(&uuid);
                self.elsewhere.claims.remove(&uuid);
                self.move_to(slot, node);
                self.speaks_for_more(node);
            } else {
                // Its holder may only be reconnecting.
                *self.counts.entry("foreign_guest").or_default() += 1;
                if !is_off {
                    self.elsewhere.claims.insert(uuid, (node.clone(), facts.clone()));
                } else if self.elsewhere.claims.get(&uuid).is_some_and(|(of, _)| of == node) {
                    self.elsewhere.claims.remove(&uuid);
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
