//! Many consoles at once: the controller's memory, and how late its watchers learn of samples, with those open and without.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use horcrux_integration_tests::{program, succeeded};
use horcrux_transport::websocket::{Heard, Receiver, Sender};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::cost::{Spent, memory};
use crate::ours::Ours;

/// Each VM says so much, so often: somebody moves a window on each screen.
const SAID: usize = 4 << 10;
const EVERY: Duration = Duration::from_millis(250);

pub(crate) async fn measure(sessions: usize, seconds: u64, of: Ours) -> anyhow::Result<()> {
    // A controller of its own for each: none inherits another's memory or nodes.
    drop(of);
    for open in [0, sessions] {
        let ours = Ours::start()?;
        let controller = ours.controller()?;
        let read = Arc::new(AtomicU64::new(0));
        let mut viewers = JoinSet::new();
        let mut vms = Vec::new();
        for number in 0..open {
            let (sender, receiver, vm) = ours.open_played(number).await?;
            viewers.spawn(looks(sender, receiver, Arc::clone(&read)));
            vms.push(vm);
        }
        let quiet = memory(controller, "VmRSS")?;
        let (stop, stopped) = channel::<()>();
        let talking = thread::spawn(move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                vms.iter().try_for_each(|vm| vm.say(&[7; SAID]))?;
            }
            anyhow::Ok(())
        });
        let before = Spent::by(controller)?;
        let figures = swarm(&ours, seconds)?;
        let spent = Spent::by(controller)?.since(&before);
        let latency = &figures["latency_ms"];
        println!(
            "{open:>4} consoles: controller {quiet:.0} MiB when they were open, {:.0} MiB while {:.0} MiB were carried, \
             {:.0} MiB at most (target: 256); {:.1} s of CPU; samples p50 {} ms, p99 {} ms, max {} ms",
            memory(controller, "VmRSS")?,
            read.load(Ordering::Relaxed) as f64 / f64::from(1 << 20),
            memory(controller, "VmHWM")?,
            spent.as_secs_f64(),
            latency["p50"],
            latency["p99"],
            latency["max"],
        );
        drop(stop);
        talking.join().ok().context("the VMs' thread")??;
    }
    Ok(())
}

async fn looks(sender: Sender, mut receiver: Receiver, read: Arc<AtomicU64>) {
    // Held: without it the WebSocket would be closed.
    let _sender = sender;
    while let Ok(heard) = receiver.next().await {
        match heard {
            Heard::Bytes(bytes) => {
                read.fetch_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
            Heard::Text(_) => {}
            Heard::Closed { .. } => return,
        }
    }
}

/// Simulated nodes and watchers of the same controller.
fn swarm(ours: &Ours, seconds: u64) -> anyhow::Result<Value> {
    let ran = Command::new(program("horcrux-swarm")?)
        .args(["--controller", &ours.url(), "--fingerprint", &ours.fingerprint()?])
        .args(["--password-file", &ours.password_file(), "--output", "json"])
        .args(["--nodes", "10", "--vms", "10", "--watchers", "10", "--seconds", &seconds.to_string()])
        .output()?;
    succeeded(&ran)?;
    serde_json::from_slice(&ran.stdout).context("the swarm's figures")
}
