//! What a change of the policy does: who gains and loses what, and whether its author has what others would gain.
//!
//! Rights are the same on all objects between two paths that grants name, and change with tags and pools. So it is enough
//! to look at the paths that are named, at something unnamed below each, and at objects with labels.

use std::collections::{BTreeMap, BTreeSet};

use super::path::Path;
use super::policy::{Policy, Subject, Who};
use super::privileges::Privileges;
use super::rights::Rights;

/// What one principal gains and loses on one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub who: Who,
    pub path: Path,
    pub gained: Privileges,
    pub lost: Privileges,
}

/// A change that would give somebody what its author lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this would give {who} {missing} on {path}, which you do not have there yourself")]
pub struct Escalation {
    pub who: Subject,
    pub path: Path,
    pub missing: Privileges,
}

/// Refuses a change by which anyone would gain a privilege that `author` lacks on the same path; a group too, by itself: who
/// will be in it is not known, and those of a realm come without anybody's change.
pub fn check_handed_out(
    before: &Policy,
    after: &Policy,
    author: &Who,
    now_ms: i64,
) -> Result<(), Escalation> {
    let authors = before.rights(author, now_ms);
    let people =
        affected(before, after, now_ms).into_iter().map(|(who, rights)| (Subject::from(who), rights));
    let affected: Vec<(Subject, (Rights, Rights))> =
        people.chain(affected_groups(before, after, now_ms)).collect();
    let rights = affected.iter().flat_map(|(_, (old, new))| [old, new]).chain([&*authors]);
    let points = points(before, after, rights);
    for (who, (old, new)) in &affected {
        for path in &points {
            let gained = new.on(path, after.labels()) - old.on(path, before.labels());
            if gained.is_empty() {
                continue;
            }
            let missing = gained - authors.on(path, before.labels());
            if !missing.is_empty() {
                return Err(Escalation { who: who.clone(), path: path.clone(), missing });
            }
        }
    }
    Ok(())
}

/// Refuses where `who` may do something that `author` may not: `author` is about to get hold of what `who` signs in with.
pub fn check_covers(policy: &Policy, author: &Who, who: &Who, now_ms: i64) -> Result<(), Escalation> {
    let (authors, theirs) = (policy.rights(author, now_ms), policy.compile(who, now_ms));
    for path in points(policy, policy, [&*authors, &theirs].into_iter()) {
        let missing = theirs.on(&path, policy.labels()) - authors.on(&path, policy.labels());
        if !missing.is_empty() {
            return Err(Escalation { who: who.clone().into(), path, missing });
        }
    }
    Ok(())
}

/// Who gains and loses what on `objects` and on the paths that grants name.
#[must_use]
pub fn changes(before: &Policy, after: &Policy, objects: &[Path], now_ms: i64) -> Vec<Change> {
    let affected = affected(before, after, now_ms);
    let mut points: BTreeSet<Path> = objects.iter().cloned().collect();
    for rights in affected.values().flat_map(|(old, new)| [old, new]) {
        points.extend(named(rights));
    }
    let mut changes = Vec::new();
    for (who, (old, new)) in &affected {
        for path in &points {
            let (had, has) = (old.on(path, before.labels()), new.on(path, after.labels()));
            if had != has {
                let (gained, lost) = (has - had, had - has);
                changes.push(Change { who: who.clone(), path: path.clone(), gained, lost });
            }
        }
    }
    changes
}

/// Those whose rights differ, with what they were and will be.
fn affected(before: &Policy, after: &Policy, now_ms: i64) -> BTreeMap<Who, (Rights, Rights)> {
    let relabelled = before.labels() != after.labels();
    let all = everybody(before).chain(everybody(after)).collect::<BTreeSet<_>>();
    let differ = |who: Who| {
        let (old, new) = (before.compile(&who, now_ms), after.compile(&who, now_ms));
        (old != new || (relabelled && new.heed_labels())).then_some((who, (old, new)))
    };
    all.into_iter().filter_map(differ).collect()
}

/// Groups whose grants come to something else, with what they come to for a member who has nothing else.
fn affected_groups(
    before: &Policy,
    after: &Policy,
    now_ms: i64,
) -> impl Iterator<Item = (Subject, (Rights, Rights))> {
    let relabelled = before.labels() != after.labels();
    let all: BTreeSet<_> =
        [before, after].into_iter().flat_map(|policy| policy.facts().members.keys().cloned()).collect();
    all.into_iter().filter_map(move |group| {
        let (old, new) = (before.of_group(&group, now_ms), after.of_group(&group, now_ms));
        let differ = old != new || (relabelled && new.heed_labels());
        differ.then_some((Subject::Group(group), (old, new)))
    })
}

fn everybody(policy: &Policy) -> impl Iterator<Item = Who> {
    let users = policy.facts().users.iter().cloned().map(Who::User);
    users.chain(policy.facts().tokens.keys().cloned().map(Who::Token))
}

fn points<'a>(before: &Policy, after: &Policy, all: impl Iterator<Item = &'a Rights>) -> BTreeSet<Path> {
    let mut points = BTreeSet::from([Path::root()]);
    let mut heed_labels = false;
    for rights in all {
        heed_labels |= rights.heed_labels();
        points.extend(named(rights));
    }
    let below: Vec<Path> = points.iter().flat_map(unnamed_below).collect();
    points.extend(below);
    if heed_labels {
        let labelled = [before, after].into_iter().flat_map(|policy| policy.labels().objects());
        points.extend(labelled.map(Path::of));
    }
    points
}

/// Paths that these rights name.
fn named(rights: &Rights) -> Vec<Path> {
    let mut all: Vec<Path> = rights.levels().filter_map(|(path, _)| path.parse().ok()).collect();
    if let Some(owner) = rights.owner() {
        all.extend(named(owner));
    }
    all
}

/// Something below `path` that nobody names.
fn unnamed_below(path: &Path) -> Vec<Path> {
    let vm = "/vms/00000000-0000-0000-0000-000000000000";
    let all: &[&str] = match path.as_str() {
        "/" => &["/nodes/0", vm, "/containers/0/0", "/storage/0/0", "/networks/0/0", "/pools/0", "/access"],
        "/nodes" => &["/nodes/0"],
        "/vms" => &[vm],
        "/containers" => &["/containers/0/0"],
        "/storage" => &["/storage/0/0"],
        "/networks" => &["/networks/0/0"],
        "/pools" => &["/pools/0"],
        other => {
            let under = |of: &str| other.strip_prefix(of).is_some_and(|rest| !rest.contains('/'));
            let has_children = ["/containers/", "/storage/", "/networks/"].into_iter().any(under);
            return if has_children {
                format!("{other}/0").parse().into_iter().collect()
            } else {
                Vec::new()
            };
        }
    };
    all.iter().filter_map(|text| text.parse().ok()).collect()
}
