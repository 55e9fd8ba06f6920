//! Sign-in with a directory's name and password: OpenLDAP, 389, Active Directory.
//!
//! The person's entry is searched, and the password is tried as that entry on a connection of its own: what a service
//! account may see is never decided by a person's connection, and no name that is typed becomes part of a
//! distinguished name. Nothing goes over the wire without TLS, and no empty password at all: to a directory that is
//! an anonymous bind, and succeeds (RFC 4513, 5.1.2).
//!
//! ```text
//!  search: service account ── find the entry ─────────────┐ exactly one?        ┌── read it, and its groups
//!  person:                                                └── bind with password ┘
//! ```
//!
//! A name that isn't there costs a bind too, of an entry that can't be, so that it isn't told by the time that it takes.
//! A directory whose hashes are slow answers such a bind sooner all the same: whoever shows the answer to strangers
//! should hold all refusals back for a while.

mod address;
mod connection;
mod entry;
mod filter;
mod wire;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use horcrux_transport::error::Chain;
use horcrux_transport::secret::Secret;
use horcrux_transport::tls::{ClientConfig, foreign_client};
use ldap3::SearchEntry;

use self::address::Address;
use self::connection::{Connection, Found};
use self::entry::Dn;
use self::filter::{equals, is_attribute, is_filter};
use crate::text::{GROUPS, NAME_BYTES, display, groups, is_name, too_many_groups};
use crate::{Person, RealmError, Refusal};

/// A directory.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `ldaps://HOST`, or `ldap://HOST` with `start_tls`; asked in this order, the last that answered first.
    pub urls: Vec<String>,
    pub start_tls: bool,
    /// PEM; the system's when `None`.
    pub authorities: Option<PathBuf>,
    /// The account that searches. Without one the search is anonymous.
    pub service: Option<Service>,
    pub user_base: String,
    /// `uid`, `sAMAccountName`, `userPrincipalName`.
    pub user_attribute: String,
    /// More that an entry must be: `(objectClass=person)`.
    pub user_filter: Option<String>,
    pub group_base: Option<String>,
    /// What a group is called by: `cn`.
    pub group_attribute: String,
    pub group_member: GroupMember,
    /// For all that is asked of one server.
    pub timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct Service {
    pub dn: String,
    pub password: Secret,
}

/// How a group and its people hang together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupMember {
    /// A group's attribute holds the names of entries: `member`, `uniqueMember`, or with nested groups in Active
    /// Directory `member:1.2.840.113556.1.4.1941:`.
    Dn(String),
    /// A group's attribute holds user names: `memberUid`.
    Name(String),
    /// The user's `memberOf` holds the names of groups. With a `group_base` only those below it count.
    MemberOf,
}

/// A directory that can be asked.
#[derive(Debug)]
pub struct Ldap {
    settings: Settings,
    group_base: Option<Dn>,
    addresses: Vec<Address>,
    config: Arc<ClientConfig>,
    /// Which of the addresses answered last.
    good: AtomicUsize,
}

/// Each may take its time before the next is asked.
const URLS: usize = 8;
/// Longer than anything that is typed or pasted.
const PASSWORD_BYTES: usize = 1024;
/// Beneath the users' base; no directory has an entry of this name.
const NOBODY: &str = "cn=horcrux\\20asks\\20for\\20nobody";

impl Ldap {
    /// Whether the directory is there is not asked yet: see [`Ldap::check`].
    pub fn new(settings: Settings) -> Result<Self, RealmError> {
        let wrong = |text: String| Err(RealmError::Misconfigured(text));
        if settings.urls.is_empty() || settings.urls.len() > URLS {
            return wrong(format!("between 1 and {URLS} urls are needed"));
        }
        let addresses = settings.urls.iter().map(|url| Address::new(url, settings.start_tls));
        let addresses = addresses.collect::<Result<Vec<_>, _>>().map_err(RealmError::Misconfigured)?;
        let member = match &settings.group_member {
            GroupMember::Dn(attribute) | GroupMember::Name(attribute) => attribute,
            GroupMember::MemberOf => entry::MEMBER_OF,
        };
        for attribute in [&settings.user_attribute, &settings.group_attribute] {
            if !is_attribute(attribute) || attribute.contains(':') {
                return wrong(format!("{attribute} is not the name of an attribute"));
            }
        }
        if !is_attribute(member) {
            return wrong(format!("{member} is not the name of an attribute"));
        }
        if let Some(filter) = settings.user_filter.as_deref().filter(|filter| !is_filter(filter)) {
            return wrong(format!("{filter} is not a filter such as (objectClass=person)"));
        }
        // The root of everything: a search below it would hold what nobody meant.
        if settings.user_base.trim().is_empty() {
            return wrong("a base for users is needed".to_owned());
        }
        if settings.service.as_ref().is_some_and(|s| s.dn.is_empty() || s.password.expose().is_empty()) {
            return wrong("the account that searches needs a name and a password".to_owned());
        }
        let group_base = match &settings.group_base {
            None => None,
            Some(base) => match Dn::parse(base) {
                None => return wrong(format!("{base} is not a distinguished name")),
                parsed => parsed,
            },
        };
        let config = foreign_client(settings.authorities.as_deref())
            .map_err(|error| RealmError::Misconfigured(Chain(&error).to_string()))?;
        Ok(Self { settings, group_base, addresses, config, good: AtomicUsize::new(0) })
    }

    /// The person whose name and password these are.
    pub async fn authenticate(&self, user: &str, password: &Secret) -> Result<Person, RealmError> {
        if !is_name(user) || user.len() > NAME_BYTES {
            return Err(RealmError::Refused(Refusal::BadName));
        }
        if password.expose().is_empty() || password.expose().len() > PASSWORD_BYTES {
            return Err(RealmError::Refused(Refusal::BadPassword));
        }
        self.of_any(|address| self.ask(address, user, password)).await
    }

