use std::os::fd::OwnedFd;
use std::thread;

use horcrux_local::listener::{Kind, bound};
use horcrux_privd::packets::{MAX_QUESTION, Packets};
use horcrux_privd::v1::{
    Answer as Message, Container, ContainersAnswer, Outcome, Question, Runtime, RuntimeAnswer, answer,
};
use horcrux_proto::v1::ContainerFacts;
use rustix::net::accept;

use super::*;

fn at(seconds: u64) -> Taken {
    Taken { unix_ms: 0, boottime_ns: seconds * 1_000_000_000 }
}

fn facts(runtimes: &Runtimes, recalled: &mut Recalled) -> ContainerFacts {
    runtimes.recall("a", ContainerRuntime::Docker, "/docker/a", recalled);
    recalled.add_to(ContainerFacts::default())
}

/// Answers so many questions: the container `a` is called by the number of the question.
fn privd(listener: OwnedFd, count: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for number in 1..=count {
            let connection = Packets::new(accept(&listener).unwrap(), clock::monotonic() + DEADLINE);
            let _asked: Question = connection.read(MAX_QUESTION).unwrap();
            let container =
                Container { id: "a".into(), name: format!("web{number}"), ..Container::default() };
            let docker = RuntimeAnswer {
                runtime: Runtime::Docker.into(),
                outcome: Outcome::Answered.into(),
                containers: vec![container],
                ..RuntimeAnswer::default()
            };
            let answer = answer::Answer::Containers(ContainersAnswer { runtimes: vec![docker] });
            connection.write(&Message { answer: Some(answer) }).unwrap();
        }
    })
}

#[test]
fn privd_is_asked_every_five_seconds_and_at_once_for_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("privd.sock");
    let serving = privd(bound(&socket, Kind::Packets).unwrap(), 3);
    let mut runtimes = Runtimes::new(&socket);
    let mut recalled = Recalled::default();
    let mut name = |second, new| {
        runtimes.look(at(second), new);
        facts(&runtimes, &mut recalled).display_name.unwrap()
    };
    assert_eq!(name(100, true), "web1");
    assert_eq!(name(101, false), "web1", "it isn't time yet");
    assert_eq!(name(102, true), "web2");
    assert_eq!(name(105, false), "web2");
    assert_eq!(name(107, false), "web3");
    serving.join().unwrap();
}

#[test]
fn without_privd_the_reason_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut runtimes = Runtimes::new(&dir.path().join("privd.sock"));
    runtimes.look(at(1), true);
    let facts = facts(&runtimes, &mut Recalled::default());
    assert_eq!(facts.display_name, None);
    assert!(facts.name_unknown_reason.starts_with("horcrux-privd is not running: "), "{facts:?}");
    assert!(facts.name_unknown_reason.contains("no socket at "), "{facts:?}");
    assert_eq!(facts.state_unknown_reason, facts.name_unknown_reason);
    let report = runtimes.report().unwrap();
    assert_eq!((report.state, report.detail), (SourceState::Absent, facts.name_unknown_reason));
}

#[test]
fn how_privd_and_the_runtimes_do_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("privd.sock");
    let serving = privd(bound(&socket, Kind::Packets).unwrap(), 1);
    let mut runtimes = Runtimes::new(&socket);
    assert_eq!(runtimes.report(), None, "it isn't known before it was asked");
    runtimes.look(at(1), true);
    assert_eq!(runtimes.report().unwrap().state, SourceState::Ok);
    serving.join().unwrap();
    // Killed, it leaves its socket behind.
    runtimes.look(at(2), true);
    let report = runtimes.report().unwrap();
    assert!(report.state == SourceState::Failing && report.detail.contains("nobody listens"), "{report:?}");
    std::fs::remove_file(&socket).unwrap();
    runtimes.look(at(3), true);
    assert_eq!(runtimes.report().unwrap().state, SourceState::Failing, "it was there, and is missed");

    let answer = |runtime: Runtime, outcome: Outcome| RuntimeAnswer {
        runtime: runtime.into(),
        outcome: outcome.into(),
        reason: "no answer in 2 s".into(),
        ..RuntimeAnswer::default()
    };
    let all = vec![answer(Runtime::Podman, Outcome::Absent), answer(Runtime::Docker, Outcome::Failing)];
    runtimes.last = Arc::new(Ok(Told::from(ContainersAnswer { runtimes: all })));
    let report = runtimes.report().unwrap();
    assert_eq!((report.state, report.detail.as_str()), (SourceState::Failing, "docker: no answer in 2 s"));
}

#[test]
fn a_socket_that_may_not_be_used_is_no_privd_that_is_not_there() {
    let refused = AskError::Connect(io::ErrorKind::PermissionDenied.into());
    let Silence::Failing(why) = silence(&refused, Path::new("/run/privd.sock"), false) else { panic!() };
    assert!(why.contains("may not connect to /run/privd.sock") && !why.contains("not running"), "{why}");
}

#[test]
fn a_privd_that_hangs_is_waited_for_once_and_its_late_answer_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("privd.sock");
    let listener = bound(&socket, Kind::Packets).unwrap();
    let mut runtimes = Runtimes::new(&socket);
    let began = clock::monotonic();
    runtimes.look(at(1), true);
    assert!(began.elapsed() >= PATIENCE);
    let mut recalled = Recalled::default();
    assert_eq!(facts(&runtimes, &mut recalled).name_unknown_reason, "horcrux-privd has not answered yet");
    let began = clock::monotonic();
    runtimes.look(at(6), false);
    assert!(began.elapsed() < PATIENCE / 2, "it still owes an answer, and isn't waited for");
    privd(listener, 1).join().unwrap();
    let until = clock::monotonic() + DEADLINE;
    while facts(&runtimes, &mut recalled).display_name.is_none() {
        assert!(clock::monotonic() < until, "the answer was never taken");
        // Too early for another question.
        runtimes.look(at(5), false);
        thread::yield_now();
    }
    assert_eq!(facts(&runtimes, &mut recalled).display_name.as_deref(), Some("web1"));
}
