//! One request on the public port, from what the gate found to what goes on record of it.

use std::future::Future;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use horcrux_proto::authz::{Privilege, privilege_name, requirement};
use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use tonic::{Code, Request, Status};
use zeroize::Zeroizing;

use crate::access::audit::Entry;
use crate::access::change::Escalation;
use crate::access::keys::Seal;
use crate::access::path::Path;
use crate::access::policy::{Facts, Who};
use crate::access::principal::Principal;
use crate::access::registry::Plan;
use crate::app::App;
use crate::store::StoreError;
use crate::store::requests::Claim;

/// Who calls what, from where.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) source: IpAddr,
    /// The head of the User-Agent.
    pub(super) agent: String,
    pub(super) principal: Option<Principal>,
    /// Who acts, where no principal does.
    pub(super) actor: String,
    pub(super) seal: Arc<Seal>,
    /// Of what a mutation asks for: the same request has the same mark.
    pub(super) mark: [u8; 32],
}

/// A change that is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Act {
    pub(super) resource: String,
    /// What allows it.
    pub(super) decision: String,
    /// What is asked for, without secrets.
    pub(super) detail: String,
    pub(super) request_id: String,
    pub(super) validate_only: bool,
}

/// A change of the policy that is prepared, or what stands against it and may have come of this same request.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) plan: Plan,
    refused: Option<Status>,
}

