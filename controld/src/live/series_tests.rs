//! Series that end, change their source or come with a new stream.

use std::time::Duration;

use horcrux_proto::agent::v1::{Inventory, SampleBatch, Series, series};
use horcrux_proto::catalogue::CATALOGUE;
use horcrux_proto::v1::{Absence, Metric, Source};

use super::derive;
use super::fleet::{Applied, LinkId, MAX_SERIES};
use super::tests::{Model, S, VM, counter, declared, guest, guests, node, vm_on};

fn vm_cpu(id: u32, source: Source) -> Vec<Series> {
    let of = series::Object::VmUuid(VM.into());
    vec![Series { source: source.into(), ..declared(id, Metric::VmCpuTime, of) }]
}

impl Model {
    /// One VM on node `a`, with two readings of its CPU time under id 7.
    fn with_usage() -> Self {
        let mut model = Self::with(&["a"]);
        model.attach("a", 1);
        model.fleet.inventory(&node("a"), &vm_on(VM, 2));
        model.reads(1, &counter(10 * S, 7, S, vm_cpu(7, Source::CgroupV1)));
        model.reads(1, &counter(15 * S, 7, 6 * S, vec![]));
        assert_eq!(model.usage(), Some(50.0));
        model
    }

    fn reads(&mut self, link: u64, batch: &SampleBatch) {
        assert_eq!(self.fleet.samples(&node("a"), LinkId(link), batch), Applied::Yes);
    }

    fn usage(&self) -> Option<f64> {
        self.fleet.find(&format!("vms/{VM}").parse().unwrap()).unwrap().whole_gauge(Metric::VmCpuUsage)
    }
}

#[test]
fn what_an_operation_took_is_an_average_over_those_that_there_were() {
    let metrics = [
        Metric::NodeDiskReads,
        Metric::NodeDiskReadTime,
        Metric::NodeDiskWrites,
        Metric::NodeDiskWriteTime,
        Metric::NodeDiskQueueTime,
    ];
    let of = |(id, metric): (u32, &Metric)| Series {
        instance: "vda".into(),
        ..declared(id, *metric, series::Object::Node(true))
    };
    let mut model = Model::with(&["a"]);
    model.attach("a", 1);
    let mut read = |at: u64, counters: [u64; 5]| {
        let declared = if at == 1 { (1..).zip(&metrics).map(of).collect() } else { vec![] };
        let ids = (1..=5).collect();
        let batch = counter(at * S, 0, 0, declared);
        model.reads(1, &SampleBatch { counter_ids: ids, counters: counters.to_vec(), ..batch });
        let node = model.fleet.find(&"nodes/a".parse().unwrap()).unwrap();
        [
            Metric::NodeDiskReadAwait,
            Metric::NodeDiskWriteAwait,
            Metric::NodeDiskAwait,
            Metric::NodeDiskQueueDepth,
        ]
        .map(|metric| node.gauge(metric, &"vda".into()))
    };
    assert_eq!(read(1, [10, 1000, 0, 0, 0]), [None; 4]);
    assert_eq!(read(2, [14, 1400, 4, 2000, 2 * S]), [Some(100.0), Some(500.0), Some(300.0), Some(2.0)]);
    assert_eq!(
        read(3, [14, 1400, 5, 2300, 2 * S]),
        [None, Some(300.0), Some(300.0), Some(0.0)],
        "nothing was read"
    );
    assert_eq!(read(4, [0, 0, 6, 2400, 2 * S])[2], None, "a counter started over");
}

fn retired(id: u32) -> SampleBatch {
    SampleBatch { retired: vec![id], ..SampleBatch::default() }
}

#[test]
fn what_was_derived_from_a_counter_ends_with_it() {
    let mut model = Model::with_usage();
    model.reads(1, &retired(7));
    assert_eq!(model.usage(), None);
}

#[test]
fn what_another_node_lists_too_is_its_to_tell_and_nobody_is_asked_again_for_it() {
    let mut model = Model::with(&["a", "b"]);
    model.attach("a", 1);
    model.attach("b", 2);
    model.fleet.inventory(&node("a"), &vm_on(VM, 2));
    model.fleet.inventory(&node("b"), &vm_on(VM, 2));
    let batch = counter(10 * S, 7, S, vm_cpu(7, Source::CgroupV1));
    assert_eq!(model.fleet.samples(&node("b"), LinkId(2), &batch), Applied::Yes);
    assert_eq!(model.fleet.samples(&node("b"), LinkId(2), &counter(15 * S, 7, S, vec![])), Applied::Yes);
    assert_eq!(model.fleet.find(&format!("vms/{VM}").parse().unwrap()).unwrap().series_count(), 0);
    // When it has gone there, b speaks for it, and is asked for what it said before.
    let gone = Inventory { gone_vms: vec![VM.into()], ..Inventory::default() };
    model.fleet.inventory(&node("a"), &gone);
    model.fleet.inventory(&node("b"), &vm_on(VM, 2));
    let later = counter(20 * S, 7, S, vec![]);
    assert_eq!(model.fleet.samples(&node("b"), LinkId(2), &later), Applied::Unknown);
}

