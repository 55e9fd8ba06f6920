//! From a name and a password, or what a provider says, to a session: the realm is asked, the second factor where there is
//! one or must be one, and then a session is opened.
//!
//! An unknown user, an unknown realm, a wrong password and a disabled user look the same and take the same work.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use horcrux_realms::{Person, RealmError};
use horcrux_transport::clock;
use horcrux_transport::error::Chain;
use horcrux_transport::secret::Secret;
use horcrux_transport::source::Source;

use super::audit::{Audit, Entry};
use super::challenges::{Challenges, Pending, Proven};
use super::device::Device;
use super::factors::{FactorError, Factors, NewSecret};
use super::keys::{KeyError, Seal};
use super::name::{GroupName, UserId};
use super::password::{Asker, Fit, MAX_BYTES, PasswordError, Passwords};
use super::realm::{Checked, Realm};
use super::registry::Registry;
use super::sessions::{Carrier, SessionError, Sessions, Visitor};
use super::throttle::{Throttle, Trier};
use crate::store::sessions::SessionRow;
use crate::store::users::UserRow;
use crate::store::{Store, StoreError};

/// As much of a name as tells attempts apart: nobody's is longer, and it is remembered.
const MAX_TYPED: usize = 130;
/// Signs people in.
#[derive(Debug)]
pub struct SignIns {
    pub store: Store,
    pub registry: Registry,
    pub sessions: Sessions,
    pub passwords: Passwords,
    pub factors: Factors,
    seal: Arc<Seal>,
    audit: Audit,
    realms: Vec<Realm>,
    /// Whoever holds one of these must have a second factor.
    factor_roles: BTreeSet<String>,
    throttle: Mutex<Throttle>,
    pub challenges: Challenges,
}

/// How far a sign-in got.
#[derive(Debug)]
pub enum Entered {
    Session(Box<SessionRow>, Carrier),
    Challenge { id: Secret, expires_ms: i64, new: Option<NewSecret> },
}

