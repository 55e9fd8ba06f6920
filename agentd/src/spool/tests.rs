use std::collections::BTreeMap;
use std::fs;

use horcrux_proto::agent::v1::{Backfill, Event, Gap, SampleBatch, backfill};
use proptest::prelude::*;

use super::*;

/// A controller as the contract wants it: each record once, and gaps of what is stored nowhere.
#[derive(Debug, Default)]
struct Controller {
    stored: BTreeMap<(u64, u64), bool>,
    declared: BTreeMap<(u64, u32), String>,
}

impl Controller {
    fn take(&mut self, message: &Backfill) -> Ack {
        let epoch = message.epoch;
        let sequence = match message.record.as_ref().unwrap() {
            backfill::Record::Samples(batch) => {
                for series in &batch.declared {
                    let before = self.declared.insert((epoch, series.id), series.instance.clone());
                    assert!(
                        before.is_none_or(|before| before == series.instance),
                        "an id stands for one series"
                    );
                }
                for id in &batch.gauge_ids {
                    assert!(self.declared.contains_key(&(epoch, *id)), "declared before it is used");
                }
                self.stored.insert((epoch, batch.sequence), true);
                batch.sequence
            }
            backfill::Record::Event(event) => {
                self.stored.insert((epoch, event.sequence), true);
                event.sequence
            }
            backfill::Record::Gap(gap) => {
                for sequence in gap.first_sequence..=gap.last_sequence {
                    self.stored.entry((epoch, sequence)).or_insert(false);
                }
                gap.last_sequence
            }
        };
        Ack { epoch, sequence, backfill: true }
    }

    /// Of an epoch: how many were stored, and how many are in gaps.
    fn of(&self, epoch: u64) -> (u64, u64) {
        let count = |whole| {
            let of = self.stored.iter().filter(|((e, _), is)| *e == epoch && **is == whole);
            of.count() as u64
        };
        (count(true), count(false))
    }
}

/// An agent's side, with what a stream that is there was sent.
struct Node {
    dir: tempfile::TempDir,
    spool: Spool,
    limits: Limits,
    now_ms: i64,
    /// Sequences of each epoch.
    given: BTreeMap<u64, u64>,
    next_id: u32,
    /// Batches of the epoch that runs.
    taken: u32,
    flipped: BTreeSet<PathBuf>,
}

