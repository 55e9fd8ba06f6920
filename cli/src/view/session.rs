//! Sessions.

use horcrux_proto::v1::Session;
use serde::Serialize;

use super::table::Table;
use super::time::{ago, utc};
use super::{View, shown};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SessionView {
    pub id: String,
    pub user: String,
    pub current: bool,
    pub source: String,
    pub client: String,
    pub created_unix_ms: i64,
    pub last_used_unix_ms: i64,
    pub expires_unix_ms: i64,
    pub idle_timeout_seconds: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct SessionListView(pub Vec<SessionView>);

impl From<&Session> for SessionView {
    fn from(wire: &Session) -> Self {
        Self {
            id: wire.id.clone(),
            user: wire.user.clone(),
            current: wire.current,
            source: wire.source.clone(),
            client: wire.client.clone(),
            created_unix_ms: wire.created_unix_ms,
            last_used_unix_ms: wire.last_used_unix_ms,
            expires_unix_ms: wire.expires_unix_ms,
            idle_timeout_seconds: wire.idle_timeout_seconds,
        }
    }
}

impl From<&[Session]> for SessionListView {
    fn from(wire: &[Session]) -> Self {
        Self(wire.iter().map(SessionView::from).collect())
    }
}

impl View for SessionListView {
    fn table(&self, now_ms: i64) -> String {
        if self.0.is_empty() {
            return "no sessions\n".to_owned();
        }
        let mut table =
            Table::new(&["CURRENT", "ID", "USER", "FROM", "SIGNED IN", "LAST USED", "ENDS", "CLIENT"]);
        for session in &self.0 {
            table.row(vec![
                if session.current { "*".to_owned() } else { String::new() },
                shown(&session.id),
                shown(&session.user),
                shown(&session.source),
                ago(session.created_unix_ms, now_ms),
                ago(session.last_used_unix_ms, now_ms),
                utc(session.expires_unix_ms),
                shown(&session.client),
            ]);
        }
        table.text()
    }
}
