//! Viewers who don't read: their VMs wait, and the controller keeps little for them.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use horcrux_integration_tests::{Caller, Opened, wait_until};
use horcrux_proto::console::MAX_MESSAGE;
use horcrux_proto::v1::{ConsoleKind, ConsoleMode};
use horcrux_transport::clock;
use horcrux_transport::websocket::{Heard, Receiver, Sender};

use tokio::runtime::Runtime;

use super::scene::{Scene, WEB, ticket};

const VIEWERS: usize = 8;
/// With who has control, as many as one user may have at a VM.
const LOOKERS: usize = 7;
/// The most that the controller may keep for one of them.
const KEPT: usize = 2 << 20;
/// A VM that has said no more in so many looks, ten a second, waits.
const LOOKS: usize = 20;
/// Longer than a machine with much to do takes between two messages.
const NOTICED: Duration = Duration::from_millis(500);
/// What is said after the others were ended: each of them would have been full of it.
const QUEUED: usize = 4 << 20;

/// A VM that says what it can, until it is told to stop.
struct Talker {
    said: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Talker {
    fn start(opened: Opened) -> Self {
        let (said, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counted, stopped) = (Arc::clone(&said), Arc::clone(&stop));
        let talk = move || {
            while !stopped.load(Ordering::Relaxed) && opened.say(&[7; MAX_MESSAGE]).is_ok() {
                counted.fetch_add(MAX_MESSAGE, Ordering::Relaxed);
            }
        };
        Self { said, stop, thread: thread::spawn(talk) }
    }
}

/// What the controller has in memory and in no file.
fn resident(scene: &Scene) -> usize {
    let pid = scene.controller.daemon.pid().unwrap().as_raw_nonzero();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() << 10
}

/// Looks at `web1`, and reads up to the VM's first bytes.
fn at(runtime: &Runtime, caller: &Caller, kind: ConsoleKind) -> (Sender, Receiver) {
    let ticket = ticket(caller, WEB, kind, ConsoleMode::View).unwrap().ticket;
    runtime.block_on(async {
        let (mut sender, mut receiver) = caller.websocket().await.unwrap();
        sender.text(&ticket).await.unwrap();
        while !matches!(receiver.next().await.unwrap(), Heard::Bytes(_)) {}
        (sender, receiver)
    })
}

#[test]
fn viewers_who_do_not_read_have_their_vms_wait_and_get_all_of_it_later() {
    let scene = Scene::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let caller = scene.caller();
    let mut viewers: Vec<(Sender, Receiver, Opened)> = Vec::new();
    for _ in 0..VIEWERS {
        // Up to what the screen says first.
        let (sender, receiver) = at(&runtime, &caller, ConsoleKind::Vnc);
        viewers.push((sender, receiver, scene.node.consoles().opened().pop().unwrap()));
    }
    let before = resident(&scene);
    let talkers: Vec<Talker> = viewers.iter().map(|(_, _, vm)| Talker::start(vm.clone())).collect();
    let said = || talkers.iter().map(|talker| talker.said.load(Ordering::Relaxed)).sum::<usize>();
    let (mut last, mut looks) = (0, 0);
    wait_until("all VMs to wait", || {
        let now = said();
        looks = if now == last && now > VIEWERS * MAX_MESSAGE { looks + 1 } else { 0 };
        last = now;
        anyhow::ensure!(looks >= LOOKS, "{now} bytes were said");
        Ok(())
    })
    .unwrap();
    let kept = resident(&scene).saturating_sub(before);
    eprintln!("{last} bytes were said by {VIEWERS} VMs, of which the controller keeps {kept} at most");
    assert!(kept <= VIEWERS * KEPT, "{kept} bytes more than before, for {VIEWERS} viewers");

    // Whoever reads again misses nothing. The others are still there, and still wait.
    let (_sender, mut receiver, _vm) = viewers.pop().unwrap();
    let mut talkers = talkers;
    let talker = talkers.pop().unwrap();
    talker.stop.store(true, Ordering::Relaxed);
    let mut read = 0;
    while !talker.thread.is_finished() || read < talker.said.load(Ordering::Relaxed) {
        match runtime.block_on(receiver.next()).unwrap() {
            Heard::Bytes(bytes) => {
                assert!(bytes.iter().all(|byte| *byte == 7));
                read += bytes.len();
            }
            Heard::Text(_) => {}
            Heard::Closed { code, reason } => panic!("it ended: {code} {reason}"),
        }
    }
    assert_eq!(read, talker.said.load(Ordering::Relaxed));
    drop(viewers);
    drop(scene);
    for talker in talkers {
        talker.thread.join().unwrap();
    }
}

#[test]
fn who_reads_a_serial_line_is_held_up_once_by_those_who_do_not_and_these_are_ended() {
    let scene = Scene::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let caller = scene.caller();
    let first = scene.serial();
    first.bytes(b"login").unwrap();
    first.read_until(b"login").unwrap();
    let line = scene.opened("the line", |opened| opened.told == b"login");
    let lookers: Vec<_> = (0..LOOKERS).map(|_| at(&runtime, &caller, ConsoleKind::Serial)).collect();
    let talker = Talker::start(line.clone());
    // In control, and reads all that comes.
    let (mut last, mut longest, mut held_up) = (clock::monotonic(), Duration::ZERO, Duration::ZERO);
    let mut listen = || {
        let (at, _) = first.next("the VM").unwrap();
        let waited = at.saturating_duration_since(last);
        (last, longest) = (at, longest.max(waited));
        if waited > NOTICED {
            held_up += waited;
        }
    };
    let is_over = || scene.bob.json(&["console", "list"]).unwrap().as_array().unwrap().len() == 1;
    thread::scope(|scope| {
        let over = scope.spawn(|| {
            wait_until("the others to be ended", || {
                anyhow::ensure!(is_over());
                Ok(())
            })
        });
        while !over.is_finished() {
            listen();
        }
        over.join().unwrap().unwrap();
    });
    // It goes on for it, and for nobody else.
    let more = talker.said.load(Ordering::Relaxed) + LOOKERS * QUEUED;
    while talker.said.load(Ordering::Relaxed) < more {
        listen();
    }
    eprintln!("held up for {held_up:?}, {longest:?} at once");
    assert!(held_up < Duration::from_millis(1500), "held up for {held_up:?}");
    assert_eq!(scene.node.consoles().opened().len(), 1, "the line was opened again");
    let log = scene.admin.json(&["audit", "list", "--limit", "200"]).unwrap().to_string();
    let ended = log.matches("others look at this line too, and you read too slowly").count();
    assert_eq!(ended, LOOKERS, "{log}");
    talker.stop.store(true, Ordering::Relaxed);
    drop((first, lookers, scene));
    talker.thread.join().unwrap();
}

#[test]
fn who_looks_at_a_serial_line_alone_has_the_vm_wait_until_another_comes() {
    let scene = Scene::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let caller = scene.caller();
    let ticket = scene.ticket(ConsoleKind::Serial, ConsoleMode::View);
    let _alone = runtime.block_on(async {
        let (mut sender, receiver) = caller.websocket().await.unwrap();
        sender.text(&ticket).await.unwrap();
        (sender, receiver)
    });
    let talker = Talker::start(scene.opened("the line", |_| true));
    let (mut last, mut looks) = (0, 0);
    wait_until("the VM to wait", || {
        let now = talker.said.load(Ordering::Relaxed);
        looks = if now == last && now > MAX_MESSAGE { looks + 1 } else { 0 };
        last = now;
        anyhow::ensure!(looks >= LOOKS, "{now} bytes were said");
        Ok(())
    })
    .unwrap();
    assert_eq!(scene.bob.json(&["console", "list"]).unwrap().as_array().unwrap().len(), 1);
    let second = scene.serial();
    second.read_until(&[7; MAX_MESSAGE]).unwrap();
    assert!(talker.said.load(Ordering::Relaxed) > last);
    talker.stop.store(true, Ordering::Relaxed);
    drop((second, scene));
    talker.thread.join().unwrap();
}
