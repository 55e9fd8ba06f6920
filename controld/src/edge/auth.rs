//! AuthService: thin over `access`. What opens a session is on record, and so is what failed to.

use std::sync::Arc;

use horcrux_proto::v1::auth_service_server::AuthService;
use horcrux_proto::v1::{
    AnswerChallengeRequest, AnswerChallengeResponse, ChangePasswordRequest, ChangePasswordResponse,
    CompleteSetupRequest, CompleteSetupResponse, ConfirmTotpRequest, ConfirmTotpResponse, EndSessionRequest,
    EndSessionResponse, FinishOidcRequest, FinishOidcResponse, HeldPrivileges, ListRealmsRequest,
    ListRealmsResponse, ListSessionsRequest, ListSessionsResponse, RefreshRequest, RefreshResponse,
    RemoveTotpRequest, RemoveTotpResponse, SignInRequest, SignInResponse, SignOutRequest, SignOutResponse,
    StartOidcRequest, StartOidcResponse, StartTotpRequest, StartTotpResponse, WhoAmIRequest, WhoAmIResponse,
};
use horcrux_transport::clock;
use horcrux_transport::secret::Secret;
use tonic::{Request, Response, Status};

use super::call::{Act, Call};
use super::carried::{
    Door, csrf_token, forget_cookie, given, known_again, session, sessions_of, totp_secret, visitor,
};
use super::fields::{new_password, user_id};
use super::own;
use crate::access::audit::Entry;
use crate::access::name::{LOCAL, UserId};
use crate::access::path::Path;
use crate::access::policy::TokenScope;
use crate::access::principal::{Principal, Via};
use crate::access::sessions::{Ended, SessionError};
use crate::access::setup;
use crate::access::signin::{Entered, SignInError};
use crate::app::App;
use crate::store::users::UserRow;

pub(super) struct Auth(pub(super) Arc<App>);

#[tonic::async_trait]
impl AuthService for Auth {
    async fn complete_setup(
        &self,
        request: Request<CompleteSetupRequest>,
    ) -> Result<Response<CompleteSetupResponse>, Status> {
        let mut call = Call::of(&request)?;
        let request = request.into_inner();
        let password = new_password("password", request.password)?;
        let user = UserId::new(&request.username, LOCAL)
            .map_err(|error| Status::invalid_argument(format!("username: {}", error.reason)))?;
        let code = setup::hashed(&request.setup_code);
        let now_ms = clock::unix_ms();
        self.0.sign_ins.knocks("setup", call.source)?;
        if !self.0.store.fits_setup_code(&code, now_ms).await? {
            self.0.counts.add("setup_codes_refused");
            // Without a code there is nothing to be guessed, and nothing to be put on record.
            if self.0.store.has_setup_code(now_ms).await? {
                self.event(&call, "setup", "refused").await?;
            }
            return Err(Status::permission_denied(
                "the setup code is wrong, used or expired: a restart of a controller without users makes a new one, \
                 and so does `horcrux-controld recover-admin` on its host",
            ));
        }
        let password_hash = self.0.sign_ins.hash(password, &user).await?;
        let row = UserRow {
            id: user.to_string(),
            password_hash: Some(password_hash),
            created_ms: now_ms,
            ..UserRow::default()
        };
        let grant = crate::access::keys::random_id().map_err(SignInError::Key)?;
        // Whoever holds the code acts for the controller's host.
        call.actor = "controller".to_owned();
        let act = Act {
            resource: format!("users/{user}"),
            decision: "setup code".to_owned(),
            detail: format!(
                "make {user} an administrator: what they had before ends (sessions, API tokens, second factor, \
                 groups, grants)"
            ),
            ..Act::default()
        };
        let app = Arc::clone(&self.0);
        let (made_user, made) = (
            user.clone(),
            call.act(&self.0, act, async move {
                let made = app.store.make_administrator(&code, &row, &grant).await?;
                app.registry.reload().await?;
                app.sign_ins.challenges.forget(&user);
                app.sessions.told(Ended::AllOf { user, but: None });
                app.setup_done();
                made.then_some(()).ok_or_else(|| Status::permission_denied("the setup code was used already"))
            }),
        );
        made.await?;
        tracing::info!(user = %made_user, "administrator made");
        Ok(Response::new(CompleteSetupResponse { user: made_user.to_string() }))
    }

    async fn list_realms(
        &self,
        _: Request<ListRealmsRequest>,
    ) -> Result<Response<ListRealmsResponse>, Status> {
        let realms = self.0.sign_ins.realms().iter().map(|realm| realm.to_wire()).collect();
        Ok(Response::new(ListRealmsResponse { realms }))
    }