#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// One answer for an unknown user, a wrong password and a disabled user.
    #[error("the user name or the password is wrong")]
    Refused,
    #[error("too many attempts: try again in {} s", .0.as_secs() + 1)]
    Slow(Duration),
    #[error("too many sign-ins are being checked: try again in a few seconds")]
    Busy,
    #[error("the realm {realm} can't be reached now")]
    Unavailable {
        realm: String,
        #[source]
        source: RealmError,
    },
    #[error("this sign-in is over: begin again")]
    Over,
    #[error("the provider did not confirm who you are: begin again")]
    NotProvided,
    /// They are who they say: nothing is given away. The log says which it was.
    #[error(
        "the provider confirmed who you are, but your name is disabled or another's here: ask an administrator"
    )]
    NotAdmitted,
    #[error("{0}")]
    Factor(FactorError),
    #[error("check a password")]
    Password(#[source] PasswordError),
    #[error("keep a sign-in")]
    Store(#[source] StoreError),
    #[error("open a session")]
    Session(#[source] SessionError),
    #[error("make a challenge")]
    Key(#[source] KeyError),
}

impl SignIns {
    #[expect(clippy::too_many_arguments, reason = "its parts, put together once")]
    #[must_use]
    pub fn new(
        store: Store,
        registry: Registry,
        sessions: Sessions,
        passwords: Passwords,
        seal: Arc<Seal>,
        audit: Audit,
        realms: Vec<Realm>,
        factor_roles: BTreeSet<String>,
    ) -> Self {
        Self {
            factors: Factors::new(store.clone(), Arc::clone(&seal)),
            store,
            registry,
            sessions,
            passwords,
            seal,
            audit,
            realms,
            factor_roles,
            throttle: Mutex::default(),
            challenges: Challenges::default(),
        }
    }

    #[must_use]
    pub fn realms(&self) -> &[Realm] {
        &self.realms
    }

    #[must_use]
    pub fn realm(&self, name: &str) -> Option<&Realm> {
        self.realms.iter().find(|realm| realm.name == name)
    }

    /// With a name and a password.
    pub async fn password(
        &self,
        name: &str,
        realm: &str,
        password: Secret,
        visitor: &Visitor,
        now_ms: i64,
    ) -> Result<Entered, SignInError> {
        let user = UserId::new(name, realm).ok();
        let device = match user.as_ref().zip(visitor.device.as_ref()) {
            Some((user, mark)) => self.known_device(user, mark, now_ms).await?,
            None => None,
        };
        let source = Source::of(visitor.source);
        let (trier, asker) = match device {
            Some((user, device)) => (Trier::Device(device), Asker::Known(user)),
            None => (Trier::At(source), Asker::At(source)),
        };
        let cut = |text: &str| text.to_lowercase().chars().take(MAX_TYPED).collect::<String>();
        let typed = format!("{}@{}", cut(name), cut(realm));
        self.slow_down(&typed, trier)?;
        let proven = self.checked(user, name, realm, password, asker, visitor.source, now_ms).await?;
        self.throttle().succeeded(&typed, trier, clock::monotonic());
        self.first_factor_is_right(proven, visitor, now_ms).await
    }

    /// With what a provider said of a person.
    pub async fn provided(
        &self,
        realm: &Realm,
        person: &Person,
        visitor: &Visitor,
        now_ms: i64,
    ) -> Result<Entered, SignInError> {
        let proven = self.known_person(realm, person, visitor.source, now_ms).await;
        // Nobody typed a name or a password.
        let proven = proven.map_err(|error| {
            if matches!(error, SignInError::Refused) { SignInError::NotAdmitted } else { error }
        })?;
        self.first_factor_is_right(proven, visitor, now_ms).await
    }

    /// With the code that a challenge asked for. A new factor's recovery codes come with it.
    pub async fn answer(
        &self,
        challenge: &Secret,
        code: &str,
        visitor: &Visitor,
        now_ms: i64,
    ) -> Result<(Box<SessionRow>, Carrier, Vec<String>), SignInError> {
        let Pending { proven, sets_up, .. } =
            self.challenges.get(challenge, now_ms).ok_or(SignInError::Over)?;
        let user = &proven.user;
        let recovery = if sets_up {
            self.factors.confirm(user, code, now_ms).await.map_err(SignInError::Factor)?
        } else {
            self.factors.check(user, code, now_ms).await.map_err(SignInError::Factor)?;
            Vec::new()
        };
        self.challenges.take(challenge).ok_or(SignInError::Over)?;
        let (row, carrier) = self.open(&proven, visitor, now_ms).await?;
        Ok((row, carrier, recovery))
    }

    /// Whether `password` is `user`'s own, as somebody says who is signed in already.
    pub async fn is_password_of(&self, user: &UserId, password: Secret) -> Result<bool, SignInError> {
        self.slow_down(user.as_str(), Trier::SignedIn)?;
        let (stored, asker) = (self.stored_hash(user).await?, Asker::Known(user.clone()));
        let fit = self.passwords.verify(password, stored, asker).await;
        Ok(fit.map_err(busy)? != Fit::Wrong)
    }

    /// The hash of a new password, for somebody who is signed in or acts for the host.
    pub async fn hash(&self, password: Secret, by: &UserId) -> Result<String, SignInError> {
        self.passwords.hash(password, Asker::Known(by.clone())).await.map_err(busy)
    }

    /// What a device is to keep that `user` has just signed in with.
    pub async fn device(&self, user: &UserId, now_ms: i64) -> Result<Secret, SignInError> {
        let bound = self.shown_by(user).await?;
        Device::mark(&self.seal, user, &bound, now_ms).map_err(SignInError::Key)
    }

    /// `None` for an unknown user, and for one whose password is kept by their realm.
    async fn stored_hash(&self, user: &UserId) -> Result<Option<String>, SignInError> {
        let row = self.store.user(user).await.map_err(SignInError::Store)?;
        Ok(row.and_then(|row| row.password_hash))
    }

    /// What a device's mark is bound to: the password's hash; of who has none here, how often their credentials changed.
    async fn shown_by(&self, user: &UserId) -> Result<String, SignInError> {
        let row = self.store.user(user).await.map_err(SignInError::Store)?;
        Ok(row.map_or_else(String::new, |row| {
            row.password_hash.unwrap_or_else(|| format!("credentials {}", row.credentials))
        }))
    }

    async fn known_device(
        &self,
        user: &UserId,
        mark: &Secret,
        now_ms: i64,
    ) -> Result<Option<(UserId, Device)>, SignInError> {
        let bound = self.shown_by(user).await?;
        let device = Device::known(&self.seal, user, &bound, mark, now_ms);
        Ok(device.map(|device| (user.clone(), device)))
    }

    /// Slows down those who try what needs no session, by their address.
    pub fn knocks(&self, door: &'static str, source: IpAddr) -> Result<(), SignInError> {
        let wait = self.throttle().knock(door, Source::of(source), clock::monotonic());
        if wait.is_zero() { Ok(()) } else { Err(SignInError::Slow(wait)) }
    }

    /// What they tried was right.
    pub fn opened(&self, door: &'static str, source: IpAddr) {
        self.throttle().opened(door, Source::of(source), clock::monotonic());
    }

    fn slow_down(&self, typed: &str, trier: Trier) -> Result<(), SignInError> {
        let now = clock::monotonic();
        let mut throttle = self.throttle();
        let wait = throttle.wait(typed, trier, now);
        if !wait.is_zero() {
            return Err(SignInError::Slow(wait));
        }
        throttle.attempt(typed, trier, now);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one attempt, passed on once")]
    async fn checked(
        &self,
        user: Option<UserId>,
        name: &str,
        realm: &str,
        password: Secret,
        asker: Asker,
        source: IpAddr,
        now_ms: i64,
    ) -> Result<Proven, SignInError> {
        let fits = password.expose().len() <= MAX_BYTES;
        let found = self.realm(realm).filter(|_| fits);
        if let Some(external) = found.filter(|realm| !realm.is_local()) {
            let asked = clock::monotonic();
            let checked = match external.check(name, &password, asker, source).await {
                Ok(Checked::Person(person)) => self.known_person(external, &person, source, now_ms).await,
                Ok(Checked::Refused) => Err(SignInError::Refused),
                Ok(Checked::Busy) => Err(SignInError::Busy),
                Err(source) => Err(SignInError::Unavailable { realm: realm.to_owned(), source }),
            };
            if matches!(checked, Err(SignInError::Refused)) {
                external.hold_refusal(asked).await;
            }
            return checked;
        }
        // Looked up in a realm that isn't there too: the time it takes would tell.
        let row = match &user {
            Some(user) => self.store.user(user).await.map_err(SignInError::Store)?,
            None => None,
        };
        let row = row.filter(|_| found.is_some());
        let credentials = row.as_ref().map_or(0, |row| row.credentials);
        let stored = row.filter(|row| !row.disabled).and_then(|row| row.password_hash);
        let again = Secret::from(password.expose().to_owned());
        let fit = self.passwords.verify(password, stored, asker.clone()).await.map_err(busy)?;
        match (user, fit) {
            (None, _) | (_, Fit::Wrong) => Err(SignInError::Refused),
            (Some(user), Fit::Right) => Ok(Proven { user, credentials }),
            (Some(user), Fit::Weak) => {
                if let Ok(raised) = self.passwords.hash(again, asker).await {
                    self.store.rehash(&user, credentials, &raised).await.map_err(SignInError::Store)?;
                    tracing::info!(user = %user, "password hashed anew with today's parameters");
                }
                Ok(Proven { user, credentials })
            }
        }
    }

    /// The user who is this person, made where they come for the first time. A name that stands for another person of the
    /// realm is not taken over.
    async fn known_person(
        &self,
        realm: &Realm,
        person: &Person,
        source: IpAddr,
        now_ms: i64,
    ) -> Result<Proven, SignInError> {
        let subject = format!("{} {}", realm.name, person.subject);
        let row = self.store.user_by_subject(&subject).await.map_err(SignInError::Store)?;
        let proven = match row {
            Some(row) if row.disabled => return Err(SignInError::Refused),
            Some(row) => {
                let user = row.id.parse().map_err(|_| SignInError::Refused)?;
                Proven { user, credentials: row.credentials }
            }
            None => {
                let user = self.first_visit(realm, person, subject, now_ms).await?;
                self.event(&user, source, "first sign-in".to_owned()).await?;
                let row = self.store.user(&user).await.map_err(SignInError::Store)?;
                let row = row.ok_or(SignInError::Refused)?;
                Proven { user, credentials: row.credentials }
            }
        };
        self.take_groups(&proven.user, realm, person, source).await?;
        Ok(proven)
    }

    async fn first_visit(
        &self,
        realm: &Realm,
        person: &Person,
        subject: String,
        now_ms: i64,
    ) -> Result<UserId, SignInError> {
        let Ok(user) = UserId::new(&person.name, &realm.name) else {
            tracing::warn!(
                realm = realm.name,
                "sign-in refused: the realm's name for the person can't be used here"
            );
            return Err(SignInError::Refused);
        };
        let row = UserRow {
            id: user.to_string(),
            display_name: person.display_name.clone(),
            subject: Some(subject.clone()),
            created_ms: now_ms,
            ..UserRow::default()
        };
        if self.store.insert_user(&row).await.map_err(SignInError::Store)? {
            self.registry.reload().await.map_err(SignInError::Store)?;
            return Ok(user);
        }
        // An administrator may have prepared the name, before anybody came.
        if self.store.bind_subject(&user, &subject).await.map_err(SignInError::Store)? {
            return Ok(user);
        }
        tracing::warn!(user = %user, "sign-in refused: the name belongs to another person of the realm, or is disabled");
        Err(SignInError::Refused)
    }

    /// A realm's groups count where a group of that name was made here.
    async fn take_groups(
        &self,
        user: &UserId,
        realm: &Realm,
        person: &Person,
        source: IpAddr,
    ) -> Result<(), SignInError> {
        let policy = self.registry.policy();
        let named = person.groups.iter().filter_map(|group| GroupName::of_realm(group, &realm.name).ok());
        let groups: BTreeSet<GroupName> =
            named.filter(|group| policy.facts().members.contains_key(group)).collect();
        let before = self.store.memberships(user, &realm.name).await.map_err(SignInError::Store)?;
        if before == groups {
            return Ok(());
        }
        let named =
            |all: BTreeSet<GroupName>| all.iter().map(GroupName::as_str).collect::<Vec<_>>().join(", ");
        let (joined, left) = (named(&groups - &before), named(&before - &groups));
        self.event(user, source, format!("groups, by the realm: joined: {joined}; left: {left}")).await?;
        self.store.put_memberships(user, &realm.name, &groups).await.map_err(SignInError::Store)?;
        self.registry.reload().await.map_err(SignInError::Store)
    }

    /// Puts on record what a realm's word changes here.
    async fn event(&self, user: &UserId, source: IpAddr, detail: String) -> Result<(), SignInError> {
        let entry = Entry {
            actor: user.to_string(),
            source: source.to_string(),
            rpc: "sign-in".to_owned(),
            resource: format!("users/{user}"),
            decision: format!("realm {}", user.realm()),
            detail,
            ..Entry::default()
        };
        self.audit.event(&entry, "ok").await.map_err(SignInError::Store)
    }

    async fn first_factor_is_right(
        &self,
        proven: Proven,
        visitor: &Visitor,
        now_ms: i64,
    ) -> Result<Entered, SignInError> {
        let user = &proven.user;
        let has = self.factors.has(user).await.map_err(SignInError::Factor)?;
        if !has && !self.must_have_factor(user, now_ms) {
            let (row, carrier) = self.open(&proven, visitor, now_ms).await?;
            return Ok(Entered::Session(row, carrier));
        }
        let new = if has { None } else { Some(self.factors.start(user).await.map_err(SignInError::Factor)?) };
        let put = self.challenges.put(proven, new.is_some(), now_ms);
        let (id, expires_ms) = put.map_err(SignInError::Key)?;
        Ok(Entered::Challenge { id, expires_ms, new })
    }

    fn must_have_factor(&self, user: &UserId, now_ms: i64) -> bool {
        let by_realm = self.realm(user.realm()).is_some_and(|realm| realm.requires_factor);
        let policy = self.registry.policy();
        let who = super::policy::Who::User(user.clone());
        by_realm
            || policy
                .entries(&who)
                .iter()
                .any(|(_, grant)| grant.is_live(now_ms) && self.factor_roles.contains(grant.role.as_str()))
    }

    async fn open(
        &self,
        proven: &Proven,
        visitor: &Visitor,
        now_ms: i64,
    ) -> Result<(Box<SessionRow>, Carrier), SignInError> {
        let opened = self.sessions.open(proven, visitor, now_ms).await;
        let (row, carrier) = opened.map_err(|error| match error {
            // Their password, factor or account was changed since they were asked.
            SessionError::Over => SignInError::Over,
            error @ (SessionError::Reused { .. }
            | SessionError::Store(_)
            | SessionError::Key(_)
            | SessionError::Sign) => SignInError::Session(error),
        })?;
        self.store.signed_in(&proven.user, now_ms).await.map_err(SignInError::Store)?;
        Ok((Box::new(row), carrier))
    }

    fn throttle(&self) -> std::sync::MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SignInError {
    /// Nothing that the caller can do about; told here, once.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        match self {
            Self::Refused
            | Self::Slow(_)
            | Self::Busy
            | Self::Over
            | Self::NotProvided
            | Self::NotAdmitted => false,
            Self::Factor(error) => error.is_internal(),
            Self::Unavailable { .. } => {
                tracing::warn!(error = %Chain(self), "realm not reached");
                false
            }
            Self::Password(PasswordError::Busy) => false,
            Self::Password(PasswordError::Hash(_)) | Self::Store(_) | Self::Session(_) | Self::Key(_) => {
                tracing::error!(error = %Chain(self), "sign-in failed");
                true
            }
        }
    }
}

fn busy(error: PasswordError) -> SignInError {
    match error {
        PasswordError::Busy => SignInError::Busy,
        other @ PasswordError::Hash(_) => SignInError::Password(other),
    }
}

/// Shared by handlers.
pub type SharedSignIns = Arc<SignIns>;
