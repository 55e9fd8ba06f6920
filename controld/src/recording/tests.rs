use std::collections::{BTreeMap, BTreeSet};

use horcrux_proto::v1::RecordingScope::{All, Never, Serial};

use super::*;
use crate::access::policy::Subject;

const VM: &str = "vms/c0ffee00-0000-4000-8000-000000000001";

fn policy(subject: &str, scope: RecordingScope, keeps_input: bool) -> PolicyRow {
    PolicyRow { subject: subject.to_owned(), scope: scope.into(), keeps_input }
}

fn by(role: &str) -> Grant {
    Grant {
        id: "1".to_owned(),
        subject: Subject::User("alice@local".parse().unwrap()),
        role: role.parse().unwrap(),
        path: "/".parse().unwrap(),
        propagate: true,
        not_after_ms: None,
        created_ms: 0,
        created_by: String::new(),
    }
}

#[test]
fn the_strongest_of_a_vm_its_pools_and_the_role_that_lets_in_counts() {
    let vm: Resource = VM.parse().unwrap();
    let pools = BTreeMap::from([(vm.clone(), BTreeSet::from(["qa".parse().unwrap()]))]);
    let labels = Labels::new(BTreeMap::new(), pools);
    let grants = [by("VmUser")];
    let wanted = |policies: &[PolicyRow], kind| {
        demanded(policies, kind, &vm, &labels, grants.iter()).map(|demand| demand.keeps_input)
    };
    let (line, screen) = (ConsoleKind::Serial, ConsoleKind::Vnc);
    assert_eq!(wanted(&[], line), None);
    for subject in [VM, "pools/qa", "roles/VmUser"] {
        assert_eq!(wanted(&[policy(subject, Serial, false)], line), Some(false), "{subject}");
        assert_eq!(wanted(&[policy(subject, Serial, true)], screen), None, "{subject}");
        assert_eq!(wanted(&[policy(subject, All, false)], screen), Some(false), "{subject}");
    }
    for other in ["pools/prod", "roles/VmAdmin", "vms/c0ffee00-0000-4000-8000-000000000002"] {
        assert_eq!(wanted(&[policy(other, All, true)], line), None, "{other}");
    }
    let several =
        [policy(VM, Never, false), policy("pools/qa", Serial, true), policy("roles/VmUser", All, false)];
    assert_eq!(wanted(&several, line), Some(true));
    assert_eq!(wanted(&several, screen), Some(false));
}

fn row(id: &str, began_ms: i64) -> RecordingRow {
    RecordingRow {
        id: id.to_owned(),
        vm: "c0ffee00-0000-4000-8000-000000000001".to_owned(),
        display_name: "web1".to_owned(),
        node: "here".to_owned(),
        user: "alice@local".to_owned(),
        kind: ConsoleKind::Serial.into(),
        keeps_input: false,
        began_ms,
        ended_ms: None,
        size: 0,
        shed: 0,
        last_link: None,
    }
}

async fn opened(dir: &Path, quota: u64) -> Recordings {
    let store = Store::open(dir).await.unwrap();
    Recordings::open(dir, store, Counts::default(), quota, TaskTracker::new()).await.unwrap()
}

async fn made(recordings: &Recordings, id: &str, began_ms: i64, length: usize) {
    let recorder = recordings.begin(row(id, began_ms), ConsoleKind::Serial).await.unwrap();
    recorder.said(&vec![b'a'; length].into());
    assert_eq!(recorder.end().await.unwrap().shed, 0);
}

