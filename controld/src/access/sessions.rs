//! Sessions: what signing in gives, and what of it is good now. Secrets are 32 random bytes; the store knows hashes only.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use horcrux_transport::secret::Secret;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::password::{PasswordError, Passwords};
use super::{Principal, Role};
use crate::config::Config;
use crate::store::sessions::{HashedSecret, Redeemed, SecretKind, SessionRow};
use crate::store::{Store, StoreError};

/// An access token outlives a lost sign-out by no more than this.
const ACCESS_MS: i64 = 10 * 60 * 1000;
/// The use of a session is written down at most this often.
const TOUCH_MS: i64 = 60 * 1000;
const SECRET_BYTES: usize = 32;

/// Signs people in and knows who is.
#[derive(Clone, Debug)]
pub struct Sessions {
    store: Store,
    passwords: Passwords,
    idle_ms: i64,
    absolute_ms: i64,
}

/// What stands for a session at a client.
#[derive(Debug)]
pub enum Carrier {
    Tokens(Tokens),
    /// A browser's cookie, and what it must send beside it.
    Cookie {
        value: Secret,
        csrf: String,
    },
}

#[derive(Debug)]
pub struct Tokens {
    pub access: Secret,
    pub access_expires_ms: i64,
    pub refresh: Secret,
}

