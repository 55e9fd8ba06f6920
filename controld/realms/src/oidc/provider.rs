//! What the provider publishes of itself: where it is asked, and the keys that its tokens are signed with.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use horcrux_transport::error::Chain;
use http::{Request, StatusCode, header};
use openidconnect::core::CoreJsonWebKeySet;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::{Oidc, is_https};
use crate::RealmError;

/// Addresses change when a provider is rebuilt; then a sign-in fails for an hour at most.
const METADATA_FOR: Duration = Duration::from_secs(3600);
/// A token with a key that we don't know has them fetched again, but anybody can send one.
const KEYS_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Known {
    provider: Option<(Arc<Provider>, SystemTime)>,
    keys: Option<Arc<CoreJsonWebKeySet>>,
    keys_asked: Option<SystemTime>,
}

/// Checked: all of them are https addresses.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) authorization: Url,
    pub(super) token: Url,
    pub(super) userinfo: Option<Url>,
    pub(super) device: Option<Url>,
    keys: Url,
}

/// OpenID Connect Discovery, 3.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("{0} answers with {1}")]
    Status(Url, StatusCode),
    #[error("read what {0} answers")]
    Content(Url, #[source] serde_json::Error),
}

impl Oidc {
    /// As it was last heard of, if that isn't long ago or it can't be asked.
    pub(super) async fn provider(&self, now: SystemTime) -> Result<Arc<Provider>, RealmError> {
        let known = self.known().provider.clone();
        if let Some((provider, until)) = &known
            && now < *until
        {
            return Ok(Arc::clone(provider));
        }
        match (self.discover().await, known) {
            (Ok(provider), _) => {
                let provider = Arc::new(provider);
                self.known().provider = Some((Arc::clone(&provider), now + METADATA_FOR));
                Ok(provider)
            }
            (Err(RealmError::Unavailable(error)), Some((provider, _))) => {
                tracing::warn!(issuer = self.settings.issuer, error = %Chain(&*error), "provider not heard of again");
                Ok(provider)
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn discover(&self) -> Result<Provider, RealmError> {
        let issuer = &self.settings.issuer;
        let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let metadata: Metadata = self.get(&parse(&address)?).await?;
        if metadata.issuer != *issuer {
            return Err(RealmError::Misconfigured(format!(
                "the provider at {issuer} calls itself {}",
                crate::text::display(&metadata.issuer)
            )));
        }
        Ok(Provider {
            authorization: parse(&metadata.authorization_endpoint)?,
            token: parse(&metadata.token_endpoint)?,
            keys: parse(&metadata.jwks_uri)?,
            userinfo: metadata.userinfo_endpoint.as_deref().map(parse).transpose()?,
            device: metadata.device_authorization_endpoint.as_deref().map(parse).transpose()?,
        })
    }

    /// The keys that are known, fetched if none are.
    pub(super) async fn keys(
        &self,
        provider: &Provider,
        now: SystemTime,
    ) -> Result<Arc<CoreJsonWebKeySet>, RealmError> {
        let known = self.known().keys.clone();
        match known {
            Some(keys) => Ok(keys),
            None => self.fetch_keys(provider, now).await,
        }
    }

    /// Newer ones, unless they were asked for a moment ago.
    pub(super) async fn newer_keys(
        &self,
        provider: &Provider,
        now: SystemTime,
    ) -> Result<Option<Arc<CoreJsonWebKeySet>>, RealmError> {
        let asked = self.known().keys_asked;
        // A clock that went back must not hold it off for longer.
        let lately =
            asked.is_some_and(|asked| now.duration_since(asked).is_ok_and(|since| since < KEYS_AFTER));
        if lately {
            return Ok(None);
        }
        self.fetch_keys(provider, now).await.map(Some)
    }

    async fn fetch_keys(
        &self,
        provider: &Provider,
        now: SystemTime,
    ) -> Result<Arc<CoreJsonWebKeySet>, RealmError> {
        self.known().keys_asked = Some(now);
        let keys = Arc::new(self.get::<CoreJsonWebKeySet>(&provider.keys).await?);
        self.known().keys = Some(Arc::clone(&keys));
        Ok(keys)
    }

    async fn get<T: DeserializeOwned>(&self, url: &Url) -> Result<T, RealmError> {
        self.answer(url, Request::get(url.as_str()), Vec::new()).await
    }

    /// What a request for JSON is answered with, where it succeeds.
    pub(super) async fn answer<T: DeserializeOwned>(
        &self,
        url: &Url,
        request: http::request::Builder,
        body: Vec<u8>,
    ) -> Result<T, RealmError> {
        let request = request.header(header::ACCEPT, "application/json").body(body);
        let request = request.map_err(RealmError::unavailable)?;
        let answer = self.https.call(request).await.map_err(RealmError::unavailable)?;
        if answer.status() != StatusCode::OK {
            return Err(RealmError::unavailable(AnswerError::Status(url.clone(), answer.status())));
        }
        serde_json::from_slice(answer.body())
            .map_err(|source| RealmError::unavailable(AnswerError::Content(url.clone(), source)))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // What is in it is whole at any time.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(address: &str) -> Result<Url, RealmError> {
    let wrong = || {
        let shown = crate::text::display(address);
        RealmError::Misconfigured(format!("the provider names {shown}, which is not an https address"))
    };
    Url::parse(address).ok().filter(|_| is_https(address)).ok_or_else(wrong)
}
