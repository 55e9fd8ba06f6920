//! Who this node is: its key, its certificate and the controller that gave it, in the state directory, files 0600.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use horcrux_proto::agent::v1::Certificate;
use horcrux_transport::client::{Connect, Identity, Target, Trust};
use horcrux_transport::error::Chain;
use horcrux_transport::tls::{self, CONTROLLER_NAME};
use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};

mod kept;
#[cfg(test)]
mod tests;

pub use kept::{Change, Stamp};

/// An enrolled node.
#[derive(Clone, Debug)]
pub struct Enrolled {
    pub facts: Facts,
    /// The authorities that the controller's certificate may come from, in DER.
    pub authorities: Vec<Vec<u8>>,
    leaf: Vec<u8>,
    key: Key,
}

/// What isn't secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// `nodes/{node}`.
    pub node: String,
    pub controller_host: String,
    /// Where it enrolled, for enrolling again; agents before this didn't keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller_port: Option<u16>,
    pub agents_port: u16,
    pub certificate_expires_unix_ms: i64,
    /// How often the controller renewed it, and 1; 0 when not known.
    #[serde(default)]
    pub generation: u64,
}

/// A key that has no certificate yet, and the request for one.
#[derive(Debug)]
pub struct NewKey {
    key: Key,
    /// PKCS #10 in DER.
    pub request: Vec<u8>,
}

/// PKCS #8 in DER.
#[derive(Clone, PartialEq, Eq)]
struct Key(Vec<u8>);

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("this node is not enrolled: run `horcrux-agentd enroll`")]
    NotEnrolled,
    #[error("another process is changing this node's identity: wait until it ends")]
    Busy,
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

/// Changes when another identity takes the place of the one in `dir`; `None` when there is none.
#[must_use]
pub fn stamp(dir: &Path) -> Option<Stamp> {
    kept::stamp(dir)
}

impl Enrolled {
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let enrolled = kept::read(dir)?;
        enrolled.check().map_err(|reason| IdentityError::Damaged { path: dir.join(kept::FILE), reason })?;
        Ok(enrolled)
    }

    fn check(&self) -> Result<(), String> {
        let good = self.shown().check_as_client(&self.authorities).and_then(|()| tls::name_of(&self.leaf));
        good.map(drop).map_err(|error| format!("its certificate, key and authorities: {}", Chain(&error)))
    }

    /// For a controller to see.
    fn shown(&self) -> Identity {
        Identity::from_der(vec![self.leaf.clone()], self.key.0.clone())
    }

    /// Whether both show the same certificate.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.leaf == other.leaf
    }

    /// `spiffe://{cluster}/node/{id}`: which node it is, whatever it is called.
    #[must_use]
    pub fn id(&self) -> String {
        // One without a name isn't loaded.
        tls::name_of(&self.leaf).unwrap_or_default()
    }

    #[must_use]
    pub fn has_ended(&self, now_unix_ms: i64) -> bool {
        self.facts.certificate_expires_unix_ms <= now_unix_ms
    }

    /// Where its controller takes join tokens, if that is known.
    #[must_use]
    pub fn controller(&self) -> Option<Target> {
        let port = self.facts.controller_port?;
        Some(Target { host: self.facts.controller_host.clone(), port })
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

    /// The same node with the certificate that a renewal brought for `key`.
    pub fn renewed(&self, key: NewKey, certificate: &Certificate) -> Result<Self, IdentityError> {
        let new = key.certified(certificate, self.facts.clone())?;
        if new.id() == self.id() {
            Ok(new)
        } else {
            Err(IdentityError::Unusable("it is for another node".to_owned()))
        }
    }
}

impl NewKey {
    pub fn generate() -> Result<Self, IdentityError> {
        KeyPair::generate().and_then(|key| Self::of(&key)).map_err(IdentityError::Key)
    }

    fn restored(der: &[u8]) -> Result<Self, IdentityError> {
        KeyPair::try_from(der).and_then(|key| Self::of(&key)).map_err(IdentityError::Key)
    }

    fn of(key: &KeyPair) -> Result<Self, rcgen::Error> {
        let request = CertificateParams::default().serialize_request(key)?;
        Ok(Self { key: Key(key.serialize_der()), request: request.der().to_vec() })
    }

    /// An identity of this key and the certificate that was issued for it, once that is found good.
    pub fn certified(self, certificate: &Certificate, facts: Facts) -> Result<Enrolled, IdentityError> {
        let new = Enrolled {
            facts: Facts {
                certificate_expires_unix_ms: certificate.expires_unix_ms,
                generation: certificate.generation,
                ..facts
            },
            authorities: certificate.authorities.iter().map(|der| der.to_vec()).collect(),
            leaf: certificate.leaf.to_vec(),
            key: self.key,
        };
        new.check().map_err(IdentityError::Unusable)?;
        Ok(new)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}
