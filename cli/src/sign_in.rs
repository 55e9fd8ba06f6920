//! A session from a password, and from a second factor where the controller asks for one.
//!
//! ```text
//! password ──► session
//!     │
//!     └─► challenge ──► code ──► session (and recovery codes, where the challenge gave a new second factor)
//! ```

use std::path::Path;

use horcrux_proto::v1::auth_service_client::AuthServiceClient;
use horcrux_proto::v1::{AnswerChallengeRequest, Challenge, Session, SignInRequest, TokenPair, TotpSecret};
use horcrux_transport::secret::Secret;
use tonic::{Code, Response, Status};

use crate::App;
use crate::door::Door;
use crate::failure::Failure;
use crate::prompt;
use crate::session::unsigned;
use crate::tokens::Tokens;
use crate::view::secret::RecoveryCodesView;
use crate::view::shown;

/// What a sign-in gave.
#[derive(Debug)]
pub struct SignedIn {
    /// `user@realm`.
    pub user: String,
    pub tokens: Tokens,
    /// What this device is known by at the next sign-in.
    pub device: Option<Secret>,
    /// Where a second factor was set up on the way.
    pub recovery_codes: Option<RecoveryCodesView>,
}

/// What the controller says to a first factor.
pub(crate) struct Answer {
    pub(crate) tokens: Option<TokenPair>,
    pub(crate) session: Option<Session>,
    pub(crate) challenge: Option<Challenge>,
}

/// A person who mistypes is asked again; eight wrong codes would lock the factor.
const TRIES: usize = 3;

pub async fn with_password(
    app: &App,
    door: &Door,
    (username, realm): (&str, &str),
    password: &Secret,
    second_factor: Option<&Path>,
) -> Result<SignedIn, Failure> {
    let request = SignInRequest {
        username: username.to_owned(),
        password: password.expose().to_owned(),
        realm: realm.to_owned(),
        device: door.device(app).map(|device| device.expose().to_owned()),
    };
    let mut client = AuthServiceClient::new(door.channel.clone());
    let answer = refusable(app, door, client.sign_in(request)).await?;
    let answer = Answer { tokens: answer.tokens, session: answer.session, challenge: answer.challenge };
    admitted(app, door, answer, second_factor).await
}

/// From the first factor's answer to a session.
pub(crate) async fn admitted(
    app: &App,
    door: &Door,
    answer: Answer,
    second_factor: Option<&Path>,
) -> Result<SignedIn, Failure> {
    match answer.challenge {
        Some(challenge) => answer_challenge(app, door, &challenge, second_factor).await,
        None => signed_in(answer.tokens, answer.session, Vec::new()),
    }
}

async fn answer_challenge(
    app: &App,
    door: &Door,
    challenge: &Challenge,
    second_factor: Option<&Path>,
) -> Result<SignedIn, Failure> {
    let what = match &challenge.new_totp {
        Some(totp) => {
            app.say("a second factor is required here, and you have none yet");
            app.say(&new_totp(totp));
            "first code"
        }
        None => "code of the second factor, or a recovery code",
    };
    for left in (0..tries(second_factor)).rev() {
        let code = code(what, second_factor)?;
        let request =
            AnswerChallengeRequest { challenge_id: challenge.id.clone(), code: code.expose().to_owned() };
        let mut client = AuthServiceClient::new(door.channel.clone());
        match refusable(app, door, client.answer_challenge(request)).await {
            Ok(answer) => return signed_in(answer.tokens, answer.session, answer.recovery_codes),
            Err(Failure::SignInRefused { why, .. }) if left > 0 => app.say(&format!("refused: {why}")),
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::SignInRefused { url: door.url.clone(), why: "no code was right".to_owned() })
}

/// How a new second factor gets into an authenticator.
#[must_use]
pub fn new_totp(totp: &TotpSecret) -> String {
    format!(
        "enter this into an authenticator, by hand or as the address in a QR code:\n\n  secret   {}\n  address  {}\n",
        shown(&totp.secret),
        shown(&totp.uri)
    )
}

/// How often a code is asked for: what a file holds doesn't get better.
pub(crate) fn tries(file: Option<&Path>) -> usize {
    if file.is_some() { 1 } else { TRIES }
}

/// A code of a second factor. It works once, so it may be seen while it is typed; from a file it is read like any secret.
pub fn code(what: &str, file: Option<&Path>) -> Result<Secret, Failure> {
    match file {
        Some(_) => prompt::secret(what, file, ""),
        None => prompt::line(
            what,
            "--second-factor-file F, or --second-factor-file - and the code on standard input",
        )
        .map(Secret::from),
    }
}

fn signed_in(
    tokens: Option<TokenPair>,
    session: Option<Session>,
    recovery_codes: Vec<String>,
) -> Result<SignedIn, Failure> {
    let mut pair = tokens.ok_or_else(|| Failure::Refused("the controller sent no tokens".to_owned()))?;
    Ok(SignedIn {
        device: pair.device.take().map(Secret::from),
        user: session.map(|session| session.user).unwrap_or_default(),
        tokens: Tokens::from(pair),
        recovery_codes: (!recovery_codes.is_empty()).then(|| RecoveryCodesView::from(recovery_codes)),
    })
}

/// An RPC of a sign-in. Its refusal must not say "sign in again": this was signing in. Nor is a wrong code a lack of roles.
pub(crate) async fn refusable<T>(
    app: &App,
    door: &Door,
    rpc: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    let rpc = async {
        match rpc.await {
            Err(status) if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied) => {
                Ok(Err(shown(status.message())))
            }
            other => other.map(|answer| Ok(answer.into_inner())),
        }
        .map(Response::new)
    };
    unsigned(&door.url, app.deadline, rpc)
        .await?
        .map_err(|why| Failure::SignInRefused { url: door.url.clone(), why })
}
