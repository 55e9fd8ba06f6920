//! The model against what nodes say, and what watchers are told of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use horcrux_proto::agent::v1::{Event, Hello, Inventory, SampleBatch, Series, event, series};
use horcrux_proto::authz::Privilege;
use horcrux_proto::name::NodeName;
use horcrux_proto::v1::{
    EventKind, Metric, MetricsFrame, NodeFacts, NodeState, Source, Topic, VmFacts, VmState, WatchResponse,
    entity, watch_response::Message,
};
use horcrux_transport::clock;
use prost::Message as _;

use super::feed;
use super::fleet::{Applied, Fleet, LinkId, Patience};
use super::object::Facts;
use super::{Filter, Viewer, past, select};
use crate::access::rights::{Level, Rights};
use crate::store::nodes::NodeRow;
use crate::store::recent::Past;

pub(super) const VM: &str = "aaaaaaaa-0000-4000-8000-000000000011";
pub(super) const S: u64 = 1_000_000_000;

fn row(name: &str) -> NodeRow {
    NodeRow {
        id: format!("id-{name}"),
        name: name.into(),
        enrolled_ms: 0,
        serial: String::new(),
        expires_ms: 0,
        last_seen_ms: None,
        agent_version: None,
        generation: 1,
        locked_ms: None,
        locked_reason: String::new(),
    }
}

/// Sees what these privileges open, everywhere.
fn viewer(privileges: &[Privilege]) -> Viewer {
    let level = Level { below: privileges.iter().copied().collect(), ..Level::default() };
    let rights = Rights::new([("/".into(), level)].into());
    Viewer::new(Arc::new(rights), &Arc::default(), false)
}

pub(super) fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

pub(super) struct Model {
    pub(super) fleet: Fleet,
    pub(super) start: Instant,
}

impl Model {
    pub(super) fn with(names: &[&str]) -> Self {
        let patience = Patience { late_after: Duration::from_secs(10), down_after: Duration::from_secs(30) };
        let mut fleet = Fleet::new(patience);
        let start = clock::monotonic();
        for name in names {
            fleet.enrolled(&(&row(name)).into(), start, 0);
        }
        Self { fleet, start }
    }

    pub(super) fn attach(&mut self, name: &str, link: u64) {
        self.fleet.attached(&node(name), LinkId(link), &Hello::default(), self.start, 0);
    }

    fn state(&self, name: &str) -> NodeState {
        let found = self.fleet.find(&format!("nodes/{name}").parse().unwrap()).unwrap();
        let Facts::Node(node) = &found.facts else { panic!("not a node: {:?}", found.facts) };
        node.state()
    }

    fn events(&mut self) -> Vec<EventKind> {
        self.fleet.take_changes().events.iter().map(|e| e.event.kind()).collect()
    }
}

pub(super) fn declared(id: u32, metric: Metric, object: series::Object) -> Series {
    let (metric, source) = (metric.into(), Source::Proc.into());
    Series { id, metric, instance: String::new(), object: Some(object), source }
}

pub(super) fn vm_on(uuid: &str, vcpus: u32) -> Inventory {
    let vm =
        VmFacts { uuid: uuid.into(), display_name: "web".into(), vcpus: Some(vcpus), ..VmFacts::default() };
    Inventory {
        complete: true,
        node: Some(NodeFacts { cpus: 4, ..NodeFacts::default() }),
        vms: vec![vm],
        ..Inventory::default()
    }
}

pub(super) fn guest(number: u32) -> String {
    format!("aaaaaaaa-0000-4000-8000-{number:012}")
}

/// So many VMs, from [`guest`] 0 on.
pub(super) fn guests(count: u32) -> Inventory {
    let vms = (0..count).flat_map(|number| vm_on(&guest(number), 2).vms).collect();
    Inventory { vms, ..vm_on(VM, 2) }
}

pub(super) fn counter(at_ns: u64, id: u32, count: u64, declared: Vec<Series>) -> SampleBatch {
    SampleBatch {
        taken_unix_ms: i64::try_from(at_ns / 1_000_000).unwrap(),
        taken_boottime_ns: at_ns,
        declared,
        counter_ids: vec![id],
        counters: vec![count],
        ..SampleBatch::default()
    }
}

