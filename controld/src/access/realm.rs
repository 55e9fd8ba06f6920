//! A realm: where some people's passwords are checked.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use horcrux_pamd::{Answer, AskError, Password, Request};
use horcrux_proto::v1::{self, RealmKind};
use horcrux_realms::ldap::Ldap;
use horcrux_realms::oidc::Oidc;
use horcrux_realms::{Person, RealmError};
use horcrux_transport::clock;
use horcrux_transport::secret::Secret;

use super::name::{LOCAL, UserId};
use super::places::{Asker, Bounds, Places};

/// PAM answers a wrong password after two seconds, and a hung module never.
const PAM_DEADLINE: Duration = Duration::from_secs(25);
/// Questions to pamd at a time; it takes four. A refusal takes three seconds, and a hung module keeps its place for more:
/// one address must not have two.
const PAM_AT_ONCE: Bounds = Bounds { open: 3, kept: 1, per_source: 1, per_user: 1 };
/// Questions to a directory at a time, 16 as small directories take them well.
const LDAP_AT_ONCE: Bounds = Bounds { open: 12, kept: 4, per_source: 4, per_user: 2 };

/// Refusals come at whole multiples of these after the question. A directory tells an unknown user sooner than a wrong
/// password, whose hash it computes.
const LDAP_REFUSAL: Duration = Duration::from_secs(2);
/// pamd's own refusals take three seconds; who is disabled here was let in there, and that is quicker.
const PAM_REFUSAL: Duration = Duration::from_secs(4);

/// One of the realms in the settings.
#[derive(Debug)]
pub struct Realm {
    /// What stands after the `@`.
    pub name: String,
    /// For people.
    pub title: String,
    /// Everybody in it must have a second factor.
    pub requires_factor: bool,
    pub backend: Backend,
}

#[derive(Debug)]
pub enum Backend {
    Local,
    Pam { socket: PathBuf, places: Places },
    Ldap { directory: Box<Ldap>, places: Places },
    Oidc(Box<Oidc>),
}

/// What became of a name and a password.
#[derive(Debug)]
pub enum Checked {
    Person(Person),
    Refused,
    /// Too many are asked about; later it may be answered.
    Busy,
}

impl Backend {
    #[must_use]
    pub fn pam(socket: PathBuf) -> Self {
        Self::Pam { socket, places: Places::new(PAM_AT_ONCE) }
    }

    #[must_use]
    pub fn ldap(directory: Ldap) -> Self {
        Self::Ldap { directory: Box::new(directory), places: Places::new(LDAP_AT_ONCE) }
    }
}

impl Realm {
    /// The one that always exists.
    #[must_use]
    pub fn local(requires_factor: bool) -> Self {
        Self { name: LOCAL.to_owned(), title: "Horcrux".to_owned(), requires_factor, backend: Backend::Local }
    }

    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.backend, Backend::Local)
    }

    #[must_use]
    pub fn kind(&self) -> RealmKind {
        match self.backend {
            Backend::Local => RealmKind::Local,
            Backend::Pam { .. } => RealmKind::Pam,
            Backend::Ldap { .. } => RealmKind::Ldap,
            Backend::Oidc(_) => RealmKind::Oidc,
        }
    }

    #[must_use]
    pub fn to_wire(&self) -> v1::Realm {
        v1::Realm { name: self.name.clone(), kind: self.kind().into(), title: self.title.clone() }
    }

    #[must_use]
    pub fn oidc(&self) -> Option<&Oidc> {
        match &self.backend {
            Backend::Oidc(provider) => Some(provider),
            Backend::Local | Backend::Pam { .. } | Backend::Ldap { .. } => None,
        }
    }

    /// Waits with a refusal after it was asked at `asked`, so that the time doesn't tell the reason.
    pub async fn hold_refusal(&self, asked: Instant) {
        let step = match self.backend {
            Backend::Pam { .. } => PAM_REFUSAL,
            Backend::Ldap { .. } => LDAP_REFUSAL,
            // Not asked with a password.
            Backend::Local | Backend::Oidc(_) => return,
        };
        let known = clock::monotonic().saturating_duration_since(asked);
        tokio::time::sleep_until((asked + held(known, step)).into()).await;
    }

    /// Asks a realm that is not local.
    pub async fn check(
        &self,
        name: &str,
        password: &Secret,
        asker: Asker,
        source: IpAddr,
    ) -> Result<Checked, RealmError> {
        // Whatever stands behind it: to some an empty password is no password at all.
        if password.expose().is_empty() {
            return Ok(Checked::Refused);
        }
        // A directory may know one person by many spellings, such as full-width letters, and each would have tries of its
        // own in what slows guessing down.
        if UserId::new(name, &self.name).is_err() {
            return Ok(Checked::Refused);
        }
        match &self.backend {
            Backend::Local | Backend::Oidc(_) => Ok(Checked::Refused),
            Backend::Pam { socket, places } => {
                let known = matches!(asker, Asker::Known(_));
                let Some(place) = places.take(asker) else { return Ok(Checked::Busy) };
                let request = Request {
                    user: name.to_owned(),
                    password: Password::from(password.expose().to_owned()),
                    host: source.to_string(),
                    known,
                };
                let socket = socket.clone();
                let asked = tokio::task::spawn_blocking(move || {
                    let _place = place;
                    horcrux_pamd::ask(&socket, &request, PAM_DEADLINE)
                });
                let answer = match asked.await.map_err(|error| RealmError::Unavailable(Box::new(error)))? {
                    // Such a name or password is nobody's.
                    Err(AskError::TooLong(_)) => Answer::Refused,
                    answer => answer.map_err(|error| RealmError::Unavailable(Box::new(error)))?,
                };
                match answer {
                    Answer::Accepted { user } => Ok(Checked::Person(Person {
                        subject: user.clone(),
                        display_name: user.clone(),
                        name: user,
                        groups: Vec::new(),
                    })),
                    Answer::Refused => Ok(Checked::Refused),
                    Answer::Busy => Ok(Checked::Busy),
                    Answer::Failed => {
                        Err(RealmError::Unavailable("PAM could not be asked: pamd's log says why".into()))
                    }
                }
            }
            Backend::Ldap { directory, places } => {
                let Some(_place) = places.take(asker) else { return Ok(Checked::Busy) };
                match directory.authenticate(name, password).await {
                    Ok(person) => Ok(Checked::Person(person)),
                    Err(RealmError::Refused(reason)) => {
                        tracing::info!(realm = self.name, %reason, "directory refused a sign-in");
                        Ok(Checked::Refused)
                    }
                    Err(other) => Err(other),
                }
            }
        }
    }
}

