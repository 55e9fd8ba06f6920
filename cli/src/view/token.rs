//! API tokens, without their secrets.

use horcrux_proto::v1::ApiToken;
use serde::Serialize;

use super::grant::GrantView;
use super::table::{Facts, Table};
use super::time::{ago, utc};
use super::{View, list_or_dash, or_dash, shown, text_or_dash};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ApiTokenView {
    pub id: String,
    pub owner: String,
    pub comment: String,
    pub full: bool,
    pub grants: Vec<GrantView>,
    pub networks: Vec<String>,
    pub created_unix_ms: i64,
    pub expires_unix_ms: i64,
    pub last_used_unix_ms: Option<i64>,
    pub last_used_from: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ApiTokenListView(pub Vec<ApiTokenView>);

impl From<&ApiToken> for ApiTokenView {
    fn from(wire: &ApiToken) -> Self {
        Self {
            id: wire.id.clone(),
            owner: wire.owner.clone(),
            comment: wire.comment.clone(),
            full: wire.full,
            grants: wire.grants.iter().map(GrantView::from).collect(),
            networks: wire.networks.clone(),
            created_unix_ms: wire.created_unix_ms,
            expires_unix_ms: wire.expires_unix_ms,
            last_used_unix_ms: wire.last_used_unix_ms,
            last_used_from: wire.last_used_from.clone(),
        }
    }
}

impl ApiTokenView {
    /// `all of its owner's`, or `VmUser@/pools/ci`.
    fn rights(&self) -> String {
        if self.full {
            return "all of its owner's".to_owned();
        }
        let grants: Vec<String> = self.grants.iter().map(|g| format!("{}@{}", g.role, g.path)).collect();
        list_or_dash(&grants)
    }

    fn networks(&self) -> String {
        if self.networks.is_empty() { "anywhere".to_owned() } else { list_or_dash(&self.networks) }
    }

    fn last_used(&self, now_ms: i64) -> String {
        let from = self.last_used_from.as_deref().map(|from| format!(" from {}", shown(from)));
        or_dash(self.last_used_unix_ms.map(|at| ago(at, now_ms) + &from.unwrap_or_default()))
    }

    pub(super) fn facts(&self, now_ms: i64) -> String {
        let mut facts = Facts::default();
        facts.fact("id", shown(&self.id));
        facts.fact("owner", shown(&self.owner));
        facts.fact("comment", text_or_dash(&self.comment));
        facts.fact("rights", self.rights());
        facts.fact("works from", self.networks());
        facts.fact("made", utc(self.created_unix_ms));
        facts.fact("ends", utc(self.expires_unix_ms));
        facts.fact("last used", self.last_used(now_ms));
        facts.text()
    }
}

impl View for ApiTokenListView {
    fn table(&self, now_ms: i64) -> String {
        if self.0.is_empty() {
            return "no API tokens\n".to_owned();
        }
        let mut table = Table::new(&["ID", "OWNER", "COMMENT", "ENDS", "LAST USED", "WORKS FROM", "RIGHTS"]);
        for token in &self.0 {
            table.row(vec![
                shown(&token.id),
                shown(&token.owner),
                text_or_dash(&token.comment),
                ago(token.expires_unix_ms, now_ms),
                token.last_used(now_ms),
                token.networks(),
                token.rights(),
            ]);
        }
        table.text()
    }
}
