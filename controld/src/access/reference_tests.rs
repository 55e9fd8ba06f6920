//! The evaluator against a second, plain reading of the rules, and against the laws that follow from them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use horcrux_proto::authz::Privilege;
use horcrux_proto::name::Resource;

use super::explain;
use super::name::{GroupName, RoleName, UserId};
use super::path::Path;
use super::policy::{Facts, Grant, Policy, Subject, TokenScope, Who};
use super::privileges::Privileges;
use super::rights::{Labels, Sight};
use super::touched::Touched;

/// Sets of facts; of each 48 decisions are compared.
const SETS: u32 = 4_000;
const NOW_MS: i64 = 1_000_000;
const PATHS: [&str; 16] = [
    "/",
    "/vms",
    "/vms/00000000-0000-4000-8000-000000000001",
    "/vms/00000000-0000-4000-8000-000000000002",
    "/vms?tag=qa",
    "/vms?tag=prod",
    "/containers",
    "/containers/web1",
    "/containers/web1/c1",
    "/containers?tag=qa",
    "/nodes",
    "/nodes/web1",
    "/pools",
    "/pools/ci",
    "/pools/db",
    "/access",
];
const ROLES: [&str; 6] = ["Administrator", "VmUser", "Auditor", "NoAccess", "StorageAdmin", "Custom"];
const USERS: [&str; 2] = ["alice@local", "bob@local"];
const GROUPS: [&str; 2] = ["ops", "dev"];
const ASKED: [Privilege; 4] =
    [Privilege::VmAudit, Privilege::VmConsole, Privilege::PoolAllocate, Privilege::UserModify];

/// A small generator, so that a failure names the seed that brings it back.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

fn user(text: &str) -> UserId {
    text.parse().unwrap()
}

fn grant(dice: &mut Dice, number: usize) -> Grant {
    let subject = match dice.below(5) {
        0 | 1 => Subject::User(user(dice.one_of(&USERS))),
        2 | 3 => Subject::Group(dice.one_of(&GROUPS).parse().unwrap()),
        _ => Subject::Token("t1".into()),
    };
    Grant {
        id: format!("g{number}"),
        subject,
        role: dice.one_of(&ROLES).parse().unwrap(),
        path: path(dice.one_of(&PATHS)),
        propagate: !dice.once_in(3),
        not_after_ms: dice.once_in(8).then(|| NOW_MS - 1 + i64::try_from(dice.below(3)).unwrap()),
        created_ms: 0,
        created_by: String::new(),
    }
}

fn labels(dice: &mut Dice) -> Labels {
    let objects: Vec<Resource> = PATHS.iter().filter_map(|p| path(p).resource()).collect();
    let (mut tags, mut pools) = (BTreeMap::new(), BTreeMap::new());
    for object in objects.iter().filter(|o| !matches!(o, Resource::Pool(_))) {
        let some = |dice: &mut Dice, all: [&str; 2]| -> Vec<String> {
            all.iter().filter(|_| dice.once_in(3)).map(|&s| s.to_owned()).collect()
        };
        let tagged: BTreeSet<_> = some(dice, ["qa", "prod"]).iter().map(|t| t.parse().unwrap()).collect();
        let pooled: BTreeSet<_> = some(dice, ["ci", "db"]).iter().map(|p| p.parse().unwrap()).collect();
        tags.insert(object.clone(), tagged);
        pools.insert(object.clone(), pooled);
    }
    Labels::new(tags, pools)
}

fn facts(dice: &mut Dice) -> Facts {
    let mut members: BTreeMap<GroupName, BTreeSet<UserId>> = BTreeMap::new();
    for group in GROUPS {
        let some = USERS.iter().filter(|_| dice.once_in(2)).map(|u| user(u)).collect();
        members.insert(group.parse().unwrap(), some);
    }
    let count = dice.below(7);
    let custom: RoleName = "Custom".parse().unwrap();
    Facts {
        users: USERS.iter().filter(|_| !dice.once_in(12)).map(|u| user(u)).collect(),
        members,
        roles: BTreeMap::from([(custom, [Privilege::VmAudit, Privilege::UserModify].into_iter().collect())]),
        grants: (0..count).map(|number| grant(dice, number)).collect(),
        tokens: BTreeMap::from([(
            "t1".into(),
            TokenScope { owner: user(dice.one_of(&USERS)), full: dice.once_in(4) },
        )]),
        labels: Arc::new(labels(dice)),
    }
}

/// The rules, read once more: sets and loops, nothing prepared, nothing shared with the evaluator but the facts.
mod model {
    use super::*;

    pub(super) fn on(facts: &Facts, who: &Who, object: &str) -> Privileges {
        match who {
            Who::User(user) => of_user(facts, user, object),
            Who::Token(id) => {
                let scope = &facts.tokens[id];
                let owner = of_user(facts, &scope.owner, object);
                if scope.full {
                    return owner;
                }
                let own = if facts.users.contains(&scope.owner) {
                    lines(facts, &|s| (*s == Subject::Token(id.clone())).then_some(true), object)
                } else {
                    Privileges::NONE
                };
                own & owner
            }
        }
    }

