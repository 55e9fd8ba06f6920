//! Where a grant holds: `/`, an object, the parent of some, or a selector. An object's name is its path without the first
//! slash.

use std::fmt;
use std::str::FromStr;

use horcrux_proto::name::{ContainerId, InvalidField, NodeName, PoolName, Resource, VmUuid};

/// A checked path, in its one way of being written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(Box<str>);

/// A tag: 1 to 63 of `a-z 0-9 -`, with no `-` at either end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Box<str>);

/// What stands between a collection and a tag in a selector.
const SELECTS: &str = "?tag=";
/// Collections that hold objects with tags.
const TAGGED: [&str; 3] = ["/nodes", "/vms", "/containers"];

impl Path {
    #[must_use]
    pub fn root() -> Self {
        Self("/".into())
    }

    /// What administration of people, groups, roles and tokens is granted on.
    #[must_use]
    pub fn access() -> Self {
        Self("/access".into())
    }

    #[must_use]
    pub fn of(resource: &Resource) -> Self {
        match resource {
            Resource::Root => Self::root(),
            Resource::Node(_) | Resource::Vm(_) | Resource::Container(..) | Resource::Pool(_) => {
                Self(format!("/{resource}").into())
            }
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The object that it names, where it names one that has tags or can be in a pool, or a pool.
    #[must_use]
    pub fn resource(&self) -> Option<Resource> {
        self.0[1..].parse().ok()
    }

    /// From the root to the parent, without selectors and without the path itself.
    pub fn above(&self) -> impl Iterator<Item = &str> {
        above(&self.0)
    }

    /// The collection and the tag, of a selector.
    #[must_use]
    pub fn selector(&self) -> Option<(&str, &str)> {
        self.0.split_once(SELECTS)
    }

    /// Whether `self` is `other` or lies below it. A selector lies below its collection.
    #[must_use]
    pub fn is_within(&self, other: &Path) -> bool {
        let outer: &str = &other.0;
        outer == "/"
            || self.0.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    }
}

/// As [`Path::above`], for a path in text.
pub(super) fn above(path: &str) -> impl Iterator<Item = &str> {
    let end = path.find(SELECTS).map_or(path.len(), |at| at + 1);
    let root = (path != "/").then_some("/");
    root.into_iter().chain(
        path[..end].char_indices().skip(1).filter(|(_, c)| matches!(c, '/' | '?')).map(|(at, _)| &path[..at]),
    )
}

/// The selector of `tag` over what is beside `object`: `/vms?tag=qa` for `/vms/{uuid}`.
pub(super) fn selector(object: &str, tag: &Tag) -> Option<String> {
    let collection =
        TAGGED.into_iter().find(|c| object.strip_prefix(c).is_some_and(|r| r.starts_with('/')))?;
    Some(format!("{collection}{SELECTS}{tag}"))
}

impl FromStr for Path {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let wrong = InvalidField {
            field: "path",
            reason: "expected /, /nodes/NODE, /vms/UUID, /containers/NODE/ID, /storage/NODE/POOL, \
                     /networks/NODE/NET, /pools/POOL, /access, a parent of these, or /vms?tag=TAG",
        };
        if let Some((collection, tag)) = text.split_once(SELECTS) {
            let tag: Tag = tag.parse()?;
            let known = TAGGED.contains(&collection);
            return if known { Ok(Self(format!("{collection}{SELECTS}{tag}").into())) } else { Err(wrong) };
        }
        let rest = text.strip_prefix('/').ok_or(wrong.clone())?;
        if rest.is_empty() {
            return Ok(Self::root());
        }
        let parts: Vec<&str> = rest.split('/').collect();
        let node = |text: &str| text.parse::<NodeName>();
        let normal = match *parts.as_slice() {
            ["nodes" | "vms" | "containers" | "storage" | "networks" | "pools" | "access"] => text.to_owned(),
            ["nodes", name] => format!("/nodes/{}", node(name)?),
            ["vms", uuid] => format!("/vms/{}", uuid.parse::<VmUuid>()?),
            ["pools", pool] => format!("/pools/{}", pool.parse::<PoolName>()?),
            [of @ ("containers" | "storage" | "networks"), name] => format!("/{of}/{}", node(name)?),
            [of @ ("containers" | "storage" | "networks"), name, id] => {
                format!("/{of}/{}/{}", node(name)?, id.parse::<ContainerId>()?)
            }
            _ => return Err(wrong),
        };
        Ok(Self(normal.into()))
    }
}

impl FromStr for Tag {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let reason = "a tag is 1 to 63 of a-z 0-9 -, with no - at either end";
        // The alphabet is a node name's.
        let fits = text.parse::<NodeName>().is_ok();
        fits.then(|| Self(text.into())).ok_or(InvalidField { field: "tag", reason })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Tag {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> Path {
        text.parse().unwrap()
    }

    #[test]
    fn levels_go_from_the_root_to_the_parent() {
        let levels = |text| path(text).above().map(ToOwned::to_owned).collect::<Vec<_>>();
        assert_eq!(levels("/"), Vec::<String>::new());
        assert_eq!(levels("/vms"), ["/"]);
        assert_eq!(levels("/containers/web1/3f2a"), ["/", "/containers", "/containers/web1"]);
        assert_eq!(levels("/vms?tag=qa"), ["/", "/vms"]);
    }

    #[test]
    fn a_path_has_one_way_of_being_written() {
        let upper = "/vms/AAAAAAAA-0000-4000-8000-000000000011";
        assert_eq!(path(upper).as_str(), upper.to_lowercase());
        for wrong in [
            "",
            "vms",
            "/vms/",
            "//",
            "/vm",
            "/vms/web1",
            "/pools/a/b",
            "/nodes/../x",
            "/storage?tag=qa",
            "/vms?tag=",
            "/vms?tag=Q",
            "/access/x",
            "/vms/?tag=qa",
        ] {
            assert!(wrong.parse::<Path>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_that_begin_alike_are_not_within_each_other() {
        assert!(path("/nodes/web1").is_within(&path("/nodes")));
        assert!(path("/nodes?tag=qa").is_within(&path("/nodes")));
        assert!(path("/nodes/web1").is_within(&path("/")));
        assert!(!path("/nodes/web10").is_within(&path("/nodes/web1")));
        assert!(!path("/nodes").is_within(&path("/nodes/web1")));
    }

    proptest! {
        #[test]
        fn what_parses_prints_as_itself(text in "(/[a-z?=0-9./-]{0,40})") {
            if let Ok(path) = text.parse::<Path>() {
                prop_assert_eq!(path.to_string().parse::<Path>().unwrap(), path);
            }
        }
    }
}
