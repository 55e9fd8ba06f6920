use std::time::Duration;

use horcrux_proto::v1::auth_service_server::AuthService;
use horcrux_proto::v1::{
    AnswerChallengeRequest, AnswerChallengeResponse, Challenge, ChangePasswordRequest,
    ChangePasswordResponse, CompleteSetupRequest, CompleteSetupResponse, ConfirmTotpRequest,
    ConfirmTotpResponse, EndSessionRequest, EndSessionResponse, FinishOidcRequest, FinishOidcResponse,
    ListRealmsRequest, ListRealmsResponse, ListSessionsRequest, ListSessionsResponse, Realm, RealmKind,
    RefreshRequest, RefreshResponse, RemoveTotpRequest, RemoveTotpResponse, Session, SignInRequest,
    SignInResponse, SignOutRequest, SignOutResponse, StartOidcRequest, StartOidcResponse, StartTotpRequest,
    StartTotpResponse, TotpSecret, WhoAmIRequest, WhoAmIResponse,
};
use tonic::{Request, Response, Status};

use super::{HOUR_MS, Shared};

/// Users called `strict` have a second factor, those called `new` must set one up.
fn challenge(user: &str) -> Option<Challenge> {
    let id = match user {
        "strict" | "new" => user.to_owned(),
        _ => return None,
    };
    let new_totp =
        (user == "new").then(|| TotpSecret { secret: "JBSW".into(), uri: "otpauth://totp/x".into() });
    Some(Challenge { id, expires_unix_ms: 0, new_totp })
}

fn session(user: &str) -> Session {
    Session { user: format!("{user}@local"), ..Session::default() }
}

#[tonic::async_trait]
impl AuthService for Shared {
    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<RefreshResponse>, Status> {
        // Long enough for others to come meanwhile.
        tokio::time::sleep(Duration::from_millis(50)).await;
        {
            let mut generation = self.0.generation.lock().unwrap();
            if request.into_inner().refresh_token != format!("refresh-{generation}") {
                return Err(Status::unauthenticated("used already"));
            }
            *generation += 1;
        }
        Ok(Response::new(RefreshResponse { tokens: Some(self.0.tokens()) }))
    }

    async fn sign_in(&self, request: Request<SignInRequest>) -> Result<Response<SignInResponse>, Status> {
        let request = request.into_inner();
        if request.password != "right" {
            return Err(Status::unauthenticated("wrong user name or password"));
        }
        Ok(Response::new(match challenge(&request.username) {
            Some(challenge) => SignInResponse { challenge: Some(challenge), ..SignInResponse::default() },
            None => SignInResponse {
                tokens: Some(self.0.tokens()),
                session: Some(session(&request.username)),
                ..SignInResponse::default()
            },
        }))
    }

    async fn answer_challenge(
        &self,
        request: Request<AnswerChallengeRequest>,
    ) -> Result<Response<AnswerChallengeResponse>, Status> {
        let request = request.into_inner();
        if request.code != "123456" {
            return Err(Status::permission_denied("wrong code"));
        }
        let codes: &[&str] = if request.challenge_id == "new" { &["aaaa-1", "bbbb-2"] } else { &[] };
        Ok(Response::new(AnswerChallengeResponse {
            tokens: Some(self.0.tokens()),
            csrf_token: None,
            session: Some(session(&request.challenge_id)),
            recovery_codes: codes.iter().map(|&code| code.to_owned()).collect(),
        }))
    }

    async fn list_realms(
        &self,
        _: Request<ListRealmsRequest>,
    ) -> Result<Response<ListRealmsResponse>, Status> {
        let realm = |name: &str, kind: RealmKind| Realm {
            name: name.into(),
            kind: kind.into(),
            title: name.to_uppercase(),
        };
        let mut realms = vec![realm("local", RealmKind::Local)];
        realms.extend(self.0.providers.lock().unwrap().iter().map(|name| realm(name, RealmKind::Oidc)));
        Ok(Response::new(ListRealmsResponse { realms }))
    }

