//! Signing in and out.

use anyhow::{Context as _, bail};
use horcrux_proto::v1::auth_service_client::AuthServiceClient;
use horcrux_proto::v1::{CompleteSetupRequest, SignInRequest, SignOutRequest, WhoAmIRequest};
use horcrux_transport::client::{Pin, Target, Trust, connect, presented};
use horcrux_transport::secret::Secret;
use serde_json::json;
use tonic::transport::Channel;

use super::print;
use crate::args::{Login, Output, Setup};
use crate::contexts::{Entry, Home};
use crate::prompt;
use crate::session::{self, DEADLINE, signed};
use crate::view;

pub(super) async fn setup(home: &Home, context: Option<&str>, setup: &Setup) -> anyhow::Result<()> {
    let login = &setup.login;
    let pin = trusted(home, login).await?;
    let code = prompt::secret("setup code", setup.code_file.as_deref(), "--code-file")?;
    let password = prompt::secret("new password", login.password_file.as_deref(), "--password-file")?;
    if login.password_file.is_none() {
        let again = prompt::secret("the same again", None, "--password-file")?;
        if again.expose() != password.expose() {
            bail!("the two passwords differ");
        }
    }
    let channel = connect(&login.url, &Trust::Pinned(pin), DEADLINE).await?;
    let request = CompleteSetupRequest {
        setup_code: code.expose().to_owned(),
        username: login.user.clone(),
        password: password.expose().to_owned(),
    };
    let made = AuthServiceClient::new(channel.clone()).complete_setup(request).await?.into_inner();
    eprintln!("made {}, who holds every privilege", made.user);
    sign_in(home, context, login, pin, channel, &password).await
}

pub(super) async fn login(home: &Home, context: Option<&str>, login: &Login) -> anyhow::Result<()> {
    let pin = trusted(home, login).await?;
    let password = prompt::secret("password", login.password_file.as_deref(), "--password-file")?;
    let channel = connect(&login.url, &Trust::Pinned(pin), DEADLINE).await?;
    sign_in(home, context, login, pin, channel, &password).await
}

async fn sign_in(
    home: &Home,
    context: Option<&str>,
    login: &Login,
    pin: Pin,
    channel: Channel,
    password: &Secret,
) -> anyhow::Result<()> {
    let request = SignInRequest {
        username: login.user.clone(),
        password: password.expose().to_owned(),
        realm: String::new(),
    };
    let answer = AuthServiceClient::new(channel).sign_in(request).await?.into_inner();
    let tokens = answer.tokens.context("the controller sent no tokens")?;
    let name = context.map_or_else(|| default_name(&login.url), str::to_owned);
    home.save_tokens(&name, &session::of(tokens))?;
    let mut contexts = home.contexts()?;
    let entry = Entry { url: login.url.to_string(), user: login.user.clone(), fingerprint: pin.to_string() };
    contexts.context.insert(name.clone(), entry);
    contexts.current = Some(name.clone());
    home.save(&contexts)?;
    let user = answer.session.map(|s| s.user).unwrap_or_default();
    eprintln!("signed in as {user}; the context is {name}");
    Ok(())
}

/// Which authority to trust: the one that was trusted before, the one that was given, or the one that a person agrees to.
async fn trusted(home: &Home, login: &Login) -> anyhow::Result<Pin> {
    if let Some(pin) = login.fingerprint {
        return Ok(pin);
    }
    let url = login.url.to_string();
    if let Some(known) = home.contexts()?.context.into_values().find(|entry| entry.url == url) {
        return Ok(known.fingerprint.parse()?);
    }
    let shown = presented(&login.url, DEADLINE).await?;
    eprintln!("{url} is not known yet. The fingerprint of its authority is");
    eprintln!("  {}", shown.pin);
    eprintln!("On the controller's host it is in the file ca-fingerprint of the state directory.");
    if prompt::agree("Do they match?", "--fingerprint")? {
        Ok(shown.pin)
    } else {
        bail!("not signed in: the controller is not trusted")
    }
}

fn default_name(target: &Target) -> String {
    format!("{}:{}", target.host, target.port)
}

pub(super) async fn logout(home: &Home, context: Option<&str>) -> anyhow::Result<()> {
    let (name, _) = session::current(home, context)?;
    let (_, channel, bearer) = signed(home, context).await?;
    let ended = AuthServiceClient::with_interceptor(channel, bearer).sign_out(SignOutRequest {}).await;
    // Whatever the controller says, nothing of the session stays here.
    home.forget_tokens(&name)?;
    ended?;
    eprintln!("signed out");
    Ok(())
}

pub(super) async fn whoami(home: &Home, context: Option<&str>, output: Output) -> anyhow::Result<()> {
    let (entry, channel, bearer) = signed(home, context).await?;
    let answer =
        AuthServiceClient::with_interceptor(channel, bearer).who_am_i(WhoAmIRequest {}).await?.into_inner();
    let session = answer.session.context("the controller named no session")?;
    match output {
        Output::Table => print(&format!("{} ({}) at {}\n", session.user, answer.roles.join(", "), entry.url)),
        Output::Json | Output::Yaml => {
            let whole = json!({
                "user": session.user, "roles": answer.roles, "url": entry.url, "session": session.id,
                "session_expires_unix_ms": session.expires_unix_ms,
            });
            print(&view::data(&whole, output)?)
        }
    }
}
