//! `horcruxctl login`, `setup`, `logout` and `whoami`.

use std::path::Path;

use horcrux_proto::v1::auth_service_client::AuthServiceClient;
use horcrux_proto::v1::{CompleteSetupRequest, SignOutRequest, WhoAmIRequest, WhoAmIResponse};
use horcrux_transport::secret::Secret;

use crate::App;
use crate::args::sign_in::{LoginArgs, SetupArgs};
use crate::contexts::Contexts;
use crate::door::Door;
use crate::failure::Failure;
use crate::grants::all_roles;
use crate::session::{Session, signed, unsigned};
use crate::sign_in::{SignedIn, with_password};
use crate::tokens::{Credential, TokenFile};
use crate::view::shown;
use crate::view::whoami::WhoAmIView;
use crate::{oidc, prompt};

/// How an API token begins.
const API_TOKEN: &str = "hxt_";

pub async fn login(app: &App, args: &LoginArgs) -> Result<(), Failure> {
    let second = args.second_factor.second_factor_file.as_deref();
    prompt::one_from_stdin(&[args.password_file.as_deref(), second])?;
    let door = Door::open(app, &args.target, &args.trust).await?;
    if let Some(file) = &args.api_token_file {
        return use_api_token(app, &door, file).await;
    }
    if args.oidc {
        let signed_in = oidc::with_provider(app, &door, args.realm.as_deref(), second).await?;
        return enter(app, &door, &signed_in).await;
    }
    // Whoever signed in last is meant, unless another realm is asked for.
    let known = door.known_user.clone().filter(|known| identity(known, args.realm.as_deref()).is_ok());
    let user = match args.user.clone().or(known) {
        Some(user) => user,
        None => prompt::line("user", "--user NAME")?,
    };
    let (username, realm) = identity(&user, args.realm.as_deref())?;
    let password = password("password", args.password_file.as_deref())?;
    let signed_in = with_password(app, &door, (username, realm), &password, second).await?;
    enter(app, &door, &signed_in).await
}

pub async fn setup(app: &App, args: &SetupArgs) -> Result<(), Failure> {
    let second = args.second_factor.second_factor_file.as_deref();
    prompt::one_from_stdin(&[args.code_file.as_deref(), args.password_file.as_deref(), second])?;
    let door = Door::open(app, &args.target, &args.trust).await?;
    let code = prompt::secret("setup code", args.code_file.as_deref(), "--code-file F")?;
    let user = match &args.user {
        Some(user) => user.clone(),
        None if prompt::is_interactive() => prompt::line_or("user", "admin")?,
        None => "admin".to_owned(),
    };
    if args.password_file.is_none() {
        app.say("a password of 10 characters or more:");
    }
    let password = prompt::new_password("password", args.password_file.as_deref(), "--password-file F")?;
    let request = CompleteSetupRequest {
        setup_code: code.expose().to_owned(),
        username: user.clone(),
        password: password.expose().to_owned(),
    };
    let mut client = AuthServiceClient::new(door.channel.clone());
    let made = unsigned(&door.url, app.deadline, client.complete_setup(request)).await;
    let made = made.map_err(|failure| {
        if let Failure::Denied(why) = failure { Failure::WrongSetupCode(why) } else { failure }
    })?;
    app.say(&format!("{} is an administrator now", shown(&made.user)));
    let signed_in = with_password(app, &door, identity(&user, None)?, &password, second).await?;
    enter(app, &door, &signed_in).await
}

const UNTOLD: &str = "the tokens here are removed; the controller could not be told: there the session ends when it has lain unused for long enough";

pub async fn logout(app: &App) -> Result<(), Failure> {
    let session = match app.session().await {
        Err(Failure::NotSignedIn { url, .. }) => {
            app.say(&format!("not signed in to {url}"));
            return Ok(());
        }
        // The tokens go, even where the controller can't be told: that is what was asked for.
        Err(failure) => {
            forget_without_telling(app).await?;
            app.say(UNTOLD);
            return Err(failure);
        }
        Ok(session) => session,
    };
    if matches!(session.credential(), Ok(Credential::ApiToken(_))) {
        session.forget().await?;
        app.say(
            "the API token is removed here; it is good until it ends or `horcruxctl token revoke` ends it",
        );
        return Ok(());
    }
    let told = session
        .call(|wire| async move { AuthServiceClient::new(wire).sign_out(SignOutRequest {}).await })
        .await;
    session.forget().await?;
    match told {
        Ok(_) | Err(Failure::NotSignedIn { .. }) => {
            app.say(&format!("signed out of {}", session.url));
            Ok(())
        }
        Err(failure) => {
            app.say(UNTOLD);
            Err(failure)
        }
    }
}