    async fn sign_in(&self, request: Request<SignInRequest>) -> Result<Response<SignInResponse>, Status> {
        let (call, mut visitor) = (Call::of(&request)?, visitor(&request)?);
        let request = request.into_inner();
        // A browser keeps its mark in a cookie.
        visitor.device = visitor.device.or_else(|| request.device.map(Secret::from));
        let realm = if request.realm.is_empty() { LOCAL } else { &request.realm };
        let password = Secret::from(request.password);
        let now_ms = clock::unix_ms();
        let entered = self.0.sign_ins.password(&request.username, realm, password, &visitor, now_ms).await;
        // The name as typed may be a password: only a user's is kept.
        let user = UserId::new(&request.username, realm).ok();
        let entered = self.entered(&call, user.as_ref(), entered).await?;
        given(&self.0, entered).await
    }

    async fn answer_challenge(
        &self,
        request: Request<AnswerChallengeRequest>,
    ) -> Result<Response<AnswerChallengeResponse>, Status> {
        let (call, visitor) = (Call::of(&request)?, visitor(&request)?);
        let request = request.into_inner();
        let challenge = Secret::from(request.challenge_id);
        // What was never asked leaves no trace on the log, and slows down who asks: not whoever has a challenge.
        let Some(pending) = self.0.sign_ins.challenges.get(&challenge, clock::unix_ms()) else {
            self.0.sign_ins.knocks("challenge", call.source)?;
            return Err(SignInError::Over.into());
        };
        let user = pending.proven.user;
        let answered = self.0.sign_ins.answer(&challenge, &request.code, &visitor, clock::unix_ms()).await;
        let (recovery_codes, entered) = match answered {
            Ok((row, carrier, codes)) => (codes, Ok(Entered::Session(row, carrier))),
            Err(error) => (Vec::new(), Err(error)),
        };
        let entered = self.entered(&call, Some(&user), entered).await?;
        let response: Response<SignInResponse> = given(&self.0, entered).await?;
        Ok(response.map(|in_| AnswerChallengeResponse {
            tokens: in_.tokens,
            csrf_token: in_.csrf_token,
            session: in_.session,
            recovery_codes,
        }))
    }

