//! Why somebody may do something, and what a change of grants would do.

use horcrux_proto::authz::privilege_name;
use horcrux_proto::v1::{PrivilegeChange, WhatIfResponse, WhyRequest, WhyResponse, WhyStep, why_request};
use serde::Serialize;

use super::grant::GrantView;
use super::table::{Facts, Table};
use super::{View, list_or_dash, or_dash, privileges, shown, word};
use crate::place::{Known, nothing_known};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WhyView {
    pub allowed: bool,
    /// Who was asked about: `alice`, `token 3f2a`.
    pub subject: String,
    pub privilege: String,
    pub path: String,
    pub because: String,
    pub steps: Vec<WhyStepView>,
    /// Those that decided.
    pub grants: Vec<GrantView>,
    /// There is something at the path that the caller may see.
    pub known: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WhyStepView {
    pub path: String,
    pub subject: String,
    pub effect: String,
    pub grant: Option<GrantView>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WhatIfView {
    pub changes: Vec<ChangeView>,
    /// Changes that are not listed.
    pub more: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangeView {
    pub principal: String,
    pub resource: String,
    pub gained: Vec<String>,
    pub lost: Vec<String>,
}

impl WhyView {
    #[must_use]
    pub fn new(asked: &WhyRequest, known: Known, wire: &WhyResponse) -> Self {
        Self {
            allowed: wire.allowed,
            subject: match &asked.subject {
                Some(why_request::Subject::User(user)) => user.clone(),
                Some(why_request::Subject::Token(id)) => format!("token {id}"),
                None => String::new(),
            },
            privilege: privilege_name(asked.privilege()),
            path: wire.path.clone(),
            because: wire.because.clone(),
            steps: wire.steps.iter().map(WhyStepView::from).collect(),
            grants: wire.grants.iter().map(GrantView::from).collect(),
            known: known == Known::Yes,
        }
    }
}

impl WhatIfView {
    /// As people read it before they agree: at most `rows` changes, those that take away before the others.
    #[must_use]
    pub fn losses_first(&self, rows: usize) -> Self {
        let (losses, gains): (Vec<_>, Vec<_>) =
            self.changes.iter().cloned().partition(|change| !change.lost.is_empty());
        let left_out = u64::try_from(self.changes.len().saturating_sub(rows)).unwrap_or(u64::MAX);
        let changes = losses.into_iter().chain(gains).take(rows).collect();
        Self { changes, more: self.more.saturating_add(left_out) }
    }
}

impl From<&WhyStep> for WhyStepView {
    fn from(wire: &WhyStep) -> Self {
        Self {
            path: wire.path.clone(),
            subject: wire.subject.clone(),
            effect: word(wire.effect().as_str_name(), "WHY_EFFECT_"),
            grant: wire.grant.as_ref().map(GrantView::from),
        }
    }
}

impl From<&WhatIfResponse> for WhatIfView {
    fn from(wire: &WhatIfResponse) -> Self {
        Self { changes: wire.changes.iter().map(ChangeView::from).collect(), more: wire.more }
    }
}

impl From<&PrivilegeChange> for ChangeView {
    fn from(wire: &PrivilegeChange) -> Self {
        Self {
            principal: wire.principal.clone(),
            resource: wire.resource.clone(),
            gained: privileges(&wire.gained),
            lost: privileges(&wire.lost),
        }
    }
}

impl View for WhyView {
    fn table(&self, _now_ms: i64) -> String {
        let may = if self.allowed { "has" } else { "doesn't have" };
        let (subject, path) = (shown(&self.subject), shown(&self.path));
        let mut facts = Facts::default();
        facts.fact("decision", if self.allowed { "allowed" } else { "denied" });
        facts.fact("asked", format!("{subject} {may} {} on {path}", self.privilege));
        facts.fact("because", shown(&self.because));
        if !self.known {
            facts.fact("note", nothing_known(&self.path));
        }
        if self.steps.is_empty() {
            return facts.text();
        }
        let mut table = Table::new(&["PATH", "SUBJECT", "ROLE", "EFFECT", "GRANT"]);
        for step in &self.steps {
            let grant = step.grant.as_ref();
            table.row(vec![
                shown(&step.path),
                shown(&step.subject),
                or_dash(grant.map(|grant| shown(&grant.role))),
                grant.map_or_else(|| "nothing is granted".to_owned(), |_| step.effect.replace('_', " ")),
                or_dash(grant.map(|grant| shown(&grant.id))),
            ]);
        }
        format!("{}\n{}", facts.text(), table.text())
    }
}

impl View for WhatIfView {
    fn table(&self, _now_ms: i64) -> String {
        if self.changes.is_empty() {
            return "nobody would gain or lose anything\n".to_owned();
        }
        let mut table = Table::new(&["WHO", "RESOURCE", "GAINS", "LOSES"]);
        for change in &self.changes {
            table.row(vec![
                shown(&change.principal),
                shown(&change.resource),
                list_or_dash(&change.gained),
                list_or_dash(&change.lost),
            ]);
        }
        match self.more {
            0 => table.text(),
            more => format!("{}and {more} more\n", table.text()),
        }
    }
}
