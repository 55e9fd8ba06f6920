//! Somebody's command line client, and how they sign in with it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use anyhow::Context as _;
use serde_json::Value;

use crate::{Place, program, succeeded};

/// What it keeps is its own: several are signed in to one controller at once.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) place: Place,
    pub(crate) url: String,
    /// Of the controller's authority.
    pub(crate) fingerprint: String,
    pub(crate) authority: String,
    /// What it keeps is below.
    pub(crate) home: PathBuf,
    pub(crate) log: Option<&'static str>,
}

/// A run that is answered while it goes on. It says little: what is not read fits into its pipes.
struct Talk {
    child: Child,
    said: BufReader<ChildStderr>,
    all: String,
}

impl Client {
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// It reads no terminal.
    pub fn command(&self, args: &[&str]) -> anyhow::Result<Command> {
        let mut command = self.place.command(&program("horcruxctl")?);
        command.args(args).env("XDG_CONFIG_HOME", &self.home).stdin(Stdio::null());
        command.envs(self.log.map(|level| ("HORCRUX_LOG", level)));
        Ok(command)
    }

    pub fn ctl(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.command(args)?.output().context("run horcruxctl")
    }

    /// As [`Client::ctl`], where it must go well.
    pub fn done(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = self.ctl(args)?;
        succeeded(&output).with_context(|| args.join(" "))?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What it prints as JSON.
    pub fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let text = self.done(&[&["-o", "json"], args].concat())?;
        serde_json::from_str(&text).context("horcruxctl prints JSON")
    }

    /// Signs in with a password.
    pub fn login(&self, user: &str, password: &str) -> anyhow::Result<Output> {
        let password = self.secret("password", password)?;
        self.enter(&["--user", user, "--password-file", &password])
    }

    /// Signs in with a password and a code of the second factor.
    pub fn login_with_code(&self, user: &str, password: &str, code: &str) -> anyhow::Result<Output> {
        let (password, code) = (self.secret("password", password)?, self.secret("code", code)?);
        self.enter(&["--user", user, "--password-file", &password, "--second-factor-file", &code])
    }

    pub(crate) fn enter(&self, with: &[&str]) -> anyhow::Result<Output> {
        self.ctl(&[&self.entrance(), with].concat())
    }

    fn entrance(&self) -> [&str; 4] {
        ["login", &self.url, "--ca-file", &self.authority]
    }

    /// Signs in at a provider: `agree` gets the address that is to be opened.
    pub fn login_at_provider(
        &self,
        realm: &str,
        agree: impl FnOnce(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<Output> {
        let args = [&self.entrance()[..], &["--oidc", "--realm", realm]].concat();
        let mut talk = Talk::begin(self.command(&args)?)?;
        let line = talk.until("open ")?;
        agree(line.split(' ').next().context("an address")?)?;
        talk.end(None)
    }

    /// Sets up a second factor; `code` makes its first code from its secret. Gives the recovery codes.
    pub fn set_up_factor(
        &self,
        password: &str,
        code: impl FnOnce(&str) -> anyhow::Result<String>,
    ) -> anyhow::Result<Vec<String>> {
        let file = self.secret("password", password)?;
        let args = ["-o", "json", "totp", "setup", "--password-file", &file, "--second-factor-file", "-"];
        let mut talk = Talk::begin(self.command(&args)?)?;
        let secret = talk.until("  secret   ")?;
        let output = talk.end(Some(&code(&secret)?))?;
        succeeded(&output)?;
        let mut told: Value = serde_json::from_slice(&output.stdout)?;
        serde_json::from_value(told["recovery_codes"].take()).context("the recovery codes as JSON")
    }

    fn secret(&self, name: &str, text: &str) -> anyhow::Result<String> {
        fs::create_dir_all(&self.home)?;
        let file = self.home.join(name);
        fs::write(&file, text)?;
        Ok(file.display().to_string())
    }
}

impl Talk {
    fn begin(mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("run horcruxctl")?;
        let said = BufReader::new(child.stderr.take().context("it talks")?);
        Ok(Self { child, said, all: String::new() })
    }

    /// What follows on the line that begins so.
    fn until(&mut self, start: &str) -> anyhow::Result<String> {
        loop {
            let mut line = String::new();
            let ended = self.said.read_line(&mut line)? == 0;
            self.all.push_str(&line);
            if let Some(rest) = line.strip_prefix(start) {
                return Ok(rest.trim_end().to_owned());
            }
            anyhow::ensure!(!ended, "it never said {start:?}: {}", self.all);
        }
    }

    fn end(mut self, answer: Option<&str>) -> anyhow::Result<Output> {
        let mut input = self.child.stdin.take().context("it listens")?;
        if let Some(answer) = answer {
            writeln!(input, "{answer}")?;
        }
        drop(input);
        self.said.read_to_string(&mut self.all)?;
        let output = self.child.wait_with_output()?;
        Ok(Output { stderr: self.all.into_bytes(), ..output })
    }
}
