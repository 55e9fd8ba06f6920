//! The second factor: TOTP (RFC 6238: SHA-1, six digits, 30 s), and single-use recovery codes for when it is lost.
//!
//! A step is taken once, whichever controller it is shown to: the store decides. Eight wrong codes in a row lock the factor
//! until a recovery code or an administrator opens it.

use std::sync::Arc;

use horcrux_transport::error::Chain;
use horcrux_transport::secret::Secret;
use totp_rs::{Algorithm, Builder, Totp};

use super::keys::{KeyError, Seal, hash, random};
use super::name::UserId;
use crate::store::{Store, StoreError};

/// Wrong codes in a row, after which none is taken.
pub const MAX_FAILURES: i64 = 8;
const RECOVERY_CODES: usize = 10;
/// As RFC 4226 recommends for SHA-1.
const SECRET_BYTES: usize = 20;
const DIGITS: u8 = 6;

/// Knows who has a second factor, and whether a code is right.
#[derive(Clone, Debug)]
pub struct Factors {
    store: Store,
    seal: Arc<Seal>,
}

/// A secret to be entered into an authenticator.
#[derive(Debug)]
pub struct NewSecret {
    /// Base32.
    pub secret: Secret,
    pub uri: Secret,
}

#[derive(Debug, thiserror::Error)]
pub enum FactorError {
    #[error("the code is wrong, or was used before")]
    Wrong,
    #[error("too many wrong codes: use a recovery code, or ask an administrator to reset the second factor")]
    Locked,
    #[error("there is no second factor")]
    Missing,
    #[error("there is a second factor already: remove it first")]
    Exists,
    #[error("keep a second factor")]
    Store(#[source] StoreError),
    #[error("seal a second factor")]
    Seal(#[source] KeyError),
    #[error("a stored second factor can't be opened: was seal-key replaced?")]
    Damaged,
}

/// Whether the caller is confirming a new factor or showing one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Confirm,
    Show,
}

impl Factors {
    #[must_use]
    pub fn new(store: Store, seal: Arc<Seal>) -> Self {
        Self { store, seal }
    }

    /// Whether `user` has one that is confirmed.
    pub async fn has(&self, user: &UserId) -> Result<bool, FactorError> {
        let factor = self.store.factor(user).await.map_err(FactorError::Store)?;
        Ok(factor.is_some_and(|factor| factor.confirmed))
    }

    /// Makes a secret; it counts once [`Factors::confirm`] was given its code.
    pub async fn start(&self, user: &UserId) -> Result<NewSecret, FactorError> {
        let secret = random::<SECRET_BYTES>().map_err(FactorError::Seal)?;
        let sealed = self.seal.seal(&secret, user.as_str()).map_err(FactorError::Seal)?;
        if !self.store.put_factor(user, &sealed).await.map_err(FactorError::Store)? {
            return Err(FactorError::Exists);
        }
        let totp = totp(&secret, user)?;
        Ok(NewSecret {
            secret: totp.secret().to_base32().into(),
            uri: totp.to_url().map_err(|_| FactorError::Damaged)?.into(),
        })
    }

    /// Takes the first code of a new factor; returns its recovery codes, which are shown this once.
    pub async fn confirm(&self, user: &UserId, code: &str, now_ms: i64) -> Result<Vec<String>, FactorError> {
        let codes: Result<Vec<String>, KeyError> = (0..RECOVERY_CODES).map(|_| recovery_code()).collect();
        let codes = codes.map_err(FactorError::Seal)?;
        let hashes: Vec<[u8; 32]> = codes.iter().map(|code| hash(plain(code))).collect();
        self.take(user, code, now_ms, Purpose::Confirm, &hashes).await?;
        Ok(codes)
    }

    /// Takes a code, or a recovery code.
    pub async fn check(&self, user: &UserId, code: &str, now_ms: i64) -> Result<(), FactorError> {
        let is_totp = code.len() == usize::from(DIGITS) && code.bytes().all(|b| b.is_ascii_digit());
        if is_totp {
            return self.take(user, code, now_ms, Purpose::Show, &[]).await;
        }
        let factor = self.store.factor(user).await.map_err(FactorError::Store)?;
        factor.filter(|factor| factor.confirmed).ok_or(FactorError::Missing)?;
        let taken = self.store.take_recovery_code(user, &hash(plain(code))).await;
        if taken.map_err(FactorError::Store)? {
            tracing::warn!(user = %user, "recovery code used");
            return Ok(());
        }
        self.store.attempt_factor(user, MAX_FAILURES).await.map_err(FactorError::Store)?;
        self.wrong(user).await
    }

