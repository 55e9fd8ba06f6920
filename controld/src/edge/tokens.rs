//! TokenService: API tokens.

use std::sync::Arc;

use horcrux_proto::authz::Privilege::UserModify;
use horcrux_proto::v1::token_service_server::TokenService;
use horcrux_proto::v1::{
    ApiToken, TokenServiceCreateRequest, TokenServiceCreateResponse, TokenServiceListRequest,
    TokenServiceListResponse, TokenServiceRevokeRequest, TokenServiceRevokeResponse,
};
use horcrux_transport::clock;
use tonic::{Request, Response, Status};

use super::call::{Act, Call, Done, path};
use super::fields::{role_name, text, user_id};
use super::grants::{add, described, to_wire};
use crate::access::keys::random_id;
use crate::access::path::Path;
use crate::access::policy::{Grant, Policy, Subject, TokenScope};
use crate::access::sessions::Ended;
use crate::access::signin::SignInError;
use crate::access::tokens::{DEFAULT_SECONDS, MAX_SECONDS, MIN_SECONDS, NewToken, networks};
use crate::app::App;
use crate::store::tokens::TokenRow;

pub(super) struct Tokens(pub(super) Arc<App>);

const MAX_GRANTS: usize = 20;
/// Of one user.
const MAX_TOKENS: usize = 50;

#[tonic::async_trait]
impl TokenService for Tokens {
    async fn list(
        &self,
        request: Request<TokenServiceListRequest>,
    ) -> Result<Response<TokenServiceListResponse>, Status> {
        let call = Call::of(&request)?;
        let asked = request.into_inner().user;
        let principal = call.principal()?;
        let whose = match asked.as_str() {
            "" => Some(principal.user.clone()),
            "*" => None,
            name => Some(user_id(name)?),
        };
        // A token doesn't look around among its siblings.
        if principal.session().is_none() || whose.as_ref() != Some(&principal.user) {
            call.require(&self.0, UserModify, &Path::access())?;
        }
        let policy = self.0.registry.policy();
        let rows = self.0.store.tokens(whose.as_ref()).await?;
        let tokens = rows.iter().map(|row| shown(&policy, row)).collect();
        Ok(Response::new(TokenServiceListResponse { tokens }))
    }

