use horcrux_proto::v1::{EntityKind, Gap, Heartbeat, Hello, MetricColumn};

use super::*;

fn node(slot: u32, name: &str) -> Entity {
    let node = Node { name: format!("nodes/{name}"), ..Node::default() };
    Entity { slot, object: Some(Object::Node(node)) }
}

fn frame(slots: &[u32], columns: &[(Metric, &[f32])]) -> MetricsFrame {
    MetricsFrame {
        entity: EntityKind::Node.into(),
        slots: slots.to_vec(),
        age_ms: slots.iter().map(|slot| slot * 10).collect(),
        newest_unix_ms: 10_000,
        columns: columns
            .iter()
            .map(|(metric, values)| MetricColumn {
                metric: (*metric).into(),
                instance: String::new(),
                values: values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into(),
            })
            .collect(),
    }
}

fn said(message: Message) -> WatchResponse {
    WatchResponse { message: Some(message) }
}

fn snapshot(entities: Vec<Entity>, frames: Vec<MetricsFrame>, complete: bool) -> WatchResponse {
    said(Message::Snapshot(Snapshot { entities, frames, complete }))
}

fn changes(changes: Changes) -> WatchResponse {
    said(Message::Changes(changes))
}

fn names(fleet: &Fleet) -> Vec<&str> {
    fleet.things().map(|(_, thing)| thing.name()).collect()
}

fn now() -> Instant {
    horcrux_transport::clock::monotonic()
}

#[test]
fn a_snapshot_is_seen_whole_or_not_at_all() {
    let mut fleet = Fleet::default();
    let usage = Metric::NodeCpuUsage;
    assert_eq!(fleet.apply(snapshot(vec![node(1, "a")], vec![], false), now()), []);
    assert!(!fleet.is_complete() && names(&fleet).is_empty());
    let last = snapshot(vec![node(2, "b")], vec![frame(&[1, 2], &[(usage, &[5.0, f32::NAN])])], true);
    assert_eq!(fleet.apply(last, now()), [Change::Ready]);
    assert_eq!(names(&fleet), ["nodes/a", "nodes/b"]);
    let values: Vec<_> = fleet.things().map(|(_, t)| (t.value(usage), t.sampled_unix_ms)).collect();
    assert_eq!(values, [(Some(5.0), Some(9_990)), (None, Some(9_980))]);
}

#[test]
fn after_a_gap_the_old_state_stays_until_the_new_one_is_whole() {
    let mut fleet = Fleet::default();
    fleet.apply(snapshot(vec![node(1, "a"), node(2, "b")], vec![], true), now());
    let gap = Gap { missed_ticks: 3, missed_events: 2 };
    assert_eq!(fleet.apply(said(Message::Gap(gap)), now()), [Change::Gap { ticks: 3, events: 2 }]);
    assert_eq!(fleet.missed, Missed { gaps: 1, ticks: 3, events: 2 });
    fleet.apply(snapshot(vec![node(2, "b")], vec![], false), now());
    assert_eq!(names(&fleet), ["nodes/a", "nodes/b"]);
    fleet.apply(snapshot(vec![node(3, "c")], vec![], true), now());
    assert_eq!(names(&fleet), ["nodes/b", "nodes/c"]);
}

#[test]
fn a_gap_in_the_middle_of_a_snapshot_starts_it_over() {
    let mut fleet = Fleet::default();
    fleet.apply(snapshot(vec![node(1, "a")], vec![], false), now());
    fleet.apply(said(Message::Gap(Gap::default())), now());
    fleet.apply(snapshot(vec![node(2, "b")], vec![], true), now());
    assert_eq!(names(&fleet), ["nodes/b"]);
}

