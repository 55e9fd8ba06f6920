//! All that a decision rests on, as it is at one moment. It is never changed: a change makes a new one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::name::{GroupName, RoleName, UserId};
use super::path::Path;
use super::privileges::{NO_ACCESS, Privileges, built_in};
use super::rights::{Labels, Level, Rights};

/// Whom a grant is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    User(UserId),
    Group(GroupName),
    Token(Box<str>),
}

/// Who can be asked about: somebody who calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    User(UserId),
    Token(Box<str>),
}

/// A role for somebody on a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub id: String,
    pub subject: Subject,
    pub role: RoleName,
    pub path: Path,
    /// Holds below the path too.
    pub propagate: bool,
    /// Worth nothing from then on.
    pub not_after_ms: Option<i64>,
    pub created_ms: i64,
    pub created_by: String,
}

/// What an API token may do at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenScope {
    pub owner: UserId,
    /// All that its owner may.
    pub full: bool,
}

/// What is on record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Those who are not disabled.
    pub users: BTreeSet<UserId>,
    pub members: BTreeMap<GroupName, BTreeSet<UserId>>,
    /// Custom ones.
    pub roles: BTreeMap<RoleName, Privileges>,
    pub grants: Vec<Grant>,
    pub tokens: BTreeMap<Box<str>, TokenScope>,
    pub labels: Arc<Labels>,
}

/// Facts, in the form in which they are asked.
#[derive(Debug)]
pub struct Policy {
    facts: Facts,
    by_subject: HashMap<Subject, Vec<usize>>,
    groups_of: HashMap<UserId, Vec<GroupName>>,
    /// What was asked before, with the time until which it is good.
    compiled: Mutex<HashMap<Who, (i64, Arc<Rights>)>>,
}

/// Whose entry it is, at a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    Own,
    ByGroup,
}

impl From<Who> for Subject {
    fn from(who: Who) -> Self {
        match who {
            Who::User(user) => Self::User(user),
            Who::Token(id) => Self::Token(id),
        }
    }
}

impl Grant {
    #[must_use]
    pub fn is_live(&self, now_ms: i64) -> bool {
        self.not_after_ms.is_none_or(|end| now_ms < end)
    }

    #[must_use]
    pub fn denies(&self) -> bool {
        self.role.as_str() == NO_ACCESS
    }

    /// A selector's grant is for what it picks, and has nothing below.
    #[must_use]
    pub fn propagates(&self) -> bool {
        self.propagate || self.path.selector().is_some()
    }
}

impl Facts {
    #[must_use]
    pub fn role(&self, name: &RoleName) -> Option<Privileges> {
        built_in().get(name.as_str()).copied().or_else(|| self.roles.get(name).copied())
    }
}

impl Policy {
    #[must_use]
    pub fn new(facts: Facts) -> Self {
        let mut by_subject: HashMap<Subject, Vec<usize>> = HashMap::new();
        for (at, grant) in facts.grants.iter().enumerate() {
            by_subject.entry(grant.subject.clone()).or_default().push(at);
        }
        let mut groups_of: HashMap<UserId, Vec<GroupName>> = HashMap::new();
        for (group, members) in &facts.members {
            for member in members {
                groups_of.entry(member.clone()).or_default().push(group.clone());
            }
        }
        Self { facts, by_subject, groups_of, compiled: Mutex::default() }
    }

    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    #[must_use]
    pub fn labels(&self) -> &Arc<Labels> {
        &self.facts.labels
    }

    /// Groups that a user is in.
    #[must_use]
    pub fn groups(&self, user: &UserId) -> &[GroupName] {
        self.groups_of.get(user).map_or(&[], Vec::as_slice)
    }

