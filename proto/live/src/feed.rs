//! What watchers get. Watchers that asked for the same and may see the same form a group; each tick is encoded once for
//! a group and shared.
//!
//! A group's ticks lie in a ring. A watcher that falls out of it is told how much it missed and starts over from a
//! snapshot; nobody else notices.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;
use horcrux_proto::catalogue::{self, Kind};
use horcrux_proto::name::{NodeName, PoolName, Resource, VmUuid};
use horcrux_proto::parts::Parts;
use horcrux_proto::v1::{
    self, EntityKind, Metric, MetricColumn, MetricsFrame, Topic, WatchResponse, watch_response::Message,
};
use prost::Message as _;

use crate::fleet::{Changes, Fleet};
use crate::object::{Object, Reading};

/// What one watcher wants and may see. Equal filters share their ticks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter<S> {
    pub topics: BTreeSet<i32>,
    /// With all three empty everything passes.
    pub nodes: BTreeSet<NodeName>,
    pub vms: BTreeSet<VmUuid>,
    pub pools: BTreeSet<PoolName>,
    pub instances: bool,
    pub sight: S,
}

/// What a watcher may see. Those that are equal see the same.
pub trait Sight: Clone + Eq + Hash + Send + Sync + 'static {
    fn sees(&self, resource: &Resource) -> bool;

    /// Whether something is in one of these pools.
    fn is_in(&self, resource: &Resource, pools: &BTreeSet<PoolName>) -> bool;
}

/// One tick of one group.
#[derive(Clone, Debug)]
pub struct Tick {
    pub messages: Arc<[Bytes]>,
    /// Events in all ticks of this group so far, this one included.
    pub events: u64,
}

/// Clients accept 4 MiB. A message ends with the object that takes it over this; one object is smaller still.
const MESSAGE_BYTES: usize = 1 << 20;
/// A frame is a full grid of objects and columns. Where objects have instances of their own it is mostly blanks: beyond
/// so many cells at least half must hold a value, or another frame begins.
const SPARSE_CELLS: usize = 4096;
const FRAME_CELLS: usize = 128 << 10;

impl<S: Sight> Filter<S> {
    fn wants(&self, topic: Topic) -> bool {
        self.topics.contains(&topic.into())
    }

