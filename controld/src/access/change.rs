//! What a change of the policy does: who gains and loses what, and whether its author has what others would gain.
//!
//! Rights are the same on all objects between two paths that grants name, and change with tags and pools. So it is enough
//! to look at the paths that are named, at something unnamed below each, and at objects with labels.

use std::collections::{BTreeMap, BTreeSet};

use super::name::GroupName;
use super::path::Path;
use super::policy::{Policy, Subject, Who};
use super::privileges::Privileges;
use super::rights::Rights;
use super::touched::Touched;

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
    check_on_paper(before, after, author, now_ms)?;
    check_effect(before, after, author, now_ms)?;
    // Whoever is disabled may be enabled, and what ends may uncover something: neither is the author's doing then.
    let (settled_before, settled_after) = (settled(before, now_ms), settled(after, now_ms));
    check_effect(&settled_before, &settled_after, author, now_ms)
}

/// Everybody counts as enabled, and what is granted and denied now as lasting.
fn settled(policy: &Policy, now_ms: i64) -> Policy {
    let mut facts = policy.facts().clone();
    facts.grants.retain(|grant| grant.is_live(now_ms));
    for grant in &mut facts.grants {
        grant.not_after_ms = None;
    }
    let named = facts.grants.iter().filter_map(|grant| match &grant.subject {
        Subject::User(user) => Some(user.clone()),
        Subject::Group(_) | Subject::Token(_) => None,
    });
    let members = facts.members.values().flatten().cloned();
    let owners = facts.tokens.values().map(|scope| scope.owner.clone());
    let all: BTreeSet<_> = named.chain(members).chain(owners).collect();
    facts.users.extend(all);
    Policy::new(facts)
}

/// What is written for somebody: by a grant of their own, or by a group's, whatever else masks or denies it now.
type Written = BTreeMap<(Subject, Option<GroupName>, Path, bool), Privileges>;

fn written(policy: &Policy) -> Written {
    let mut all = Written::new();
    for grant in policy.facts().grants.iter().filter(|grant| !grant.denies()) {
        let held = policy.facts().role(&grant.role).unwrap_or_default();
        let mut add = |subject: Subject, by: Option<GroupName>| {
            *all.entry((subject, by, grant.path.clone(), grant.propagates())).or_default() |= held;
        };
        add(grant.subject.clone(), None);
        if let Subject::Group(group) = &grant.subject {
            for member in policy.facts().members.get(group).into_iter().flatten() {
                add(Subject::User(member.clone()), Some(group.clone()));
            }
        }
    }
    all
}

/// Refuses what writes down more for somebody than the author has there, though it may not take effect yet.
fn check_on_paper(before: &Policy, after: &Policy, author: &Who, now_ms: i64) -> Result<(), Escalation> {
    let (was, is) = (written(before), written(after));
    for ((subject, by, path, below), held) in is {
        let key = (subject, by, path, below);
        let gained = held - was.get(&key).copied().unwrap_or_default();
        let (subject, _, path, below) = key;
        check_has(before, author, gained, &path, below, now_ms).map_err(|(path, missing)| Escalation {
            who: subject,
            path,
            missing,
        })?;
    }
    Ok(())
}

/// Where on `path`, and with `below` under it, `author` lacks some of `privileges`.
fn check_has(
    policy: &Policy,
    author: &Who,
    privileges: Privileges,
    path: &Path,
    below: bool,
    now_ms: i64,
) -> Result<(), (Path, Privileges)> {
    if privileges.is_empty() {
        return Ok(());
    }
    let (rights, labels) = (policy.rights(author, now_ms), policy.labels());
    let mut places = BTreeSet::from([path.clone()]);
    if below {
        places.extend(unnamed_below(path));
        places.extend(
            points(policy, policy, std::iter::once(&*rights)).into_iter().filter(|p| p.is_within(path)),
        );
        let is_in = |object: &Path| {
            let all = labels.pools(object.as_str()).iter().chain(labels.selectors(object.as_str()));
            path.as_str() == "/pools" || all.into_iter().any(|label| label == path.as_str())
        };
        places.extend(labels.objects().map(Path::of).filter(is_in));
    }
    let lacks = |place: Path| {
        let missing = privileges - rights.on(&place, labels);
        (!missing.is_empty()).then_some((place, missing))
    };
    places.into_iter().find_map(lacks).map_or(Ok(()), Err)
}

fn check_effect(before: &Policy, after: &Policy, author: &Who, now_ms: i64) -> Result<(), Escalation> {
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
    // Denied, masked or disabled: that may end while the author still holds what they sign in with.
    for (_, grant) in policy.entries(who).into_iter().filter(|(_, grant)| !grant.denies()) {
        let held = policy.facts().role(&grant.role).unwrap_or_default();
        check_has(policy, author, held, &grant.path, grant.propagates(), now_ms)
            .map_err(|(path, missing)| Escalation { who: who.clone().into(), path, missing })?;
    }
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
    let differ = |who: Who| {
        let (old, new) = (before.compile(&who, now_ms), after.compile(&who, now_ms));
        (old != new || (relabelled && new.heed_labels())).then_some((who, (old, new)))
    };
    Touched::between(before, after).people.into_iter().filter_map(differ).collect()
}