    fn of_user(facts: &Facts, user: &UserId, object: &str) -> Privileges {
        if !facts.users.contains(user) {
            return Privileges::NONE;
        }
        let mine = |subject: &Subject| match subject {
            Subject::User(of) => (of == user).then_some(true),
            Subject::Group(group) => facts.members[group].contains(user).then_some(false),
            Subject::Token(_) => None,
        };
        lines(facts, &mine, object)
    }

    /// `mine`: is this subject the principal itself (true), a group of its (false), or neither?
    fn lines(facts: &Facts, mine: &dyn Fn(&Subject) -> Option<bool>, object: &str) -> Privileges {
        let resource = path(object).resource();
        let none = BTreeSet::new();
        let tags = resource.as_ref().and_then(|r| facts.labels.tags.get(r)).unwrap_or(&none);
        let no_pools = BTreeSet::new();
        let pools = resource.as_ref().and_then(|r| facts.labels.pools.get(r)).unwrap_or(&no_pools);
        let collection = object.split('/').nth(1).unwrap_or_default();

        let mut direct: Vec<(Vec<String>, bool)> = Vec::new();
        for end in 0..object.len() {
            if object.as_bytes()[end] == b'/' && object != "/" {
                direct.push((vec![if end == 0 { "/".to_owned() } else { object[..end].to_owned() }], false));
            } else if object.as_bytes()[end] == b'?' {
                direct.push((vec![object[..end].to_owned()], false));
            }
        }
        direct.push((tags.iter().map(|tag| format!("/{collection}?tag={tag}")).collect(), true));
        direct.push((vec![object.to_owned()], true));

        let (mut all, mut denied) = line(facts, mine, &direct);
        for pool in pools {
            let levels = [(vec!["/pools".to_owned()], false), (vec![format!("/pools/{pool}")], false)];
            let (more, no) = line(facts, mine, &levels);
            all |= more;
            denied |= no;
        }
        if denied { Privileges::NONE } else { all }
    }

    fn line(
        facts: &Facts,
        mine: &dyn Fn(&Subject) -> Option<bool>,
        levels: &[(Vec<String>, bool)],
    ) -> (Privileges, bool) {
        let (mut now, mut denied) = (Privileges::NONE, false);
        for (paths, is_object) in levels {
            let mut here = Privileges::NONE;
            let mut any = false;
            for at in paths {
                let entries: Vec<(bool, &Grant)> = facts
                    .grants
                    .iter()
                    .filter(|g| g.path.as_str() == at && g.not_after_ms.is_none_or(|end| end > NOW_MS))
                    .filter_map(|g| Some((mine(&g.subject)?, g)))
                    .collect();
                any |= !entries.is_empty();
                let own_exists = entries.iter().any(|(own, _)| *own);
                let own_allows = entries.iter().any(|(own, g)| *own && g.role.as_str() != "NoAccess");
                for (own, g) in entries {
                    let reaches = *is_object || g.propagate || at.contains('?');
                    if g.role.as_str() == "NoAccess" {
                        denied |= reaches && (own || !own_allows);
                    } else if reaches && (own || !own_exists) {
                        here |= facts.role(&g.role).unwrap();
                    }
                }
            }
            if any {
                now = here;
            }
        }
        (now, denied)
    }
}

fn everybody() -> Vec<Who> {
    let users = USERS.iter().map(|u| Who::User(user(u)));
    users.chain([Who::Token("t1".into())]).collect()
}

/// Decisions that are compared: each set of facts is asked about everybody on every path.
fn cases() -> usize {
    SETS as usize * everybody().len() * PATHS.len()
}

fn decisions(policy: &Policy, all: &[Path]) -> Vec<Privileges> {
    let rights = everybody().into_iter().map(|who| policy.rights(&who, NOW_MS));
    rights.flat_map(|r| all.iter().map(move |at| r.on(at, policy.labels())).collect::<Vec<_>>()).collect()
}

#[test]
fn the_evaluator_equals_the_reference_model() {
    assert!(cases() >= 100_000);
    let all: Vec<Path> = PATHS.iter().map(|p| path(p)).collect();
    for seed in 0..SETS {
        let mut dice = Dice(u64::from(seed));
        let facts = facts(&mut dice);
        let policy = Policy::new(facts.clone());
        for who in everybody() {
            let asked = ASKED[dice.below(ASKED.len())];
            for at in &all {
                let held = policy.rights(&who, NOW_MS).on(at, policy.labels());
                let case = || format!("seed {seed}: {who} on {at}\n{facts:#?}");
                assert_eq!(held, model::on(&facts, &who, at.as_str()), "{}", case());
                assert_eq!(
                    policy.compile(&who, NOW_MS).on(at, policy.labels()),
                    held,
                    "uncached, {}",
                    case()
                );
                let collection = at.above().nth(1).unwrap_or(at.as_str());
                if at.selector().is_none() && collection != at.as_str() {
                    match policy.rights(&who, NOW_MS).sight(asked, collection) {
                        Sight::All => assert!(held.has(asked), "not all are seen, {}", case()),
                        Sight::Nothing => assert!(!held.has(asked), "something is seen, {}", case()),
                        Sight::Each => {}
                    }
                }
            }
            let at = &all[dice.below(all.len())];
            let held = policy.rights(&who, NOW_MS).on(at, policy.labels());
            let why = explain::why(&policy, &who, asked, at, NOW_MS);
            assert_eq!(why.allowed, held.has(asked), "seed {seed}: {who} on {at}: {why:#?}\n{facts:#?}");
        }
    }
}