#[test]
fn changes_tell_what_is_new_what_has_values_and_what_is_gone() {
    let mut fleet = Fleet::default();
    fleet.apply(snapshot(vec![node(1, "a"), node(2, "b")], vec![], true), now());
    let event = Event { resource: "nodes/c".into(), ..Event::default() };
    let told = fleet.apply(
        changes(Changes {
            sent_unix_ms: 1,
            // An entity that is sent again unchanged is no news.
            entities: vec![node(1, "a"), node(3, "c")],
            gone: vec![2, 9],
            frames: vec![frame(&[3], &[(Metric::NodeLoad1m, &[0.5])])],
            events: vec![event.clone()],
        }),
        now(),
    );
    assert!(matches!(told.as_slice(),
        [Change::Thing(3), Change::Values(3), Change::Gone(thing), Change::Event(e)]
            if thing.name() == "nodes/b" && *e == event));
    assert_eq!(fleet.thing(3).unwrap().value(Metric::NodeLoad1m), Some(0.5));
    assert!(fleet.thing(2).is_none());
}

#[test]
fn a_value_that_a_newer_frame_does_not_hold_is_no_longer_there() {
    let mut fleet = Fleet::default();
    let both: &[(Metric, &[f32])] = &[(Metric::NodeLoad1m, &[1.0]), (Metric::NodeLoad5m, &[2.0])];
    fleet.apply(snapshot(vec![node(1, "a")], vec![frame(&[1], both)], true), now());
    let frames = vec![frame(&[1], &[(Metric::NodeLoad1m, &[3.0])])];
    fleet.apply(changes(Changes { frames, ..Changes::default() }), now());
    let thing = fleet.thing(1).unwrap();
    assert_eq!((thing.value(Metric::NodeLoad1m), thing.value(Metric::NodeLoad5m)), (Some(3.0), None));
    // An entity that comes again keeps its values.
    let mut renamed = node(1, "a");
    if let Some(Object::Node(node)) = &mut renamed.object {
        node.agent_version = Some("2".into());
    }
    let told = fleet.apply(changes(Changes { entities: vec![renamed], ..Changes::default() }), now());
    assert_eq!(told, [Change::Thing(1)]);
    assert_eq!(fleet.thing(1).unwrap().value(Metric::NodeLoad1m), Some(3.0));
}

#[test]
fn what_makes_no_sense_is_counted_and_left_out() {
    let mut fleet = Fleet::default();
    let short = frame(&[1, 2], &[(Metric::NodeLoad1m, &[1.0])]);
    let infinite = frame(&[1], &[(Metric::NodeLoad5m, &[f32::INFINITY])]);
    let unknown = frame(&[7], &[(Metric::NodeLoad1m, &[1.0])]);
    let nothing = Entity { slot: 4, object: None };
    let entities = vec![node(1, "a"), node(2, "b"), nothing];
    fleet.apply(snapshot(entities, vec![short, infinite, unknown], true), now());
    assert_eq!(fleet.unusable, 3);
    assert_eq!(fleet.thing(1).unwrap().values().count(), 0);
    assert_eq!(fleet.apply(WatchResponse { message: None }, now()), []);
}

#[test]
fn ages_are_by_the_controllers_clock_corrected_by_the_nodes() {
    let mut fleet = Fleet::default();
    let start = now();
    let hello = Hello { server_unix_ms: 20_000, ..Hello::default() };
    assert_eq!(fleet.apply(said(Message::Hello(hello)), start), [Change::Hello]);
    fleet.apply(snapshot(vec![node(1, "a")], vec![frame(&[1], &[])], true), start);
    let thing = fleet.thing(1).unwrap().clone();
    let later = start + Duration::from_secs(2);
    // Sampled at 9990 by a clock that is 1 s ahead; it is 22000 now.
    assert_eq!(fleet.age(&thing, 1000, later), Some(Duration::from_millis(13_010)));
    assert_eq!(fleet.age(&thing, -60_000, later), Some(Duration::ZERO));
    fleet.apply(said(Message::Heartbeat(Heartbeat { server_unix_ms: 30_000 })), later);
    assert_eq!(fleet.server_ms(later), Some(30_000));
}

#[test]
fn a_new_stream_replaces_the_old_one_when_its_snapshot_is_whole() {
    let mut fleet = Fleet::default();
    fleet.apply(snapshot(vec![node(1, "a")], vec![], true), now());
    fleet.apply(said(Message::Hello(Hello::default())), now());
    assert_eq!(names(&fleet), ["nodes/a"]);
    fleet.apply(snapshot(vec![node(1, "z")], vec![], true), now());
    assert_eq!(names(&fleet), ["nodes/z"]);
}
