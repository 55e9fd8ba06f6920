//! The audit log.

use horcrux_proto::v1::{AuditRecord, VerifyResponse};
use serde::Serialize;

use super::table::{Facts, Table};
use super::time::utc;
use super::{View, shown, text_or_dash, word};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuditRecordView {
    pub sequence: u64,
    pub at_unix_ms: i64,
    pub kind: String,
    pub actor: String,
    pub session: String,
    pub source: String,
    pub rpc: String,
    pub resource: String,
    pub request_id: String,
    pub decision: String,
    pub outcome: String,
    pub detail: String,
    /// Of an outcome: the row of its intent.
    pub intent: Option<u64>,
    pub hash: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct AuditListView(pub Vec<AuditRecordView>);

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerifyView {
    pub intact: bool,
    pub rows: u64,
    /// `SEQUENCE:HASH` of the last row.
    pub head: String,
    pub broken_at: Option<u64>,
    pub problem: String,
}

impl From<&AuditRecord> for AuditRecordView {
    fn from(wire: &AuditRecord) -> Self {
        Self {
            sequence: wire.sequence,
            at_unix_ms: wire.at_unix_ms,
            kind: word(wire.kind().as_str_name(), "AUDIT_KIND_"),
            actor: wire.actor.clone(),
            session: wire.session.clone(),
            source: wire.source.clone(),
            rpc: wire.rpc.clone(),
            resource: wire.resource.clone(),
            request_id: wire.request_id.clone(),
            decision: wire.decision.clone(),
            outcome: wire.outcome.clone(),
            detail: wire.detail.clone(),
            intent: (wire.intent > 0).then_some(wire.intent),
            hash: wire.hash.clone(),
        }
    }
}

impl From<&VerifyResponse> for VerifyView {
    fn from(wire: &VerifyResponse) -> Self {
        Self {
            intact: wire.intact,
            rows: wire.rows,
            head: wire.head.clone(),
            broken_at: wire.broken_at,
            problem: wire.problem.clone(),
        }
    }
}

impl AuditRecordView {
    fn cells(&self) -> Vec<String> {
        // The package is the same for all.
        let rpc = self.rpc.trim_start_matches('/').trim_start_matches("horcrux.v1.");
        vec![
            self.sequence.to_string(),
            utc(self.at_unix_ms),
            self.kind.clone(),
            text_or_dash(&self.actor),
            text_or_dash(&self.source),
            text_or_dash(rpc),
            text_or_dash(&self.resource),
            self.result(),
        ]
    }

    /// How it ended, what allowed or would have allowed it, and what was asked for.
    fn result(&self) -> String {
        let parts: Vec<String> = [&self.outcome, &self.decision, &self.detail]
            .into_iter()
            .filter(|t| !t.is_empty())
            .map(|t| shown(t))
            .collect();
        parts.join("; ")
    }

    /// A row without a table around it.
    #[must_use]
    pub fn line(&self) -> String {
        self.cells().join("  ").trim_end().to_owned()
    }
}

impl VerifyView {
    /// In what way it isn't intact, for people.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if self.intact {
            return None;
        }
        let problem =
            if self.problem.is_empty() { "the chain is broken".to_owned() } else { shown(&self.problem) };
        Some(self.broken_at.map_or_else(|| problem.clone(), |row| format!("row {row}: {problem}")))
    }
}

impl View for AuditListView {
    fn table(&self, _now_ms: i64) -> String {
        if self.0.is_empty() {
            return "no rows\n".to_owned();
        }
        let mut table = Table::new(&[">ROW", "TIME", "KIND", "WHO", "FROM", "REQUEST", "RESOURCE", "RESULT"]);
        for record in &self.0 {
            table.row(record.cells());
        }
        table.text()
    }
}

impl View for VerifyView {
    fn table(&self, _now_ms: i64) -> String {
        let mut facts = Facts::default();
        facts.fact("intact", if self.intact { "yes" } else { "NO" });
        if let Some(problem) = self.problem() {
            facts.fact("problem", problem);
        }
        facts.fact("rows", self.rows.to_string());
        facts.fact("head", text_or_dash(&self.head));
        facts.text()
    }
}