    async fn start_oidc(
        &self,
        request: Request<StartOidcRequest>,
    ) -> Result<Response<StartOidcResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        self.0.sign_ins.knocks("oidc", call.source)?;
        let realm = self.0.sign_ins.realm(&request.realm).filter(|realm| realm.oidc().is_some());
        let realm = realm.ok_or_else(|| Status::not_found("realm: no OpenID provider of this name"))?;
        Ok(Response::new(self.0.provided.start(realm, request.device, clock::unix_ms()).await?))
    }

    async fn finish_oidc(
        &self,
        request: Request<FinishOidcRequest>,
    ) -> Result<Response<FinishOidcResponse>, Status> {
        let (call, visitor) = (Call::of(&request)?, visitor(&request)?);
        let request = request.into_inner();
        let flow = Secret::from(request.flow_id);
        let now_ms = clock::unix_ms();
        if !self.0.provided.knows(&flow, now_ms) {
            self.0.sign_ins.knocks("flow", call.source)?;
            return Err(SignInError::Over.into());
        }
        let person =
            self.0.provided.finish(&self.0.sign_ins, &flow, &request.code, &request.state, now_ms).await;
        let entered = match person {
            Ok(Some((realm, person))) => {
                let Some(realm) = self.0.sign_ins.realm(&realm) else {
                    return Err(SignInError::Over.into());
                };
                self.0.sign_ins.provided(realm, &person, &visitor, now_ms).await
            }
            Ok(None) => {
                return Ok(Response::new(FinishOidcResponse {
                    pending: true,
                    ..FinishOidcResponse::default()
                }));
            }
            // There is no such flow: nothing was tried.
            Err(error @ SignInError::Over) => return Err(error.into()),
            Err(error) => Err(error),
        };
        let user = match &entered {
            Ok(Entered::Session(row, _)) => row.user.parse().ok(),
            Ok(Entered::Challenge { id, .. }) => {
                self.0.sign_ins.challenges.get(id, now_ms).map(|pending| pending.proven.user)
            }
            Err(_) => None,
        };
        let entered = self.entered(&call, user.as_ref(), entered).await?;
        self.0.sign_ins.opened("oidc", call.source);
        let response: Response<SignInResponse> = given(&self.0, entered).await?;
        Ok(response.map(|in_| FinishOidcResponse {
            tokens: in_.tokens,
            csrf_token: in_.csrf_token,
            session: in_.session,
            challenge: in_.challenge,
            pending: false,
        }))
    }

    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<RefreshResponse>, Status> {
        let call = Call::of(&request)?;
        let token = Secret::from(request.into_inner().refresh_token);
        if !self.0.sessions.knows_refresh(&token).await? {
            self.0.sign_ins.knocks("refresh", call.source)?;
            return Err(SessionError::Over.into());
        }
        let tokens = self.0.sessions.refresh(&token, clock::unix_ms()).await;
        if let Err(SessionError::Reused { session, user }) = &tokens {
            let mut call = call.clone();
            call.actor.clone_from(user);
            let entry = Entry { session: session.clone(), ..call.entry(&format!("sessions/{session}")) };
            self.0.audit.event(&entry, "refresh token used twice: its session was ended").await?;
        }
        Ok(Response::new(RefreshResponse { tokens: Some(super::carried::pair(&tokens?)) }))
    }

    async fn sign_out(&self, request: Request<SignOutRequest>) -> Result<Response<SignOutResponse>, Status> {
        let call = Call::of(&request)?;
        let session = call.principal()?.session().unwrap_or_default().to_owned();
        let act = Act { resource: format!("sessions/{session}"), ..Act::default() };
        let app = Arc::clone(&self.0);
        call.act(&self.0, act, async move { Ok(app.sessions.end(&session).await?) }).await?;
        forget_cookie(Response::new(SignOutResponse {}))
    }

    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let call = Call::of(&request)?;
        let principal = call.principal()?;
        let standing = match &principal.via {
            Via::Session { id, .. } => self.0.sessions.standing(id, clock::unix_ms()).await?,
            Via::Token { .. } | Via::Link(_) => None,
        };
        let csrf_token = csrf_token(&request);
        let groups = principal.policy.groups(&principal.user).iter().map(ToString::to_string).collect();
        Ok(Response::new(WhoAmIResponse {
            session: standing.map(|row| session(&self.0, &row, Some(principal))),
            roles: roles_on_root(principal),
            csrf_token,
            user: principal.user.to_string(),
            token: match &principal.via {
                Via::Session { .. } | Via::Link(_) => None,
                Via::Token { id } => Some(id.to_string()),
            },
            groups,
            second_factor: self.0.sign_ins.factors.has(&principal.user).await.map_err(SignInError::Factor)?,
            held: held(principal),
            token_full: scope(principal).map(|scope| scope.full),
        }))
    }

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        let call = Call::of(&request)?;
        let asked = request.into_inner().user;
        let whose = match asked.as_str() {
            "" => Some(call.principal()?.user.clone()),
            "*" => None,
            name => Some(user_id(name)?),
        };
        let sessions = sessions_of(&self.0, &call, whose).await?;
        Ok(Response::new(ListSessionsResponse { sessions }))
    }

    async fn end_session(
        &self,
        request: Request<EndSessionRequest>,
    ) -> Result<Response<EndSessionResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let all = self.0.sessions.list(None, clock::unix_ms()).await?;
        let row = all.into_iter().find(|row| row.id == request.session_id);
        let principal = call.principal()?;
        let absent = || Status::not_found("session_id: no such session, or it is not yours");
        let own = row.as_ref().is_some_and(|row| row.user == principal.user.as_str());
        let decision = if own && principal.session().is_some() {
            "own session".to_owned()
        } else {
            use horcrux_proto::authz::Privilege::UserModify;
            call.require(&self.0, UserModify, &Path::access()).map_err(|_| absent())?;
            call.decision(UserModify, &Path::access())
        };
        let row = row.ok_or_else(absent)?;
        let act = Act {
            resource: format!("sessions/{}", row.id),
            decision,
            detail: format!("of {}", row.user),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let app = Arc::clone(&self.0);
        call.act(&self.0, act, async move { Ok(app.sessions.end(&row.id).await?) }).await?;
        Ok(Response::new(EndSessionResponse {}))
    }

    async fn change_password(
        &self,
        request: Request<ChangePasswordRequest>,
    ) -> Result<Response<ChangePasswordResponse>, Status> {
        let (call, door) = (Call::of(&request)?, Door::of(&request));
        own::password(&self.0, &call, request.into_inner()).await?;
        // What this device was known by went with the old password.
        let device = self.0.sign_ins.device(&call.principal()?.user, clock::unix_ms()).await?;
        match door {
            Door::Web => known_again(Response::new(ChangePasswordResponse { device: None }), &device),
            Door::Native => {
                let device = Some(device.expose().to_owned());
                Ok(Response::new(ChangePasswordResponse { device }))
            }
        }
    }

    async fn start_totp(
        &self,
        request: Request<StartTotpRequest>,
    ) -> Result<Response<StartTotpResponse>, Status> {
        let call = Call::of(&request)?;
        let new = own::begun_factor(&self.0, &call, request.into_inner()).await?;
        Ok(Response::new(StartTotpResponse { totp: Some(totp_secret(&new)) }))
    }

    async fn confirm_totp(
        &self,
        request: Request<ConfirmTotpRequest>,
    ) -> Result<Response<ConfirmTotpResponse>, Status> {
        let call = Call::of(&request)?;
        let code = Secret::from(request.into_inner().code);
        let recovery_codes = own::confirmed_factor(&self.0, &call, code).await?;
        Ok(Response::new(ConfirmTotpResponse { recovery_codes }))
    }

    async fn remove_totp(
        &self,
        request: Request<RemoveTotpRequest>,
    ) -> Result<Response<RemoveTotpResponse>, Status> {
        let call = Call::of(&request)?;
        own::remove_factor(&self.0, &call, Secret::from(request.into_inner().code)).await?;
        Ok(Response::new(RemoveTotpResponse {}))
    }
}

