//! What a watch stream has told so far: a pure reducer, shared by `watch` and `top`.
//!
//! A snapshot is built beside what is shown and replaces it when it is complete, so that nobody sees half of one. A frame
//! holds all values of its objects: what it doesn't hold is no longer there. What can't be made sense of is counted and
//! left out; it never ends the stream.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use horcrux_proto::v1::entity::Object;
use horcrux_proto::v1::watch_response::Message;
use horcrux_proto::v1::{
    Changes, Container, Entity, Event, Metric, MetricsFrame, Node, Snapshot, Vm, WatchResponse,
};

/// All that exists and may be seen.
#[derive(Debug, Default)]
pub struct Fleet {
    things: Things,
    /// The snapshot that is coming.
    building: Option<Things>,
    complete: bool,
    /// The controller's time, and when it was told.
    told: Option<(i64, Instant)>,
    pub controller_version: String,
    pub missed: Missed,
    /// Columns and slots that made no sense.
    pub unusable: u64,
}

/// Told by gaps, in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    pub gaps: u64,
    pub ticks: u64,
    pub events: u64,
}

/// A node, VM or container.
#[derive(Clone, Debug, PartialEq)]
pub struct Thing {
    pub object: Object,
    values: HashMap<(i32, Box<str>), f32>,
    /// By its node's clock.
    pub sampled_unix_ms: Option<i64>,
}

/// What one message changed, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A stream begins.
    Hello,
    /// A snapshot is complete: everything may have changed.
    Ready,
    /// It is new, or is not what it was.
    Thing(u32),
    /// It has new values.
    Values(u32),
    Gone(Box<Thing>),
    Event(Event),
    /// The stream fell behind; `Ready` follows.
    Gap {
        ticks: u64,
        events: u64,
    },
}

type Things = BTreeMap<u32, Thing>;

impl Fleet {
    /// Takes in one message that was received at `now`.
    pub fn apply(&mut self, message: WatchResponse, now: Instant) -> Vec<Change> {
        match message.message {
            Some(Message::Hello(hello)) => {
                self.told = Some((hello.server_unix_ms, now));
                self.controller_version = hello.controller_version;
                self.building = None;
                vec![Change::Hello]
            }
            Some(Message::Snapshot(snapshot)) => self.snapshot(snapshot),
            Some(Message::Changes(changes)) => {
                self.told = Some((changes.sent_unix_ms, now));
                self.changes(changes)
            }
            Some(Message::Heartbeat(beat)) => {
                self.told = Some((beat.server_unix_ms, now));
                Vec::new()
            }
            Some(Message::Gap(gap)) => {
                self.building = None;
                self.missed.gaps += 1;
                self.missed.ticks = self.missed.ticks.saturating_add(gap.missed_ticks);
                self.missed.events = self.missed.events.saturating_add(gap.missed_events);
                vec![Change::Gap { ticks: gap.missed_ticks, events: gap.missed_events }]
            }
            // Of a newer controller.
            None => Vec::new(),
        }
    }

    /// A first snapshot has been seen whole.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    #[must_use]
    pub fn thing(&self, slot: u32) -> Option<&Thing> {
        self.things.get(&slot)
    }

    pub fn things(&self) -> impl Iterator<Item = (u32, &Thing)> {
        self.things.iter().map(|(&slot, thing)| (slot, thing))
    }

    pub fn nodes(&self) -> impl Iterator<Item = (&Node, &Thing)> {
        self.things.values().filter_map(|thing| match &thing.object {
            Object::Node(node) => Some((node, thing)),
            Object::Vm(_) | Object::Container(_) => None,
        })
    }

    pub fn vms(&self) -> impl Iterator<Item = (&Vm, &Thing)> {
        self.things.values().filter_map(|thing| match &thing.object {
            Object::Vm(vm) => Some((vm, thing)),
            Object::Node(_) | Object::Container(_) => None,
        })
    }

    pub fn containers(&self) -> impl Iterator<Item = (&Container, &Thing)> {
        self.things.values().filter_map(|thing| match &thing.object {
            Object::Container(container) => Some((container, thing)),
            Object::Node(_) | Object::Vm(_) => None,
        })
    }

    /// How far each node's clock is ahead of the controller's, by the node's full name.
    #[must_use]
    pub fn clock_offsets(&self) -> HashMap<&str, i64> {
        self.nodes().map(|(node, _)| (node.name.as_str(), node.clock_offset_ms.unwrap_or_default())).collect()
    }

    /// The controller's time at `now`, from what it last said.
    #[must_use]
    pub fn server_ms(&self, now: Instant) -> Option<i64> {
        let (ms, at) = self.told?;
        let since = now.saturating_duration_since(at).as_millis();
        Some(ms.saturating_add(i64::try_from(since).unwrap_or(i64::MAX)))
    }

    /// How old a thing's newest sample is at `now`, when its node's clock is ahead by `offset_ms`.
    #[must_use]
    pub fn age(&self, thing: &Thing, offset_ms: i64, now: Instant) -> Option<Duration> {
        let sampled = thing.sampled_unix_ms?.saturating_sub(offset_ms);
        let age = self.server_ms(now)?.saturating_sub(sampled);
        // Clocks that differ by less than the network's delay give negative ages.
        Some(Duration::from_millis(u64::try_from(age).unwrap_or_default()))
    }

