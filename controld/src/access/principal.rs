//! Who calls, and what they may do at this moment.

use std::net::IpAddr;
use std::sync::Arc;

use horcrux_proto::authz::{Privilege, privilege_name};
use tonic::Status;

use super::explain;
use super::name::UserId;
use super::path::Path;
use super::policy::{Policy, Who};
use super::rights::Rights;

/// A caller that proved who it is.
#[derive(Clone, Debug)]
pub struct Principal {
    pub user: UserId,
    pub via: Via,
    pub source: IpAddr,
    pub policy: Arc<Policy>,
    pub rights: Arc<Rights>,
}

/// What it showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    Session { id: String, created_ms: i64, expires_ms: i64 },
    Token { id: Box<str> },
}

impl Principal {
    #[must_use]
    pub fn new(user: UserId, via: Via, source: IpAddr, policy: Arc<Policy>, now_ms: i64) -> Self {
        let who = who(&user, &via);
        let rights = policy.rights(&who, now_ms);
        Self { user, via, source, policy, rights }
    }

    #[must_use]
    pub fn who(&self) -> Who {
        who(&self.user, &self.via)
    }

    /// The session's id, or `token ID`: what a record says of it.
    #[must_use]
    pub fn credential(&self) -> String {
        match &self.via {
            Via::Session { id, .. } => id.clone(),
            Via::Token { id } => format!("token {id}"),
        }
    }

    #[must_use]
    pub fn session(&self) -> Option<&str> {
        match &self.via {
            Via::Session { id, .. } => Some(id),
            Via::Token { .. } => None,
        }
    }

    #[must_use]
    pub fn may(&self, privilege: Privilege, path: &Path) -> bool {
        self.rights.allow(privilege, path, self.policy.labels())
    }

    /// Refuses unless it holds `privilege` on `path`. Says nothing of whether there is something at `path`.
    pub fn require(&self, privilege: Privilege, path: &Path) -> Result<(), Status> {
        if self.may(privilege, path) {
            return Ok(());
        }
        let needed = privilege_name(privilege);
        Err(Status::permission_denied(format!("{} needs {needed} on {path}", self.who())))
    }

    /// The grants that allow `privilege` on `path`, for a record.
    #[must_use]
    pub fn decision(&self, privilege: Privilege, path: &Path, now_ms: i64) -> String {
        let told = explain::why(&self.policy, &self.who(), privilege, path, now_ms).decision();
        format!("{}: {told}", privilege_name(privilege))
    }
}

fn who(user: &UserId, via: &Via) -> Who {
    match via {
        Via::Session { .. } => Who::User(user.clone()),
        Via::Token { id } => Who::Token(id.clone()),
    }
}
