//! Whose rights a change may touch. A change is about few, and there may be many people: only these are compared, before
//! and after. It may name somebody whose rights come to the same.

use std::collections::BTreeSet;

use super::name::{GroupName, RoleName, UserId};
use super::path::Path;
use super::policy::{Grant, Policy, Subject, Who};

#[derive(Debug, Default)]
pub(super) struct Touched {
    /// With a grant of their own that is another, or comes to something else.
    subjects: BTreeSet<Subject>,
    pub(super) people: BTreeSet<Who>,
}

impl Touched {
    pub(super) fn between(before: &Policy, after: &Policy) -> Self {
        let (was, is) = (before.facts(), after.facts());
        let names = was.roles.keys().chain(is.roles.keys());
        let roles: BTreeSet<&RoleName> = names.filter(|name| was.role(name) != is.role(name)).collect();
        let relabelled = was.labels != is.labels;
        let differs =
            |grant: &Grant| roles.contains(&grant.role) || (relabelled && heeds_labels(&grant.path));
        let all = was.grants.iter().chain(&is.grants).map(|grant| &grant.subject);
        let all: BTreeSet<&Subject> = all.collect();
        let other = |subject: &&&Subject| {
            let (mut old, mut new) = (before.grants_of(subject), after.grants_of(subject));
            !old.by_ref().eq(new.by_ref()) || after.grants_of(subject).any(differs)
        };
        let subjects = all.iter().filter(other).map(|subject| (*subject).clone()).collect();
        let mut touched = Self { subjects, people: BTreeSet::new() };
        touched.add_users(before, after);
        touched.add_tokens(before, after);
        touched
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = &GroupName> {
        self.subjects.iter().filter_map(|subject| match subject {
            Subject::Group(group) => Some(group),
            Subject::User(_) | Subject::Token(_) => None,
        })
    }

    fn add_users(&mut self, before: &Policy, after: &Policy) {
        let (was, is) = (before.facts(), after.facts());
        let mut users: BTreeSet<&UserId> = was.users.symmetric_difference(&is.users).collect();
        let nobody = BTreeSet::new();
        for group in was.members.keys().chain(is.members.keys()) {
            let old = was.members.get(group).unwrap_or(&nobody);
            let new = is.members.get(group).unwrap_or(&nobody);
            if self.subjects.contains(&Subject::Group(group.clone())) {
                users.extend(old.union(new));
            } else if old != new {
                users.extend(old.symmetric_difference(new));
            }
        }
        let own = self.subjects.iter().filter_map(|subject| match subject {
            Subject::User(user) => Some(user),
            Subject::Group(_) | Subject::Token(_) => None,
        });
        self.people = users.into_iter().chain(own).cloned().map(Who::User).collect();
    }

    /// A token's rights are within its owner's.
    fn add_tokens(&mut self, before: &Policy, after: &Policy) {
        let (was, is) = (&before.facts().tokens, &after.facts().tokens);
        let mut tokens = Vec::new();
        for (id, scope) in was.iter().chain(is) {
            let touched = was.get(id) != is.get(id)
                || self.subjects.contains(&Subject::Token(id.clone()))
                || self.people.contains(&Who::User(scope.owner.clone()));
            if touched {
                tokens.push(Who::Token(id.clone()));
            }
        }
        self.people.extend(tokens);
    }
}

/// Whether what a grant on `path` comes to depends on pools or tags.
fn heeds_labels(path: &Path) -> bool {
    path.as_str().starts_with("/pools") || path.selector().is_some()
}
