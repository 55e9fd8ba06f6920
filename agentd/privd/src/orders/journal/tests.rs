use std::fs;

use horcrux_envelope::{ConsoleId, Operation, Signer};
use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_800_000_000_000;

fn order(command: u8, sequence: u64) -> Order {
    Order {
        signer: Signer::new(&[7; 32]).public_key().id(),
        cluster: "c".to_owned(),
        node_id: "n".to_owned(),
        command: Id::from_bytes([command; 16]),
        sequence,
        issued_unix_ms: NOW,
        expires_unix_ms: NOW + 1,
        actor: "ada@local".to_owned(),
        operation: Operation::ConsoleClose(ConsoleId::from_bytes([1; 16])),
    }
}

fn done() -> Settled {
    Settled { status: OrderStatus::Done, reason: String::new() }
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    (dir, path)
}

/// Carries one out, as far as the journal is concerned.
fn carried_out(journal: &mut Journal, order: &Order) {
    assert_eq!(journal.claim(order), Known::New);
    journal.accept(order, NOW).unwrap();
    journal.settle(order.command, done()).unwrap();
}

#[test]
fn a_command_is_known_by_its_id_and_others_come_in_sequence() {
    let (_dir, path) = place();
    let mut journal = Journal::open(&path, NOW).unwrap();
    assert_eq!(journal.claim(&order(1, 5)), Known::New);
    assert_eq!(journal.claim(&order(1, 5)), Known::Running);
    journal.accept(&order(1, 5), NOW).unwrap();
    journal.settle(order(1, 5).command, done()).unwrap();
    for again in [5, 4, 6] {
        assert_eq!(journal.claim(&order(1, again)), Known::Settled(done()));
    }
    assert_eq!(journal.claim(&order(2, 5)), Known::Late(5));
    assert_eq!(journal.claim(&order(2, 4)), Known::Late(5));
    let other = Order { signer: Signer::new(&[8; 32]).public_key().id(), ..order(3, 1) };
    assert_eq!(journal.claim(&other), Known::New, "each key counts for itself");
}

#[test]
fn after_a_restart_what_was_done_is_known_and_what_was_not_is_unknown() {
    let (_dir, path) = place();
    let mut journal = Journal::open(&path, NOW).unwrap();
    carried_out(&mut journal, &order(1, 1));
    assert_eq!(journal.claim(&order(2, 2)), Known::New);
    journal.accept(&order(2, 2), NOW).unwrap();
    drop(journal);
    for _ in 0..2 {
        let mut journal = Journal::open(&path, NOW).unwrap();
        assert_eq!(journal.claim(&order(1, 1)), Known::Settled(done()));
        let Known::Settled(unknown) = journal.claim(&order(2, 2)) else { panic!() };
        assert_eq!(unknown.status, OrderStatus::Unknown);
        assert_eq!(journal.claim(&order(3, 2)), Known::Late(2));
    }
}

#[test]
fn what_is_too_old_or_too_much_is_forgotten_but_not_how_far_the_sequence_was() {
    let (_dir, path) = place();
    let mut journal = Journal::open(&path, NOW).unwrap();
    carried_out(&mut journal, &order(1, 9));
    drop(journal);
    let mut journal = Journal::open(&path, NOW + AGE_MS + 1).unwrap();
    assert_eq!(journal.claim(&order(1, 9)), Known::Late(9));
    for number in 0..MOST + 7 {
        let entry = Entry { since_unix_ms: NOW, is_kept: true, settled: Some(done()) };
        journal.enter(number.to_string(), entry);
    }
    journal.forget(NOW);
    assert_eq!((journal.order.len(), journal.entries.len()), (MOST, MOST));
    assert_eq!(journal.order.front().unwrap(), "7");
}

#[test]
fn what_was_decided_before_it_had_a_place_on_the_disk_leaves_none_there() {
    let (_dir, path) = place();
    let mut journal = Journal::open(&path, NOW).unwrap();
    let refused = Settled { status: OrderStatus::Refused, reason: "late".to_owned() };
    assert_eq!(journal.claim(&order(1, 1)), Known::New);
    journal.settle(order(1, 1).command, refused.clone()).unwrap();
    assert_eq!(journal.claim(&order(1, 1)), Known::Settled(refused));
    carried_out(&mut journal, &order(2, 2));
    let mut journal = Journal::open(&path, NOW).unwrap();
    assert_eq!(journal.claim(&order(1, 1)), Known::Late(2));
}

#[test]
fn it_is_written_anew_when_it_has_grown() {
    let (_dir, path) = place();
    let mut journal = Journal::open(&path, NOW).unwrap();
    carried_out(&mut journal, &order(1, 1));
    journal.lines = MOST_LINES;
    carried_out(&mut journal, &order(2, 2));
    assert_eq!(journal.lines, 5);
    assert_eq!(Journal::open(&path, NOW).unwrap().claim(&order(1, 1)), Known::Settled(done()));
}

#[test]
fn a_line_in_the_middle_that_is_none_has_people_look() {
    let (_dir, path) = place();
    let mut journal = Journal::open(&path, NOW).unwrap();
    carried_out(&mut journal, &order(1, 1));
    carried_out(&mut journal, &order(2, 2));
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("settled", "settles", 1)).unwrap();
    assert!(matches!(Journal::open(&path, NOW), Err(JournalError::Damaged { line: 2, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn cut_anywhere_it_knows_all_that_was_whole(count in 1_u8..6, cut: prop::sample::Index) {
        let (_dir, path) = place();
        let mut journal = Journal::open(&path, NOW).unwrap();
        for number in 1..=count {
            carried_out(&mut journal, &order(number, number.into()));
        }
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(cut.index(bytes.len() + 1));
        let whole = bytes.iter().filter(|&&byte| byte == b'\n').count();
        fs::write(&path, &bytes).unwrap();
        let mut journal = Journal::open(&path, NOW).unwrap();
        for number in 1..=count {
            let known = journal.claim(&order(number, number.into()));
            let lines = usize::from(number) * 2;
            match known {
                Known::Settled(settled) if settled == done() => prop_assert!(whole >= lines),
                Known::Settled(_) => prop_assert_eq!(whole, lines - 1),
                // It is as if it had never come.
                Known::New => prop_assert!(whole < lines - 1),
                Known::Running | Known::Late(_) => panic!("{known:?}"),
            }
        }
    }

    #[test]
    fn any_bytes_are_a_journal_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (_dir, path) = place();
        fs::write(&path, &bytes).unwrap();
        drop(Journal::open(&path, NOW));
    }
}