    async fn take(
        &self,
        user: &UserId,
        code: &str,
        now_ms: i64,
        purpose: Purpose,
        recovery: &[[u8; 32]],
    ) -> Result<(), FactorError> {
        let factor =
            self.store.factor(user).await.map_err(FactorError::Store)?.ok_or(FactorError::Missing)?;
        match (purpose, factor.confirmed) {
            (Purpose::Confirm, true) => return Err(FactorError::Exists),
            (Purpose::Show, false) => return Err(FactorError::Missing),
            (Purpose::Confirm, false) | (Purpose::Show, true) => {}
        }
        if !self.store.attempt_factor(user, MAX_FAILURES).await.map_err(FactorError::Store)? {
            return Err(FactorError::Locked);
        }
        let secret = self.seal.open_sealed(&factor.sealed, user.as_str()).ok_or(FactorError::Damaged)?;
        let now = u64::try_from(now_ms / 1000).unwrap_or_default();
        let step = totp(&secret, user)?.check(code, now).and_then(|step| i64::try_from(step).ok());
        let Some(step) = step else { return self.wrong(user).await };
        if self.store.take_step(user, step, &factor.sealed, recovery).await.map_err(FactorError::Store)? {
            return Ok(());
        }
        self.wrong(user).await
    }

    async fn wrong(&self, user: &UserId) -> Result<(), FactorError> {
        let factor = self.store.factor(user).await.map_err(FactorError::Store)?;
        let failures = factor.map_or(0, |factor| factor.failures);
        if failures == MAX_FAILURES {
            tracing::warn!(user = %user, "second factor locked after wrong codes");
        }
        Err(if failures >= MAX_FAILURES { FactorError::Locked } else { FactorError::Wrong })
    }

    /// Removes a second factor that `code` is of.
    pub async fn remove(&self, user: &UserId, code: &str, now_ms: i64) -> Result<(), FactorError> {
        self.check(user, code, now_ms).await?;
        self.store.delete_factor(user).await.map_err(FactorError::Store)
    }
}

impl FactorError {
    /// Nothing that the caller can do about.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        match self {
            Self::Store(_) | Self::Seal(_) | Self::Damaged => {
                tracing::error!(error = %Chain(self), "second factor failed");
                true
            }
            Self::Wrong | Self::Locked | Self::Missing | Self::Exists => false,
        }
    }
}

fn totp(secret: &[u8], user: &UserId) -> Result<Totp, FactorError> {
    Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(DIGITS)
        .with_secret(secret.to_vec())
        .with_account_name(user.as_str())
        .with_issuer(Some("Horcrux"))
        .build()
        .map_err(|_| FactorError::Damaged)
}

/// Fifty bits in letters and digits that are not taken for each other: `k3f9x-7mqwd`.
fn recovery_code() -> Result<String, KeyError> {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789_";
    let mut code = String::new();
    while code.len() < 11 {
        let [byte] = random::<1>()?;
        let letter = LETTERS[usize::from(byte & 31)];
        if code.len() == 5 {
            code.push('-');
        } else if letter != b'_' {
            code.push(char::from(letter));
        }
    }
    Ok(code)
}

