//! Who may do what. Here roles are held on `/`: Administrator holds every privilege, Auditor those that only look, and
//! a user without a role holds none.
//!
//! The decision is made in one place, [`allows`], from the requirement that the contract states for the method and the
//! resource that the request names.

use horcrux_proto::authz::{Privilege, privilege_name};
use horcrux_proto::name::Resource;
use tonic::Status;

pub mod password;
pub mod sessions;
pub mod setup;

/// A built-in role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Administrator,
    Auditor,
}

/// A signed-in person.
#[derive(Clone, Debug)]
pub struct Principal {
    pub session: String,
    /// Without its realm.
    pub user: String,
    pub role: Option<Role>,
    pub created_ms: i64,
    pub expires_ms: i64,
}

impl Role {
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "Administrator" => Some(Self::Administrator),
            "Auditor" => Some(Self::Auditor),
            _ => None,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Administrator => "Administrator",
            Self::Auditor => "Auditor",
        }
    }

    #[must_use]
    pub fn holds(self, privilege: Privilege) -> bool {
        match privilege {
            Privilege::Unspecified => false,
            Privilege::VmAudit | Privilege::ContainerAudit | Privilege::SysAudit => true,
            Privilege::NodeEnroll | Privilege::NodeModify => self == Self::Administrator,
        }
    }
}

impl Principal {
    /// The identity, `user@realm`.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("{}@local", self.user)
    }

    /// Refuses unless the principal holds `privilege` on `resource`.
    pub fn require(&self, privilege: Privilege, resource: &Resource) -> Result<(), Status> {
        if allows(self.role, privilege, resource) {
            return Ok(());
        }
        let needed = privilege_name(privilege);
        Err(Status::permission_denied(format!("{} needs {needed} on {resource}", self.identity())))
    }
}

/// Whether a role on `/` gives `privilege` on `resource`. What is held on `/` is held everywhere.
#[must_use]
pub fn allows(role: Option<Role>, privilege: Privilege, _resource: &Resource) -> bool {
    role.is_some_and(|role| role.holds(privilege))
}
