//! Open consoles.

use horcrux_proto::v1::Console;
use serde::Serialize;

use super::quantity::whole_bytes;
use super::table::Table;
use super::time::ago;
use super::{View, bare, shown, word, yes_no};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConsoleView {
    pub name: String,
    pub vm: String,
    pub vm_display_name: String,
    pub node: String,
    pub user: String,
    pub kind: String,
    pub mode: String,
    /// What this viewer types reaches the VM.
    pub in_control: bool,
    pub began_unix_ms: i64,
    pub source: String,
    pub client: String,
    pub to_viewer_bytes: u64,
    pub from_viewer_bytes: u64,
    pub recorded: bool,
    /// Of a guest, who came with a link.
    pub guest: Option<ConsoleGuestView>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConsoleGuestView {
    pub link: String,
    pub maker: String,
    pub comment: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ConsoleListView(pub Vec<ConsoleView>);

impl From<&Console> for ConsoleView {
    fn from(wire: &Console) -> Self {
        Self {
            name: wire.name.clone(),
            vm: wire.vm.clone(),
            vm_display_name: wire.vm_display_name.clone(),
            node: wire.node.clone(),
            user: wire.user.clone(),
            kind: word(wire.kind().as_str_name(), "CONSOLE_KIND_"),
            mode: word(wire.mode().as_str_name(), "CONSOLE_MODE_"),
            in_control: wire.in_control,
            began_unix_ms: wire.began_unix_ms,
            source: wire.source.clone(),
            client: wire.client.clone(),
            to_viewer_bytes: wire.to_viewer_bytes,
            from_viewer_bytes: wire.from_viewer_bytes,
            recorded: wire.recorded,
            guest: wire.guest.as_ref().map(|guest| ConsoleGuestView {
                link: guest.link.clone(),
                maker: guest.maker.clone(),
                comment: guest.comment.clone(),
            }),
        }
    }
}

impl ConsoleView {
    /// `guest link 7f3a of alice@local (the vendor)`.
    fn whose(&self) -> String {
        shown(&self.user) + &about(self.guest.as_ref().map(|guest| guest.comment.as_str()))
    }
}

/// What is written of a guest, where something is.
#[must_use]
pub fn about(comment: Option<&str>) -> String {
    comment.filter(|text| !text.is_empty()).map(|text| format!(" ({})", shown(text))).unwrap_or_default()
}

impl From<&[Console]> for ConsoleListView {
    fn from(wire: &[Console]) -> Self {
        Self(wire.iter().map(ConsoleView::from).collect())
    }
}

impl View for ConsoleListView {
    fn table(&self, now_ms: i64) -> String {
        if self.0.is_empty() {
            return "no open consoles\n".to_owned();
        }
        let mut table = Table::new(&[
            "ID",
            "VM",
            "NODE",
            "KIND",
            "USER",
            "FROM",
            "OPENED",
            "MODE",
            "IN CONTROL",
            "RECORDED",
            ">RECEIVED",
            ">SENT",
            "CLIENT",
        ]);
        for console in &self.0 {
            table.row(vec![
                shown(bare(&console.name)),
                shown(&console.vm_display_name),
                shown(bare(&console.node)),
                console.kind.clone(),
                console.whose(),
                shown(&console.source),
                ago(console.began_unix_ms, now_ms),
                console.mode.clone(),
                yes_no(console.in_control),
                yes_no(console.recorded),
                whole_bytes(console.to_viewer_bytes),
                whole_bytes(console.from_viewer_bytes),
                shown(&console.client),
            ]);
        }
        table.text()
    }
}
