//! Names of things, checked once where they come in: `nodes/{node}`, `vms/{uuid}`, `containers/{node}/{id}`,
//! `pools/{pool}`. A VM's name doesn't hold its node, so it survives migration.

use std::fmt;
use std::str::FromStr;

/// A request field that can't be used, and why. The text is for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidField {
    pub field: &'static str,
    pub reason: &'static str,
}

/// A node's name: 1 to 63 of `a-z 0-9 -`, with a letter or digit at both ends, as in a host name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(Box<str>);

/// A VM's uuid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VmUuid([u8; 16]);

/// A container's id on its node: 1 to 128 of `A-Z a-z 0-9 _ . : @ -`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(Box<str>);

/// A pool's name; the same alphabet as a node's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolName(Box<str>);

/// Anything that a grant, a filter or an event can name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// `/`: everything.
    Root,
    Node(NodeName),
    Vm(VmUuid),
    Container(NodeName, ContainerId),
    Pool(PoolName),
}

impl NodeName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PoolName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ContainerId {
    /// The id that a text is. Of one that can't be an id it is the nearest that can, with a sum of the text to tell it from
    /// others that are as near.
    #[must_use]
    pub fn near(text: &str) -> Self {
        text.parse().unwrap_or_else(|_: InvalidField| {
            let plain = |c: char| if c.is_ascii() && is_in_container_id(c as u8) { c } else { '_' };
            let near: String = text.chars().map(plain).take(MOST_NEAR).collect();
            Self(format!("{near}:{:016x}", sum(text)).into())
        })
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl VmUuid {
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Characters of a text that can't be an id which are kept in one.
const MOST_NEAR: usize = 96;

fn is_in_container_id(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.:@-".contains(&byte)
}

/// FNV-1a.
fn sum(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn is_host_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

impl FromStr for NodeName {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let reason = "a node name is 1 to 63 of a-z 0-9 -, with no - at either end";
        is_host_label(text).then(|| Self(text.into())).ok_or(InvalidField { field: "node", reason })
    }
}

impl FromStr for PoolName {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let reason = "a pool name is 1 to 63 of a-z 0-9 -, with no - at either end";
        is_host_label(text).then(|| Self(text.into())).ok_or(InvalidField { field: "pool", reason })
    }
}

impl FromStr for ContainerId {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let fits = (1..=128).contains(&text.len())
            && text.bytes().all(is_in_container_id)
            && !matches!(text, "." | "..");
        let reason = "a container id is 1 to 128 of A-Z a-z 0-9 _ . : @ -";
        fits.then(|| Self(text.into())).ok_or(InvalidField { field: "container", reason })
    }
}

impl FromStr for VmUuid {
    type Err = InvalidField;

    /// Takes the form with hyphens only, in either case.
    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let wrong =
            InvalidField { field: "vm", reason: "a VM uuid is 32 hex digits in groups of 8-4-4-4-12" };
        let text = text.as_bytes();
        let hyphen = |at: usize| matches!(at, 8 | 13 | 18 | 23);
        if text.len() != 36 || text.iter().enumerate().any(|(at, &b)| (b == b'-') != hyphen(at)) {
            return Err(wrong);
        }
        let mut digits = text.iter().filter(|&&b| b != b'-').map(|&b| char::from(b).to_digit(16));
        let mut bytes = [0; 16];
        for byte in &mut bytes {
            let (Some(Some(high)), Some(Some(low))) = (digits.next(), digits.next()) else {
                return Err(wrong);
            };
            *byte = u8::try_from(high * 16 + low).map_err(|_| wrong.clone())?;
        }
        Ok(Self(bytes))
    }
}

impl FromStr for Resource {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        if text == "/" {
            return Ok(Self::Root);
        }
        let mut parts = text.splitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("nodes"), Some(node), None) => node.parse().map(Self::Node),
            (Some("vms"), Some(uuid), None) => uuid.parse().map(Self::Vm),
            (Some("pools"), Some(pool), None) => pool.parse().map(Self::Pool),
            (Some("containers"), Some(node), Some(id)) => Ok(Self::Container(node.parse()?, id.parse()?)),
            _ => Err(InvalidField {
                field: "name",
                reason: "expected nodes/NODE, vms/UUID, containers/NODE/ID or pools/POOL",
            }),
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for VmUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for VmUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("/"),
            Self::Node(node) => write!(f, "nodes/{node}"),
            Self::Vm(uuid) => write!(f, "vms/{uuid}"),
            Self::Container(node, id) => write!(f, "containers/{node}/{id}"),
            Self::Pool(pool) => write!(f, "pools/{pool}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_survive_a_round_trip() {
        for text in [
            "/",
            "nodes/web-1",
            "vms/aaaaaaaa-0000-4000-8000-000000000011",
            "containers/web-1/3f2a",
            "pools/qa",
        ] {
            let resource: Resource = text.parse().unwrap();
            assert_eq!(resource.to_string(), text);
        }
    }

    #[test]
    fn a_name_that_could_be_a_path_or_an_option_is_refused() {
        for text in
            ["nodes/../x", "nodes/-x", "nodes/", "containers/a/../b", "containers/a/", "vms/1", "x", ""]
        {
            assert!(text.parse::<Resource>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_uuid_is_compared_without_regard_to_case() {
        let upper: VmUuid = "AAAAAAAA-0000-4000-8000-000000000011".parse().unwrap();
        assert_eq!(upper.to_string(), "aaaaaaaa-0000-4000-8000-000000000011");
    }

    #[test]
    fn every_text_has_an_id_near_it() {
        assert_eq!(ContainerId::near("web-1").as_str(), "web-1");
        assert_eq!(ContainerId::near("my büro").as_str(), "my_b_ro:94aa127dd745daf1");
        let (long, longer) = ("x".repeat(200), "x".repeat(201));
        assert_ne!(ContainerId::near(&long), ContainerId::near(&longer));
        for text in ["", ".", "..", "/", &long] {
            let id = ContainerId::near(text);
            assert_eq!(id.as_str().parse(), Ok(id.clone()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_what_parses_prints_the_same(text in ".{0,200}") {
            if let Ok(resource) = text.parse::<Resource>() {
                prop_assert_eq!(resource.to_string().to_lowercase(), text.to_lowercase());
            }
        }
    }
}