    fn snapshot(&mut self, piece: Snapshot) -> Vec<Change> {
        let mut things = self.building.take().unwrap_or_default();
        for entity in piece.entities {
            self.unusable += u64::from(put(&mut things, entity).is_none());
        }
        for frame in &piece.frames {
            self.unusable += fill(&mut things, frame).1;
        }
        if piece.complete {
            self.things = things;
            self.complete = true;
            vec![Change::Ready]
        } else {
            self.building = Some(things);
            Vec::new()
        }
    }

    fn changes(&mut self, changes: Changes) -> Vec<Change> {
        // They belong to the newest snapshot, whole or not.
        let things = self.building.as_mut().unwrap_or(&mut self.things);
        let mut told = Vec::new();
        for entity in changes.entities {
            match put(things, entity) {
                Some(Put { slot, news: News::Changed }) => told.push(Change::Thing(slot)),
                Some(Put { news: News::Same, .. }) => {}
                None => self.unusable += 1,
            }
        }
        for frame in &changes.frames {
            let (filled, unusable) = fill(things, frame);
            self.unusable += unusable;
            told.extend(filled.into_iter().map(Change::Values));
        }
        let gone = changes.gone.iter().filter_map(|slot| things.remove(slot));
        told.extend(gone.map(|thing| Change::Gone(Box::new(thing))));
        told.extend(changes.events.into_iter().map(Change::Event));
        told
    }
}

impl Thing {
    /// The newest value of the thing as a whole.
    #[must_use]
    pub fn value(&self, metric: Metric) -> Option<f32> {
        // The key owns its text; an empty one allocates nothing.
        self.values.get(&(metric.into(), Box::from(""))).copied()
    }

    /// All values there are: the metric's number, the instance, the value.
    pub fn values(&self) -> impl Iterator<Item = (i32, &str, f32)> {
        self.values.iter().map(|((metric, instance), &value)| (*metric, &**instance, value))
    }

    /// Its full name.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.object {
            Object::Node(node) => &node.name,
            Object::Vm(vm) => &vm.name,
            Object::Container(container) => &container.name,
        }
    }

    /// The full name of the node that it is or runs on.
    #[must_use]
    pub fn node(&self) -> &str {
        match &self.object {
            Object::Node(node) => &node.name,
            Object::Vm(vm) => &vm.node,
            Object::Container(container) => &container.node,
        }
    }
}

struct Put {
    slot: u32,
    news: News,
}

enum News {
    Changed,
    Same,
}

/// `None` when this program doesn't know such a thing.
fn put(things: &mut Things, entity: Entity) -> Option<Put> {
    let object = entity.object?;
    let sampled = match &object {
        Object::Node(node) => node.last_sample_unix_ms,
        Object::Vm(vm) => vm.last_sample_unix_ms,
        Object::Container(container) => container.last_sample_unix_ms,
    };
    let slot = entity.slot;
    let news = match things.get_mut(&slot) {
        Some(known) => {
            let news = if is_same(&known.object, &object) { News::Same } else { News::Changed };
            known.object = object;
            known.sampled_unix_ms = sampled.max(known.sampled_unix_ms);
            news
        }
        None => {
            things.insert(slot, Thing { object, values: HashMap::new(), sampled_unix_ms: sampled });
            News::Changed
        }
    };
    Some(Put { slot, news })
}

/// Apart from the newest sample's time, which is not what a thing is.
fn is_same(one: &Object, other: &Object) -> bool {
    let timeless = |object: &Object| match object.clone() {
        Object::Node(node) => Object::Node(Node { last_sample_unix_ms: None, ..node }),
        Object::Vm(vm) => Object::Vm(Vm { last_sample_unix_ms: None, ..vm }),
        Object::Container(container) => {
            Object::Container(Container { last_sample_unix_ms: None, ..container })
        }
    };
    timeless(one) == timeless(other)
}

/// Puts a frame's values in place. Returns the slots that got some, and how much made no sense.
fn fill(things: &mut Things, frame: &MetricsFrame) -> (Vec<u32>, u64) {
    let rows = frame.slots.len();
    let mut unusable = 0;
    let columns: Vec<_> = frame
        .columns
        .iter()
        .filter(|column| {
            let whole = column.values.len() == rows * size_of::<f32>();
            unusable += u64::from(!whole);
            whole
        })
        .collect();
    let mut filled = Vec::with_capacity(rows);
    for (row, &slot) in frame.slots.iter().enumerate() {
        let Some(thing) = things.get_mut(&slot) else {
            unusable += 1;
            continue;
        };
        thing.values.clear();
        for column in &columns {
            let bytes = column.values.chunks_exact(size_of::<f32>()).nth(row);
            let value = bytes.and_then(|b| b.try_into().ok()).map(f32::from_le_bytes);
            if let Some(value) = value.filter(|v| v.is_finite()) {
                thing.values.insert((column.metric, column.instance.as_str().into()), value);
            }
        }
        let age = frame.age_ms.get(row).copied().unwrap_or_default();
        thing.sampled_unix_ms = Some(frame.newest_unix_ms.saturating_sub(age.into()));
        filled.push(slot);
    }
    (filled, unusable)
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
