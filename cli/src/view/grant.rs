//! Roles and grants.

use horcrux_proto::v1::{Grant, Role, grant};
use serde::Serialize;

use super::table::{Facts, Table};
use super::time::{ago, utc};
use super::{View, list_or_dash, privileges, shown, text_or_dash, yes_no};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoleView {
    pub name: String,
    pub built_in: bool,
    pub privileges: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct RoleListView(pub Vec<RoleView>);

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GrantView {
    pub id: String,
    /// `user`, `group` or `token`.
    pub subject_kind: String,
    pub subject: String,
    pub role: String,
    pub path: String,
    pub propagate: bool,
    pub not_after_unix_ms: Option<i64>,
    pub created_unix_ms: i64,
    pub created_by: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct GrantListView(pub Vec<GrantView>);

impl From<&Role> for RoleView {
    fn from(wire: &Role) -> Self {
        Self { name: wire.name.clone(), built_in: wire.built_in, privileges: privileges(&wire.privileges) }
    }
}

impl From<&Grant> for GrantView {
    fn from(wire: &Grant) -> Self {
        let (kind, subject) = match &wire.subject {
            Some(grant::Subject::User(name)) => ("user", name.as_str()),
            Some(grant::Subject::Group(name)) => ("group", name.as_str()),
            Some(grant::Subject::Token(id)) => ("token", id.as_str()),
            None => ("unknown", ""),
        };
        Self {
            id: wire.id.clone(),
            subject_kind: kind.to_owned(),
            subject: subject.to_owned(),
            role: wire.role.clone(),
            path: wire.path.clone(),
            propagate: wire.propagate,
            not_after_unix_ms: wire.not_after_unix_ms,
            created_unix_ms: wire.created_unix_ms,
            created_by: wire.created_by.clone(),
        }
    }
}

impl GrantView {
    /// `group ops`.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("{} {}", self.subject_kind, shown(&self.subject))
    }

    fn ends(&self, now_ms: i64) -> String {
        match self.not_after_unix_ms {
            Some(at) if at <= now_ms => format!("ended {}", ago(at, now_ms)),
            Some(at) => ago(at, now_ms),
            None => "never".to_owned(),
        }
    }
}

impl View for RoleListView {
    fn table(&self, _now_ms: i64) -> String {
        let mut table = Table::new(&["NAME", "BUILT IN", "PRIVILEGES"]);
        for role in &self.0 {
            table.row(vec![shown(&role.name), yes_no(role.built_in), role.held()]);
        }
        table.text()
    }
}

impl RoleView {
    fn held(&self) -> String {
        list_or_dash(&self.privileges)
    }
}

impl View for RoleView {
    fn table(&self, _now_ms: i64) -> String {
        let mut facts = Facts::default();
        facts.fact("name", shown(&self.name));
        facts.fact("built in", yes_no(self.built_in));
        facts.fact("privileges", self.held());
        facts.text()
    }
}

impl View for GrantListView {
    fn table(&self, now_ms: i64) -> String {
        if self.0.is_empty() {
            return "no grants\n".to_owned();
        }
        let mut table = Table::new(&["ID", "SUBJECT", "ROLE", "PATH", "BELOW", "ENDS", "MADE BY"]);
        for grant in &self.0 {
            table.row(vec![
                shown(&grant.id),
                grant.subject(),
                shown(&grant.role),
                shown(&grant.path),
                yes_no(grant.propagate),
                grant.ends(now_ms),
                text_or_dash(&grant.created_by),
            ]);
        }
        table.text()
    }
}

impl View for GrantView {
    fn table(&self, now_ms: i64) -> String {
        let mut facts = Facts::default();
        facts.fact("id", shown(&self.id));
        facts.fact("subject", self.subject());
        facts.fact("role", shown(&self.role));
        facts.fact("path", shown(&self.path));
        facts.fact("below too", yes_no(self.propagate));
        facts.fact("ends", self.ends(now_ms));
        facts.fact("made", format!("{} by {}", utc(self.created_unix_ms), text_or_dash(&self.created_by)));
        facts.text()
    }
}
