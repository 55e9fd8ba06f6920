//! Controllers that this user signed in to, and the tokens: `$XDG_CONFIG_HOME/horcrux`, readable by the user alone.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

/// All contexts.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) context: BTreeMap<String, Entry>,
}

/// One controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) url: String,
    pub(crate) user: String,
    /// Of the authority that was trusted at the first sign-in.
    pub(crate) fingerprint: String,
}

/// A session's tokens. Never printed.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Tokens {
    pub(crate) access_token: String,
    pub(crate) access_expires_unix_ms: i64,
    pub(crate) refresh_token: String,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

/// Where all of it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Home(PathBuf);

impl Home {
    pub(crate) fn find() -> anyhow::Result<Self> {
        let base = match (std::env::var_os("XDG_CONFIG_HOME"), std::env::var_os("HOME")) {
            (Some(config), _) if !config.is_empty() => PathBuf::from(config),
            (_, Some(home)) if !home.is_empty() => PathBuf::from(home).join(".config"),
            _ => bail!("neither XDG_CONFIG_HOME nor HOME says where to keep tokens"),
        };
        Ok(Self(base.join("horcrux")))
    }

    pub(crate) fn contexts(&self) -> anyhow::Result<Contexts> {
        let path = self.0.join("contexts.toml");
        match fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("read {}", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Contexts::default()),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    pub(crate) fn save(&self, contexts: &Contexts) -> anyhow::Result<()> {
        write(&self.0.join("contexts.toml"), toml::to_string(contexts)?.as_bytes())
    }

    pub(crate) fn tokens(&self, context: &str) -> anyhow::Result<Option<Tokens>> {
        let path = self.token_file(context);
        match fs::read_to_string(&path) {
            Ok(text) => {
                serde_json::from_str(&text).with_context(|| format!("read {}", path.display())).map(Some)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    pub(crate) fn save_tokens(&self, context: &str, tokens: &Tokens) -> anyhow::Result<()> {
        write(&self.token_file(context), serde_json::to_string(tokens)?.as_bytes())
    }

    pub(crate) fn forget_tokens(&self, context: &str) -> anyhow::Result<()> {
        match fs::remove_file(self.token_file(context)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("forget tokens"),
            _ => Ok(()),
        }
    }

    /// Held while tokens are refreshed: a refresh token works once, and two commands may run at once.
    pub(crate) fn lock(&self, context: &str) -> anyhow::Result<File> {
        let path = self.token_file(context).with_extension("lock");
        make_dir(&path)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
        file.lock().with_context(|| format!("lock {}", path.display()))?;
        Ok(file)
    }

    fn token_file(&self, context: &str) -> PathBuf {
        // A context's name is what a URL or a person gave: it must not lead elsewhere.
        let safe: String =
            context.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        self.0.join("tokens").join(format!("{safe}.json"))
    }
}

fn make_dir(path: &Path) -> anyhow::Result<()> {
    let dir = path.parent().context("a file has a directory")?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("make {}", dir.display()))
}

/// Whole or not at all, mode 0600.
fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    make_dir(path)?;
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    })();
    written.with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn tokens_are_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home(dir.path().join("horcrux"));
        let tokens = Tokens {
            access_token: "a".into(),
            access_expires_unix_ms: 1,
            refresh_token: "secret-part".into(),
        };
        home.save_tokens("../x", &tokens).unwrap();
        let file = dir.path().join("horcrux/tokens/___x.json");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let folder = fs::metadata(dir.path().join("horcrux/tokens")).unwrap();
        assert_eq!(folder.permissions().mode() & 0o777, 0o700);
        assert_eq!(home.tokens("../x").unwrap().unwrap().refresh_token, "secret-part");
        assert!(!format!("{tokens:?}").contains("secret-part"));
    }

    #[test]
    fn a_context_file_with_an_unknown_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("contexts.toml"), "curent = 'x'").unwrap();
        assert!(Home(dir.path().to_owned()).contexts().is_err());
    }
}
