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
//! A guest's page says in `x-horcrux-link` by which link it comes, which no page of another origin can, and has that link's
//! cookie. It opens the methods that are for guests, and no other; a session or a token doesn't open those.
//!
//! What decides is asked when the whole request is there: a body that is held back while its sender loses their rights, or
//! their session, is decided by what holds when it comes.
//!
//! `WhoAmI` alone works with a cookie and no `x-horcrux-csrf`: it changes nothing, and is how a page that was reloaded
//! learns the token. Its answer can be read by our own origin only.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt as _;
use horcrux_proto::authz::{Caller, requirement};
use horcrux_proto::console::{LINK_HEADER, LINK_QUERY};
use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use horcrux_transport::secret::Secret;
use horcrux_transport::server::Peer;
use http::{HeaderMap, Method, Request, header};
use subtle::ConstantTimeEq as _;
use tonic::Status;

use super::PUBLIC_MESSAGE;
use super::call::Call;
use super::carried::{Door, cookie, link_cookie};
use super::links;
use crate::access::keys::hash;
use crate::access::link::is_cookie;
use crate::access::name::UserId;
use crate::access::principal::{Principal, Via};
use crate::access::sessions::csrf;
use crate::access::tokens;
use crate::app::App;
use crate::store::nodes::{Admitted, NodeRow};

const REFLECTED: &str = "/grpc.reflection.";
const CSRF: &str = "x-horcrux-csrf";
/// As records name a console's WebSocket. A browser can't send a header of its own there: the ticket is what only its page
/// knows.
const CONSOLE: &str = horcrux_proto::console::PATH;
const WHO_AM_I: &str = "/horcrux.v1.AuthService/WhoAmI";

/// A request is an encoded message of at most [`PUBLIC_MESSAGE`], framed.
const BODY_BYTES: usize = PUBLIC_MESSAGE + 1024;
/// How long it may take to come.
const BODY: Duration = Duration::from_secs(10);
/// What came at once is decided by what held at its beginning.
const AT_ONCE: Duration = Duration::from_millis(100);
/// A client that asks what there is holds its stream open while it does.
const REFLECTION: Duration = Duration::from_secs(60);

/// As much of a refused request as is read: no legitimate one is longer.
const DRAIN_BYTES: usize = 64 << 10;
const DRAIN: Duration = Duration::from_millis(500);
/// The use of an API token is written down at most this often.
const TOUCH_MS: i64 = 60 * 1000;

/// For the public port.
pub(super) async fn public(State(app): State<Arc<App>>, mut request: Request<Body>, next: Next) -> Response {
    let outcome = match door(&app, &request) {
        Ok(door) => admit(&app, door, &mut request).await.map(|()| door),
        Err(status) => Err(status),
    };
    match outcome {
        Ok(door) => match whole(&app, door, request).await {
            Ok(request) => next.run(request).await,
            Err(status) => {
                app.counts.add("requests_refused");
                refuse(&status)
            }
        },
        Err(status) => {
            app.counts.add("requests_refused");
            drain(request.into_body()).await;
            refuse(&status)
        }
    }
}

/// Takes in the body of an admitted request; one that took its time is asked again whether it is admitted.
async fn whole(app: &App, door: Door, request: Request<Body>) -> Result<Request<Body>, Status> {
    let (mut head, body) = request.into_parts();
    head.extensions.insert(door);
    if head.uri.path().starts_with(REFLECTED) {
        let until = body.into_data_stream().take_until(Box::pin(tokio::time::sleep(REFLECTION)));
        return Ok(Request::from_parts(head, Body::from_stream(until)));
    }
    let began = clock::monotonic();
    let body = tokio::time::timeout(BODY, axum::body::to_bytes(body, BODY_BYTES)).await;
    let body = body.map_err(|_| Status::deadline_exceeded("the request didn't come whole in time"))?;
    let body = body.map_err(|_| Status::out_of_range("the request is too large, or was cut off"))?;
    let mut request = Request::from_parts(head, Body::from(body));
    if clock::monotonic().saturating_duration_since(began) > AT_ONCE {
        admit(app, door, &mut request).await?;
    }
    Ok(request)
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

/// For a console's WebSocket: a browser has our own Origin and its session's cookie, anything else a bearer token.
pub(super) async fn console(app: &App, head: &http::request::Parts) -> Result<Call, Status> {
    let headers = &head.headers;
    let source = source(&head.extensions)?;
    let origins: Vec<_> = headers.get_all(header::ORIGIN).iter().collect();
    let has_bearer = headers.contains_key(header::AUTHORIZATION);
    let door = match origins.as_slice() {
        [] if has_bearer => Door::Native,
        [origin] if app.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) => Door::Web,
        _ => return Err(foreign_origin()),
    };
    from_this_site(headers)?;
    let link = head.uri.query().and_then(|query| query.strip_prefix(LINK_QUERY)?.strip_prefix('='));
    let principal = match link {
        Some(link) => guest(app, door, link, source, headers).await?,
        None => principal(app, door, CONSOLE, source, headers).await?,
    };
    Ok(Call { principal: Some(principal), ..call(app, CONSOLE, source, headers) })
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
            return Err(foreign_origin());
        }
        from_this_site(headers)?;
        return Ok(Door::Web);
    }
    if content_type == "application/grpc" || content_type.starts_with("application/grpc+") {
        return Ok(Door::Native);
    }
    Err(Status::invalid_argument("the content type is not one of gRPC"))
}