/// Groups whose grants come to something else, with what they come to for a member who has nothing else.
fn affected_groups(
    before: &Policy,
    after: &Policy,
    now_ms: i64,
) -> impl Iterator<Item = (Subject, (Rights, Rights))> {
    let relabelled = before.labels() != after.labels();
    let all: Vec<GroupName> = Touched::between(before, after).groups().cloned().collect();
    all.into_iter().filter_map(move |group| {
        let (old, new) = (before.of_group(&group, now_ms), after.of_group(&group, now_ms));
        let differ = old != new || (relabelled && new.heed_labels());
        differ.then_some((Subject::Group(group), (old, new)))
    })
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use horcrux_proto::authz::Privilege;

    use super::*;
    use crate::access::policy::{Facts, Grant};

    const NOW_MS: i64 = 1_000;

    /// mallory may grant and change users, and nothing else; bob and sleeper (who is disabled) hold nothing.
    fn facts() -> Facts {
        let meddler = [Privilege::PermissionsModify, Privilege::UserModify].into_iter().collect();
        let mut facts = Facts {
            users: ["root", "mallory", "bob"].iter().map(|u| u.parse().unwrap()).collect(),
            members: BTreeMap::from([("ops".parse().unwrap(), BTreeSet::new())]),
            roles: BTreeMap::from([("Meddler".parse().unwrap(), meddler)]),
            ..Facts::default()
        };
        grant(&mut facts, "user root", "Administrator", None);
        grant(&mut facts, "user mallory", "Meddler", None);
        facts
    }

    fn grant(facts: &mut Facts, subject: &str, role: &str, not_after_ms: Option<i64>) {
        let subject = match subject.split_once(' ').unwrap() {
            ("user", name) => Subject::User(name.parse().unwrap()),
            (_, name) => Subject::Group(name.parse().unwrap()),
        };
        facts.grants.push(Grant {
            id: facts.grants.len().to_string(),
            subject,
            role: role.parse().unwrap(),
            path: Path::root(),
            propagate: true,
            not_after_ms,
            created_ms: 0,
            created_by: String::new(),
        });
    }

    fn handed_out(before: &Facts, alter: impl FnOnce(&mut Facts)) -> Result<(), Escalation> {
        let mut after = before.clone();
        alter(&mut after);
        let mallory = Who::User("mallory".parse().unwrap());
        check_handed_out(&Policy::new(before.clone()), &Policy::new(after), &mallory, NOW_MS)
    }

    #[test]
    fn what_is_denied_for_a_while_is_handed_out_all_the_same() {
        let mut before = facts();
        grant(&mut before, "user bob", "NoAccess", Some(NOW_MS + 4000));
        assert!(handed_out(&before, |f| grant(f, "user bob", "Administrator", None)).is_err());
        assert!(handed_out(&before, |f| grant(f, "user bob", "Meddler", None)).is_ok());
    }

    #[test]
    fn what_a_denial_that_ends_would_uncover_is_not_taken_away_by_the_way() {
        let mut before = facts();
        grant(&mut before, "group ops", "Administrator", None);
        grant(&mut before, "user bob", "Meddler", None);
        before.members.get_mut(&"ops".parse().unwrap()).unwrap().insert("bob".parse().unwrap());
        let denied = |f: &mut Facts| grant(f, "user bob", "NoAccess", Some(NOW_MS + 4000));
        denied(&mut before);
        let uncovered = |f: &mut Facts| f.grants.retain(|g| g.id != "3");
        assert!(handed_out(&before, uncovered).is_ok(), "bob stays denied, for good as far as this counts");
        before.grants.pop();
        assert!(handed_out(&before, uncovered).is_err(), "bob would be an administrator by his group");
    }

    #[test]
    fn an_empty_group_and_one_whose_member_has_entries_of_their_own_are_no_way_round() {
        let before = facts();
        assert!(handed_out(&before, |f| grant(f, "group ops", "Administrator", None)).is_err());
        let mut granted = before;
        grant(&mut granted, "group ops", "Administrator", None);
        let join = |who: &'static str| {
            move |f: &mut Facts| {
                f.members.get_mut(&"ops".parse().unwrap()).unwrap().insert(who.parse().unwrap());
            }
        };
        assert!(handed_out(&granted, join("mallory")).is_err(), "her own entry masks it");
        assert!(handed_out(&granted, join("sleeper")).is_err(), "who is disabled may be enabled");
    }

    #[test]
    fn who_is_disabled_is_covered_by_nobody_who_has_less() {
        let mut before = facts();
        grant(&mut before, "user root2", "Administrator", None);
        let policy = Policy::new(before);
        let who = |name: &str| Who::User(name.parse().unwrap());
        assert!(check_covers(&policy, &who("mallory"), &who("root2"), NOW_MS).is_err());
        assert!(check_covers(&policy, &who("mallory"), &who("bob"), NOW_MS).is_ok());
        assert!(check_covers(&policy, &who("root"), &who("root2"), NOW_MS).is_ok());
    }
}
