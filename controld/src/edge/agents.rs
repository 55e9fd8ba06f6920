//! What agents call: enrollment on the public port, renewal and the link on theirs.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use horcrux_proto::agent::v1::agent_link_server::AgentLink;
use horcrux_proto::agent::v1::console_link_server::ConsoleLink;
use horcrux_proto::agent::v1::enrollment_server::Enrollment;
use horcrux_proto::agent::v1::{
    AttachRequest, AttachResponse, CarryRequest, CarryResponse, Certificate, EnrollRequest, EnrollResponse,
    RenewRequest, RenewResponse, carry_request,
};
use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use horcrux_transport::secret::Secret;
use horcrux_transport::server::Peer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::call::{Call, on_record};
use crate::access::audit::Entry;
use crate::app::App;
use crate::console::line::{Carried, QUEUE};
use crate::fleet::attach::REPLIES;
use crate::fleet::ca::NodeCertificate;
use crate::fleet::enrollment::EnrollError;
use crate::store::nodes::NodeRow;

pub(super) struct Enroll(pub(super) Arc<App>);
pub(super) struct Link(pub(super) Arc<App>);

/// A request for a P-256 or Ed25519 key is a tenth of this.
const MAX_CSR: usize = 8 << 10;
/// A node that opened a console shows at once what for.
const RENDEZVOUS: Duration = Duration::from_secs(5);
/// As the log names it: the gate of the agents' port knows no calls.
const RENEW: &str = "/horcrux.agent.v1.Enrollment/Renew";