pub async fn whoami(app: &App) -> Result<WhoAmIView, Failure> {
    let session = app.session().await?;
    let answer = caller(&session).await?;
    let roles = all_roles(&session).await?;
    Ok(WhoAmIView::new(session.context()?.as_str(), &session.url, &answer, &roles))
}

/// Who calls, in the controller's words.
pub(crate) async fn caller(session: &Session) -> Result<WhoAmIResponse, Failure> {
    session.call(|wire| async move { AuthServiceClient::new(wire).who_am_i(WhoAmIRequest {}).await }).await
}

async fn forget_without_telling(app: &App) -> Result<(), Failure> {
    let contexts = Contexts::read(&app.home)?;
    let (name, _) = contexts.chosen(app.context.as_ref())?;
    let tokens = TokenFile::new(&app.home, name);
    let _lock = tokens.lock(app.deadline).await?;
    Ok(tokens.remove()?)
}

/// Keeps a session. Recovery codes come first: they are shown this once, whatever happens to the rest.
async fn enter(app: &App, door: &Door, signed_in: &SignedIn) -> Result<(), Failure> {
    if let Some(codes) = &signed_in.recovery_codes {
        app.say(codes.talk());
        app.print(codes)?;
    }
    door.keep(app, &signed_in.user, &Credential::Session(signed_in.tokens.clone())).await?;
    if let Some(device) = &signed_in.device {
        door.keep_device(app, device)?;
    }
    app.say(&format!("signed in to {} as {} (context {})", door.url, shown(&signed_in.user), door.name));
    Ok(())
}

/// Keeps an API token that the controller knows.
pub async fn use_api_token(app: &App, door: &Door, file: &Path) -> Result<(), Failure> {
    let token = prompt::secret("API token", Some(file), "")?;
    let token = Secret::from(token.expose().trim().to_owned());
    let wrong = || {
        Failure::Usage(format!("what {} holds is no API token: it begins with {API_TOKEN}", file.display()))
    };
    if !token.expose().starts_with(API_TOKEN) {
        return Err(wrong());
    }
    let wire = signed(&door.channel, &token).ok_or_else(wrong)?;
    let mut client = AuthServiceClient::new(wire);
    let answer = crate::sign_in::refusable(app, door, client.who_am_i(WhoAmIRequest {})).await?;
    door.keep(app, &answer.user, &Credential::ApiToken(token)).await?;
    let id = answer.token.unwrap_or_default();
    app.say(&format!(
        "calls to {} use the API token {} of {} (context {})",
        door.url,
        shown(&id),
        shown(&answer.user),
        door.name
    ));
    Ok(())
}

/// Name and realm. What follows the last `@` is the realm.
fn identity<'a>(user: &'a str, realm: Option<&'a str>) -> Result<(&'a str, &'a str), Failure> {
    match (user.rsplit_once('@'), realm) {
        (Some((_, named)), Some(realm)) if named != realm => Err(Failure::Usage(format!(
            "{user} names another realm than --realm {realm}: pass one of the two"
        ))),
        (Some((name, named)), _) => Ok((name, named)),
        (None, realm) => Ok((user, realm.unwrap_or_default())),
    }
}

fn password(what: &str, file: Option<&Path>) -> Result<Secret, Failure> {
    prompt::secret(what, file, "--password-file F, or --password-file - and the password on standard input")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_realm_is_given_with_the_name_or_beside_it() {
        let read = |user, realm| identity(user, realm).ok();
        assert_eq!(read("alice", None), Some(("alice", "")));
        assert_eq!(read("alice@corp", None), Some(("alice", "corp")));
        assert_eq!(read("alice", Some("corp")), Some(("alice", "corp")));
        assert_eq!(read("alice@corp", Some("corp")), Some(("alice", "corp")));
        assert_eq!(read("alice@corp.example@ad", None), Some(("alice@corp.example", "ad")));
        assert_eq!(read("alice@corp", Some("local")), None);
    }
}
