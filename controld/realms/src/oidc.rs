//! Sign-in at an OpenID provider: the authorization code flow with PKCE for browsers, the device flow (RFC 8628) for
//! the rest.
//!
//! A person is who the identity token says: issuer and subject. Name and groups are shown and matched, and taken from the
//! user information endpoint where the token doesn't hold them. One that can't be read fails the sign-in.
//!
//! The controller that keeps a [`Started`] must find it by the browser that began, not by `state` alone, or somebody
//! could finish their own sign-in in another's browser. Each realm should have a `redirect_url` of its own: that is what
//! keeps one provider from being handed what another gave (RFC 9700, 4.4.2).

mod device;
mod provider;
mod token;

use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use horcrux_transport::error::Chain;
use horcrux_transport::https::Https;
use horcrux_transport::secret::Secret;
use horcrux_transport::tls::foreign_client;
use openidconnect::{CsrfToken, Nonce, PkceCodeChallenge};
use serde_json::{Map, Value};
use subtle::ConstantTimeEq as _;
use url::Url;

pub use self::device::{DevicePoll, DeviceStarted};
use self::provider::{Known, Provider};
use self::token::Tokens;
use crate::text::{display, groups, is_name};
use crate::{Person, RealmError, Refusal};

/// An OpenID provider, and what we are to it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// As in its tokens: `https://id.example`.
    pub issuer: String,
    pub client_id: String,
    /// None for a public client.
    pub client_secret: Option<Secret>,
    /// Besides `openid`: `profile`, `groups`.
    pub scopes: Vec<String>,
    /// PEM; the system's when `None`.
    pub authorities: Option<PathBuf>,
    /// What people are called by: `preferred_username`.
    pub name_claim: String,
    pub groups_claim: Option<String>,
    /// Where the provider sends browsers back to.
    pub redirect_url: String,
    /// For each request to the provider.
    pub timeout: Duration,
}

/// A provider that can be asked.
pub struct Oidc {
    settings: Settings,
    https: Https,
    known: Mutex<Known>,
}

/// A sign-in that a browser is away for.
#[derive(Debug)]
pub struct Started {
    /// Where the browser goes.
    pub url: String,
    /// Comes back with the browser.
    pub state: Secret,
    /// Comes back in the identity token.
    pub nonce: Secret,
    /// Proves to the provider that we began.
    pub verifier: Secret,
}

/// Keys, metadata and claims are a few kilobytes; a list of a thousand groups fits too.
const BODY_BYTES: usize = 1 << 20;
/// OpenID Connect Core, 2.
const SUBJECT_CHARS: usize = 255;
const CODE_BYTES: usize = 4096;

