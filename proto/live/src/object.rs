//! One node, VM or container as it is now: what it is, and the newest of each of its series.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use horcrux_proto::catalogue::{self, Kind};
use horcrux_proto::name::{NodeName, Resource};
use horcrux_proto::rates::{self, Point};
use horcrux_proto::v1::{self, Metric, MetricValue, Source, entity};

use crate::derive;
use crate::fleet::LinkId;

/// A thing that has metrics.
#[derive(Debug)]
pub struct Object {
    pub slot: u32,
    pub resource: Resource,
    /// Where it is.
    pub node: NodeName,
    pub facts: Facts,
    places: Vec<(Generation, Option<Series>)>,
    /// Places whose series were retired, to be used again.
    free: Vec<usize>,
    index: HashMap<(Metric, Arc<str>), usize>,
    /// What its series come to in an answer, roughly, in bytes.
    weight: usize,
    /// The instance that is the object as a whole.
    whole: Arc<str>,
    /// The newest sample's time, by the node's clock.
    pub last_sample_ms: Option<i64>,
    pub facts_changed: bool,
    pub values_changed: bool,
}

/// What it is, as the API says it.
#[derive(Clone, Debug, PartialEq)]
pub enum Facts {
    Node(Box<v1::Node>),
    Vm(Box<v1::Vm>),
    Container(Box<v1::Container>),
}

/// Half of what clients accept, so that what is derived has room too.
const MAX_WEIGHT: usize = 3 << 19;

/// How often a place was given up.
type Generation = u32;

/// Where a series stands in its object. A place that was given up and taken by another series is not the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    at: usize,
    generation: Generation,
}

/// Under which stream and id a series was last declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub link: LinkId,
    pub id: u32,
}

/// The newest of one metric of one instance.
#[derive(Clone, Debug)]
pub struct Series {
    pub metric: Metric,
    pub instance: Arc<str>,
    pub source: Source,
    /// None for what is derived.
    pub owner: Option<Owner>,
    pub taken_ms: i64,
    pub reading: Reading,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// Declared, and no value yet; or one that could not be derived from the last two readings.
    Nothing,
    Gauge(f64),
    Counter {
        last: Point,
        before: Option<Point>,
    },
}

impl Object {
    #[must_use]
    pub fn new(slot: u32, resource: Resource, node: NodeName, facts: Facts) -> Self {
        Self {
            slot,
            resource,
            node,
            facts,
            places: Vec::new(),
            free: Vec::new(),
            index: HashMap::new(),
            weight: 0,
            whole: Arc::from(""),
            last_sample_ms: None,
            facts_changed: true,
            values_changed: false,
        }
    }

    #[must_use]
    pub fn kind(&self) -> v1::EntityKind {
        match self.facts {
            Facts::Node(_) => v1::EntityKind::Node,
            Facts::Vm(_) => v1::EntityKind::Vm,
            Facts::Container(_) => v1::EntityKind::Container,
        }
    }

