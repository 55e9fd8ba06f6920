//! What is shown once: join tokens, API tokens, recovery codes. Their `Debug` prints nothing.

use std::fmt;

use horcrux_transport::secret::Secret;
use serde::ser::{SerializeSeq as _, SerializeStruct as _};
use serde::{Serialize, Serializer};

use super::table::Table;
use super::time::utc;
use super::token::ApiTokenView;
use super::{View, or_dash, shown};
use crate::change::Run;

/// A join token. Holds the secret where it was not written to a file.
#[derive(Serialize)]
pub struct JoinTokenView {
    pub token: Option<String>,
    pub token_file: Option<String>,
    pub expires_unix_ms: i64,
}

/// Whom a join token lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinAs {
    NewNode,
    /// One that keeps its name and what goes with it.
    Itself,
}

/// What `node reenroll --all` made: no secrets, they are in the files.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ReenrollView(pub Vec<ReenrolledView>);

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReenrolledView {
    pub node: String,
    pub token_file: Option<String>,
    pub expires_unix_ms: Option<i64>,
    pub problem: Option<String>,
}

/// A new API token. Holds the secret where it was not written to a file.
#[derive(Serialize)]
pub struct NewApiTokenView {
    pub secret: Option<String>,
    pub token_file: Option<String>,
    #[serde(flatten)]
    pub token: ApiTokenView,
}

pub struct RecoveryCodesView(Vec<Secret>);

impl fmt::Debug for JoinTokenView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinTokenView")
    }
}

impl fmt::Debug for NewApiTokenView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewApiTokenView")
    }
}

impl fmt::Debug for RecoveryCodesView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCodesView")
    }
}

impl From<Vec<String>> for RecoveryCodesView {
    fn from(codes: Vec<String>) -> Self {
        Self(codes.into_iter().map(Secret::from).collect())
    }
}

struct Codes<'a>(&'a [Secret]);

impl Serialize for Codes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for code in self.0 {
            seq.serialize_element(code.expose())?;
        }
        seq.end()
    }
}

impl Serialize for RecoveryCodesView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut view = serializer.serialize_struct("RecoveryCodesView", 1)?;
        view.serialize_field("recovery_codes", &Codes(&self.0))?;
        view.end()
    }
}

impl View for RecoveryCodesView {
    /// One on each line, so that they can be piped or printed.
    fn table(&self, _now_ms: i64) -> String {
        self.0.iter().map(|code| shown(code.expose()) + "\n").collect()
    }
}

impl RecoveryCodesView {
    #[must_use]
    pub fn talk(&self) -> &'static str {
        "keep these recovery codes away from the authenticator: each works once in place of a code, and they are shown \
         this once"
    }
}

impl View for JoinTokenView {
    /// The token alone, so that it can be piped; the rest is talk and goes to stderr.
    fn table(&self, _now_ms: i64) -> String {
        self.token.as_ref().map(|token| format!("{}\n", shown(token))).unwrap_or_default()
    }
}

impl JoinTokenView {
    #[must_use]
    pub fn talk(&self, join_as: JoinAs, url: &str) -> String {
        let place = self.token_file.as_deref().map_or_else(
            || "the token is shown this once".to_owned(),
            |file| format!("the token is in {file}"),
        );
        let next = match join_as {
            JoinAs::NewNode => enroll(url),
            JoinAs::Itself => ENROLL_AGAIN.to_owned(),
        };
        format!("{place}; it works once, until {}. {next}", utc(self.expires_unix_ms))
    }
}

/// What is done with a new node's token.
fn enroll(url: &str) -> String {
    // What this machine calls itself means nothing on another.
    let local =
        ["https://127.", "https://localhost", "https://[::1]"].iter().any(|start| url.starts_with(start));
    let url = match url.rsplit_once(':') {
        Some((_, port)) if local => format!("https://THIS-CONTROLLER:{port}"),
        _ => url.to_owned(),
    };
    format!(
        "On the node, with the token in a file:\n  horcrux-agentd enroll --controller {url} --token-file FILE\n  \
         horcrux-agentd run"
    )
}

/// What is done with the token of a node that has been one. It knows its controller.
const ENROLL_AGAIN: &str = "\
On the node, as root, with the token in a file:
  horcrux-agentd enroll --again --token-file FILE
An agent that runs there goes on with the new certificate.";

impl View for ReenrollView {
    fn table(&self, _now_ms: i64) -> String {
        if self.0.is_empty() {
            return "no nodes\n".to_owned();
        }
        let mut table = Table::new(&["NODE", "TOKEN FILE", "WORKS UNTIL", "PROBLEM"]);
        for node in &self.0 {
            table.row(vec![
                shown(&node.node),
                or_dash(node.token_file.clone()),
                or_dash(node.expires_unix_ms.map(utc)),
                or_dash(node.problem.clone()),
            ]);
        }
        table.text()
    }
}

impl ReenrollView {
    #[must_use]
    pub fn talk(&self, run: Run) -> String {
        let good = self.0.iter().filter(|node| node.problem.is_none()).count();
        match run {
            Run::Change => format!("made tokens for {good} of {} nodes. {ENROLL_AGAIN}", self.0.len()),
            Run::Check => {
                let bad = self.0.iter().filter_map(|node| {
                    node.problem.as_ref().map(|problem| format!("\n  {}: {problem}", shown(&node.node)))
                });
                format!("would make tokens for {good} of {} nodes{}", self.0.len(), bad.collect::<String>())
            }
        }
    }
}

impl View for NewApiTokenView {
    /// The secret alone, so that it can be piped; what the token is, where the secret is in a file.
    fn table(&self, now_ms: i64) -> String {
        self.secret.as_ref().map_or_else(|| self.token.facts(now_ms), |secret| format!("{}\n", shown(secret)))
    }
}

impl NewApiTokenView {
    #[must_use]
    pub fn talk(&self) -> String {
        let place = self.token_file.as_deref().map_or_else(
            || "its secret is shown this once".to_owned(),
            |file| format!("its secret is in {file}"),
        );
        let (id, ends) = (shown(&self.token.id), utc(self.token.expires_unix_ms));
        format!("made the API token {id}, good until {ends}; {place}. Send it as `authorization: Bearer …`")
    }
}
