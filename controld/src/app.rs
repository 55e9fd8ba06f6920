//! What the handlers share.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use horcrux_proto::authz::Privilege;
use horcrux_proto::console::CloseCode;
use horcrux_proto::name::{NodeName, Resource};
use horcrux_proto::v1::{GetRecentResponse, Metric};
use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use horcrux_transport::tasks::Stop;
use tokio_util::task::TaskTracker;
use tonic::Status;

use crate::access::audit::{Audit, Entry};
use crate::access::keys::Seal;
use crate::access::path::Path;
use crate::access::principal::Principal;
use crate::access::provided::Provided;
use crate::access::registry::Registry;
use crate::access::sessions::Sessions;
use crate::access::setup::SetupCode;
use crate::access::signin::SharedSignIns;
use crate::console::End;
use crate::console::line::Lines;
use crate::fleet::attach::Attachments;
use crate::fleet::enrollment::{Enrolled, Enrollment};
use crate::fleet::streams::Ending;
use crate::live::{Live, past, select};
use crate::recording::Recordings;
use crate::store::nodes::NodeRow;
use crate::store::recent::Recent;
use crate::store::{Store, StoreError};

/// The controller's parts, as a handler reaches them.
#[derive(Debug)]
pub struct App {
    pub live: Live,
    pub store: Store,
    pub recent: Recent,
    pub registry: Registry,
    pub sessions: Sessions,
    pub sign_ins: SharedSignIns,
    pub provided: Provided,
    pub audit: Audit,
    pub seal: Arc<Seal>,
    pub enrollment: Enrollment,
    pub attachments: Attachments,
    pub lines: Lines,
    pub recordings: Recordings,
    pub counts: Counts,
    pub streams: Streams,
    pub setup_required: AtomicBool,
    /// Exactly what a browser's Origin may be.
    pub origins: Vec<String>,
    pub agents_port: u16,
    pub state_dir: std::path::PathBuf,
    pub started_ms: i64,
    /// Owns the task of every open stream.
    pub watchers: TaskTracker,
    pub stop: Stop,
}

/// Streams of one user: every tab of a browser holds one.
const STREAMS_PER_USER: usize = 64;

/// How many streams each user has open.
#[derive(Clone, Debug, Default)]
pub struct Streams(Arc<Mutex<HashMap<String, usize>>>);

/// One open stream; gives its place back when dropped.
#[derive(Debug)]
pub struct StreamPlace {
    streams: Streams,
    user: String,
}

impl Streams {
    #[must_use]
    pub fn enter(&self, user: &str) -> Option<StreamPlace> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = open.entry(user.to_owned()).or_default();
        if *here >= STREAMS_PER_USER {
            return None;
        }
        *here += 1;
        Some(StreamPlace { streams: self.clone(), user: user.to_owned() })
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut open = self.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = open.get_mut(&self.user) {
            *here -= 1;
            if *here == 0 {
                open.remove(&self.user);
            }
        }
    }
}

/// What was refused or shed, by name, since the start.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Mutex<BTreeMap<String, u64>>>);

impl Counts {
    pub fn add(&self, name: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(name.to_owned()).or_default() += 1;
    }

