//! Somebody with an account, and a home of their own for the command line client.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::Context as _;
use serde_json::Value;

use crate::{Caller, Place, program, succeeded};

/// Works while their controller does.
#[derive(Clone, Debug)]
pub struct Person {
    pub name: String,
    pub(crate) place: Place,
    pub(crate) url: String,
    pub(crate) fingerprint: String,
    /// What the client keeps is below.
    pub(crate) home: PathBuf,
    pub(crate) password_file: PathBuf,
    pub(crate) log: Option<&'static str>,
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

    /// What their client keeps is below.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The command line client, which reads no terminal.
    pub fn command(&self, args: &[&str]) -> anyhow::Result<Command> {
        let mut command = self.place.command(&program("horcruxctl")?);
        command.args(args).env("XDG_CONFIG_HOME", &self.home).stdin(Stdio::null());
        command.envs(self.log.map(|level| ("HORCRUX_LOG", level)));
        Ok(command)
    }

    pub fn ctl(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.command(args)?.output().context("run horcruxctl")
    }

    /// As [`Person::ctl`], where it must go well.
    pub fn done(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = self.ctl(args)?;
        succeeded(&output).with_context(|| args.join(" "))?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What the client prints as JSON.
    pub fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let text = self.done(&[&["-o", "json"], args].concat())?;
        serde_json::from_str(&text).context("horcruxctl prints JSON")
    }

    /// Signs in with their password.
    pub fn sign_in(&self) -> anyhow::Result<()> {
        let password = self.password_file();
        let trust = ["--fingerprint", &self.fingerprint];
        let user = ["login", &self.url, "--user", &self.name, "--password-file", &password];
        self.done(&[&user[..], &trust].concat()).map(|_| ())
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
        Self { home, ..self.clone() }
    }
}