fn everything() -> Filter {
    let topics =
        [Topic::NodeMetrics, Topic::VmMetrics, Topic::ContainerMetrics, Topic::Status, Topic::Events];
    Filter {
        topics: topics.iter().map(|&t| t.into()).collect(),
        nodes: BTreeSet::new(),
        vms: BTreeSet::new(),
        instances: false,
        pools: BTreeSet::new(),
        sight: viewer(&[Privilege::SysAudit, Privilege::VmAudit, Privilege::ContainerAudit]),
    }
}

#[test]
fn silence_makes_a_node_late_and_then_down_and_a_word_brings_it_back() {
    let mut model = Model::with(&["a"]);
    assert_eq!(model.state("a"), NodeState::NeverSeen);
    model.fleet.pass_time(model.start + Duration::from_secs(60), 1);
    assert_eq!(model.state("a"), NodeState::NeverSeen, "who never came is not late");
    model.attach("a", 1);
    for (seconds, state) in [(9, NodeState::Connected), (10, NodeState::Late), (30, NodeState::Down)] {
        model.fleet.pass_time(model.start + Duration::from_secs(seconds), 2);
        assert_eq!(model.state("a"), state, "after {seconds} s");
    }
    model.fleet.heard(&node("a"), model.start + Duration::from_secs(31), 3);
    assert_eq!(model.state("a"), NodeState::Connected);
    let expected =
        [EventKind::NodeConnected, EventKind::NodeLate, EventKind::NodeDown, EventKind::NodeConnected];
    assert_eq!(model.events(), expected);
}

#[test]
fn the_end_of_a_replaced_stream_says_nothing_of_the_node() {
    let mut model = Model::with(&["a"]);
    model.attach("a", 1);
    model.attach("a", 2);
    model.fleet.detached(&node("a"), LinkId(1), 1);
    assert_eq!(model.state("a"), NodeState::Connected);
    model.fleet.detached(&node("a"), LinkId(2), 1);
    assert_eq!(model.state("a"), NodeState::Late);
}

#[test]
fn usage_needs_two_readings_and_is_a_share_of_the_vcpus() {
    let mut model = Model::with(&["a"]);
    model.attach("a", 1);
    model.fleet.inventory(&node("a"), &vm_on(VM, 2));
    let series = vec![declared(7, Metric::VmCpuTime, series::Object::VmUuid(VM.into()))];
    let resource = format!("vms/{VM}").parse().unwrap();
    let usage = |fleet: &Fleet| fleet.find(&resource).unwrap().whole_gauge(Metric::VmCpuUsage);
    assert_eq!(model.fleet.samples(&node("a"), LinkId(1), &counter(10 * S, 7, S, series)), Applied::Yes);
    assert_eq!(usage(&model.fleet), None);
    model.fleet.samples(&node("a"), LinkId(1), &counter(15 * S, 7, 6 * S, vec![]));
    assert_eq!(usage(&model.fleet), Some(50.0), "5 s of CPU in 5 s on two vCPUs");
    model.fleet.samples(&node("a"), LinkId(1), &counter(20 * S, 7, S, vec![]));
    assert_eq!(usage(&model.fleet), None, "a counter that started over says nothing");
}

