//! OpenLDAP's server with people and groups for tests.
//!
//! Everybody's password is their name and `-pw`. Who may search: `cn=service,dc=test`, password `service-pw`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::{Authority, Part, free_port};

/// What the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    Newest,
    /// As older directories do.
    V12Only,
}

#[derive(Debug)]
pub struct Slapd {
    pub port: u16,
    pub tls_port: u16,
    authority: Authority,
    // Ends before its directory goes.
    _part: Part,
    _dir: TempDir,
}

impl Slapd {
    pub fn start(tls: Tls) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let authority = Authority::make(dir.path())?;
        fs::create_dir(dir.path().join("db"))?;
        let config = dir.path().join("slapd.conf");
        let ciphers = match tls {
            Tls::Newest => "NORMAL",
            Tls::V12Only => "NORMAL:-VERS-TLS1.3",
        };
        let here = dir.path().display().to_string();
        let text = include_str!("slapd.conf").replace("DIR", &here).replace("CIPHERS", ciphers);
        fs::write(&config, text)?;
        let ldif = dir.path().join("people.ldif");
        fs::write(&ldif, people()?)?;
        let mut load = Command::new("/usr/sbin/slapadd");
        load.arg("-q").arg("-f").arg(&config).arg("-l").arg(&ldif);
        let loaded = load.output().context("run slapadd; integration-tests/install installs it")?;
        if !loaded.status.success() {
            bail!("slapadd: {}", String::from_utf8_lossy(&loaded.stderr));
        }
        let (port, tls_port) = (free_port()?, free_port()?);
        let config = config.display().to_string();
        let urls = format!("ldap://127.0.0.1:{port} ldaps://127.0.0.1:{tls_port}");
        // With a level given it stays in the foreground.
        let arguments = ["-d", "0", "-f", &config, "-h", &urls];
        let part = Part::start(Path::new("/usr/sbin/slapd"), &arguments, &[port, tls_port])?;
        Ok(Self { port, tls_port, authority, _part: part, _dir: dir })
    }

    /// With TLS from the start.
    #[must_use]
    pub fn ldaps(&self) -> String {
        format!("ldaps://127.0.0.1:{}", self.tls_port)
    }

    /// For StartTLS.
    #[must_use]
    pub fn ldap(&self) -> String {
        format!("ldap://127.0.0.1:{}", self.port)
    }

    #[must_use]
    pub fn authorities(&self) -> PathBuf {
        self.authority.ca()
    }
}

fn people() -> anyhow::Result<String> {
    let mut text = include_str!("people.ldif").to_owned();
    // More groups than anybody can be in.
    for number in 0..=1000 {
        write!(
            text,
            "\ndn: cn=g{number},ou=posix,dc=test\nobjectClass: posixGroup\ncn: g{number}\n\
             gidNumber: {number}\nmemberUid: many\n"
        )?;
    }
    Ok(text)
}