async fn admit(app: &App, door: Door, request: &mut Request<Body>) -> Result<(), Status> {
    let path = request.uri().path();
    // `Watch` would be a stream that nobody can end, of something that doesn't change.
    let (method, caller) = if path == "/grpc.health.v1.Health/Check" {
        ("grpc.health.v1", Caller::Anyone)
    } else if path.starts_with(REFLECTED) {
        ("grpc.reflection", Caller::SignedIn)
    } else {
        // What the contract doesn't know, nobody may call.
        let known = requirement(path).ok_or_else(|| Status::unimplemented("no such method"))?;
        (known.method, known.caller)
    };
    let headers = request.headers();
    let mut call = call(app, method, source(request.extensions())?, headers);
    call.principal = match caller {
        Caller::Anyone => None,
        Caller::Guest => {
            let link = text(headers, LINK_HEADER).ok_or_else(no_guest)?;
            Some(guest(app, door, link, call.source, headers).await?)
        }
        Caller::SignedIn | Caller::Session | Caller::Node | Caller::Holder(_) => {
            Some(principal(app, door, method, call.source, headers).await?)
        }
    };
    match caller {
        Caller::Anyone | Caller::SignedIn | Caller::Guest => {}
        Caller::Session => {
            if call.principal()?.session().is_none() {
                return Err(Status::permission_denied("an API token can't do this: sign in as a person"));
            }
        }
        Caller::Node => return Err(Status::permission_denied("for nodes only, on the agents' port")),
        Caller::Holder(privilege) => {
            // What names a resource or filters is decided again by the handler, where the object is known.
            let known = requirement(method).filter(|r| !r.filtered && r.resource_field.is_empty());
            if let Some(known) = known {
                let on = if known.resource.is_empty() { "/" } else { known.resource };
                call.require(app, privilege, &super::call::path(on)?)?;
            }
        }
    }
    request.extensions_mut().insert(call);
    Ok(())
}

/// Of nobody yet.
fn call(app: &App, method: &'static str, source: IpAddr, headers: &HeaderMap) -> Call {
    Call {
        method,
        source,
        agent: text(headers, header::USER_AGENT.as_str()).unwrap_or_default().to_owned(),
        principal: None,
        actor: String::new(),
        seal: Arc::clone(&app.seal),
        mark: [0; 32],
    }
}

fn foreign_origin() -> Status {
    Status::permission_denied(
        "this Origin is not the controller's own: add the name that you reach it by to `names` in controld.toml",
    )
}

/// As far as the browser says where a request comes from.
fn from_this_site(headers: &HeaderMap) -> Result<(), Status> {
    if text(headers, "sec-fetch-site").is_some_and(|site| site != "same-origin") {
        return Err(Status::permission_denied("this request comes from another site"));
    }
    Ok(())
}

fn source(extensions: &http::Extensions) -> Result<IpAddr, Status> {
    let peer = extensions.get::<Peer>();
    peer.map(|peer| peer.address.ip().to_canonical()).ok_or_else(|| Status::internal("internal error"))
}

