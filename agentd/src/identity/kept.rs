//! An identity on disk: one file, `node.toml`, replaced as a whole. Whoever is killed while it changes one leaves the one
//! before or the one after, never parts of both: a certificate that was replaced, and is used again, locks the node.
//!
//! Agents before this kept four files: they are read where `node.toml` holds no key, and go with the first replacement.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use horcrux_transport::files;
use horcrux_transport::secret::Secret;
use serde::{Deserialize, Serialize};

use super::{Enrolled, Facts, IdentityError, Key, NewKey};

pub(super) const FILE: &str = "node.toml";
/// Kept until its certificate is here, so that an enrollment whose answer was lost can be tried again with the same key.
const PENDING: &str = "enroll.pending";
const LOCK: &str = "identity.lock";

/// Of agents that kept four files.
const OLD_KEY: &str = "node-key.der";
const OLD_LEAF: &str = "node.der";
const OLD_AUTHORITIES: &str = "authorities.bin";
const OLD_PENDING: &str = "node-key.pending";

/// The right to change a node's identity: one process has it at a time.
#[derive(Debug)]
pub struct Change {
    dir: PathBuf,
    _lock: File,
}

/// Which file an identity was read from: another one after each replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    changed: (i64, i64),
}

/// `node.toml`. What stands for bytes is in base64.
#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    facts: Facts,
    certificate: Option<String>,
    #[serde(default)]
    authorities: Vec<String>,
    key: Option<String>,
}

/// `enroll.pending`.
#[derive(Serialize, Deserialize)]
struct Pending {
    /// The id of the join token that it was made for: another one gets another key.
    token: String,
    key: String,
}

/// `None` when there is no identity, or none that can be looked at.
pub(super) fn stamp(dir: &Path) -> Option<Stamp> {
    let found = fs::metadata(dir.join(FILE)).ok()?;
    Some(Stamp { inode: found.ino(), changed: (found.ctime(), found.ctime_nsec()) })
}

pub(super) fn read(dir: &Path) -> Result<Enrolled, IdentityError> {
    let path = dir.join(FILE);
    let text = match files::read_private(&path) {
        Ok(text) => Secret::from(String::from_utf8_lossy(&text).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(IdentityError::NotEnrolled),
        Err(source) => return Err(IdentityError::Read { path, source }),
    };
    let damaged = |reason: String| IdentityError::Damaged { path: path.clone(), reason };
    let kept: Kept = toml::from_str(text.expose()).map_err(|e| damaged(e.message().to_owned()))?;
    let (Some(leaf), Some(key)) = (kept.certificate, kept.key) else {
        return read_old(dir, kept.facts);
    };
    let bytes =
        |name, text: String| STANDARD.decode(text).map_err(|_| damaged(format!("{name} is not base64")));
    let authorities = kept.authorities.into_iter().map(|text| bytes("authorities", text));
    Ok(Enrolled {
        facts: kept.facts,
        authorities: authorities.collect::<Result<_, _>>()?,
        leaf: bytes("certificate", leaf)?,
        key: Key(bytes("key", key)?),
    })
}

fn read_old(dir: &Path, facts: Facts) -> Result<Enrolled, IdentityError> {
    let part = |name| {
        let path = dir.join(name);
        files::read_private(&path).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                IdentityError::Damaged { path, reason: "it is gone".to_owned() }
            } else {
                IdentityError::Read { path, source }
            }
        })
    };
    let authorities = split(&part(OLD_AUTHORITIES)?);
    Ok(Enrolled { facts, authorities, leaf: part(OLD_LEAF)?, key: Key(part(OLD_KEY)?) })
}

impl Change {
    /// Takes the right, or says that another process has it.
    pub fn begin(dir: &Path) -> Result<Self, IdentityError> {
        files::private_dir(dir).map_err(|source| IdentityError::Write { path: dir.to_owned(), source })?;
        let path = dir.join(LOCK);
        let failed = |source| IdentityError::Write { path: path.clone(), source };
        let mut open = OpenOptions::new();
        open.write(true).create(true).truncate(false).mode(files::PRIVATE);
        let lock = open.open(&path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(IdentityError::Busy),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The key of an enrollment with this token that is under way, or a new one.
    pub fn pending(&self, token: &str) -> Result<NewKey, IdentityError> {
        let path = self.dir.join(PENDING);
        match files::read_private(&path) {
            Ok(text) => {
                let text = Secret::from(String::from_utf8_lossy(&text).into_owned());
                let pending = toml::from_str::<Pending>(text.expose()).ok().filter(|p| p.token == token);
                if let Some(key) = pending.and_then(|p| STANDARD.decode(p.key).ok()) {
                    return NewKey::restored(&key);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(IdentityError::Read { path, source }),
        }
        let new = NewKey::generate()?;
        let pending = Pending { token: token.to_owned(), key: STANDARD.encode(&new.key.0) };
        write(&path, &pending)?;
        Ok(new)
    }

    /// Makes `new` the node's identity. What it replaces is gone.
    pub fn keep(&self, new: &Enrolled) -> Result<(), IdentityError> {
        let kept = Kept {
            facts: new.facts.clone(),
            certificate: Some(STANDARD.encode(&new.leaf)),
            authorities: new.authorities.iter().map(|der| STANDARD.encode(der)).collect(),
            key: Some(STANDARD.encode(&new.key.0)),
        };
        write(&self.dir.join(FILE), &kept)?;
        // From here on it is the node's: what is left of others does no harm, and is removed by the next change.
        for left in [PENDING, OLD_PENDING, OLD_KEY, OLD_LEAF, OLD_AUTHORITIES] {
            remove(&self.dir.join(left));
        }
        for partial in self.partials() {
            remove(&partial);
        }
        Ok(())
    }

    /// What processes were killed over. Nobody writes one now: that takes the right to.
    fn partials(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.path()).filter(|p| p.extension().is_some_and(|e| e == "partial")).collect()
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(file = %path.display(), %error, "file of an earlier identity not removed");
        }
        Ok(()) | Err(_) => {}
    }
}

fn write(path: &Path, content: &impl Serialize) -> Result<(), IdentityError> {
    let text = toml::to_string(content)
        .map(Secret::from)
        .map_err(|e| IdentityError::Damaged { path: path.to_owned(), reason: e.to_string() })?;
    files::write_private(path, text.expose().as_bytes())
        .map_err(|source| IdentityError::Write { path: path.to_owned(), source })
}

/// Certificates one after the other, each behind its length in four bytes.
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