impl Node {
    fn new(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), limits, 1_000);
        Self {
            dir,
            spool,
            limits,
            now_ms: 1_000,
            given: BTreeMap::new(),
            next_id: 0,
            taken: 0,
            flipped: BTreeSet::new(),
        }
    }

    fn samples(&mut self, lane: &str, values: usize, live: Option<&mut Controller>) {
        self.now_ms += 1000;
        if self.taken.is_multiple_of(7) {
            self.next_id += 1;
            let series =
                Series { id: self.next_id, instance: format!("i{}", self.next_id), ..Series::default() };
            self.spool.declare(vec![series]);
        }
        self.taken += 1;
        let batch = SampleBatch {
            sequence: self.assigned() + 1,
            taken_unix_ms: self.now_ms,
            gauge_ids: vec![self.next_id],
            gauges: vec![0.5; values],
            ..SampleBatch::default()
        };
        self.add(lane, backfill::Record::Samples(batch.clone()), live.is_some());
        self.sent(live, batch.sequence);
    }

    fn event(&mut self, live: Option<&mut Controller>) {
        let event = Event { sequence: self.assigned() + 1, at_unix_ms: self.now_ms, ..Event::default() };
        self.add("", backfill::Record::Event(event.clone()), live.is_some());
        self.sent(live, event.sequence);
    }

    fn assigned(&self) -> u64 {
        self.spool.head.assigned
    }

    fn add(&mut self, lane: &str, record: backfill::Record, live: bool) {
        self.spool.add(&Record::new(lane, self.spool.epoch(), record), live, self.now_ms);
    }

    fn sent(&mut self, live: Option<&mut Controller>, sequence: u64) {
        self.given.insert(self.spool.epoch(), self.assigned());
        if let Some(controller) = live {
            controller.stored.insert((self.spool.epoch(), sequence), true);
        }
    }

    fn fill(&mut self, controller: &mut Controller, most: usize, acked: bool) {
        for _ in 0..most {
            let Some(message) = self.spool.next_backfill() else { return };
            let ack = controller.take(&message);
            if acked {
                self.spool.acked(&ack);
            }
        }
    }

    /// Ends as by kill -9, and begins again.
    fn restart(&mut self) {
        self.now_ms += 5_000;
        (self.next_id, self.taken) = (0, 0);
        self.spool = Spool::open(self.dir.path(), self.limits, self.now_ms);
    }

    /// One bit of a file turns, at most one of each.
    fn flip(&mut self, file: usize, bit: usize) {
        let files = self.files();
        let Some(file) = files.get(file % files.len().max(1)) else { return };
        let mut bytes = fs::read(file).unwrap();
        if bytes.is_empty() || !self.flipped.insert(file.clone()) {
            return;
        }
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(file, bytes).unwrap();
    }

    /// Records that no controller has stored.
    fn owed(&self) -> u64 {
        self.spool.segments.iter().map(|s| s.last.saturating_sub(s.acked)).sum()
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> =
            fs::read_dir(self.dir.path().join("spool")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// All that was given is stored or in a gap, once everything was sent.
    fn adds_up(&mut self, controller: &mut Controller) {
        self.spool.begin_stream();
        controller.declared.clear();
        self.fill(controller, usize::MAX, true);
        for (&epoch, &given) in &self.given {
            let (stored, lost) = controller.of(epoch);
            assert_eq!(stored + lost, given, "epoch {epoch}: {stored} stored, {lost} in gaps");
        }
        assert_eq!(self.owed(), 0);
    }
}

fn small() -> Limits {
    Limits { bytes: 16 << 10, ..Limits::default() }
}

#[test]
fn an_outage_is_made_up_for_in_order_and_then_nothing_is_left() {
    let (mut node, mut controller) = (Node::new(Limits::default()), Controller::default());
    for _ in 0..100 {
        node.samples("node", 3, None);
    }
    node.event(None);
    node.spool.begin_stream();
    let mut last = 0;
    while let Some(message) = node.spool.next_backfill() {
        let ack = controller.take(&message);
        assert_eq!(ack.sequence, last + 1);
        last = ack.sequence;
        node.spool.acked(&ack);
    }
    assert_eq!((last, node.owed()), (101, 0));
    assert_eq!(controller.of(node.spool.epoch()), (101, 0));
}

#[test]
fn while_a_controller_listens_files_stay_small() {
    let (mut node, mut controller) = (Node::new(Limits::default()), Controller::default());
    node.spool.begin_stream();
    for _ in 0..2000 {
        node.samples("node", 100, Some(&mut controller));
        let ack = Ack { epoch: node.spool.epoch(), sequence: node.assigned(), backfill: false };
        node.spool.acked(&ack);
        let bytes: u64 = node.files().iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert!(bytes < CLEAR + (8 << 10), "{bytes}");
    }
    node.restart();
    assert_eq!(node.owed(), 0, "what was stored isn't sent again");
}

#[test]
fn what_a_killed_agent_had_written_is_there_and_the_rest_is_known_to_be_lost() {
    let (mut node, mut controller) = (Node::new(Limits::default()), Controller::default());
    for _ in 0..50 {
        node.samples("node", 3, None);
    }
    let epoch = node.spool.epoch();
    // Given, and not written any more.
    node.spool.head.note(51, 0).unwrap();
    node.given.insert(epoch, 51);
    let records =
        node.files().into_iter().find(|file| file.extension().is_some_and(|e| e == "records")).unwrap();
    let length = fs::metadata(&records).unwrap().len();
    fs::OpenOptions::new().write(true).open(&records).unwrap().set_len(length - 5).unwrap();
    node.restart();
    assert!(node.spool.epoch() > epoch);
    node.samples("node", 3, None);
    node.adds_up(&mut controller);
    assert_eq!(controller.of(epoch), (49, 2));
    assert_eq!(node.files().len(), 3, "of the epoch before nothing is left: {:?}", node.files());
}

#[test]
fn a_spool_that_is_full_gives_up_the_oldest_samples_and_no_event() {
    let (mut node, mut controller) = (Node::new(small()), Controller::default());
    for round in 0..3000 {
        node.samples("node", 20, None);
        if round % 100 == 0 {
            node.event(None);
        }
        // Each segment its own, however small.
        if round % 10 == 0 {
            node.spool.begin_stream();
            node.samples("vms", 1, Some(&mut controller));
        }
    }
    let on_disk: u64 = node.files().iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(on_disk < 4 * small().bytes, "{on_disk}");
    node.adds_up(&mut controller);
    let (stored, lost) = controller.of(node.spool.epoch());
    assert!(lost > 2000 && stored > 300, "{stored} stored, {lost} lost");
}

#[test]
fn a_disk_that_takes_nothing_is_told_and_memory_serves() {
    let (mut node, mut controller) = (Node::new(Limits::default()), Controller::default());
    node.samples("node", 3, None);
    let spool = node.dir.path().join("spool");
    fs::remove_dir_all(&spool).unwrap();
    fs::write(&spool, "not a directory").unwrap();
    // The file in use is open still; the next one can't be made.
    node.spool.begin_stream();
    node.samples("node", 3, Some(&mut controller));
    node.samples("node", 3, None);
    assert!(node.spool.trouble().is_some_and(|why| why.contains("spool")), "{:?}", node.spool.trouble());
    fs::remove_file(&spool).unwrap();
    node.now_ms += 20_000;
    node.samples("node", 3, None);
    node.samples("node", 3, None);
    assert_eq!(node.spool.trouble(), None);
    node.adds_up(&mut controller);
    assert_eq!(controller.of(node.spool.epoch()), (5, 0));
}

#[test]
fn what_was_removed_meanwhile_is_put_back() {
    let (mut node, mut controller) = (Node::new(Limits::default()), Controller::default());
    for _ in 0..20 {
        node.samples("node", 3, None);
    }
    fs::remove_dir_all(node.dir.path().join("spool")).unwrap();
    for _ in 0..11 {
        node.samples("node", 3, None);
    }
    assert_eq!(node.spool.trouble(), None);
    let epoch = node.spool.epoch();
    node.restart();
    node.adds_up(&mut controller);
    assert_eq!(controller.of(epoch), (31, 0));
}

#[test]
fn what_could_not_be_taken_up_at_first_is_later() {
    let (mut node, mut controller) = (Node::new(Limits::default()), Controller::default());
    for _ in 0..20 {
        node.samples("node", 3, None);
    }
    let before = node.spool.epoch();
    let (spool, aside) = (node.dir.path().join("spool"), node.dir.path().join("aside"));
    fs::rename(&spool, &aside).unwrap();
    fs::write(&spool, "not a directory").unwrap();
    node.restart();
    assert!(node.spool.trouble().is_some());
    node.samples("node", 3, None);
    fs::remove_file(&spool).unwrap();
    fs::rename(&aside, &spool).unwrap();
    for _ in 0..11 {
        node.samples("node", 3, None);
    }
    assert_eq!(node.spool.trouble(), None);
    node.adds_up(&mut controller);
    assert_eq!((controller.of(before), controller.of(node.spool.epoch())), ((20, 0), (12, 0)));
}

#[test]
fn a_segment_that_a_power_cut_took_is_known_to_be_lost() {
    let (mut node, mut controller) = (Node::new(Limits::default()), Controller::default());
    for _ in 0..9 {
        node.samples("node", 3, None);
    }
    node.spool.begin_stream();
    node.samples("node", 3, Some(&mut Controller::default()));
    let epoch = node.spool.epoch();
    let records = |node: &Node| {
        let files = node.files().into_iter();
        files.filter(|file| file.extension().is_some_and(|e| e == "records")).collect::<Vec<_>>()
    };
    let [first, second] = &records(&node)[..] else { panic!("two segments") };
    fs::remove_file(first).unwrap();
    fs::remove_file(second).unwrap();
    node.restart();
    node.adds_up(&mut controller);
    assert_eq!(controller.of(epoch), (0, 10));
}

#[test]
fn what_is_no_file_of_the_spool_is_not_waited_for_and_not_followed() {
    let (mut node, mut controller) = (Node::new(Limits::default()), Controller::default());
    for _ in 0..9 {
        node.samples("node", 3, None);
    }
    let epoch = node.spool.epoch();
    let records =
        node.files().into_iter().find(|file| file.extension().is_some_and(|e| e == "records")).unwrap();
    fs::remove_file(&records).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &records, rustix::fs::Mode::RWXU).unwrap();
    let dir = records.parent().unwrap();
    let far = format!("{}-{:020}.records", u64::MAX, 1);
    fs::write(dir.join(far), "of no epoch").unwrap();
    let other = node.dir.path().join("other");
    fs::write(&other, "somebody's").unwrap();
    node.restart();
    node.adds_up(&mut controller);
    assert_eq!(controller.of(epoch), (0, 9));
    // While it runs.
    node.samples("node", 3, None);
    let head = node.files().into_iter().rfind(|file| file.extension().is_some_and(|e| e == "head")).unwrap();
    fs::remove_file(&head).unwrap();
    std::os::unix::fs::symlink(&other, &head).unwrap();
    for _ in 0..11 {
        node.samples("node", 3, None);
    }
    assert_eq!(fs::read(&other).unwrap(), b"somebody's");
    assert!(fs::symlink_metadata(&head).unwrap().is_file());
}

