//! Getting in: whom to trust, who signs in, what is kept.

use std::path::Path;

use anyhow::Context as _;
use horcrux_proto::v1::auth_service_client::AuthServiceClient;
use horcrux_proto::v1::{CompleteSetupRequest, SignInRequest, SignInResponse, SignOutRequest, WhoAmIRequest};
use horcrux_transport::client::{self, Target, Trust};
use horcrux_transport::secret::Secret;
use horcrux_transport::tls;
use tonic::Code;
use tonic::transport::Channel;

use crate::App;
use crate::args::{LoginArgs, SetupArgs, TrustArgs};
use crate::contexts::{Context, ContextName, Contexts, Trusted};
use crate::failure::Failure;
use crate::prompt;
use crate::session::{channel, unsigned};
use crate::tokens::{TokenFile, Tokens};
use crate::view::shown;
use crate::view::whoami::WhoAmIView;

/// What is settled before anything secret is sent.
struct Door {
    name: ContextName,
    url: String,
    trusted: Trusted,
    channel: Channel,
    known_user: Option<String>,
}

pub async fn login(app: &App, args: &LoginArgs) -> Result<(), Failure> {
    let door = door(app, &args.target, &args.trust).await?;
    let user = match args.user.clone().or_else(|| door.known_user.clone()) {
        Some(user) => user,
        None => prompt::line("user", "--user NAME")?,
    };
    let password = password(args.password_file.as_deref())?;
    sign_in(app, &door, &user, &password).await
}

pub async fn setup(app: &App, args: &SetupArgs) -> Result<(), Failure> {
    let is_stdin = |file: Option<&Path>| file == Some(Path::new("-"));
    if is_stdin(args.code_file.as_deref()) && is_stdin(args.login.password_file.as_deref()) {
        return Err(Failure::Usage("standard input holds one secret: pass the other as a file".to_owned()));
    }
    let door = door(app, &args.login.target, &args.login.trust).await?;
    let code = prompt::secret("setup code", args.code_file.as_deref(), "--code-file F")?;
    let user = match &args.login.user {
        Some(user) => user.clone(),
        None if prompt::is_interactive() => prompt::line_or("user", "admin")?,
        None => "admin".to_owned(),
    };
    if args.login.password_file.is_none() {
        app.say("a password of 10 characters or more:");
    }
    let password = new_password(args.login.password_file.as_deref())?;
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
    app.say(&format!("made the first administrator, {}", shown(&made.user)));
    sign_in(app, &door, &user, &password).await
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
    let answer = session
        .call(|wire| async move { AuthServiceClient::new(wire).who_am_i(WhoAmIRequest {}).await })
        .await?;
    Ok(WhoAmIView::new(session.context.as_str(), &session.url, &answer))
}

async fn forget_without_telling(app: &App) -> Result<(), Failure> {
    let contexts = Contexts::read(&app.home)?;
    let (name, _) = contexts.chosen(app.context.as_ref())?;
    let tokens = TokenFile::new(&app.home, name);
    let _lock = tokens.lock(app.deadline).await?;
    Ok(tokens.remove()?)
}

/// Connects to a controller that is trusted: from before, by what was passed, or because a person says so now.
async fn door(app: &App, target: &Target, trust: &TrustArgs) -> Result<Door, Failure> {
    let url = target.to_string();
    let contexts = Contexts::read(&app.home)?;
    let name = app.context.clone().or_else(|| contexts.of_url(&url).cloned());
    let name = name.unwrap_or_else(|| ContextName::of(target));
    let known = contexts.contexts.get(&name);
    if let Some(other) = known.filter(|known| known.url != url) {
        return Err(Failure::Usage(format!(
            "the context {name} is for {}: choose another name with --context NAME, or remove it with \
             `horcruxctl context remove {name}`",
            other.url
        )));
    }
    let (trusted, trust) = match (trust.fingerprint, &trust.ca_file, known) {
        (Some(pin), _, _) => (Trusted::Fingerprint(pin.to_string()), Trust::Pinned(pin)),
        (None, Some(file), _) => authorities(app, &name, file)?,
        (None, None, Some(known)) => (known.trust.clone(), known.trust(&app.home)?),
        (None, None, None) => asked(app, target).await?,
    };
    let channel = channel(target, &trust, app.deadline).await?;
    Ok(Door { name, url, trusted, channel, known_user: known.and_then(|known| known.user.clone()) })
}