    /// Where a series stands, made if need be.
    pub fn declare(
        &mut self,
        metric: Metric,
        instance: &Arc<str>,
        source: Source,
        owner: Option<Owner>,
    ) -> Place {
        let key = (metric, Arc::clone(instance));
        let at = self.index.get(&key).copied();
        if let Some(at) = at
            && let (generation, Some(series)) = &mut self.places[at]
        {
            if series.source != source {
                // Two sources count from different beginnings.
                (series.source, series.reading) = (source, Reading::Nothing);
            }
            series.owner = owner;
            return Place { at, generation: *generation };
        }
        let instance = Arc::clone(&key.1);
        let series = Series { metric, instance, source, owner, taken_ms: 0, reading: Reading::Nothing };
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            self.places.len() - 1
        });
        self.places[at].1 = Some(series);
        self.weight += weight(&key.1);
        self.index.insert(key, at);
        Place { at, generation: self.places[at].0 }
    }

    /// Forgets a series, and what was derived from it, unless it was declared again by another.
    pub fn retire(&mut self, place: Place, owner: Owner) {
        if self.series_at(place).is_some_and(|series| series.owner == Some(owner)) {
            self.forget(place.at);
        }
    }

    /// Forgets what streams other than `link` declared.
    pub fn forget_others(&mut self, link: LinkId) {
        for at in 0..self.places.len() {
            let owner = self.places[at].1.as_ref().and_then(|series| series.owner);
            if owner.is_some_and(|owner| owner.link != link) {
                self.forget(at);
            }
        }
    }

    fn forget(&mut self, at: usize) {
        let Some(series) = self.places.get_mut(at).and_then(|(_, series)| series.take()) else { return };
        self.places[at].0 = self.places[at].0.wrapping_add(1);
        self.free.push(at);
        self.weight = self.weight.saturating_sub(weight(&series.instance));
        self.index.remove(&(series.metric, Arc::clone(&series.instance)));
        for derived in derive::from(series.metric) {
            if let Some(&derived) = self.index.get(&(derived, Arc::clone(&series.instance))) {
                self.forget(derived);
            }
        }
        self.values_changed = true;
    }

    pub fn set_counter(&mut self, place: Place, point: Point, taken_ms: i64) {
        let Some(series) = self.series_at_mut(place) else { return };
        let before = match series.reading {
            Reading::Counter { last, .. } => Some(last),
            Reading::Nothing | Reading::Gauge(_) => None,
        };
        series.reading = Reading::Counter { last: point, before };
        series.taken_ms = taken_ms;
    }

    pub fn set_gauge(&mut self, place: Place, value: f64, taken_ms: i64) {
        let Some(series) = self.series_at_mut(place) else { return };
        series.reading = Reading::Gauge(value);
        series.taken_ms = taken_ms;
    }

    /// Puts a value that was derived; `None` where the readings give none.
    pub fn set_derived(
        &mut self,
        metric: Metric,
        instance: &Arc<str>,
        value: Option<f64>,
        source: Source,
        taken_ms: i64,
    ) {
        let place = self.declare(metric, instance, source, None);
        if let Some(series) = self.series_at_mut(place) {
            series.reading = value.map_or(Reading::Nothing, Reading::Gauge);
            series.taken_ms = taken_ms;
        }
    }

    pub fn series(&self) -> impl Iterator<Item = &Series> {
        self.places.iter().filter_map(|(_, series)| series.as_ref())
    }

    /// Whether another series of this instance still fits into what a client takes as one answer.
    #[must_use]
    pub fn has_room(&self, instance: &str) -> bool {
        self.weight + weight(instance) <= MAX_WEIGHT
    }

    /// How many series there are.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.index.len()
    }

    #[must_use]
    pub fn series_at(&self, place: Place) -> Option<&Series> {
        let (generation, series) = self.places.get(place.at)?;
        series.as_ref().filter(|_| *generation == place.generation)
    }

    fn series_at_mut(&mut self, place: Place) -> Option<&mut Series> {
        let (generation, series) = self.places.get_mut(place.at)?;
        series.as_mut().filter(|_| *generation == place.generation)
    }

    #[must_use]
    pub fn find(&self, metric: Metric, instance: &Arc<str>) -> Option<&Series> {
        self.index.get(&(metric, Arc::clone(instance))).and_then(|&at| self.places.get(at)?.1.as_ref())
    }

    /// The series of the object as a whole.
    #[must_use]
    pub fn find_whole(&self, metric: Metric) -> Option<&Series> {
        self.find(metric, &self.whole)
    }

    #[must_use]
    pub fn gauge(&self, metric: Metric, instance: &Arc<str>) -> Option<f64> {
        match self.find(metric, instance)?.reading {
            Reading::Gauge(value) => Some(value),
            Reading::Nothing | Reading::Counter { .. } => None,
        }
    }

    /// The value of the object as a whole.
    #[must_use]
    pub fn whole_gauge(&self, metric: Metric) -> Option<f64> {
        self.gauge(metric, &self.whole)
    }

    /// All values and known absences, in the catalogue's order. What is derived from what is absent is absent for that
    /// reason.
    #[must_use]
    pub fn values(&self) -> Vec<MetricValue> {
        let mut values: Vec<_> = self.series().map(value).collect();
        let known: HashSet<(i32, String)> =
            values.iter().map(|value| (value.metric, value.instance.clone())).collect();
        for absence in self.absences() {
            let absent = |metric| MetricValue {
                metric,
                instance: absence.instance.clone(),
                absent_reason: absence.reason.clone(),
                ..MetricValue::default()
            };
            values.push(absent(absence.metric));
            let derived = derive::from(absence.metric()).map(i32::from);
            values.extend(derived.filter(|of| !known.contains(&(*of, absence.instance.clone()))).map(absent));
        }
        values.sort_by(|a, b| (a.metric, &a.instance).cmp(&(b.metric, &b.instance)));
        values
    }

    fn absences(&self) -> &[v1::Absence] {
        match &self.facts {
            Facts::Node(node) => node.facts.as_ref().map_or(&[], |f| &f.absences),
            Facts::Vm(vm) => vm.facts.as_ref().map_or(&[], |f| &f.absences),
            Facts::Container(container) => container.facts.as_ref().map_or(&[], |f| &f.absences),
        }
    }

    /// As a watcher gets it.
    #[must_use]
    pub fn entity(&self) -> v1::Entity {
        // What has no series any more, such as a VM that is off, is not late: there is nothing to sample.
        let last_sample_unix_ms = self.last_sample_ms.filter(|_| !self.index.is_empty());
        let object = match &self.facts {
            Facts::Node(node) => entity::Object::Node(v1::Node { last_sample_unix_ms, ..(**node).clone() }),
            Facts::Vm(vm) => entity::Object::Vm(v1::Vm { last_sample_unix_ms, ..(**vm).clone() }),
            Facts::Container(container) => {
                entity::Object::Container(v1::Container { last_sample_unix_ms, ..(**container).clone() })
            }
        };
        v1::Entity { slot: self.slot, object: Some(object) }
    }
}

fn weight(instance: &str) -> usize {
    48 + instance.len()
}

fn value(series: &Series) -> MetricValue {
    let (value, absent_reason) = match series.reading {
        Reading::Gauge(value) => (Some(value), String::new()),
        Reading::Counter { last, .. } => (Some(rates::float(last.count)), String::new()),
        Reading::Nothing if derive::is_per_operation(series.metric) => {
            (None, "nothing was read or written, or a counter started over".to_owned())
        }
        Reading::Nothing if catalogue::info(series.metric).is_some_and(|i| i.kind == Kind::Gauge) => {
            (None, "needs two readings of a counter that did not start over".to_owned())
        }
        Reading::Nothing => (None, "not read yet".to_owned()),
    };
    MetricValue {
        metric: series.metric.into(),
        instance: series.instance.to_string(),
        value,
        source: series.source.into(),
        taken_unix_ms: series.taken_ms,
        absent_reason,
    }
}
