//! Passwords: argon2id on threads of their own that give way to everything else, with a short queue and then "try later".
//!
//! The queue is shared fairly: one address has few places in it, and those who are known have places that others can't
//! take.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use horcrux_transport::secret::Secret;
use tokio::sync::oneshot;

pub use super::places::Asker;
use super::places::{Bounds, Places};

/// OWASP's floor for argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
/// Those who wait for a thread. Each costs about a tenth of a second: beyond this a caller does better to come back.
const QUEUE_PER_THREAD: usize = 8;
/// Places in the queue for those who are known.
const KEPT_PER_THREAD: usize = 4;
/// Of one address at a time.
const PER_SOURCE: usize = 4;
/// Of one user who is known at a time.
const PER_USER: usize = 2;
/// Longer input only costs us; nobody types it.
pub const MAX_BYTES: usize = 256;
pub const MIN_CHARS: usize = 10;

/// Hashes and checks passwords within bounds.
#[derive(Clone, Debug)]
pub struct Passwords {
    jobs: SyncSender<Job>,
    queue: Places,
    /// Checked in place of an unknown user's, so that both take the same time.
    nobody: Arc<str>,
}

type Job = Box<dyn FnOnce() + Send>;

/// How a password stands to a stored hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    Wrong,
    Right,
    /// Right, and hashed with less than is usual today.
    Weak,
}

#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("too many sign-ins are being checked")]
    Busy,
    #[error("hash a password: {0}")]
    Hash(String),
}

impl Passwords {
    /// With so many threads.
    pub fn new(threads: usize) -> Result<Self, PasswordError> {
        let bound = threads * (1 + QUEUE_PER_THREAD + KEPT_PER_THREAD);
        // Never full: whoever has a job in it has a place.
        let (jobs, work) = sync_channel::<Job>(bound);
        let work = Arc::new(Mutex::new(work));
        for number in 0..threads {
            let work = Arc::clone(&work);
            let thread = std::thread::Builder::new().name(format!("password-{number}"));
            thread.spawn(move || run(&work)).map_err(|error| PasswordError::Hash(error.to_string()))?;
        }
        Ok(Self {
            jobs,
            queue: Places::new(Bounds {
                open: threads * (1 + QUEUE_PER_THREAD),
                kept: threads * KEPT_PER_THREAD,
                per_source: PER_SOURCE,
                per_user: PER_USER,
            }),
            nobody: hash(&Secret::from("nobody has this password".to_owned()))?.into(),
        })
    }

    pub async fn hash(&self, password: Secret, asker: Asker) -> Result<String, PasswordError> {
        self.bounded(asker, move || hash(&password)).await?
    }

    /// Whether `password` fits `stored`; with no `stored` it takes as long and is wrong.
    pub async fn verify(
        &self,
        password: Secret,
        stored: Option<String>,
        asker: Asker,
    ) -> Result<Fit, PasswordError> {
        let known = stored.is_some();
        let against = stored.unwrap_or_else(|| self.nobody.to_string());
        let fit = self.bounded(asker, move || fit(&password, &against)).await?;
        Ok(if known { fit } else { Fit::Wrong })
    }

    async fn bounded<T: Send + 'static>(
        &self,
        asker: Asker,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let place = self.queue.take(asker).ok_or(PasswordError::Busy)?;
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Held by the work, not by the caller: a caller that goes away doesn't free the thread.
            let _held = place;
            // A caller that went away needs no answer.
            drop(reply.send(work()));
        });
        self.jobs.try_send(job).map_err(|_| PasswordError::Busy)?;
        answer.await.map_err(|_| PasswordError::Hash("the thread ended".to_owned()))
    }
}

