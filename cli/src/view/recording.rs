//! Recordings of consoles, and which are made.

use horcrux_proto::v1::{Recording, RecordingPolicy};
use serde::Serialize;

use super::quantity::whole_bytes;
use super::table::Table;
use super::time::{ago, utc};
use super::{View, bare, shown, word, yes_no};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecordingView {
    pub name: String,
    pub vm: String,
    pub vm_display_name: String,
    pub node: String,
    pub user: String,
    pub kind: String,
    pub keeps_input: bool,
    pub began_unix_ms: i64,
    /// `null` while it goes on.
    pub ended_unix_ms: Option<i64>,
    pub size_bytes: u64,
    /// What is missing in it.
    pub shed_bytes: u64,
    pub last_link: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct RecordingListView(pub Vec<RecordingView>);

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecordingPolicyView {
    pub subject: String,
    pub scope: String,
    pub keeps_input: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct RecordingPolicyListView(pub Vec<RecordingPolicyView>);

impl From<&Recording> for RecordingView {
    fn from(wire: &Recording) -> Self {
        Self {
            name: wire.name.clone(),
            vm: wire.vm.clone(),
            vm_display_name: wire.vm_display_name.clone(),
            node: wire.node.clone(),
            user: wire.user.clone(),
            kind: word(wire.kind().as_str_name(), "CONSOLE_KIND_"),
            keeps_input: wire.keeps_input,
            began_unix_ms: wire.began_unix_ms,
            ended_unix_ms: wire.ended_unix_ms,
            size_bytes: wire.size_bytes,
            shed_bytes: wire.shed_bytes,
            last_link: wire.last_link.clone(),
        }
    }
}

impl From<&RecordingPolicy> for RecordingPolicyView {
    fn from(wire: &RecordingPolicy) -> Self {
        Self {
            subject: wire.subject.clone(),
            scope: word(wire.scope().as_str_name(), "RECORDING_SCOPE_"),
            keeps_input: wire.keeps_input,
        }
    }
}

impl View for RecordingListView {
    fn table(&self, now_ms: i64) -> String {
        if self.0.is_empty() {
            return "no recordings\n".to_owned();
        }
        let mut table =
            Table::new(&["ID", "VM", "NODE", "KIND", "USER", "BEGAN", "ENDED", "INPUT", ">SIZE", ">MISSING"]);
        for recording in &self.0 {
            table.row(vec![
                shown(bare(&recording.name)),
                shown(&recording.vm_display_name),
                shown(bare(&recording.node)),
                recording.kind.clone(),
                shown(&recording.user),
                utc(recording.began_unix_ms),
                recording.ended_unix_ms.map_or_else(|| "goes on".to_owned(), |ended| ago(ended, now_ms)),
                yes_no(recording.keeps_input),
                whole_bytes(recording.size_bytes),
                whole_bytes(recording.shed_bytes),
            ]);
        }
        table.text()
    }
}

impl View for RecordingPolicyListView {
    fn table(&self, _now_ms: i64) -> String {
        if self.0.is_empty() {
            return "nothing is recorded\n".to_owned();
        }
        let mut table = Table::new(&["OF", "RECORDS", "INPUT"]);
        for policy in &self.0 {
            table.row(vec![shown(&policy.subject), policy.scope.clone(), yes_no(policy.keeps_input)]);
        }
        table.text()
    }
}
