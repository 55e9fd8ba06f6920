//! Who this node is: its key, its certificate and the controller that gave it, in the state directory, files 0600.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use horcrux_proto::agent::v1::Certificate;
use horcrux_transport::client::{Identity, Target};
use horcrux_transport::files;
use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};

/// An enrolled node.
#[derive(Debug)]
pub struct Enrolled {
    pub facts: Facts,
    /// The authorities that the controller's certificate may come from, in DER.
    pub authorities: Vec<Vec<u8>>,
    leaf: Vec<u8>,
    key: Vec<u8>,
}

/// What isn't secret, as kept in `node.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    /// `nodes/{node}`.
    pub node: String,
    pub controller_host: String,
    pub agents_port: u16,
    pub certificate_expires_unix_ms: i64,
}

/// A key that has no certificate yet, and the request for one.
#[derive(Debug)]
pub struct NewKey {
    key: Vec<u8>,
    /// PKCS #10 in DER.
    pub request: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("this node is not enrolled: run `horcrux-agentd enroll`")]
    NotEnrolled,
    #[error("this node is enrolled already, as {0}")]
    AlreadyEnrolled(String),
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("make a key")]
    Key(#[source] rcgen::Error),
}

const FACTS: &str = "node.toml";
const KEY: &str = "node-key.der";
const LEAF: &str = "node.der";
const AUTHORITIES: &str = "authorities.bin";
/// Kept until its certificate is here, so that an enrollment whose answer was lost can be tried again with the same key.
const PENDING: &str = "node-key.pending";

impl Enrolled {
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join(FACTS);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(IdentityError::NotEnrolled),
            Err(source) => return Err(IdentityError::Read { path, source }),
        };
        let facts = toml::from_str(&text)
            .map_err(|e| IdentityError::Damaged { path, reason: e.message().to_owned() })?;
        let authorities = split(&read(&dir.join(AUTHORITIES))?);
        Ok(Self { facts, authorities, leaf: read(&dir.join(LEAF))?, key: read(&dir.join(KEY))? })
    }

    /// For a controller to see.
    #[must_use]
    pub fn shown(&self) -> Identity {
        Identity::from_der(vec![self.leaf.clone()], self.key.clone())
    }

    #[must_use]
    pub fn target(&self) -> Target {
        Target { host: self.facts.controller_host.clone(), port: self.facts.agents_port }
    }
}

impl NewKey {
    /// The key of an enrollment that is under way, or a new one.
    pub fn pending(dir: &Path) -> Result<Self, IdentityError> {
        if let Ok(enrolled) = Enrolled::load(dir) {
            return Err(IdentityError::AlreadyEnrolled(enrolled.facts.node));
        }
        private_dir(dir)?;
        let path = dir.join(PENDING);
        match fs::read(&path) {
            Ok(der) => {
                KeyPair::try_from(der.as_slice()).and_then(|key| Self::of(&key)).map_err(IdentityError::Key)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let new = Self::generate()?;
                write(&path, &new.key)?;
                Ok(new)
            }
            Err(source) => Err(IdentityError::Read { path, source }),
        }
    }

    pub fn generate() -> Result<Self, IdentityError> {
        KeyPair::generate().and_then(|key| Self::of(&key)).map_err(IdentityError::Key)
    }

    fn of(key: &KeyPair) -> Result<Self, rcgen::Error> {
        let request = CertificateParams::default().serialize_request(key)?;
        Ok(Self { key: key.serialize_der(), request: request.der().to_vec() })
    }

    /// Keeps the certificate that was issued for this key. From here on it is the node's.
    pub fn certified(
        self,
        dir: &Path,
        certificate: &Certificate,
        facts: &Facts,
    ) -> Result<(), IdentityError> {
        write(&dir.join(KEY), &self.key)?;
        write(&dir.join(LEAF), &certificate.leaf)?;
        write(&dir.join(AUTHORITIES), &join(&certificate.authorities))?;
        let path = dir.join(FACTS);
        let text = toml::to_string(facts)
            .map_err(|e| IdentityError::Damaged { path: path.clone(), reason: e.to_string() })?;
        // Last: its presence says that the others are there.
        write(&path, text.as_bytes())?;
        let path = dir.join(PENDING);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(IdentityError::Write { path, source })
            }
            _ => Ok(()),
        }
    }
}

fn private_dir(path: &Path) -> Result<(), IdentityError> {
    files::private_dir(path).map_err(|source| IdentityError::Write { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    fs::read(path).map_err(|source| IdentityError::Read { path: path.to_owned(), source })
}

fn write(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    files::write_private(path, content)
        .map_err(|source| IdentityError::Write { path: path.to_owned(), source })
}

/// Certificates one after the other, each behind its length in four bytes.
fn join(parts: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        let part = part.as_ref();
        out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let Some((part, rest)) =
            usize::try_from(u32::from_be_bytes(*length)).ok().and_then(|n| rest.split_at_checked(n))
        else {
            break;
        };
        parts.push(part.to_vec());
        bytes = rest;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enrollment_that_is_tried_again_uses_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let first = NewKey::pending(dir.path()).unwrap();
        assert_eq!(NewKey::pending(dir.path()).unwrap().key, first.key);
    }

    #[test]
    fn what_was_kept_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Enrolled::load(dir.path()), Err(IdentityError::NotEnrolled)));
        let certificate = Certificate {
            leaf: vec![1].into(),
            authorities: vec![vec![2, 3].into(), vec![4].into()],
            expires_unix_ms: 5,
        };
        let facts = Facts {
            node: "nodes/a".into(),
            controller_host: "h".into(),
            agents_port: 7,
            certificate_expires_unix_ms: 5,
        };
        NewKey::pending(dir.path()).unwrap().certified(dir.path(), &certificate, &facts).unwrap();
        let enrolled = Enrolled::load(dir.path()).unwrap();
        assert_eq!(enrolled.authorities, vec![vec![2, 3], vec![4]]);
        assert_eq!(enrolled.facts.node, "nodes/a");
        assert!(!dir.path().join(PENDING).exists());
        assert!(matches!(NewKey::pending(dir.path()), Err(IdentityError::AlreadyEnrolled(_))));
    }
}
