//! What watchers get. Watchers that asked for the same and may see the same form a group; each tick is encoded once for
//! a group and shared.
//!
//! A group's ticks lie in a ring. A watcher that falls out of it is told how much it missed and starts over from a
//! snapshot; nobody else notices.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use horcrux_proto::catalogue::{self, Kind};
use horcrux_proto::name::{NodeName, Resource, VmUuid};
use horcrux_proto::v1::{
    self, EntityKind, Metric, MetricColumn, MetricsFrame, Topic, WatchResponse, watch_response::Message,
};
use prost::Message as _;

use super::fleet::{Changes, Fleet};
use super::object::{Object, Reading};

/// What one watcher wants and may see. Equal filters share their ticks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    pub topics: BTreeSet<i32>,
    /// With both empty everything passes.
    pub nodes: BTreeSet<NodeName>,
    pub vms: BTreeSet<VmUuid>,
    pub instances: bool,
    pub sees: Sees,
}

/// Which kinds of object the watcher's privileges open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sees {
    pub nodes: bool,
    pub vms: bool,
    pub containers: bool,
}

/// One tick of one group.
#[derive(Clone, Debug)]
pub struct Tick {
    pub messages: Arc<[Bytes]>,
    /// Events in all ticks of this group so far, this one included.
    pub events: u64,
}

/// Objects in one message: keeps a message well below the 4 MiB that clients accept.
const OBJECTS_PER_MESSAGE: usize = 2000;

impl Filter {
    fn wants(&self, topic: Topic) -> bool {
        self.topics.contains(&topic.into())
    }

    fn passes(&self, resource: &Resource, node: &NodeName) -> bool {
        let visible = match resource {
            Resource::Root | Resource::Pool(_) => false,
            Resource::Node(_) => self.sees.nodes,
            Resource::Vm(_) => self.sees.vms,
            Resource::Container(..) => self.sees.containers,
        };
        let wanted = (self.nodes.is_empty() && self.vms.is_empty())
            || self.nodes.contains(node)
            || matches!(resource, Resource::Vm(uuid) if self.vms.contains(uuid));
        visible && wanted
    }

    /// Whether the watcher is told that this exists: slots mean nothing without it.
    fn lists(&self, resource: &Resource, node: &NodeName) -> bool {
        let kind = match resource {
            Resource::Root | Resource::Pool(_) => EntityKind::Unspecified,
            Resource::Node(_) => EntityKind::Node,
            Resource::Vm(_) => EntityKind::Vm,
            Resource::Container(..) => EntityKind::Container,
        };
        (self.wants(Topic::Status) || self.wants_values(kind)) && self.passes(resource, node)
    }

    fn wants_values(&self, kind: EntityKind) -> bool {
        match kind {
            EntityKind::Unspecified => false,
            EntityKind::Node => self.wants(Topic::NodeMetrics),
            EntityKind::Vm => self.wants(Topic::VmMetrics),
            EntityKind::Container => self.wants(Topic::ContainerMetrics),
        }
    }
}

/// All that a new watcher must know, encoded, the last piece marked.
#[must_use]
pub fn snapshot(fleet: &Fleet, filter: &Filter) -> Vec<Bytes> {
    let passing: Vec<&Object> = fleet.objects().filter(|o| filter.lists(&o.resource, &o.node)).collect();
    let pieces = passing.chunks(OBJECTS_PER_MESSAGE).map(|objects| v1::Snapshot {
        entities: objects.iter().map(|o| o.entity()).collect(),
        frames: frames(objects, filter),
        complete: false,
    });
    let mut pieces: Vec<_> = pieces.collect();
    match pieces.last_mut() {
        Some(last) => last.complete = true,
        None => pieces.push(v1::Snapshot { complete: true, ..v1::Snapshot::default() }),
    }
    pieces.into_iter().map(|piece| encode(Message::Snapshot(piece))).collect()
}