async fn principal(
    app: &App,
    door: Door,
    method: &str,
    source: IpAddr,
    headers: &HeaderMap,
) -> Result<Principal, Status> {
    let unauthenticated = || Status::unauthenticated("sign in first");
    let over = || Status::unauthenticated("the session is over: sign in again");
    let bearer = text(headers, header::AUTHORIZATION.as_str()).and_then(|a| a.strip_prefix("Bearer "));
    let now_ms = clock::unix_ms();
    let row = match (door, bearer) {
        (_, Some(token)) if token.starts_with(tokens::PREFIX) => {
            return by_token(app, token, source, now_ms).await;
        }
        (_, Some(token)) => app.sessions.by_access_token(&Secret::from(token.to_owned()), now_ms).await,
        (Door::Web, None) => {
            let value = cookie(headers).ok_or_else(unauthenticated)?;
            let sent = text(headers, CSRF).unwrap_or_default();
            let is_sent = bool::from(csrf(&value).as_bytes().ct_eq(sent.as_bytes()));
            if !matches!(method, WHO_AM_I | CONSOLE) && !is_sent {
                return Err(Status::permission_denied("x-horcrux-csrf is missing or wrong: reload the page"));
            }
            app.sessions.by_cookie(&Secret::from(value), now_ms).await
        }
        (Door::Native, None) => return Err(unauthenticated()),
    };
    let row = row.map_err(|error| {
        tracing::error!(error = %Chain(&error), "session not checked");
        Status::unavailable("sessions can't be checked now")
    })?;
    let row = row.ok_or_else(over)?;
    let user: UserId = row.user.parse().map_err(|_| over())?;
    let policy = app.registry.policy();
    if !policy.facts().users.contains(&user) {
        return Err(over());
    }
    let via = Via::Session { id: row.id, created_ms: row.created_ms, expires_ms: row.expires_ms };
    Ok(Principal::new(user, via, source, policy, now_ms))
}

/// The guest of a link, by its cookie. One answer for all that is wrong.
async fn guest(
    app: &App,
    door: Door,
    link: &str,
    source: IpAddr,
    headers: &HeaderMap,
) -> Result<Principal, Status> {
    let shown = link_cookie(headers, link).filter(|_| door == Door::Web).ok_or_else(no_guest)?;
    let row = app.store.link(link, clock::unix_ms()).await?.ok_or_else(no_guest)?;
    if !is_cookie(&app.seal, &row, &shown) {
        return Err(no_guest());
    }
    links::guest(app, &row, source).ok_or_else(no_guest)
}

fn no_guest() -> Status {
    Status::unauthenticated(links::WRONG)
}

/// An API token's principal. One answer for all that is wrong with it, but its network, which its owner has set.
async fn by_token(app: &App, token: &str, source: IpAddr, now_ms: i64) -> Result<Principal, Status> {
    let wrong = || Status::unauthenticated("the API token is wrong, expired or revoked");
    let id = tokens::id_of(token).ok_or_else(wrong)?;
    let row = app.store.token(id).await?.ok_or_else(wrong)?;
    let owner: UserId = row.owner.parse().map_err(|_| wrong())?;
    let policy = app.registry.policy();
    let same = bool::from(hash(token).ct_eq(row.hash.as_slice()));
    if !same || now_ms >= row.expires_ms || !policy.facts().users.contains(&owner) {
        return Err(wrong());
    }
    if !tokens::admits(&row.networks, source) {
        app.counts.add("tokens_from_elsewhere");
        return Err(Status::permission_denied("this API token does not work from this address"));
    }
    let from = source.to_string();
    let is_told = row.last_used_from.as_ref() == Some(&from)
        && row.last_used_ms.is_some_and(|last| now_ms - last < TOUCH_MS);
    if !is_told {
        app.store.touch_token(id, &from, now_ms).await?;
    }
    Ok(Principal::new(owner, Via::Token { id: id.into() }, source, policy, now_ms))
}

async fn node(app: &App, request: &mut Request<Body>) -> Result<(), Status> {
    let method = request.uri().path();
    match requirement(method).map(|r| r.caller) {
        Some(Caller::Node) => {}
        Some(Caller::Anyone | Caller::SignedIn | Caller::Session | Caller::Guest | Caller::Holder(_))
        | None => {
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
        Ok(Admitted::Node(row)) => {
            request.extensions_mut().insert(row);
            Ok(())
        }
        Ok(Admitted::Locked(row)) => Err(locked(&row)),
        Ok(Admitted::Retired(row)) => {
            let why = "a certificate was used that a newer one has replaced: it may have been copied";
            app.lock_node(&row, why, "controller").await?;
            Err(locked(&row))
        }
        Ok(Admitted::Unknown) => Err(Status::unauthenticated(
            "this certificate is no longer accepted: its node was deleted or enrolled again. Enroll the node again",
        )),
        Err(error) => {
            tracing::error!(error = %Chain(&error), "node not looked up");
            Err(Status::unavailable("nodes can't be looked up now"))
        }
    }
}

fn locked(row: &NodeRow) -> Status {
    Status::permission_denied(format!("nodes/{} is locked: an administrator must unlock it", row.name))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