    async fn start_oidc(
        &self,
        request: Request<StartOidcRequest>,
    ) -> Result<Response<StartOidcResponse>, Status> {
        let request = request.into_inner();
        if !request.device {
            return Err(Status::invalid_argument("device: must be set"));
        }
        Ok(Response::new(StartOidcResponse {
            flow_id: request.realm,
            url: "https://idp.example/device".into(),
            user_code: Some("WXYZ".into()),
            poll_seconds: 1,
            // A clock that is an hour behind.
            expires_unix_ms: horcrux_transport::clock::unix_ms() - HOUR_MS,
        }))
    }

    /// The realm `corp` agrees when asked for the second time, `strict` asks for a second factor, others refuse.
    async fn finish_oidc(
        &self,
        request: Request<FinishOidcRequest>,
    ) -> Result<Response<FinishOidcResponse>, Status> {
        let polls = {
            let mut polls = self.0.polls.lock().unwrap();
            *polls += 1;
            *polls
        };
        let answer = FinishOidcResponse::default();
        match request.into_inner().flow_id.as_str() {
            "corp" if polls == 1 => Ok(Response::new(FinishOidcResponse { pending: true, ..answer })),
            "corp" if polls == 2 => Err(Status::unavailable("the provider does not answer")),
            "corp" => {
                let (tokens, session) = (Some(self.0.tokens()), Some(session("carol")));
                Ok(Response::new(FinishOidcResponse { tokens, session, ..answer }))
            }
            "strict" => Ok(Response::new(FinishOidcResponse { challenge: challenge("strict"), ..answer })),
            _ => Err(Status::unauthenticated("the person said no")),
        }
    }

    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        self.0.check(&request)?;
        let sent = request.metadata().get("authorization").map(|v| v.as_bytes().to_vec());
        let token = (sent.as_deref() == Some(b"Bearer hxt_good")).then(|| "good".to_owned());
        Ok(Response::new(WhoAmIResponse {
            user: "alice@local".into(),
            second_factor: token.is_none(),
            token,
            held: self.0.held.lock().unwrap().clone(),
            ..WhoAmIResponse::default()
        }))
    }

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        self.0.check(&request)?;
        let user = request.into_inner().user;
        Ok(Response::new(ListSessionsResponse { sessions: vec![session(&user)] }))
    }

    async fn end_session(
        &self,
        request: Request<EndSessionRequest>,
    ) -> Result<Response<EndSessionResponse>, Status> {
        self.0.check(&request)?;
        let request = request.into_inner();
        let what = format!("end {}", request.session_id);
        self.0.change(&what, &request.request_id, request.validate_only)?;
        Ok(Response::new(EndSessionResponse {}))
    }

    async fn complete_setup(
        &self,
        _: Request<CompleteSetupRequest>,
    ) -> Result<Response<CompleteSetupResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn sign_out(&self, _: Request<SignOutRequest>) -> Result<Response<SignOutResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn change_password(
        &self,
        _: Request<ChangePasswordRequest>,
    ) -> Result<Response<ChangePasswordResponse>, Status> {
        Err(Status::invalid_argument("new_password: at least 10 characters"))
    }

    async fn start_totp(
        &self,
        request: Request<StartTotpRequest>,
    ) -> Result<Response<StartTotpResponse>, Status> {
        self.0.check(&request)?;
        if request.into_inner().password != "right" {
            return Err(Status::permission_denied("wrong password"));
        }
        Ok(Response::new(StartTotpResponse { totp: Some(TotpSecret::default()) }))
    }

    async fn confirm_totp(
        &self,
        request: Request<ConfirmTotpRequest>,
    ) -> Result<Response<ConfirmTotpResponse>, Status> {
        self.0.check(&request)?;
        if request.into_inner().code != "123456" {
            return Err(Status::invalid_argument("code: wrong"));
        }
        self.0.changes.lock().unwrap().push("totp".to_owned());
        Ok(Response::new(ConfirmTotpResponse { recovery_codes: vec!["aaaa-1".into()] }))
    }

    async fn remove_totp(
        &self,
        _: Request<RemoveTotpRequest>,
    ) -> Result<Response<RemoveTotpResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