#[test]
fn a_full_disk_is_not_called_well_before_it_takes_something() {
    let mut node = Node::new(Limits::default());
    node.samples("node", 3, None);
    node.spool.fail("write", &io::Error::other("no space left"));
    node.samples("node", 3, None);
    assert!(node.spool.trouble().is_some(), "it was not looked at again");
    node.now_ms += 20_000;
    node.samples("node", 3, None);
    assert_eq!(node.spool.trouble(), None);
}

#[test]
fn what_declarations_that_are_not_whole_leave_unknown_is_lost_and_no_more() {
    let (mut node, mut controller) = (Node::new(Limits::default()), Controller::default());
    for _ in 0..21 {
        node.samples("node", 3, None);
    }
    let epoch = node.spool.epoch();
    let series =
        node.files().into_iter().find(|file| file.extension().is_some_and(|e| e == "series")).unwrap();
    let mut bytes = fs::read(&series).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&series, bytes).unwrap();
    node.restart();
    node.adds_up(&mut controller);
    assert_eq!(controller.of(epoch), (14, 7), "seven readings of each of three series");
}

#[test]
fn what_is_older_than_two_hours_is_thinned_and_than_a_day_gone() {
    let (mut node, mut controller) = (Node::new(Limits::default()), Controller::default());
    for _ in 0..600 {
        node.samples("node", 3, None);
    }
    node.event(None);
    node.now_ms += 3 * 3_600_000;
    node.spool.begin_stream();
    node.samples("node", 3, Some(&mut Controller::default()));
    let left = |node: &mut Node| {
        let records = node.spool.segments.iter().flat_map(|s| s.records().unwrap());
        records.filter(|record| record.is_samples()).count()
    };
    assert!((11..=14).contains(&left(&mut node)), "{}", left(&mut node));
    node.now_ms += 22 * 3_600_000;
    node.samples("node", 3, None);
    assert!(left(&mut node) <= 2, "{}", left(&mut node));
    node.adds_up(&mut controller);
    assert_eq!(controller.of(node.spool.epoch()).1, 600);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn it_adds_up_whatever_happens(acts in proptest::collection::vec(0..11_u8, 1..120), bytes in 2_u64..40, flips: [(usize, usize); 4]) {
        let limits = Limits { bytes: bytes << 10, ..Limits::default() };
        let (mut node, mut controller) = (Node::new(limits), Controller::default());
        let (mut attached, mut flips) = (false, flips.into_iter());
        for act in acts {
            match act {
                0..=3 => {
                    for _ in 0..5 {
                        node.samples(if act == 0 { "vms" } else { "node" }, 30, attached.then_some(&mut controller));
                    }
                }
                4 => node.event(attached.then_some(&mut controller)),
                5 => {
                    controller.declared.clear();
                    node.spool.begin_stream();
                    attached = true;
                }
                6 => attached = false,
                7 if attached => {
                    let ack = Ack { epoch: node.spool.epoch(), sequence: node.assigned(), backfill: false };
                    node.spool.acked(&ack);
                }
                8 if attached => node.fill(&mut controller, 10, true),
                9 => {
                    attached = false;
                    node.restart();
                }
                10 => {
                    // Of what is stored nowhere else, so that each loss shows.
                    attached = false;
                    if let Some((file, bit)) = flips.next() {
                        node.flip(file, bit);
                    }
                    node.restart();
                }
                _ => {
                    let (first_sequence, at) = (node.assigned() + 1, node.now_ms);
                    let last_sequence = first_sequence + 2;
                    let gap = Gap { first_sequence, last_sequence, from_unix_ms: at, until_unix_ms: at, ..Gap::default() };
                    node.add("", backfill::Record::Gap(gap), false);
                    node.given.insert(node.spool.epoch(), node.assigned());
                }
            }
        }
        node.adds_up(&mut controller);
    }
}
