use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use horcrux_proto::v1::entity::Object;
use horcrux_proto::v1::watch_response::Message;
use horcrux_proto::v1::{
    Changes, Entity, EntityKind, Gap, Hello, Metric, MetricColumn, MetricsFrame, Node, NodeFacts, NodeState,
    Snapshot, Source, SourceState, SourceStatus, Vm, VmFacts, VmState, WatchResponse,
};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;

const NOW_MS: i64 = 1_000_000;

fn node(slot: u32, name: &str, state: NodeState) -> Entity {
    let node = Node { name: format!("nodes/{name}"), state: state.into(), ..Node::default() };
    Entity { slot, object: Some(Object::Node(node)) }
}

fn vm(slot: u32, name: &str) -> Entity {
    let facts = VmFacts { display_name: name.into(), state: VmState::Running.into(), ..VmFacts::default() };
    let vm =
        Vm { name: format!("vms/{slot}"), node: "nodes/web1".into(), facts: Some(facts), ..Vm::default() };
    Entity { slot, object: Some(Object::Vm(vm)) }
}

fn column(metric: Metric, values: &[f32]) -> MetricColumn {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    MetricColumn { metric: metric.into(), instance: String::new(), values: bytes.into() }
}

fn fleet(now: Instant) -> Fleet {
    let nodes = MetricsFrame {
        entity: EntityKind::Node.into(),
        slots: vec![1, 2],
        age_ms: vec![0, 60_000],
        newest_unix_ms: NOW_MS - 2000,
        columns: vec![
            column(Metric::NodeCpuUsage, &[92.5, 12.0]),
            column(Metric::NodeMemoryUsage, &[50.0, f32::NAN]),
            column(Metric::NodeLoad1m, &[1.5, 0.25]),
            column(Metric::NodeDiskReadRate, &[1_572_864.0, 0.0]),
        ],
    };
    let vms = MetricsFrame {
        entity: EntityKind::Vm.into(),
        slots: vec![3],
        age_ms: vec![500],
        newest_unix_ms: NOW_MS,
        columns: vec![column(Metric::VmCpuUsage, &[75.0])],
    };
    let entities = vec![
        node(1, "web1", NodeState::Connected),
        node(2, "web2", NodeState::Down),
        vm(3, "shop\u{1b}[31m"),
        vm(4, "idle"),
    ];
    let mut fleet = Fleet::default();
    let hello = Hello { server_unix_ms: NOW_MS, ..Hello::default() };
    for message in [
        Message::Hello(hello),
        Message::Snapshot(Snapshot { entities, frames: vec![nodes, vms], complete: true }),
    ] {
        fleet.apply(WatchResponse { message: Some(message) }, now);
    }
    fleet
}

fn drawn(state: &State, fleet: &Fleet, now: Instant) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(132, 14)).unwrap();
    terminal.draw(|frame| draw(frame, state, fleet, "https://web1:8006", now)).unwrap();
    terminal
}

