//! The device flow (RFC 8628): a person agrees in any browser, and types a code there.

use std::time::{Duration, SystemTime};

use horcrux_transport::secret::Secret;
use serde::Deserialize;

use super::{Oidc, is_https};
use crate::{Person, RealmError};

/// A sign-in that a person agrees to elsewhere.
#[derive(Debug)]
pub struct DeviceStarted {
    /// Where the person goes. The code may be part of it.
    pub url: String,
    /// What they type there.
    pub user_code: String,
    pub expires: SystemTime,
    /// How often the provider wants to be asked. Grows when it says so.
    pub interval: Duration,
    device_code: Secret,
    ask_at: SystemTime,
}

#[derive(Debug)]
pub enum DevicePoll {
    /// Not agreed yet.
    Pending,
    Done(Person),
}

/// RFC 8628, 3.2 and 3.5.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
const SLOWER_BY: Duration = Duration::from_secs(5);
/// A provider that wants more would have nobody sign in.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);
/// For how long we remember one, whatever the provider says.
const LONGEST: Duration = Duration::from_secs(1800);

#[derive(Deserialize)]
struct Answer {
    device_code: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

impl Oidc {
    pub async fn start_device(&self, now: SystemTime) -> Result<DeviceStarted, RealmError> {
        let provider = self.provider(now).await?;
        let Some(url) = &provider.device else {
            return Err(RealmError::Misconfigured("the provider has no device flow".to_owned()));
        };
        let (request, body) = self.form(url, &[("scope", &self.scopes())]);
        let answer: Answer = self.answer(url, request, body).await?;
        let url = answer.verification_uri_complete.unwrap_or(answer.verification_uri);
        let shown = crate::text::display(&answer.user_code);
        if !is_https(&url) || url.contains(char::is_control) || shown != answer.user_code {
            return Err(RealmError::Misconfigured("the provider gives no address to go to".to_owned()));
        }
        let interval = answer.interval.map_or(DEFAULT_INTERVAL, Duration::from_secs);
        let interval = interval.clamp(Duration::from_secs(1), LONGEST_INTERVAL);
        Ok(DeviceStarted {
            url,
            user_code: answer.user_code,
            expires: now + Duration::from_secs(answer.expires_in).min(LONGEST),
            interval,
            device_code: Secret::from(answer.device_code),
            ask_at: now + interval,
        })
    }

    /// Asks whether the person has agreed. May be called at any rate: the provider is asked no faster than it wants.
    pub async fn poll_device(
        &self,
        started: &mut DeviceStarted,
        now: SystemTime,
    ) -> Result<DevicePoll, RealmError> {
        if now < started.ask_at {
            return Ok(DevicePoll::Pending);
        }
        started.ask_at = now + started.interval;
        let provider = self.provider(now).await?;
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", started.device_code.expose()),
        ];
        match self.tokens(&provider, &form).await? {
            Ok(tokens) => self.person(&provider, &tokens, None, now).await.map(DevicePoll::Done),
            Err(refused) => match refused.error.as_str() {
                "authorization_pending" => Ok(DevicePoll::Pending),
                "slow_down" => {
                    started.interval = (started.interval + SLOWER_BY).min(LONGEST_INTERVAL);
                    started.ask_at = now + started.interval;
                    Ok(DevicePoll::Pending)
                }
                _ => Err(refused.into_error()),
            },
        }
    }
}
