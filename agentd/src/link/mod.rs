//! The stream to the controller: dial, say hello, tell what is here, pass on what is read; dial again when it breaks.
//!
//! What is read goes into the [spool](crate::spool), and at once to the controller where a stream has room for it; the rest
//! follows from the spool, beside what is read then. What exists is kept and told in full at the start of every stream.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use horcrux_proto::agent::v1::enrollment_client::EnrollmentClient;
use horcrux_proto::agent::v1::{
    AttachResponse, Command, CommandResult, Configure, Event, Hello, RenewRequest, attach_request,
    attach_response, command, event,
};
use horcrux_proto::v1::EventKind;
use horcrux_transport::backoff::{Backoff, draw};
use horcrux_transport::client::ConnectError;
use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use horcrux_transport::tasks::Stop;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::collect::Running;
use crate::config::{LONGEST, SHORTEST};
use crate::identity::{self, Change, Enrolled, IdentityError, NewKey, Stamp};
use crate::link::dictionary::Dictionary;
use crate::orders::Orders;
use crate::present::Present;
use crate::sample::Cycle;
use crate::spool::Limits;
use crate::spool::keeper::Keeper;

pub mod dictionary;
mod filling;
mod passing;
mod standing;
mod stream;

pub(crate) use passing::off;
pub use standing::Standing;
use stream::{Stream, attach, ended};

/// How a pause between two dials ended.
enum Idle {
    Over,
    /// Another enrollment replaced the identity that was refused.
    OtherIdentity,
    Stopped,
}

const CONNECT: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(120);
/// A stream that ended sooner was no success: dialling again at once would only repeat why it ended.
const LASTED: Duration = Duration::from_secs(10);
/// A controller may ask for no longer pause than this.
const LONGEST_SPREAD: Duration = Duration::from_secs(60);
/// How often lanes are looked at for being stuck.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_AT_CERTIFICATE: Duration = Duration::from_secs(60);
/// How often the spool is sent from, and how much each time: a day's outage is made up for within the hour, and nobody who
/// watches live data notices.
const FILL: Duration = Duration::from_millis(100);
const FILL_BYTES: usize = 128 << 10;
/// A certificate lives seven days and is renewed after one: six days for a controller to come back in.
const RENEW_WHEN_LEFT: Duration = Duration::from_secs(6 * 24 * 3600);
/// A tenth of a day before and after that.
const RENEW_SPREAD: Duration = Duration::from_secs(2 * 24 * 360);