    async fn create(
        &self,
        request: Request<TokenServiceCreateRequest>,
    ) -> Result<Response<TokenServiceCreateResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let owner = call.principal()?.user.clone();
        let now_ms = clock::unix_ms();
        let seconds = if request.ttl_seconds == 0 { DEFAULT_SECONDS } else { request.ttl_seconds };
        if !(MIN_SECONDS..=MAX_SECONDS).contains(&seconds) {
            return Err(Status::invalid_argument("ttl_seconds: an hour to 366 days"));
        }
        if request.full != request.grants.is_empty() || request.grants.len() > MAX_GRANTS {
            return Err(Status::invalid_argument("grants: 1 to 20, or none and full"));
        }
        let networks = networks(&request.networks)
            .ok_or_else(|| Status::invalid_argument("networks: at most 16, each as 192.0.2.0/24"))?;
        let comment = text("comment", request.comment)?;
        if self.0.store.tokens(Some(&owner)).await?.len() >= MAX_TOKENS {
            return Err(Status::failed_precondition("you have 50 tokens: revoke some first"));
        }
        let token = NewToken::make().map_err(SignInError::Key)?;
        let mut grants = Vec::new();
        for given in &request.grants {
            grants.push(Grant {
                id: random_id().map_err(SignInError::Key)?,
                subject: Subject::Token(token.id.as_str().into()),
                role: role_name(&given.role)?,
                path: path(&given.path)?,
                propagate: !given.no_propagate,
                not_after_ms: None,
                created_ms: now_ms,
                created_by: owner.to_string(),
            });
        }
        // Before the code is used up: what is wrong otherwise should cost none.
        let (new, scope) = (grants.clone(), TokenScope { owner: owner.clone(), full: request.full });
        let id: Box<str> = token.id.as_str().into();
        let plan = call
            .plan(&self.0, |facts| {
                facts.tokens.insert(id, scope);
                new.into_iter().try_for_each(|grant| add(facts, grant))
            })
            .await?;
        let has_factor = self.0.sign_ins.factors.has(&owner).await.map_err(SignInError::Factor)?;
        if has_factor && !request.validate_only {
            if request.code.is_empty() {
                return Err(Status::failed_precondition("code: a code of your second factor is needed"));
            }
            let checked = self.0.sign_ins.factors.check(&owner, &request.code, now_ms).await;
            checked.map_err(SignInError::Factor)?;
        }
        let row = TokenRow {
            id: token.id.clone(),
            owner: owner.to_string(),
            comment,
            hash: token.hash.to_vec(),
            full_scope: request.full,
            networks,
            created_ms: now_ms,
            expires_ms: now_ms + i64::from(seconds) * 1000,
            last_used_ms: None,
            last_used_from: None,
        };
        let scope = if request.full {
            "full".to_owned()
        } else {
            grants.iter().map(described).collect::<Vec<_>>().join("; ")
        };
        let act = Act {
            resource: format!("users/{owner}"),
            decision: "own token".to_owned(),
            detail: format!("create a token, {seconds} s: {}", scope.replace(token.id.as_str(), "")),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let (app, made) = (Arc::clone(&self.0), row.clone());
        let done = call.act(&self.0, act, async move {
            app.store.insert_token(&made, &grants).await?;
            Ok(plan.publish().await?)
        });
        match done.await? {
            Done::Now(()) => {
                let shown = shown(&self.0.registry.policy(), &row);
                let secret = token.text.expose().to_owned();
                Ok(Response::new(TokenServiceCreateResponse { token: Some(shown), secret }))
            }
            Done::Valid => Ok(Response::new(TokenServiceCreateResponse::default())),
            Done::Before => Err(Status::already_exists(
                "request_id: this token was made before, and its secret shown then",
            )),
        }
    }

    async fn revoke(
        &self,
        request: Request<TokenServiceRevokeRequest>,
    ) -> Result<Response<TokenServiceRevokeResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let principal = call.principal()?;
        let absent = || Status::not_found("token_id: no such token, or it is not yours");
        let row = self.0.store.token(&request.token_id).await?;
        let own = row.as_ref().is_some_and(|row| row.owner == principal.user.as_str());
        let decision = if own && principal.session().is_some() {
            "own token".to_owned()
        } else {
            call.require(&self.0, UserModify, &Path::access()).map_err(|_| absent())?;
            call.decision(UserModify, &Path::access())
        };
        let Some(row) = row else {
            let repeated = call.repeats(&self.0, &request.request_id).await?;
            return repeated.then(|| Response::new(TokenServiceRevokeResponse {})).ok_or_else(absent);
        };
        let act = Act {
            resource: format!("tokens/{}", row.id),
            decision,
            detail: format!("revoke, of {}", row.owner),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let app = Arc::clone(&self.0);
        call.act(&self.0, act, async move {
            app.store.delete_tokens(Some(&row.id), clock::unix_ms()).await?;
            app.registry.reload().await?;
            app.sessions.told(Ended::Token(row.id.into()));
            Ok(())
        })
        .await?;
        Ok(Response::new(TokenServiceRevokeResponse {}))
    }
}

fn shown(policy: &Policy, row: &TokenRow) -> ApiToken {
    let subject = Subject::Token(row.id.as_str().into());
    ApiToken {
        id: row.id.clone(),
        owner: row.owner.clone(),
        comment: row.comment.clone(),
        full: row.full_scope,
        grants: policy.grants_of(&subject).map(to_wire).collect(),
        networks: row.networks.split(',').filter(|n| !n.is_empty()).map(ToOwned::to_owned).collect(),
        created_unix_ms: row.created_ms,
        expires_unix_ms: row.expires_ms,
        last_used_unix_ms: row.last_used_ms,
        last_used_from: row.last_used_from.clone(),
    }
}