impl Auth {
    /// Puts on record how a sign-in went.
    async fn entered(
        &self,
        call: &Call,
        user: Option<&UserId>,
        entered: Result<Entered, SignInError>,
    ) -> Result<Entered, Status> {
        // Nothing was checked: it is counted, and a flood of it doesn't fill the log.
        if let Err(error @ (SignInError::Slow(_) | SignInError::Busy)) = &entered {
            self.0.counts.add("sign_ins_slowed_down");
            tracing::debug!(from = %call.source, %error, "sign-in not heard");
            return Ok(entered?);
        }
        let known = match user {
            Some(user) => self.0.store.user(user).await?.map(|row| row.id),
            None => None,
        };
        let mut call = call.clone();
        call.actor = known.unwrap_or_else(|| "unknown".to_owned());
        let outcome = match &entered {
            Ok(Entered::Session(..)) => "ok".to_owned(),
            Ok(Entered::Challenge { .. }) => "second factor asked for".to_owned(),
            Err(error) => {
                self.0.counts.add("sign_ins_refused");
                tracing::warn!(user = call.actor, from = %call.source, %error, "sign-in refused");
                error.to_string()
            }
        };
        let mut entry = call.entry("");
        if let Ok(Entered::Session(row, _)) = &entered {
            tracing::info!(user = row.user, session = row.id, "signed in");
            entry.session.clone_from(&row.id);
        }
        self.0.audit.event(&entry, &outcome).await?;
        Ok(entered?)
    }

    async fn event(&self, call: &Call, what: &str, outcome: &str) -> Result<(), Status> {
        let mut call = call.clone();
        call.actor = "unknown".to_owned();
        Ok(self.0.audit.event(&call.entry(what), outcome).await?)
    }
}

/// Of the API token that calls.
fn scope(principal: &Principal) -> Option<&TokenScope> {
    match &principal.via {
        Via::Session { .. } | Via::Link(_) => None,
        Via::Token { id } => principal.policy.facts().tokens.get(id),
    }
}

fn roles_on_root(principal: &Principal) -> Vec<String> {
    let entries = principal.policy.entries(&principal.who());
    let now_ms = clock::unix_ms();
    let on_root = entries.iter().filter(|(_, grant)| grant.is_live(now_ms) && grant.path.as_str() == "/");
    let mut roles: Vec<String> = on_root.map(|(_, grant)| grant.role.to_string()).collect();
    if scope(principal).is_some_and(|scope| scope.full) {
        roles = roles_on_root(&Principal {
            via: Via::Session { id: String::new(), created_ms: 0, expires_ms: 0 },
            ..principal.clone()
        });
    }
    roles.sort_unstable();
    roles.dedup();
    roles
}

fn held(principal: &Principal) -> Vec<HeldPrivileges> {
    let labels = principal.policy.labels();
    let levels =
        principal.rights.levels().filter_map(|(path, level)| Some((path.parse::<Path>().ok()?, level)));
    let told = levels.map(|(path, level)| HeldPrivileges {
        privileges: principal.rights.on(&path, labels).to_wire(),
        propagate: !level.below.is_empty(),
        path: path.to_string(),
    });
    told.collect()
}