    #[must_use]
    pub fn all(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl App {
    /// Objects that `wanted` picks and the principal may see, by name.
    pub async fn objects(
        &self,
        principal: &Principal,
        wanted: impl Fn(&Resource, &NodeName) -> bool + Send + 'static,
    ) -> Result<select::Objects, Status> {
        let (rights, labels) = (Arc::clone(&principal.rights), Arc::clone(principal.policy.labels()));
        let visible = move |resource: &Resource| {
            sees(resource).is_some_and(|privilege| rights.allow(privilege, &Path::of(resource), &labels))
        };
        let asked = self.live.ask(move |fleet| {
            select::objects(fleet, |resource, at| wanted(resource, at) && visible(resource))
        });
        asked.await.map_err(Status::from)
    }

    #[must_use]
    pub fn is_setup_required(&self) -> bool {
        self.setup_required.load(Ordering::Relaxed)
    }

    pub fn setup_done(&self) {
        self.setup_required.store(false, Ordering::Relaxed);
        SetupCode::remove(&self.state_dir);
    }

    /// Makes an enrolled node part of the live state.
    pub async fn node_enrolled(&self, enrolled: &Enrolled) -> Result<(), Status> {
        // A stream of the certificate that was replaced doesn't go on.
        self.attachments.end(&enrolled.id, Ending::EnrolledAgain);
        let rows = self.store.nodes().await?;
        if let Some(row) = rows.into_iter().find(|row| row.id == enrolled.id) {
            let name = row.name.parse();
            self.live.enrolled((&row).into()).await?;
            // It may have been locked: who is enrolled again is let in.
            if let Ok(name) = name {
                self.live.locked(&name, None).await?;
            }
        }
        Ok(())
    }

    /// Shuts a node out on the controller's own account, on record; `false` where it has another certificate by now.
    pub async fn lock_node(&self, row: &NodeRow, why: &str, by: &str) -> Result<bool, Status> {
        if !self.store.lock_node_of(&row.id, &row.serial, why, clock::unix_ms()).await? {
            return Ok(false);
        }
        tracing::error!(node = row.name, why, "node locked");
        self.counts.add("nodes_locked");
        let entry = Entry {
            actor: by.to_owned(),
            resource: format!("nodes/{}", row.name),
            detail: format!("lock: {why}"),
            ..Entry::default()
        };
        let told = self.audit.event(&entry, "ok").await;
        self.follow_lock(row, Some(why)).await?;
        Ok(told.map(|()| true)?)
    }

    /// Shuts a node out for a reason, or lets it in again.
    pub async fn locked(&self, row: &NodeRow, reason: Option<&str>) -> Result<(), Status> {
        let now_ms = clock::unix_ms();
        self.store.lock_node(&row.id, reason.map(|reason| (reason, now_ms))).await?;
        self.follow_lock(row, reason).await
    }

    /// What follows from a lock, or its end, that is on record.
    async fn follow_lock(&self, row: &NodeRow, reason: Option<&str>) -> Result<(), Status> {
        if reason.is_some() {
            let end = End::new(CloseCode::Node, format!("nodes/{} was locked", row.name));
            self.lines.consoles.end_all(|open| open.node().as_str() == row.name, &end);
            self.attachments.end(&row.id, Ending::Locked);
        }
        if let Ok(name) = row.name.parse() {
            self.live.locked(&name, reason).await?;
        }
        Ok(())
    }

    /// Forgets a node everywhere and closes its stream: what was granted on it goes too.
    pub async fn delete_node(&self, row: &NodeRow) -> Result<(), Status> {
        let Ok(name) = row.name.parse::<NodeName>() else { return Ok(()) };
        self.store.delete_node(name.as_str()).await?;
        self.store.forget_object(&Path::of(&Resource::Node(name.clone()))).await?;
        for of in ["containers", "storage", "networks"] {
            if let Ok(path) = format!("/{of}/{name}").parse() {
                self.store.forget_object(&path).await?;
            }
        }
        let end = End::new(CloseCode::Gone, format!("nodes/{name} was removed"));
        self.lines.consoles.end_all(|open| open.node() == name, &end);
        self.attachments.end(&row.id, Ending::Removed);
        self.recent.forget(name.as_str()).await?;
        self.live.deleted(&name).await?;
        Ok(())
    }

    /// The last `seconds` of some metrics of one object, and what is missing in them.
    pub async fn recent(
        &self,
        resource: &Resource,
        metrics: &[Metric],
        seconds: u32,
    ) -> Result<GetRecentResponse, Status> {
        let asked = resource.clone();
        let node = self.live.ask(move |fleet| fleet.find(&asked).map(|object| object.node.clone())).await;
        let node = node?;
        let absent = || Status::not_found(format!("{resource} does not exist, or is not yours to see"));
        let node = node.ok_or_else(absent)?;
        let now_ms = clock::unix_ms();
        let mut past = self.recent.past(node.as_str(), now_ms - i64::from(seconds) * 1000).await?;
        let gaps = std::mem::take(&mut past.gaps);
        let inventories = self.recent.inventories().await?;
        let inventory = inventories.into_iter().find(|(of, _)| *of == node.as_str()).map(|(_, i)| i);
        let rows = self.store.nodes().await?;
        let row = rows.into_iter().find(|row| row.name == node.as_str()).ok_or_else(absent)?;
        let (resource, metrics) = (resource.clone(), metrics.to_vec());
        // An hour of a large node takes a moment to replay: not on a thread that serves others.
        let replayed = tokio::task::spawn_blocking(move || {
            let now = (clock::monotonic(), now_ms);
            past::course((&node, &row), inventory.as_ref(), past, &resource, &metrics, now)
        });
        let series = replayed.await.map_err(|_| Status::internal("internal error"))?;
        Ok(GetRecentResponse { series, gaps })
    }
}

impl From<StoreError> for Status {
    /// The cause is for the log: the caller can do nothing about it.
    fn from(error: StoreError) -> Self {
        tracing::error!(error = %Chain(&error), "store failed");
        Self::internal("internal error")
    }
}

/// The privilege by which an object is seen; `None` for what is no object.
#[must_use]
pub fn sees(resource: &Resource) -> Option<Privilege> {
    match resource {
        Resource::Node(_) => Some(Privilege::SysAudit),
        Resource::Vm(_) => Some(Privilege::VmAudit),
        Resource::Container(..) => Some(Privilege::ContainerAudit),
        Resource::Root | Resource::Pool(_) => None,
    }
}

/// What a browser's Origin may be, for each name and the port that the public listener got.
#[must_use]
pub fn origins(names: &[String], port: u16) -> Vec<String> {
    let host = |name: &String| if name.contains(':') { format!("[{name}]") } else { name.clone() };
    let mut origins: Vec<_> = names.iter().map(|name| format!("https://{}:{port}", host(name))).collect();
    // A browser leaves the default port out.
    if port == 443 {
        origins.extend(names.iter().map(|name| format!("https://{}", host(name))));
    }
    origins
}
