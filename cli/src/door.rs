//! The way to a controller before anyone is signed in: whom to trust, and what is kept once somebody is.

use std::path::Path;

use anyhow::Context as _;
use horcrux_transport::client::{self, Target, Trust};
use horcrux_transport::secret::Secret;
use horcrux_transport::tls;
use tonic::transport::Channel;

use crate::App;
use crate::args::sign_in::TrustArgs;
use crate::contexts::{Context, ContextName, Contexts, Trusted};
use crate::failure::Failure;
use crate::prompt;
use crate::session::channel;
use crate::tokens::{Credential, TokenFile};

/// What is settled before anything secret is sent.
#[derive(Debug)]
pub struct Door {
    pub name: ContextName,
    pub url: String,
    pub trusted: Trusted,
    pub channel: Channel,
    pub known_user: Option<String>,
}

impl Door {
    /// Connects to a controller that is trusted: from before, by what was passed, or because a person says so now.
    pub async fn open(app: &App, target: &Target, trust: &TrustArgs) -> Result<Self, Failure> {
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
        Ok(Self { name, url, trusted, channel, known_user: known.and_then(|known| known.user.clone()) })
    }

    /// What this device is known by at the controller since an earlier sign-in. It opens nothing, and without it one signs
    /// in as from a new device: a file that can't be read is none.
    #[must_use]
    pub fn device(&self, app: &App) -> Option<Secret> {
        let text = app.home.read_secret(&device_file(&self.name)).ok().flatten()?;
        Some(Secret::from(text.trim().to_owned()))
    }

    pub fn keep_device(&self, app: &App, device: &Secret) -> Result<(), Failure> {
        let kept = app.home.write(&device_file(&self.name), device.expose());
        Ok(kept.map_err(anyhow::Error::from)?)
    }

    /// Remembers the controller as the current one, and what opens it.
    pub async fn keep(&self, app: &App, user: &str, credential: &Credential) -> Result<(), Failure> {
        let file = TokenFile::new(&app.home, &self.name);
        let lock = file.lock(app.deadline).await?;
        file.write(credential)?;
        drop(lock);
        let (url, user, trust) = (self.url.clone(), Some(user.to_owned()), self.trusted.clone());
        let context = Context { url, user, trust };
        Contexts::change(&app.home, |contexts| {
            contexts.contexts.insert(self.name.clone(), context);
            contexts.current = Some(self.name.clone());
            Ok(())
        })
        .await
    }
}

/// Where a context's device is kept.
#[must_use]
pub fn device_file(context: &ContextName) -> String {
    format!("devices/{context}")
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
