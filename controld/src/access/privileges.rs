//! A set of privileges, and the roles that hold them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Sub};
use std::sync::LazyLock;

use horcrux_proto::authz::{Privilege, privilege_name};

/// A set of privileges. As text: their names, with commas in between.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Privileges(u32);

/// The role that denies.
pub const NO_ACCESS: &str = "NoAccess";
pub const ADMINISTRATOR: &str = "Administrator";

impl Privileges {
    pub const NONE: Self = Self(0);

    #[must_use]
    pub fn all() -> Self {
        known().collect()
    }

    #[must_use]
    pub fn has(self, privilege: Privilege) -> bool {
        self.0 & bit(privilege) != 0
    }

    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Privilege> {
        known().filter(move |&privilege| self.has(privilege))
    }

    /// As numbers of the contract.
    #[must_use]
    pub fn to_wire(self) -> Vec<i32> {
        self.iter().map(Into::into).collect()
    }

    /// From numbers of the contract; `None` where one is unknown here.
    #[must_use]
    pub fn from_wire(numbers: &[i32]) -> Option<Self> {
        let known = |&number: &i32| Privilege::try_from(number).ok().filter(|p| *p != Privilege::Unspecified);
        numbers.iter().map(known).collect::<Option<Vec<_>>>().map(|all| all.into_iter().collect())
    }

    /// From the text that a store holds. A name that is not known any more is left out: it opens nothing.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        known().filter(|&p| text.split(',').any(|name| name == privilege_name(p))).collect()
    }
}

/// All but the unspecified one.
fn known() -> impl Iterator<Item = Privilege> {
    (1..32).filter_map(|number| Privilege::try_from(number).ok())
}

fn bit(privilege: Privilege) -> u32 {
    if privilege == Privilege::Unspecified { 0 } else { 1 << (privilege as u32) }
}

impl FromIterator<Privilege> for Privileges {
    fn from_iter<I: IntoIterator<Item = Privilege>>(all: I) -> Self {
        Self(all.into_iter().fold(0, |set, privilege| set | bit(privilege)))
    }
}

impl BitOr for Privileges {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Privileges {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for Privileges {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Sub for Privileges {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Display for Privileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(privilege_name).collect();
        f.write_str(&names.join(","))
    }
}

impl fmt::Debug for Privileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

/// The roles that always exist, with what each holds.
#[must_use]
pub fn built_in() -> &'static BTreeMap<&'static str, Privileges> {
    static ROLES: LazyLock<BTreeMap<&'static str, Privileges>> = LazyLock::new(made);
    &ROLES
}

fn made() -> BTreeMap<&'static str, Privileges> {
    use Privilege as P;
    let vm_admin = [
        P::VmAllocate,
        P::VmConfig,
        P::VmPowerMgmt,
        P::VmSnapshot,
        P::VmBackup,
        P::VmMigrate,
        P::VmConsole,
        P::VmAudit,
        P::ContainerPowerMgmt,
        P::ContainerAudit,
    ];
    let auditor =
        [P::VmAudit, P::ContainerAudit, P::DatastoreAudit, P::NetworkAudit, P::AlertAudit, P::SysAudit];
    BTreeMap::from([
        (ADMINISTRATOR, Privileges::all()),
        ("VmAdmin", vm_admin.into_iter().collect()),
        ("VmUser", [P::VmPowerMgmt, P::VmConsole, P::VmAudit, P::ContainerAudit].into_iter().collect()),
        ("StorageAdmin", [P::DatastoreAllocate, P::DatastoreAudit, P::PoolAllocate].into_iter().collect()),
        ("Auditor", auditor.into_iter().collect()),
        (NO_ACCESS, Privileges::NONE),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_survives_its_text() {
        for (name, held) in built_in() {
            assert_eq!(Privileges::from_text(&held.to_string()), *held, "{name}");
        }
        assert_eq!(Privileges::from_text("VmAudit,NoSuchThing").to_string(), "VmAudit");
    }

    #[test]
    fn every_privilege_of_the_contract_has_its_own_place() {
        assert_eq!(Privileges::all().iter().count(), 23);
        assert_eq!(Privileges::from_wire(&[0]), None);
        assert_eq!(Privileges::from_wire(&[99]), None);
    }
}
