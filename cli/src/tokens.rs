//! What opens a context's doors, in `tokens/<context>.json`: a session's tokens, or an API token. Everything in the file is
//! a secret.
//!
//! A refresh token works once, and using one again ends the session. So whoever refreshes holds the context's lock and
//! reads the file again under it: another process may have refreshed meanwhile.

use std::time::Duration;

use anyhow::Context as _;
use horcrux_proto::v1::TokenPair;
use horcrux_transport::secret::Secret;
use serde::{Deserialize, Serialize};

use crate::contexts::ContextName;
use crate::private::{Home, Lock};

/// Where one context's tokens are.
#[derive(Clone, Debug)]
pub struct TokenFile {
    home: Home,
    context: ContextName,
}

/// What is sent to show who calls.
#[derive(Clone, Debug)]
pub enum Credential {
    Session(Tokens),
    /// It is good until it ends or is revoked; nothing renews it.
    ApiToken(Secret),
}

/// A session's.
#[derive(Clone, Debug)]
pub struct Tokens {
    pub access: Secret,
    pub access_expires_unix_ms: i64,
    pub refresh: Secret,
}

/// The file: either the API token, or all of the rest.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Stored {
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_expires_unix_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_token: Option<String>,
}

/// An access token that ends within this time is not used: the request could arrive too late.
const MARGIN_MS: i64 = 30_000;

impl Tokens {
    /// Good for a request that is sent now, as far as our clock can tell.
    #[must_use]
    pub fn are_fresh(&self, now_ms: i64) -> bool {
        self.access_expires_unix_ms.saturating_sub(MARGIN_MS) > now_ms
    }
}

impl Credential {
    /// The session's tokens, where it is one.
    #[must_use]
    pub fn session(self) -> Option<Tokens> {
        match self {
            Self::Session(tokens) => Some(tokens),
            Self::ApiToken(_) => None,
        }
    }
}

impl Stored {
    /// `None`: it holds neither the one nor the other, or both.
    fn credential(self) -> Option<Credential> {
        match (self.access_token, self.access_expires_unix_ms, self.refresh_token, self.api_token) {
            (Some(access), Some(access_expires_unix_ms), Some(refresh), None) => {
                let (access, refresh) = (access.into(), refresh.into());
                Some(Credential::Session(Tokens { access, access_expires_unix_ms, refresh }))
            }
            (None, None, None, Some(token)) => Some(Credential::ApiToken(token.into())),
            _ => None,
        }
    }
}

impl From<&Credential> for Stored {
    fn from(credential: &Credential) -> Self {
        match credential {
            Credential::Session(tokens) => Self {
                access_token: Some(tokens.access.expose().to_owned()),
                access_expires_unix_ms: Some(tokens.access_expires_unix_ms),
                refresh_token: Some(tokens.refresh.expose().to_owned()),
                api_token: None,
            },
            Credential::ApiToken(token) => {
                Self { api_token: Some(token.expose().to_owned()), ..Self::default() }
            }
        }
    }
}

impl From<TokenPair> for Tokens {
    fn from(wire: TokenPair) -> Self {
        Self {
            access: wire.access_token.into(),
            access_expires_unix_ms: wire.access_expires_unix_ms,
            refresh: wire.refresh_token.into(),
        }
    }
}

impl TokenFile {
    #[must_use]
    pub fn new(home: &Home, context: &ContextName) -> Self {
        Self { home: home.clone(), context: context.clone() }
    }

    /// `None`: not signed in.
    pub fn read(&self) -> anyhow::Result<Option<Credential>> {
        let name = self.name();
        let Some(text) = self.home.read_secret(&name)? else { return Ok(None) };
        // The parser's error quotes no more than a position; a broken file is replaced by the next sign-in.
        let stored: Result<Stored, _> = serde_json::from_str(&text);
        let credential =
            stored.map_err(|e| anyhow::anyhow!("line {} column {}", e.line(), e.column())).and_then(
                |stored| stored.credential().context("a session's tokens or an API token must be there"),
            );
        let credential = credential.with_context(|| {
            let file = self.home.file(&name);
            format!("{} is damaged: sign in again with `horcruxctl login`", file.display())
        })?;
        Ok(Some(credential))
    }

    pub fn write(&self, credential: &Credential) -> anyhow::Result<()> {
        let text = serde_json::to_string(&Stored::from(credential)).context("write tokens as JSON")?;
        Ok(self.home.write(&self.name(), &text)?)
    }

    pub fn remove(&self) -> anyhow::Result<()> {
        Ok(self.home.remove(&self.name())?)
    }

    /// For refreshing and for signing in or out.
    pub async fn lock(&self, patience: Duration) -> anyhow::Result<Lock> {
        Ok(self.home.lock(&format!("tokens/{}.lock", self.context), patience).await?)
    }

    fn name(&self) -> String {
        format!("tokens/{}.json", self.context)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn tokens() -> Tokens {
        Tokens {
            access: "access-secret".to_owned().into(),
            access_expires_unix_ms: 600_000,
            refresh: "refresh-secret".to_owned().into(),
        }
    }

    #[test]
    fn tokens_are_kept_for_their_owner_alone_and_print_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("horcrux"));
        let file = TokenFile::new(&home, &"lab".parse().unwrap());
        assert!(file.read().unwrap().is_none());
        file.write(&Credential::Session(tokens())).unwrap();
        let mode = |name| fs::metadata(home.file(name)).unwrap().mode() & 0o777;
        assert_eq!((mode("tokens"), mode("tokens/lab.json")), (0o700, 0o600));
        let read = file.read().unwrap().unwrap().session().unwrap();
        assert_eq!(read.refresh.expose(), "refresh-secret");
        assert!(!format!("{read:?}").contains("secret\""));
        assert!(!format!("{read:?}").contains("access-secret"));
        file.remove().unwrap();
        assert!(file.read().unwrap().is_none());
    }

    #[test]
    fn an_api_token_is_kept_in_a_sessions_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = TokenFile::new(&Home::at(dir.path()), &"lab".parse().unwrap());
        file.write(&Credential::Session(tokens())).unwrap();
        file.write(&Credential::ApiToken("hxt_secret".to_owned().into())).unwrap();
        let read = file.read().unwrap().unwrap();
        assert!(!format!("{read:?}").contains("hxt_"));
        assert!(matches!(read, Credential::ApiToken(token) if token.expose() == "hxt_secret"));
    }

    #[test]
    fn a_damaged_file_is_not_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        for wrong in [
            r#"{"access_token": "access-secret", "x": 1}"#,
            r#"{"access_token": "access-secret", "api_token": "access-secret"}"#,
            r#"{"access_token": "access-secret"}"#,
            "{}",
        ] {
            home.write("tokens/lab.json", wrong).unwrap();
            let error = TokenFile::new(&home, &"lab".parse().unwrap()).read().unwrap_err();
            let text = format!("{error:#}");
            assert!(text.contains("sign in again") && !text.contains("access-secret"), "{text}");
        }
    }

    #[test]
    fn a_token_that_is_about_to_end_is_not_used() {
        assert!(tokens().are_fresh(569_999));
        assert!(!tokens().are_fresh(570_000));
    }
}
