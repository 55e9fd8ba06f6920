//! AuditService: reading the log, and checking it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use horcrux_proto::authz::Privilege::SysAudit;
use horcrux_proto::v1::audit_service_server::AuditService;
use horcrux_proto::v1::{
    AuditKind, AuditRecord, AuditServiceListRequest, AuditServiceListResponse, FollowRequest, FollowResponse,
    VerifyRequest, VerifyResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::call::Call;
use super::stream::Standing;
use crate::access::audit::{Kind, hex};
use crate::access::path::Path;
use crate::access::principal::Principal;
use crate::app::App;
use crate::live::page::PAGE;
use crate::store::audit::{AuditFilter, AuditRow, Head};

pub(super) struct Log(pub(super) Arc<App>);

/// Something is sent at least this often.
const HEARTBEAT: Duration = Duration::from_secs(5);
const OUTGOING: usize = 64;
const MAX_CHECKPOINTS: usize = 100;

#[tonic::async_trait]
impl AuditService for Log {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<FollowResponse, Status>> + Send>>;

    async fn list(
        &self,
        request: Request<AuditServiceListRequest>,
    ) -> Result<Response<AuditServiceListResponse>, Status> {
        let request = request.into_inner();
        let filter = AuditFilter {
            actor: request.actor,
            resource: request.resource,
            since_ms: request.since_unix_ms,
            until_ms: request.until_unix_ms,
        };
        let before = match request.page_token.as_str() {
            "" => 0,
            token => {
                token.parse().map_err(|_| Status::invalid_argument("page_token: it is not one of ours"))?
            }
        };
        let size = match usize::try_from(request.page_size) {
            Ok(size @ 1..=PAGE) => size,
            _ => PAGE,
        };
        let rows = self.0.audit.before(&filter, before, i64::try_from(size).unwrap_or(i64::MAX)).await?;
        let next = rows.last().filter(|row| rows.len() == size && row.sequence > 1);
        let next_page_token = next.map(|row| row.sequence.to_string()).unwrap_or_default();
        let records = rows.into_iter().map(record).collect();
        Ok(Response::new(AuditServiceListResponse { records, next_page_token }))
    }

    async fn follow(&self, request: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let call = Call::of(&request)?;
        let standing = Standing::of(&self.0, &call)?;
        let request = request.into_inner();
        let filter =
            AuditFilter { actor: request.actor, resource: request.resource, ..AuditFilter::default() };
        let after = match i64::try_from(request.after_sequence) {
            Ok(0) => self.0.audit.head().await?.sequence,
            Ok(after) => after,
            Err(_) => return Err(Status::invalid_argument("after_sequence: it is too large")),
        };
        let (outgoing, stream) = mpsc::channel(OUTGOING);
        let app = Arc::clone(&self.0);
        self.0.watchers.spawn(async move {
            let ended = follow(&app, standing, &filter, after, &outgoing).await;
            if let Err(status) = ended {
                // A reader that left doesn't hear it.
                drop(outgoing.send(Err(status)).await);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn verify(&self, request: Request<VerifyRequest>) -> Result<Response<VerifyResponse>, Status> {
        let checkpoints = request.into_inner().checkpoints;
        if checkpoints.len() > MAX_CHECKPOINTS {
            return Err(Status::invalid_argument("checkpoints: at most 100"));
        }
        let noted: Option<Vec<Head>> = checkpoints.iter().map(|text| Head::parse(text)).collect();
        let noted = noted.ok_or_else(|| {
            Status::invalid_argument("checkpoints: each is SEQUENCE:HASH, as in the journal")
        })?;
        let verdict = self.0.audit.verify(noted).await?;
        Ok(Response::new(VerifyResponse {
            intact: verdict.broken.is_none(),
            rows: verdict.rows,
            head: verdict.head.to_string(),
            broken_at: verdict.broken.as_ref().and_then(|(row, _)| u64::try_from(*row).ok()),
            problem: verdict.broken.map(|(_, problem)| problem).unwrap_or_default(),
        }))
    }
}

/// Sends rows as they come, read from the log itself, until the reader leaves or may no longer read.
async fn follow(
    app: &App,
    mut standing: Standing,
    filter: &AuditFilter,
    mut after: i64,
    outgoing: &mpsc::Sender<Result<FollowResponse, Status>>,
) -> Result<(), Status> {
    let mut written = app.audit.written();
    let mut beat = tokio::time::interval(HEARTBEAT);
    loop {
        let rows = app.audit.after(filter, after, i64::try_from(PAGE).unwrap_or(i64::MAX)).await?;
        let more = rows.len() == PAGE;
        for row in rows {
            may_read(standing.principal())?;
            after = row.sequence;
            standing.send(outgoing, FollowResponse { record: Some(record(row)) }).await?;
        }
        if more {
            continue;
        }
        tokio::select! {
            // Whatever it says, the log is looked at.
            _ = written.recv() => {}
            _ = beat.tick() => standing.send(outgoing, FollowResponse { record: None }).await?,
            changed = standing.changed() => {
                changed?;
                may_read(standing.principal())?;
            }
            () = outgoing.closed() => return Ok(()),
            () = app.stop.cancelled() => return Err(Status::unavailable("the controller is stopping")),
        }
    }
}

fn may_read(principal: &Principal) -> Result<(), Status> {
    let may = principal.may(SysAudit, &Path::access());
    may.then_some(()).ok_or_else(|| Status::permission_denied("you may no longer read the audit log"))
}

fn record(row: AuditRow) -> AuditRecord {
    let kinds = [
        (Kind::Intent, AuditKind::Intent),
        (Kind::Outcome, AuditKind::Outcome),
        (Kind::Event, AuditKind::Event),
        (Kind::Denial, AuditKind::Denial),
    ];
    let kind = kinds.into_iter().find(|(kind, _)| kind.as_str() == row.kind).map(|(_, kind)| kind);
    let number = |n: i64| u64::try_from(n).unwrap_or_default();
    AuditRecord {
        sequence: number(row.sequence),
        at_unix_ms: row.at_ms,
        kind: kind.unwrap_or(AuditKind::Unspecified).into(),
        actor: row.actor,
        session: row.session,
        source: row.source,
        rpc: row.rpc,
        resource: row.resource,
        request_id: row.request_id,
        decision: row.decision,
        outcome: row.outcome,
        detail: row.detail,
        intent: number(row.intent),
        hash: hex(&row.hash),
    }
}