/// Everything that the task needs.
#[derive(Debug)]
pub struct Link {
    state_dir: PathBuf,
    lanes: Vec<Running>,
    cycles: mpsc::Receiver<(&'static str, Cycle)>,
    present: Present,
    dictionary: Dictionary,
    spool: Keeper,
    boot_id: String,
    /// Of the lanes' own drops, how many are on record.
    counted: u64,
    /// Ids of VMs that don't run any more, not yet told.
    off: Vec<u32>,
    /// Of the identity that was used last.
    stamp: Option<Stamp>,
    standing: Arc<Standing>,
    orders: Orders,
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
    #[error("this node has another certificate")]
    Renewed,
    #[error("it is time for another epoch")]
    Worn,
    #[error("the controller has shut this node out: {0}")]
    ShutOut(String),
    #[error("the controller doesn't take this node's certificate: {0} ({ENROLL_AGAIN})")]
    Unknown(String),
    #[error("this node's certificate has ended ({ENROLL_AGAIN})")]
    Expired(#[source] Box<LinkError>),
}

const ENROLL_AGAIN: &str =
    "get a token with which to enroll it again, and run `horcrux-agentd enroll --again --token-file FILE`";

impl Link {
    /// Fails where not even a thread can be had for the spool.
    pub fn new(
        state_dir: PathBuf,
        limits: Limits,
        lanes: Vec<Running>,
        cycles: mpsc::Receiver<(&'static str, Cycle)>,
        privd_socket: &Path,
    ) -> io::Result<Self> {
        let orders = Orders::new(privd_socket, &state_dir);
        let spool = Keeper::open(&state_dir, limits, clock::unix_ms())?;
        // Without it, a controller can't tell a restarted agent from a restarted node; nothing else depends on it.
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Ok(Self {
            state_dir,
            lanes,
            cycles,
            present: Present::default(),
            dictionary: Dictionary::default(),
            spool,
            boot_id: boot_id.trim().to_owned(),
            counted: 0,
            off: Vec::new(),
            stamp: None,
            standing: Arc::default(),
            orders,
        })
    }

    /// How it stands, to look at from elsewhere.
    #[must_use]
    pub fn standing(&self) -> Arc<Standing> {
        Arc::clone(&self.standing)
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: Stop) -> Result<(), LinkError> {
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        let (mut started, mut spread) = (false, Duration::ZERO);
        // What was said last of a state that only people end: it is said once.
        let mut told = None;
        loop {
            let mut has_lasted = false;
            let ended = match self.dial(&stop).await {
                Ok(Some(mut stream)) => {
                    if !std::mem::replace(&mut started, true) {
                        self.tell_start(&mut stream);
                    }
                    let since = Instant::now();
                    self.standing.is_there();
                    let ended = self.pass_on(&mut stream, &stop).await;
                    self.standing.ended();
                    if stop.is_cancelled() {
                        return Ok(());
                    }
                    has_lasted = since.elapsed() >= LASTED;
                    if has_lasted {
                        backoff.succeeded();
                        told = None;
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
            if matches!(ended, LinkError::Renewed | LinkError::Worn) {
                tracing::info!(why = %ended, "another stream follows");
                // By a clock that is wrong, a new certificate is due at once: not in a tight loop.
                self.stamp = identity::stamp(&self.state_dir);
                if !has_lasted && matches!(self.idle(backoff.failed(draw()), &stop).await, Idle::Stopped) {
                    return Ok(());
                }
                continue;
            }
            // A thousand nodes that lost the same controller don't come back at once.
            let wait = backoff.failed(draw()).max(std::mem::take(&mut spread).mul_f64(draw()));
            let lasting = ended.lasting();
            if lasting.is_some() && lasting == told {
                tracing::debug!(error = %Chain(&ended), retry_in = ?wait, "no controller");
            } else {
                tracing::warn!(error = %Chain(&ended), retry_in = ?wait, "no controller");
            }
            told = lasting;
            match self.idle(wait, &stop).await {
                Idle::Over => {}
                Idle::OtherIdentity => {
                    backoff.succeeded();
                    tracing::info!("this node has a new identity");
                }
                Idle::Stopped => return Ok(()),
            }
        }
    }

    /// Dials while readings go on; `None` when told to stop.
    async fn dial(&mut self, stop: &Stop) -> Result<Option<Stream>, LinkError> {
        if self.spool.is_worn() {
            self.spool.renew(clock::unix_ms());
            self.dictionary.reset();
            self.standing.begins_anew();
        }
        let hello = Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: self.boot_id.clone(),
            epoch: self.spool.epoch(),
            node_unix_ms: clock::unix_ms(),
        };
        // Before it is read: one that takes its place from here on is noticed.
        self.stamp = identity::stamp(&self.state_dir);
        let enrolled = Enrolled::load(&self.state_dir).map_err(LinkError::Identity)?;
        self.standing.shows(enrolled.facts.certificate_expires_unix_ms);
        let attaching = attach(enrolled, hello);
        tokio::pin!(attaching);
        loop {
            tokio::select! {
                attached = &mut attaching => return attached.map(Some),
                Some((lane, cycle)) = self.cycles.recv() => self.take(lane, &cycle, None),
                () = stop.cancelled() => return Ok(None),
            }
        }
    }

    /// Waits while readings go on, until there is a reason to dial.
    async fn idle(&mut self, wait: Duration, stop: &Stop) -> Idle {
        let until = Instant::now() + wait;
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Idle::Over,
                Some((lane, cycle)) = self.cycles.recv() => self.take(lane, &cycle, None),
                _ = look.tick() => {
                    self.look_at_spool(None);
                    if identity::stamp(&self.state_dir) != self.stamp {
                        return Idle::OtherIdentity;
                    }
                }
                () = stop.cancelled() => return Idle::Stopped,
            }
        }
    }

    fn tell_start(&mut self, stream: &mut Stream) {
        let event = Event {
            sequence: 0,
            at_unix_ms: clock::unix_ms(),
            kind: EventKind::AgentStarted.into(),
            object: Some(event::Object::Node(true)),
            detail: format!("version {}", env!("CARGO_PKG_VERSION")),
        };
        self.happened(event, Some(stream));
    }

    /// Passes on readings until the stream ends.
    async fn pass_on(&mut self, stream: &mut Stream, stop: &Stop) -> LinkError {
        self.dictionary.untold();
        self.spool.begin_stream();
        self.off.clear();
        stream.owes_whole = true;
        let (mut look, mut age) = (interval(LOOK), interval(LOOK_AT_CERTIFICATE));
        let mut fill = interval(FILL);
        fill.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let renew_at = renew_at(stream.shown.facts.certificate_expires_unix_ms, draw());
        loop {
            tokio::select! {
                message = stream.incoming.message() => match message {
                    Ok(Some(AttachResponse { message: Some(message) })) => self.obey(message, stream),
                    Ok(Some(AttachResponse { message: None })) => {}
                    Ok(None) => return LinkError::Closed,
                    Err(status) => return ended(&status),
                },
                Some((lane, cycle)) = self.cycles.recv() => self.take(lane, &cycle, Some(stream)),
                Some(result) = self.orders.result(), if stream.outgoing.capacity() > 0 => {
                    stream.offer(attach_request::Message::Result(result));
                }
                _ = fill.tick() => self.fill(stream),
                _ = look.tick() => {
                    self.look_for_stuck(stream);
                    self.look_at_spool(Some(stream));
                    if self.spool.is_worn() {
                        return LinkError::Worn;
                    }
                    if self.is_replaced(&stream.shown) {
                        return LinkError::Renewed;
                    }
                }
                _ = age.tick() => match Self::renew(&self.state_dir, stream, renew_at).await {
                    Ok(false) => {}
                    // The new certificate is used, and with that activated, by the next stream. This stream's channel
                    // must not dial any more: it would show the one before.
                    Ok(true) => return LinkError::Renewed,
                    Err(error) => tracing::warn!(error = %Chain(&error), "certificate not renewed"),
                },
                () = stop.cancelled() => return LinkError::Closed,
            }
        }
    }

    fn obey(&mut self, message: attach_response::Message, stream: &mut Stream) {
        match message {
            attach_response::Message::Welcome(welcome) => {
                tracing::info!(node = welcome.node, controller = welcome.controller_version, "attached");
                stream.spread = Duration::from_millis(welcome.reconnect_spread_ms.into()).min(LONGEST_SPREAD);
            }
            attach_response::Message::Ack(ack) => {
                if !ack.backfill && ack.epoch == self.spool.epoch() {
                    self.standing.was_stored(ack.sequence);
                }
                stream.filling.acked(&ack);
                self.spool.acked(&ack);
            }
            attach_response::Message::Configure(configure) => self.configure(&configure),
            attach_response::Message::Command(Command { command_id, action }) => {
                let error = match action {
                    Some(command::Action::Order(order)) => {
                        if let Some(refused) = self.orders.take(command_id, order) {
                            stream.offer(attach_request::Message::Result(refused));
                        }
                        return;
                    }
                    Some(command::Action::Resync(_)) => {
                        self.dictionary.untold();
                        self.off.clear();
                        stream.owes_whole = true;
                        String::new()
                    }
                    None => "this agent doesn't know that command".to_owned(),
                };
                stream.offer(attach_request::Message::Result(CommandResult {
                    command_id,
                    error,
                    order_status: 0,
                }));
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
        for lane in &self.lanes {
            let kind = lane.name.split(' ').next();
            let Some(ms) = wanted.iter().find(|(name, _)| Some(*name) == kind).and_then(|(_, ms)| *ms) else {
                continue;
            };
            let interval = Duration::from_millis(ms.into()).clamp(SHORTEST, LONGEST);
            if lane.set_interval(interval) {
                tracing::info!(lane = lane.name, ?interval, "cadence set by the controller");
            }
        }
    }

    /// Whether another identity has taken the place of the one that is shown.
    fn is_replaced(&mut self, shown: &Enrolled) -> bool {
        let stamp = identity::stamp(&self.state_dir);
        if stamp == self.stamp {
            return false;
        }
        self.stamp = stamp;
        match Enrolled::load(&self.state_dir) {
            Ok(found) => !found.is(shown),
            Err(error) => {
                tracing::error!(error = %Chain(&error), "this node's identity changed, and is of no use");
                false
            }
        }
    }

    /// Renews the certificate if it is time; says whether another than the one that is shown is to be used from now on.
    async fn renew(state_dir: &Path, stream: &Stream, renew_at_ms: i64) -> Result<bool, LinkError> {
        if clock::unix_ms() < renew_at_ms {
            return Ok(false);
        }
        // Held until the new one is kept: an enrollment meanwhile would be undone.
        let change = Change::begin(state_dir).map_err(LinkError::Identity)?;
        let enrolled = Enrolled::load(state_dir).map_err(LinkError::Identity)?;
        if !enrolled.is(&stream.shown) {
            return Ok(true);
        }
        let key = NewKey::generate().map_err(LinkError::Identity)?;
        let request = RenewRequest { csr: key.request.clone().into(), generation: enrolled.facts.generation };
        let asked = timeout(CONNECT, EnrollmentClient::new(stream.channel.clone()).renew(request)).await;
        let answer = asked.map_err(|_| LinkError::Ended("no answer to a renewal".into()))?;
        let certificate = answer.map_err(|status| ended(&status))?.into_inner().certificate;
        let certificate = certificate.ok_or_else(|| LinkError::Ended("an empty renewal".into()))?;
        let new = enrolled.renewed(key, &certificate).map_err(LinkError::Identity)?;
        change.keep(&new).map_err(LinkError::Identity)?;
        tracing::info!(generation = new.facts.generation, "certificate renewed");
        Ok(true)
    }
}

impl LinkError {
    /// What it says, where only people can change it.
    fn lasting(&self) -> Option<String> {
        match self {
            Self::ShutOut(_) | Self::Unknown(_) | Self::Expired(_) => Some(self.to_string()),
            Self::Identity(_)
            | Self::Connect(_)
            | Self::Ended(_)
            | Self::Closed
            | Self::Renewed
            | Self::Worn => None,
        }
    }
}

/// When a certificate is renewed. `draw` is uniform in 0..1: nodes that enrolled together don't renew together.
fn renew_at(expires_ms: i64, draw: f64) -> i64 {
    let ms = |d: Duration| i64::try_from(d.as_millis()).unwrap_or_default();
    let earliest = expires_ms - ms(RENEW_WHEN_LEFT) - ms(RENEW_SPREAD / 2);
    earliest + ms(RENEW_SPREAD.mul_f64(draw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_after_a_day_give_or_take_a_tenth() {
        let (hour, day) = (3_600_000, 24 * 3_600_000);
        let issued = 1_000_000_000_000;
        assert_eq!(renew_at(issued + 7 * day, 0.5), issued + day);
        assert_eq!(renew_at(issued + 7 * day, 0.0), issued + day - 24 * hour / 10);
        assert_eq!(renew_at(issued + 7 * day, 1.0), issued + day + 24 * hour / 10);
    }
}