impl fmt::Debug for Oidc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oidc").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Oidc {
    /// Nothing is asked of the provider yet: see [`Oidc::check`].
    pub fn new(settings: Settings) -> Result<Self, RealmError> {
        let wrong = |text: String| Err(RealmError::Misconfigured(text));
        for address in [&settings.issuer, &settings.redirect_url] {
            if !is_https(address) {
                return wrong(format!("{address} is not an https address"));
            }
        }
        if settings.client_id.is_empty() || settings.name_claim.is_empty() {
            return wrong("a client id and a claim for the name are needed".to_owned());
        }
        if settings.client_secret.as_ref().is_some_and(|secret| secret.expose().is_empty()) {
            return wrong("the client's secret is empty".to_owned());
        }
        if let Some(scope) = settings.scopes.iter().find(|s| s.is_empty() || s.contains(char::is_whitespace))
        {
            return wrong(format!("{scope:?} is not a scope"));
        }
        let config = foreign_client(settings.authorities.as_deref())
            .map_err(|error| RealmError::Misconfigured(Chain(&error).to_string()))?;
        let https = Https::new(&config, settings.timeout, BODY_BYTES);
        Ok(Self { settings, https, known: Mutex::default() })
    }

    /// Whether the provider is there and says what is needed of it.
    pub async fn check(&self, now: SystemTime) -> Result<(), RealmError> {
        self.provider(now).await.map(|_| ())
    }

    /// Begins a browser's sign-in.
    pub async fn start(&self, now: SystemTime) -> Result<Started, RealmError> {
        let provider = self.provider(now).await?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let (state, nonce) = (CsrfToken::new_random(), Nonce::new_random());
        let mut url = provider.authorization.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("redirect_uri", &self.settings.redirect_url)
            .append_pair("scope", &self.scopes())
            .append_pair("state", state.secret())
            .append_pair("nonce", nonce.secret())
            .append_pair("code_challenge", challenge.as_str())
            .append_pair("code_challenge_method", challenge.method().as_str());
        Ok(Started {
            url: url.into(),
            state: Secret::from(state.into_secret()),
            nonce: Secret::from(nonce.secret().clone()),
            verifier: Secret::from(verifier.into_secret()),
        })
    }

    /// Ends it, with what the browser brought back. A sign-in that was started is ended once, whatever comes of it.
    pub async fn finish(
        &self,
        started: Started,
        code: &str,
        state: &str,
        now: SystemTime,
    ) -> Result<Person, RealmError> {
        if !bool::from(started.state.expose().as_bytes().ct_eq(state.as_bytes())) {
            return Err(RealmError::Refused(Refusal::State));
        }
        if code.is_empty() || code.len() > CODE_BYTES {
            return Err(RealmError::Refused(Refusal::Provider("it gave no code".to_owned())));
        }
        let provider = self.provider(now).await?;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", self.settings.redirect_url.as_str()),
            ("code_verifier", started.verifier.expose()),
        ];
        let tokens = self.tokens(&provider, &form).await?.map_err(|refused| refused.into_error())?;
        self.person(&provider, &tokens, Some(&started.nonce), now).await
    }

    fn scopes(&self) -> String {
        let others = self.settings.scopes.iter().map(String::as_str).filter(|scope| *scope != "openid");
        std::iter::once("openid").chain(others).collect::<Vec<_>>().join(" ")
    }

    async fn person(
        &self,
        provider: &Provider,
        tokens: &Tokens,
        nonce: Option<&Secret>,
        now: SystemTime,
    ) -> Result<Person, RealmError> {
        let (subject, mut claims) = self.identity(provider, &tokens.id_token, nonce, now).await?;
        if subject.is_empty() || subject.chars().count() > SUBJECT_CHARS || subject.contains(char::is_control)
        {
            return Err(RealmError::Refused(Refusal::BadName));
        }
        let Settings { name_claim, groups_claim, issuer, .. } = &self.settings;
        let missing = |claim: &String| !claims.contains_key(claim);
        if missing(name_claim) || groups_claim.as_ref().is_some_and(missing) {
            for (claim, value) in self.userinfo(provider, tokens, &subject).await? {
                claims.entry(claim).or_insert(value);
            }
        }
        let name = match claims.get(name_claim).and_then(Value::as_str) {
            Some(name) if is_name(name) => name.to_owned(),
            Some(_) => return Err(RealmError::Refused(Refusal::BadName)),
            None => return Err(RealmError::Misconfigured(format!("the provider tells no {name_claim}"))),
        };
        let called = claims.get("name").and_then(Value::as_str).map(display).filter(|text| !text.is_empty());
        let display_name = called.unwrap_or_else(|| display(&name));
        let groups = match groups_claim {
            Some(claim) => groups_in(&claims, claim)?,
            None => Vec::new(),
        };
        Ok(Person { subject: format!("{issuer} {subject}"), name, display_name, groups })
    }
}

/// One that can't be read is an error: it may name a group that forbids.
fn groups_in(claims: &Map<String, Value>, claim: &str) -> Result<Vec<String>, RealmError> {
    let wrong = |why: &str| Err(RealmError::Misconfigured(format!("the provider's {claim} {why}")));
    // Where Microsoft's provider has more than fit, it says where to ask instead (OpenID Connect Core, 5.6.2).
    if claims.get("_claim_names").is_some_and(|names| names.get(claim).is_some()) {
        return wrong("are too many for its token");
    }
    match claims.get(claim) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(one)) => groups([one.clone()]),
        Some(Value::Array(all)) => {
            let names: Option<Vec<_>> = all.iter().map(|name| name.as_str().map(str::to_owned)).collect();
            names.map_or_else(|| wrong("are not names"), groups)
        }
        Some(Value::Bool(_) | Value::Number(_) | Value::Object(_)) => wrong("are not names"),
    }
}

fn is_https(address: &str) -> bool {
    Url::parse(address).is_ok_and(|url| {
        url.scheme() == "https"
            && url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(claims: &Value) -> Result<Vec<String>, RealmError> {
        groups_in(claims.as_object().unwrap(), "groups")
    }

    #[test]
    fn groups_that_can_not_be_read_are_not_left_out() {
        assert_eq!(told(&json!({})).unwrap(), Vec::<String>::new());
        assert_eq!(told(&json!({ "groups": "one" })).unwrap(), ["one"]);
        assert_eq!(told(&json!({ "groups": ["b", "a"] })).unwrap(), ["a", "b"]);
        for wrong in [
            json!({ "groups": 1 }),
            json!({ "groups": ["a", 1] }),
            json!({ "groups": { "a": true } }),
            json!({ "_claim_names": { "groups": "src1" } }),
        ] {
            assert!(matches!(told(&wrong), Err(RealmError::Misconfigured(_))), "{wrong}");
        }
    }
}