#[test]
fn a_vm_that_its_node_says_has_left_is_that_node_s_that_says_it_runs() {
    let off = Inventory {
        vms: vec![VmFacts { uuid: VM.into(), state: VmState::ShutOff.into(), ..VmFacts::default() }],
        ..Inventory::default()
    };
    let left = Event {
        object: Some(event::Object::VmUuid(VM.into())),
        kind: EventKind::VmMigratedAway.into(),
        ..Event::default()
    };
    let gone = Inventory { gone_vms: vec![VM.into()], ..Inventory::default() };
    let resource = format!("vms/{VM}").parse().unwrap();
    let begun = || {
        let mut model = Model::with(&["a", "b", "c"]);
        for (number, name) in ["a", "b", "c"].iter().enumerate() {
            model.attach(name, u64::try_from(number).unwrap() + 1);
        }
        model.fleet.inventory(&node("a"), &vm_on(VM, 2));
        // It is there before it has left.
        model.fleet.inventory(&node("b"), &vm_on(VM, 2));
        assert_eq!(model.fleet.find(&resource).unwrap().node, node("a"));
        model
    };
    let at = |model: &Model| model.fleet.find(&resource).map(|object| object.node.clone());
    // It stays defined where it was, and is off there.
    let mut model = begun();
    model.fleet.event(&node("c"), 1, &left);
    model.fleet.event(&node("b"), 1, &left);
    assert_eq!(at(&model), Some(node("a")), "only its own node can say so");
    model.fleet.event(&node("a"), 1, &left);
    model.fleet.inventory(&node("a"), &off);
    assert_eq!(at(&model), Some(node("b")));
    assert!(!model.fleet.is_contested(&VM.parse().unwrap()));
    // Where two say that it came to them, one of them isn't right.
    let mut model = begun();
    model.fleet.inventory(&node("c"), &vm_on(VM, 2));
    model.fleet.event(&node("a"), 1, &left);
    model.fleet.inventory(&node("a"), &off);
    assert_eq!(at(&model), Some(node("c")));
    assert!(model.fleet.is_contested(&VM.parse().unwrap()));
    // It is removed where it was.
    let mut model = begun();
    model.fleet.inventory(&node("a"), &gone);
    assert_eq!(at(&model), Some(node("b")));
    // One that is merely off stays, and so does one whose other node takes it back.
    let mut model = begun();
    model.fleet.inventory(&node("a"), &off);
    assert_eq!(at(&model), Some(node("a")));
    model.fleet.inventory(&node("b"), &gone);
    model.fleet.event(&node("a"), 1, &left);
    assert_eq!(at(&model), Some(node("a")));
    // Who comes with it after it has left has it.
    model.fleet.inventory(&node("c"), &vm_on(VM, 2));
    assert_eq!(at(&model), Some(node("c")));
}

#[test]
fn a_node_cannot_speak_of_a_guest_that_another_connected_node_holds() {
    let mut model = Model::with(&["a", "b"]);
    model.attach("a", 1);
    model.attach("b", 2);
    model.fleet.inventory(&node("a"), &vm_on(VM, 2));
    model.fleet.inventory(&node("b"), &vm_on(VM, 8));
    let resource = format!("vms/{VM}").parse().unwrap();
    assert_eq!(model.fleet.find(&resource).unwrap().node, node("a"));
    assert_eq!(model.fleet.counts["foreign_guest"], 1);
    let series = vec![declared(1, Metric::VmCpuTime, series::Object::VmUuid(VM.into()))];
    let applied = model.fleet.samples(&node("b"), LinkId(2), &counter(S, 1, 5, series));
    assert_eq!(applied, Applied::Yes, "asking again would bring no more");
    assert_eq!(model.fleet.find(&resource).unwrap().values().len(), 0);
    let crashed = Event { object: Some(event::Object::VmUuid(VM.into())), ..Event::default() };
    drop(model.fleet.take_changes());
    model.fleet.event(&node("b"), 1, &crashed);
    assert_eq!(model.fleet.take_changes().events.len(), 0);
    let crashed = Event { sequence: 8, ..crashed };
    for (epoch, told) in [(1, 1), (1, 0), (2, 1)] {
        model.fleet.event(&node("a"), epoch, &crashed);
        assert_eq!(
            model.fleet.take_changes().events.len(),
            told,
            "one that was not acknowledged comes again"
        );
    }
    // Its holder may be back in a moment; only when it is down, the VM may turn up elsewhere.
    model.fleet.detached(&node("a"), LinkId(1), 1);
    model.fleet.inventory(&node("b"), &vm_on(VM, 8));
    assert_eq!(model.fleet.find(&resource).unwrap().node, node("a"));
    model.fleet.pass_time(model.start + Duration::from_secs(30), 2);
    model.fleet.inventory(&node("b"), &vm_on(VM, 8));
    assert_eq!(model.fleet.find(&resource).unwrap().node, node("b"));
    // That is no more than its word; whoever had it has it again when it says so, and not when it says that it is off there.
    let uuid = VM.parse().unwrap();
    assert!(model.fleet.is_contested(&uuid));
    let off = Inventory {
        vms: vec![VmFacts { state: VmState::ShutOff.into(), ..vm_on(VM, 2).vms[0].clone() }],
        ..vm_on(VM, 2)
    };
    for (says, of) in [(vm_on(VM, 2), "a"), (off, "b")] {
        let mut again = Model::with(&["a", "b"]);
        again.attach("a", 1);
        again.fleet.inventory(&node("a"), &vm_on(VM, 2));
        again.fleet.detached(&node("a"), LinkId(1), 1);
        again.fleet.pass_time(again.start + Duration::from_secs(30), 2);
        again.attach("b", 2);
        again.fleet.inventory(&node("b"), &vm_on(VM, 8));
        again.attach("a", 3);
        again.fleet.inventory(&node("a"), &says);
        assert_eq!(again.fleet.find(&resource).unwrap().node, node(of));
        assert_eq!(again.fleet.is_contested(&uuid), of == "a", "another says that it is there too");
    }
}

