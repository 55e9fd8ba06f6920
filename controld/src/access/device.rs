//! A device that somebody signed in with before. It is known again by a mark that it keeps, not by its address, which it may
//! share with whoever guesses passwords: what others try doesn't slow it down.
//!
//! The mark opens nothing: with it one is merely heard apart from the crowd, for that one user, until their password is
//! another: who once knew it may have made marks.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use horcrux_transport::secret::Secret;
use subtle::ConstantTimeEq as _;

use super::keys::{KeyError, Seal, random};
use super::name::UserId;

/// How long a device is known after a sign-in.
pub const KNOWN_SECONDS: i64 = 30 * 24 * 3600;
const ID: usize = 12;
const PURPOSE: &str = "device";

/// One device of one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device([u8; ID]);

impl Device {
    /// A mark for the device that `user` has just signed in with.
    pub fn mark(seal: &Seal, user: &UserId, password_hash: &str, now_ms: i64) -> Result<Secret, KeyError> {
        let (id, at) = (random::<ID>()?, (now_ms / 1000).to_be_bytes());
        let mark = seal.mark(PURPOSE, &[user.as_str().as_bytes(), password_hash.as_bytes(), &id, &at]);
        Ok(URL_SAFE_NO_PAD.encode([id.as_slice(), &at, &mark].concat()).into())
    }

    /// The device that keeps `mark`, if `user` signed in with it of late.
    #[must_use]
    pub fn known(
        seal: &Seal,
        user: &UserId,
        password_hash: &str,
        mark: &Secret,
        now_ms: i64,
    ) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(mark.expose()).ok()?;
        let (id, rest) = bytes.split_first_chunk::<ID>()?;
        let (at, told) = rest.split_first_chunk::<8>()?;
        let is_ours =
            seal.mark(PURPOSE, &[user.as_str().as_bytes(), password_hash.as_bytes(), id, at]).ct_eq(told);
        let age = now_ms / 1000 - i64::from_be_bytes(*at);
        (bool::from(is_ours) && age <= KNOWN_SECONDS).then_some(Self(*id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_for_its_user_for_a_month() {
        let dir = tempfile::tempdir().unwrap();
        let seal = Seal::open(dir.path()).unwrap();
        let (alice, bob) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let mark = Device::mark(&seal, &alice, "hash", 1_000_000).unwrap();
        let known = Device::known(&seal, &alice, "hash", &mark, 1_000_000);
        assert!(known.is_some());
        let month_ms = KNOWN_SECONDS * 1000;
        assert_eq!(Device::known(&seal, &alice, "hash", &mark, 1_000_000 + month_ms), known);
        assert_eq!(Device::known(&seal, &alice, "hash", &mark, 1_001_000 + month_ms), None);
        assert_eq!(Device::known(&seal, &bob, "hash", &mark, 1_000_000), None);
        assert_eq!(Device::known(&seal, &alice, "another", &mark, 1_000_000), None);
        let again = Device::mark(&seal, &alice, "hash", 1_000_000).unwrap();
        assert_ne!(Device::known(&seal, &alice, "hash", &again, 1_000_000), known);
    }

    #[test]
    fn what_is_not_a_mark_of_ours_is_no_device() {
        let dir = tempfile::tempdir().unwrap();
        let seal = Seal::open(dir.path()).unwrap();
        let alice = "alice".parse().unwrap();
        let mark = Device::mark(&seal, &alice, "hash", 0).unwrap();
        let other = tempfile::tempdir().unwrap();
        assert_eq!(Device::known(&Seal::open(other.path()).unwrap(), &alice, "hash", &mark, 0), None);
        for text in ["", "a", "!!", &mark.expose()[..mark.expose().len() - 2], &"A".repeat(10_000)] {
            assert_eq!(
                Device::known(&seal, &alice, "hash", &Secret::from(text.to_owned()), 0),
                None,
                "{text}"
            );
        }
    }
}