/// One thread's life: it gives way to everything else on this machine.
fn run(work: &Mutex<Receiver<Job>>) {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 10) {
        tracing::warn!(%error, "passwords are checked at the priority of everything else");
    }
    loop {
        // The lock is held while waiting, and by one thread at a time; the work is done without it.
        let job = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
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

fn fit(password: &Secret, stored: &str) -> Fit {
    let (Ok(stored), Ok(argon2)) = (PasswordHash::new(stored), argon2()) else { return Fit::Wrong };
    if argon2.verify_password(password.expose().as_bytes(), &stored).is_err() {
        return Fit::Wrong;
    }
    let of = |name: &str| stored.params.iter().find(|(id, _)| id.as_str() == name);
    let number = |name: &str| of(name).and_then(|(_, value)| value.decimal().ok());
    let strong = stored.algorithm.as_str() == "argon2id"
        && number("m").is_some_and(|m| m >= MEMORY_KIB)
        && number("t").is_some_and(|t| t >= PASSES);
    if strong { Fit::Right } else { Fit::Weak }
}

#[cfg(test)]
mod tests {
    use super::*;
    use horcrux_transport::source::Source;

    fn secret(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    fn at(address: &str) -> Asker {
        Asker::At(Source::of(address.parse().unwrap()))
    }

    fn known(name: &str) -> Asker {
        Asker::Known(name.parse().unwrap())
    }

    #[tokio::test]
    async fn a_password_fits_its_own_hash_only() {
        let passwords = Passwords::new(1).unwrap();
        let stored = passwords.hash(secret("correct horse"), known("alice")).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        let right =
            passwords.verify(secret("correct horse"), Some(stored.clone()), known("alice")).await.unwrap();
        assert_eq!(right, Fit::Right);
        assert_eq!(
            passwords.verify(secret("wrong horse"), Some(stored), known("alice")).await.unwrap(),
            Fit::Wrong
        );
    }

    #[tokio::test]
    async fn a_hash_of_lesser_days_is_to_be_raised() {
        let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8192, 1, 1, None).unwrap());
        let stored = weak.hash_password(b"correct horse").unwrap().to_string();
        let passwords = Passwords::new(1).unwrap();
        assert_eq!(
            passwords.verify(secret("correct horse"), Some(stored), known("alice")).await.unwrap(),
            Fit::Weak
        );
    }

    #[tokio::test]
    async fn an_unknown_user_has_no_password_that_fits() {
        let passwords = Passwords::new(1).unwrap();
        let fit = passwords.verify(secret("nobody has this password"), None, known("alice")).await.unwrap();
        assert_eq!(fit, Fit::Wrong);
    }

    async fn busy(passwords: &Passwords, askers: Vec<Asker>) -> usize {
        let crowd = askers.into_iter().map(|asker| passwords.verify(secret("x"), None, asker));
        let answers = futures_util::future::join_all(crowd).await;
        answers.iter().filter(|a| matches!(a, Err(PasswordError::Busy))).count()
    }

    #[tokio::test]
    async fn beyond_the_queue_callers_are_told_to_come_back() {
        let passwords = Passwords::new(1).unwrap();
        let crowd = (0..40).map(|n| at(&format!("192.0.2.{n}"))).collect();
        assert_eq!(busy(&passwords, crowd).await, 40 - (1 + QUEUE_PER_THREAD));
    }

    #[tokio::test]
    async fn one_address_cannot_take_all_places() {
        let passwords = Passwords::new(1).unwrap();
        let mut crowd = vec![at("192.0.2.1"); 40];
        crowd.push(at("192.0.2.2"));
        assert_eq!(busy(&passwords, crowd).await, 40 - PER_SOURCE);
    }

    #[tokio::test]
    async fn who_is_known_has_places_that_a_crowd_cannot_take() {
        let passwords = Passwords::new(1).unwrap();
        let mut crowd: Vec<_> = (0..40).map(|n| at(&format!("192.0.2.{n}"))).collect();
        crowd.extend(vec![known("alice"); 10]);
        crowd.push(known("bob"));
        let refused = 40 - (1 + QUEUE_PER_THREAD) + 10 - PER_USER;
        assert_eq!(busy(&passwords, crowd).await, refused, "nor one who is known from others");
    }
}
