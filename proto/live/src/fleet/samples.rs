//! What was read, and what follows from it.

use std::collections::BTreeMap;

use horcrux_proto::agent::v1::{SampleBatch, series};
use horcrux_proto::name::{NodeName, Resource};
use horcrux_proto::rates::Point;

use super::{Facts, Fleet, Link, LinkId};
use crate::derive::{self, Host};
use crate::object::{Object, Owner, Place};

/// Series of one node and all that is on it, derived ones included: several times what a host with 1,000 containers and
/// 300 VMs has, and what keeps a hostile node from growing the controller.
pub const MAX_SERIES: usize = 300_000;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    Yes,
    /// It used ids that were not declared: the node should declare all again.
    Unknown,
    /// It declared more series than a node, or one thing on it, may have. No value of it was taken.
    TooMany,
    /// It came from a stream that is no longer the node's.
    Stale,
}

#[derive(Clone, Copy)]
enum Value {
    Counter(u64),
    Gauge(f64),
}

impl Fleet {
    /// A reading of one lane.
    pub fn samples(&mut self, name: &NodeName, link: LinkId, batch: &SampleBatch) -> Applied {
        if !self.nodes.get(name).and_then(|n| n.link.as_ref()).is_some_and(|l| l.id == link) {
            return Applied::Stale;
        }
        if !self.room_for(name, link, batch.declared.len()) {
            return Applied::TooMany;
        }
        let Some(node) = self.nodes.get_mut(name) else { return Applied::Stale };
        let Some(current) = node.link.as_mut() else { return Applied::Stale };
        let (node_slot, host) = (node.slot, host(&self.objects, node.slot));
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
            let object = match slot.and_then(|slot| self.objects.get_mut(&slot)) {
                Some(object) if object.node == *name => object,
                Some(_) => {
                    current.others.insert(declared.id);
                    continue;
                }
                None => {
                    *self.counts.entry("series_of_unknown_object").or_default() += 1;
                    continue;
                }
            };
            if !object.has_room(&declared.instance) {
                return Applied::TooMany;
            }
            let owner = Owner { link, id: declared.id };
            let instance = self.names.shared(&declared.instance);
            let place = object.declare(declared.metric(), &instance, declared.source(), Some(owner));
            current.dictionary.insert(declared.id, (object.slot, place));
            current.others.remove(&declared.id);
        }
        for id in &batch.retired {
            current.others.remove(id);
            if let Some((slot, place)) = current.dictionary.remove(id)
                && let Some(object) = self.objects.get_mut(&slot)
            {
                object.retire(place, Owner { link, id: *id });
            }
        }
        let (at_ns, taken_ms) = (batch.taken_boottime_ns, batch.taken_unix_ms);
        let counters = batch.counter_ids.iter().zip(batch.counters.iter().map(|&c| Value::Counter(c)));
        let gauges = batch.gauge_ids.iter().zip(batch.gauges.iter().map(|&g| Value::Gauge(g)));
        let mut unknown = 0_u64;
        let mut values: Vec<(u32, Place, Value)> =
            Vec::with_capacity(batch.counters.len() + batch.gauges.len());
        for (id, value) in counters.chain(gauges) {
            match current.dictionary.get(id) {
                Some(&(slot, place)) => values.push((slot, place, value)),
                None if current.others.contains(id) => {}
                None => unknown += 1,
            }
        }
        values.sort_by_key(|(slot, ..)| *slot);
        for of_one in values.chunk_by(|a, b| a.0 == b.0) {
            let slot = of_one[0].0;
            let Some(object) = self.objects.get_mut(&slot) else { continue };
            for &(_, place, value) in of_one {
                match value {
                    Value::Counter(count) => object.set_counter(place, Point { at_ns, count }, taken_ms),
                    Value::Gauge(value) => object.set_gauge(place, value, taken_ms),
                }
            }
            derive::update(object, of_one.iter().map(|(_, place, _)| *place), host, taken_ms);
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

    /// Whether a node may declare so many series more. When it is near the bound, what only its earlier streams
    /// declared is forgotten first.
    fn room_for(&mut self, name: &NodeName, link: LinkId, more: usize) -> bool {
        let Some(node) = self.nodes.get(name) else { return false };
        if more == 0 {
            return true;
        }
        // Several ids may stand for one series.
        let ids = |link: &Link| link.dictionary.len().saturating_add(link.others.len()).saturating_add(more);
        if node.link.as_ref().is_some_and(|link| ids(link) > MAX_SERIES) {
            return false;
        }
        let held = |objects: &BTreeMap<u32, Object>| -> usize {
            node.objects.iter().filter_map(|slot| objects.get(slot)).map(Object::series_count).sum()
        };
        if held(&self.objects).saturating_add(more) <= MAX_SERIES {
            return true;
        }
        for slot in &node.objects {
            if let Some(object) = self.objects.get_mut(slot) {
                object.forget_others(link);
            }
        }
        held(&self.objects).saturating_add(more) <= MAX_SERIES
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
