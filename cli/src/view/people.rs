//! Users and groups.

use horcrux_proto::v1::{Group, User};
use serde::Serialize;

use super::table::{Facts, Table};
use super::time::{ago, utc};
use super::{View, list_or_dash, or_dash, shown, text_or_dash};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UserView {
    pub user: String,
    pub display_name: String,
    pub disabled: bool,
    pub second_factor: bool,
    pub second_factor_locked: bool,
    pub groups: Vec<String>,
    pub created_unix_ms: i64,
    pub last_sign_in_unix_ms: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct UserListView(pub Vec<UserView>);

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupView {
    pub name: String,
    pub comment: String,
    pub members: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct GroupListView(pub Vec<GroupView>);

impl From<&User> for UserView {
    fn from(wire: &User) -> Self {
        Self {
            user: wire.id.clone(),
            display_name: wire.display_name.clone(),
            disabled: wire.disabled,
            second_factor: wire.second_factor,
            second_factor_locked: wire.second_factor_locked,
            groups: wire.groups.clone(),
            created_unix_ms: wire.created_unix_ms,
            last_sign_in_unix_ms: wire.last_sign_in_unix_ms,
        }
    }
}

impl From<&Group> for GroupView {
    fn from(wire: &Group) -> Self {
        Self { name: wire.name.clone(), comment: wire.comment.clone(), members: wire.members.clone() }
    }
}

impl UserView {
    fn state(&self) -> &'static str {
        if self.disabled { "disabled" } else { "enabled" }
    }

    fn factor(&self) -> &'static str {
        match (self.second_factor, self.second_factor_locked) {
            (_, true) => "locked",
            (true, false) => "yes",
            (false, false) => "no",
        }
    }
}

impl View for UserListView {
    fn table(&self, now_ms: i64) -> String {
        if self.0.is_empty() {
            return "no users\n".to_owned();
        }
        let mut table = Table::new(&["USER", "NAME", "STATE", "SECOND FACTOR", "LAST SIGN-IN", "GROUPS"]);
        for user in &self.0 {
            table.row(vec![
                shown(&user.user),
                text_or_dash(&user.display_name),
                user.state().to_owned(),
                user.factor().to_owned(),
                or_dash(user.last_sign_in_unix_ms.map(|at| ago(at, now_ms))),
                list_or_dash(&user.groups),
            ]);
        }
        table.text()
    }
}

impl View for UserView {
    fn table(&self, now_ms: i64) -> String {
        let mut facts = Facts::default();
        facts.fact("user", shown(&self.user));
        facts.fact("name", text_or_dash(&self.display_name));
        facts.fact("state", self.state());
        facts.fact("second factor", self.factor());
        facts.fact("groups", list_or_dash(&self.groups));
        facts.fact("made", utc(self.created_unix_ms));
        facts.fact("last sign-in", or_dash(self.last_sign_in_unix_ms.map(|at| ago(at, now_ms))));
        facts.text()
    }
}

impl View for GroupListView {
    fn table(&self, _now_ms: i64) -> String {
        if self.0.is_empty() {
            return "no groups\n".to_owned();
        }
        let mut table = Table::new(&["NAME", "COMMENT", "MEMBERS"]);
        for group in &self.0 {
            table.row(vec![shown(&group.name), text_or_dash(&group.comment), list_or_dash(&group.members)]);
        }
        table.text()
    }
}

impl View for GroupView {
    fn table(&self, _now_ms: i64) -> String {
        let mut facts = Facts::default();
        facts.fact("name", shown(&self.name));
        facts.fact("comment", text_or_dash(&self.comment));
        facts.fact("members", list_or_dash(&self.members));
        facts.text()
    }
}
