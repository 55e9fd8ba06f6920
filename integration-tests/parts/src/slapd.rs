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
    part: Option<Part>,
    dir: TempDir,
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
        let (port, tls_port) = (free_port()?, free_port()?);
        let mut made = Self { port, tls_port, authority, part: None, dir };
        made.tool("slapadd", &ldif)?;
        made.run()?;
        Ok(made)
    }

    /// Ends it; what it knows stays.
    pub fn stop(&mut self) {
        self.part = None;
    }

    /// Starts it again after its end.
    pub fn run(&mut self) -> anyhow::Result<()> {
        let config = self.config().display().to_string();
        let urls = format!("{} {}", self.ldap(), self.ldaps());
        // With a level given it stays in the foreground.
        let arguments = ["-d", "0", "-f", &config, "-h", &urls];
        self.part = Some(Part::start(Path::new("/usr/sbin/slapd"), &arguments, &[self.port, self.tls_port])?);
        Ok(())
    }

    /// Changes what is in it, as LDIF says. It is away for a moment.
    pub fn change(&mut self, ldif: &str) -> anyhow::Result<()> {
        self.stop();
        let file = self.dir.path().join("change.ldif");
        fs::write(&file, ldif)?;
        self.tool("slapmodify", &file)?;
        self.run()
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("slapd.conf")
    }

    /// One of those that work on the files of a server that doesn't run.
    fn tool(&self, name: &str, ldif: &Path) -> anyhow::Result<()> {
        let mut tool = Command::new(Path::new("/usr/sbin").join(name));
        tool.arg("-q").arg("-f").arg(self.config()).arg("-l").arg(ldif);
        let done =
            tool.output().with_context(|| format!("run {name}; integration-tests/install installs it"))?;
        if !done.status.success() {
            bail!("{name}: {}", String::from_utf8_lossy(&done.stderr));
        }
        Ok(())
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
