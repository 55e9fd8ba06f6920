//! The caller, and the versions.

use std::collections::BTreeSet;

use horcrux_proto::v1::{HeldPrivileges, Role, WhoAmIResponse};
use serde::Serialize;

use super::table::{Facts, Table};
use super::time::{ago, utc};
use super::{View, list_or_dash, or_dash, privileges, shown, yes_no};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WhoAmIView {
    pub user: String,
    pub roles: Vec<String>,
    pub context: String,
    pub url: String,
    /// Null for an API token, as all of the session's.
    pub session: Option<String>,
    pub session_created_unix_ms: Option<i64>,
    pub session_expires_unix_ms: Option<i64>,
    pub idle_timeout_seconds: Option<u32>,
    /// The API token's id; null for a session.
    pub token: Option<String>,
    pub groups: Vec<String>,
    pub second_factor: bool,
    pub held: Vec<HeldView>,
    /// The API token may do all that its owner may; null for a session.
    pub token_full: Option<bool>,
}

/// What is held on a path.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeldView {
    pub path: String,
    pub propagate: bool,
    pub privileges: Vec<String>,
    /// The role that holds just these; null where none does.
    pub role: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VersionView {
    pub client: String,
    pub controller: Option<String>,
    pub controller_api: Option<String>,
}

impl WhoAmIView {
    #[must_use]
    pub fn new(context: &str, url: &str, wire: &WhoAmIResponse, roles: &[Role]) -> Self {
        let session = wire.session.as_ref();
        Self {
            user: wire.user.clone(),
            roles: wire.roles.clone(),
            context: context.to_owned(),
            url: url.to_owned(),
            session: session.map(|session| session.id.clone()),
            session_created_unix_ms: session.map(|session| session.created_unix_ms),
            session_expires_unix_ms: session.map(|session| session.expires_unix_ms),
            idle_timeout_seconds: session.map(|session| session.idle_timeout_seconds),
            token: wire.token.clone(),
            groups: wire.groups.clone(),
            second_factor: wire.second_factor,
            held: wire.held.iter().map(|held| HeldView::new(held, roles)).collect(),
            token_full: wire.token_full,
        }
    }

    /// How an API token's rights come about.
    fn token_rule(&self) -> String {
        let user = shown(&self.user);
        match self.token_full {
            Some(true) => format!("all that {user} may, at every moment"),
            Some(false) | None => format!("what both its own grants and those of {user} allow"),
        }
    }

    fn held(&self) -> String {
        if self.held.is_empty() {
            return "nothing is granted to you: ask an administrator\n".to_owned();
        }
        let mut table = Table::new(&["PATH", "BELOW", "ROLE", "PRIVILEGES"]);
        for held in &self.held {
            table.row(vec![
                shown(&held.path),
                yes_no(held.propagate),
                or_dash(held.role.as_deref().map(shown)),
                if held.privileges.is_empty() {
                    "none".to_owned()
                } else {
                    shown(&held.privileges.join(", "))
                },
            ]);
        }
        table.text()
    }
}

impl HeldView {
    fn new(wire: &HeldPrivileges, roles: &[Role]) -> Self {
        let set = |privileges: &[i32]| privileges.iter().copied().collect::<BTreeSet<_>>();
        let held = set(&wire.privileges);
        // Holding nothing is no role: a denial and a grant that doesn't reach further look alike here.
        let alike = roles.iter().find(|role| !held.is_empty() && set(&role.privileges) == held);
        Self {
            path: wire.path.clone(),
            propagate: wire.propagate,
            privileges: privileges(&wire.privileges),
            role: alike.map(|role| role.name.clone()),
        }
    }
}

impl View for WhoAmIView {
    fn table(&self, now_ms: i64) -> String {
        let mut facts = Facts::default();
        facts.fact("user", shown(&self.user));
        let roles = if self.roles.is_empty() { "none".to_owned() } else { shown(&self.roles.join(", ")) };
        facts.fact("roles on /", roles);
        facts.fact("groups", list_or_dash(&self.groups));
        facts.fact("second factor", yes_no(self.second_factor));
        facts.fact("controller", self.url.clone());
        facts.fact("context", self.context.clone());
        if let Some(token) = &self.token {
            facts.fact("API token", shown(token));
            facts.fact("it may do", self.token_rule());
        }
        if let (Some(created), Some(ends)) = (self.session_created_unix_ms, self.session_expires_unix_ms) {
            facts.fact("signed in", ago(created, now_ms));
            facts.fact("session ends", utc(ends));
        }
        format!("{}\n{}", facts.text(), self.held())
    }
}

impl View for VersionView {
    fn table(&self, _now_ms: i64) -> String {
        let mut text = format!("horcruxctl {}\n", self.client);
        if let (Some(version), Some(api)) = (&self.controller, &self.controller_api) {
            text.push_str(&format!("controller {} ({})\n", shown(version), shown(api)));
        }
        text
    }
}
