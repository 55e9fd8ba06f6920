//! Somebody with an account, and a client of their own.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use crate::{Caller, Client, succeeded};

/// Works while their controller does.
#[derive(Clone, Debug)]
pub struct Person {
    pub name: String,
    pub(crate) client: Client,
    pub(crate) password_file: PathBuf,
}

impl Deref for Person {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Person {
    /// `name@local`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}@local", self.name)
    }

    #[must_use]
    pub fn password_file(&self) -> String {
        self.password_file.display().to_string()
    }

    /// Signs in with their password.
    pub fn sign_in(&self) -> anyhow::Result<()> {
        succeeded(&self.enter(&["--user", &self.name, "--password-file", &self.password_file()])?)
    }

    /// What the client keeps of the session, or of the API token.
    pub fn tokens(&self) -> anyhow::Result<Value> {
        let dir = self.home.join("horcrux/tokens");
        let is_json = |path: &PathBuf| path.extension().is_some_and(|end| end == "json");
        let files = fs::read_dir(&dir).with_context(|| dir.display().to_string())?;
        let file = files.filter_map(|file| Some(file.ok()?.path())).find(is_json).context("signed in")?;
        Ok(serde_json::from_str(&fs::read_to_string(file)?)?)
    }

    /// A client with their session.
    pub fn caller(&self) -> anyhow::Result<Caller> {
        let tokens = self.tokens()?;
        let token = tokens["access_token"].as_str().context("a session's token")?;
        Ok(self.caller_with(Some(token)))
    }

    /// A client of their controller with this token, or with none.
    #[must_use]
    pub fn caller_with(&self, token: Option<&str>) -> Caller {
        let (url, fingerprint) = (self.url.clone(), self.fingerprint.clone());
        Caller { url, fingerprint, token: token.map(str::to_owned) }
    }

    /// Another home with nothing in it, on the same controller.
    #[must_use]
    pub fn elsewhere(&self, home: &str) -> Self {
        let home = self.home.parent().unwrap_or_else(|| Path::new("/")).join(home);
        Self { client: Client { home, ..self.client.clone() }, ..self.clone() }
    }
}