async fn listed(recordings: &Recordings) -> Vec<String> {
    let rows = recordings.list("", (i64::MAX, ""), 10).await.unwrap();
    rows.into_iter().map(|row| row.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_that_have_ended_make_room_and_one_that_goes_on_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let recordings = opened(dir.path(), 40_000).await;
    made(&recordings, "a", 1, 4000).await;
    made(&recordings, "b", 2, 4000).await;
    made(&recordings, "c", 3, 4000).await;
    assert_eq!(listed(&recordings).await, ["c", "b"]);
    assert!(!dir.path().join("recordings/a").exists());
    let stays = recordings.begin(row("d", 4), ConsoleKind::Serial).await.unwrap();
    stays.said(&vec![b'a'; 9000].into());
    stays.end().await.unwrap();
    assert_eq!(listed(&recordings).await, ["d"]);
    // After a restart what is there still counts.
    drop(recordings);
    let recordings = opened(dir.path(), 40_000).await;
    made(&recordings, "e", 5, 4000).await;
    assert_eq!(listed(&recordings).await, ["e"]);
}

const OTHER: &str = "c0ffee00-0000-4000-8000-000000000002";

fn of(vm: &str, row: RecordingRow) -> RecordingRow {
    RecordingRow { vm: vm.to_owned(), ..row }
}

/// Once all that was said is written or shed: what was shed.
async fn shed(recordings: &Recordings, id: &str, said: i64) -> i64 {
    let settled = async {
        loop {
            let row = recordings.find(id).await.unwrap().unwrap();
            if row.shed > 0 || row.size > said {
                return row.shed;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), settled).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn however_much_one_vm_says_the_recordings_of_others_stay_and_begin() {
    let dir = tempfile::tempdir().unwrap();
    let recordings = opened(dir.path(), 40_000).await;
    for (id, began_ms) in [("a", 1), ("b", 2), ("c", 3)] {
        made(&recordings, id, began_ms, 2500).await;
    }
    // An own one that has ended makes room; then there is none, and what comes is shed while the console goes on.
    for round in 0..2_u32 {
        let own = format!("own{round}");
        let begun = recordings.begin(of(OTHER, row(&own, 4)), ConsoleKind::Serial).await.unwrap();
        begun.said(&vec![b'a'; 9000].into());
        assert_eq!(shed(&recordings, &own, 9000).await, 0, "{round}");
        begun.said(&vec![b'b'; 9000].into());
        assert_eq!(shed(&recordings, &own, 18_000).await, 9000, "{round}");
        let another = recordings.begin(row("d", 5), ConsoleKind::Serial).await.unwrap();
        another.said(&b"login".to_vec().into());
        assert_eq!(another.end().await.unwrap().shed, 0);
        assert_eq!(begun.end().await.unwrap().shed, 9000);
        let text = std::fs::read_to_string(dir.path().join("recordings").join(&own)).unwrap();
        assert!(text.contains("9000 bytes are missing here"));
        assert_eq!(listed(&recordings).await, ["d", &own, "c", "b", "a"], "{round}");
        recordings.store.delete_recording("d").await.unwrap();
        std::fs::remove_file(dir.path().join("recordings/d")).unwrap();
    }
    // After a restart each VM has what it had.
    drop(recordings);
    let recordings = opened(dir.path(), 40_000).await;
    let begun = recordings.begin(of(OTHER, row("own2", 6)), ConsoleKind::Serial).await.unwrap();
    begun.said(&vec![b'a'; 9000].into());
    assert_eq!(begun.end().await.unwrap().shed, 0);
    assert_eq!(listed(&recordings).await, ["own2", "c", "b", "a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_recordings_that_go_on_take_all_there_is_another_begins_in_the_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let recordings = opened(dir.path(), 40_000).await;
    for vm in ["1", "2", "3", "4"] {
        let share = recordings.space.of(vm);
        while share.take(10).await {}
    }
    let begun = recordings.begin(row("a", 1), ConsoleKind::Serial).await.unwrap();
    begun.said(&b"login".to_vec().into());
    assert_eq!(begun.end().await.unwrap().shed, 5);
    assert_eq!(listed(&recordings).await, ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_past_its_time_goes_and_what_the_controllers_end_cut_short_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let recordings = opened(dir.path(), 1 << 30).await;
    made(&recordings, "a", 1, 10).await;
    let now_ms = clock::unix_ms();
    recordings.purge(now_ms, Duration::from_secs(60)).await;
    assert_eq!(listed(&recordings).await, ["a"]);
    recordings.purge(now_ms + 61_000, Duration::from_secs(60)).await;
    assert!(listed(&recordings).await.is_empty());

    let goes_on = recordings.begin(row("b", 1), ConsoleKind::Serial).await.unwrap();
    let again = opened(dir.path(), 1 << 30).await;
    let found = again.find("b").await.unwrap().unwrap();
    assert!(found.ended_ms.is_some() && found.last_link.is_none());
    let mut reading = again.read(&found).unwrap();
    let verdict = loop {
        match reading.go_on().unwrap() {
            reading::Next::Piece(rest, _) => reading = rest,
            reading::Next::Verdict(verdict) => break verdict,
        }
    };
    assert!(!verdict.intact && verdict.problem.contains("the controller ended"), "{verdict:?}");
    // Until here nothing ends it as it should end.
    drop(goes_on);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_begin_is_an_error_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let recordings = opened(dir.path(), 1 << 30).await;
    std::fs::remove_dir(dir.path().join("recordings")).unwrap();
    let error = recordings.begin(row("a", 1), ConsoleKind::Serial).await.unwrap_err();
    assert!(matches!(error, RecordingError::Write { .. }), "{error}");
    assert!(listed(&recordings).await.is_empty());
    let full = opened(dir.path(), 10).await;
    let error = full.begin(row("a", 1), ConsoleKind::Serial).await.unwrap_err();
    assert!(matches!(error, RecordingError::Full), "{error}");
}
