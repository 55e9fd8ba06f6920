//! The caller, and the versions.

use horcrux_proto::v1::WhoAmIResponse;
use serde::Serialize;

use super::table::Facts;
use super::time::{ago, utc};
use super::{View, shown};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WhoAmIView {
    pub user: String,
    pub roles: Vec<String>,
    pub context: String,
    pub url: String,
    pub session: String,
    pub session_created_unix_ms: i64,
    pub session_expires_unix_ms: i64,
    pub idle_timeout_seconds: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VersionView {
    pub client: String,
    pub controller: Option<String>,
    pub controller_api: Option<String>,
}

impl WhoAmIView {
    #[must_use]
    pub fn new(context: &str, url: &str, wire: &WhoAmIResponse) -> Self {
        let session = wire.session.clone().unwrap_or_default();
        Self {
            user: session.user,
            roles: wire.roles.clone(),
            context: context.to_owned(),
            url: url.to_owned(),
            session: session.id,
            session_created_unix_ms: session.created_unix_ms,
            session_expires_unix_ms: session.expires_unix_ms,
            idle_timeout_seconds: session.idle_timeout_seconds,
        }
    }
}

impl View for WhoAmIView {
    fn table(&self, now_ms: i64) -> String {
        let mut facts = Facts::default();
        facts.fact("user", shown(&self.user));
        let roles = if self.roles.is_empty() { "none".to_owned() } else { shown(&self.roles.join(", ")) };
        facts.fact("roles", roles);
        facts.fact("controller", self.url.clone());
        facts.fact("context", self.context.clone());
        facts.fact("signed in", ago(self.session_created_unix_ms, now_ms));
        facts.fact("session ends", utc(self.session_expires_unix_ms));
        facts.text()
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
