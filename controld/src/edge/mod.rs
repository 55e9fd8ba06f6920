//! What the network sees: the public port and the agents' port, with a gate before every handler.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::middleware;
use axum::routing::any;
use horcrux_proto::agent::v1::agent_link_server::AgentLinkServer;
use horcrux_proto::agent::v1::console_link_server::ConsoleLinkServer;
use horcrux_proto::agent::v1::enrollment_server::EnrollmentServer;
use horcrux_proto::console::{MAX_MESSAGE, PATH};
use horcrux_proto::encoded::WatchServiceServer;
use horcrux_proto::v1::audit_service_server::AuditServiceServer;
use horcrux_proto::v1::auth_service_server::AuthServiceServer;
use horcrux_proto::v1::console_service_server::ConsoleServiceServer;
use horcrux_proto::v1::container_service_server::ContainerServiceServer;
use horcrux_proto::v1::grant_service_server::GrantServiceServer;
use horcrux_proto::v1::guest_link_service_server::GuestLinkServiceServer;
use horcrux_proto::v1::node_service_server::NodeServiceServer;
use horcrux_proto::v1::pool_service_server::PoolServiceServer;
use horcrux_proto::v1::recording_service_server::RecordingServiceServer;
use horcrux_proto::v1::system_service_server::SystemServiceServer;
use horcrux_proto::v1::token_service_server::TokenServiceServer;
use horcrux_proto::v1::user_service_server::UserServiceServer;
use horcrux_proto::v1::vm_service_server::VmServiceServer;
use horcrux_transport::server::Incoming;
use http::Request;
use tonic::service::Routes;
use tower::ServiceExt as _;

use crate::app::App;

mod agents;
mod assets;
mod audit;
mod auth;
mod call;
mod carried;
mod consoles;
mod fields;
mod gate;
mod grants;
mod groups;
mod guests;
mod links;
mod nodes;
mod own;
mod pools;
mod recordings;
mod roles;
mod sitting;
mod socket;
mod stream;
mod system;
mod tokens;
mod users;
mod watch;

/// One agent's batch of a large host is a tenth of this; a person's request a thousandth.
const AGENT_MESSAGE: usize = 4 << 20;
const PUBLIC_MESSAGE: usize = 64 << 10;
/// The longest piece of a console's bytes, and what it is wrapped in.
const CONSOLE_MESSAGE: usize = MAX_MESSAGE + 1024;
/// What clients accept by default.
const ANSWER: usize = 4 << 20;

macro_rules! limited {
    ($server:expr, $request:expr) => {
        $server.max_decoding_message_size($request).max_encoding_message_size(ANSWER)
    };
}

/// gRPC, gRPC-web and the web page.
pub fn public(app: &Arc<App>) -> Result<Router, tonic_reflection::server::Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(horcrux_proto::DESCRIPTORS)
    };
    let (health, health_service) = tonic_health::server::health_reporter();
    drop(health);
    let routes = Routes::new(limited!(AuthServiceServer::new(auth::Auth(app.clone())), PUBLIC_MESSAGE))
        .add_service(limited!(UserServiceServer::new(users::Users(app.clone())), PUBLIC_MESSAGE))
        .add_service(limited!(GrantServiceServer::new(grants::Grants(app.clone())), PUBLIC_MESSAGE))
        .add_service(limited!(PoolServiceServer::new(pools::Pools(app.clone())), PUBLIC_MESSAGE))
        .add_service(limited!(TokenServiceServer::new(tokens::Tokens(app.clone())), PUBLIC_MESSAGE))
        .add_service(limited!(AuditServiceServer::new(audit::Log(app.clone())), PUBLIC_MESSAGE))
        .add_service(limited!(SystemServiceServer::new(system::System(app.clone())), PUBLIC_MESSAGE))
        .add_service(limited!(NodeServiceServer::new(nodes::Nodes(app.clone())), PUBLIC_MESSAGE))
        .add_service(limited!(VmServiceServer::new(guests::Vms(app.clone())), PUBLIC_MESSAGE))
        .add_service(limited!(ContainerServiceServer::new(guests::Containers(app.clone())), PUBLIC_MESSAGE))
        .add_service(limited!(ConsoleServiceServer::new(consoles::Consoles(app.clone())), PUBLIC_MESSAGE))
        .add_service(limited!(GuestLinkServiceServer::new(links::Links(app.clone())), PUBLIC_MESSAGE))
        .add_service(limited!(
            RecordingServiceServer::new(recordings::Recordings(app.clone())),
            PUBLIC_MESSAGE
        ))
        .add_service(limited!(WatchServiceServer::new(watch::Watch(app.clone())), PUBLIC_MESSAGE))
        .add_service(limited!(EnrollmentServer::new(agents::Enroll(app.clone())), PUBLIC_MESSAGE))
        .add_service(reflection().build_v1()?)
        // What Python's and Java's clients ask for.
        .add_service(reflection().build_v1alpha()?)
        .add_service(health_service)
        .into_axum_router()
        .reset_fallback()
        .layer(tonic_web::GrpcWebLayer::new())
        .layer(middleware::from_fn_with_state(app.clone(), gate::public));
    let consoles = Router::new().route(PATH, any(socket::upgrade)).with_state(app.clone());
    Ok(Router::new()
        .merge(routes)
        .merge(consoles)
        .fallback(assets::serve)
        .layer(middleware::map_response(assets::headers)))
}

/// What an enrolled node may call.
pub fn agents(app: &Arc<App>) -> Router {
    Routes::new(limited!(AgentLinkServer::new(agents::Link(app.clone())), AGENT_MESSAGE))
        .add_service(limited!(ConsoleLinkServer::new(agents::Link(app.clone())), CONSOLE_MESSAGE))
        .add_service(limited!(EnrollmentServer::new(agents::Enroll(app.clone())), PUBLIC_MESSAGE))
        .into_axum_router()
        .layer(middleware::from_fn_with_state(app.clone(), gate::agents))
}

/// A router as the accept loop calls it.
pub fn service(
    router: Router,
) -> impl Fn(Request<Incoming>) -> tower::util::Oneshot<Router, Request<Body>> + Clone + Send + Sync + 'static
{
    move |request| router.clone().oneshot(request.map(Body::new))
}
