//! Sessions: what signing in gives, and whether it is good now. Browsers carry a cookie; others a short access token and a
//! refresh token that works once.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use horcrux_transport::secret::Secret;
use tokio::sync::broadcast;

use super::challenges::Proven;
use super::jwt::Signer;
use super::keys::{KeyError, hash, random_id, random_secret};
use super::name::UserId;
use super::watched::Watched;
use crate::store::sessions::{At, HashedSecret, Redeemed, SecretKind, SessionRow};
use crate::store::{Store, StoreError};

/// So often at most the use of a session is written down; more often where it would idle out before.
const TOUCH_MS: i64 = 60 * 1000;
/// What a client says it is, as far as it is kept.
const MAX_CLIENT: usize = 120;
/// Endings that a stream may lag behind: what it misses it is told again, at the next look.
const ENDINGS: usize = 256;

/// Opens sessions, and knows which stand.
#[derive(Clone, Debug)]
pub struct Sessions {
    pub(super) store: Store,
    signer: Arc<Signer>,
    idle_ms: i64,
    absolute_ms: i64,
    ended: broadcast::Sender<Ended>,
    pub watched: Watched,
}

/// Something ended, and with it the streams that it opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// One session, by id.
    Session(String),
    /// All of a user but one session.
    AllOf { user: UserId, but: Option<String> },
    /// One API token, by id.
    Token(Box<str>),
    /// One guest link, by id.
    Link(Box<str>),
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

