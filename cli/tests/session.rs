//! A session against a controller in this process: when tokens are renewed, how often, and what failures become.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::sync::Mutex;
use std::time::Duration;

use horcrux_proto::v1::auth_service_server::{AuthService, AuthServiceServer};
use horcrux_proto::v1::node_service_server::{NodeService, NodeServiceServer};
use horcrux_proto::v1::{
    CompleteSetupRequest, CompleteSetupResponse, CreateJoinTokenRequest, CreateJoinTokenResponse, Node,
    NodeServiceDeleteRequest, NodeServiceDeleteResponse, NodeServiceGetRequest, NodeServiceGetResponse,
    NodeServiceListRequest, NodeServiceListResponse, RefreshRequest, RefreshResponse, SignInRequest,
    SignInResponse, SignOutRequest, SignOutResponse, TokenPair, WhoAmIRequest, WhoAmIResponse,
};
use horcrux_transport::clock;
use horcrux_transport::tasks::Tasks;
use horcruxctl::exit::Exit;
use horcruxctl::inventory;
use horcruxctl::private::Home;
use horcruxctl::session::Session;
use horcruxctl::tokens::{TokenFile, Tokens};
use tokio::net::TcpListener;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

/// Takes the access token that it last gave, and each refresh token once.
#[derive(Default)]
struct Controller {
    generation: Mutex<u64>,
}

static HOUR_MS: i64 = 3_600_000;

impl Controller {
    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let wanted = format!("Bearer access-{}", self.generation.lock().unwrap());
        let sent = request.metadata().get("authorization").and_then(|v| v.to_str().ok());
        if sent == Some(&wanted) { Ok(()) } else { Err(Status::unauthenticated("the session is over")) }
    }
}

#[derive(Clone)]
struct Shared(std::sync::Arc<Controller>);

#[tonic::async_trait]
impl AuthService for Shared {
    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<RefreshResponse>, Status> {
        // Long enough for others to come meanwhile.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut generation = self.0.generation.lock().unwrap();
        if request.into_inner().refresh_token != format!("refresh-{generation}") {
            return Err(Status::unauthenticated("used already"));
        }
        *generation += 1;
        let tokens = TokenPair {
            access_token: format!("access-{generation}"),
            access_expires_unix_ms: clock::unix_ms() + HOUR_MS,
            refresh_token: format!("refresh-{generation}"),
        };
        Ok(Response::new(RefreshResponse { tokens: Some(tokens) }))
    }

    async fn complete_setup(
        &self,
        _: Request<CompleteSetupRequest>,
    ) -> Result<Response<CompleteSetupResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn sign_in(&self, _: Request<SignInRequest>) -> Result<Response<SignInResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn sign_out(&self, _: Request<SignOutRequest>) -> Result<Response<SignOutResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn who_am_i(&self, _: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[tonic::async_trait]
impl NodeService for Shared {
    /// Two pages.
    async fn list(
        &self,
        request: Request<NodeServiceListRequest>,
    ) -> Result<Response<NodeServiceListResponse>, Status> {
        self.0.check(&request)?;
        let (name, next) = if request.get_ref().page_token.is_empty() { ("a", "2") } else { ("b", "") };
        let nodes = vec![Node { name: format!("nodes/{name}"), ..Node::default() }];
        Ok(Response::new(NodeServiceListResponse { nodes, next_page_token: next.into() }))
    }

    async fn get(
        &self,
        request: Request<NodeServiceGetRequest>,
    ) -> Result<Response<NodeServiceGetResponse>, Status> {
        self.0.check(&request)?;
        Err(match request.get_ref().name.as_str() {
            "secret" => Status::permission_denied("x@local needs SysAudit"),
            "slow" => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Status::internal("")
            }
            _ => Status::not_found("no such node"),
        })
    }

    async fn delete(
        &self,
        _: Request<NodeServiceDeleteRequest>,
    ) -> Result<Response<NodeServiceDeleteResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn create_join_token(
        &self,
        _: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

struct Scene {
    tasks: Tasks,
    controller: Shared,
    tokens: TokenFile,
    address: String,
    _dir: tempfile::TempDir,
}

impl Scene {
    /// A controller, and tokens of its first generation that end in `left_ms`.
    async fn new(left_ms: i64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let controller = Shared(std::sync::Arc::default());
        let incoming = futures_util::stream::unfold(listener, |listener| async move {
            Some((listener.accept().await.map(|(stream, _)| stream), listener))
        });
        let server = Server::builder()
            .add_service(AuthServiceServer::new(controller.clone()))
            .add_service(NodeServiceServer::new(controller.clone()));
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
        tokens.write(&first).unwrap();
        Self { tasks, controller, tokens, address, _dir: dir }
    }

    async fn session(&self, deadline: Duration) -> Session {
        let channel = Endpoint::from_shared(self.address.clone()).unwrap().connect().await.unwrap();
        let context = "lab".parse().unwrap();
        Session::on(channel, context, "https://web1:8006".into(), self.tokens.clone(), deadline)
    }

    fn generation(&self) -> u64 {
        *self.controller.0.generation.lock().unwrap()
    }
}

const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn all_pages_are_followed_with_a_token_that_is_still_good() {
    let scene = Scene::new(HOUR_MS).await;
    let nodes = inventory::nodes(&scene.session(DEADLINE).await).await.unwrap();
    assert_eq!(nodes.0.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["nodes/a", "nodes/b"]);
    assert_eq!(scene.generation(), 0);
    drop(scene.tasks);
}

#[tokio::test]
async fn a_token_that_is_about_to_end_is_renewed_and_kept() {
    let scene = Scene::new(1000).await;
    inventory::nodes(&scene.session(DEADLINE).await).await.unwrap();
    assert_eq!(scene.generation(), 1);
    assert_eq!(scene.tokens.read().unwrap().unwrap().refresh.expose(), "refresh-1");
}

#[tokio::test]
async fn many_at_once_use_a_refresh_token_once() {
    let scene = Scene::new(0).await;
    let mut sessions = Vec::new();
    for _ in 0..8 {
        sessions.push(scene.session(DEADLINE).await);
    }
    let all = futures_util::future::join_all(sessions.iter().map(inventory::nodes)).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(scene.generation(), 1);
}

#[tokio::test]
async fn where_our_clock_is_behind_the_controllers_word_counts() {
    let scene = Scene::new(HOUR_MS).await;
    let stale = scene.tokens.read().unwrap().unwrap();
    scene.tokens.write(&Tokens { access: "access-ended".to_owned().into(), ..stale }).unwrap();
    inventory::nodes(&scene.session(DEADLINE).await).await.unwrap();
    assert_eq!(scene.generation(), 1);
}

#[tokio::test]
async fn a_session_that_is_over_is_forgotten_and_says_how_to_sign_in() {
    let scene = Scene::new(0).await;
    *scene.controller.0.generation.lock().unwrap() = 5;
    let failure = inventory::nodes(&scene.session(DEADLINE).await).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::NotSignedIn);
    assert!(failure.report().contains("horcruxctl login https://web1:8006"), "{}", failure.report());
    assert!(scene.tokens.read().unwrap().is_none());
}

#[tokio::test]
async fn what_the_controller_says_becomes_an_exit_code() {
    let scene = Scene::new(HOUR_MS).await;
    let session = scene.session(Duration::from_secs(1)).await;
    for (name, exit) in [("x", Exit::NotFound), ("secret", Exit::Denied), ("slow", Exit::Unreachable)] {
        assert_eq!(inventory::node(&session, name).await.unwrap_err().exit(), exit, "{name}");
    }
    let Scene { tasks, .. } = scene;
    drop(tasks);
}