    pub fn grants_of<'a>(&'a self, subject: &Subject) -> impl Iterator<Item = &'a Grant> + use<'a> {
        let indexes = self.by_subject.get(subject).map_or(&[][..], Vec::as_slice);
        indexes.iter().map(|&at| &self.facts.grants[at])
    }

    /// When the next grant ends.
    #[must_use]
    pub fn next_end(&self, now_ms: i64) -> Option<i64> {
        self.facts.grants.iter().filter_map(|g| g.not_after_ms).filter(|&end| end > now_ms).min()
    }

    /// What `who` may do where. Nobody who is unknown or disabled may do anything, nor a token of theirs.
    #[must_use]
    pub fn rights(&self, who: &Who, now_ms: i64) -> Arc<Rights> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((until, rights)) = compiled.get(who)
            && now_ms < *until
        {
            return Arc::clone(rights);
        }
        let rights = Arc::new(self.compile(who, now_ms));
        let until = self.next_end(now_ms).unwrap_or(i64::MAX);
        compiled.insert(who.clone(), (until, Arc::clone(&rights)));
        rights
    }

    /// As [`Policy::rights`], and remembers nothing.
    #[must_use]
    pub fn compile(&self, who: &Who, now_ms: i64) -> Rights {
        match who {
            Who::User(user) => Rights::new(self.levels(who, user, now_ms)),
            Who::Token(id) => {
                let Some(scope) = self.facts.tokens.get(id) else { return Rights::default() };
                let owner = self.compile(&Who::User(scope.owner.clone()), now_ms);
                if scope.full {
                    return owner;
                }
                Rights::new(self.levels(who, &scope.owner, now_ms)).bounded_by(Arc::new(owner))
            }
        }
    }

    /// What a group's grants come to for a member who has nothing else.
    #[must_use]
    pub fn of_group(&self, group: &GroupName, now_ms: i64) -> Rights {
        let grants = self.grants_of(&Subject::Group(group.clone()));
        Rights::new(self.by_level(grants.map(|grant| (Held::ByGroup, grant)), now_ms))
    }

    /// The grants that concern `who`, live or not, with how they are held.
    #[must_use]
    pub fn entries(&self, who: &Who) -> Vec<(Held, &Grant)> {
        let own = match who {
            Who::User(user) => Subject::User(user.clone()),
            Who::Token(id) => Subject::Token(id.clone()),
        };
        let groups = match who {
            Who::User(user) => self.groups(user),
            Who::Token(_) => &[],
        };
        let by_group = groups.iter().flat_map(|g| self.grants_of(&Subject::Group(g.clone())));
        let own = self.grants_of(&own).map(|grant| (Held::Own, grant));
        own.chain(by_group.map(|grant| (Held::ByGroup, grant))).collect()
    }

    fn levels(&self, who: &Who, user: &UserId, now_ms: i64) -> BTreeMap<Box<str>, Level> {
        if !self.facts.users.contains(user) {
            return BTreeMap::new();
        }
        self.by_level(self.entries(who).into_iter(), now_ms)
    }

    fn by_level<'a>(
        &self,
        entries: impl Iterator<Item = (Held, &'a Grant)>,
        now_ms: i64,
    ) -> BTreeMap<Box<str>, Level> {
        let mut by_path: BTreeMap<Box<str>, Vec<(Held, &Grant)>> = BTreeMap::new();
        for (held, grant) in entries.filter(|(_, grant)| grant.is_live(now_ms)) {
            by_path.entry(grant.path.as_str().into()).or_default().push((held, grant));
        }
        by_path.into_iter().map(|(path, entries)| (path, self.level(&entries))).collect()
    }

    /// Own entries stand in place of groups'; a group's denial yields to an own entry that allows, never to an own denial.
    fn level(&self, entries: &[(Held, &Grant)]) -> Level {
        let has_own = entries.iter().any(|(held, _)| *held == Held::Own);
        let own_allows = entries.iter().any(|(held, grant)| *held == Held::Own && !grant.denies());
        let mut level = Level::default();
        for (held, grant) in entries {
            if grant.denies() && (*held == Held::Own || !own_allows) {
                level.denied_here = true;
                level.denied_below |= grant.propagates();
            }
            if *held == Held::Own || !has_own {
                let privileges = self.facts.role(&grant.role).unwrap_or_default();
                level.here |= privileges;
                if grant.propagates() {
                    level.below |= privileges;
                }
            }
        }
        level
    }
}
