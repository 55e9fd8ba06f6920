//! What people change about how they sign in themselves. A session that was left open must not do: who changes a password or
//! adds a factor says the password again, and who removes the factor shows a code of it. Other sessions end.

use std::sync::Arc;

use horcrux_proto::v1::{ChangePasswordRequest, StartTotpRequest};
use horcrux_transport::clock;
use horcrux_transport::secret::Secret;
use tonic::Status;

use super::call::{Act, Call, Done};
use super::fields::new_password;
use crate::access::factors::NewSecret;
use crate::access::name::UserId;
use crate::access::principal::Via;
use crate::access::signin::SignInError;
use crate::app::App;

/// Without a password to be said again, a session must be this young.
const FRESH_MS: i64 = 15 * 60 * 1000;

pub(super) async fn password(
    app: &Arc<App>,
    call: &Call,
    request: ChangePasswordRequest,
) -> Result<(), Status> {
    let (user, kept) = caller(call)?;
    if !user.is_local() {
        return Err(Status::failed_precondition(format!("the password of {user} is kept by its realm")));
    }
    let new = new_password("new_password", request.new_password)?;
    is_password(app, call, &user, request.old_password, "old_password").await?;
    let password_hash = app.sign_ins.hash(new, &user).await?;
    let doing = Arc::clone(app);
    let done = call.act(app, act(&user, "own password"), async move {
        doing.store.change_credentials(&user, Some(&password_hash)).await?;
        doing.sign_ins.challenges.forget(&user);
        Ok(doing.sessions.end_others(&user, &kept).await?)
    });
    now(done.await?)
}

/// A factor that counts once a code of it was shown.
pub(super) async fn begun_factor(
    app: &Arc<App>,
    call: &Call,
    request: StartTotpRequest,
) -> Result<NewSecret, Status> {
    let principal = call.principal()?;
    let user = principal.user.clone();
    if user.is_local() {
        is_password(app, call, &user, request.password, "password").await?;
    } else if let Via::Session { created_ms, .. } = principal.via
        && clock::unix_ms() - created_ms > FRESH_MS
    {
        return Err(Status::failed_precondition(
            "this session is older than 15 minutes: sign in again first",
        ));
    }
    let doing = Arc::clone(app);
    let made = call.act(app, act(&user, "begin a second factor"), async move {
        Ok(doing.sign_ins.factors.start(&user).await.map_err(SignInError::Factor)?)
    });
    now(made.await?)
}

/// Gives the recovery codes.
pub(super) async fn confirmed_factor(
    app: &Arc<App>,
    call: &Call,
    code: Secret,
) -> Result<Vec<String>, Status> {
    let (user, kept) = caller(call)?;
    let doing = Arc::clone(app);
    let confirmed = call.act(app, act(&user, "second factor"), async move {
        let codes = doing.sign_ins.factors.confirm(&user, code.expose(), clock::unix_ms()).await;
        let codes = codes.map_err(SignInError::Factor)?;
        doing.store.change_credentials(&user, None).await?;
        doing.sessions.end_others(&user, &kept).await?;
        Ok(codes)
    });
    now(confirmed.await?)
}

pub(super) async fn remove_factor(app: &Arc<App>, call: &Call, code: Secret) -> Result<(), Status> {
    let (user, kept) = caller(call)?;
    let doing = Arc::clone(app);
    let done = call.act(app, act(&user, "no second factor"), async move {
        let removed = doing.sign_ins.factors.remove(&user, code.expose(), clock::unix_ms()).await;
        removed.map_err(SignInError::Factor)?;
        doing.store.change_credentials(&user, None).await?;
        Ok(doing.sessions.end_others(&user, &kept).await?)
    });
    now(done.await?)
}

/// The user, and the session that stays.
fn caller(call: &Call) -> Result<(UserId, String), Status> {
    let principal = call.principal()?;
    Ok((principal.user.clone(), principal.session().unwrap_or_default().to_owned()))
}

fn act(user: &UserId, detail: &str) -> Act {
    Act { resource: format!("users/{user}"), detail: detail.to_owned(), ..Act::default() }
}

/// These are neither repeated by an id nor only tried.
fn now<T>(done: Done<T>) -> Result<T, Status> {
    match done {
        Done::Now(made) => Ok(made),
        Done::Before | Done::Valid => Err(Status::internal("internal error")),
    }
}

async fn is_password(
    app: &App,
    call: &Call,
    user: &UserId,
    password: String,
    field: &str,
) -> Result<(), Status> {
    if app.sign_ins.is_password_of(user, Secret::from(password)).await? {
        return Ok(());
    }
    app.audit.event(&call.entry(&format!("users/{user}")), "wrong password").await?;
    Err(Status::permission_denied(format!("{field}: this is not your password")))
}
