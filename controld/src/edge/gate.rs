//! Before any handler: where may this request come from, who sends it, and what does its method demand?
//!
//! tonic would run an RPC that a page of any origin sent as `text/plain`. So the content type decides first:
//!
//! | content type | needs |
//! |---|---|
//! | `application/grpc-web…` | POST, the exact Origin, same-origin by `Sec-Fetch-Site` where sent; with a cookie the session's `x-horcrux-csrf` |
//! | `application/grpc…` | POST; cookies are ignored, only a bearer token counts |
//! | anything else | is refused |
//!
//! `WhoAmI` alone works with a cookie and no `x-horcrux-csrf`: it changes nothing, and is how a page that was reloaded
//! learns the token. Its answer can be read by our own origin only.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::Response;
use horcrux_proto::authz::{Caller, requirement};
use horcrux_proto::name::Resource;
use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use horcrux_transport::secret::Secret;
use horcrux_transport::server::Peer;
use http::{HeaderMap, Method, Request, header};
use subtle::ConstantTimeEq as _;
use tonic::Status;

use crate::access::Principal;
use crate::access::sessions::csrf;
use crate::app::App;
use crate::store::sessions::SecretKind;

/// The browser's session.
pub(super) const COOKIE: &str = "__Host-hx";
const CSRF: &str = "x-horcrux-csrf";
const WHO_AM_I: &str = "/horcrux.v1.AuthService/WhoAmI";

/// As much of a refused request as is read: no legitimate one is longer.
const DRAIN_BYTES: usize = 64 << 10;
const DRAIN: Duration = Duration::from_millis(500);

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// gRPC-web: a browser, or something that speaks like one.
    Web,
    Native,
}

/// For the public port.
pub(super) async fn public(State(app): State<Arc<App>>, mut request: Request<Body>, next: Next) -> Response {
    let (door, outcome) = match door(&app, &request) {
        Ok(door) => (door, admit(&app, door, &mut request).await),
        Err(status) => (Door::Native, Err(status)),
    };
    match outcome {
        Ok(()) => {
            request.extensions_mut().insert(door);
            next.run(request).await
        }
        Err(status) => {
            app.counts.add("requests_refused");
            drain(request.into_body()).await;
            refuse(&status)
        }
    }
}

/// Takes what a small request still has to say. Some clients (curl 7 over HTTP/2) lose an answer that comes before their
/// own last byte was taken.
pub(super) async fn drain(body: Body) {
    match tokio::time::timeout(DRAIN, axum::body::to_bytes(body, DRAIN_BYTES)).await {
        Ok(Ok(_)) => {}
        // Too long or too slow: it had its chance.
        Ok(Err(_)) | Err(_) => tracing::trace!("a refused request was cut off"),
    }
}

/// For the agents' port: the certificate is the identity.
pub(super) async fn agents(State(app): State<Arc<App>>, mut request: Request<Body>, next: Next) -> Response {
    match node(&app, &mut request).await {
        Ok(()) => next.run(request).await,
        Err(status) => {
            app.counts.add("agent_requests_refused");
            refuse(&status)
        }
    }
}

fn refuse(status: &Status) -> Response {
    status.clone().into_http()
}

fn door(app: &App, request: &Request<Body>) -> Result<Door, Status> {
    let headers = request.headers();
    let content_type = text(headers, header::CONTENT_TYPE.as_str()).unwrap_or_default();
    if request.method() != Method::POST {
        return Err(Status::invalid_argument("an RPC is a POST"));
    }
    if content_type == "application/grpc-web" || content_type.starts_with("application/grpc-web+") {
        let origin = text(headers, header::ORIGIN.as_str()).unwrap_or_default();
        if !app.origins.iter().any(|allowed| allowed == origin) {
            return Err(Status::permission_denied(
                "this Origin is not the controller's own: add the name that you reach it by to `names` in controld.toml",
            ));
        }
        if text(headers, "sec-fetch-site").is_some_and(|site| site != "same-origin") {
            return Err(Status::permission_denied("this request comes from another site"));
        }
        return Ok(Door::Web);
    }
    if content_type == "application/grpc" || content_type.starts_with("application/grpc+") {
        return Ok(Door::Native);
    }
    Err(Status::invalid_argument("the content type is not one of gRPC"))
}

