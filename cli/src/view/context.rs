//! Contexts.

use serde::Serialize;

use super::table::Table;
use super::{View, or_dash};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContextView {
    pub name: String,
    pub current: bool,
    pub url: String,
    pub user: Option<String>,
    /// Null where a file of authorities is trusted instead.
    pub fingerprint: Option<String>,
    pub signed_in: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ContextListView(pub Vec<ContextView>);

impl View for ContextListView {
    fn table(&self, _now_ms: i64) -> String {
        if self.0.is_empty() {
            return "no contexts: `horcruxctl login https://HOST` makes one\n".to_owned();
        }
        let mut table = Table::new(&["CURRENT", "NAME", "URL", "USER", "SIGNED IN", "FINGERPRINT"]);
        for context in &self.0 {
            table.row(vec![
                if context.current { "*".to_owned() } else { String::new() },
                context.name.clone(),
                context.url.clone(),
                or_dash(context.user.clone()),
                if context.signed_in { "yes" } else { "no" }.to_owned(),
                or_dash(context.fingerprint.clone()),
            ]);
        }
        table.text()
    }
}
