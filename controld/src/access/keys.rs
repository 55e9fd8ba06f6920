//! Keys that are not in the database: the one that signs access tokens, and the one that seals second factors. A copy of
//! the database alone holds nothing that can be used.

use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use horcrux_transport::files;
use horcrux_transport::secret::Secret;
use zeroize::Zeroizing;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
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
    #[error("{} is damaged", path.display())]
    Damaged { path: PathBuf },
    #[error("no randomness")]
    Random,
}

/// Seals small secrets for the store, and marks what must be known again.
pub struct Seal {
    key: LessSafeKey,
    marks: hmac::Key,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// Opens `seal-key` in `dir`, or makes it.
    pub fn open(dir: &Path) -> Result<Self, KeyError> {
        let path = dir.join("seal-key");
        let key = read_or_make(&path, || random::<32>().map(|key| key.to_vec()))?;
        let marks = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), b"horcrux marks");
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| KeyError::Damaged { path })?;
        Ok(Self { key: LessSafeKey::new(key), marks: hmac::Key::new(hmac::HMAC_SHA256, marks.as_ref()) })
    }

    /// `whose` must be said again to open it.
    pub fn seal(&self, secret: &[u8], whose: &str) -> Result<Vec<u8>, KeyError> {
        let nonce = random::<NONCE_LEN>()?;
        let mut sealed = secret.to_vec();
        let aad = Aad::from(whose.as_bytes());
        let nonce_given = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce_given, aad, &mut sealed).map_err(|_| KeyError::Random)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// `None` where it was not sealed with this key for `whose`.
    #[must_use]
    pub fn open_sealed(&self, sealed: &[u8], whose: &str) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut plain = sealed.to_vec();
        let aad = Aad::from(whose.as_bytes());
        let length =
            self.key.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }

    /// A keyed hash of `parts` for one purpose: it tells whether they are the same again, and nothing else of them.
    #[must_use]
    pub fn mark(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.marks);
        for part in std::iter::once(purpose.as_bytes()).chain(parts.iter().copied()) {
            // With its length: no two lists of parts are the same text.
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        }
        let mut mark = [0; 32];
        mark.copy_from_slice(context.sign().as_ref());
        mark
    }
}

/// The key that signs access tokens: PKCS #8 in DER, from `session-key` in `dir`, made where there is none.
pub(super) fn session_key(dir: &Path) -> Result<(PathBuf, Vec<u8>), KeyError> {
    let path = dir.join("session-key");
    let made = || {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Random)?;
        Ok(key.as_ref().to_vec())
    };
    let key = read_or_make(&path, made)?;
    Ok((path, key))
}

fn read_or_make(path: &Path, make: impl FnOnce() -> Result<Vec<u8>, KeyError>) -> Result<Vec<u8>, KeyError> {
    match files::read_private(path) {
        Ok(key) => Ok(key),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = make()?;
            files::write_private(path, &key)
                .map_err(|source| KeyError::Write { path: path.to_owned(), source })?;
            Ok(key)
        }
        Err(source) => Err(KeyError::Read { path: path.to_owned(), source }),
    }
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::Random)?;
    Ok(bytes)
}

/// `N` random bytes as URL-safe base64.
pub fn random_text<const N: usize>() -> Result<String, KeyError> {
    Ok(URL_SAFE_NO_PAD.encode(random::<N>()?))
}

/// A random id, which is no secret: 12 hex digits.
pub fn random_id() -> Result<String, KeyError> {
    Ok(super::audit::hex(&random::<6>()?))
}

/// 128 random bits, which are no secret, as 32 hex digits.
pub fn random_hex() -> Result<String, KeyError> {
    Ok(super::audit::hex(&random::<16>()?))
}

/// The key that signs orders to nodes: a seed of 32 bytes from `command-key` in `dir`, made where there is none.
pub fn command_key(dir: &Path) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let path = dir.join("command-key");
    let seed = Zeroizing::new(read_or_make(&path, || random::<32>().map(|seed| seed.to_vec()))?);
    <[u8; 32]>::try_from(seed.as_slice()).map(Zeroizing::new).map_err(|_| KeyError::Damaged { path })
}

/// A secret of 32 random bytes behind a prefix that says what it is.
pub fn random_secret(prefix: &str) -> Result<Secret, KeyError> {
    Ok(format!("{prefix}{}", random_text::<32>()?).into())
}

/// SHA-256: secrets here are random, so no slow hash is needed.
#[must_use]
pub fn hash(secret: impl AsRef<[u8]>) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, secret.as_ref()).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_of_its_parts_its_purpose_and_this_key() {
        let dir = tempfile::tempdir().unwrap();
        let seal = Seal::open(dir.path()).unwrap();
        let mark = seal.mark("request", &[b"ab", b"c"]);
        assert_eq!(Seal::open(dir.path()).unwrap().mark("request", &[b"ab", b"c"]), mark);
        assert_ne!(seal.mark("request", &[b"a", b"bc"]), mark);
        assert_ne!(seal.mark("device", &[b"ab", b"c"]), mark);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Seal::open(other.path()).unwrap().mark("request", &[b"ab", b"c"]), mark);
    }

    #[test]
    fn what_was_sealed_opens_for_its_owner_with_the_same_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = Seal::open(dir.path()).unwrap().seal(b"secret", "alice@local").unwrap();
        assert!(!sealed.windows(6).any(|w| w == b"secret"));
        let again = Seal::open(dir.path()).unwrap();
        assert_eq!(again.open_sealed(&sealed, "alice@local").as_deref(), Some(&b"secret"[..]));
        assert_eq!(again.open_sealed(&sealed, "bob@local"), None);
        assert_eq!(again.open_sealed(&sealed[..5], "alice@local"), None);
        let other = tempfile::tempdir().unwrap();
        assert_eq!(Seal::open(other.path()).unwrap().open_sealed(&sealed, "alice@local"), None);
    }
}