#[test]
fn what_is_derived_from_what_is_absent_is_absent_for_that_reason() {
    let mut model = Model::with_usage();
    let mut inventory = vm_on(VM, 2);
    let absence = |metric: Metric| Absence {
        metric: metric.into(),
        reason: "its monitor hangs".into(),
        ..Absence::default()
    };
    inventory.vms[0].absences = vec![absence(Metric::VmMemoryUsable), absence(Metric::VmCpuTime)];
    model.fleet.inventory(&node("a"), &inventory);
    let values = model.fleet.find(&format!("vms/{VM}").parse().unwrap()).unwrap().values();
    let of = |metric| values.iter().filter(move |value| value.metric() == metric);
    let usage: Vec<_> =
        of(Metric::VmMemoryUsage).map(|value| (value.value, value.absent_reason.as_str())).collect();
    assert_eq!(usage, [(None, "its monitor hangs")]);
    let usage: Vec<_> = of(Metric::VmCpuUsage).map(|value| value.value).collect();
    assert_eq!(usage, [Some(50.0)], "what there is of it is shown once");
}

#[test]
fn a_series_that_another_source_took_over_does_not_end_with_the_first() {
    let mut model = Model::with_usage();
    model.reads(1, &counter(20 * S, 8, 11 * S, vm_cpu(8, Source::Proc)));
    assert_eq!(model.usage(), None, "what two sources counted is no pair of readings");
    model.reads(1, &counter(25 * S, 8, 16 * S, vec![]));
    model.reads(1, &retired(7));
    assert_eq!(model.usage(), Some(50.0));
    model.reads(1, &retired(8));
    assert_eq!(model.usage(), None);
}

#[test]
fn an_id_of_a_series_that_ended_never_speaks_for_the_one_that_took_its_place() {
    let mut model = Model::with_usage();
    // Declared twice, so that one id outlives the series.
    model.reads(1, &counter(20 * S, 8, 11 * S, vm_cpu(8, Source::Proc)));
    model.reads(1, &retired(8));
    let delay = vec![declared(9, Metric::VmIoReadBytes, series::Object::VmUuid(VM.into()))];
    model.reads(1, &counter(25 * S, 9, 100, delay));
    model.reads(1, &counter(30 * S, 7, 5, vec![]));
    let vm = model.fleet.find(&format!("vms/{VM}").parse().unwrap()).unwrap();
    let read = vm.values().into_iter().find(|value| value.metric() == Metric::VmIoReadBytes).unwrap();
    assert_eq!(read.value, Some(100.0));
}

#[test]
fn what_a_new_stream_does_not_declare_again_is_forgotten() {
    let mut model = Model::with_usage();
    model.attach("a", 2);
    model.fleet.pass_time(model.start + Duration::from_secs(89), 1);
    assert_eq!(model.usage(), Some(50.0), "its lane may be slow");
    model.fleet.pass_time(model.start + Duration::from_secs(90), 1);
    assert_eq!(model.usage(), None);
}

#[test]
fn what_a_new_stream_declares_again_stays() {
    let mut model = Model::with_usage();
    model.attach("a", 2);
    model.reads(2, &counter(20 * S, 1, 11 * S, vm_cpu(1, Source::CgroupV1)));
    model.fleet.pass_time(model.start + Duration::from_secs(90), 1);
    assert_eq!(model.usage(), Some(50.0));
}

#[test]
fn a_node_that_declares_without_end_is_refused_and_what_its_earlier_streams_declared_makes_room() {
    let mut model = Model::with(&["a"]);
    model.fleet.inventory(&node("a"), &guests(300));
    let many = |stream: usize| {
        let one = |id: u32| Series {
            instance: format!("disk{stream}-{id}"),
            ..declared(id, Metric::VmDiskCapacity, series::Object::VmUuid(guest(id % 300)))
        };
        let half = u32::try_from(MAX_SERIES / 2).unwrap();
        SampleBatch { declared: (0..half).map(one).collect(), ..SampleBatch::default() }
    };
    model.attach("a", 1);
    model.reads(1, &many(1));
    model.attach("a", 2);
    model.reads(2, &many(2));
    let more = SampleBatch {
        declared: vec![declared(u32::MAX, Metric::NodeDiskReadBytes, series::Object::Node(true))],
        ..SampleBatch::default()
    };
    model.reads(2, &more);
    let again = model.fleet.samples(&node("a"), LinkId(2), &many(3));
    assert_eq!(again, Applied::TooMany);
}

#[test]
fn one_thing_cannot_have_more_series_than_fit_an_answer() {
    let mut model = Model::with(&["a"]);
    model.attach("a", 1);
    let one = |id: u32| Series {
        instance: format!("{id}{}", "x".repeat(500)),
        ..declared(id, Metric::NodeDiskReadBytes, series::Object::Node(true))
    };
    let batch = SampleBatch { declared: (0..3000).map(one).collect(), ..SampleBatch::default() };
    assert_eq!(model.fleet.samples(&node("a"), LinkId(1), &batch), Applied::TooMany);
}

#[test]
fn each_metric_that_is_derived_is_derived_from_one() {
    for info in CATALOGUE.iter().filter(|info| !info.is_measured()) {
        let sources =
            CATALOGUE.iter().filter(|of| derive::from(of.metric).any(|metric| metric == info.metric));
        assert_eq!(
            sources.count(),
            1,
            "{} would outlive what it is derived from, or end with either",
            info.name
        );
    }
}
