//! Viewers who don't read: their VMs wait, and the controller keeps little for them.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use horcrux_integration_tests::{Opened, wait_until};
use horcrux_proto::console::MAX_MESSAGE;
use horcrux_proto::v1::{ConsoleKind, ConsoleMode};
use horcrux_transport::websocket::{Heard, Receiver, Sender};

use super::scene::{Scene, WEB, ticket};

const VIEWERS: usize = 8;
/// The most that the controller may keep for one of them.
const KEPT: usize = 2 << 20;
/// A VM that has said no more in so many looks, ten a second, waits.
const LOOKS: usize = 20;

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

#[test]
fn viewers_who_do_not_read_have_their_vms_wait_and_get_all_of_it_later() {
    let scene = Scene::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let caller = scene.caller();
    let mut viewers: Vec<(Sender, Receiver, Opened)> = Vec::new();
    for _ in 0..VIEWERS {
        let ticket = ticket(&caller, WEB, ConsoleKind::Vnc, ConsoleMode::View).unwrap().ticket;
        let (sender, receiver) = runtime.block_on(async {
            let (mut sender, mut receiver) = caller.websocket().await.unwrap();
            sender.text(&ticket).await.unwrap();
            // Up to what the screen says first.
            while !matches!(receiver.next().await.unwrap(), Heard::Bytes(_)) {}
            (sender, receiver)
        });
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
