//! A controller that keeps to what the contract says of nodes' certificates, and does what a test wishes.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};

use horcrux_proto::agent::v1::agent_link_server::{AgentLink, AgentLinkServer};
use horcrux_proto::agent::v1::enrollment_server::{Enrollment, EnrollmentServer};
use horcrux_proto::agent::v1::{
    AttachRequest, AttachResponse, Certificate, EnrollRequest, EnrollResponse, RenewRequest, RenewResponse,
};
use horcrux_transport::clock;
use horcrux_transport::server::{self, Limits, Peer};
use horcrux_transport::tasks::Stop;
use horcrux_transport::tls::{self, CONTROLLER_NAME, Identity, Pin, serial_of};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Service as _;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

const DAY_MS: i64 = 24 * 3600 * 1000;
const LIMITS: Limits = Limits {
    connections: 64,
    connections_per_source: 64,
    handshakes_per_source: 64,
    streams_per_connection: 16,
};

/// Ended when dropped.
pub(crate) struct Controller {
    pub(crate) port: u16,
    pin: Pin,
    told: Arc<Told>,
    _serving: JoinSet<()>,
}

/// What it keeps, and what it is to do.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) serial: String,
    pub(crate) generation: u64,
    pub(crate) next: Option<String>,
    pub(crate) retired: BTreeSet<String>,
    pub(crate) locked: Option<&'static str>,
    /// Serials in the order in which they were shown, each once in a row.
    pub(crate) shown: Vec<String>,
    pub(crate) attached: u32,
    pub(crate) refused: u32,
    pub(crate) renewals: u32,
    /// Public keys that asked, with the token's id.
    pub(crate) asked: Vec<(String, Vec<u8>)>,
    /// Certificates that are due for a renewal as soon as they are issued.
    pub(crate) due_at_once: u32,
    /// What is issued has ended already.
    pub(crate) ended: bool,
    /// By which its orders are known.
    pub(crate) command_keys: Vec<bytes::Bytes>,
    /// Answers to an enrollment that are lost.
    pub(crate) lose_answers: u32,
    /// Open streams: dropped, they end.
    pub(crate) streams: Vec<mpsc::Sender<Result<AttachResponse, Status>>>,
}

struct Told {
    record: Mutex<Record>,
    issuer: Issuer<'static, KeyPair>,
    authority: Vec<u8>,
    agents_port: u16,
}

#[derive(Clone)]
struct Side(Arc<Told>);

impl Controller {
    pub(crate) async fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap().der().to_vec();
        let issuer = Issuer::new(params, key);
        let own_key = KeyPair::generate().unwrap();
        let mut own = CertificateParams::new(vec![CONTROLLER_NAME.to_owned()]).unwrap();
        own.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let own = own.signed_by(&own_key, &issuer).unwrap().der().to_vec();
        let identity = Identity::from_der(vec![own, authority.clone()], own_key.serialize_der());
        let public = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let agents = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = public.local_addr().unwrap().port();
        let pin = Pin::of(&authority).unwrap();
        let told = Arc::new(Told {
            record: Mutex::default(),
            issuer,
            agents_port: agents.local_addr().unwrap().port(),
            authority: authority.clone(),
        });
        let mut serving = JoinSet::new();
        let doors = [
            (public, tls::public_server(&identity, &identity).unwrap()),
            (agents, tls::agents_server(&identity, &[authority]).unwrap()),
        ];
        for (listener, config) in doors {
            let side = Side(told.clone());
            let routes =
                Routes::new(EnrollmentServer::new(side.clone())).add_service(AgentLinkServer::new(side));
            serving.spawn(async move {
                let (_keep, config) = watch::channel(config);
                let service = move |request| routes.clone().call(request);
                server::serve(listener, config, LIMITS, service, Stop::new()).await;
            });
        }
        Self { port, pin, told, _serving: serving }
    }

    /// Where only who is enrolled comes in.
    pub(crate) fn agents_port(&self) -> u16 {
        self.told.agents_port
    }

    /// A join token of this id. All are good: what is checked is who redeems them.
    pub(crate) fn token(&self, id: &str) -> String {
        format!("hxj_{id}.secret.{}", self.pin)
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.told.record.lock().unwrap()
    }

    /// Ends every open stream.
    pub(crate) fn drop_streams(&self) {
        self.record().streams.clear();
    }
}