#[test]
fn the_laws_hold() {
    let all: Vec<Path> = PATHS.iter().map(|p| path(p)).collect();
    for seed in 0..SETS {
        let mut dice = Dice(u64::from(seed));
        let facts = facts(&mut dice);
        let held = decisions(&Policy::new(facts.clone()), &all);
        let owner = Who::User(facts.tokens["t1"].owner.clone());
        let at_most = everybody().iter().position(|who| *who == owner).unwrap() * all.len();
        for (n, held_by_token) in held[2 * all.len()..].iter().enumerate() {
            assert!(
                held[at_most + n].contains(*held_by_token),
                "seed {seed}: a token exceeds its owner\n{facts:#?}"
            );
        }

        let mut turned = facts.clone();
        turned.grants.reverse();
        assert_eq!(decisions(&Policy::new(turned), &all), held, "seed {seed}: order matters\n{facts:#?}");

        let mut denied = facts.clone();
        denied.grants.push(Grant { role: "NoAccess".parse().unwrap(), ..grant(&mut dice, 99) });
        let less = decisions(&Policy::new(denied.clone()), &all);
        let adds = held.iter().zip(&less).any(|(held, less)| !held.contains(*less));
        assert!(!adds, "seed {seed}: a denial adds\n{denied:#?}");

        let allowing: Vec<usize> = (0..facts.grants.len()).filter(|&n| !facts.grants[n].denies()).collect();
        if !allowing.is_empty() {
            let mut narrowed = facts.clone();
            narrowed.grants[allowing[dice.below(allowing.len())]].propagate = false;
            let less = decisions(&Policy::new(narrowed), &all);
            let adds = held.iter().zip(&less).any(|(held, less)| !held.contains(*less));
            assert!(!adds, "seed {seed}: without propagate there is more\n{facts:#?}");
        }
    }
}

/// One change of the facts, of any kind.
fn altered(facts: &Facts, dice: &mut Dice) -> Facts {
    let mut other = facts.clone();
    let group = dice.one_of(&GROUPS).parse::<GroupName>().unwrap();
    let someone = user(dice.one_of(&USERS));
    match dice.below(7) {
        0 => other.grants.push(grant(dice, 99)),
        1 if !other.grants.is_empty() => {
            let at = dice.below(other.grants.len());
            other.grants.remove(at);
        }
        1 => {}
        2 => other.roles = BTreeMap::from([("Custom".parse().unwrap(), Privileges::all())]),
        3 => {
            let members = other.members.get_mut(&group).unwrap();
            if !members.remove(&someone) {
                members.insert(someone);
            }
        }
        4 => {
            if !other.users.remove(&someone) {
                other.users.insert(someone);
            }
        }
        5 => {
            let full = dice.once_in(2);
            other.tokens = BTreeMap::from([("t1".into(), TokenScope { owner: someone, full })]);
        }
        _ => other.labels = Arc::new(labels(dice)),
    }
    other
}

#[test]
fn nobody_is_affected_by_a_change_whom_it_does_not_touch() {
    let all: Vec<Path> = PATHS.iter().map(|p| path(p)).collect();
    let mut spared = 0;
    for seed in 0..SETS {
        let mut dice = Dice(u64::from(seed));
        let facts = facts(&mut dice);
        let other = altered(&facts, &mut dice);
        let (before, after) = (Policy::new(facts), Policy::new(other));
        let touched = Touched::between(&before, &after);
        let (had, has) = (decisions(&before, &all), decisions(&after, &all));
        for (n, who) in everybody().iter().enumerate() {
            let at = n * all.len()..(n + 1) * all.len();
            let is_touched = touched.people.contains(who);
            assert!(is_touched || had[at.clone()] == has[at], "seed {seed}: {who}\n{before:#?}\n{after:#?}");
            spared += usize::from(!is_touched);
        }
        for group in GROUPS.map(|group| group.parse::<GroupName>().unwrap()) {
            let is_touched = touched.groups().any(|touched| *touched == group);
            let (old, new) = (before.of_group(&group, NOW_MS), after.of_group(&group, NOW_MS));
            let on = |rights: &crate::access::rights::Rights, policy: &Policy| -> Vec<Privileges> {
                all.iter().map(|path| rights.on(path, policy.labels())).collect()
            };
            assert!(is_touched || on(&old, &before) == on(&new, &after), "seed {seed}: {group}");
        }
    }
    assert!(spared > SETS as usize, "most changes are about few: {spared}");
}
