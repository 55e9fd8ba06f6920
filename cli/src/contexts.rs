//! Which controllers are known, whom each is trusted by, and which one is meant: `contexts.toml`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use horcrux_transport::client::{Pin, Target, Trust};
use horcrux_transport::tls;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::private::{FileError, Home, Lock};

/// A context's name: 1 to 64 of `A-Z a-z 0-9 . _ : -`, starting with a letter or digit. It is part of a file's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContextName(String);

/// One controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Context {
    pub url: String,
    pub user: Option<String>,
    pub trust: Trusted,
}

/// Whom the controller's certificate must come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// The authority whose public key has this fingerprint.
    Fingerprint(String),
    /// One of those in this file of the configuration directory.
    Authorities(String),
}

/// All of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<ContextName>,
    #[serde(default, rename = "context")]
    pub contexts: BTreeMap<ContextName, Context>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a context's name is 1 to 64 of A-Z a-z 0-9 . _ : -, starting with a letter or digit")]
pub struct InvalidContextName;

/// A context as the file has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorities: Option<String>,
}

const FILE: &str = "contexts.toml";
const LOCK: &str = "contexts.lock";
/// Writers of the file hold it for milliseconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

impl ContextName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For a controller that no name was given for: its host, and the port where it is not the usual one.
    #[must_use]
    pub fn of(target: &Target) -> Self {
        let host: String = target
            .host
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
            .collect();
        let host = host.trim_start_matches(['-', '.']);
        let name = if target.port == horcrux_transport::client::DEFAULT_PUBLIC_PORT {
            host.to_owned()
        } else {
            format!("{host}-{}", target.port)
        };
        name.parse().unwrap_or_else(|_| Self("controller".to_owned()))
    }
}

impl FromStr for ContextName {
    type Err = InvalidContextName;

    fn from_str(text: &str) -> Result<Self, InvalidContextName> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
            && text.starts_with(|c: char| c.is_ascii_alphanumeric());
        fits.then(|| Self(text.to_owned())).ok_or(InvalidContextName)
    }
}

impl TryFrom<String> for ContextName {
    type Error = InvalidContextName;

    fn try_from(text: String) -> Result<Self, InvalidContextName> {
        text.parse()
    }
}

impl From<ContextName> for String {
    fn from(name: ContextName) -> Self {
        name.0
    }
}

impl fmt::Display for ContextName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<Stored> for Context {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        let trust = match (stored.fingerprint, stored.authorities) {
            (Some(pin), None) => Trusted::Fingerprint(pin),
            (None, Some(file)) => Trusted::Authorities(file),
            (None, None) | (Some(_), Some(_)) => {
                return Err("a context has either a fingerprint or authorities");
            }
        };
        Ok(Self { url: stored.url, user: stored.user, trust })
    }
}

impl From<Context> for Stored {
    fn from(context: Context) -> Self {
        let (fingerprint, authorities) = match context.trust {
            Trusted::Fingerprint(pin) => (Some(pin), None),
            Trusted::Authorities(file) => (None, Some(file)),
        };
        Self { url: context.url, user: context.user, fingerprint, authorities }
    }
}

impl Context {
    pub fn target(&self) -> Result<Target, Failure> {
        self.url.parse().map_err(|e| Failure::connecting(&e))
    }

    pub fn trust(&self, home: &Home) -> Result<Trust, Failure> {
        match &self.trust {
            Trusted::Fingerprint(text) => {
                let pin: Pin = text.parse().map_err(|e| {
                    Failure::Usage(format!(
                        "{}: {e}: sign in again with `horcruxctl login`",
                        home.file(FILE).display()
                    ))
                })?;
                Ok(Trust::Pinned(pin))
            }
            Trusted::Authorities(name) => {
                let der = tls::authorities(&home.file(name)).map_err(anyhow::Error::from)?;
                Ok(Trust::Authorities(der))
            }
        }
    }
}

impl Contexts {
    pub fn read(home: &Home) -> Result<Self, Failure> {
        let Some(text) = home.read(FILE).map_err(anyhow::Error::from)? else {
            return Ok(Self::default());
        };
        toml::from_str(&text).map_err(|error| {
            Failure::Usage(format!("{} is not as expected: {error}", home.file(FILE).display()))
        })
    }

