use std::sync::mpsc::{Sender, channel};

use horcrux_proto::agent::v1::{Event, SampleBatch};
use horcrux_transport::clock;

use super::*;

/// A spool whose disk hangs until its gate is dropped.
struct Node {
    keeper: Keeper,
    gate: Option<Sender<()>>,
    _dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (gate, opened) = channel();
        let spool = Spool::open(dir.path(), Limits::default(), 1_000);
        // Nothing is ever sent: it waits for the other end to go.
        let hang = move || assert!(opened.recv().is_err());
        let keeper = Keeper::start(spool, hang).unwrap();
        Self { keeper, gate: Some(gate), _dir: dir }
    }

    fn event(&mut self) {
        let event = Event { sequence: self.keeper.assign(), ..Event::default() };
        self.keeper.add("", backfill::Record::Event(event), false, 2_000);
        self.keeper.settle();
    }

    fn samples(&mut self, values: usize) {
        let sequence = self.keeper.assign();
        let batch = SampleBatch { sequence, gauges: vec![0.5; values], ..SampleBatch::default() };
        self.keeper.add("node", backfill::Record::Samples(batch), false, 2_000);
        self.keeper.settle();
    }

    fn answers(&mut self) {
        self.gate = None;
        self.until_free();
    }

    /// Returns when all that was given is written: a busy machine takes its time.
    fn until_free(&mut self) {
        let until = clock::monotonic() + Duration::from_secs(20);
        while self.keeper.worker.is_free().is_err() {
            assert!(clock::monotonic() < until, "it never answered");
            std::thread::yield_now();
        }
    }

    /// What a stream is sent: first and last sequence, and whether it is a gap.
    fn sent(&mut self) -> Vec<(u64, u64, bool)> {
        self.keeper.begin_stream();
        let mut sent = Vec::new();
        loop {
            self.until_free();
            let message = self.keeper.next_backfill();
            if message.is_none() && self.keeper.worker.is_free().is_ok() && !lock(&self.keeper.told).has_more
            {
                return sent;
            }
            sent.extend(message.map(|message| match message.record.unwrap() {
                backfill::Record::Samples(batch) => (batch.sequence, batch.sequence, false),
                backfill::Record::Event(event) => (event.sequence, event.sequence, false),
                backfill::Record::Gap(gap) => (gap.first_sequence, gap.last_sequence, true),
            }));
        }
    }
}

#[test]
fn a_disk_that_hangs_is_waited_for_once_and_then_has_it_all() {
    let mut node = Node::new();
    assert_eq!(node.keeper.trouble(), None);
    let began = clock::monotonic();
    node.event();
    assert!(began.elapsed() >= PATIENCE);
    let began = clock::monotonic();
    for _ in 0..100 {
        node.event();
    }
    assert!(began.elapsed() < PATIENCE, "not again");
    let (state, why) = node.keeper.trouble().unwrap();
    assert_eq!(state, SourceState::Stuck);
    assert!(why.contains("spool: no answer for 0 s"), "{why}");
    node.answers();
    assert_eq!(node.keeper.trouble(), None);
    assert_eq!(node.sent(), (1..=101).map(|at| (at, at, false)).collect::<Vec<_>>());
}

#[test]
fn what_there_is_no_room_for_is_told_and_becomes_one_gap() {
    let mut node = Node::new();
    for _ in 0..10 {
        node.samples(HELD / 8 / 5);
    }
    // The first is with the disk, four wait, five were shed.
    assert!(node.keeper.held <= HELD);
    let (_, why) = node.keeper.trouble().unwrap();
    assert!(why.ends_with("; 5 records were not kept"), "{why}");
    node.answers();
    node.event();
    let kept = |at| (at, at, false);
    assert_eq!(node.sent(), [kept(1), kept(2), kept(3), kept(4), kept(5), (6, 10, true), kept(11)]);
}

#[test]
fn an_epoch_whose_declarations_were_shed_is_given_up_when_the_disk_answers() {
    let mut node = Node::new();
    node.event();
    let long = Series { id: 1, instance: "x".repeat(HELD), ..Series::default() };
    node.keeper.declare(vec![long]);
    node.samples(1);
    assert!(!node.keeper.is_worn(), "a new one would have no better fate");
    node.answers();
    assert!(node.keeper.is_worn());
    node.until_free();
    let before = node.keeper.epoch();
    node.keeper.renew(1_000);
    assert_eq!((node.keeper.epoch(), node.keeper.is_worn()), (before + 1, false));
    node.event();
    assert_eq!(node.sent(), [(1, 1, false), (2, 2, true), (1, 1, false)]);
}

#[test]
fn what_never_had_a_sequence_is_in_a_gap() {
    let mut node = Node::new();
    node.gate = None;
    node.event();
    node.keeper.lost(0, "nothing", 2_000);
    node.keeper.lost(3, "too fast", 2_000);
    node.event();
    assert_eq!(node.sent(), [(1, 1, false), (2, 4, true), (5, 5, false)]);
}

#[test]
fn what_a_large_host_declares_at_once_is_kept_whole() {
    let mut node = Node::new();
    node.answers();
    let series = |id| Series { id, instance: "x".repeat(100), ..Series::default() };
    node.keeper.declare((1..=60_000).map(series).collect());
    assert!(!node.keeper.is_incomplete, "six megabytes, where four are held for a disk that hangs");
    node.samples(4);
    node.until_free();
    assert_eq!(node.sent(), [(1, 1, false)]);
}