/// Who opens one.
#[derive(Clone, Debug)]
pub struct Visitor {
    pub client: Client,
    pub source: std::net::IpAddr,
    /// The head of its User-Agent.
    pub agent: String,
    /// What an earlier sign-in gave it, to be known by.
    pub device: Option<Secret>,
}

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("the session is over: sign in again")]
    Over,
    /// The caller hears no more than that; what was ended is for the record.
    #[error("the session is over: sign in again")]
    Reused { session: String, user: String },
    #[error("keep a session")]
    Store(#[source] StoreError),
    #[error("make a session's secrets")]
    Key(#[source] KeyError),
    #[error("sign an access token")]
    Sign,
}

impl Sessions {
    #[must_use]
    pub fn new(store: Store, signer: Arc<Signer>, idle: Duration, absolute: Duration) -> Self {
        let ms = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        let (idle_ms, absolute_ms) = (ms(idle), ms(absolute));
        Self {
            store,
            signer,
            idle_ms,
            absolute_ms,
            ended: broadcast::Sender::new(ENDINGS),
            watched: Watched::default(),
        }
    }

    #[must_use]
    pub fn idle_seconds(&self) -> u32 {
        u32::try_from(self.idle_ms / 1000).unwrap_or(u32::MAX)
    }

    pub async fn open(
        &self,
        proven: &Proven,
        visitor: &Visitor,
        now_ms: i64,
    ) -> Result<(SessionRow, Carrier), SessionError> {
        let agent = visitor.agent.chars().filter(|c| !c.is_control()).take(MAX_CLIENT).collect();
        let row = SessionRow {
            id: random_id().map_err(SessionError::Key)?,
            user: proven.user.to_string(),
            created_ms: now_ms,
            expires_ms: now_ms.saturating_add(self.absolute_ms),
            last_used_ms: now_ms,
            source: visitor.source.to_string(),
            client: agent,
        };
        let (carrier, secret) = match visitor.client {
            Client::Browser => {
                let value = random_secret("")?;
                let kept = hashed(&value, SecretKind::Cookie, row.expires_ms);
                (Carrier::Cookie { csrf: csrf(value.expose()), value }, kept)
            }
            Client::Other => {
                let refresh = random_secret("hxr_")?;
                let kept = hashed(&refresh, SecretKind::Refresh, row.expires_ms);
                (Carrier::Tokens(self.tokens(&row, refresh, now_ms)?), kept)
            }
        };
        let opened = self.store.insert_session(&row, &secret, proven.credentials).await;
        for ended in opened.map_err(SessionError::Store)?.ok_or(SessionError::Over)? {
            self.told(Ended::Session(ended));
        }
        Ok((row, carrier))
    }

    /// Whether there ever was such a refresh token, of a session that is kept.
    pub async fn knows_refresh(&self, token: &Secret) -> Result<bool, SessionError> {
        self.store.knows_refresh(&hash(token.expose())).await.map_err(SessionError::Store)
    }

    /// Exchanges a refresh token; one that was used before ends its session.
    pub async fn refresh(&self, token: &Secret, now_ms: i64) -> Result<Tokens, SessionError> {
        let refresh = random_secret("hxr_")?;
        // The successor never outlives the session: its own end is checked at every use.
        let kept = hashed(&refresh, SecretKind::Refresh, now_ms.saturating_add(self.absolute_ms));
        let redeemed = self.store.redeem_refresh(&hash(token.expose()), &kept, self.at(now_ms)).await;
        match redeemed.map_err(SessionError::Store)? {
            Redeemed::Session(row) => self.tokens(&row, refresh, now_ms),
            Redeemed::Reused { session, user } => {
                tracing::warn!(session, "refresh token used twice: its session was ended");
                self.told(Ended::Session(session.clone()));
                Err(SessionError::Reused { session, user })
            }
            Redeemed::Unknown => Err(SessionError::Over),
        }
    }

    /// The session that an access token is for, where it stands.
    pub async fn by_access_token(
        &self,
        token: &Secret,
        now_ms: i64,
    ) -> Result<Option<SessionRow>, SessionError> {
        match self.signer.session(token.expose(), now_ms) {
            Some(id) => self.standing(&id, now_ms).await,
            None => Ok(None),
        }
    }

    pub async fn by_cookie(&self, value: &Secret, now_ms: i64) -> Result<Option<SessionRow>, SessionError> {
        let found = self.store.session_by_cookie(&hash(value.expose()), self.at(now_ms)).await;
        self.used(found.map_err(SessionError::Store)?, now_ms).await
    }

    /// The session of this id where it still stands; asking counts as use.
    pub async fn standing(&self, id: &str, now_ms: i64) -> Result<Option<SessionRow>, SessionError> {
        let found = self.store.session(id, self.at(now_ms)).await.map_err(SessionError::Store)?;
        self.used(found, now_ms).await
    }

    async fn used(&self, row: Option<SessionRow>, now_ms: i64) -> Result<Option<SessionRow>, SessionError> {
        if let Some(row) = &row
            && now_ms - row.last_used_ms > self.touch_ms()
        {
            self.store.touch_session(&row.id, now_ms).await.map_err(SessionError::Store)?;
        }
        Ok(row)
    }

    /// Live ones; of one user where one is given.
    pub async fn list(&self, user: Option<&UserId>, now_ms: i64) -> Result<Vec<SessionRow>, SessionError> {
        self.store.sessions(user.map(UserId::as_str), self.at(now_ms)).await.map_err(SessionError::Store)
    }

    /// Ends one; `false` where there is none.
    pub async fn end(&self, session: &str) -> Result<bool, SessionError> {
        let ended = self.store.end_session(session).await.map_err(SessionError::Store)?;
        self.told(Ended::Session(session.to_owned()));
        Ok(ended)
    }

    /// Ends all of a user but one.
    pub async fn end_others(&self, user: &UserId, kept: &str) -> Result<(), SessionError> {
        self.store.end_other_sessions(user.as_str(), kept).await.map_err(SessionError::Store)?;
        self.told(Ended::AllOf { user: user.clone(), but: Some(kept.to_owned()) });
        Ok(())
    }

    /// Tells open streams.
    pub fn told(&self, ended: Ended) {
        // Nobody listening: no stream is open.
        drop(self.ended.send(ended));
    }

    #[must_use]
    pub fn endings(&self) -> broadcast::Receiver<Ended> {
        self.ended.subscribe()
    }

    pub async fn purge(&self, now_ms: i64) -> Result<(), SessionError> {
        self.store.purge_sessions(self.at(now_ms)).await.map_err(SessionError::Store)
    }

    /// The use of a session is written down at most this often.
    pub(super) fn touch_ms(&self) -> i64 {
        TOUCH_MS.min(self.idle_ms / 4)
    }

    pub(super) fn at(&self, now_ms: i64) -> At {
        At { now_ms, idle_ms: self.idle_ms }
    }

    fn tokens(&self, row: &SessionRow, refresh: Secret, now_ms: i64) -> Result<Tokens, SessionError> {
        let signed = self.signer.sign(&row.user, &row.id, row.expires_ms, now_ms);
        let (access, access_expires_ms) = signed.ok_or(SessionError::Sign)?;
        Ok(Tokens { access: access.into(), access_expires_ms, refresh })
    }
}

impl From<KeyError> for SessionError {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

fn hashed(secret: &Secret, kind: SecretKind, expires_ms: i64) -> HashedSecret {
    HashedSecret { hash: hash(secret.expose()), kind, expires_ms }
}

/// What a browser must send as `x-horcrux-csrf` beside this cookie. Derived, so that nothing more is kept; the page
/// can't compute it, since the cookie is hidden from it.
#[must_use]
pub fn csrf(cookie: &str) -> String {
    let mut input = b"horcrux csrf\0".to_vec();
    input.extend_from_slice(cookie.as_bytes());
    URL_SAFE_NO_PAD.encode(digest(&SHA256, &input))
}
