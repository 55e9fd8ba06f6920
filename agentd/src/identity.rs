//! Who this node is: its key, its certificate and the controller that gave it, in the state directory, files 0600.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use horcrux_proto::agent::v1::Certificate;
use horcrux_transport::client::{Connect, Identity, Target, Trust};
use horcrux_transport::error::Chain;
use horcrux_transport::files;
use horcrux_transport::tls::{self, CONTROLLER_NAME};
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
    #[error("the controller issued a certificate that is of no use: {0}")]
    Unusable(String),
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
        let key_path = dir.join(KEY);
        let key = files::read_private(&key_path)
            .map_err(|source| IdentityError::Read { path: key_path, source })?;
        let enrolled = Self { facts, authorities, leaf: read(&dir.join(LEAF))?, key };
        enrolled.check(dir)?;
        Ok(enrolled)
    }

    fn check(&self, dir: &Path) -> Result<(), IdentityError> {
        let parts = format!("{LEAF}, {KEY} or {AUTHORITIES}");
        self.shown().check_as_client(&self.authorities).map_err(|error| IdentityError::Damaged {
            path: dir.to_owned(),
            reason: format!("{parts}: {}", Chain(&error)),
        })
    }

    /// For a controller to see.
    fn shown(&self) -> Identity {
        Identity::from_der(vec![self.leaf.clone()], self.key.clone())
    }

    /// How to dial this node's controller.
    #[must_use]
    pub fn connect(&self, deadline: Duration) -> Connect {
        let target = Target { host: self.facts.controller_host.clone(), port: self.facts.agents_port };
        Connect {
            server_name: Some(CONTROLLER_NAME),
            identity: Some(Arc::new(self.shown())),
            ..Connect::new(target, Trust::Authorities(self.authorities.clone()), deadline)
        }
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

    /// Keeps the certificate that was issued for this key, once it is found good. From here on it is the node's.
    pub fn certified(
        self,
        dir: &Path,
        certificate: &Certificate,
        facts: &Facts,
    ) -> Result<(), IdentityError> {
        let new = Enrolled {
            facts: facts.clone(),
            authorities: certificate.authorities.iter().map(|der| der.to_vec()).collect(),
            leaf: certificate.leaf.to_vec(),
            key: self.key,
        };
        let usable = new.shown().check_as_client(&new.authorities);
        usable.map_err(|error| IdentityError::Unusable(Chain(&error).to_string()))?;
        if let Ok(old) = Enrolled::load(dir)
            && tls::name_of(&old.leaf).ok() != tls::name_of(&new.leaf).ok()
        {
            return Err(IdentityError::Unusable("it is for another node".to_owned()));
        }
        write(&dir.join(KEY), &new.key)?;
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
    use rcgen::{
        BasicConstraints, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer, SanType,
    };

    use super::*;

    #[test]
    fn an_enrollment_that_is_tried_again_uses_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let first = NewKey::pending(dir.path()).unwrap();
        assert_eq!(NewKey::pending(dir.path()).unwrap().key, first.key);
    }

    /// A certificate as a controller of the authority `ca` issues it for the key in `dir`.
    fn issued(key: &NewKey, ca: &Issuer<'_, KeyPair>, ca_der: &[u8], name: &str) -> Certificate {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://c/node/{name}").try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let request = CertificateSigningRequestParams::from_der(&key.request.clone().into()).unwrap();
        let leaf = params.signed_by(&request.public_key, ca).unwrap();
        Certificate {
            leaf: leaf.der().to_vec().into(),
            authorities: vec![ca_der.to_vec().into()],
            expires_unix_ms: 5,
            generation: 1,
        }
    }

    fn authority() -> (Vec<u8>, Issuer<'static, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = params.self_signed(&key).unwrap().der().to_vec();
        (der, Issuer::new(params, key))
    }

    fn facts() -> Facts {
        Facts {
            node: "nodes/a".into(),
            controller_host: "h".into(),
            agents_port: 7,
            certificate_expires_unix_ms: 5,
        }
    }

    /// Node `a`, with its authority.
    fn enrolled_in(dir: &Path) -> (Vec<u8>, Issuer<'static, KeyPair>, Certificate) {
        let (ca_der, ca) = authority();
        let key = NewKey::pending(dir).unwrap();
        let certificate = issued(&key, &ca, &ca_der, "a");
        key.certified(dir, &certificate, &facts()).unwrap();
        (ca_der, ca, certificate)
    }

    #[test]
    fn what_was_kept_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Enrolled::load(dir.path()), Err(IdentityError::NotEnrolled)));
        let (ca_der, ..) = enrolled_in(dir.path());
        let enrolled = Enrolled::load(dir.path()).unwrap();
        assert_eq!(enrolled.authorities, vec![ca_der]);
        assert_eq!(enrolled.facts.node, "nodes/a");
        assert!(!dir.path().join(PENDING).exists());
        assert!(matches!(NewKey::pending(dir.path()), Err(IdentityError::AlreadyEnrolled(_))));
    }

    #[test]
    fn a_certificate_that_is_of_no_use_replaces_none() {
        let dir = tempfile::tempdir().unwrap();
        let (ca_der, ca, good) = enrolled_in(dir.path());
        let before = fs::read(dir.path().join(LEAF)).unwrap();
        let (other_der, _) = authority();
        let refused = |change: &dyn Fn(&mut Certificate, &NewKey)| {
            let key = NewKey::generate().unwrap();
            let mut certificate = issued(&key, &ca, &ca_der, "a");
            change(&mut certificate, &key);
            key.certified(dir.path(), &certificate, &facts()).is_err()
        };
        assert!(refused(&|c, _| c.leaf = b"garbage".to_vec().into()));
        assert!(refused(&|c, _| c.leaf = good.leaf.clone()), "another key's");
        assert!(refused(&|c, _| c.authorities = vec![other_der.clone().into()]), "signed by none of these");
        assert!(refused(&|c, key| *c = issued(key, &ca, &ca_der, "b")), "another node's");
        assert_eq!(fs::read(dir.path().join(LEAF)).unwrap(), before);
        assert!(!refused(&|_, _| {}));
    }

    #[test]
    fn a_damaged_part_is_told_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        enrolled_in(dir.path());
        fs::write(dir.path().join(LEAF), b"").unwrap();
        let told = Enrolled::load(dir.path()).unwrap_err().to_string();
        assert!(told.contains(LEAF), "{told}");
    }
}