    /// Whether some server is there, takes the account that searches and knows the users' base.
    pub async fn check(&self) -> Result<(), RealmError> {
        self.of_any(|address| async move {
            let mut service = self.service(address).await?;
            let base = &self.settings.user_base;
            let found = service.entry(base, &["1.1"]).await?;
            service.close().await;
            match found {
                Some(_) => Ok(()),
                None => Err(RealmError::Misconfigured(format!("the directory shows no {base}"))),
            }
        })
        .await
    }

    /// Asks the servers one by one until one answers.
    async fn of_any<'a, T, F>(&'a self, ask: impl Fn(&'a Address) -> F) -> Result<T, RealmError>
    where
        F: Future<Output = Result<T, RealmError>>,
    {
        let first = self.good.load(Ordering::Relaxed);
        let mut last = RealmError::Misconfigured("no urls".to_owned());
        for turn in 0..self.addresses.len() {
            let at = (first + turn) % self.addresses.len();
            let address = &self.addresses[at];
            // The library panics on answers that no server should give.
            let asked = AssertUnwindSafe(ask(address)).catch_unwind();
            last = match tokio::time::timeout(self.settings.timeout, asked).await {
                Ok(Ok(Err(RealmError::Unavailable(why)))) => RealmError::Unavailable(why),
                Ok(Ok(answer)) => {
                    self.good.store(at, Ordering::Relaxed);
                    return answer;
                }
                Ok(Err(_)) => RealmError::unavailable(format!("{address} gives answers that aren't LDAP")),
                Err(_) => {
                    let timeout = self.settings.timeout;
                    RealmError::unavailable(format!("{address} does not answer within {timeout:?}"))
                }
            };
            if turn + 1 < self.addresses.len() {
                tracing::warn!(directory = %address, error = %Chain(&last), "directory server left out");
            }
        }
        Err(last)
    }

    async fn service(&self, address: &Address) -> Result<Connection, RealmError> {
        let mut connection = Connection::open(address, &self.config).await?;
        if let Some(service) = &self.settings.service {
            connection.bind_service(&service.dn, &service.password).await?;
        }
        Ok(connection)
    }

    async fn ask(&self, address: &Address, user: &str, password: &Secret) -> Result<Person, RealmError> {
        let Settings { user_base, user_attribute, user_filter, .. } = &self.settings;
        let mut service = self.service(address).await?;
        let filter = equals(user_attribute, user, user_filter.as_deref());
        let found = match service.search(user_base, &filter, &["1.1"], 1).await? {
            Found::All(mut entries) => entries.pop().ok_or(Refusal::UnknownUser),
            Found::TooMany => Err(Refusal::Ambiguous),
        };
        let dn = match &found {
            // A bind without a name is anonymous, and succeeds.
            Ok(entry) if entry.dn.is_empty() => Err(Refusal::UnknownUser),
            Ok(entry) => Ok(entry.dn.clone()),
            Err(_) => Ok(format!("{NOBODY},{user_base}")),
        }
        .map_err(RealmError::Refused)?;

        let mut person = Connection::open(address, &self.config).await?;
        let bound = person.bind_person(&dn, password).await;
        person.close().await;
        found.map_err(RealmError::Refused)?;
        bound?;

        let entry = service.entry(&dn, &self.attributes()).await?;
        // It may have gone in between.
        let entry = entry.ok_or(RealmError::Refused(Refusal::UnknownUser))?;
        if entry::is_disabled(&entry) {
            return Err(RealmError::Refused(Refusal::Disabled));
        }
        let name = entry::name(&entry, user_attribute, user).filter(|name| is_name(name));
        let name = name.ok_or(RealmError::Refused(Refusal::BadName))?;
        let groups = self.groups(&mut service, &entry, &name).await?;
        service.close().await;
        let called = [entry::DISPLAY_NAME, entry::COMMON_NAME].map(|a| entry::values(&entry, a).first());
        let display_name =
            called.into_iter().flatten().next().map_or_else(|| display(&name), |text| display(text));
        Ok(Person { subject: entry::subject(&entry), name, display_name, groups })
    }

    fn attributes(&self) -> Vec<&str> {
        let mut attributes = vec![
            self.settings.user_attribute.as_str(),
            entry::UUID,
            entry::GUID,
            entry::CONTROL,
            entry::LOCKED,
            entry::DISPLAY_NAME,
            entry::COMMON_NAME,
        ];
        if self.settings.group_member == GroupMember::MemberOf {
            attributes.push(entry::MEMBER_OF);
        }
        attributes
    }

    async fn groups(
        &self,
        service: &mut Connection,
        person: &SearchEntry,
        name: &str,
    ) -> Result<Vec<String>, RealmError> {
        let called = self.settings.group_attribute.as_str();
        let filter = match &self.settings.group_member {
            GroupMember::MemberOf => {
                let below = |dn: &Dn| dn.is_named_below(called, self.group_base.as_ref());
                let all = entry::values(person, entry::MEMBER_OF).iter();
                return groups(all.filter_map(|dn| Dn::parse(dn)).filter(below).map(|dn| dn.first));
            }
            GroupMember::Dn(attribute) => equals(attribute, &person.dn, None),
            GroupMember::Name(attribute) => equals(attribute, name, None),
        };
        let Some(base) = &self.settings.group_base else { return Ok(Vec::new()) };
        match service.search(base, &filter, &[called], GROUPS).await? {
            // A group may have other names besides; the first is the one that it goes by.
            Found::All(found) => {
                groups(found.iter().filter_map(|g| entry::values(g, called).first().cloned()))
            }
            Found::TooMany => Err(too_many_groups()),
        }
    }
}