    /// Changes the file, with nobody else changing it meanwhile.
    pub async fn change<T>(
        home: &Home,
        change: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let _lock: Lock = home.lock(LOCK, LOCK_PATIENCE).await.map_err(anyhow::Error::from)?;
        let mut contexts = Self::read(home)?;
        let result = change(&mut contexts)?;
        contexts.write(home).map_err(anyhow::Error::from)?;
        Ok(result)
    }

    fn write(&self, home: &Home) -> Result<(), FileError> {
        let text = toml::to_string_pretty(self).map_err(|error| FileError::Write {
            path: home.file(FILE),
            source: std::io::Error::other(error),
        })?;
        home.write(FILE, &text)
    }

    /// The one asked for, or the current one.
    pub fn chosen(&self, asked: Option<&ContextName>) -> Result<(&ContextName, &Context), Failure> {
        let Some(name) = asked.or(self.current.as_ref()) else {
            return Err(Failure::NotSignedIn {
                url: "https://HOST".to_owned(),
                why: "no context is chosen".to_owned(),
            });
        };
        self.contexts.get_key_value(name).ok_or_else(|| unknown(name))
    }

    /// The context of a controller.
    #[must_use]
    pub fn of_url(&self, url: &str) -> Option<&ContextName> {
        self.contexts.iter().find(|(_, context)| context.url == url).map(|(name, _)| name)
    }
}

/// There is no such context.
#[must_use]
pub fn unknown(name: &ContextName) -> Failure {
    Failure::NotFound(format!("no context is called {name}: `horcruxctl context list` shows all"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        (dir, home)
    }

    fn context(url: &str) -> Context {
        Context {
            url: url.to_owned(),
            user: Some("admin".to_owned()),
            trust: Trusted::Fingerprint("ab".repeat(32)),
        }
    }

    #[tokio::test]
    async fn contexts_survive_a_round_trip() {
        let (_dir, home) = home();
        let name: ContextName = "lab".parse().unwrap();
        Contexts::change(&home, |contexts| {
            contexts.contexts.insert(name.clone(), context("https://web1:8006"));
            contexts.contexts.insert(
                "ca".parse().unwrap(),
                Context {
                    trust: Trusted::Authorities("authorities/ca.pem".into()),
                    ..context("https://web2:8006")
                },
            );
            contexts.current = Some(name.clone());
            Ok(())
        })
        .await
        .unwrap();
        let read = Contexts::read(&home).unwrap();
        assert_eq!(read.chosen(None).unwrap().1, &context("https://web1:8006"));
        assert_eq!(read.of_url("https://web2:8006").unwrap().as_str(), "ca");
        let asked: ContextName = "other".parse().unwrap();
        assert!(matches!(read.chosen(Some(&asked)), Err(Failure::NotFound(_))));
    }

    #[test]
    fn an_unknown_key_is_refused_and_named() {
        let (_dir, home) = home();
        for wrong in [
            "colour = \"red\"\n",
            "[context.a]\nurl = \"https://a\"\nfingerprint = \"00\"\ninsecure = true\n",
            "[context.a]\nurl = \"https://a\"\n",
            "[context.\"../a\"]\nurl = \"https://a\"\nfingerprint = \"00\"\n",
        ] {
            home.write(FILE, wrong).unwrap();
            let failure = Contexts::read(&home).unwrap_err();
            assert!(failure.to_string().contains("contexts.toml"), "{failure}");
        }
    }

    #[test]
    fn a_context_is_named_after_its_controller() {
        let name = |url: &str| ContextName::of(&url.parse().unwrap()).to_string();
        assert_eq!(name("https://web1.example"), "web1.example");
        assert_eq!(name("https://web1:9000"), "web1-9000");
        assert_eq!(name("https://[::1]"), "1");
        assert_eq!(name("https://[fe80::1]:1"), "fe80--1-1");
        for wrong in ["", ".a", "-a", "a/b", "..", "a b"] {
            assert!(wrong.parse::<ContextName>().is_err(), "{wrong}");
        }
    }
}
