//! How a session travels: as a cookie to a browser, as tokens to others; and how it is shown.

use std::sync::Arc;

use horcrux_proto::authz::Privilege;
use horcrux_proto::v1::{Challenge, Session, SignInResponse, TokenPair, TotpSecret};
use horcrux_transport::clock;
use horcrux_transport::secret::Secret;
use http::HeaderMap;
use tonic::{Request, Response, Status};

use super::call::Call;
use crate::access::device::KNOWN_SECONDS;
use crate::access::factors::{FactorError, NewSecret};
use crate::access::name::UserId;
use crate::access::path::Path;
use crate::access::principal::Principal;
use crate::access::sessions::{Carrier, Client, SessionError, Tokens, Visitor, csrf};
use crate::access::signin::{Entered, SignInError};
use crate::app::App;
use crate::store::sessions::SessionRow;

/// The browser's session.
const COOKIE: &str = "__Host-hx";
/// What a browser is known by when it signs in again.
const DEVICE: &str = "__Host-hx-device";
/// Before the id of a guest link.
const LINK: &str = "__Host-hx-link";

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// gRPC-web: a browser, or something that speaks like one.
    Web,
    Native,
}

impl Door {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        request.extensions().get::<Self>().copied().unwrap_or(Self::Native)
    }
}

impl From<SessionError> for Status {
    /// Causes that the caller can do nothing about are for the log alone.
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Over | SessionError::Reused { .. } => Self::unauthenticated(error.to_string()),
            SessionError::Store(_) | SessionError::Key(_) | SessionError::Sign => {
                SignInError::Session(error).into()
            }
        }
    }
}

impl From<SignInError> for Status {
    fn from(error: SignInError) -> Self {
        let message = error.to_string();
        if error.is_internal() {
            return Self::internal("internal error");
        }
        match error {
            SignInError::Refused | SignInError::NotProvided | SignInError::NotAdmitted => {
                Self::unauthenticated(message)
            }
            SignInError::Over => Self::not_found(message),
            SignInError::Slow(_) | SignInError::Busy => Self::resource_exhausted(message),
            SignInError::Unavailable { .. } => Self::unavailable(message),
            SignInError::Factor(FactorError::Wrong) => Self::permission_denied(message),
            SignInError::Factor(_) => Self::failed_precondition(message),
            SignInError::Password(crate::access::password::PasswordError::Busy) => {
                Self::resource_exhausted(SignInError::Busy.to_string())
            }
            SignInError::Password(_)
            | SignInError::Store(_)
            | SignInError::Session(_)
            | SignInError::Key(_) => Self::internal("internal error"),
        }
    }
}

/// Who is about to open a session.
pub(super) fn visitor<T: prost::Message>(request: &Request<T>) -> Result<Visitor, Status> {
    let call = Call::of(request)?;
    let (client, device) = match Door::of(request) {
        Door::Web => (Client::Browser, named(request.metadata().as_ref(), DEVICE).map(Secret::from)),
        Door::Native => (Client::Other, None),
    };
    Ok(Visitor { client, source: call.source, agent: call.agent, device })
}

/// What a sign-in gave, as its caller gets it.
pub(super) async fn given(app: &App, entered: Entered) -> Result<Response<SignInResponse>, Status> {
    let empty = SignInResponse::default();
    match entered {
        Entered::Challenge { id, expires_ms, new } => {
            let challenge = Challenge {
                id: id.expose().to_owned(),
                expires_unix_ms: expires_ms,
                new_totp: new.as_ref().map(totp_secret),
            };
            Ok(Response::new(SignInResponse { challenge: Some(challenge), ..empty }))
        }
        Entered::Session(row, carrier) => {
            let user = row.user.parse().map_err(|_| Status::internal("internal error"))?;
            let device = app.sign_ins.device(&user, row.created_ms).await?;
            // Were the credentials changed before that was made, the session has ended, and the device isn't known by it.
            let stands = app.sessions.standing(&row.id, clock::unix_ms()).await?;
            stands.ok_or_else(|| Status::unauthenticated("the session is over: sign in again"))?;
            let session = Some(Session { current: true, ..session(app, &row, None) });
            match carrier {
                Carrier::Tokens(tokens) => {
                    let tokens = TokenPair { device: Some(device.expose().to_owned()), ..pair(&tokens) };
                    Ok(Response::new(SignInResponse { tokens: Some(tokens), session, ..empty }))
                }
                Carrier::Cookie { value, csrf } => {
                    let response = Response::new(SignInResponse { csrf_token: Some(csrf), session, ..empty });
                    let response = set_cookie(response, COOKIE, value.expose(), None)?;
                    known_again(response, &device)
                }
            }
        }
    }
}

