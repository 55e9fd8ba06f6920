//! Names of people, groups and roles.

use std::fmt;
use std::str::FromStr;

use horcrux_proto::name::InvalidField;
pub use horcrux_realms::is_disruptive;

/// The realm whose users the controller keeps itself.
pub const LOCAL: &str = "local";

/// `user@realm`, in lower case. What stands before the last `@` may hold one itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Box<str>);

/// A group's name; `name@realm` for a realm's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupName(Box<str>);

/// A role's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoleName(Box<str>);

const MAX_NAME: usize = 128;

/// Whether it can stand before the `@`: nothing that is part of a path, a list or a command line.
fn is_user_part(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-+@".contains(&b);
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(fits)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn is_realm(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=32).contains(&text.len())
        && text.bytes().all(fits)
        && text.starts_with(|c: char| c.is_ascii_lowercase())
}

/// What a local user or group may be called: 1 to 64 of `a-z 0-9 . _ -`, starting with a letter.
fn is_local_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
}

impl UserId {
    /// From a name as it was typed or as a realm gives it, and the realm.
    pub fn new(name: &str, realm: &str) -> Result<Self, InvalidField> {
        // What isn't ASCII is refused below, not brought into another shape first.
        let name = name.to_ascii_lowercase();
        if !is_realm(realm) {
            return Err(InvalidField {
                field: "realm",
                reason: "1 to 32 of a-z 0-9 -, starting with a letter",
            });
        }
        let fits = if realm == LOCAL { is_local_name(&name) } else { is_user_part(&name) };
        let reason = if realm == LOCAL {
            "1 to 64 of a-z 0-9 . _ -, starting with a letter"
        } else {
            "1 to 128 of a-z 0-9 . _ - + @, starting with a letter or a digit"
        };
        fits.then(|| Self(format!("{name}@{realm}").into())).ok_or(InvalidField { field: "user", reason })
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit_once('@').map_or(&self.0, |(name, _)| name)
    }

    #[must_use]
    pub fn realm(&self) -> &str {
        self.0.rsplit_once('@').map_or(LOCAL, |(_, realm)| realm)
    }

    #[must_use]
    pub fn is_local(&self) -> bool {
        self.realm() == LOCAL
    }
}

impl FromStr for UserId {
    type Err = InvalidField;

    /// `name@realm`; a bare name is local.
    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let (name, realm) = text.rsplit_once('@').unwrap_or((text, LOCAL));
        Self::new(name, realm)
    }
}

impl GroupName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The realm whose group it stands for.
    #[must_use]
    pub fn realm(&self) -> Option<&str> {
        self.0.rsplit_once('@').map(|(_, realm)| realm)
    }

    /// The group of a realm, as that realm names it.
    pub fn of_realm(name: &str, realm: &str) -> Result<Self, InvalidField> {
        format!("{name}@{realm}").parse()
    }
}

impl FromStr for GroupName {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        // A realm's names are its own: spaces and capitals are common there.
        let foreign = |name: &str| {
            (1..=MAX_NAME).contains(&name.len())
                && name.trim() == name
                && name.chars().all(|c| c.is_alphanumeric() || " ._-+".contains(c))
        };
        let fits = match text.rsplit_once('@') {
            Some((name, realm)) => foreign(name) && is_realm(realm) && realm != LOCAL,
            None => is_local_name(text),
        };
        let reason = "1 to 64 of a-z 0-9 . _ -, starting with a letter; or NAME@REALM";
        fits.then(|| Self(text.into())).ok_or(InvalidField { field: "group", reason })
    }
}

impl RoleName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RoleName {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let fits = (2..=64).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|b| b.is_ascii_alphanumeric());
        let reason = "2 to 64 letters and digits, starting with a letter";
        fits.then(|| Self(text.into())).ok_or(InvalidField { field: "role", reason })
    }
}

macro_rules! shown {
    ($($name:ty),+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}
shown!(UserId, GroupName, RoleName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_ends_with_its_realm() {
        let user: UserId = "Alice@corp.example@ad".parse().unwrap();
        assert_eq!(
            (user.as_str(), user.name(), user.realm()),
            ("alice@corp.example@ad", "alice@corp.example", "ad")
        );
        assert_eq!("bob".parse::<UserId>().unwrap().as_str(), "bob@local");
        for wrong in ["", "@local", "a/b", "a b@corp", "-x@corp", "alice@", "alice@LOCAL", "1x", "a@b@local"]
        {
            assert!(wrong.parse::<UserId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_realms_group_keeps_its_own_spelling() {
        assert_eq!("Domain Admins@ad".parse::<GroupName>().unwrap().realm(), Some("ad"));
        for wrong in ["Ops", "x@local", " x@ad", "a/b@ad", "", "@ad"] {
            assert!(wrong.parse::<GroupName>().is_err(), "{wrong}");
        }
    }
}
