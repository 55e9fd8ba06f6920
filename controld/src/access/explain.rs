//! Why a principal has a privilege on a path, or hasn't: the same rules as a decision, told grant by grant.

use horcrux_proto::authz::{Privilege, privilege_name};

use super::path::Path;
use super::policy::{Grant, Held, Policy, Subject, Who};

/// What one grant did to a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Allows,
    /// Its role doesn't hold the privilege, and it replaces what was above.
    Lacks,
    Denies,
    /// A deeper level stands in its place.
    Replaced,
    /// The user's own entries at its level stand in its place.
    Overridden,
    NotPropagated,
    Expired,
}

/// One grant on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub grant: Grant,
    pub effect: Effect,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub allowed: bool,
    pub steps: Vec<Step>,
    /// For people.
    pub because: String,
}

/// A level of a walk: the paths that make it up, and whether it is the object's own.
struct Rung<'a> {
    paths: Vec<&'a str>,
    is_own: bool,
}

impl Explanation {
    /// The grants that decided.
    pub fn deciding(&self) -> impl Iterator<Item = &Grant> {
        let effect = if self.allowed {
            Effect::Allows
        } else if self.steps.iter().any(|step| step.effect == Effect::Denies) {
            Effect::Denies
        } else {
            Effect::Lacks
        };
        self.steps.iter().filter(move |step| step.effect == effect).map(|step| &step.grant)
    }

    /// The deciding grants in one line, for a record.
    #[must_use]
    pub fn decision(&self) -> String {
        let told = |grant: &Grant| format!("{} {} {}@{}", grant.id, grant.subject, grant.role, grant.path);
        self.deciding().map(told).collect::<Vec<_>>().join("; ")
    }
}

/// Says how it stands with `privilege` on `path` for `who`.
#[must_use]
pub fn why(policy: &Policy, who: &Who, privilege: Privilege, path: &Path, now_ms: i64) -> Explanation {
    let user = match who {
        Who::User(user) => user,
        Who::Token(id) => {
            let Some(scope) = policy.facts().tokens.get(id) else {
                return nothing(format!("the token {id} does not exist, or was revoked"));
            };
            let owner = Who::User(scope.owner.clone());
            let of_owner = why(policy, &owner, privilege, path, now_ms);
            if scope.full {
                let because = format!("the token may do all that {} may: {}", scope.owner, of_owner.because);
                return Explanation { because, ..of_owner };
            }
            let of_token = walked(policy, who, privilege, path, now_ms);
            let because = match (of_token.allowed, of_owner.allowed) {
                (true, true) => format!("{}; and {}", of_token.because, of_owner.because),
                (false, _) => of_token.because.clone(),
                (true, false) => {
                    format!(
                        "the token's own grants would allow it, but its owner {} lacks it: {}",
                        scope.owner, of_owner.because
                    )
                }
            };
            let allowed = of_token.allowed && of_owner.allowed;
            return Explanation { allowed, steps: [of_token.steps, of_owner.steps].concat(), because };
        }
    };
    if !policy.facts().users.contains(user) {
        return nothing(format!("{user} does not exist, or is disabled"));
    }
    walked(policy, who, privilege, path, now_ms)
}

fn nothing(because: String) -> Explanation {
    Explanation { allowed: false, steps: Vec::new(), because }
}

fn walked(policy: &Policy, who: &Who, privilege: Privilege, path: &Path, now_ms: i64) -> Explanation {
    let entries = policy.entries(who);
    let labels = policy.labels();
    let mut ladder: Vec<Rung<'_>> =
        path.above().map(|above| Rung { paths: vec![above], is_own: false }).collect();
    let selectors: Vec<&str> = labels.selectors(path.as_str()).iter().map(String::as_str).collect();
    ladder.push(Rung { paths: selectors, is_own: true });
    ladder.push(Rung { paths: vec![path.as_str()], is_own: true });
    let mut steps = climb(policy, &entries, &ladder, privilege, now_ms);
    for pool in labels.pools(path.as_str()) {
        let rung = |path| Rung { paths: vec![path], is_own: false };
        let ladder = [rung("/pools"), rung(pool.as_str())];
        steps.extend(climb(policy, &entries, &ladder, privilege, now_ms));
    }
    let has = |effect| steps.iter().find(|step| step.effect == effect);
    let name = privilege_name(privilege);
    let (allowed, because) = if let Some(Step { grant, .. }) = has(Effect::Denies) {
        (false, format!("{} is denied everything on {} (grant {})", grant.subject, grant.path, grant.id))
    } else if let Some(Step { grant, .. }) = has(Effect::Allows) {
        let given = format!("{} has {} on {} (grant {})", grant.subject, grant.role, grant.path, grant.id);
        (true, format!("{given}, which holds {name}"))
    } else if let Some(Step { grant, .. }) = has(Effect::Lacks) {
        let given = format!("{} has {} on {} (grant {})", grant.subject, grant.role, grant.path, grant.id);
        (false, format!("{given}, which does not hold {name} and replaces what is granted above"))
    } else if let Some(Step { grant, .. }) = has(Effect::NotPropagated) {
        (false, format!("the grant {} on {} does not propagate", grant.id, grant.path))
    } else if let Some(Step { grant, .. }) = has(Effect::Expired) {
        (false, format!("the grant {} has ended", grant.id))
    } else {
        (false, format!("nothing is granted that holds {name} on {path}"))
    };
    Explanation { allowed, steps, because }
}

fn climb(
    policy: &Policy,
    entries: &[(Held, &Grant)],
    ladder: &[Rung<'_>],
    privilege: Privilege,
    now_ms: i64,
) -> Vec<Step> {
    let live_on = |rung: &Rung<'_>| {
        entries.iter().any(|(_, grant)| grant.is_live(now_ms) && rung.paths.contains(&grant.path.as_str()))
    };
    let last = ladder.iter().rposition(live_on);
    let mut steps = Vec::new();
    for (at, rung) in ladder.iter().enumerate() {
        for path in &rung.paths {
            let here: Vec<_> = entries.iter().filter(|(_, grant)| grant.path.as_str() == *path).collect();
            let live = || here.iter().filter(|(_, grant)| grant.is_live(now_ms));
            let has_own = live().any(|(held, _)| *held == Held::Own);
            let own_allows = live().any(|(held, grant)| *held == Held::Own && !grant.denies());
            for (held, grant) in &here {
                let reaches = rung.is_own || grant.propagates();
                let role = policy.facts().role(&grant.role).unwrap_or_default();
                let effect = if !grant.is_live(now_ms) {
                    Effect::Expired
                } else if grant.denies() && (*held == Held::Own || !own_allows) {
                    if reaches { Effect::Denies } else { Effect::NotPropagated }
                } else if *held == Held::ByGroup && has_own {
                    Effect::Overridden
                } else if last != Some(at) {
                    Effect::Replaced
                } else if !reaches {
                    Effect::NotPropagated
                } else if role.has(privilege) {
                    Effect::Allows
                } else {
                    Effect::Lacks
                };
                steps.push(Step { grant: (*grant).clone(), effect });
            }
        }
    }
    steps
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(user) => write!(f, "{user}"),
            Self::Group(group) => write!(f, "group {group}"),
            Self::Token(id) => write!(f, "token {id}"),
        }
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(user) => write!(f, "{user}"),
            Self::Token(id) => write!(f, "token {id}"),
        }
    }
}