/// How long a refusal takes that was known after `known`: a whole multiple of `step`.
fn held(known: Duration, step: Duration) -> Duration {
    let steps = known.as_nanos().div_ceil(step.as_nanos()).max(1);
    step.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use horcrux_realms::ldap::{GroupMember, Settings};

    use super::*;
    use horcrux_transport::source::Source;

    #[test]
    fn refusals_come_at_whole_multiples_of_one_time() {
        let ms = Duration::from_millis;
        let told = [0, 1, 900, 2000, 2001, 21_000].map(|known| held(ms(known), LDAP_REFUSAL).as_secs());
        assert_eq!(told, [2, 2, 2, 2, 4, 22]);
        let told = [80, 3000, 3200, 4001].map(|known| held(ms(known), PAM_REFUSAL).as_secs());
        assert_eq!(told, [4, 4, 4, 8]);
    }

    fn realm(backend: Backend) -> Realm {
        Realm { name: "host".to_owned(), title: String::new(), requires_factor: false, backend }
    }

    fn at(n: u8) -> Asker {
        Asker::At(Source::of([192, 0, 2, n].into()))
    }

    fn known(name: &str) -> Asker {
        Asker::Known(UserId::new(name, "host").unwrap())
    }

    async fn checked(realm: &Realm, name: &str, asker: Asker) -> Result<Checked, RealmError> {
        realm.check(name, &Secret::from("x".to_owned()), asker, IpAddr::from([127, 0, 0, 1])).await
    }

    /// Nothing listens where they ask: an error says that somebody was asked.
    fn pam() -> Realm {
        realm(Backend::pam("/nowhere".into()))
    }

    fn directory() -> Realm {
        let settings = Settings {
            urls: vec!["ldap://127.0.0.1:9".to_owned()],
            start_tls: true,
            authorities: None,
            service: None,
            user_base: "dc=example".to_owned(),
            user_attribute: "uid".to_owned(),
            user_filter: None,
            group_base: None,
            group_attribute: "cn".to_owned(),
            group_member: GroupMember::MemberOf,
            timeout: Duration::from_secs(5),
        };
        realm(Backend::ldap(Ldap::new(settings).unwrap()))
    }

    fn places(realm: &Realm) -> &Places {
        match &realm.backend {
            Backend::Pam { places, .. } | Backend::Ldap { places, .. } => places,
            Backend::Local | Backend::Oidc(_) => panic!("asks nobody"),
        }
    }

    #[tokio::test]
    async fn a_name_that_no_user_can_have_is_refused_without_asking() {
        for realm in [pam(), directory()] {
            let long = "a".repeat(300);
            for name in [&long, "\u{ff41}lice", "alıce", "alice ", " alice", "al\u{ad}ice", "al*ce", ""] {
                let told = checked(&realm, name, at(1)).await;
                assert!(matches!(told, Ok(Checked::Refused)), "{name:?}: {told:?}");
            }
            assert!(checked(&realm, "Alice", at(1)).await.is_err(), "where nothing listens");
        }
    }

    #[tokio::test]
    async fn one_address_keeps_nobody_else_from_being_asked_about() {
        for (realm, bound) in [(pam(), 1), (directory(), 4)] {
            let held: Vec<_> = (0..40).filter_map(|_| places(&realm).take(at(1))).collect();
            assert_eq!(held.len(), bound);
            assert!(matches!(checked(&realm, "alice", at(1)).await, Ok(Checked::Busy)));
            assert!(checked(&realm, "alice", at(2)).await.is_err());
        }
    }

    #[tokio::test]
    async fn who_is_known_is_asked_about_when_a_crowd_has_all_other_places() {
        for (realm, open) in [(pam(), 3), (directory(), 12)] {
            let held: Vec<_> = (0..40).filter_map(|n| places(&realm).take(at(n))).collect();
            assert_eq!(held.len(), open);
            assert!(matches!(checked(&realm, "alice", at(50)).await, Ok(Checked::Busy)));
            assert!(checked(&realm, "alice", known("alice")).await.is_err());
        }
    }
}