/// Where a session is to be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    Browser,
    Other,
}

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// One answer for an unknown user, a wrong password and a disabled user.
    #[error("the user name or the password is wrong")]
    Refused,
    #[error("too many sign-ins are being checked: try again in a few seconds")]
    Busy,
    #[error("the session is over: sign in again")]
    Over,
    #[error("check a password")]
    Password(#[source] PasswordError),
    #[error("keep a session")]
    Store(#[source] StoreError),
    #[error("no randomness")]
    Random,
}

impl Sessions {
    #[must_use]
    pub fn new(store: Store, passwords: Passwords, config: &Config) -> Self {
        let ms = |d: std::time::Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        Self { store, passwords, idle_ms: ms(config.session_idle), absolute_ms: ms(config.session_absolute) }
    }

    #[must_use]
    pub fn idle_seconds(&self) -> u32 {
        u32::try_from(self.idle_ms / 1000).unwrap_or(u32::MAX)
    }

    pub async fn sign_in(
        &self,
        user: &str,
        password: Secret,
        client: Client,
        now_ms: i64,
    ) -> Result<(Principal, Carrier), SessionError> {
        let known = self.store.user(user).await.map_err(SessionError::Store)?.filter(|u| !u.disabled);
        let stored = known.as_ref().map(|u| u.password_hash.clone());
        let fits = self.passwords.verify(password, stored).await.map_err(|error| match error {
            PasswordError::Busy => SessionError::Busy,
            other @ PasswordError::Hash(_) => SessionError::Password(other),
        })?;
        let known = known.filter(|_| fits).ok_or(SessionError::Refused)?;
        let row = SessionRow {
            id: random_text(12)?,
            user: known.name,
            role: known.role,
            created_ms: now_ms,
            expires_ms: now_ms.saturating_add(self.absolute_ms),
            last_used_ms: now_ms,
        };
        let (carrier, secrets) = match client {
            Client::Browser => {
                let value = random_text(SECRET_BYTES)?;
                let hashed =
                    HashedSecret { hash: hash(&value), kind: SecretKind::Cookie, expires_ms: row.expires_ms };
                (Carrier::Cookie { csrf: csrf(&value), value: value.into() }, vec![hashed])
            }
            Client::Other => {
                let (tokens, secrets) = tokens(now_ms, row.expires_ms)?;
                (Carrier::Tokens(tokens), secrets)
            }
        };
        self.store.insert_session(&row, &secrets).await.map_err(SessionError::Store)?;
        Ok((principal(row), carrier))
    }

    /// Exchanges a refresh token; one that was used before ends its session.
    pub async fn refresh(&self, token: &Secret, now_ms: i64) -> Result<Tokens, SessionError> {
        // The successors never outlive the session: its own end is checked at every use.
        let (tokens, secrets) = tokens(now_ms, now_ms.saturating_add(self.absolute_ms))?;
        let redeemed = self
            .store
            .redeem_refresh(&hash(token.expose()), &secrets, now_ms, self.idle_ms)
            .await
            .map_err(SessionError::Store)?;
        match redeemed {
            Redeemed::Session(_) => Ok(tokens),
            Redeemed::Reused => {
                tracing::warn!("refresh token used twice: its session was ended");
                Err(SessionError::Over)
            }
            Redeemed::Unknown => Err(SessionError::Over),
        }
    }

    /// Whom an access token or a cookie stands for now.
    pub async fn principal(
        &self,
        secret: &Secret,
        kind: SecretKind,
        now_ms: i64,
    ) -> Result<Option<Principal>, SessionError> {
        let found = self.store.session_by_secret(&hash(secret.expose()), kind, now_ms, self.idle_ms).await;
        let Some(row) = found.map_err(SessionError::Store)? else { return Ok(None) };
        if now_ms - row.last_used_ms > TOUCH_MS {
            self.store.touch_session(&row.id, now_ms).await.map_err(SessionError::Store)?;
        }
        Ok(Some(principal(row)))
    }

    /// Whether a session still stands, for a stream that it opened; counts as use.
    pub async fn stands(&self, session: &str, now_ms: i64) -> Result<bool, SessionError> {
        let found = self.store.session(session, now_ms).await.map_err(SessionError::Store)?;
        if let Some(row) = &found
            && now_ms - row.last_used_ms > TOUCH_MS
        {
            self.store.touch_session(&row.id, now_ms).await.map_err(SessionError::Store)?;
        }
        Ok(found.is_some())
    }

    pub async fn end(&self, session: &str) -> Result<(), SessionError> {
        self.store.end_session(session).await.map_err(SessionError::Store)
    }

    pub async fn purge(&self, now_ms: i64) -> Result<(), SessionError> {
        self.store.purge_sessions(now_ms, self.idle_ms).await.map_err(SessionError::Store)
    }
}

/// What a browser must send as `x-horcrux-csrf` beside this cookie. Derived, so that nothing more is kept; the page
/// can't compute it, since the cookie is hidden from it.
#[must_use]
pub fn csrf(cookie: &str) -> String {
    let mut input = b"horcrux csrf\0".to_vec();
    input.extend_from_slice(cookie.as_bytes());
    URL_SAFE_NO_PAD.encode(digest(&SHA256, &input))
}

/// SHA-256: secrets here are random, so no slow hash is needed.
#[must_use]
pub fn hash(secret: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    out
}

/// `bytes` random bytes as URL-safe base64.
pub fn random_text(bytes: usize) -> Result<String, SessionError> {
    let mut random = vec![0; bytes];
    SystemRandom::new().fill(&mut random).map_err(|_| SessionError::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

fn tokens(now_ms: i64, session_expires_ms: i64) -> Result<(Tokens, Vec<HashedSecret>), SessionError> {
    let access = format!("hxa_{}", random_text(SECRET_BYTES)?);
    let refresh = format!("hxr_{}", random_text(SECRET_BYTES)?);
    let access_expires_ms = session_expires_ms.min(now_ms + ACCESS_MS);
    let hashed = |text: &str, kind, expires_ms| HashedSecret { hash: hash(text), kind, expires_ms };
    let secrets = vec![
        hashed(&access, SecretKind::Access, access_expires_ms),
        hashed(&refresh, SecretKind::Refresh, session_expires_ms),
    ];
    Ok((Tokens { access: access.into(), access_expires_ms, refresh: refresh.into() }, secrets))
}

fn principal(row: SessionRow) -> Principal {
    Principal {
        session: row.id,
        user: row.user,
        role: row.role.as_deref().and_then(Role::from_name),
        created_ms: row.created_ms,
        expires_ms: row.expires_ms,
    }
}
