//! AuthService: thin over `access`.

use std::sync::Arc;

use horcrux_proto::v1::auth_service_server::AuthService;
use horcrux_proto::v1::{
    CompleteSetupRequest, CompleteSetupResponse, RefreshRequest, RefreshResponse, Session, SignInRequest,
    SignInResponse, SignOutRequest, SignOutResponse, TokenPair, WhoAmIRequest, WhoAmIResponse,
};
use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use horcrux_transport::secret::Secret;
use horcrux_transport::server::Peer;
use tonic::{Request, Response, Status};

use super::gate::{COOKIE, Door, cookie};
use crate::access::password::{MAX_BYTES, MIN_CHARS};
use crate::access::sessions::{Carrier, Client, SessionError, Tokens, csrf};
use crate::access::{Principal, Role};
use crate::app::App;
use crate::store::users::User;

pub(super) struct Auth(pub(super) Arc<App>);

impl From<SessionError> for Status {
    /// Store and password failures hide their cause, which the caller can do nothing about; it is logged here.
    fn from(error: SessionError) -> Self {
        let message = error.to_string();
        match error {
            SessionError::Refused | SessionError::Over => Status::unauthenticated(message),
            SessionError::Busy => Status::resource_exhausted(message),
            SessionError::Password(_) | SessionError::Store(_) | SessionError::Random => {
                tracing::error!(error = %Chain(&error), "sign-in failed");
                Status::internal("internal error")
            }
        }
    }
}

#[tonic::async_trait]
impl AuthService for Auth {
    async fn complete_setup(
        &self,
        request: Request<CompleteSetupRequest>,
    ) -> Result<Response<CompleteSetupResponse>, Status> {
        let request = request.into_inner();
        let password = new_password(request.password)?;
        let name = new_username(&request.username)?;
        self.0.check_setup_code(&request.setup_code)?;
        let hash = self.0.passwords.hash(password).await.map_err(|error| match error {
            crate::access::password::PasswordError::Busy => SessionError::Busy,
            other @ crate::access::password::PasswordError::Hash(_) => SessionError::Password(other),
        })?;
        let user = User {
            name: name.clone(),
            password_hash: hash,
            role: Some(Role::Administrator.name().to_owned()),
            disabled: false,
        };
        let made =
            self.0.store.insert_first_user(&user, clock::unix_ms()).await.map_err(SessionError::Store)?;
        if !made {
            return Err(Status::failed_precondition("the first administrator exists already: sign in"));
        }
        self.0.setup_done();
        tracing::info!(user = name, "first administrator made");
        Ok(Response::new(CompleteSetupResponse { user: format!("{name}@local") }))
    }

    async fn sign_in(&self, request: Request<SignInRequest>) -> Result<Response<SignInResponse>, Status> {
        let door = request.extensions().get::<Door>().copied().unwrap_or(Door::Native);
        let from = request.extensions().get::<Peer>().map(|peer| peer.address.ip().to_string());
        let from = from.unwrap_or_default();
        let request = request.into_inner();
        if !matches!(request.realm.as_str(), "" | "local") {
            return Err(Status::invalid_argument("realm: only local exists"));
        }
        if request.password.len() > MAX_BYTES || request.username.len() > 64 {
            return Err(SessionError::Refused.into());
        }
        let client = if door == Door::Web { Client::Browser } else { Client::Other };
        let password = Secret::from(request.password);
        let signed_in = self.0.sessions.sign_in(&request.username, password, client, clock::unix_ms()).await;
        let (principal, carrier) = match signed_in {
            Ok(signed_in) => signed_in,
            Err(error) => {
                self.0.counts.add("sign_ins_refused");
                // The name as typed may be a password: only one that could be a name is told.
                let name = new_username(&request.username).unwrap_or_else(|_| "(not a name)".to_owned());
                tracing::warn!(user = name, from, %error, "sign-in refused");
                return Err(error.into());
            }
        };
        tracing::info!(user = principal.user, session = principal.session, "signed in");
        let session = Some(self.session(&principal));
        match carrier {
            Carrier::Tokens(tokens) => {
                Ok(Response::new(SignInResponse { tokens: Some(pair(&tokens)), csrf_token: None, session }))
            }
            Carrier::Cookie { value, csrf } => {
                let mut response =
                    Response::new(SignInResponse { tokens: None, csrf_token: Some(csrf), session });
                set_cookie(&mut response, value.expose())?;
                Ok(response)
            }
        }
    }

    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<RefreshResponse>, Status> {
        let token = Secret::from(request.into_inner().refresh_token);
        let tokens = self.0.sessions.refresh(&token, clock::unix_ms()).await?;
        Ok(Response::new(RefreshResponse { tokens: Some(pair(&tokens)) }))
    }

    async fn sign_out(&self, request: Request<SignOutRequest>) -> Result<Response<SignOutResponse>, Status> {
        let principal = caller(&request)?;
        self.0.sessions.end(&principal.session).await?;
        self.0.session_ended(&principal.session);
        let mut response = Response::new(SignOutResponse {});
        set_cookie(&mut response, "; Max-Age=0")?;
        Ok(response)
    }

    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let principal = caller(&request)?;
        let cookie = cookie(&request.metadata().clone().into_headers());
        Ok(Response::new(WhoAmIResponse {
            session: Some(self.session(&principal)),
            roles: principal.role.iter().map(|role| role.name().to_owned()).collect(),
            csrf_token: cookie.map(|value| csrf(&value)),
        }))
    }
}

impl Auth {
    fn session(&self, principal: &Principal) -> Session {
        Session {
            id: principal.session.clone(),
            user: principal.identity(),
            created_unix_ms: principal.created_ms,
            expires_unix_ms: principal.expires_ms,
            idle_timeout_seconds: self.0.sessions.idle_seconds(),
        }
    }
}

/// Who calls, as the gate found.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Principal, Status> {
    request.extensions().get::<Principal>().cloned().ok_or_else(|| Status::unauthenticated("sign in first"))
}

fn pair(tokens: &Tokens) -> TokenPair {
    TokenPair {
        access_token: tokens.access.expose().to_owned(),
        access_expires_unix_ms: tokens.access_expires_ms,
        refresh_token: tokens.refresh.expose().to_owned(),
    }
}

fn set_cookie<T>(response: &mut Response<T>, value: &str) -> Result<(), Status> {
    let cookie = format!("{COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Strict");
    let cookie = cookie.parse().map_err(|_| Status::internal("internal error"))?;
    response.metadata_mut().insert("set-cookie", cookie);
    Ok(())
}

fn new_username(name: &str) -> Result<String, Status> {
    let fits = (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
    if fits {
        Ok(name.to_owned())
    } else {
        Err(Status::invalid_argument("username: 1 to 64 of a-z 0-9 . _ -, starting with a letter"))
    }
}

fn new_password(password: String) -> Result<Secret, Status> {
    if password.chars().count() < MIN_CHARS {
        return Err(Status::invalid_argument(format!("password: at least {MIN_CHARS} characters")));
    }
    if password.len() > MAX_BYTES {
        return Err(Status::invalid_argument(format!("password: at most {MAX_BYTES} bytes")));
    }
    Ok(Secret::from(password))
}