/// As it is hashed: people type it with and without its hyphen.
fn plain(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::users::UserRow;

    const NOW_MS: i64 = 1_800_000_000_000;

    struct Fixture {
        factors: Factors,
        user: UserId,
        secret: Vec<u8>,
        recovery: Vec<String>,
        dir: tempfile::TempDir,
    }

    impl Fixture {
        fn code(&self, at_ms: i64) -> String {
            totp(&self.secret, &self.user).unwrap().generate(u64::try_from(at_ms / 1000).unwrap()).to_string()
        }
    }

    async fn factors(dir: &std::path::Path) -> Factors {
        Factors::new(Store::open(dir).await.unwrap(), Arc::new(Seal::open(dir).unwrap()))
    }

    async fn with_factor() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let factors = factors(dir.path()).await;
        let user: UserId = "alice".parse().unwrap();
        let row = UserRow { id: user.to_string(), ..UserRow::default() };
        factors.store.insert_user(&row).await.unwrap();
        factors.start(&user).await.unwrap();
        let sealed = factors.store.factor(&user).await.unwrap().unwrap().sealed;
        let secret = factors.seal.open_sealed(&sealed, user.as_str()).unwrap();
        let mut fixture = Fixture { factors, user, secret, recovery: Vec::new(), dir };
        let code = fixture.code(NOW_MS);
        fixture.recovery = fixture.factors.confirm(&fixture.user, &code, NOW_MS).await.unwrap();
        fixture
    }

    #[tokio::test]
    async fn a_code_is_taken_once_across_restarts() {
        let fixture = with_factor().await;
        let (user, later) = (&fixture.user, NOW_MS + 60_000);
        let replayed = fixture.factors.check(user, &fixture.code(NOW_MS), NOW_MS).await;
        assert!(matches!(replayed, Err(FactorError::Wrong)), "the code that confirmed it: {replayed:?}");
        fixture.factors.check(user, &fixture.code(later), later).await.unwrap();
        let again = factors(fixture.dir.path()).await;
        let replayed = again.check(user, &fixture.code(later), later).await;
        assert!(matches!(replayed, Err(FactorError::Wrong)), "{replayed:?}");
        let skewed = again.check(user, &fixture.code(later + 30_000), later).await;
        assert!(skewed.is_ok(), "one step of skew: {skewed:?}");
        let far = again.check(user, &fixture.code(later + 120_000), later).await;
        assert!(matches!(far, Err(FactorError::Wrong)), "{far:?}");
    }

    #[tokio::test]
    async fn eight_wrong_codes_lock_it_and_a_recovery_code_opens_it_once() {
        let fixture = with_factor().await;
        let (user, later) = (&fixture.user, NOW_MS + 60_000);
        let right = fixture.code(later);
        let wrong = if right == "000000" { "000001" } else { "000000" };
        for _ in 0..MAX_FAILURES - 1 {
            let told = fixture.factors.check(user, wrong, later).await;
            assert!(matches!(told, Err(FactorError::Wrong)), "{told:?}");
        }
        assert!(matches!(fixture.factors.check(user, wrong, later).await, Err(FactorError::Locked)));
        assert!(matches!(fixture.factors.check(user, &right, later).await, Err(FactorError::Locked)));
        let recovery = fixture.recovery[0].to_uppercase().replace('-', " ");
        fixture.factors.check(user, &recovery, later).await.unwrap();
        assert!(fixture.factors.check(user, &recovery, later).await.is_err(), "once");
        fixture.factors.check(user, &right, later).await.unwrap();
    }

    #[tokio::test]
    async fn a_crowd_of_guesses_gets_no_more_attempts_than_one() {
        let fixture = with_factor().await;
        let (user, later) = (&fixture.user, NOW_MS + 60_000);
        let right = fixture.code(later);
        let wrong: Vec<String> = (0..60).map(|n| format!("{n:06}")).filter(|code| *code != right).collect();
        let guesses = wrong.iter().map(|code| fixture.factors.check(user, code, later));
        let told = futures_util::future::join_all(guesses).await;
        let heard = told.iter().filter(|told| matches!(told, Err(FactorError::Wrong))).count();
        assert!(heard < usize::try_from(MAX_FAILURES).unwrap(), "{heard}");
        assert!(matches!(fixture.factors.check(user, &right, later).await, Err(FactorError::Locked)));
    }

    #[tokio::test]
    async fn an_unconfirmed_factor_counts_for_nothing() {
        let fixture = with_factor().await;
        let bob: UserId = "bob".parse().unwrap();
        let row = UserRow { id: bob.to_string(), ..UserRow::default() };
        fixture.factors.store.insert_user(&row).await.unwrap();
        let first = fixture.factors.start(&bob).await.unwrap();
        assert!(!fixture.factors.has(&bob).await.unwrap());
        assert!(matches!(fixture.factors.check(&bob, "123456", NOW_MS).await, Err(FactorError::Missing)));
        let second = fixture.factors.start(&bob).await.unwrap();
        assert_ne!(first.secret.expose(), second.secret.expose());
        assert!(matches!(fixture.factors.start(&fixture.user).await, Err(FactorError::Exists)));
    }
}
