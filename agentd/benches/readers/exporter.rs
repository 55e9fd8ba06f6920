//! What a scrape costs, and what it costs to keep at hand what a scrape shows. integration-tests/bench-scrape compares.

use std::hint::black_box;
use std::path::Path;

use horcrux_agentd::host::proc::NodeLane;
use horcrux_agentd::local::exporter::{Format, Renderer};
use horcrux_agentd::local::{Local, Tap};
use horcrux_agentd::sample::{Cycle, Found, Lane as _, Object, ObjectSample, Reading, Value};
use horcrux_proto::catalogue::{CATALOGUE, EntityKind, Kind, MetricInfo};
use horcrux_proto::v1::{ContainerFacts, Source};

use crate::side_by_side::alone;

/// A scrape of a node with this many containers, as their lane gives them on v2.
const EXPORTED: usize = 100;

pub(crate) fn bench() {
    let local = Local::new(Vec::new());
    let tap = |name, cycle| Tap::fill(&local, name, &cycle);
    let taken = horcrux_agentd::collect::now();
    let mut lane = NodeLane::new(Path::new("/"));
    tap("node", lane.read(taken));
    let measured = |info: &&MetricInfo| info.entity == EntityKind::Container && info.is_measured();
    let readings: Vec<Reading> = CATALOGUE
        .iter()
        .filter(measured)
        .map(|info| {
            let value = match info.kind {
                Kind::Counter => Value::Counter(1_234_567_890),
                Kind::Gauge | Kind::Unspecified => Value::Gauge(12_345_678.0),
            };
            let instance = if info.instance.is_empty() { "" } else { "vda" };
            Reading { metric: info.metric, instance: instance.into(), value, source: Source::CgroupV2 }
        })
        .collect();
    let ids: Vec<String> = (0..EXPORTED).map(|number| format!("{number:064x}")).collect();
    let facts = ids.iter().map(|id| ContainerFacts {
        id: id.clone(),
        cgroup_path: format!("system.slice/docker-{id}.scope"),
        ..ContainerFacts::default()
    });
    let samples = ids
        .iter()
        .filter_map(|id| id.parse().ok())
        .map(|id| ObjectSample { object: Object::Container(id), readings: readings.clone() });
    let cycle = Cycle {
        taken,
        found: Found::Containers(facts.collect()),
        events: Vec::new(),
        samples: samples.collect(),
        sources: Vec::new(),
    };
    tap("containers", cycle.clone());
    let mut renderer = Renderer::new(Path::new("/"));
    let mut bytes = 0;
    let scrape = alone(|| bytes = black_box(renderer.render(&local, Format::Prometheus).len()));
    eprintln!("scrape, {EXPORTED} containers, {bytes} bytes: {scrape:?}");
    let tapped = alone(|| drop(tap("containers", black_box(cycle.clone()))));
    eprintln!("tap, {EXPORTED} containers: {tapped:?}");
}
