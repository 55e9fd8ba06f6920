//! The same controller behind TLS, as the program meets it; each WebSocket that it opens is handed to the test.

use std::path::Path;
use std::sync::Arc;

use horcrux_proto::console::{MAX_MESSAGE, Notice, PATH, SUBPROTOCOL};
use horcrux_proto::v1::auth_service_server::AuthServiceServer;
use horcrux_proto::v1::console_service_server::ConsoleServiceServer;
use horcrux_proto::v1::recording_service_server::RecordingServiceServer;
use horcrux_proto::v1::vm_service_server::VmServiceServer;
use horcrux_test_parts::Authority;
use horcrux_transport::client::Target;
use horcrux_transport::clock;
use horcrux_transport::server::{Incoming, Limits, serve};
use horcrux_transport::tasks::Tasks;
use horcrux_transport::tls::{Identity, single_server};
use horcruxctl::contexts::{Context, Contexts, Trusted};
use horcruxctl::private::Home;
use horcruxctl::tokens::{Credential, TokenFile, Tokens};
use http::{Request, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt as _;

use super::{HOUR_MS, Shared};

pub(crate) struct Secure {
    pub(crate) controller: Shared,
    pub(crate) dir: tempfile::TempDir,
    visitors: mpsc::Receiver<(http::request::Parts, OnUpgrade)>,
    _tasks: Tasks,
}

pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

impl Secure {
    /// A controller, and a context in the directory that is signed in to it.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::make(dir.path()).unwrap();
        let identity = Identity::from_files(&authority.certificate(), &authority.key()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
        keep(&dir.path().join("horcrux"), &target, &authority.ca()).await;
        let controller = Shared(Arc::default());
        let routes = Routes::new(AuthServiceServer::new(controller.clone()))
            .add_service(ConsoleServiceServer::new(controller.clone()))
            .add_service(RecordingServiceServer::new(controller.clone()))
            .add_service(VmServiceServer::new(controller.clone()));
        let (send, visitors) = mpsc::channel(8);
        let service = move |request: Request<Incoming>| {
            let (routes, send) = (routes.clone(), send.clone());
            async move {
                Ok(if request.uri().path() == PATH {
                    upgrade(request, &send).await
                } else {
                    routes.oneshot(request).await.unwrap_or_else(|never| match never {})
                })
            }
        };
        let (_, tls) = watch::channel(single_server(&identity).unwrap());
        let limits = Limits {
            connections: 64,
            connections_per_source: 64,
            handshakes_per_source: 64,
            streams_per_connection: 16,
        };
        let mut tasks = Tasks::default();
        tasks.spawn("controller", |stop| async move {
            serve(listener, tls, limits, service, stop).await;
            Ok::<_, std::convert::Infallible>(())
        });
        Self { controller, dir, visitors, _tasks: tasks }
    }

    /// The next WebSocket, and what it was asked for with.
    pub(crate) async fn visitor(&mut self) -> (http::request::Parts, Socket) {
        let (head, upgraded) = self.visitors.recv().await.unwrap();
        let io = TokioIo::new(upgraded.await.unwrap());
        let limits = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE));
        (head, Socket::from_raw_socket(io, Role::Server, Some(limits)).await)
    }
}

/// As the controller says it of a VM that is called `shop`.
pub(crate) fn opened(in_control: bool, recorded: bool) -> Notice {
    Notice::Opened {
        console: "consoles/a".to_owned(),
        vm: format!("vms/{}", super::guests::SHOP),
        vm_display_name: "shop".to_owned(),
        node: "nodes/web1".to_owned(),
        in_control,
        recorded,
        channel_key: None,
    }
}

async fn keep(home: &Path, target: &Target, ca: &Path) {
    let home = Home::at(home);
    home.write("authorities/lab.pem", &std::fs::read_to_string(ca).unwrap()).unwrap();
    let trust = Trusted::Authorities("authorities/lab.pem".to_owned());
    let context = Context { url: target.to_string(), user: Some("alice@local".to_owned()), trust };
    let name: horcruxctl::contexts::ContextName = "lab".parse().unwrap();
    let tokens = Tokens {
        access: "access-0".to_owned().into(),
        access_expires_unix_ms: clock::unix_ms() + HOUR_MS,
        refresh: "refresh-0".to_owned().into(),
    };
    TokenFile::new(&home, &name).write(&Credential::Session(tokens)).unwrap();
    Contexts::change(&home, |contexts| {
        contexts.contexts.insert(name.clone(), context);
        contexts.current = Some(name);
        Ok(())
    })
    .await
    .unwrap();
}

async fn upgrade(
    mut request: Request<Incoming>,
    visitors: &mpsc::Sender<(http::request::Parts, OnUpgrade)>,
) -> Response<Body> {
    let upgraded = hyper::upgrade::on(&mut request);
    let (head, _) = request.into_parts();
    let accept = derive_accept_key(head.headers[header::SEC_WEBSOCKET_KEY].as_bytes());
    let answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .header(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
    visitors.send((head, upgraded)).await.unwrap();
    answer.body(Body::empty()).unwrap()
}
