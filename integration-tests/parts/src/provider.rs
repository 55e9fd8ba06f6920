//! The npm package `oidc-provider`, with the people that `clients/oidc/provider.mjs` knows.

use std::path::{Path, PathBuf};

use anyhow::bail;
use tempfile::TempDir;

use crate::{Authority, Part, free_port, node_js};

/// Where names and groups are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claims {
    Token,
    Userinfo,
}

#[derive(Debug)]
pub struct Provider {
    /// By name: another site than a controller at 127.0.0.1, as providers are to browsers.
    pub issuer: String,
    authority: Authority,
    _part: Part,
    _dir: TempDir,
}

impl Provider {
    /// Client of an identity and a secret, and one of an identity alone.
    pub const CLIENT: (&str, &str) = ("horcrux", "s3cret: with+odd/chars%");
    pub const PUBLIC_CLIENT: &str = "horcrux-public";

    /// `redirect_url` is where it may send browsers.
    pub fn start(redirect_url: &str, claims: Claims) -> anyhow::Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/oidc");
        if !here.join("node_modules").exists() {
            bail!("{} is not installed: integration-tests/install does it", here.display());
        }
        let dir = tempfile::tempdir()?;
        let authority = Authority::make(dir.path())?;
        let port = free_port()?;
        let claims = match claims {
            Claims::Token => "token",
            Claims::Userinfo => "userinfo",
        };
        let script = here.join("provider.mjs").display().to_string();
        let (at, dir_name) = (port.to_string(), dir.path().display().to_string());
        let part = Part::start(&node_js(), &[&script, &at, &dir_name, redirect_url, claims], &[port])?;
        Ok(Self { issuer: format!("https://localhost:{port}"), authority, _part: part, _dir: dir })
    }

    #[must_use]
    pub fn authorities(&self) -> PathBuf {
        self.authority.ca()
    }
}
