//! `[realm.NAME]`: where else people's passwords are checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use horcrux_realms::{RealmError, ldap, oidc};
use horcrux_transport::files;
use horcrux_transport::secret::Secret;
use horcrux_transport::settings::Settings;

use crate::access::name::{LOCAL, UserId};
use crate::access::realm::{Backend, Realm};

/// A realm as it is set; its files are read when it is opened.
#[derive(Clone, Debug)]
pub struct RealmSettings {
    pub name: String,
    pub title: String,
    pub requires_factor: bool,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Local,
    Pam { socket: PathBuf },
    Ldap { settings: Box<ldap::Settings>, bind_dn: Option<String>, bind_password: Option<PathBuf> },
    Oidc { settings: Box<oidc::Settings>, client_secret: Option<PathBuf> },
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("realm {realm}: read {}", path.display())]
    Read {
        realm: String,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("realm {realm}")]
    Realm {
        realm: String,
        #[source]
        source: RealmError,
    },
}

/// A directory or provider that takes longer is not there.
const TIMEOUT: Duration = Duration::from_secs(10);
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// All realms, the local one first whether it is set or not.
pub(super) fn read(from: &mut Settings) -> Vec<RealmSettings> {
    let read = from.tables("realm", one);
    let mut realms: Vec<RealmSettings> = read.into_iter().flatten().collect();
    if !realms.iter().any(|realm| matches!(realm.kind, Kind::Local)) {
        realms.push(RealmSettings {
            name: LOCAL.to_owned(),
            title: "Horcrux".to_owned(),
            requires_factor: false,
            kind: Kind::Local,
        });
    }
    realms.sort_by_key(|realm| !matches!(realm.kind, Kind::Local));
    realms
}

fn one(name: &str, from: &mut Settings) -> Option<RealmSettings> {
    let title = from.text("title");
    let requires_factor = from.parsed("second_factor", "\"required\" or \"optional\"", |text| match text {
        "required" => Some(true),
        "optional" => Some(false),
        _ => None,
    });
    let kind = if name == LOCAL {
        Some(Kind::Local)
    } else {
        if UserId::new("x", name).is_err() {
            from.problem("a realm's name is 1 to 32 of a-z 0-9 -, starting with a letter".to_owned());
        }
        match from.text("kind").as_deref() {
            Some("pam") => Some(Kind::Pam {
                socket: from.text("socket").map_or_else(|| "/run/horcrux-pamd/socket".into(), PathBuf::from),
            }),
            Some("ldap") => directory(from),
            Some("oidc") => provider(from),
            Some(_) | None => {
                from.problem("kind: \"pam\", \"ldap\" or \"oidc\"".to_owned());
                None
            }
        }
    };
    Some(RealmSettings {
        name: name.to_owned(),
        title: title.unwrap_or_else(|| if name == LOCAL { "Horcrux".to_owned() } else { name.to_owned() }),
        requires_factor: requires_factor.unwrap_or(false),
        kind: kind?,
    })
}

fn needed(from: &mut Settings, key: &'static str) -> Option<String> {
    let value = from.text(key);
    if value.is_none() {
        from.problem(format!("{key}: it is needed"));
    }
    value
}

fn directory(from: &mut Settings) -> Option<Kind> {
    let urls = from.texts("urls").unwrap_or_default();
    if urls.is_empty() {
        from.problem("urls: at least one is needed, such as ldaps://ldap.example".to_owned());
    }
    let (bind_dn, bind_password) = (from.text("bind_dn"), from.text("bind_password_file"));
    if bind_dn.is_some() != bind_password.is_some() {
        from.problem("bind_dn and bind_password_file: both or neither".to_owned());
    }
    let member = from.text("group_member").unwrap_or_else(|| "member".to_owned());
    let group_member = match member.to_ascii_lowercase().as_str() {
        "memberof" => ldap::GroupMember::MemberOf,
        "memberuid" => ldap::GroupMember::Name(member),
        _ => ldap::GroupMember::Dn(member),
    };
    let settings = ldap::Settings {
        urls,
        start_tls: from.flag("start_tls").unwrap_or(false),
        authorities: from.text("ca_file").map(PathBuf::from),
        service: None,
        user_attribute: from.text("user_attribute").unwrap_or_else(|| "uid".to_owned()),
        user_filter: from.text("user_filter"),
        group_base: from.text("group_base"),
        group_attribute: from.text("group_attribute").unwrap_or_else(|| "cn".to_owned()),
        group_member,
        timeout: from.duration("timeout", SHORTEST, LONGEST).unwrap_or(TIMEOUT),
        user_base: needed(from, "user_base")?,
    };
    Some(Kind::Ldap {
        settings: Box::new(settings),
        bind_dn,
        bind_password: bind_password.map(PathBuf::from),
    })
}

fn provider(from: &mut Settings) -> Option<Kind> {
    let usual = || ["openid", "profile", "email"].map(ToOwned::to_owned).to_vec();
    let client_secret = from.text("client_secret_file").map(PathBuf::from);
    let settings = oidc::Settings {
        client_secret: None,
        scopes: from.texts("scopes").unwrap_or_else(usual),
        authorities: from.text("ca_file").map(PathBuf::from),
        name_claim: from.text("name_claim").unwrap_or_else(|| "preferred_username".to_owned()),
        groups_claim: from.text("groups_claim"),
        redirect_url: from.text("redirect_url").unwrap_or_default(),
        timeout: from.duration("timeout", SHORTEST, LONGEST).unwrap_or(TIMEOUT),
        issuer: needed(from, "issuer")?,
        client_id: needed(from, "client_id")?,
    };
    Some(Kind::Oidc { settings: Box::new(settings), client_secret })
}

impl RealmSettings {
    /// Reads what is in files. Nobody is asked yet. `origin`: where a provider sends browsers back to, unless it is set
    /// otherwise. Each realm has a path of its own there, so that one provider's answer can't pass for another's.
    pub fn open(&self, origin: &str) -> Result<Realm, OpenError> {
        let failed = |source| OpenError::Realm { realm: self.name.clone(), source };
        let backend = match &self.kind {
            Kind::Local => Backend::Local,
            Kind::Pam { socket } => Backend::pam(socket.clone()),
            Kind::Ldap { settings, bind_dn, bind_password } => {
                let mut settings = settings.as_ref().clone();
                if let (Some(dn), Some(path)) = (bind_dn, bind_password) {
                    settings.service = Some(ldap::Service { dn: dn.clone(), password: self.secret(path)? });
                }
                Backend::ldap(ldap::Ldap::new(settings).map_err(failed)?)
            }
            Kind::Oidc { settings, client_secret } => {
                let mut settings = settings.as_ref().clone();
                if let Some(path) = client_secret {
                    settings.client_secret = Some(self.secret(path)?);
                }
                if settings.redirect_url.is_empty() {
                    settings.redirect_url = format!("{origin}/oidc/{}", self.name);
                }
                Backend::Oidc(Box::new(oidc::Oidc::new(settings).map_err(failed)?))
            }
        };
        Ok(Realm {
            name: self.name.clone(),
            title: self.title.clone(),
            requires_factor: self.requires_factor,
            backend,
        })
    }

    fn secret(&self, path: &Path) -> Result<Secret, OpenError> {
        let failed = |source| OpenError::Read { realm: self.name.clone(), path: path.to_owned(), source };
        let bytes = files::read_private(path).map_err(failed)?;
        let text = String::from_utf8(bytes)
            .map_err(|error| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))?;
        Ok(Secret::from(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}
