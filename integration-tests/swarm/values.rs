//! Made-up readings: every measured metric of the catalogue, with the number of instances that a middling host has.

use std::sync::Arc;

use horcrux_agentd::sample::{Cycle, Found, Object, ObjectSample, Reading, SourceReport, Taken, Value};
use horcrux_proto::catalogue::{CATALOGUE, Kind};
use horcrux_proto::name::{ContainerId, VmUuid};
use horcrux_proto::v1::{
    CgroupMode, ContainerFacts, ContainerRuntime, EntityKind, Metric, NodeFacts, Source, SourceState, Unit,
    VmFacts, VmState,
};

use crate::node::Size;

/// Cores of a node; also how many disks and devices it has.
const NODE_INSTANCES: usize = 4;
const GUEST_INSTANCES: usize = 1;
const MEMORY_BYTES: u64 = 64 << 30;

/// One simulated host.
#[derive(Debug)]
pub(crate) struct Simulated {
    number: usize,
    vms: Vec<VmUuid>,
    containers: Vec<ContainerId>,
    shapes: [Vec<Shape>; 3],
    told: bool,
}

/// One series, apart from its object.
#[derive(Clone, Debug)]
struct Shape {
    metric: Metric,
    instance: Arc<str>,
    kind: Kind,
    unit: Unit,
}

impl Simulated {
    pub(crate) fn new(number: usize, size: Size) -> Self {
        let uuid = |vm: usize| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
            bytes[8..].copy_from_slice(&(vm as u64).to_be_bytes());
            VmUuid::from_bytes(bytes)
        };
        let container = |at: usize| format!("{number:032x}{at:032x}").parse().ok();
        Self {
            number,
            vms: (0..size.vms).map(uuid).collect(),
            containers: (0..size.containers).filter_map(container).collect(),
            shapes: [
                shapes(EntityKind::Node, NODE_INSTANCES),
                shapes(EntityKind::Vm, GUEST_INSTANCES),
                shapes(EntityKind::Container, GUEST_INSTANCES),
            ],
            told: false,
        }
    }

    pub(crate) fn node(&mut self, taken: Taken) -> Cycle {
        let facts = NodeFacts {
            hostname: format!("swarm-{:04}", self.number),
            kernel: "simulated".to_owned(),
            architecture: "simulated".to_owned(),
            cpus: 4,
            memory_bytes: MEMORY_BYTES,
            cgroup_mode: CgroupMode::None.into(),
            ..NodeFacts::default()
        };
        let samples = vec![self.sample(0, Object::Node, self.number, taken)];
        let found = if self.told { Found::Nothing } else { Found::Node(Box::new(facts)) };
        self.told = true;
        cycle(taken, found, samples)
    }

    pub(crate) fn vms(&self, taken: Taken) -> Cycle {
        let facts = |(at, uuid): (usize, &VmUuid)| VmFacts {
            uuid: uuid.to_string(),
            display_name: format!("vm-{}-{at}", self.number),
            state: VmState::Running.into(),
            vcpus: Some(2),
            memory_max_bytes: Some(4 << 30),
            persistent: Some(true),
            simulated: true,
            ..VmFacts::default()
        };
        let samples =
            self.vms.iter().enumerate().map(|(at, uuid)| self.sample(1, Object::Vm(*uuid), at, taken));
        cycle(taken, Found::Vms(self.vms.iter().enumerate().map(facts).collect()), samples.collect())
    }

    pub(crate) fn containers(&self, taken: Taken) -> Cycle {
        let facts = |id: &ContainerId| ContainerFacts {
            id: id.to_string(),
            runtime: ContainerRuntime::Docker.into(),
            cgroup_path: format!("/docker/{id}"),
            name_unknown_reason: "simulated".to_owned(),
            ..ContainerFacts::default()
        };
        let samples = self
            .containers
            .iter()
            .enumerate()
            .map(|(at, id)| self.sample(2, Object::Container(id.clone()), at, taken));
        cycle(taken, Found::Containers(self.containers.iter().map(facts).collect()), samples.collect())
    }

    fn sample(&self, shapes: usize, object: Object, seed: usize, taken: Taken) -> ObjectSample {
        let readings = self.shapes[shapes].iter().map(|shape| shape.reading(seed, taken)).collect();
        ObjectSample { object, readings }
    }
}

fn cycle(taken: Taken, found: Found, samples: Vec<ObjectSample>) -> Cycle {
    let report = SourceReport {
        source: Source::Simulated,
        instance: Arc::default(),
        state: SourceState::Ok,
        detail: String::new(),
    };
    Cycle { taken, found, samples, sources: vec![report], events: Vec::new() }
}

/// The object as a whole, and its instances where the metric has some.
fn shapes(entity: EntityKind, instances: usize) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for info in CATALOGUE.iter().filter(|info| info.entity == entity && info.is_measured()) {
        let named = if info.instance.is_empty() { 0 } else { instances };
        let names = std::iter::once(String::new()).chain((0..named).map(|at| at.to_string()));
        shapes.extend(names.map(|name| Shape {
            metric: info.metric,
            instance: Arc::from(name),
            kind: info.kind,
            unit: info.unit,
        }));
    }
    shapes
}

impl Shape {
    /// Counters grow steadily, gauges swing; each object at a pace of its own.
    fn reading(&self, seed: usize, taken: Taken) -> Reading {
        let pace = 1 + seed as u64 % 7;
        let seconds = taken.boottime_ns as f64 / 1e9;
        let value = match self.kind {
            // A time grows by less than time does.
            Kind::Counter if self.unit == Unit::Nanoseconds => Value::Counter(taken.boottime_ns / 10 * pace),
            Kind::Counter => Value::Counter(taken.boottime_ns / 1_000_000 * pace),
            Kind::Gauge | Kind::Unspecified => {
                let swing = 0.5 + 0.4 * (seconds / 10.0 + seed as f64).sin();
                Value::Gauge(if self.unit == Unit::Bytes { swing * MEMORY_BYTES as f64 } else { swing * 4.0 })
            }
        };
        Reading {
            metric: self.metric,
            instance: Arc::clone(&self.instance),
            value,
            source: Source::Simulated,
        }
    }
}