#[test]
fn a_node_that_is_enrolled_again_keeps_its_stream() {
    let mut model = Model::with(&["a"]);
    model.attach("a", 1);
    model.fleet.enrolled(&(&row("a")).into(), model.start, 1);
    assert_eq!(model.state("a"), NodeState::Connected);
    assert!(model.fleet.is_current(&node("a"), LinkId(1)));
    assert_eq!(model.fleet.objects().count(), 1);
}

#[test]
fn a_clock_beyond_all_measure_is_told_as_it_is() {
    let mut model = Model::with(&["a"]);
    let hello = Hello { node_unix_ms: i64::MIN, ..Hello::default() };
    model.fleet.attached(&node("a"), LinkId(1), &hello, model.start, 1);
    assert_eq!(model.state("a"), NodeState::Connected);
}

#[test]
fn objects_with_instances_of_their_own_fill_no_message_with_blanks() {
    let mut model = Model::with(&["a"]);
    model.attach("a", 1);
    model.fleet.inventory(&node("a"), &guests(1000));
    let reading = |number: u32| Series {
        instance: format!("vnet{number}"),
        ..declared(number, Metric::VmDiskCapacity, series::Object::VmUuid(guest(number)))
    };
    let batch = SampleBatch {
        taken_unix_ms: 1,
        declared: (0..1000).map(reading).collect(),
        gauge_ids: (0..1000).collect(),
        gauges: vec![7.0; 1000],
        ..SampleBatch::default()
    };
    assert_eq!(model.fleet.samples(&node("a"), LinkId(1), &batch), Applied::Yes);
    let pieces = feed::snapshot(&model.fleet, &Filter { instances: true, ..everything() });
    let bytes: usize = pieces.iter().map(bytes::Bytes::len).sum();
    assert!(bytes < 1 << 20, "{bytes} bytes for 1000 values");
    let values: usize = pieces
        .into_iter()
        .map(|piece| match WatchResponse::decode(piece).unwrap().message {
            Some(Message::Snapshot(snapshot)) => snapshot.frames.iter().map(filled).sum::<usize>(),
            other => panic!("not a snapshot: {other:?}"),
        })
        .sum();
    assert_eq!(values, 1000);
}

fn filled(frame: &MetricsFrame) -> usize {
    let floats = frame.columns.iter().flat_map(|column| column.values.chunks_exact(4));
    floats.filter(|bytes| !f32::from_le_bytes((*bytes).try_into().unwrap()).is_nan()).count()
}

#[test]
fn no_message_is_larger_than_clients_take() {
    let mut model = Model::with(&["a"]);
    model.attach("a", 1);
    let mut inventory = guests(5000);
    for vm in &mut inventory.vms {
        vm.display_name = "x".repeat(2000);
    }
    model.fleet.inventory(&node("a"), &inventory);
    let pieces = feed::snapshot(&model.fleet, &everything());
    assert!(pieces.len() > 1);
    assert!(pieces.iter().all(|piece| piece.len() < 4 << 20));
}

