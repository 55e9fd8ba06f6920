//! A controller in this process, and a client on it. It takes the access token that it last gave, each refresh token once,
//! the password `right` and the code `123456`; it writes down what it is asked to change.
#![allow(dead_code, reason = "each test program uses its part")]

mod auth;
pub(crate) mod consoles;
mod grants;
pub(crate) mod guests;
mod log;
mod nodes;
mod pools;
pub(crate) mod recordings;
pub(crate) mod secure;
mod tokens;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use horcrux_proto::v1::audit_service_server::AuditServiceServer;
use horcrux_proto::v1::auth_service_server::AuthServiceServer;
use horcrux_proto::v1::console_service_server::ConsoleServiceServer;
use horcrux_proto::v1::container_service_server::ContainerServiceServer;
use horcrux_proto::v1::grant_service_server::GrantServiceServer;
use horcrux_proto::v1::node_service_server::NodeServiceServer;
use horcrux_proto::v1::pool_service_server::PoolServiceServer;
use horcrux_proto::v1::token_service_server::TokenServiceServer;
use horcrux_proto::v1::vm_service_server::VmServiceServer;
use horcrux_proto::v1::{AuditRecord, HeldPrivileges, TokenPair};
use horcrux_transport::clock;
use horcrux_transport::tasks::Tasks;
use horcruxctl::App;
use horcruxctl::contexts::Trusted;
use horcruxctl::door::Door;
use horcruxctl::private::Home;
use horcruxctl::session::Session;
use horcruxctl::tokens::{Credential, TokenFile, Tokens};
use horcruxctl::view::Output;
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Status};

pub(crate) const HOUR_MS: i64 = 3_600_000;
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
pub(crate) const URL: &str = "https://web1:8006";

#[derive(Default)]
pub(crate) struct Controller {
    pub(crate) generation: Mutex<u64>,
    /// How often a device flow was asked after.
    pub(crate) polls: Mutex<u64>,
    /// OpenID realms.
    pub(crate) providers: Mutex<Vec<&'static str>>,
    /// What was changed or would have been.
    pub(crate) changes: Mutex<Vec<String>>,
    /// What the caller holds.
    pub(crate) held: Mutex<Vec<HeldPrivileges>>,
    /// Rows, the oldest first.
    pub(crate) rows: Mutex<Vec<AuditRecord>>,
}

#[derive(Clone)]
pub(crate) struct Shared(pub(crate) Arc<Controller>);

impl Controller {
    /// Who calls: a session, or an API token.
    pub(crate) fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let wanted = format!("Bearer access-{}", self.generation.lock().unwrap());
        let sent = request.metadata().get("authorization").and_then(|v| v.to_str().ok());
        match sent {
            Some(sent) if sent == wanted || sent == "Bearer hxt_good" => Ok(()),
            Some(_) | None => Err(Status::unauthenticated("the session is over")),
        }
    }

    pub(crate) fn tokens(&self) -> TokenPair {
        let generation = self.generation.lock().unwrap();
        TokenPair {
            access_token: format!("access-{generation}"),
            access_expires_unix_ms: clock::unix_ms() + HOUR_MS,
            refresh_token: format!("refresh-{generation}"),
            device: None,
        }
    }

    /// Writes a change down. A request without an id of its own fails.
    pub(crate) fn change(&self, what: &str, request_id: &str, validate_only: bool) -> Result<(), Status> {
        if request_id.len() != 32 {
            return Err(Status::invalid_argument("request_id: 32 hex digits"));
        }
        let mode = if validate_only { "would " } else { "" };
        self.changes.lock().unwrap().push(format!("{mode}{what}"));
        Ok(())
    }
}

pub(crate) struct Scene {
    pub(crate) tasks: Tasks,
    pub(crate) controller: Shared,
    pub(crate) tokens: TokenFile,
    pub(crate) dir: tempfile::TempDir,
    address: String,
}

impl Scene {
    /// A controller, and tokens of its first generation that end in `left_ms`.
    pub(crate) async fn new(left_ms: i64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let controller = Shared(Arc::default());
        let incoming = futures_util::stream::unfold(listener, |listener| async move {
            Some((listener.accept().await.map(|(stream, _)| stream), listener))
        });
        let server = Server::builder()
            .add_service(AuthServiceServer::new(controller.clone()))
            .add_service(NodeServiceServer::new(controller.clone()))
            .add_service(TokenServiceServer::new(controller.clone()))
            .add_service(GrantServiceServer::new(controller.clone()))
            .add_service(PoolServiceServer::new(controller.clone()))
            .add_service(VmServiceServer::new(controller.clone()))
            .add_service(ContainerServiceServer::new(controller.clone()))
            .add_service(AuditServiceServer::new(controller.clone()))
            .add_service(ConsoleServiceServer::new(controller.clone()));
        let mut tasks = Tasks::default();
        tasks.spawn("controller", |stop| {
            server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        });
        let dir = tempfile::tempdir().unwrap();
        let tokens = TokenFile::new(&Home::at(dir.path()), &"lab".parse().unwrap());
        let first = Tokens {
            access: "access-0".to_owned().into(),
            access_expires_unix_ms: clock::unix_ms() + left_ms,
            refresh: "refresh-0".to_owned().into(),
        };
        tokens.write(&Credential::Session(first)).unwrap();
        Self { tasks, controller, tokens, dir, address }
    }

    pub(crate) async fn session(&self, deadline: Duration) -> Session {
        let channel = self.channel().await;
        Session::on(channel, "lab".parse().unwrap(), URL.into(), self.tokens.clone(), deadline)
    }

    pub(crate) fn app(&self) -> App {
        App {
            home: Home::at(self.dir.path()),
            context: None,
            agent: None,
            output: Output::Json,
            deadline: DEADLINE,
        }
    }

    pub(crate) async fn door(&self) -> Door {
        Door {
            name: "lab".parse().unwrap(),
            url: URL.into(),
            trusted: Trusted::Fingerprint("ab".repeat(32)),
            channel: self.channel().await,
            known_user: None,
        }
    }

    /// A file that holds `text`.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn generation(&self) -> u64 {
        *self.controller.0.generation.lock().unwrap()
    }

    pub(crate) fn changes(&self) -> Vec<String> {
        self.controller.0.changes.lock().unwrap().clone()
    }

    async fn channel(&self) -> Channel {
        Endpoint::from_shared(self.address.clone()).unwrap().connect().await.unwrap()
    }
}