async fn admit(app: &App, door: Door, request: &mut Request<Body>) -> Result<(), Status> {
    let method = request.uri().path();
    let caller = if method.starts_with("/grpc.health.v1.") {
        Caller::Anyone
    } else if method.starts_with("/grpc.reflection.") {
        Caller::SignedIn
    } else {
        // What the contract doesn't know, nobody may call.
        requirement(method).ok_or_else(|| Status::unimplemented("no such method"))?.caller
    };
    if caller == Caller::Anyone {
        return Ok(());
    }
    let principal = principal(app, door, method, request.headers()).await?;
    match caller {
        Caller::Anyone | Caller::SignedIn => {}
        Caller::Node => return Err(Status::permission_denied("for nodes only, on the agents' port")),
        Caller::Holder(privilege) => {
            // What names a resource or filters is decided again by the handler, where the object is known.
            let named = requirement(method).is_some_and(|r| r.filtered || !r.resource_field.is_empty());
            if !named {
                principal.require(privilege, &Resource::Root)?;
            }
        }
    }
    request.extensions_mut().insert(principal);
    Ok(())
}

async fn principal(app: &App, door: Door, method: &str, headers: &HeaderMap) -> Result<Principal, Status> {
    let unauthenticated = || Status::unauthenticated("sign in first");
    let bearer = text(headers, header::AUTHORIZATION.as_str()).and_then(|a| a.strip_prefix("Bearer "));
    let (secret, kind) = match (door, bearer) {
        (_, Some(token)) => (token.to_owned(), SecretKind::Access),
        (Door::Web, None) => (cookie(headers).ok_or_else(unauthenticated)?, SecretKind::Cookie),
        (Door::Native, None) => return Err(unauthenticated()),
    };
    if kind == SecretKind::Cookie && method != WHO_AM_I {
        let sent = text(headers, CSRF).unwrap_or_default();
        if !bool::from(csrf(&secret).as_bytes().ct_eq(sent.as_bytes())) {
            return Err(Status::permission_denied("x-horcrux-csrf is missing or wrong: reload the page"));
        }
    }
    let found = app.sessions.principal(&Secret::from(secret), kind, clock::unix_ms()).await;
    match found {
        Ok(Some(principal)) => Ok(principal),
        Ok(None) => Err(Status::unauthenticated("the session is over: sign in again")),
        Err(error) => {
            tracing::error!(error = %Chain(&error), "session not checked");
            Err(Status::unavailable("sessions can't be checked now"))
        }
    }
}

async fn node(app: &App, request: &mut Request<Body>) -> Result<(), Status> {
    let method = request.uri().path();
    match requirement(method).map(|r| r.caller) {
        Some(Caller::Node) => {}
        Some(Caller::Anyone | Caller::SignedIn | Caller::Holder(_)) | None => {
            return Err(Status::unimplemented("not on the agents' port"));
        }
    }
    let certificate = request.extensions().get::<Peer>().and_then(|peer| peer.certificate.clone());
    let certificate = certificate.ok_or_else(|| Status::unauthenticated("no node certificate"))?;
    let id = app
        .enrollment
        .authority()
        .node_id(&certificate.spiffe)
        .ok_or_else(|| Status::unauthenticated("the certificate is not a node's"))?;
    match app.store.admit(id, &certificate.serial).await {
        Ok(Some(row)) => {
            request.extensions_mut().insert(row);
            Ok(())
        }
        Ok(None) => Err(Status::unauthenticated(
            "this certificate is no longer accepted: its node was deleted, or it was renewed. Enroll the node again",
        )),
        Err(error) => {
            tracing::error!(error = %Chain(&error), "node not looked up");
            Err(Status::unavailable("nodes can't be looked up now"))
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The session cookie's value.
pub(super) fn cookie(headers: &HeaderMap) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut pairs = all.flat_map(|line| line.split("; ")).filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value.to_owned())
}
