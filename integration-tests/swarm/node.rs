//! Simulated nodes: the agent's own link, fed with made-up readings at the agent's usual cadence.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use horcrux_agentd::collect::{QUEUE, now};
use horcrux_agentd::link::Link;
use horcrux_agentd::sample::Cycle;
use horcrux_agentd::spool::Limits;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::values::Simulated;

/// It has none: its orders are answered so.
const NO_PRIVD: &str = "/nonexistent/privd.sock";

/// What each node has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) vms: usize,
    pub(crate) containers: usize,
}

/// One of so many steps of a second, in which a part of the nodes reads: hosts don't read at the same moment.
const STEPS: u32 = 20;
/// Guests are read this seldom.
const GUESTS_EVERY: u64 = 5;

struct Node {
    simulated: Simulated,
    cycles: mpsc::Sender<(&'static str, Cycle)>,
    readings: u64,
}

/// Gives what counts the values that were taken up so far.
pub(crate) fn start(
    states: Vec<PathBuf>,
    size: Size,
    faster: u32,
    tasks: &mut JoinSet<anyhow::Result<()>>,
    stop: &CancellationToken,
) -> Arc<AtomicU64> {
    let mut nodes = Vec::with_capacity(states.len());
    for (number, state) in states.into_iter().enumerate() {
        let (cycles, collected) = mpsc::channel(QUEUE);
        let link = Link::new(state, Limits::default(), Vec::new(), collected, Path::new(NO_PRIVD));
        let stop = stop.clone();
        tasks.spawn(async move { Ok(link.context("open a spool")?.run(stop).await?) });
        nodes.push(Node { simulated: Simulated::new(number, size), cycles, readings: 0 });
    }
    let sent = Arc::new(AtomicU64::new(0));
    tasks.spawn(feed(nodes, Duration::from_secs(1) / STEPS / faster, Arc::clone(&sent), stop.clone()));
    sent
}

async fn feed(
    mut nodes: Vec<Node>,
    step: Duration,
    sent: Arc<AtomicU64>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut steps = interval(step);
    steps.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut step, mut shed) = (0_usize, 0_u64);
    loop {
        tokio::select! {
            _ = steps.tick() => {}
            () = stop.cancelled() => break,
        }
        let parts = usize::try_from(STEPS)?;
        let part = step % parts;
        step += 1;
        for (number, node) in nodes.iter_mut().enumerate().filter(|(number, _)| number % parts == part) {
            shed += node.read(number, &sent);
        }
    }
    if shed > 0 {
        tracing::warn!(shed, "readings were shed before they were sent: the swarm itself was too slow");
    }
    Ok(())
}

impl Node {
    /// Takes one reading; gives how many found the queue full.
    fn read(&mut self, number: usize, sent: &AtomicU64) -> u64 {
        let taken = now();
        let mut cycles = vec![("node", self.simulated.node(taken))];
        // Nodes of one step take turns with their guests.
        let phase = u64::try_from(number).unwrap_or(0) / u64::from(STEPS);
        if self.readings == 0 || (self.readings + phase).is_multiple_of(GUESTS_EVERY) {
            cycles.push(("vms", self.simulated.vms(taken)));
            cycles.push(("containers", self.simulated.containers(taken)));
        }
        self.readings += 1;
        let mut shed = 0;
        for cycle in cycles {
            let values: usize = cycle.1.samples.iter().map(|sample| sample.readings.len()).sum();
            match self.cycles.try_send(cycle) {
                Ok(()) => _ = sent.fetch_add(values as u64, Ordering::Relaxed),
                Err(_) => shed += 1,
            }
        }
        shed
    }
}