impl Planned {
    /// The plan, for a request that is carried out now: what stands against it came of another one.
    pub(super) fn first(self) -> Result<Plan, Status> {
        self.refused.map_or(Ok(self.plan), Err)
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done<T> {
    Now(T),
    /// The same request was carried out before.
    Before,
    /// It would be: nothing was changed.
    Valid,
}

const MAX_REQUEST_ID: usize = 128;

impl Call {
    pub(super) fn of<T: prost::Message>(request: &Request<T>) -> Result<Self, Status> {
        let found = request.extensions().get::<Self>().cloned();
        let mut call = found.ok_or_else(|| Status::unauthenticated("sign in first"))?;
        if requirement(call.method).is_some_and(|known| known.mutation) {
            // A password may be in it.
            let asked = Zeroizing::new(request.get_ref().encode_to_vec());
            call.mark = call.seal.mark("request", &[call.method.as_bytes(), &asked]);
        }
        Ok(call)
    }

    pub(super) fn principal(&self) -> Result<&Principal, Status> {
        self.principal.as_ref().ok_or_else(|| Status::unauthenticated("sign in first"))
    }

    pub(super) fn who(&self) -> Result<Who, Status> {
        self.principal().map(Principal::who)
    }

    /// Refuses, on record, unless the caller holds `privilege` on `path`.
    pub(super) fn require(&self, app: &App, privilege: Privilege, path: &Path) -> Result<(), Status> {
        self.principal()?.require(privilege, path).inspect_err(|_| self.denied(app, privilege, path))
    }

    /// As [`Call::require`], where a caller without it must not learn whether there is something at `path`.
    pub(super) fn require_to_know(&self, app: &App, privilege: Privilege, path: &Path) -> Result<(), Status> {
        self.require(app, privilege, path).map_err(|status| {
            let denied = status.code() == Code::PermissionDenied;
            if denied { absent(path.as_str().trim_start_matches('/')) } else { status }
        })
    }

    /// For a change of an object: who may not even see it hears that it is absent.
    pub(super) fn require_on(
        &self,
        app: &App,
        privilege: Privilege,
        sees: Privilege,
        path: &Path,
    ) -> Result<(), Status> {
        if !self.principal()?.may(privilege, path) && !self.principal()?.may(sees, path) {
            self.denied(app, privilege, path);
            return Err(absent(path.as_str().trim_start_matches('/')));
        }
        self.require(app, privilege, path)
    }

    /// Prepares a change of the policy; one that hands out what the caller lacks is refused, on record.
    pub(super) async fn plan(
        &self,
        app: &App,
        alter: impl FnOnce(&mut Facts) -> Result<(), Status>,
    ) -> Result<Plan, Status> {
        let planned = app.registry.plan(&self.who()?, |facts| alter(facts).map_err(Refused::Asked)).await;
        planned.map_err(|refused| match refused {
            Refused::Asked(status) => status,
            Refused::Escalates(escalation) => self.escalates(app, &escalation),
        })
    }

    /// As [`Call::plan`], for a change that can be made once: the same request may have made it already, or be making it.
    /// That is asked after it was seen to be made, for a request may come many times at once.
    pub(super) async fn plan_once(
        &self,
        app: &App,
        request_id: &str,
        alter: impl FnOnce(&mut Facts) -> Result<(), Status>,
    ) -> Result<Planned, Status> {
        match self.plan(app, alter).await {
            Ok(plan) => Ok(Planned { plan, refused: None }),
            Err(refused) => {
                let made = matches!(refused.code(), Code::AlreadyExists | Code::NotFound);
                if !made || !self.repeats(app, request_id).await? {
                    return Err(refused);
                }
                let plan = self.plan(app, |_| Ok(())).await?;
                Ok(Planned { plan, refused: Some(refused) })
            }
        }
    }

    /// Refuses, on record, what would hand out more than the caller has.
    pub(super) fn escalates(&self, app: &App, escalation: &Escalation) -> Status {
        let entry = Entry {
            decision: format!("would hand out {}", escalation.missing),
            ..self.entry(escalation.path.as_str())
        };
        app.audit.denial(&entry);
        Status::permission_denied(escalation.to_string())
    }

    /// The grants that allow `privilege` on `path`, for a record.
    pub(super) fn decision(&self, privilege: Privilege, path: &Path) -> String {
        self.principal.as_ref().map(|p| p.decision(privilege, path, clock::unix_ms())).unwrap_or_default()
    }

    pub(super) fn entry(&self, resource: &str) -> Entry {
        let principal = self.principal.as_ref();
        Entry {
            actor: principal.map_or_else(|| self.actor.clone(), Principal::name),
            session: principal.map(Principal::credential).unwrap_or_default(),
            source: self.source.to_string(),
            rpc: self.method.to_owned(),
            resource: resource.to_owned(),
            ..Entry::default()
        }
    }

    /// Does `work`, between an intent and an outcome on record. It goes on to its end though the caller leaves.
    pub(super) async fn act<T: Send + 'static>(
        &self,
        app: &Arc<App>,
        act: Act,
        work: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<Done<T>, Status> {
        let Act { resource, decision, detail, request_id, validate_only } = act;
        if request_id.len() > MAX_REQUEST_ID {
            return Err(Status::invalid_argument("request_id: at most 128 bytes"));
        }
        if validate_only {
            return Ok(Done::Valid);
        }
        let entry = Entry { decision, detail, request_id, ..self.entry(&resource) };
        let (app, mark) = (Arc::clone(app), self.mark);
        let running = app.watchers.clone().spawn(async move { once(&app, &entry, &mark, work).await });
        running.await.map_err(|_| Status::internal("internal error"))?
    }

    /// Whether the caller has asked for this very thing before, with this id: it may be there, or be gone, because of that.
    pub(super) async fn repeats(&self, app: &App, request_id: &str) -> Result<bool, Status> {
        if request_id.is_empty() {
            return Ok(false);
        }
        Ok(app.store.knows_request(self.principal()?.user.as_str(), request_id, &self.mark).await?)
    }

    fn denied(&self, app: &App, privilege: Privilege, path: &Path) {
        app.counts.add("requests_denied");
        app.audit.denial(&Entry { decision: privilege_name(privilege), ..self.entry(path.as_str()) });
    }
}

/// Does `work`, unless the same request was carried out before or is being carried out.
async fn once<T>(
    app: &App,
    entry: &Entry,
    mark: &[u8; 32],
    work: impl Future<Output = Result<T, Status>>,
) -> Result<Done<T>, Status> {
    let (actor, id) = (&entry.actor, &entry.request_id);
    if id.is_empty() {
        return recorded(app, entry, work).await.map(Done::Now);
    }
    match app.store.claim_request(actor, id, mark, clock::unix_ms()).await? {
        Claim::New => {}
        Claim::Done => return Ok(Done::Before),
        Claim::Running => {
            return Err(Status::aborted("request_id: the same request is being carried out: ask again"));
        }
        Claim::Other => {
            return Err(Status::already_exists("request_id: it stood for another request before"));
        }
    }
    let done = recorded(app, entry, work).await;
    if let Err(error) = app.store.settle_request(actor, id, done.is_ok()).await {
        tracing::warn!(error = %Chain(&error), "request id not settled");
    }
    done.map(Done::Now)
}

/// Does `work` between an intent and an outcome on record.
async fn recorded<T>(
    app: &App,
    entry: &Entry,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let intent = on_record(app.audit.intent(entry).await)?;
    // One that panics has an outcome too, and lets go of its request id.
    let done = AssertUnwindSafe(work).catch_unwind().await;
    let done = done.unwrap_or_else(|_| Err(Status::internal("internal error")));
    let outcome = match &done {
        Ok(_) => "ok".to_owned(),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    };
    if let Err(error) = app.audit.outcome(entry, intent, &outcome).await {
        tracing::error!(error = %Chain(&error), intent, "outcome not written to the audit log");
    }
    done
}

/// Why a change of the policy was not prepared.
enum Refused {
    Asked(Status),
    Escalates(Escalation),
}

impl From<Escalation> for Refused {
    fn from(escalation: Escalation) -> Self {
        Self::Escalates(escalation)
    }
}

/// A change that can't be put on record is refused.
pub(super) fn on_record(intent: Result<i64, StoreError>) -> Result<i64, Status> {
    intent.map_err(|error| {
        tracing::error!(error = %Chain(&error), "audit log not written: a change is refused");
        Status::unavailable("the audit log can't be written: nothing was changed")
    })
}

/// The one answer for what doesn't exist and for what the caller may not see.
pub(super) fn absent(name: &str) -> Status {
    Status::not_found(format!("{name} does not exist, or is not yours to see"))
}

/// A path that a caller wrote.
pub(super) fn path(text: &str) -> Result<Path, Status> {
    text.parse()
        .map_err(|error: horcrux_proto::name::InvalidField| Status::invalid_argument(error.to_string()))
}
