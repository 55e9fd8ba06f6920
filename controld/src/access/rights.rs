//! What one principal may do where: its grants, brought into the form in which a decision is quick. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use horcrux_proto::authz::Privilege;
use horcrux_proto::name::{PoolName, Resource};

use super::path::{Path, Tag, above, selector};
use super::privileges::Privileges;

/// What the entries at one path come to, for one principal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Level {
    /// On the path itself.
    pub here: Privileges,
    /// On what lies below it.
    pub below: Privileges,
    pub denied_here: bool,
    pub denied_below: bool,
}

/// One principal's rights. Principals with the same grants have equal ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rights {
    levels: BTreeMap<Box<str>, Level>,
    /// Of an API token: those of its owner, which bound its own.
    owner: Option<Arc<Rights>>,
}

/// What the controller keeps of objects: in which pools they are and which tags they have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    pub tags: BTreeMap<Resource, BTreeSet<Tag>>,
    pub pools: BTreeMap<Resource, BTreeSet<PoolName>>,
    /// By path, ready for decisions: pools as their paths, selectors as theirs.
    by_path: HashMap<Box<str>, Marks>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Marks {
    selectors: Vec<String>,
    pools: Vec<String>,
}

/// Which objects of a kind a principal sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sight {
    All,
    Nothing,
    /// Some: each is to be asked about.
    Each,
}

/// What a walk down to an object finds.
#[derive(Clone, Copy, Default)]
struct Found {
    privileges: Privileges,
    denied: bool,
}

impl Labels {
    #[must_use]
    pub fn new(
        tags: BTreeMap<Resource, BTreeSet<Tag>>,
        pools: BTreeMap<Resource, BTreeSet<PoolName>>,
    ) -> Self {
        let mut by_path: HashMap<Box<str>, Marks> = HashMap::new();
        for (object, tags) in &tags {
            let path = Path::of(object);
            let selectors = tags.iter().filter_map(|tag| selector(path.as_str(), tag)).collect();
            by_path.entry(path.as_str().into()).or_default().selectors = selectors;
        }
        for (object, pools) in &pools {
            let marks = by_path.entry(Path::of(object).as_str().into()).or_default();
            marks.pools = pools.iter().map(|pool| format!("/pools/{pool}")).collect();
        }
        Self { tags, pools, by_path }
    }

    /// The selectors that pick the object at `path`.
    pub(super) fn selectors(&self, path: &str) -> &[String] {
        self.by_path.get(path).map_or(&[], |marks| &marks.selectors)
    }

    /// The paths of the pools that the object at `path` is in.
    pub(super) fn pools(&self, path: &str) -> &[String] {
        self.by_path.get(path).map_or(&[], |marks| &marks.pools)
    }

    /// All objects with a tag or in a pool.
    pub fn objects(&self) -> impl Iterator<Item = &Resource> {
        self.tags.keys().chain(self.pools.keys().filter(|object| !self.tags.contains_key(object)))
    }
}

impl Rights {
    #[must_use]
    pub fn new(levels: BTreeMap<Box<str>, Level>) -> Self {
        Self { levels, owner: None }
    }

    /// Those of a token: never more than its owner's.
    #[must_use]
    pub fn bounded_by(self, owner: Arc<Rights>) -> Self {
        Self { owner: Some(owner), ..self }
    }

    #[must_use]
    pub fn on(&self, path: &Path, labels: &Labels) -> Privileges {
        let own = self.own(path.as_str(), labels);
        match &self.owner {
            Some(owner) if !own.is_empty() => own & owner.on(path, labels),
            Some(_) | None => own,
        }
    }

    #[must_use]
    pub fn allow(&self, privilege: Privilege, path: &Path, labels: &Labels) -> bool {
        self.on(path, labels).has(privilege)
    }

    /// Nothing is held anywhere.
    #[must_use]
    pub fn are_empty(&self) -> bool {
        self.levels.values().all(|level| level.here.is_empty() && level.below.is_empty())
            || self.owner.as_ref().is_some_and(|owner| owner.are_empty())
    }

    /// All entries, by path.
    pub fn levels(&self) -> impl Iterator<Item = (&str, &Level)> {
        self.levels.iter().map(|(path, level)| (&**path, level))
    }

    #[must_use]
    pub fn owner(&self) -> Option<&Arc<Rights>> {
        self.owner.as_ref()
    }

    /// How it stands with all objects of `collection` (`/vms`) at once.
    #[must_use]
    pub fn sight(&self, privilege: Privilege, collection: &str) -> Sight {
        let generic = self.walk(["/", collection].into_iter());
        let own = if generic.denied {
            Sight::Nothing
        } else if self.levels.keys().any(|path| {
            path.starts_with("/pools")
                || path.strip_prefix(collection).is_some_and(|rest| rest.starts_with(['/', '?']))
        }) {
            Sight::Each
        } else if generic.privileges.has(privilege) {
            Sight::All
        } else {
            Sight::Nothing
        };
        match (own, self.owner.as_ref().map(|owner| owner.sight(privilege, collection))) {
            (Sight::Nothing, _) | (_, Some(Sight::Nothing)) => Sight::Nothing,
            (Sight::All, None | Some(Sight::All)) => Sight::All,
            (Sight::Each, _) | (Sight::All, Some(Sight::Each)) => Sight::Each,
        }
    }

    /// Whether tags or pools can matter to these rights.
    #[must_use]
    pub fn heed_labels(&self) -> bool {
        self.levels.keys().any(|path| path.starts_with("/pools") || path.contains('?'))
            || self.owner.as_ref().is_some_and(|owner| owner.heed_labels())
    }

    fn own(&self, path: &str, labels: &Labels) -> Privileges {
        let mut found = self.walk(above(path));
        let mut selected = None::<Found>;
        for selector in labels.selectors(path) {
            if let Some(level) = self.levels.get(selector.as_str()) {
                let picked = selected.get_or_insert_default();
                picked.privileges |= level.here;
                picked.denied |= level.denied_here;
            }
        }
        if let Some(selected) = selected {
            found.privileges = selected.privileges;
            found.denied |= selected.denied;
        }
        if let Some(level) = self.levels.get(path) {
            found.privileges = level.here;
            found.denied |= level.denied_here;
        }
        for pool in labels.pools(path) {
            let of_pool = self.walk(["/pools", pool.as_str()].into_iter());
            found.privileges |= of_pool.privileges;
            found.denied |= of_pool.denied;
        }
        if found.denied { Privileges::NONE } else { found.privileges }
    }

    /// What comes down through these levels.
    fn walk<'a>(&self, levels: impl Iterator<Item = &'a str>) -> Found {
        let mut found = Found::default();
        for level in levels.filter_map(|path| self.levels.get(path)) {
            found.privileges = level.below;
            found.denied |= level.denied_below;
        }
        found
    }
}
