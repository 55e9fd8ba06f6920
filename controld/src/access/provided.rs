//! Sign-ins that are under way at an OpenID provider: who began one must bring it to its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use horcrux_proto::v1::StartOidcResponse;
use horcrux_realms::oidc::{DevicePoll, DeviceStarted, Started};
use horcrux_realms::{Person, RealmError};
use horcrux_transport::secret::Secret;

use super::keys::{hash, random_secret};
use super::realm::Realm;
use super::signin::{SignInError, SignIns};

/// As long as a person takes at the provider.
const BROWSER_MS: i64 = 10 * 60 * 1000;
/// Sign-ins under way; beyond, the oldest is given up.
const FLOWS: usize = 10_000;

/// What is under way, by the hash of the secret that its beginner holds.
#[derive(Debug, Default)]
pub struct Provided(Mutex<HashMap<[u8; 32], Flow>>);

#[derive(Debug)]
struct Flow {
    realm: String,
    expires_ms: i64,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Browser(Started),
    /// Asked by one call at a time.
    Device(Arc<tokio::sync::Mutex<DeviceStarted>>),
}

impl Provided {
    /// Begins a sign-in at `realm`, which is an OpenID provider.
    pub async fn start(
        &self,
        realm: &Realm,
        device: bool,
        now_ms: i64,
    ) -> Result<StartOidcResponse, SignInError> {
        let provider = realm.oidc().ok_or(SignInError::Over)?;
        let failed = |source| SignInError::Unavailable { realm: realm.name.clone(), source };
        let flow_id = random_secret("hxo_").map_err(SignInError::Key)?;
        let mut response = StartOidcResponse {
            flow_id: flow_id.expose().to_owned(),
            expires_unix_ms: now_ms + BROWSER_MS,
            ..StartOidcResponse::default()
        };
        let step = if device {
            let started = provider.start_device(time(now_ms)).await.map_err(failed)?;
            response.url.clone_from(&started.url);
            response.user_code = Some(started.user_code.clone());
            response.poll_seconds = u32::try_from(started.interval.as_secs()).unwrap_or(u32::MAX);
            let expires = started.expires.duration_since(UNIX_EPOCH).unwrap_or_default();
            response.expires_unix_ms = i64::try_from(expires.as_millis()).unwrap_or(i64::MAX);
            Step::Device(Arc::new(tokio::sync::Mutex::new(started)))
        } else {
            let started = provider.start(time(now_ms)).await.map_err(failed)?;
            response.url.clone_from(&started.url);
            Step::Browser(started)
        };
        let flow = Flow { realm: realm.name.clone(), expires_ms: response.expires_unix_ms, step };
        let mut flows = self.flows();
        if flows.len() >= FLOWS {
            flows.retain(|_, flow| now_ms < flow.expires_ms);
            let oldest = flows.iter().min_by_key(|(_, flow)| flow.expires_ms).map(|(key, _)| *key);
            if let Some(oldest) = oldest.filter(|_| flows.len() >= FLOWS) {
                flows.remove(&oldest);
            }
        }
        flows.insert(hash(flow_id.expose()), flow);
        Ok(response)
    }

    /// Whether there is such a sign-in.
    #[must_use]
    pub fn knows(&self, flow: &Secret, now_ms: i64) -> bool {
        self.flows().get(&hash(flow.expose())).is_some_and(|flow| now_ms < flow.expires_ms)
    }

    /// Who the provider says it is, with their realm; `None` while a person has not agreed yet. What is ended, or fails,
    /// is over.
    pub async fn finish(
        &self,
        sign_ins: &SignIns,
        flow: &Secret,
        code: &str,
        state: &str,
        now_ms: i64,
    ) -> Result<Option<(String, Person)>, SignInError> {
        let key = hash(flow.expose());
        let device = match self.flows().get(&key).filter(|flow| now_ms < flow.expires_ms) {
            None => return Err(SignInError::Over),
            Some(Flow { step: Step::Browser(_), .. }) => None,
            Some(Flow { step: Step::Device(started), realm, .. }) => {
                Some((Arc::clone(started), realm.clone()))
            }
        };
        let Some((started, name)) = device else {
            // Taken out first: it is ended once, whatever comes of it.
            let Some(Flow { realm: name, step: Step::Browser(started), .. }) = self.flows().remove(&key)
            else {
                return Err(SignInError::Over);
            };
            let realm = sign_ins.realm(&name).and_then(Realm::oidc).ok_or(SignInError::Over)?;
            let person = realm.finish(started, code, state, time(now_ms)).await;
            return person.map(|person| Some((name.clone(), person))).map_err(|error| refused(&name, error));
        };
        let realm = sign_ins.realm(&name).and_then(Realm::oidc).ok_or(SignInError::Over)?;
        let polled = realm.poll_device(&mut *started.lock().await, time(now_ms)).await;
        match polled {
            Ok(DevicePoll::Pending) => Ok(None),
            Ok(DevicePoll::Done(person)) => {
                self.flows().remove(&key).ok_or(SignInError::Over)?;
                Ok(Some((name, person)))
            }
            // The provider may be back at the next poll.
            Err(error @ RealmError::Unavailable(_)) => Err(refused(&name, error)),
            Err(error) => {
                self.flows().remove(&key);
                Err(refused(&name, error))
            }
        }
    }

    fn flows(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Flow>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(realm: &str, error: RealmError) -> SignInError {
    match error {
        RealmError::Refused(reason) => {
            tracing::info!(realm, %reason, "provider's answer refused");
            SignInError::NotProvided
        }
        source @ (RealmError::Unavailable(_) | RealmError::Misconfigured(_)) => {
            SignInError::Unavailable { realm: realm.to_owned(), source }
        }
    }
}

fn time(now_ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(now_ms).unwrap_or_default())
}