/// Keeps a copy, so that what is trusted doesn't change with somebody else's file.
fn authorities(app: &App, name: &ContextName, file: &Path) -> Result<(Trusted, Trust), Failure> {
    let der = tls::authorities(file).map_err(anyhow::Error::from)?;
    let pem = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let kept = format!("authorities/{name}.pem");
    app.home.write(&kept, &pem).map_err(anyhow::Error::from)?;
    Ok((Trusted::Authorities(kept), Trust::Authorities(der)))
}

async fn asked(app: &App, target: &Target) -> Result<(Trusted, Trust), Failure> {
    let seen = client::presented(target, app.deadline).await.map_err(|e| Failure::connecting(&e))?;
    let instead = "--fingerprint HEX (it is in the file ca-fingerprint of the controller's state directory) or --ca-file PEM";
    if !prompt::is_interactive() {
        return Err(Failure::Usage(format!(
            "{target} is not known here yet, and standard input is not a terminal to ask on: pass {instead}"
        )));
    }
    app.say(&format!(
        "{target} is not known here yet. The fingerprint of its certificate authority is\n\n  {}\n\nCompare it \
         with the file ca-fingerprint in the state directory on the controller's host.",
        seen.pin
    ));
    if prompt::agrees("Is it the same?", instead)? {
        Ok((Trusted::Fingerprint(seen.pin.to_string()), Trust::Pinned(seen.pin)))
    } else {
        Err(Failure::Refused("not signed in: the controller is not trusted".to_owned()))
    }
}

async fn sign_in(app: &App, door: &Door, user: &str, password: &Secret) -> Result<(), Failure> {
    let (username, realm) = user.split_once('@').unwrap_or((user, ""));
    let request = SignInRequest {
        username: username.to_owned(),
        password: password.expose().to_owned(),
        realm: realm.to_owned(),
    };
    let mut client = AuthServiceClient::new(door.channel.clone());
    let rpc = async {
        match client.sign_in(request).await {
            // Not "sign in again": this was signing in.
            Err(status) if status.code() == Code::Unauthenticated => Ok(Err(shown(status.message()))),
            other => other.map(|answer| Ok(answer.into_inner())),
        }
        .map(tonic::Response::new)
    };
    let answer: Result<SignInResponse, String> = unsigned(&door.url, app.deadline, rpc).await?;
    let answer = answer.map_err(|why| Failure::SignInRefused { url: door.url.clone(), why })?;
    let pair = answer.tokens.ok_or_else(|| Failure::Refused("the controller sent no tokens".to_owned()))?;
    keep(app, door, user, &Tokens::from(pair)).await?;
    let user = answer.session.map(|session| session.user).unwrap_or_default();
    app.say(&format!("signed in to {} as {} (context {})", door.url, shown(&user), door.name));
    Ok(())
}

async fn keep(app: &App, door: &Door, user: &str, tokens: &Tokens) -> Result<(), Failure> {
    let file = TokenFile::new(&app.home, &door.name);
    let lock = file.lock(app.deadline).await?;
    file.write(tokens)?;
    drop(lock);
    let context = Context { url: door.url.clone(), user: Some(user.to_owned()), trust: door.trusted.clone() };
    Contexts::change(&app.home, |contexts| {
        contexts.contexts.insert(door.name.clone(), context);
        contexts.current = Some(door.name.clone());
        Ok(())
    })
    .await
}

fn password(file: Option<&Path>) -> Result<Secret, Failure> {
    prompt::secret(
        "password",
        file,
        "--password-file F, or --password-file - and the password on standard input",
    )
}

/// Typed twice, because nobody can see what was typed.
fn new_password(file: Option<&Path>) -> Result<Secret, Failure> {
    let first = password(file)?;
    if file.is_none() {
        let second = prompt::secret("password again", None, "--password-file F")?;
        if first.expose() != second.expose() {
            return Err(Failure::Usage("the two passwords differ".to_owned()));
        }
    }
    Ok(first)
}
