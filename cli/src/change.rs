//! How anything is changed: with an id of its own, for real or only asked about, and after a person agreed where it can't
//! be taken back.

use std::fs::File;
use std::future::Future;
use std::io::Read as _;

use anyhow::Context as _;

use crate::App;
use crate::args::change::{ChangeArgs, RemovalArgs};
use crate::failure::Failure;
use crate::prompt;
use crate::view::View;

/// What a request is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Say whether it would be done.
    Check,
    Change,
}

/// A change in words: `delete`, `deleted`, and what is deleted.
#[derive(Clone, Debug)]
pub struct Deed {
    pub plain: &'static str,
    pub past: &'static str,
    pub what: String,
}

impl Run {
    #[must_use]
    pub fn of(change: ChangeArgs) -> Self {
        if change.dry_run { Self::Check } else { Self::Change }
    }

    /// As requests have it.
    #[must_use]
    pub fn validate_only(self) -> bool {
        self == Self::Check
    }
}

impl Deed {
    #[must_use]
    pub fn new(plain: &'static str, past: &'static str, what: impl Into<String>) -> Self {
        Self { plain, past, what: what.into() }
    }

    /// For people.
    #[must_use]
    pub fn told(&self, run: Run) -> String {
        match run {
            Run::Check => format!("would {} {}", self.plain, self.what),
            Run::Change => format!("{} {}", self.past, self.what),
        }
    }
}

impl App {
    /// Says what was done, and prints what came of it; of a check there is nothing to print.
    pub fn done(&self, run: Run, deed: &Deed, made: Option<&impl View>) -> Result<(), Failure> {
        self.say(&deed.told(run));
        match (run, made) {
            (Run::Change, Some(made)) => self.print(made),
            (Run::Change, None) | (Run::Check, _) => Ok(()),
        }
    }

    /// Does what takes something from somebody. Before a person is asked, the controller is: a question about something
    /// that doesn't exist, or isn't theirs to decide, helps nobody.
    pub async fn remove<T, F>(
        &self,
        args: RemovalArgs,
        question: &str,
        deed: &Deed,
        request: impl Fn(Run, String) -> F,
    ) -> Result<(), Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        self.remove_with(args, question, deed, async || Ok(String::new()), request).await.map(drop)
    }

    /// As [`App::remove`]; what goes `with` it is told with a dry run, and before the question. Returns the answer to the
    /// last request.
    pub async fn remove_with<T, F>(
        &self,
        args: RemovalArgs,
        question: &str,
        deed: &Deed,
        with: impl AsyncFnOnce() -> Result<String, Failure>,
        request: impl Fn(Run, String) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let run = Run::of(args.change);
        let asks = run == Run::Change && !args.yes;
        let checked =
            if asks || run == Run::Check { Some(request(Run::Check, request_id()?).await?) } else { None };
        if checked.is_some() {
            let with = with().await?;
            if !with.is_empty() {
                self.say(&with);
            }
        }
        if asks {
            consent(question)?;
        }
        let done = match checked {
            Some(checked) if run == Run::Check => checked,
            Some(_) | None => request(run, request_id()?).await?,
        };
        self.say(&deed.told(run));
        Ok(done)
    }
}

/// Asks a person; an error where they don't agree.
pub fn consent(question: &str) -> Result<(), Failure> {
    if prompt::agrees(question, "--yes")? {
        Ok(())
    } else {
        Err(Failure::Refused("nothing was changed".to_owned()))
    }
}

/// 128 random bits: the same request sent twice is done once.
pub fn request_id() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    let random = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    random.context("read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_differ() {
        let (one, two) = (request_id().unwrap(), request_id().unwrap());
        assert_eq!(one.len(), 32);
        assert_ne!(one, two);
    }

    #[test]
    fn a_dry_run_says_would() {
        let deed = Deed::new("delete", "deleted", "the group ops");
        assert_eq!(deed.told(Run::Check), "would delete the group ops");
        assert_eq!(deed.told(Run::Change), "deleted the group ops");
    }
}
