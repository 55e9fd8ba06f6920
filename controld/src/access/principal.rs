//! Who calls, and what they may do at this moment.

use std::net::IpAddr;
use std::sync::Arc;

use horcrux_proto::authz::{Privilege, privilege_name};
use tonic::Status;

use super::explain;
use super::link::Link;
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
    Session {
        id: String,
        created_ms: i64,
        expires_ms: i64,
    },
    Token {
        id: Box<str>,
    },
    /// It is a guest of the user's.
    Link(Arc<Link>),
}

impl Principal {
    #[must_use]
    pub fn new(user: UserId, via: Via, source: IpAddr, policy: Arc<Policy>, now_ms: i64) -> Self {
        let who = who(&user, &via);
        let mut rights = policy.rights(&who, now_ms);
        if let Via::Link(link) = &via {
            rights = Arc::new(link.rights(&rights, policy.labels()));
        }
        Self { user, via, source, policy, rights }
    }

    /// As records and lists name it: `user@realm`, or `guest link {id} of user@realm`.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.via {
            Via::Session { .. } | Via::Token { .. } => self.user.to_string(),
            Via::Link(link) => format!("guest link {} of {}", link.id, self.user),
        }
    }

    /// Whose grants count: of a guest, its maker's.
    #[must_use]
    pub fn who(&self) -> Who {
        who(&self.user, &self.via)
    }

    /// The session's id, `token ID` or `link ID`: what a record says of it.
    #[must_use]
    pub fn credential(&self) -> String {
        match &self.via {
            Via::Session { id, .. } => id.clone(),
            Via::Token { id } => format!("token {id}"),
            Via::Link(link) => format!("link {}", link.id),
        }
    }

    #[must_use]
    pub fn session(&self) -> Option<&str> {
        match &self.via {
            Via::Session { id, .. } => Some(id),
            Via::Token { .. } | Via::Link(_) => None,
        }
    }

    /// The link that a guest came with.
    #[must_use]
    pub fn link(&self) -> Option<&Link> {
        match &self.via {
            Via::Session { .. } | Via::Token { .. } => None,
            Via::Link(link) => Some(link),
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
    let token = match via {
        Via::Session { .. } => None,
        Via::Token { id } => Some(id),
        Via::Link(link) => link.token.as_ref(),
    };
    token.map_or_else(|| Who::User(user.clone()), |id| Who::Token(id.clone()))
}
