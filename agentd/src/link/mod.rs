//! The stream to the controller: dial, say hello, tell what is here, pass on what is read; dial again when it breaks.
//!
//! While there is no stream, readings go on and are counted as dropped; the next batch says how many. What exists is
//! kept and told in full at the start of every stream.

use std::path::PathBuf;
use std::time::Duration;

use horcrux_proto::agent::v1::enrollment_client::EnrollmentClient;
use horcrux_proto::agent::v1::{
    AttachRequest, AttachResponse, Command, CommandResult, Configure, Event, Hello, RenewRequest,
    attach_request, attach_response, command, event,
};
use horcrux_proto::v1::{EventKind, SourceState, VmState};
use horcrux_transport::backoff::{Backoff, draw};
use horcrux_transport::client::ConnectError;
use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use horcrux_transport::tasks::Stop;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout};
use tonic::transport::Channel;

use crate::collect::{self, Running};
use crate::config::{LONGEST, SHORTEST};
use crate::identity::{Enrolled, Facts, IdentityError, NewKey};
use crate::link::dictionary::Dictionary;
use crate::present::{News, Present};
use crate::sample::{Cycle, Found, Object, SourceReport};

pub mod dictionary;
mod stream;

use stream::{Stream, attach, ended};

const CONNECT: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);
/// A stream that ended sooner was no success: dialling again at once would only repeat why it ended.
const LASTED: Duration = Duration::from_secs(10);
/// A controller may ask for no longer pause than this.
const LONGEST_SPREAD: Duration = Duration::from_secs(60);
/// How often lanes are looked at for being stuck.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_AT_CERTIFICATE: Duration = Duration::from_secs(60);
/// A certificate lives seven days and is renewed after one: six days for a controller to come back in.
const RENEW_WHEN_LEFT_MS: i64 = 6 * 24 * 3600 * 1000;

