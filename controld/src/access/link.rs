//! Guest links: with one, who has no account acts for its maker, who has. They may open that one VM's console, as long as the
//! link stands and its maker may both open it and give rights there. Pure.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use horcrux_proto::authz::Privilege;
use horcrux_proto::name::{InvalidField, Resource, VmUuid};
use horcrux_proto::v1::{ConsoleKind, ConsoleMode};
use subtle::ConstantTimeEq as _;

use super::keys::Seal;
use super::path::Path;
use super::privileges::Privileges;
use super::rights::{Labels, Level, Rights};
use crate::store::links::LinkRow;

/// What one must hold on a VM to let a guest in.
pub const SHARES: [Privilege; 2] = [Privilege::VmConsole, Privilege::PermissionsModify];

/// A link that stands, as far as a guest's rights and console need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub id: Box<str>,
    pub vm: VmUuid,
    pub kind: ConsoleKind,
    pub mode: ConsoleMode,
    /// The API token that made it: its rights bound the guest's.
    pub token: Option<Box<str>>,
    pub comment: String,
    pub expires_ms: i64,
}

impl TryFrom<&LinkRow> for Link {
    type Error = InvalidField;

    fn try_from(row: &LinkRow) -> Result<Self, InvalidField> {
        let damaged = |field| InvalidField { field, reason: "not one that this controller knows" };
        Ok(Self {
            id: row.id.as_str().into(),
            vm: row.vm.parse()?,
            kind: ConsoleKind::try_from(row.kind).map_err(|_| damaged("kind"))?,
            mode: ConsoleMode::try_from(row.mode).map_err(|_| damaged("mode"))?,
            token: row.token.as_deref().map(Into::into),
            comment: row.comment.clone(),
            expires_ms: row.expires_ms,
        })
    }
}

impl Link {
    #[must_use]
    pub fn path(&self) -> Path {
        Path::of(&Resource::Vm(self.vm))
    }

    /// What its guest may, whose maker may this.
    #[must_use]
    pub(super) fn rights(&self, maker: &Rights, labels: &Labels) -> Rights {
        let path = self.path();
        if !SHARES.into_iter().all(|privilege| maker.allow(privilege, &path, labels)) {
            return Rights::default();
        }
        let here = Privileges::from_iter([Privilege::VmConsole]);
        Rights::new(BTreeMap::from([(path.as_str().into(), Level { here, ..Level::default() })]))
    }
}

const PURPOSE: &str = "guest link";

/// What a guest's browser keeps of a link. Not its secret, and it can't be made from what the store holds.
#[must_use]
pub fn cookie(seal: &Seal, row: &LinkRow) -> String {
    URL_SAFE_NO_PAD.encode(seal.mark(PURPOSE, &[row.id.as_bytes(), &row.hash]))
}

#[must_use]
pub fn is_cookie(seal: &Seal, row: &LinkRow, shown: &str) -> bool {
    cookie(seal, row).as_bytes().ct_eq(shown.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: &str = "c0ffee00-0000-4000-8000-000000000001";

    fn row() -> LinkRow {
        LinkRow {
            id: "7f3a00000001".to_owned(),
            hash: vec![7; 32],
            maker: "alice@local".to_owned(),
            token: None,
            vm: VM.to_owned(),
            kind: ConsoleKind::Serial.into(),
            mode: ConsoleMode::View.into(),
            comment: String::new(),
            created_ms: 0,
            expires_ms: 1,
            opened_ms: None,
            opened_from: None,
        }
    }

    fn on(path: &str, privileges: &[Privilege]) -> Rights {
        let below: Privileges = privileges.iter().copied().collect();
        Rights::new(BTreeMap::from([(path.into(), Level { here: below, below, ..Level::default() })]))
    }

    #[test]
    fn a_guest_may_open_the_one_console_while_the_maker_may_share_it() {
        let (link, labels) = (Link::try_from(&row()).unwrap(), Labels::default());
        let all: Vec<Privilege> = horcrux_proto::authz::privileges().collect();
        let guest = link.rights(&on("/", &all), &labels);
        let held: Vec<Privilege> = guest.on(&link.path(), &labels).iter().collect();
        assert_eq!(held, [Privilege::VmConsole]);
        for elsewhere in ["/", "/vms", "/vms/c0ffee00-0000-4000-8000-000000000002", "/access", "/pools/p1"] {
            assert!(guest.on(&elsewhere.parse().unwrap(), &labels).is_empty(), "{elsewhere}");
        }
        for lost in SHARES {
            let rest: Vec<Privilege> = all.iter().copied().filter(|held| *held != lost).collect();
            assert!(link.rights(&on("/", &rest), &labels).are_empty(), "without {lost:?}");
        }
        let other = on("/vms/c0ffee00-0000-4000-8000-000000000002", &SHARES);
        assert!(link.rights(&other, &labels).are_empty());
    }

    #[test]
    fn a_cookie_is_of_one_link_and_of_this_controllers_key() {
        let dir = tempfile::tempdir().unwrap();
        let seal = Seal::open(dir.path()).unwrap();
        let shown = cookie(&seal, &row());
        assert!(is_cookie(&seal, &row(), &shown));
        let others =
            [LinkRow { id: "7f3a00000002".to_owned(), ..row() }, LinkRow { hash: vec![8; 32], ..row() }];
        for other in others {
            assert!(!is_cookie(&seal, &other, &shown));
        }
        let elsewhere = tempfile::tempdir().unwrap();
        assert!(!is_cookie(&Seal::open(elsewhere.path()).unwrap(), &row(), &shown));
        assert!(!is_cookie(&seal, &row(), ""));
    }
}
