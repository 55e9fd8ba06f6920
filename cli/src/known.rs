//! `horcruxctl context`: the controllers that are known here.

use crate::App;
use crate::contexts::{ContextName, Contexts, Trusted, unknown};
use crate::door::device_file;
use crate::failure::Failure;
use crate::tokens::TokenFile;
use crate::view::context::{ContextListView, ContextView};

pub fn list(app: &App) -> Result<ContextListView, Failure> {
    let contexts = Contexts::read(&app.home)?;
    let view = contexts.contexts.iter().map(|(name, context)| ContextView {
        name: name.to_string(),
        current: contexts.current.as_ref() == Some(name),
        url: context.url.clone(),
        user: context.user.clone(),
        fingerprint: match &context.trust {
            Trusted::Fingerprint(pin) => Some(pin.clone()),
            Trusted::Authorities(_) => None,
        },
        // A file that can't be read is told of when it is used.
        signed_in: TokenFile::new(&app.home, name).read().is_ok_and(|tokens| tokens.is_some()),
    });
    Ok(ContextListView(view.collect()))
}

pub async fn choose(app: &App, name: &ContextName) -> Result<(), Failure> {
    Contexts::change(&app.home, |contexts| {
        let context = contexts.contexts.get(name).ok_or_else(|| unknown(name))?;
        app.say(&format!("{name} is the current context: {}", context.url));
        contexts.current = Some(name.clone());
        Ok(())
    })
    .await
}

pub async fn remove(app: &App, name: &ContextName) -> Result<(), Failure> {
    let tokens = TokenFile::new(&app.home, name);
    if tokens.read().is_ok_and(|tokens| tokens.is_some()) {
        app.say("its session still lives at the controller until it has lain unused; `logout` first would end it now");
    }
    let removed = Contexts::change(&app.home, |contexts| {
        let removed = contexts.contexts.remove(name).ok_or_else(|| unknown(name))?;
        contexts.current.take_if(|current| current == name);
        Ok(removed)
    })
    .await?;
    let lock = tokens.lock(app.deadline).await?;
    tokens.remove()?;
    drop(lock);
    app.home.remove(&device_file(name)).map_err(anyhow::Error::from)?;
    if let Trusted::Authorities(file) = &removed.trust {
        app.home.remove(file).map_err(anyhow::Error::from)?;
    }
    app.say(&format!("forgot {name} ({})", removed.url));
    Ok(())
}
