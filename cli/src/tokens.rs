//! The tokens of one context, in `tokens/<context>.json`. Everything in the file is a secret.
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

/// What opens a session's doors.
#[derive(Clone, Debug)]
pub struct Tokens {
    pub access: Secret,
    pub access_expires_unix_ms: i64,
    pub refresh: Secret,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    access_token: String,
    access_expires_unix_ms: i64,
    refresh_token: String,
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
    pub fn read(&self) -> anyhow::Result<Option<Tokens>> {
        let name = self.name();
        let Some(text) = self.home.read_secret(&name)? else { return Ok(None) };
        // The parser's error quotes no more than a position; a broken file is replaced by the next sign-in.
        let stored: Stored = serde_json::from_str(&text)
            .map_err(|e| anyhow::anyhow!("line {} column {}", e.line(), e.column()))
            .with_context(|| {
                format!(
                    "{} is damaged: sign in again with `horcruxctl login`",
                    self.home.file(&name).display()
                )
            })?;
        Ok(Some(Tokens {
            access: stored.access_token.into(),
            access_expires_unix_ms: stored.access_expires_unix_ms,
            refresh: stored.refresh_token.into(),
        }))
    }

    pub fn write(&self, tokens: &Tokens) -> anyhow::Result<()> {
        let stored = Stored {
            access_token: tokens.access.expose().to_owned(),
            access_expires_unix_ms: tokens.access_expires_unix_ms,
            refresh_token: tokens.refresh.expose().to_owned(),
        };
        let text = serde_json::to_string(&stored).context("write tokens as JSON")?;
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
        file.write(&tokens()).unwrap();
        let mode = |name| fs::metadata(home.file(name)).unwrap().mode() & 0o777;
        assert_eq!((mode("tokens"), mode("tokens/lab.json")), (0o700, 0o600));
        let read = file.read().unwrap().unwrap();
        assert_eq!(read.refresh.expose(), "refresh-secret");
        assert!(!format!("{read:?}").contains("secret\""));
        assert!(!format!("{read:?}").contains("access-secret"));
        file.remove().unwrap();
        assert!(file.read().unwrap().is_none());
    }

    #[test]
    fn a_damaged_file_is_not_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        home.write("tokens/lab.json", "{\"access_token\": \"access-secret\", \"x\": 1}").unwrap();
        let error = TokenFile::new(&home, &"lab".parse().unwrap()).read().unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("sign in again") && !text.contains("access-secret"), "{text}");
    }

    #[test]
    fn a_token_that_is_about_to_end_is_not_used() {
        assert!(tokens().are_fresh(569_999));
        assert!(!tokens().are_fresh(570_000));
    }
}
