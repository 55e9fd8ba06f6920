//! Asking for tokens, and believing the identity token.

use std::str::FromStr as _;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use horcrux_transport::secret::Secret;
use http::{Request, StatusCode, header};
use openidconnect::core::{
    CoreIdToken, CoreIdTokenVerifier, CoreJsonWebKeySet, CoreJwsSigningAlgorithm as Algorithm,
};
use openidconnect::{ClaimsVerificationError, ClientId, IssuerUrl, Nonce, SignatureVerificationError};
use serde::Deserialize;
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::Oidc;
use super::provider::{AnswerError, Provider};
use crate::{RealmError, Refusal};

/// Those with a key pair. Never `none`, and none that a client's secret would sign: whoever knows that isn't the
/// provider.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RsaSsaPkcs1V15Sha256,
    Algorithm::RsaSsaPkcs1V15Sha384,
    Algorithm::RsaSsaPkcs1V15Sha512,
    Algorithm::RsaSsaPssSha256,
    Algorithm::RsaSsaPssSha384,
    Algorithm::RsaSsaPssSha512,
    Algorithm::EcdsaP256Sha256,
    Algorithm::EcdsaP384Sha384,
    Algorithm::EdDsa,
];
/// How far the provider's clock may be behind ours when a token ends.
const LEEWAY: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
pub(super) struct Tokens {
    pub(super) id_token: String,
    pub(super) access_token: String,
}

/// RFC 6749, 5.2.
#[derive(Deserialize)]
pub(super) struct TokenRefused {
    pub(super) error: String,
}

impl TokenRefused {
    /// About the person, or about us?
    pub(super) fn into_error(self) -> RealmError {
        match self.error.as_str() {
            "invalid_client" | "unauthorized_client" | "unsupported_grant_type" | "invalid_scope" => {
                RealmError::Misconfigured(format!("the provider refuses this client: {}", self.error))
            }
            _ => RealmError::Refused(Refusal::Provider(crate::text::display(&self.error))),
        }
    }
}

impl Oidc {
    /// A form to one of the provider's addresses, in our name.
    pub(super) fn form(&self, url: &url::Url, form: &[(&str, &str)]) -> (http::request::Builder, Vec<u8>) {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        let mut request = Request::post(url.as_str())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json");
        match &self.settings.client_secret {
            // Both are encoded as in a form first (RFC 6749, 2.3.1).
            Some(secret) => {
                let encoded =
                    |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let pair = format!("{}:{}", encoded(&self.settings.client_id), encoded(secret.expose()));
                request = request.header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair)));
            }
            None => drop(body.append_pair("client_id", &self.settings.client_id)),
        }
        (request, body.finish().into_bytes())
    }

    /// What the token endpoint gives, or why not.
    pub(super) async fn tokens(
        &self,
        provider: &Provider,
        form: &[(&str, &str)],
    ) -> Result<Result<Tokens, TokenRefused>, RealmError> {
        let (request, body) = self.form(&provider.token, form);
        let request = request.body(body).map_err(RealmError::unavailable)?;
        let answer = self.https.call(request).await.map_err(RealmError::unavailable)?;
        let content = |source| RealmError::unavailable(AnswerError::Content(provider.token.clone(), source));
        match answer.status() {
            StatusCode::OK => serde_json::from_slice(answer.body()).map(Ok).map_err(content),
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                serde_json::from_slice(answer.body()).map(Err).map_err(content)
            }
            status => Err(RealmError::unavailable(AnswerError::Status(provider.token.clone(), status))),
        }
    }

    /// The subject and all claims of an identity token that is the provider's, for us, of now, and with `nonce`.
    pub(super) async fn identity(
        &self,
        provider: &Provider,
        token: &str,
        nonce: Option<&Secret>,
        now: SystemTime,
    ) -> Result<(String, Map<String, Value>), RealmError> {
        let refused = |why: crate::BoxError| RealmError::Refused(Refusal::Token(why));
        let parsed = CoreIdToken::from_str(token).map_err(|error| refused(error.into()))?;
        let keys = self.keys(provider, now).await?;
        let mut verified = self.verify(&parsed, &keys, nonce, now);
        let unknown_key =
            ClaimsVerificationError::SignatureVerification(SignatureVerificationError::NoMatchingKey);
        if verified.as_ref().is_err_and(|error| *error == unknown_key)
            && let Some(newer) = self.newer_keys(provider, now).await?
        {
            verified = self.verify(&parsed, &newer, nonce, now);
        }
        let subject = verified.map_err(|error| refused(error.into()))?;
        // The library keeps the claims that it knows; others are in the part that the signature is over.
        let payload = token.split('.').nth(1).unwrap_or_default();
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|error| refused(error.into()))?;
        let claims = serde_json::from_slice(&payload).map_err(|error| refused(error.into()))?;
        Ok((subject, claims))
    }

    fn verify(
        &self,
        token: &CoreIdToken,
        keys: &CoreJsonWebKeySet,
        nonce: Option<&Secret>,
        now: SystemTime,
    ) -> Result<String, ClaimsVerificationError> {
        let issuer = IssuerUrl::new(self.settings.issuer.clone())
            .map_err(|error| ClaimsVerificationError::Other(error.to_string()))?;
        let client = ClientId::new(self.settings.client_id.clone());
        let verifier = CoreIdTokenVerifier::new_public_client(client, issuer, keys.clone())
            .set_allowed_algs(ALGORITHMS)
            .set_time_fn(|| (now - LEEWAY).into());
        let claims = match nonce {
            Some(nonce) => token.claims(&verifier, &Nonce::new(nonce.expose().to_owned())),
            // The device flow has no browser that a token could be slipped to.
            None => token.claims(&verifier, |_: Option<&Nonce>| Ok(())),
        }?;
        Ok(claims.subject().to_string())
    }

    /// What the provider tells of `subject` besides.
    pub(super) async fn userinfo(
        &self,
        provider: &Provider,
        tokens: &Tokens,
        subject: &str,
    ) -> Result<Map<String, Value>, RealmError> {
        let Some(url) = &provider.userinfo else { return Ok(Map::new()) };
        let request = Request::get(url.as_str());
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", tokens.access_token));
        let claims: Map<String, Value> = self.answer(url, request, Vec::new()).await?;
        if claims.get("sub").and_then(Value::as_str) != Some(subject) {
            return Err(RealmError::Refused(Refusal::OtherSubject));
        }
        Ok(claims)
    }
}
