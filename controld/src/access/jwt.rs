//! Access tokens: JWTs, signed with Ed25519, that carry the session's id and live ten minutes at most. They say who calls;
//! whether the session still stands is asked at every use.

use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::keys::{KeyError, session_key};

/// An access token outlives a lost sign-out by no more than this.
pub const LIFETIME_MS: i64 = 10 * 60 * 1000;
const AUDIENCE: &str = "horcrux";
/// RFC 9068.
const TYPE: &str = "at+jwt";

/// Signs access tokens and reads them.
pub struct Signer {
    sign: EncodingKey,
    verify: DecodingKey,
    /// Says whose tokens these are.
    issuer: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.issuer)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    /// `user@realm`.
    sub: String,
    sid: String,
    typ: String,
    /// In seconds, as all times here.
    iat: i64,
    nbf: i64,
    exp: i64,
}

impl Signer {
    /// With the key in `dir`, made where there is none.
    pub fn open(dir: &Path, cluster: &str) -> Result<Self, KeyError> {
        let (path, der) = session_key(dir)?;
        let key = Ed25519KeyPair::from_pkcs8(&der).map_err(|_| KeyError::Damaged { path })?;
        Ok(Self {
            sign: EncodingKey::from_ed_der(&der),
            verify: DecodingKey::from_ed_der(key.public_key().as_ref()),
            issuer: format!("horcrux:{cluster}"),
        })
    }

    /// A token for a session, and its end. `None` where it can't be signed.
    #[must_use]
    pub fn sign(
        &self,
        user: &str,
        session: &str,
        session_ends_ms: i64,
        now_ms: i64,
    ) -> Option<(String, i64)> {
        let expires_ms = session_ends_ms.min(now_ms + LIFETIME_MS);
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: AUDIENCE.to_owned(),
            sub: user.to_owned(),
            sid: session.to_owned(),
            typ: TYPE.to_owned(),
            iat: now_ms / 1000,
            nbf: now_ms / 1000,
            exp: expires_ms / 1000,
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        let token = jsonwebtoken::encode(&header, &claims, &self.sign).ok()?;
        Some((token, expires_ms / 1000 * 1000))
    }

    /// The session that a token is for, if we signed it, as an access token, and it is good at `now_ms`.
    #[must_use]
    pub fn session(&self, token: &str, now_ms: i64) -> Option<String> {
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.set_audience(&[AUDIENCE]);
        rules.set_issuer(&[&self.issuer]);
        rules.set_required_spec_claims(&["iss", "aud", "exp", "nbf", "sub"]);
        // Against the time that is passed in, below.
        (rules.validate_exp, rules.validate_nbf) = (false, false);
        let data = jsonwebtoken::decode::<Claims>(token, &self.verify, &rules).ok()?;
        let now = now_ms / 1000;
        let claims = data.claims;
        let good = claims.typ == TYPE
            && data.header.typ.as_deref() == Some(TYPE)
            && claims.nbf <= now
            && now < claims.exp
            && claims.exp - claims.nbf <= LIFETIME_MS / 1000;
        good.then_some(claims.sid)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    use super::*;

    const NOW_MS: i64 = 1_800_000_000_000;

    fn signer(dir: &Path) -> Signer {
        Signer::open(dir, "c1").unwrap()
    }

    fn claims() -> Value {
        let now = NOW_MS / 1000;
        json!({"iss": "horcrux:c1", "aud": "horcrux", "sub": "alice@local", "sid": "s1", "typ": TYPE,
               "iat": now, "nbf": now, "exp": now + 600})
    }

    fn signed(signer: &Signer, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &signer.sign).unwrap()
    }

    fn usual() -> Header {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header
    }

    #[test]
    fn a_token_is_good_until_its_end_and_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let (token, expires_ms) = signer(dir.path()).sign("alice@local", "s1", i64::MAX, NOW_MS).unwrap();
        assert_eq!(expires_ms, NOW_MS + LIFETIME_MS);
        let again = signer(dir.path());
        assert_eq!(again.session(&token, NOW_MS).as_deref(), Some("s1"));
        assert_eq!(again.session(&token, expires_ms - 1).as_deref(), Some("s1"));
        assert_eq!(again.session(&token, expires_ms), None);
        assert_eq!(again.session(&token, NOW_MS - 1000), None, "not yet");
        let (short, ends) = again.sign("alice@local", "s1", NOW_MS + 5000, NOW_MS).unwrap();
        assert_eq!((ends, again.session(&short, NOW_MS + 5000)), (NOW_MS + 5000, None));
    }

    #[test]
    fn every_claim_is_required_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let signer = signer(dir.path());
        assert!(signer.session(&signed(&signer, &usual(), &claims()), NOW_MS).is_some());
        for missing in ["iss", "aud", "exp", "nbf", "typ", "sid", "sub"] {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(missing);
            assert_eq!(
                signer.session(&signed(&signer, &usual(), &claims), NOW_MS),
                None,
                "without {missing}"
            );
        }
        let now = NOW_MS / 1000;
        for (key, wrong) in [
            ("iss", json!("horcrux:c2")),
            ("aud", json!("other")),
            ("typ", json!("refresh")),
            ("exp", json!(now - 1)),
            ("exp", json!(now + 86_400)),
            ("nbf", json!(now + 60)),
        ] {
            let mut claims = claims();
            claims[key] = wrong.clone();
            assert_eq!(signer.session(&signed(&signer, &usual(), &claims), NOW_MS), None, "{key}: {wrong}");
        }
    }

    #[test]
    fn tricks_with_the_header_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let signer = signer(dir.path());
        let good = signed(&signer, &usual(), &claims());
        let parts: Vec<&str> = good.split('.').collect();
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        for header in [
            json!({"alg": "none", "typ": TYPE}),
            json!({"alg": "HS256", "typ": TYPE}),
            json!({"alg": "RS256", "typ": TYPE}),
        ] {
            for signature in ["", parts[2]] {
                let forged = format!("{}.{}.{signature}", part(header.clone()), parts[1]);
                assert_eq!(signer.session(&forged, NOW_MS), None, "{header}");
            }
        }
        // Signed with the public key as if it were a shared secret.
        let (_, der) = session_key(dir.path()).unwrap();
        let public = Ed25519KeyPair::from_pkcs8(&der).unwrap().public_key().as_ref().to_vec();
        let mut hs = Header::new(Algorithm::HS256);
        hs.typ = Some(TYPE.to_owned());
        let confused = jsonwebtoken::encode(&hs, &claims(), &EncodingKey::from_secret(&public)).unwrap();
        assert_eq!(signer.session(&confused, NOW_MS), None);
        // Signed by another key that the header brings along.
        let elsewhere = tempfile::tempdir().unwrap();
        let other = self::signer(elsewhere.path());
        for header in [
            Header { jku: Some("https://evil.example/k".to_owned()), ..usual() },
            Header { kid: Some("../../session-key".to_owned()), ..usual() },
        ] {
            assert_eq!(signer.session(&signed(&other, &header, &claims()), NOW_MS), None);
        }
        let untyped = Header { typ: Some("JWT".to_owned()), ..usual() };
        assert_eq!(signer.session(&signed(&signer, &untyped, &claims()), NOW_MS), None);
    }
}
