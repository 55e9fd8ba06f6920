//! The real program with the host's real PAM, among accounts of a private mount namespace. Root only; nothing of the
//! machine's own is changed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod host;

use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::thread;
use std::time::Duration;

use horcrux_pamd::{Answer, AskError, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::Signal;

use crate::host::{DEADLINE, Host, PASSWORD, connected, now, request};

/// Within which a refusal has to be, whatever it is for: PAM's own delay is random.
const ALIKE: std::ops::Range<Duration> = Duration::from_secs(3)..Duration::from_secs(5);

fn accepted(user: &str) -> Answer {
    Answer::Accepted { user: user.to_owned() }
}

/// Every reason for a refusal there is, asked at once; each answer with the time it took.
fn refusals(host: &Host, asked: &[(&'static str, &'static str)]) -> Vec<(&'static str, Answer, Duration)> {
    thread::scope(|scope| {
        let asking: Vec<_> = asked
            .iter()
            .map(|(user, password)| {
                scope.spawn(move || {
                    let began = now();
                    let answer = host.ask(user, password).unwrap();
                    (*user, answer, began.elapsed())
                })
            })
            .collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn a_good_user_is_accepted_and_all_others_get_one_answer_after_one_time() {
    let host = Host::start("horcrux", &["--allow-uid", "0"]);
    assert_eq!(host.ask("hxgood", PASSWORD).unwrap(), accepted("hxgood"));
    // No more at once than there are conversations.
    let first = [
        ("hxgood", "wrong-password-planted"),
        ("hxnobody", PASSWORD),
        ("hxexpired", PASSWORD),
        ("hxlocked", PASSWORD),
    ];
    let second = [("hxmustchange", PASSWORD), ("hxnull", "anything-planted"), ("hxnull", ""), ("hxgood", "")];
    let third = [("hxgood/../hxgood", PASSWORD), ("-hxgood", PASSWORD), ("hxoldpw", PASSWORD)];
    for asked in [&first[..], &second, &third] {
        for (user, answer, took) in refusals(&host, asked) {
            assert_eq!(answer, Answer::Refused, "{user}");
            assert!(ALIKE.contains(&took), "{user}: {took:?}");
        }
    }
    let log = host.log();
    for kind in
        ["account expired", "wrong password, unknown or locked", "unknown user", "password has to be changed"]
    {
        assert!(log.contains(kind), "{kind}: {log}");
    }
    assert!(!log.contains("hxnobody"), "the name of nobody may be a password: {log}");
    for planted in [PASSWORD, "wrong-password-planted", "anything-planted"] {
        assert!(!log.contains(planted), "{log}");
    }
}

#[test]
fn who_never_set_a_password_is_refused_even_where_the_service_would_let_them_in() {
    let host = Host::start("hx-nullok", &["--allow-uid", "0"]);
    assert_eq!(host.ask("hxgood", PASSWORD).unwrap(), accepted("hxgood"));
    assert_eq!(host.ask("hxnull", "anything").unwrap(), Answer::Refused);
    assert_eq!(host.ask("hxnull", "").unwrap(), Answer::Refused);
}

#[test]
fn the_file_that_is_shipped_works_with_this_hosts_own_rules() {
    let host = Host::start("hx-shipped", &["--allow-uid", "0"]);
    assert_eq!(host.ask("hxgood", PASSWORD).unwrap(), accepted("hxgood"));
    for user in ["hxexpired", "hxlocked", "hxnull"] {
        assert_eq!(host.ask(user, PASSWORD).unwrap(), Answer::Refused, "{user}");
    }
    // Here PAM says of nobody what it says of a wrong password.
    assert_eq!(host.ask("typed-into-the-wrong-field", "x").unwrap(), Answer::Refused);
    assert!(!host.log().contains("typed-into-the-wrong-field"), "{}", host.log());
}

#[test]
fn what_the_unit_leaves_of_root_is_enough_where_only_a_capability_reads_the_shadow_file() {
    let unit = include_str!("../../../../deploy/horcrux-pamd.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let left: Vec<String> =
        line.split(' ').map(|name| name.to_lowercase().replacen("cap_", "+", 1)).collect();
    let host = Host::start_with(&left.join(","), "horcrux", &["--allow-uid", "0"]);
    assert_eq!(host.ask("hxgood", PASSWORD).unwrap(), accepted("hxgood"));
    assert_eq!(host.ask("hxgood", "wrong").unwrap(), Answer::Refused);
    assert_eq!(host.ask("hxexpired", PASSWORD).unwrap(), Answer::Refused);
}

#[test]
fn the_name_in_the_answer_is_pams() {
    let host = Host::start("hx-rename", &["--allow-uid", "0"]);
    assert_eq!(host.ask("hxgood", PASSWORD).unwrap(), accepted("hxgood2"));
}

#[test]
fn the_address_of_the_person_reaches_pam() {
    let host = Host::start("hx-rhost", &["--allow-uid", "0"]);
    let from = |address: &str| host.put(&request("hxgood", PASSWORD, address));
    assert_eq!(from("203.0.113.7").unwrap(), accepted("hxgood"));
    assert_eq!(from("203.0.113.8").unwrap(), Answer::Refused);
}

#[test]
fn a_module_that_asks_for_more_than_a_password_gets_nothing() {
    // pam_unix asks for the password; the second module then asks for something by itself, and takes any answer.
    let host = Host::start("hx-more", &["--allow-uid", "0"]);
    assert_eq!(host.ask("hxgood", PASSWORD).unwrap(), Answer::Refused);
}

#[test]
fn a_service_without_a_file_fails_rather_than_take_the_rules_of_another() {
    // `other` of this namespace lets everybody in.
    let host = Host::start("hx-missing", &["--allow-uid", "0"]);
    assert_eq!(host.ask("hxgood", PASSWORD).unwrap(), Answer::Failed);
    assert_eq!(host.ask("hxnobody", "x").unwrap(), Answer::Failed);
}

#[test]
fn another_user_id_gets_no_answer() {
    let host = Host::start("horcrux", &["--allow-uid", "54321", "--allow-user", "hxgood"]);
    for _ in 0..3 {
        let answer = host.ask("hxgood", PASSWORD);
        assert!(matches!(answer, Err(AskError::NoAnswer)), "{answer:?}");
    }
    assert!(host.log().contains("this user may not ask"), "{}", host.log());
    assert!(!host.log().contains("accepted"), "{}", host.log());
}

#[test]
fn a_user_that_may_ask_can_be_named() {
    let host = Host::start("horcrux", &["--allow-user", "root"]);
    assert_eq!(host.ask("hxgood", PASSWORD).unwrap(), accepted("hxgood"));
}

#[test]
fn beyond_the_rate_the_answer_is_busy_and_others_are_still_heard() {
    // A host has four.
    let host = Host::start("horcrux", &["--allow-uid", "0", "--user-rate", "2", "--rate", "22"]);
    assert_eq!(host.ask("hxgood", PASSWORD).unwrap(), accepted("hxgood"));
    assert_eq!(host.ask("hxgood", PASSWORD).unwrap(), accepted("hxgood"));
    let began = now();
    assert_eq!(host.ask("hxgood", PASSWORD).unwrap(), Answer::Busy);
    assert_eq!(host.ask("HXGOOD", PASSWORD).unwrap(), Answer::Busy);
    assert!(began.elapsed() < Duration::from_secs(1), "PAM was asked");
    assert_eq!(host.ask("hxgood2", PASSWORD).unwrap(), accepted("hxgood2"));
    assert_eq!(host.ask("hxexpired", PASSWORD).unwrap(), Answer::Busy, "the host is beyond its rate");
    let elsewhere = request("hxgood", PASSWORD, "198.51.100.7");
    assert_eq!(host.put(&elsewhere).unwrap(), accepted("hxgood"));
    let known = Request { known: true, ..request("hxgood", PASSWORD, "192.0.2.1") };
    assert_eq!(host.put(&known).unwrap(), accepted("hxgood"));
}

#[test]
fn a_module_that_hangs_keeps_nobody_else_out() {
    let mut host = Host::start("hx-hang", &["--allow-uid", "0"]);
    thread::scope(|scope| {
        let hanging: Vec<_> = (0..3).map(|_| scope.spawn(|| host.ask("hxhang", PASSWORD))).collect();
        host.until_hanging(3);
        let began = now();
        assert_eq!(host.ask("hxgood", PASSWORD).unwrap(), accepted("hxgood"));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let last = scope.spawn(|| host.ask("hxhang", PASSWORD));
        host.until_hanging(4);
        assert_eq!(host.ask("hxgood", PASSWORD).unwrap(), Answer::Busy);
        for one in hanging {
            assert_eq!(one.join().unwrap().unwrap(), Answer::Failed);
        }
        // The program ends with the last, which may or may not still get its answer.
        let last = last.join().unwrap();
        assert!(matches!(last, Ok(Answer::Failed) | Err(AskError::NoAnswer)), "{last:?}");
    });
    // With every place lost it could only say Busy for ever.
    assert_eq!(host.ended().code(), Some(1), "{}", host.log());
    assert!(host.log().contains("all of PAM's conversations hang"), "{}", host.log());
}

#[test]
fn garbage_is_dropped_and_ends_nothing() {
    let host = Host::start("horcrux", &["--allow-uid", "0"]);
    let long = vec![2; 60_000];
    let packets: [&[u8]; 8] = [
        b"",
        b"\0",
        b"\x01\0\0\0\0\0\0",
        b"\x02\xff\xff",
        b"\x02\0\x01\xff\0\0\0\0\0",
        b"\x02\0\x01a\0\x01p\0\0\x02",
        &[0xff; 840],
        &long,
    ];
    for packet in packets {
        let connection = connected(&host.socket());
        send(&connection, packet, SendFlags::NOSIGNAL).unwrap();
        let told = recv(&connection, &mut [0; 16], RecvFlags::empty()).map(|(length, _)| length);
        assert!(matches!(told, Ok(0) | Err(Errno::CONNRESET)), "{told:?}");
    }
    assert_eq!(host.ask("hxgood", PASSWORD).unwrap(), accepted("hxgood"));
}

#[test]
fn who_connects_and_says_nothing_is_dropped_and_keeps_nobody_out() {
    let host = Host::start("horcrux", &["--allow-uid", "0"]);
    let began = now();
    let silent: Vec<_> = (0..8).map(|_| connected(&host.socket())).collect();
    assert_eq!(host.ask("hxgood", PASSWORD).unwrap(), accepted("hxgood"));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    for connection in &silent {
        let mut ended = [PollFd::from_borrowed_fd(connection.as_fd(), PollFlags::empty())];
        let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(poll(&mut ended, Some(&limit)), Ok(1));
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[test]
fn sigterm_ends_it() {
    let mut host = Host::start("horcrux", &["--allow-uid", "0"]);
    let began = now();
    host.signal(Signal::TERM);
    assert_eq!(host.ended().signal(), Some(Signal::TERM.as_raw()));
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn passed_a_socket_it_answers_there_and_ends_when_idle() {
    let mut host = Host::activated("horcrux", &["--allow-uid", "0", "--idle", "2s"]);
    assert_eq!(host.ask("hxgood", PASSWORD).unwrap(), accepted("hxgood"));
    assert!(host.ended().success(), "{}", host.log());
}

#[test]
fn passed_a_socket_of_another_kind_it_does_not_start() {
    let mut host = Host::activated_wrongly("horcrux", &["--allow-uid", "0"]);
    assert_eq!(host.ended().code(), Some(1));
    assert!(host.log().contains("ListenSequentialPacket"), "{}", host.log());
}

#[test]
fn a_crash_leaves_no_core_file_with_passwords() {
    let mut host = Host::start("horcrux", &["--allow-uid", "0"]);
    host.signal(Signal::ABORT);
    let status = host.ended();
    assert_eq!((status.signal(), status.core_dumped()), (Some(Signal::ABORT.as_raw()), false));
}

#[test]
fn a_password_that_was_answered_is_not_left_in_memory() {
    let host = Host::start("horcrux", &["--allow-uid", "0"]);
    assert_eq!(host.ask("hxgood", PASSWORD).unwrap(), accepted("hxgood"));
    assert_eq!(host.ask("hxexpired", PASSWORD).unwrap(), Answer::Refused);
    assert_eq!(host.ask("hxgood", "planted-wrong-password").unwrap(), Answer::Refused);
    assert_ne!(host.in_memory("--allow-uid"), 0, "what is there is not found");
    for planted in [PASSWORD, "planted-wrong-password"] {
        assert_eq!(host.in_memory(planted), 0, "{planted}");
    }
}

#[test]
fn the_deadline_of_the_client_is_kept() {
    let host = Host::start("horcrux", &["--allow-uid", "0"]);
    let began = now();
    let soon = Duration::from_millis(300);
    let answer = horcrux_pamd::ask(&host.socket(), &request("hxnobody", "x", ""), soon);
    assert!(matches!(answer, Err(AskError::TimedOut)), "{answer:?}");
    assert!(began.elapsed() < DEADLINE);
}