fn text(terminal: &Terminal<TestBackend>) -> String {
    let buffer = terminal.backend().buffer();
    let line = |y| {
        let cells = (0..buffer.area.width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned() + "\n"
    };
    (0..buffer.area.height).map(line).collect()
}

fn live() -> State {
    State { link: Link::Live, ..State::default() }
}

fn golden(name: &str, text: &str) {
    insta::with_settings!({ snapshot_path => "../../tests/golden", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}

#[test]
fn nodes_are_shown_with_their_usage() {
    let now = horcrux_transport::clock::monotonic();
    golden("top_nodes", &text(&drawn(&live(), &fleet(now), now)));
}

#[test]
fn a_nodes_guests_are_shown_and_their_names_are_harmless() {
    let now = horcrux_transport::clock::monotonic();
    let (mut state, fleet) = (live(), fleet(now));
    let rows = state.rows(&fleet, now);
    state.key(KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE), &rows);
    golden("top_vms", &text(&drawn(&state, &fleet, now)));
}

#[test]
fn what_cannot_be_shown_is_told_with_the_reason() {
    let now = horcrux_transport::clock::monotonic();
    let (mut state, mut fleet) = (live(), fleet(now));
    let status = SourceStatus {
        source: Source::Libvirt.into(),
        instance: "qemu:///system".into(),
        state: SourceState::Stuck.into(),
        detail: "no answer for 9 s".into(),
        ..SourceStatus::default()
    };
    let mut entity = node(1, "web1", NodeState::Connected);
    if let Some(Object::Node(node)) = &mut entity.object {
        node.facts = Some(NodeFacts { sources: vec![status], ..NodeFacts::default() });
    }
    let changes = Changes { entities: vec![entity], ..Changes::default() };
    fleet.apply(WatchResponse { message: Some(Message::Changes(changes)) }, now);
    let told = "libvirt qemu:///system on web1 is stuck: no answer for 9 s";
    let shown = text(&drawn(&state, &fleet, now));
    assert!(shown.contains(told) && !shown.contains("is down:"), "{shown}");
    let rows = state.rows(&fleet, now);
    state.key(KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE), &rows);
    assert!(text(&drawn(&state, &fleet, now)).contains(told));
    state.key(KeyEvent::new(KeyCode::Tab, KeyModifiers::NONE), &[]);
    assert!(!text(&drawn(&state, &fleet, now)).contains(told), "of containers it says nothing");
}

#[test]
fn help_covers_the_screen() {
    let now = horcrux_transport::clock::monotonic();
    let state = State { mode: Mode::Help, ..live() };
    golden("top_help", &text(&drawn(&state, &fleet(now), now)));
}

#[test]
fn a_lost_connection_and_gaps_are_told_and_all_is_dimmed() {
    let now = horcrux_transport::clock::monotonic();
    let mut fleet = fleet(now);
    let gap = Gap { missed_ticks: 7, missed_events: 1 };
    fleet.apply(WatchResponse { message: Some(Message::Gap(gap)) }, now);
    let lost = Link::Lost { why: "broken pipe".into(), retry_in: Duration::from_millis(1500) };
    let terminal = drawn(&State { link: lost, ..State::default() }, &fleet, now);
    let shown = text(&terminal);
    assert!(shown.contains("x DISCONNECTED, trying again in 1.5s: broken pipe"), "{shown}");
    assert!(shown.contains("gaps: 1 (7 updates, 1 events missed)"), "{shown}");
    assert!(terminal.backend().buffer()[(2, 2)].modifier.contains(Modifier::DIM));
}

#[test]
fn stale_rows_are_dimmed_and_have_no_colour_while_fresh_ones_warn() {
    let now = horcrux_transport::clock::monotonic();
    let terminal = drawn(&live(), &fleet(now), now);
    let buffer = terminal.backend().buffer();
    let at = |y: u16, wanted: &str| {
        (0..buffer.area.width).find(|&x| buffer[(x, y)].symbol() == wanted).map(|x| &buffer[(x, y)]).unwrap()
    };
    assert_eq!(at(2, "%").fg, Color::Red);
    assert_eq!(at(3, "%").fg, Color::Reset);
    assert!(at(3, "%").modifier.contains(Modifier::DIM));
    assert!(!at(2, "%").modifier.contains(Modifier::DIM));
}

#[test]
fn before_the_first_snapshot_nothing_is_claimed() {
    let now = horcrux_transport::clock::monotonic();
    let shown = text(&drawn(&State::default(), &Fleet::default(), now));
    assert!(shown.contains("waiting for the first snapshot") && shown.contains("o connecting"), "{shown}");
}

#[test]
fn a_tiny_terminal_is_no_reason_to_panic() {
    let now = horcrux_transport::clock::monotonic();
    for (width, height) in [(1, 1), (10, 2), (20, 3)] {
        for mode in [Mode::Browse, Mode::Filter, Mode::Help] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            let state = State { mode, ..live() };
            terminal.draw(|frame| draw(frame, &state, &fleet(now), "https://web1:8006", now)).unwrap();
        }
    }
}
