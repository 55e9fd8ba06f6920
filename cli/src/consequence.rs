//! What else a change does: who gains and loses what by a grant, and which grants go with what is deleted. Told before it
//! is done, as talk; whoever may not read grants is told that.

use horcrux_proto::authz::Privilege;
use horcrux_proto::v1::{Grant, WhatIfRequest, grant};

use crate::failure::Failure;
use crate::grants::{all_grants, would_change};
use crate::held::holds;
use crate::session::Session;
use crate::view::View as _;
use crate::view::grant::{GrantListView, GrantView};
use crate::view::why::WhatIfView;

/// Rows that a person reads before they answer a question.
const ROWS: usize = 20;

/// Whose grants go, or on what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Going<'a> {
    /// By their identity. What their tokens have goes too, and was no more than they had.
    User(&'a str),
    Group(&'a str),
    Pool(&'a str),
    Node(&'a str),
}

/// What a change of grants would do.
#[derive(Clone, Debug, PartialEq)]
pub enum Outlook {
    Known(WhatIfView),
    /// The caller may not read grants.
    Hidden,
}

impl Outlook {
    /// Somebody would lose something, as far as it is known. Changes that are not listed count as losses.
    #[must_use]
    pub fn takes_away(&self) -> bool {
        match self {
            Self::Known(view) => view.more > 0 || view.changes.iter().any(|change| !change.lost.is_empty()),
            Self::Hidden => false,
        }
    }

    /// For people, losses first. `now_ms` is what ages are counted from.
    #[must_use]
    pub fn told(&self, now_ms: i64) -> String {
        match self {
            Self::Known(view) => view.losses_first(ROWS).table(now_ms).trim_end().to_owned(),
            Self::Hidden => {
                "who gains and loses what is not yours to see: that needs SysAudit on /access".to_owned()
            }
        }
    }
}

/// Asks only where the answer would not be a refusal, which goes on record.
pub async fn outlook(session: &Session, request: WhatIfRequest) -> Result<Outlook, Failure> {
    if !holds(session, Privilege::SysAudit, "/access").await? {
        return Ok(Outlook::Hidden);
    }
    would_change(session, request).await.map(Outlook::Known)
}

/// Which grants go with something, for people; empty where none do.
pub async fn grants_that_go(session: &Session, going: &Going<'_>, now_ms: i64) -> Result<String, Failure> {
    if !holds(session, Privilege::SysAudit, "/access").await? {
        return Ok("which grants go with it is not yours to see: that needs SysAudit on /access".to_owned());
    }
    let all = all_grants(session).await?;
    let gone: Vec<GrantView> = all.iter().filter(|grant| going.takes(grant)).map(GrantView::from).collect();
    let heading = match gone.len() {
        0 => return Ok("no grant goes with it".to_owned()),
        1 => "a grant goes with it:".to_owned(),
        count => format!("{count} grants go with it:"),
    };
    let more = gone.len().saturating_sub(ROWS);
    let table = GrantListView(gone.into_iter().take(ROWS).collect()).table(now_ms);
    let rest = if more == 0 { String::new() } else { format!("\nand {more} more") };
    Ok(format!("{heading}\n{}{rest}", table.trim_end()))
}

impl Going<'_> {
    fn takes(&self, grant: &Grant) -> bool {
        match (self, &grant.subject) {
            (Self::User(user), Some(grant::Subject::User(of))) => of == user,
            (Self::Group(group), Some(grant::Subject::Group(of))) => of == group,
            (Self::Pool(pool), _) => grant.path.strip_prefix("/pools/") == Some(pool),
            (Self::Node(node), _) => is_of_node(&grant.path, node),
            (Self::User(_) | Self::Group(_), _) => false,
        }
    }
}

/// On the node, or on what is below its name in another collection.
fn is_of_node(path: &str, node: &str) -> bool {
    ["/nodes/", "/containers/", "/storage/", "/networks/"].iter().any(|collection| {
        let below = path.strip_prefix(collection).and_then(|rest| rest.strip_prefix(node));
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::why::ChangeView;

    fn change(principal: &str, lost: &[&str]) -> ChangeView {
        ChangeView {
            principal: principal.to_owned(),
            resource: "/vms".to_owned(),
            gained: vec!["VmAudit".to_owned()],
            lost: lost.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn losses_are_told_first_and_what_is_not_listed_may_be_one() {
        let view = |changes, more| Outlook::Known(WhatIfView { changes, more });
        assert!(!view(vec![change("a", &[])], 0).takes_away());
        assert!(view(vec![change("a", &[])], 1).takes_away());
        let mut changes: Vec<ChangeView> = (0..30).map(|_| change("gains@local", &[])).collect();
        changes.push(change("loses@local", &["VmConsole"]));
        let outlook = view(changes, 0);
        assert!(outlook.takes_away());
        let told = outlook.told(0);
        let rows: Vec<&str> = told.lines().collect();
        assert!(rows[1].starts_with("loses@local") && rows[1].contains("VmConsole"), "{told}");
        assert_eq!((rows.len(), rows.last()), (ROWS + 2, Some(&"and 11 more")));
        assert!(!Outlook::Hidden.takes_away());
    }

    #[test]
    fn what_is_granted_on_a_node_goes_with_it() {
        for path in ["/nodes/web1", "/containers/web1", "/containers/web1/3f2a", "/storage/web1/a"] {
            assert!(is_of_node(path, "web1"), "{path}");
        }
        for path in ["/", "/nodes", "/nodes/web10", "/vms/web1", "/nodes?tag=web1", "/pools/web1"] {
            assert!(!is_of_node(path, "web1"), "{path}");
        }
    }
}