impl Told {
    fn issue(&self, csr: &[u8], record: &mut Record) -> Certificate {
        let mut params = CertificateParams::default();
        let name = format!("spiffe://c/node/{}", record.id);
        params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if record.ended {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let request = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        let leaf = params.signed_by(&request.public_key, &self.issuer).unwrap().der().to_vec();
        let lives = if record.due_at_once > 0 { DAY_MS } else { 7 * DAY_MS };
        record.due_at_once = record.due_at_once.saturating_sub(1);
        Certificate {
            leaf: leaf.into(),
            authorities: vec![self.authority.clone().into()],
            expires_unix_ms: clock::unix_ms() + if record.ended { -DAY_MS } else { lives },
            generation: record.generation,
        }
    }

    /// As the controller admits a node.
    fn admit<T>(&self, request: &Request<T>) -> Result<MutexGuard<'_, Record>, Status> {
        let peer = request.extensions().get::<Peer>().and_then(|p| p.certificate.clone()).unwrap();
        let mut record = self.record.lock().unwrap();
        if record.shown.last() != Some(&peer.serial) {
            record.shown.push(peer.serial.clone());
        }
        if record.next.as_ref() == Some(&peer.serial) {
            let before = std::mem::replace(&mut record.serial, peer.serial.clone());
            record.retired.insert(before);
            record.next = None;
            record.generation += 1;
        }
        if record.retired.contains(&peer.serial) {
            record.locked = Some("a certificate was used that a newer one has replaced");
        }
        let refusal = match record.locked {
            Some(why) => Some(Status::permission_denied(format!("nodes/a is locked: {why}"))),
            None if peer.serial != record.serial => Some(Status::unauthenticated("no longer accepted")),
            None => None,
        };
        record.refused += u32::from(refusal.is_some());
        refusal.map_or(Ok(record), Err)
    }
}

#[tonic::async_trait]
impl Enrollment for Side {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        let request = request.into_inner();
        let parsed = CertificateSigningRequestParams::from_der(&request.csr.to_vec().into()).unwrap();
        let key = rcgen::PublicKeyData::der_bytes(&parsed.public_key).to_vec();
        let mut record = self.0.record.lock().unwrap();
        let asked = record.asked.iter().find(|(token, _)| *token == request.token_id);
        if asked.is_some_and(|(_, by)| *by != key) {
            return Err(Status::permission_denied("the join token was used before"));
        }
        record.asked.push((request.token_id, key));
        record.generation = record.generation.max(1);
        let certificate = self.0.issue(&request.csr, &mut record);
        record.serial = serial_of(&certificate.leaf).unwrap();
        record.next = None;
        record.retired.clear();
        if record.lose_answers > 0 {
            record.lose_answers -= 1;
            return Err(Status::unavailable("lost"));
        }
        Ok(Response::new(EnrollResponse {
            node: "nodes/a".to_owned(),
            certificate: Some(certificate),
            agents_port: self.0.agents_port.into(),
            cluster: "c".to_owned(),
            command_keys: record.command_keys.clone(),
        }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let mut record = self.0.admit(&request)?;
        let RenewRequest { csr, generation } = request.into_inner();
        if generation != record.generation {
            record.locked = Some("another generation");
            return Err(Status::permission_denied("nodes/a is locked"));
        }
        let mut certificate = self.0.issue(&csr, &mut record);
        certificate.generation += 1;
        record.next = Some(serial_of(&certificate.leaf).unwrap());
        record.renewals += 1;
        Ok(Response::new(RenewResponse { certificate: Some(certificate) }))
    }
}

#[tonic::async_trait]
impl AgentLink for Side {
    type AttachStream = ReceiverStream<Result<AttachResponse, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut record = self.0.admit(&request)?;
        record.attached += 1;
        let (replies, stream) = mpsc::channel(4);
        record.streams.push(replies);
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
