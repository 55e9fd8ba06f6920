//! Guest links. Only one that was just made holds its secret, and its `Debug` prints nothing.

use std::fmt;

use horcrux_proto::v1::GuestLink;
use serde::Serialize;

use super::table::Table;
use super::time::{ago, utc};
use super::{View, bare, or_dash, shown, text_or_dash, word};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GuestLinkView {
    pub name: String,
    pub vm: String,
    pub vm_display_name: String,
    pub kind: String,
    pub mode: String,
    pub maker: String,
    /// The maker's API token, where one made it.
    pub token: String,
    pub comment: String,
    pub created_unix_ms: i64,
    pub expires_unix_ms: i64,
    pub opened_unix_ms: Option<i64>,
    pub opened_from: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct GuestLinkListView(pub Vec<GuestLinkView>);

#[derive(Serialize)]
pub struct NewGuestLinkView {
    pub url: String,
    #[serde(flatten)]
    pub link: GuestLinkView,
}

impl fmt::Debug for NewGuestLinkView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewGuestLinkView")
    }
}

impl From<&GuestLink> for GuestLinkView {
    fn from(wire: &GuestLink) -> Self {
        Self {
            name: wire.name.clone(),
            vm: wire.vm.clone(),
            vm_display_name: wire.vm_display_name.clone(),
            kind: word(wire.kind().as_str_name(), "CONSOLE_KIND_"),
            mode: word(wire.mode().as_str_name(), "CONSOLE_MODE_"),
            maker: wire.maker.clone(),
            token: wire.token.clone(),
            comment: wire.comment.clone(),
            created_unix_ms: wire.created_unix_ms,
            expires_unix_ms: wire.expires_unix_ms,
            opened_unix_ms: wire.opened_unix_ms,
            opened_from: wire.opened_from.clone(),
        }
    }
}

impl GuestLinkView {
    fn opened(&self, now_ms: i64) -> String {
        let from = if self.opened_from.is_empty() {
            String::new()
        } else {
            format!(" from {}", shown(&self.opened_from))
        };
        or_dash(self.opened_unix_ms.map(|at| ago(at, now_ms) + &from))
    }
}

impl View for GuestLinkListView {
    fn table(&self, now_ms: i64) -> String {
        if self.0.is_empty() {
            return "no guest links\n".to_owned();
        }
        let mut table = Table::new(&["ID", "VM", "KIND", "MODE", "MAKER", "ENDS", "OPENED", "COMMENT"]);
        for link in &self.0 {
            table.row(vec![
                shown(bare(&link.name)),
                shown(&link.vm_display_name),
                link.kind.clone(),
                link.mode.clone(),
                shown(&link.maker),
                ago(link.expires_unix_ms, now_ms),
                link.opened(now_ms),
                text_or_dash(&link.comment),
            ]);
        }
        table.text()
    }
}

impl View for NewGuestLinkView {
    /// The link alone, so that it can be piped.
    fn table(&self, _now_ms: i64) -> String {
        format!("{}\n", shown(&self.url))
    }
}

impl NewGuestLinkView {
    #[must_use]
    pub fn talk(&self) -> String {
        let (id, ends) = (shown(bare(&self.link.name)), utc(self.link.expires_unix_ms));
        format!(
            "made the guest link {id}, good until {ends}. It is shown this once: whoever has it may open this console"
        )
    }
}
