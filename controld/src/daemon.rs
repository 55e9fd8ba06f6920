//! From settings to a running controller: open, bind, tell, serve, drain.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use horcrux_envelope::Signer;
use horcrux_proto::agent::v1::{AttachResponse, Inventory, attach_response};
use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use horcrux_transport::files;
use horcrux_transport::server::{self, Limits, TlsSource};
use horcrux_transport::signal;
use horcrux_transport::tasks::{Stop, TaskFailed, Tasks};
use horcrux_transport::tls::{self, Identity, TlsError};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use tonic::Status;

use crate::access::audit::Audit;
use crate::access::jwt;
use crate::access::keys::{KeyError, Seal, command_key};
use crate::access::password::{PasswordError, Passwords};
use crate::access::provided::Provided;
use crate::access::registry::Registry;
use crate::access::sessions::Sessions;
use crate::access::setup::{SetupCode, SetupError};
use crate::access::signin::SignIns;
use crate::app::{App, Counts, Streams, origins};
use crate::config::Config;
use crate::config::realms::OpenError;
use crate::console::Consoles;
use crate::console::line::Lines;
use crate::edge;
use crate::fleet::attach::{AckTo, Attachments, Recorder};
use crate::fleet::ca::{self, Authority, CaError};
use crate::fleet::enrollment::Enrollment;
use crate::live::fleet::{Fleet, Patience};
use crate::live::{self, past};
use crate::recording::{RecordingError, Recordings};
use crate::store::nodes::NodeRow;
use crate::store::recent::{Recent, Record};
use crate::store::{Store, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("take the state directory {path}")]
    StateDir {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("open the store")]
    Store(#[source] StoreError),
    #[error("open the certificate authority")]
    Authority(#[source] CaError),
    #[error("prepare TLS")]
    Tls(#[source] TlsError),
    #[error("prepare sign-in")]
    Passwords(#[source] PasswordError),
    #[error("open the keys")]
    Keys(#[source] KeyError),
    #[error("open the realms")]
    Realms(#[source] OpenError),
    #[error("open the recordings")]
    Recordings(#[source] RecordingError),
    #[error("prepare setup")]
    Setup(#[source] SetupError),
    #[error("listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("write {name}")]
    Write {
        name: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("describe the API")]
    Reflection(#[source] tonic_reflection::server::Error),
    #[error("take signals")]
    Signals(#[source] io::Error),
    #[error("run")]
    Run(#[source] TaskFailed),
}

/// People behind one address share these; a thousand tabs of one office fit.
const PUBLIC: Limits = Limits {
    connections: 4096,
    connections_per_source: 1024,
    handshakes_per_source: 128,
    streams_per_connection: 128,
};
/// A node holds one connection; a thousand may sit behind one address.
const AGENTS: Limits = Limits {
    connections: 4096,
    connections_per_source: 2048,
    handshakes_per_source: 512,
    streams_per_connection: 16,
};
/// Records that wait to be committed; when it is full, streams wait.
const RECORDS: usize = 8192;
/// Records are gathered this long for one transaction, so that a sample is durable within a second of its arrival.
const COMMIT_EVERY: Duration = Duration::from_millis(500);
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// A restarted controller shows what it knew of the last minutes, with its age.
const RESTORED_MS: i64 = 120_000;
const GRACE: Duration = Duration::from_secs(5);

/// Runs the controller until it is told to stop.
pub async fn run(config: Config) -> Result<(), StartError> {
    let dir = config.state_dir.clone();
    // Held until the end: two controllers would write over each other.
    let _owned = files::own_dir(&dir)
        .map_err(|source| StartError::StateDir { path: dir.display().to_string(), source })?;
    let store = Store::open(&dir).await.map_err(StartError::Store)?;
    let recent = Recent::open(&dir).await.map_err(StartError::Store)?;
    let nodes = store.nodes().await.map_err(StartError::Store)?;
    let authority = Arc::new(Authority::open(&dir, !nodes.is_empty()).map_err(StartError::Authority)?);
    let started_ms = clock::unix_ms();

    let internal = authority.controller(&config.names, ca::now()).map_err(StartError::Authority)?;
    let (tls_changed, public_tls) = watch::channel(public_tls(&config, &authority)?);
    let agents_tls = tls::agents_server(&internal, &authority.authorities()).map_err(StartError::Tls)?;
    let (_agents_tls_changed, agents_tls) = watch::channel(agents_tls);
    let public = bind(config.public_listen).await?;
    let agents = bind(config.agents_listen).await?;
    let (public_port, agents_port) = (port(&public), port(&agents));

    let patience = Patience { late_after: config.late_after, down_after: config.down_after };
    let mut fleet = live::fleet(patience, &nodes);
    restore(&mut fleet, &recent, &nodes).await.map_err(StartError::Store)?;
    let (live, writer) = live::new(fleet);

    let audit_file = config.audit_checkpoint_file.clone();
    let (audit, scribe) = Audit::open(store.clone(), &dir, audit_file).await.map_err(StartError::Store)?;
    let resolved = audit.resolve().await.map_err(StartError::Store)?;
    if resolved > 0 {
        tracing::warn!(
            resolved,
            "changes were under way when the controller ended: their outcome is not known"
        );
    }
    store.drop_claims().await.map_err(StartError::Store)?;
    let registry = Registry::open(store.clone()).await.map_err(StartError::Store)?;
    for role in &config.second_factor_roles {
        let known = role.parse().is_ok_and(|role| registry.policy().facts().role(&role).is_some());
        if !known {
            tracing::warn!(role, "second_factor_roles: there is no such role, so nobody is held to it");
        }
    }
    let signer = jwt::Signer::open(&dir, authority.cluster()).map_err(StartError::Keys)?;
    let sessions =
        Sessions::new(store.clone(), Arc::new(signer), config.session_idle, config.session_absolute);
    let seal = Arc::new(Seal::open(&dir).map_err(StartError::Keys)?);
    let sign_ins = sign_ins(&config, &seal, public_port, &store, &registry, &sessions, &audit)?;
    let setup_required = !store.has_users().await.map_err(StartError::Store)?;
    if setup_required {
        let file = SetupCode::issue(&store, &dir, started_ms).await.map_err(StartError::Setup)?;
        tracing::info!(file = %file.display(), "no administrator exists: the setup code is in this file");
    } else {
        SetupCode::remove(&dir);
    }

    let mut tasks = Tasks::default();
    let (records, recorded) = mpsc::channel(RECORDS);
    let commands = Signer::new(&*command_key(&dir).map_err(StartError::Keys)?);
    let attachments = Attachments::new(
        live.clone(),
        store.clone(),
        Recorder(records),
        config.cadence,
        (commands, authority.cluster()),
    );
    let (consoles, watchers) = (Consoles::default(), TaskTracker::new());
    let lines = Lines::new(attachments.orders().clone(), consoles, watchers.clone());
    let counts = Counts::default();
    let quota = config.recording_quota;
    let recordings = Recordings::open(&dir, store.clone(), counts.clone(), quota, watchers.clone()).await;
    let app = Arc::new(App {
        live,
        registry: registry.clone(),
        sessions,
        sign_ins,
        seal,
        provided: Provided::default(),
        audit,
        enrollment: Enrollment::new(store.clone(), authority.clone()),
        attachments,
        counts,
        recordings: recordings.map_err(StartError::Recordings)?,
        streams: Streams::default(),
        setup_required: setup_required.into(),
        origins: origins(&config.names, public_port),
        agents_port,
        state_dir: dir.clone(),
        started_ms,
        lines,
        watchers,
        stop: tasks.stop(),
        store,
        recent: recent.clone(),
    });
    let routes = edge::public(&app).map_err(StartError::Reflection)?;
    let terminate = signal::terminate().map_err(StartError::Signals)?;
    let hangup = signal::reload().map_err(StartError::Signals)?;

    tasks.spawn("live", |stop| writer.run(stop));
    let sessions = app.sessions.clone();
    tasks.spawn("sessions", |stop| sessions.watch(stop));
    tasks.spawn("rights", |stop| registry.run(stop));
    tasks.spawn("audit", |stop| scribe.run(stop));
    tasks.spawn("recorder", |stop| record(recent, recorded, stop));
    tasks.spawn("public port", |stop| serve(public, public_tls, PUBLIC, routes, stop));
    tasks.spawn("agents port", |stop| serve(agents, agents_tls, AGENTS, edge::agents(&app), stop));
    let retention = (config.audit_retention, config.recording_retention);
    tasks.spawn("housekeeping", |stop| housekeeping(app.clone(), retention, stop));
    tasks.spawn("certificates", |stop| reload(config, authority, tls_changed, hangup, stop));

    // Last: whoever waits for the controller waits for this file.
    let ports = format!("public={public_port}\nagents={agents_port}\n");
    files::write_private(&dir.join("ports"), ports.as_bytes())
        .map_err(|source| StartError::Write { name: "ports", source })?;
    tracing::info!(public_port, agents_port, version = env!("CARGO_PKG_VERSION"), "controller started");
    let watchers = app.watchers.clone();
    let ended = tasks.run(terminate, GRACE).await.map_err(StartError::Run);
    watchers.close();
    if tokio::time::timeout(GRACE, watchers.wait()).await.is_err() {
        tracing::warn!(still_open = watchers.len(), "streams outlived the grace period");
    }
    tracing::info!("controller stopped");
    ended
}

async fn serve(
    listener: TcpListener,
    tls: TlsSource,
    limits: Limits,
    router: Router,
    stop: Stop,
) -> Result<(), std::convert::Infallible> {
    server::serve(listener, tls, limits, edge::service(router), stop).await;
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().map_or(0, |address| address.port())
}

fn public_tls(config: &Config, authority: &Authority) -> Result<Arc<tls::ServerConfig>, StartError> {
    let internal = authority.controller(&config.names, ca::now()).map_err(StartError::Authority)?;
    match &config.own_certificate {
        Some(own) => {
            let own = Identity::from_files(&own.chain, &own.key).map_err(StartError::Tls)?;
            tls::public_server(&own, &internal).map_err(StartError::Tls)
        }
        None => tls::public_server(&internal, &internal).map_err(StartError::Tls),
    }
}

/// Checks what `run` would use, and changes nothing.
pub fn check(config: &Config) -> Result<(), StartError> {
    for realm in &config.realms {
        realm.open("https://localhost").map_err(StartError::Realms)?;
    }
    if let Some(own) = &config.own_certificate {
        Identity::from_files(&own.chain, &own.key).map_err(StartError::Tls)?;
    }
    Ok(())
}

async fn restore(fleet: &mut Fleet, recent: &Recent, nodes: &[NodeRow]) -> Result<(), StoreError> {
    let now = (clock::monotonic(), clock::unix_ms());
    let inventories = recent.inventories().await?;
    for row in nodes {
        let Ok(name) = row.name.parse() else { continue };
        let inventory: Option<&Inventory> =
            inventories.iter().find(|(of, _)| *of == row.name).map(|(_, i)| i);
        let past = recent.past(&row.name, now.1 - RESTORED_MS).await?;
        past::replay(fleet, &name, inventory, past, now, |_, _| {});
    }
    // What happened then was told then.
    drop(fleet.take_changes());
    Ok(())
}

/// Commits what came, many records at a time, and then acknowledges it.
async fn record(
    recent: Recent,
    mut records: mpsc::Receiver<(Record, Option<AckTo>)>,
    stop: Stop,
) -> Result<(), std::convert::Infallible> {
    let (mut gathered, mut owed) = (Vec::new(), Vec::new());
    loop {
        let more = tokio::select! {
            more = records.recv_many(&mut gathered, RECORDS) => more,
            () = stop.cancelled() => 0,
        };
        if more == 0 {
            return Ok(());
        }
        let (batch, acks): (Vec<_>, Vec<_>) = gathered.drain(..).unzip();
        match recent.store(&batch, clock::unix_ms()).await {
            Ok(()) => {
                acknowledge(acks.into_iter().flatten());
                send_again(&mut owed);
            }
            // Not acknowledged, nor is what follows on these streams: the agents keep it.
            Err(error) => {
                tracing::error!(error = %Chain(&error), records = batch.len(), "samples not stored");
                for to in acks.into_iter().flatten() {
                    if !to.owes.swap(true, Ordering::Relaxed) {
                        owed.push(to.replies);
                    }
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(COMMIT_EVERY) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Now that samples are stored again: streams of which some were not end, and the next ones bring them from the spool.
fn send_again(owed: &mut Vec<mpsc::Sender<Result<AttachResponse, Status>>>) {
    owed.retain(|replies| {
        let again = Status::unavailable("samples are stored again: send what was not acknowledged");
        // A queue that is full is tried again.
        matches!(replies.try_send(Err(again)), Err(mpsc::error::TrySendError::Full(_)))
    });
}

/// An ack covers those before it: only the last of each stream's is said, and one that finds its queue full is left out.
fn acknowledge(acks: impl Iterator<Item = AckTo>) {
    let mut last: HashMap<(usize, u64, bool), AckTo> = HashMap::new();
    for to in acks.filter(|to| !to.owes.load(Ordering::Relaxed)) {
        // A stream is known by what it owes.
        let stream = Arc::as_ptr(&to.owes).addr();
        last.insert((stream, to.ack.epoch, to.ack.backfill), to);
    }
    for AckTo { replies, ack, .. } in last.into_values() {
        let response = AttachResponse { message: Some(attach_response::Message::Ack(ack)) };
        if replies.try_send(Ok(response)).is_err() {
            tracing::trace!(sequence = ack.sequence, "ack left out");
        }
    }
}

/// Drops what is past its time.
async fn housekeeping(
    app: Arc<App>,
    (audit_kept, recordings_kept): (Duration, Duration),
    stop: Stop,
) -> Result<(), std::convert::Infallible> {
    let mut every = tokio::time::interval(HOUSEKEEPING);
    let audit_ms = i64::try_from(audit_kept.as_millis()).unwrap_or(i64::MAX);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = stop.cancelled() => return Ok(()),
        }
        let now_ms = clock::unix_ms();
        if let Err(error) = app.sessions.purge(now_ms).await {
            tracing::warn!(error = %Chain(&error), "old sessions not forgotten");
        }
        let dropped = [
            app.recent.purge(now_ms).await,
            app.store.delete_tokens(None, now_ms).await.map(|_| ()),
            app.store.purge_requests(now_ms).await,
            app.store.purge_retired(now_ms).await,
            app.store.purge_join_tokens(now_ms).await,
            app.store.purge_tickets(now_ms).await,
            app.store.purge_links(now_ms).await,
            app.audit.purge(now_ms.saturating_sub(audit_ms)).await,
        ];
        app.recordings.purge(now_ms, recordings_kept).await;
        for error in dropped.into_iter().filter_map(Result::err) {
            tracing::warn!(error = %Chain(&error), "what is past its time was not dropped");
        }
    }
}

fn sign_ins(
    config: &Config,
    seal: &Arc<Seal>,
    port: u16,
    store: &Store,
    registry: &Registry,
    sessions: &Sessions,
    audit: &Audit,
) -> Result<Arc<SignIns>, StartError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // One core is left to everything else, where there is one.
    let passwords = Passwords::new(cores.saturating_sub(1).max(1)).map_err(StartError::Passwords)?;
    let origin = origins(&config.names, port).into_iter().next().unwrap_or_default();
    let realms = config.realms.iter().map(|realm| realm.open(&origin)).collect::<Result<Vec<_>, _>>();
    let realms = realms.map_err(StartError::Realms)?;
    for realm in realms.iter().filter(|realm| !realm.is_local()) {
        tracing::info!(realm = realm.name, kind = realm.kind().as_str_name(), "realm");
    }
    let (store, registry, sessions) = (store.clone(), registry.clone(), sessions.clone());
    let roles = config.second_factor_roles.clone();
    let (audit, seal) = (audit.clone(), Arc::clone(seal));
    Ok(Arc::new(SignIns::new(store, registry, sessions, passwords, seal, audit, realms, roles)))
}

/// Takes a changed certificate into use: at SIGHUP, and within a minute of a change of its file.
async fn reload(
    config: Config,
    authority: Arc<Authority>,
    changed: watch::Sender<Arc<tls::ServerConfig>>,
    mut hangup: tokio::signal::unix::Signal,
    stop: Stop,
) -> Result<(), std::convert::Infallible> {
    let modified = || config.own_certificate.as_ref().map(|own| (stamp(&own.chain), stamp(&own.key)));
    let mut last = modified();
    let mut look = tokio::time::interval(HOUSEKEEPING);
    loop {
        let asked = tokio::select! {
            _ = look.tick() => false,
            _ = hangup.recv() => true,
            () = stop.cancelled() => return Ok(()),
        };
        let now = modified();
        if !asked && now == last {
            continue;
        }
        last = now;
        match public_tls(&config, &authority) {
            Ok(tls) => {
                changed.send_replace(tls);
                tracing::info!("certificate reloaded");
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "certificate not reloaded: the one before stays in use");
            }
        }
    }
}

fn stamp(path: &Path) -> Option<std::time::SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

#[cfg(test)]
mod tests {
    use horcrux_proto::agent::v1::Ack;

    use super::*;

    #[test]
    fn of_many_acks_the_last_of_each_kind_is_said_however_short_the_queue() {
        let (replies, mut said) = mpsc::channel(2);
        let (owes, broken) = (Arc::default(), Arc::new(true.into()));
        let of = |sequence, backfill, owes: &Arc<_>| AckTo {
            replies: replies.clone(),
            ack: Ack { epoch: 1, sequence, backfill },
            owes: Arc::clone(owes),
        };
        let acks =
            (1..=300).flat_map(|n| [of(n, true, &owes), of(n + 1000, false, &owes), of(n, true, &broken)]);
        acknowledge(acks);
        let mut sequences: Vec<u64> = std::iter::from_fn(|| said.try_recv().ok())
            .filter_map(|answer| match answer.unwrap().message {
                Some(attach_response::Message::Ack(ack)) => Some(ack.sequence),
                Some(
                    attach_response::Message::Welcome(_)
                    | attach_response::Message::Configure(_)
                    | attach_response::Message::Command(_),
                )
                | None => None,
            })
            .collect();
        sequences.sort_unstable();
        assert_eq!(sequences, [300, 1300]);
    }
}
