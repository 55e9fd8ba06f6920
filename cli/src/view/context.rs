//! Contexts, and what a command made.

use serde::Serialize;

use super::table::Table;
use super::time::utc;
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

/// A join token. Holds the secret where it was not written to a file.
#[derive(Serialize)]
pub struct JoinTokenView {
    pub token: Option<String>,
    pub token_file: Option<String>,
    pub expires_unix_ms: i64,
}

impl std::fmt::Debug for JoinTokenView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinTokenView")
    }
}

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

impl View for JoinTokenView {
    /// The token alone, so that it can be piped; the rest is talk and goes to stderr.
    fn table(&self, _now_ms: i64) -> String {
        self.token.as_ref().map(|token| format!("{token}\n")).unwrap_or_default()
    }
}

impl JoinTokenView {
    #[must_use]
    pub fn talk(&self, url: &str) -> String {
        let place = self.token_file.as_deref().map_or_else(
            || "the token is shown this once".to_owned(),
            |file| format!("the token is in {file}"),
        );
        // What this machine calls itself means nothing on another.
        let local =
            ["https://127.", "https://localhost", "https://[::1]"].iter().any(|start| url.starts_with(start));
        let url = match url.rsplit_once(':') {
            Some((_, port)) if local => format!("https://THIS-CONTROLLER:{port}"),
            _ => url.to_owned(),
        };
        format!(
            "{place}; it works once, until {}. On the node, with the token in a file:\n  horcrux-agentd enroll \
             --controller {url} --token-file FILE\n  horcrux-agentd run",
            utc(self.expires_unix_ms)
        )
    }
}