#[test]
fn samples_of_a_stream_that_was_replaced_change_nothing() {
    let mut model = Model::with(&["a"]);
    model.attach("a", 1);
    model.attach("a", 2);
    let series = vec![declared(1, Metric::NodeCpuIdleTime, series::Object::Node(true))];
    assert_eq!(model.fleet.samples(&node("a"), LinkId(1), &counter(S, 1, 5, series)), Applied::Stale);
}

#[test]
fn what_is_not_listed_any_more_is_gone() {
    let mut model = Model::with(&["a"]);
    model.attach("a", 1);
    model.fleet.inventory(&node("a"), &vm_on(VM, 2));
    drop(model.fleet.take_changes());
    model.fleet.inventory(&node("a"), &Inventory { complete: true, ..Inventory::default() });
    let changes = model.fleet.take_changes();
    assert_eq!(changes.gone.len(), 1);
    let (messages, _) = feed::tick(&model.fleet, &changes, &everything(), 1);
    let Some(Message::Changes(told)) = WatchResponse::decode(messages[0].clone()).unwrap().message else {
        panic!("no changes")
    };
    assert_eq!(told.gone, [changes.gone[0].slot]);
}

#[test]
fn a_watcher_is_told_only_what_it_may_see() {
    let mut model = Model::with(&["a"]);
    model.attach("a", 1);
    model.fleet.inventory(&node("a"), &vm_on(VM, 2));
    let entities = |filter: &Filter| {
        let pieces = feed::snapshot(&model.fleet, filter);
        let decode = |bytes| match WatchResponse::decode(bytes).unwrap().message {
            Some(Message::Snapshot(snapshot)) => snapshot.entities.len(),
            other => panic!("not a snapshot: {other:?}"),
        };
        pieces.into_iter().map(decode).sum::<usize>()
    };
    assert_eq!(entities(&everything()), 2);
    let sight = viewer(&[Privilege::VmAudit]);
    assert_eq!(entities(&Filter { sight, ..everything() }), 1);
    let nodes = BTreeSet::from([node("b")]);
    assert_eq!(entities(&Filter { nodes, ..everything() }), 0);
    let topics = BTreeSet::from([Topic::NodeMetrics.into()]);
    assert_eq!(entities(&Filter { topics, ..everything() }), 1);
}

#[test]
fn a_frame_has_one_value_for_each_slot_and_nan_for_none() {
    let mut model = Model::with(&["a", "b"]);
    for (link, name) in [(1, "a"), (2, "b")] {
        model.attach(name, link);
        let metric = if name == "a" { Metric::NodeLoad1m } else { Metric::NodeUptime };
        let batch = SampleBatch {
            taken_unix_ms: 5,
            declared: vec![declared(1, metric, series::Object::Node(true))],
            gauge_ids: vec![1],
            gauges: vec![0.5],
            ..SampleBatch::default()
        };
        model.fleet.samples(&node(name), LinkId(link), &batch);
    }
    let pieces = feed::snapshot(&model.fleet, &everything());
    let Some(Message::Snapshot(snapshot)) = WatchResponse::decode(pieces[0].clone()).unwrap().message else {
        panic!("no snapshot")
    };
    let frame = &snapshot.frames[0];
    assert_eq!((frame.slots.len(), frame.columns.len()), (2, 2));
    for column in &frame.columns {
        let value = |at: usize| f32::from_le_bytes(column.values[at * 4..at * 4 + 4].try_into().unwrap());
        let mine = usize::from(column.metric() == Metric::NodeUptime);
        assert!((value(mine) - 0.5).abs() < f32::EPSILON && value(1 - mine).is_nan());
    }
}