    fn passes(&self, resource: &Resource, node: &NodeName) -> bool {
        let wanted = (self.nodes.is_empty() && self.vms.is_empty() && self.pools.is_empty())
            || self.nodes.contains(node)
            || matches!(resource, Resource::Vm(uuid) if self.vms.contains(uuid))
            || (!self.pools.is_empty() && self.sight.is_in(resource, &self.pools));
        wanted && self.sight.sees(resource)
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
pub fn snapshot<S: Sight>(fleet: &Fleet, filter: &Filter<S>) -> Vec<Bytes> {
    let passing: Vec<&Object> = fleet.objects().filter(|o| filter.lists(&o.resource, &o.node)).collect();
    let mut parts = Parts::new(v1::Snapshot::default(), MESSAGE_BYTES);
    for object in &passing {
        let entity = object.entity();
        parts.for_next(entity.encoded_len()).entities.push(entity);
    }
    // Slots mean something once their entities were told: frames come after all of those.
    for frame in frames(&passing, filter) {
        parts.for_next(frame.encoded_len()).frames.push(frame);
    }
    let mut parts = parts.all();
    if let Some(last) = parts.last_mut() {
        last.complete = true;
    }
    parts.into_iter().map(|part| encode(Message::Snapshot(part))).collect()
}

/// What a group is told of `changes`; no messages when none of it concerns the group. Returns the number of events too.
#[must_use]
pub fn tick<S: Sight>(
    fleet: &Fleet,
    changes: &Changes,
    filter: &Filter<S>,
    now_ms: i64,
) -> (Vec<Bytes>, u64) {
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
    let mut parts = Parts::new(v1::Changes { gone, ..v1::Changes::default() }, MESSAGE_BYTES);
    for event in events {
        parts.for_next(event.encoded_len()).events.push(event);
    }
    for object in touched.iter().filter(|o| o.facts_changed) {
        let entity = object.entity();
        parts.for_next(entity.encoded_len()).entities.push(entity);
    }
    touched.retain(|o| o.values_changed);
    for frame in frames(&touched, filter) {
        parts.for_next(frame.encoded_len()).frames.push(frame);
    }
    let told = parts.all().into_iter().filter(|part| *part != v1::Changes::default());
    let told = told.map(|part| encode(Message::Changes(v1::Changes { sent_unix_ms: now_ms, ..part })));
    (told.collect(), event_count)
}

/// One message, ready for the wire.
#[must_use]
pub fn encode(message: Message) -> Bytes {
    WatchResponse { message: Some(message) }.encode_to_vec().into()
}

fn frames<S: Sight>(objects: &[&Object], filter: &Filter<S>) -> Vec<MetricsFrame> {
    let mut frames = Vec::new();
    for kind in [EntityKind::Node, EntityKind::Vm, EntityKind::Container] {
        if !filter.wants_values(kind) {
            continue;
        }
        let mut grid = Grid::default();
        for object in objects.iter().filter(|o| o.kind() == kind && o.last_sample_ms.is_some()) {
            grid.add(object, filter.instances);
            if grid.is_full() {
                frames.push(std::mem::take(&mut grid).frame(kind));
            }
        }
        if !grid.objects.is_empty() {
            frames.push(grid.frame(kind));
        }
    }
    frames
}

/// A frame that is being filled: a row for each object, a column for each metric of an instance.
#[derive(Default)]
struct Grid<'a> {
    objects: Vec<&'a Object>,
    columns: Vec<(Metric, Arc<str>, Vec<f32>)>,
    index: HashMap<(Metric, Arc<str>), usize>,
    values: usize,
}

impl<'a> Grid<'a> {
    fn add(&mut self, object: &'a Object, instances: bool) {
        let row = self.objects.len();
        self.objects.push(object);
        for series in object.series() {
            let Reading::Gauge(value) = series.reading else { continue };
            if (!series.instance.is_empty() && !instances) || !is_gauge(series.metric) {
                continue;
            }
            let column =
                *self.index.entry((series.metric, Arc::clone(&series.instance))).or_insert_with(|| {
                    self.columns.push((series.metric, Arc::clone(&series.instance), Vec::new()));
                    self.columns.len() - 1
                });
            let column = &mut self.columns[column].2;
            column.resize(row, f32::NAN);
            column.push(narrow(value));
            self.values += 1;
        }
    }

    fn is_full(&self) -> bool {
        let cells = self.objects.len() * self.columns.len();
        cells > FRAME_CELLS || (cells > SPARSE_CELLS && self.values < cells / 2)
    }

    fn frame(self, entity: EntityKind) -> MetricsFrame {
        let newest = self.objects.iter().filter_map(|o| o.last_sample_ms).max().unwrap_or_default();
        let age = |o: &&Object| newest.saturating_sub(o.last_sample_ms.unwrap_or(newest));
        let rows = self.objects.len();
        MetricsFrame {
            entity: entity.into(),
            slots: self.objects.iter().map(|o| o.slot).collect(),
            age_ms: self.objects.iter().map(|o| u32::try_from(age(o)).unwrap_or(u32::MAX)).collect(),
            newest_unix_ms: newest,
            columns: self
                .columns
                .into_iter()
                .map(|(metric, instance, mut values)| {
                    values.resize(rows, f32::NAN);
                    MetricColumn {
                        metric: metric.into(),
                        instance: instance.to_string(),
                        values: values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into(),
                    }
                })
                .collect(),
        }
    }
}

fn is_gauge(metric: Metric) -> bool {
    catalogue::info(metric).is_some_and(|info| info.kind == Kind::Gauge)
}

#[allow(clippy::cast_possible_truncation, reason = "the contract states the precision of a column")]
fn narrow(value: f64) -> f32 {
    value as f32
}
