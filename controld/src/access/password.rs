//! Passwords: argon2id, at most one computation per core at a time, with a short queue and then "try later".

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use horcrux_transport::secret::Secret;
use tokio::sync::Semaphore;

/// OWASP's floor for argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
/// Those who wait for a core. Each costs about a tenth of a second: beyond this a caller does better to come back.
const QUEUE_PER_CORE: usize = 8;
/// Longer input only costs us; nobody types it.
pub const MAX_BYTES: usize = 256;
pub const MIN_CHARS: usize = 10;

/// Hashes and checks passwords within bounds.
#[derive(Clone, Debug)]
pub struct Passwords {
    running: Arc<Semaphore>,
    queued: Arc<Semaphore>,
    /// Checked in place of an unknown user's, so that both take the same time.
    nobody: Arc<str>,
}

#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("too many sign-ins are being checked")]
    Busy,
    #[error("hash a password: {0}")]
    Hash(String),
}

impl Passwords {
    pub fn new(cores: usize) -> Result<Self, PasswordError> {
        Ok(Self {
            running: Arc::new(Semaphore::new(cores)),
            queued: Arc::new(Semaphore::new(cores * (1 + QUEUE_PER_CORE))),
            nobody: hash(&Secret::from("nobody has this password".to_owned()))?.into(),
        })
    }

    pub async fn hash(&self, password: Secret) -> Result<String, PasswordError> {
        self.bounded(move || hash(&password)).await?
    }

    /// Whether `password` fits `stored`; with no `stored` it takes as long and is false.
    pub async fn verify(&self, password: Secret, stored: Option<String>) -> Result<bool, PasswordError> {
        let known = stored.is_some();
        let against = stored.unwrap_or_else(|| self.nobody.to_string());
        let fits = self.bounded(move || fits(&password, &against)).await?;
        Ok(fits && known)
    }

    async fn bounded<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let _place = self.queued.try_acquire().map_err(|_| PasswordError::Busy)?;
        let core = Arc::clone(&self.running).acquire_owned().await.map_err(|_| PasswordError::Busy)?;
        let done = tokio::task::spawn_blocking(move || {
            // Held by the work, not by the caller: a caller that goes away doesn't free the core.
            let _core = core;
            work()
        });
        done.await.map_err(|error| PasswordError::Hash(error.to_string()))
    }
}

fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let params =
        Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|error| PasswordError::Hash(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &Secret) -> Result<String, PasswordError> {
    let hashed = argon2()?.hash_password(password.expose().as_bytes());
    hashed.map(|h| h.to_string()).map_err(|error| PasswordError::Hash(error.to_string()))
}

fn fits(password: &Secret, stored: &str) -> bool {
    let (Ok(stored), Ok(argon2)) = (PasswordHash::new(stored), argon2()) else { return false };
    argon2.verify_password(password.expose().as_bytes(), &stored).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    #[tokio::test]
    async fn a_password_fits_its_own_hash_only() {
        let passwords = Passwords::new(1).unwrap();
        let stored = passwords.hash(secret("correct horse")).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(passwords.verify(secret("correct horse"), Some(stored.clone())).await.unwrap());
        assert!(!passwords.verify(secret("wrong horse"), Some(stored)).await.unwrap());
    }

    #[tokio::test]
    async fn an_unknown_user_has_no_password_that_fits() {
        let passwords = Passwords::new(1).unwrap();
        assert!(!passwords.verify(secret("nobody has this password"), None).await.unwrap());
    }

    #[tokio::test]
    async fn beyond_the_queue_callers_are_told_to_come_back() {
        let passwords = Passwords::new(1).unwrap();
        let crowd = (0..40).map(|_| passwords.verify(secret("x"), None));
        let answers = futures_util::future::join_all(crowd).await;
        let busy = answers.iter().filter(|a| matches!(a, Err(PasswordError::Busy))).count();
        assert_eq!(busy, 40 - (1 + QUEUE_PER_CORE));
    }
}