/// Everything that the task needs.
#[derive(Debug)]
pub struct Link {
    state_dir: PathBuf,
    lanes: Vec<Running>,
    cycles: mpsc::Receiver<(&'static str, Cycle)>,
    present: Present,
    dictionary: Dictionary,
    epoch: u64,
    boot_id: String,
    sequence: u64,
    /// Readings that were not passed on since the last batch that was.
    dropped: u32,
    /// Of the lanes' own drops, how many are in `dropped` already.
    counted: u64,
    /// Ids of VMs that don't run any more, not yet told.
    off: Vec<u32>,
}

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("know this node's identity")]
    Identity(#[source] IdentityError),
    #[error("connect")]
    Connect(#[source] ConnectError),
    #[error("the controller ended the stream: {0}")]
    Ended(String),
    #[error("the controller closed the stream")]
    Closed,
    #[error("the certificate was renewed")]
    Renewed,
}

impl Link {
    #[must_use]
    pub fn new(
        state_dir: PathBuf,
        lanes: Vec<Running>,
        cycles: mpsc::Receiver<(&'static str, Cycle)>,
    ) -> Self {
        let epoch = u64::try_from(clock::unix_ms()).unwrap_or(0);
        // Without it, a controller can't tell a restarted agent from a restarted node; nothing else depends on it.
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            state_dir,
            lanes,
            cycles,
            present: Present::default(),
            dictionary: Dictionary::default(),
            epoch,
            boot_id: boot_id.trim().to_owned(),
            sequence: 0,
            dropped: 0,
            counted: 0,
            off: Vec::new(),
        }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: Stop) -> Result<(), LinkError> {
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        let (mut started, mut spread) = (false, Duration::ZERO);
        loop {
            let dialled = self.dial(&stop).await;
            let ended = match dialled {
                Ok(Some(mut stream)) => {
                    if !started {
                        started = self.tell_start(&mut stream);
                    }
                    let since = Instant::now();
                    let ended = self.pass_on(&mut stream, &stop).await;
                    if stop.is_cancelled() {
                        return Ok(());
                    }
                    if since.elapsed() >= LASTED {
                        backoff.succeeded();
                    }
                    spread = stream.spread;
                    ended
                }
                Ok(None) => return Ok(()),
                Err(error) => error,
            };
            if matches!(ended, LinkError::Identity(_)) {
                return Err(ended);
            }
            if matches!(ended, LinkError::Renewed) {
                continue;
            }
            // A thousand nodes that lost the same controller don't come back at once.
            let wait = backoff.failed(draw()).max(std::mem::take(&mut spread).mul_f64(draw()));
            tracing::warn!(error = %Chain(&ended), retry_in = ?wait, "no controller");
            if !self.idle(wait, &stop).await {
                return Ok(());
            }
        }
    }

    /// Dials while readings go on; `None` when told to stop.
    async fn dial(&mut self, stop: &Stop) -> Result<Option<Stream>, LinkError> {
        let hello = Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: self.boot_id.clone(),
            epoch: self.epoch,
            node_unix_ms: clock::unix_ms(),
        };
        let attaching = attach(self.state_dir.clone(), hello);
        tokio::pin!(attaching);
        loop {
            tokio::select! {
                attached = &mut attaching => return attached.map(Some),
                Some((_, cycle)) = self.cycles.recv() => self.keep(&cycle),
                () = stop.cancelled() => return Ok(None),
            }
        }
    }

    /// Waits while readings go on; `false` when told to stop.
    async fn idle(&mut self, wait: Duration, stop: &Stop) -> bool {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return true,
                Some((_, cycle)) = self.cycles.recv() => self.keep(&cycle),
                () = stop.cancelled() => return false,
            }
        }
    }

    /// A reading without a stream: what exists is kept, the values are dropped and counted.
    fn keep(&mut self, cycle: &Cycle) {
        self.learn(cycle);
        self.dropped = self.dropped.saturating_add(1);
    }

    fn learn(&mut self, cycle: &Cycle) -> Vec<News> {
        let mut news = vec![self.present.found(&cycle.found, cycle.taken.unix_ms)];
        for report in &cycle.sources {
            let skipped = self.skipped(report);
            news.push(self.present.source(report, skipped, cycle.taken.unix_ms));
        }
        news
    }

    fn skipped(&self, report: &SourceReport) -> u64 {
        self.lanes.iter().filter(|lane| lane.source == report.source).map(Running::skipped).sum()
    }

    fn tell_start(&mut self, stream: &mut Stream) -> bool {
        let event = Event {
            sequence: 0,
            at_unix_ms: clock::unix_ms(),
            kind: EventKind::AgentStarted.into(),
            object: Some(event::Object::Node(true)),
            detail: format!("version {}", env!("CARGO_PKG_VERSION")),
        };
        stream.offer(attach_request::Message::Event(event))
    }

    /// Passes on readings until the stream ends.
    async fn pass_on(&mut self, stream: &mut Stream, stop: &Stop) -> LinkError {
        self.dictionary.reset();
        self.off.clear();
        stream.owes_whole = true;
        let (mut look, mut age) = (interval(LOOK), interval(LOOK_AT_CERTIFICATE));
        loop {
            tokio::select! {
                message = stream.incoming.message() => match message {
                    Ok(Some(AttachResponse { message: Some(message) })) => self.obey(message, stream),
                    Ok(Some(AttachResponse { message: None })) => {}
                    Ok(None) => return LinkError::Closed,
                    Err(status) => return ended(&status),
                },
                Some((lane, cycle)) = self.cycles.recv() => self.send(lane, &cycle, stream),
                _ = look.tick() => self.look_for_stuck(stream),
                _ = age.tick() => match self.renew(&stream.channel).await {
                    Ok(false) => {}
                    // The new certificate is used, and with that activated, by the next stream.
                    Ok(true) => return LinkError::Renewed,
                    Err(error) => tracing::warn!(error = %Chain(&error), "certificate not renewed"),
                },
                () = stop.cancelled() => return LinkError::Closed,
            }
        }
    }

    fn send(&mut self, lane: &'static str, cycle: &Cycle, stream: &mut Stream) {
        for news in self.learn(cycle) {
            stream.tell(news);
        }
        if stream.owes_whole {
            stream.owes_whole = !stream.offer_all(self.present.whole());
        }
        // Of a VM that doesn't run nothing holds any more that any lane has read.
        let off: Vec<u32> = off(&cycle.found).flat_map(|vm| self.dictionary.forget(&vm)).collect();
        // Before the dictionary is touched: what it declares must be sent.
        let parts = dictionary::parts(cycle);
        let Ok(places) = stream.outgoing.try_reserve_many(parts.len()) else {
            self.dropped = self.dropped.saturating_add(1);
            self.off.extend(off);
            return;
        };
        let in_lanes: u64 = self.lanes.iter().map(Running::dropped).sum();
        let newly = u32::try_from(in_lanes.saturating_sub(self.counted)).unwrap_or(u32::MAX);
        self.counted = in_lanes;
        let dropped = std::mem::take(&mut self.dropped).saturating_add(newly);
        let first = self.sequence + 1;
        let mut batches = self.dictionary.batches(lane, cycle, &parts, first, dropped);
        self.sequence += batches.len() as u64;
        if let Some(last) = batches.last_mut() {
            last.retired.extend(std::mem::take(&mut self.off));
            last.retired.extend(off);
        }
        for (place, batch) in places.zip(batches) {
            place.send(AttachRequest { message: Some(attach_request::Message::Samples(batch)) });
        }
    }

    fn look_for_stuck(&mut self, stream: &mut Stream) {
        let now = collect::now();
        for at in 0..self.lanes.len() {
            let lane = &self.lanes[at];
            let Some(running) = lane.stuck_for(now) else { continue };
            let report = SourceReport {
                source: lane.source,
                state: SourceState::Stuck,
                detail: format!("{}: no answer for {} s", lane.name, running.as_secs()),
            };
            let skipped = self.skipped(&report);
            stream.tell(self.present.source(&report, skipped, now.unix_ms));
        }
    }

    fn obey(&mut self, message: attach_response::Message, stream: &mut Stream) {
        match message {
            attach_response::Message::Welcome(welcome) => {
                tracing::info!(node = welcome.node, controller = welcome.controller_version, "attached");
                stream.spread = Duration::from_millis(welcome.reconnect_spread_ms.into()).min(LONGEST_SPREAD);
            }
            attach_response::Message::Ack(ack) => {
                tracing::trace!(sequence = ack.sequence, "acknowledged");
            }
            attach_response::Message::Configure(configure) => self.configure(&configure),
            attach_response::Message::Command(Command { command_id, action }) => {
                let error = match action {
                    Some(command::Action::Resync(_)) => {
                        self.dictionary.reset();
                        self.off.clear();
                        stream.owes_whole = true;
                        String::new()
                    }
                    None => "this agent doesn't know that command".to_owned(),
                };
                stream.offer(attach_request::Message::Result(CommandResult { command_id, error }));
            }
        }
    }

    fn configure(&self, configure: &Configure) {
        let wanted = [
            ("node", configure.node_interval_ms),
            ("containers", configure.container_interval_ms),
            ("vms", configure.vm_interval_ms),
            ("vm-monitors", configure.vm_slow_interval_ms),
        ];
        for (name, ms) in wanted {
            let (Some(ms), Some(lane)) = (ms, self.lanes.iter().find(|lane| lane.name == name)) else {
                continue;
            };
            let interval = Duration::from_millis(ms.into()).clamp(SHORTEST, LONGEST);
            if lane.set_interval(interval) {
                tracing::info!(lane = name, ?interval, "cadence set by the controller");
            }
        }
    }

    /// Renews the certificate if it is time; says whether it did.
    async fn renew(&self, channel: &Channel) -> Result<bool, LinkError> {
        let enrolled = Enrolled::load(&self.state_dir).map_err(LinkError::Identity)?;
        let left = enrolled.facts.certificate_expires_unix_ms.saturating_sub(clock::unix_ms());
        if left > RENEW_WHEN_LEFT_MS {
            return Ok(false);
        }
        let key = NewKey::generate().map_err(LinkError::Identity)?;
        let request = RenewRequest { csr: key.request.clone().into(), generation: 0 };
        let asked = timeout(CONNECT, EnrollmentClient::new(channel.clone()).renew(request)).await;
        let answer = asked.map_err(|_| LinkError::Ended("no answer to a renewal".into()))?;
        let certificate = answer.map_err(|status| ended(&status))?.into_inner().certificate;
        let certificate = certificate.ok_or_else(|| LinkError::Ended("an empty renewal".into()))?;
        let facts = Facts { certificate_expires_unix_ms: certificate.expires_unix_ms, ..enrolled.facts };
        key.certified(&self.state_dir, &certificate, &facts).map_err(LinkError::Identity)?;
        tracing::info!("certificate renewed");
        Ok(true)
    }
}

/// VMs that were found not to run.
fn off(found: &Found) -> impl Iterator<Item = Object> {
    let vms = match found {
        Found::Vms(vms) => vms.as_slice(),
        Found::Node(_) | Found::Containers(_) | Found::Nothing => &[],
    };
    let off = vms.iter().filter(|vm| matches!(vm.state(), VmState::ShutOff | VmState::Crashed));
    off.filter_map(|vm| vm.uuid.parse().ok().map(Object::Vm))
}