#[tonic::async_trait]
impl Enrollment for Enroll {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let mut call = Call::of(&request)?;
        let mut request = request.into_inner();
        if request.csr.len() > MAX_CSR {
            return Err(Status::invalid_argument("the certificate request is too large"));
        }
        // A rack of hosts comes from one address: who has a token isn't kept waiting by those who have none.
        let secret = Secret::from(std::mem::take(&mut request.token_secret));
        if !self.0.enrollment.knows(&request.token_id, &secret, clock::unix_ms()).await? {
            self.0.sign_ins.knocks("enroll", call.source)?;
        }
        let token = request.token_id.chars().filter(char::is_ascii_hexdigit).take(16).collect::<String>();
        // Which node it is, the token says once it is found good.
        "unknown".clone_into(&mut call.actor);
        let mut entry = Entry { decision: format!("join token {token}"), ..call.entry("") };
        let intent = on_record(self.0.audit.intent(&entry).await)?;
        let app = Arc::clone(&self.0);
        // It goes on to its outcome though the caller leaves.
        let enrolling = self.0.watchers.spawn(async move {
            let EnrollRequest { token_id, csr, enrolled_as, .. } = &request;
            let enrolled =
                app.enrollment.enroll(token_id, &secret, csr, enrolled_as.as_deref(), clock::unix_ms()).await;
            if let Ok(enrolled) = &enrolled {
                entry.resource = format!("nodes/{}", enrolled.name);
                entry.actor.clone_from(&entry.resource);
            }
            ended(&app, &entry, intent, &enrolled).await;
            enrolled
        });
        let enrolled = match enrolling.await.map_err(|_| Status::internal("internal error"))? {
            Ok(enrolled) => enrolled,
            Err(error) => {
                self.0.counts.add("enrollments_refused");
                tracing::info!(token, %error, "enrollment refused");
                return Err(error.into());
            }
        };
        tracing::info!(node = enrolled.name, id = enrolled.id, "node enrolled");
        self.0.node_enrolled(&enrolled).await?;
        Ok(Response::new(EnrollResponse {
            node: format!("nodes/{}", enrolled.name),
            certificate: Some(self.certificate(enrolled.certificate, enrolled.generation)),
            agents_port: self.0.agents_port.into(),
            cluster: self.0.enrollment.authority().cluster().to_owned(),
            command_keys: vec![self.0.attachments.orders().public_key().to_vec().into()],
        }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let row = node(&request)?;
        let peer = request.extensions().get::<Peer>().map(|peer| peer.address.ip().to_canonical());
        let RenewRequest { csr, generation } = request.into_inner();
        // 0: an agent that doesn't know its own.
        if generation != 0 && i64::try_from(generation).ok() != Some(row.generation) {
            let why = "it was renewed under another generation than is on record: its certificate may have been copied";
            return Err(if self.0.lock_node(&row, why, "controller").await? {
                Status::permission_denied(format!("nodes/{} is locked", row.name))
            } else {
                EnrollError::Replaced.into()
            });
        }
        if csr.len() > MAX_CSR {
            return Err(Status::invalid_argument("the certificate request is too large"));
        }
        let entry = Entry {
            actor: format!("nodes/{}", row.name),
            source: peer.map(|address| address.to_string()).unwrap_or_default(),
            rpc: RENEW.to_owned(),
            resource: format!("nodes/{}", row.name),
            decision: "its certificate".to_owned(),
            detail: format!("renew: generation {}", row.generation + 1),
            ..Entry::default()
        };
        let intent = on_record(self.0.audit.intent(&entry).await)?;
        let (app, of) = (Arc::clone(&self.0), row.clone());
        // It goes on to its outcome though the caller leaves.
        let renewing = self.0.watchers.spawn(async move {
            let renewed = app.enrollment.renew(&of.id, &of.serial, &csr).await;
            ended(&app, &entry, intent, &renewed).await;
            renewed
        });
        let certificate = renewing.await.map_err(|_| Status::internal("internal error"))??;
        tracing::info!(node = row.name, "node certificate renewed");
        Ok(Response::new(RenewResponse {
            certificate: Some(self.certificate(certificate, row.generation + 1)),
        }))
    }
}

impl Enroll {
    fn certificate(&self, issued: NodeCertificate, generation: i64) -> Certificate {
        Certificate {
            leaf: issued.leaf.into(),
            authorities: self.0.enrollment.authority().authorities().into_iter().map(Into::into).collect(),
            expires_unix_ms: issued.expires_ms,
            generation: u64::try_from(generation).unwrap_or_default(),
        }
    }
}

#[tonic::async_trait]
impl AgentLink for Link {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<AttachResponse, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let row = node(&request)?;
        let (replies, stream) = mpsc::channel(REPLIES);
        let attachments = self.0.attachments.clone();
        let stop = self.0.stop.clone();
        self.0.watchers.spawn(attachments.serve(row, request.into_inner(), replies, stop));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// Puts on record how it ended.
async fn ended<T>(app: &App, entry: &Entry, intent: i64, outcome: &Result<T, EnrollError>) {
    let outcome = outcome.as_ref().map_or_else(ToString::to_string, |_| "ok".to_owned());
    if let Err(error) = app.audit.outcome(entry, intent, &outcome).await {
        tracing::error!(error = %Chain(&error), intent, "outcome not written to the audit log");
    }
}

/// The node, as the gate found.
fn node<T>(request: &Request<T>) -> Result<NodeRow, Status> {
    request
        .extensions()
        .get::<NodeRow>()
        .cloned()
        .ok_or_else(|| Status::unauthenticated("no node certificate"))
}

#[tonic::async_trait]
impl ConsoleLink for Link {
    type CarryStream = Pin<Box<dyn Stream<Item = Result<CarryResponse, Status>> + Send>>;

    async fn carry(
        &self,
        request: Request<Streaming<CarryRequest>>,
    ) -> Result<Response<Self::CarryStream>, Status> {
        let row = node(&request)?;
        let mut from_node = request.into_inner();
        let first = tokio::time::timeout(RENDEZVOUS, from_node.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no rendezvous came"))??;
        let Some(CarryRequest { message: Some(carry_request::Message::Rendezvous(rendezvous)) }) = first
        else {
            return Err(Status::invalid_argument("the first message must be the rendezvous"));
        };
        let (to_node, stream) = mpsc::channel(QUEUE);
        self.0.lines.consoles.brought(&row.id, &rendezvous, Carried { from_node, to_node })?;
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}
