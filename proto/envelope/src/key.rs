//! Who signs, and whose signatures count.

use std::fmt;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::v1::{Envelope, SignedEnvelope};

/// What is signed begins with it, so that a signature of the same key over anything else is none over an envelope.
const PREFIX: &[u8] = b"horcrux.privd.v1.Envelope\0";

/// By which a key is found among those of a node: the first bytes of the SHA-256 of the public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 8]);

/// The half of a controller's key that nodes have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// A controller's key.
pub struct Signer(SigningKey);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not the public key of an Ed25519 pair")]
pub struct InvalidKey;

impl KeyId {
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl PublicKey {
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    #[must_use]
    pub fn id(&self) -> KeyId {
        let mut id = [0; 8];
        let digest = Sha256::digest(self.0.as_bytes());
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        KeyId(id)
    }

    pub(crate) fn has_signed(&self, envelope: &[u8], signature: &[u8]) -> bool {
        let Ok(signature) = Signature::from_slice(signature) else { return false };
        // Strict: for one text and one key there is one signature, and keys for which anything passes don't count.
        self.0.verify_strict(&signed(envelope), &signature).is_ok()
    }
}

impl Signer {
    #[must_use]
    pub fn new(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    #[must_use]
    pub fn sign(&self, envelope: &Envelope) -> SignedEnvelope {
        self.sign_bytes(envelope.encode_to_vec())
    }

    pub(crate) fn sign_bytes(&self, envelope: Vec<u8>) -> SignedEnvelope {
        let signature = self.0.sign(&signed(&envelope)).to_bytes().to_vec();
        SignedEnvelope { envelope, key_id: self.public_key().id().as_bytes().to_vec(), signature }
    }
}

fn signed(envelope: &[u8]) -> Vec<u8> {
    [PREFIX, envelope].concat()
}

impl TryFrom<&[u8]> for PublicKey {
    type Error = InvalidKey;

    fn try_from(bytes: &[u8]) -> Result<Self, InvalidKey> {
        let bytes = bytes.try_into().map_err(|_| InvalidKey)?;
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| InvalidKey)?;
        if key.is_weak() { Err(InvalidKey) } else { Ok(Self(key)) }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("id", &self.public_key().id()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_for_which_anything_passes_is_none() {
        assert_eq!(PublicKey::try_from([0; 31].as_slice()), Err(InvalidKey));
        // The neutral element, of order one.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert_eq!(PublicKey::try_from(neutral.as_slice()), Err(InvalidKey));
        let key = Signer::new(&[7; 32]).public_key();
        assert_eq!(PublicKey::try_from(key.as_bytes().as_slice()), Ok(key));
    }

    #[test]
    fn a_signer_prints_no_seed() {
        let signer = Signer::new(&[0x5e; 32]);
        assert_eq!(
            format!("{signer:?}"),
            format!("Signer {{ id: KeyId({}), .. }}", signer.public_key().id())
        );
    }

    #[test]
    fn a_signature_over_the_bytes_without_the_prefix_is_none() {
        let signer = Signer::new(&[7; 32]);
        let bare = signer.0.sign(b"x").to_bytes().to_vec();
        assert!(!signer.public_key().has_signed(b"x", &bare));
        assert!(signer.public_key().has_signed(b"x", &signer.sign_bytes(b"x".to_vec()).signature));
    }
}
