//! RecordingService: what is recorded, and reading it.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use horcrux_proto::authz::Privilege::{SysAudit, SysModify};
use horcrux_proto::name::{PoolName, Resource};
use horcrux_proto::v1::recording_service_read_response::Part;
use horcrux_proto::v1::recording_service_server::RecordingService;
use horcrux_proto::v1::{
    ConsoleKind, Recording, RecordingPolicy, RecordingScope, RecordingServiceListPoliciesRequest,
    RecordingServiceListPoliciesResponse, RecordingServiceListRequest, RecordingServiceListResponse,
    RecordingServiceReadRequest, RecordingServiceReadResponse, RecordingServiceSetPolicyRequest,
    RecordingServiceSetPolicyResponse, RecordingVerdict,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::call::{Act, Call, absent, on_record};
use super::guests::named_vm;
use super::stream::Standing;
use crate::access::audit::hex;
use crate::access::name::RoleName;
use crate::access::path::Path;
use crate::access::{explain, policy};
use crate::app::App;
use crate::console::End;
use crate::live::page::PAGE;
use crate::live::select;
use crate::recording::reading::{Next, Reading};
use crate::recording::{Demand, demanded};
use crate::store::audit::AuditFilter;
use crate::store::recordings::{PolicyRow, RecordingRow};

pub(super) struct Recordings(pub(super) Arc<App>);

/// A recording's end is on the audit log within so long of its own record.
const NOTED_WITHIN_MS: i64 = 60_000;
/// Pieces of 64 KiB on their way to a reader.
const OUTGOING: usize = 4;

type Sent = Result<RecordingServiceReadResponse, Status>;

#[tonic::async_trait]
impl RecordingService for Recordings {
    type ReadStream = Pin<Box<dyn Stream<Item = Sent> + Send>>;

    async fn list(
        &self,
        request: Request<RecordingServiceListRequest>,
    ) -> Result<Response<RecordingServiceListResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let vm = if request.vm.is_empty() { String::new() } else { self.vm(&call, &request.vm).await? };
        let before = match request.page_token.as_str() {
            "" => Some((i64::MAX, "")),
            token => token.split_once(':').and_then(|(at, id)| Some((at.parse().ok()?, id))),
        };
        let before = before.ok_or_else(|| Status::invalid_argument("page_token: it is not one of ours"))?;
        let size = match usize::try_from(request.page_size) {
            Ok(size @ 1..=PAGE) => size,
            _ => PAGE,
        };
        let rows = self.0.recordings.list(&vm, before, i64::try_from(size).unwrap_or(i64::MAX)).await?;
        let next = rows.last().filter(|_| rows.len() == size);
        let next_page_token = next.map(|row| format!("{}:{}", row.began_ms, row.id)).unwrap_or_default();
        let recordings = rows.into_iter().map(shown).collect();
        Ok(Response::new(RecordingServiceListResponse { recordings, next_page_token }))
    }

    async fn read(
        &self,
        request: Request<RecordingServiceReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let call = Call::of(&request)?;
        let standing = Standing::of(&self.0, &call)?;
        let name = request.into_inner().name;
        let id = name.strip_prefix("recordings/").unwrap_or(&name);
        let nowhere = || absent(&format!("recordings/{id}"));
        let row = self.0.recordings.find(id).await?.ok_or_else(nowhere)?;
        let reading = self.0.recordings.read(&row).map_err(|error| {
            tracing::error!(recording = id, %error, "a recording can't be read");
            Status::data_loss(format!(
                "the file of recordings/{id} can't be read: the controller's log says why"
            ))
        })?;
        let entry = crate::access::audit::Entry {
            decision: call.decision(SysAudit, &Path::root()),
            detail: format!("read recordings/{id} of {}", row.user),
            ..call.entry(&format!("vms/{}", row.vm))
        };
        on_record(self.0.audit.event(&entry, "ok").await.map(|()| 0))?;
        let is_noted_otherwise = self.is_noted_otherwise(&row).await?;
        let (outgoing, stream) = mpsc::channel(OUTGOING);
        self.0.watchers.spawn(async move {
            if let Err(status) = send(standing, shown(row), (reading, is_noted_otherwise), &outgoing).await {
                // A reader that left doesn't hear it.
                drop(outgoing.send(Err(status)).await);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn list_policies(
        &self,
        request: Request<RecordingServiceListPoliciesRequest>,
    ) -> Result<Response<RecordingServiceListPoliciesResponse>, Status> {
        Call::of(&request)?;
        let policies = self.0.store.recording_policies().await?.into_iter().map(policy_shown).collect();
        Ok(Response::new(RecordingServiceListPoliciesResponse { policies }))
    }

    async fn set_policy(
        &self,
        request: Request<RecordingServiceSetPolicyRequest>,
    ) -> Result<Response<RecordingServiceSetPolicyResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let asked = request.policy.unwrap_or_default();
        let scope = asked.scope();
        let never = scope == RecordingScope::Never;
        if scope == RecordingScope::Unspecified {
            return Err(Status::invalid_argument("policy.scope: NEVER, SERIAL or ALL"));
        }
        if never && asked.keeps_input {
            return Err(Status::invalid_argument(
                "policy.keeps_input: nothing is kept where nothing is recorded",
            ));
        }
        let row = PolicyRow {
            subject: self.subject(&call, &asked.subject, never).await?,
            scope: scope.into(),
            keeps_input: asked.keeps_input,
        };
        let name = scope.as_str_name().trim_start_matches("RECORDING_SCOPE_").to_lowercase();
        let input = if row.keeps_input { ", with what is typed" } else { "" };
        let act = Act {
            resource: row.subject.clone(),
            decision: call.decision(SysModify, &Path::root()),
            detail: format!("record consoles: {name}{input}"),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let policy = policy_shown(row.clone());
        let store = self.0.store.clone();
        call.act(&self.0, act, async move {
            if never {
                Ok(store.delete_recording_policy(&row.subject).await?)
            } else {
                Ok(store.put_recording_policy(&row).await?)
            }
        })
        .await?;
        Ok(Response::new(RecordingServiceSetPolicyResponse { policy: Some(policy) }))
    }
}

impl Recordings {
    /// Whether the record of the console's end vouches for another recording than the list does. That record may be past
    /// its time, or have been written before the recording was.
    async fn is_noted_otherwise(&self, row: &RecordingRow) -> Result<bool, Status> {
        let (Some(ended_ms), Some(link)) = (row.ended_ms, &row.last_link) else { return Ok(false) };
        let filter = AuditFilter {
            actor: row.user.clone(),
            resource: format!("vms/{}", row.vm),
            since_ms: row.began_ms,
            until_ms: ended_ms.saturating_add(NOTED_WITHIN_MS),
        };
        let rows = self.0.audit.before(&filter, 0, i64::try_from(PAGE).unwrap_or(i64::MAX)).await?;
        let end = format!("close consoles/{}:", row.id);
        let link = hex(link);
        let noted = rows.iter().filter(|noted| noted.detail.starts_with(&end));
        Ok(noted.filter_map(|noted| noted.detail.split_once("last link ")).any(|(_, noted)| noted != link))
    }

    /// The uuid of a VM that is called by it or by its name. Of one that is gone, too: its recordings are still there.
    async fn vm(&self, call: &Call, asked: &str) -> Result<String, Status> {
        let resource = match select::vm_by_uuid(asked) {
            Some(resource) => resource,
            None => named_vm(&self.0, call.principal()?, asked).await?,
        };
        match resource {
            Resource::Vm(vm) => Ok(vm.to_string()),
            Resource::Root | Resource::Node(_) | Resource::Container(..) | Resource::Pool(_) => {
                Err(absent(asked))
            }
        }
    }

    /// What a policy is of, as it is kept. What is gone can lose its policy, and nothing else.
    async fn subject(&self, call: &Call, asked: &str, may_be_gone: bool) -> Result<String, Status> {
        let nowhere = || absent(asked);
        let (subject, exists) = match asked.split_once('/') {
            Some(("vms", _)) => {
                let vm = self.vm(call, asked.strip_prefix("vms/").unwrap_or(asked)).await?;
                let resource: Resource = format!("vms/{vm}").parse().map_err(|_| nowhere())?;
                let wanted = resource.clone();
                let exists = self.0.live.ask(move |fleet| fleet.find(&wanted).is_some()).await?;
                (resource.to_string(), exists)
            }
            Some(("pools", name)) => {
                let pool: PoolName = name.parse().map_err(|_| nowhere())?;
                let pools = self.0.store.pools().await?;
                (format!("pools/{pool}"), pools.iter().any(|row| row.name == pool.as_str()))
            }
            Some(("roles", name)) => {
                let role: RoleName = name.parse().map_err(|_| nowhere())?;
                let exists = call.principal()?.policy.facts().role(&role).is_some();
                (format!("roles/{role}"), exists)
            }
            Some(_) | None => {
                return Err(Status::invalid_argument("policy.subject: expected vms/…, pools/… or roles/…"));
            }
        };
        if exists || may_be_gone { Ok(subject) } else { Err(nowhere()) }
    }
}

/// Whether a console of this caller's must be recorded.
pub(super) async fn wanted(
    app: &App,
    principal: &crate::access::principal::Principal,
    vm: &Resource,
    kind: ConsoleKind,
    now_ms: i64,
) -> Result<Option<Demand>, End> {
    let policies = app.store.recording_policies().await.map_err(|error| {
        tracing::error!(error = %horcrux_transport::error::Chain(&error), "recording policies not read");
        unrecordable("whether it must be recorded can't be found out")
    })?;
    let policy: &policy::Policy = &principal.policy;
    let privilege = horcrux_proto::authz::Privilege::VmConsole;
    let allowed = explain::why(policy, &principal.who(), privilege, &Path::of(vm), now_ms);
    Ok(demanded(&policies, kind, vm, policy.labels(), allowed.deciding()))
}

/// How a console ends that isn't opened because it can't be recorded.
pub(super) fn unrecordable(words: &str) -> End {
    End::new(horcrux_proto::console::CloseCode::Failed, words)
}

async fn send(
    mut standing: Standing,
    recording: Recording,
    (mut reading, is_noted_otherwise): (Box<Reading>, bool),
    outgoing: &mpsc::Sender<Sent>,
) -> Result<(), Status> {
    let message = |part| RecordingServiceReadResponse { part: Some(part) };
    standing.send(outgoing, message(Part::Recording(recording.clone()))).await?;
    loop {
        let next = tokio::task::spawn_blocking(move || reading.go_on()).await;
        let next = next.map_err(|_| Status::internal("internal error"))?;
        let next = next.map_err(|error| {
            tracing::error!(recording = recording.name, %error, "a recording can't be read");
            Status::data_loss(format!(
                "{} can't be read further: the controller's log says why",
                recording.name
            ))
        })?;
        if !standing.principal().may(SysAudit, &Path::root()) {
            return Err(Status::permission_denied("you may no longer read recordings"));
        }
        match next {
            Next::Piece(rest, data) => {
                standing.send(outgoing, message(Part::Data(data))).await?;
                reading = rest;
            }
            Next::Verdict(verdict) if verdict.intact && is_noted_otherwise => {
                let problem = "the audit log has another last link for it".to_owned();
                let verdict = RecordingVerdict { intact: false, problem, ..verdict };
                return standing.send(outgoing, message(Part::Verdict(verdict))).await;
            }
            Next::Verdict(verdict) => return standing.send(outgoing, message(Part::Verdict(verdict))).await,
        }
    }
}

fn shown(row: RecordingRow) -> Recording {
    let number = |of: i64| u64::try_from(of).unwrap_or_default();
    Recording {
        name: format!("recordings/{}", row.id),
        vm: format!("vms/{}", row.vm),
        vm_display_name: row.display_name,
        node: format!("nodes/{}", row.node),
        user: row.user,
        kind: row.kind,
        keeps_input: row.keeps_input,
        began_unix_ms: row.began_ms,
        ended_unix_ms: row.ended_ms,
        size_bytes: number(row.size),
        shed_bytes: number(row.shed),
        last_link: row.last_link.map(|link| hex(&link)).unwrap_or_default(),
    }
}

fn policy_shown(row: PolicyRow) -> RecordingPolicy {
    RecordingPolicy { subject: row.subject, scope: row.scope, keeps_input: row.keeps_input }
}