/// Has a browser keep what it is known by.
pub(super) fn known_again<T>(response: Response<T>, device: &Secret) -> Result<Response<T>, Status> {
    set_cookie(response, DEVICE, device.expose(), Some(KNOWN_SECONDS))
}

pub(super) fn totp_secret(new: &NewSecret) -> TotpSecret {
    TotpSecret { secret: new.secret.expose().to_owned(), uri: new.uri.expose().to_owned() }
}

pub(super) fn pair(tokens: &Tokens) -> TokenPair {
    TokenPair {
        access_token: tokens.access.expose().to_owned(),
        access_expires_unix_ms: tokens.access_expires_ms,
        refresh_token: tokens.refresh.expose().to_owned(),
        device: None,
    }
}

/// As the contract says it; `by` asks.
pub(super) fn session(app: &App, row: &SessionRow, by: Option<&Principal>) -> Session {
    Session {
        id: row.id.clone(),
        user: row.user.clone(),
        created_unix_ms: row.created_ms,
        expires_unix_ms: row.expires_ms,
        idle_timeout_seconds: app.sessions.idle_seconds(),
        last_used_unix_ms: row.last_used_ms,
        source: row.source.clone(),
        client: row.client.clone(),
        current: by.is_some_and(|principal| principal.session() == Some(&row.id)),
    }
}

/// Live sessions of one user, or of all: one's own to a person, others' and to an API token by UserModify.
pub(super) async fn sessions_of(
    app: &Arc<App>,
    call: &Call,
    whose: Option<UserId>,
) -> Result<Vec<Session>, Status> {
    let principal = call.principal()?;
    if principal.session().is_none() || whose.as_ref() != Some(&principal.user) {
        call.require(app, Privilege::UserModify, &Path::access())?;
    }
    let rows = app.sessions.list(whose.as_ref(), clock::unix_ms()).await?;
    Ok(rows.iter().map(|row| session(app, row, Some(principal))).collect())
}

/// What a page that was reloaded sends as `x-horcrux-csrf`.
pub(super) fn csrf_token<T>(request: &Request<T>) -> Option<String> {
    cookie(request.metadata().as_ref()).map(|value| csrf(&value))
}

/// The session cookie's value.
pub(super) fn cookie(headers: &HeaderMap) -> Option<String> {
    named(headers, COOKIE)
}

/// The value of the cookie that stands for a guest link. Each link has a cookie of its own: a browser can hold several,
/// and the session of somebody who is signed in beside them.
pub(super) fn link_cookie(headers: &HeaderMap, id: &str) -> Option<String> {
    named(headers, &format!("{LINK}-{id}"))
}

pub(super) fn set_link_cookie<T>(
    response: Response<T>,
    id: &str,
    value: &str,
) -> Result<Response<T>, Status> {
    set_cookie(response, &format!("{LINK}-{id}"), value, None)
}

fn named(headers: &HeaderMap, wanted: &str) -> Option<String> {
    let all = headers.get_all(http::header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut pairs = all.flat_map(|line| line.split("; ")).filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned())
}

pub(super) fn forget_cookie<T>(response: Response<T>) -> Result<Response<T>, Status> {
    set_cookie(response, COOKIE, "", Some(0))
}

/// Without an age it goes when the browser is closed.
fn set_cookie<T>(
    mut response: Response<T>,
    name: &str,
    value: &str,
    max_age: Option<i64>,
) -> Result<Response<T>, Status> {
    let age = max_age.map(|seconds| format!("; Max-Age={seconds}")).unwrap_or_default();
    let cookie = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Strict{age}");
    let cookie = cookie.parse().map_err(|_| Status::internal("internal error"))?;
    response.metadata_mut().append("set-cookie", cookie);
    Ok(response)
}
