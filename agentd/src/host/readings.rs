//! The list of readings that a lane fills.

use std::sync::Arc;

use horcrux_proto::v1::{Metric, Source};

use crate::sample::{Object, ObjectSample, Reading, Value};

#[derive(Debug)]
pub(crate) struct Readings {
    list: Vec<Reading>,
    /// The instance that is the object as a whole.
    whole: Arc<str>,
}

impl Readings {
    pub(crate) fn new(whole: &Arc<str>, expected: usize) -> Self {
        Self { list: Vec::with_capacity(expected), whole: Arc::clone(whole) }
    }

    pub(crate) fn into_list(self) -> Vec<Reading> {
        self.list
    }

    /// As an object's samples. `lost`: something that was read before was not read now, and doesn't hold any more.
    pub(crate) fn into_samples(self, object: Object, lost: bool) -> Vec<ObjectSample> {
        let read = ObjectSample { object: object.clone(), readings: self.list };
        if lost && !read.readings.is_empty() {
            // Nothing holds of what was read before; then what was read now.
            return vec![ObjectSample { object, readings: Vec::new() }, read];
        }
        vec![read]
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn counter(&mut self, source: Source, metric: Metric, instance: &Arc<str>, value: u64) {
        self.push(source, metric, instance, Value::Counter(value));
    }

    pub(crate) fn gauge(&mut self, source: Source, metric: Metric, instance: &Arc<str>, value: f64) {
        self.push(source, metric, instance, Value::Gauge(value));
    }

    pub(crate) fn whole_counter(&mut self, source: Source, metric: Metric, value: u64) {
        let whole = Arc::clone(&self.whole);
        self.counter(source, metric, &whole, value);
    }

    pub(crate) fn whole_gauge(&mut self, source: Source, metric: Metric, value: f64) {
        let whole = Arc::clone(&self.whole);
        self.gauge(source, metric, &whole, value);
    }

    fn push(&mut self, source: Source, metric: Metric, instance: &Arc<str>, value: Value) {
        self.list.push(Reading { metric, instance: Arc::clone(instance), value, source });
    }
}