#[test]
fn the_past_is_computed_as_the_present_was() {
    let series = vec![(3, declared(1, Metric::VmCpuTime, series::Object::VmUuid(VM.into())))];
    let batches = [(10, 0), (15, 5), (20, 15)].map(|(at, count)| (3, counter(at * S, 1, count * S, vec![])));
    let past = Past { series, batches: batches.to_vec(), gaps: Vec::new() };
    let resource = format!("vms/{VM}").parse().unwrap();
    let now = (clock::monotonic(), 0);
    let course = past::course(
        (&node("a"), &row("a")),
        Some(&vm_on(VM, 2)),
        past,
        &resource,
        &[Metric::VmCpuUsage],
        now,
    );
    assert_eq!(course[0].unix_ms, [10_000, 15_000, 20_000]);
    assert!(course[0].values[0].is_nan(), "one reading gives no usage");
    assert_eq!(course[0].values[1..], [50.0, 100.0]);
    assert_eq!(course[0].gap_ms, 15_000);
}

#[test]
fn a_clock_that_is_off_is_told_once_and_that_it_agrees_again() {
    let mut model = Model::with(&["a"]);
    let hello = Hello { node_unix_ms: 1_007_500, ..Hello::default() };
    model.fleet.attached(&node("a"), LinkId(1), &hello, model.start, 1_000_000);
    let told = |model: &mut Model| -> Vec<(EventKind, String)> {
        let events = model.fleet.take_changes().events;
        let of_clock = events.into_iter().map(|e| (e.event.kind(), e.event.detail));
        of_clock.filter(|(kind, _)| matches!(kind, EventKind::ClockSkewed | EventKind::ClockAgrees)).collect()
    };
    assert_eq!(told(&mut model), [(EventKind::ClockSkewed, "7.5 s ahead of the controller".to_owned())]);
    // What is delayed seems behind: the least delayed counts.
    let mut seen = |second: u32, taken_ms: i64| {
        let now = model.start + Duration::from_secs(second.into());
        let now_ms = 1_000_000 + i64::from(second) * 1000;
        model.fleet.clock_seen(&node("a"), taken_ms, now, now_ms);
        told(&mut model)
    };
    assert_eq!(seen(1, 1_001_000), []);
    assert_eq!(seen(30, 1_000_000), []);
    assert_eq!(seen(61, 1_060_900), [(EventKind::ClockAgrees, "0.0 s ahead of the controller".to_owned())]);
    assert_eq!(seen(62, 1_050_000), []);
    assert_eq!(seen(123, 1_112_000), [(EventKind::ClockSkewed, "11.0 s behind the controller".to_owned())]);
}

#[test]
fn a_guest_is_told_with_how_its_node_is() {
    let mut model = Model::with(&["a"]);
    model.attach("a", 1);
    model.fleet.inventory(&node("a"), &vm_on(VM, 2));
    let told = |model: &Model| {
        let (object, _) = select::whole(&model.fleet, &format!("vms/{VM}").parse().unwrap()).unwrap();
        let listed = select::vm_list(select::objects(&model.fleet, |_, _| true), 0, "");
        let entity::Object::Vm(vm) = object else { panic!("{object:?}") };
        assert_eq!(listed.vms[0].node_state(), vm.node_state());
        vm.node_state()
    };
    assert_eq!(told(&model), NodeState::Connected);
    model.fleet.detached(&node("a"), LinkId(1), 1);
    assert_eq!(told(&model), NodeState::Late);
    model.fleet.pass_time(model.start + Duration::from_secs(30), 2);
    assert_eq!(told(&model), NodeState::Down);
}

#[test]
fn the_node_that_this_program_runs_on_is_here_and_has_no_other_clock() {
    let mut model = Model::with(&["a"]);
    model.fleet.is_here(&node("a"), LinkId(1), "1", model.start, 0);
    for seconds in [0, 61, 122] {
        let now = model.start + Duration::from_secs(seconds);
        model.fleet.heard(&node("a"), now, 0);
        model.fleet.clock_seen(&node("a"), 0, now, 100_000);
    }
    assert_eq!(model.state("a"), NodeState::Here);
    let (object, _) = select::whole(&model.fleet, &"nodes/a".parse().unwrap()).unwrap();
    let entity::Object::Node(told) = object else { panic!("{object:?}") };
    assert_eq!(told.clock_offset_ms, None);
    assert_eq!(model.events(), [], "nobody came");
}