/// What a group is told of `changes`; no messages when none of it concerns the group. Returns the number of events too.
#[must_use]
pub fn tick(fleet: &Fleet, changes: &Changes, filter: &Filter, now_ms: i64) -> (Vec<Bytes>, u64) {
    let mut touched: Vec<&Object> = changes
        .touched
        .iter()
        .filter_map(|&slot| fleet.object(slot))
        .filter(|o| filter.lists(&o.resource, &o.node))
        .collect();
    touched.sort_unstable_by_key(|o| o.slot);
    let gone = changes.gone.iter().filter(|g| filter.lists(&g.resource, &g.node)).map(|g| g.slot).collect();
    let events: Vec<_> = if filter.wants(Topic::Events) {
        let passes = |resource: &str, node| {
            resource.parse::<Resource>().is_ok_and(|resource| filter.passes(&resource, node))
        };
        let passing = changes.events.iter().filter(|e| passes(&e.event.resource, &e.node));
        passing.map(|e| e.event.clone()).collect()
    } else {
        Vec::new()
    };
    let event_count = events.len() as u64;
    let mut first = v1::Changes { sent_unix_ms: now_ms, gone, events, ..v1::Changes::default() };
    let mut messages = Vec::new();
    for objects in touched.chunks(OBJECTS_PER_MESSAGE) {
        let mut message =
            std::mem::replace(&mut first, v1::Changes { sent_unix_ms: now_ms, ..v1::Changes::default() });
        message.entities = objects.iter().filter(|o| o.facts_changed).map(|o| o.entity()).collect();
        let valued: Vec<&Object> = objects.iter().copied().filter(|o| o.values_changed).collect();
        message.frames = frames(&valued, filter);
        if !(message.entities.is_empty()
            && message.frames.is_empty()
            && message.gone.is_empty()
            && message.events.is_empty())
        {
            messages.push(encode(Message::Changes(message)));
        }
    }
    if !first.gone.is_empty() || !first.events.is_empty() {
        messages.push(encode(Message::Changes(first)));
    }
    (messages, event_count)
}

/// One message, ready for the wire.
#[must_use]
pub fn encode(message: Message) -> Bytes {
    WatchResponse { message: Some(message) }.encode_to_vec().into()
}

fn frames(objects: &[&Object], filter: &Filter) -> Vec<MetricsFrame> {
    [EntityKind::Node, EntityKind::Vm, EntityKind::Container]
        .into_iter()
        .filter(|&kind| filter.wants_values(kind))
        .filter_map(|kind| {
            let of_kind: Vec<&Object> =
                objects.iter().copied().filter(|o| o.kind() == kind && o.last_sample_ms.is_some()).collect();
            (!of_kind.is_empty()).then(|| frame(kind, &of_kind, filter.instances))
        })
        .collect()
}

fn frame(entity: EntityKind, objects: &[&Object], instances: bool) -> MetricsFrame {
    let newest = objects.iter().filter_map(|o| o.last_sample_ms).max().unwrap_or_default();
    let mut columns: Vec<(Metric, Arc<str>, Vec<f32>)> = Vec::new();
    let mut index: HashMap<(Metric, Arc<str>), usize> = HashMap::new();
    for (row, object) in objects.iter().enumerate() {
        for series in object.series() {
            let Reading::Gauge(value) = series.reading else { continue };
            if (!series.instance.is_empty() && !instances) || !is_gauge(series.metric) {
                continue;
            }
            let column = *index.entry((series.metric, Arc::clone(&series.instance))).or_insert_with(|| {
                columns.push((series.metric, Arc::clone(&series.instance), vec![f32::NAN; objects.len()]));
                columns.len() - 1
            });
            columns[column].2[row] = narrow(value);
        }
    }
    MetricsFrame {
        entity: entity.into(),
        slots: objects.iter().map(|o| o.slot).collect(),
        age_ms: objects
            .iter()
            .map(|o| u32::try_from(newest - o.last_sample_ms.unwrap_or(newest)).unwrap_or(u32::MAX))
            .collect(),
        newest_unix_ms: newest,
        columns: columns
            .into_iter()
            .map(|(metric, instance, values)| MetricColumn {
                metric: metric.into(),
                instance: instance.to_string(),
                values: values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into(),
            })
            .collect(),
    }
}

fn is_gauge(metric: Metric) -> bool {
    catalogue::info(metric).is_some_and(|info| info.kind == Kind::Gauge)
}

#[allow(clippy::cast_possible_truncation, reason = "the contract states the precision of a column")]
fn narrow(value: f64) -> f32 {
    value as f32
}
