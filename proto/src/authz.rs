//! What each RPC demands, as its `(horcrux.v1.requires)` option says. The table is made by the build from the contract;
//! a method that is not in it is denied.

pub use crate::v1::Privilege;

/// What one method demands of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// As in the request path: `/horcrux.v1.NodeService/Get`.
    pub method: &'static str,
    pub caller: Caller,
    /// The request field that names the resource.
    pub resource_field: &'static str,
    /// The resource, where it is the same for every request. With neither the privilege is needed on `/`.
    pub resource: &'static str,
    /// The answer is filtered by object.
    pub filtered: bool,
    /// It changes something, and is on the audit log before it does.
    pub mutation: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    Anyone,
    SignedIn,
    /// A person's session; not an API token.
    Session,
    /// An enrolled node, by its certificate.
    Node,
    /// The guest of a link, by the link's cookie.
    Guest,
    /// A principal that holds this privilege.
    Holder(Privilege),
}

/// All methods of the contract.
pub const REQUIREMENTS: &[Requirement] = include!(concat!(env!("OUT_DIR"), "/requirements.rs"));

/// What `method` demands; `None` for a method that the contract doesn't have.
#[must_use]
pub fn requirement(method: &str) -> Option<&'static Requirement> {
    REQUIREMENTS.iter().find(|r| r.method == method)
}

/// The name that people see: `VmAudit`.
#[must_use]
pub fn privilege_name(privilege: Privilege) -> String {
    format!("{privilege:?}")
}

/// All privileges, in the contract's order.
pub fn privileges() -> impl Iterator<Item = Privilege> {
    // 0 is unspecified.
    (1..).map_while(|number| Privilege::try_from(number).ok())
}

/// The privilege that people call so, in whatever case they write it.
#[must_use]
pub fn privilege_named(name: &str) -> Option<Privilege> {
    privileges().find(|&privilege| privilege_name(privilege).eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;

    #[test]
    fn every_privilege_is_found_by_its_name() {
        let pool = DescriptorPool::decode(crate::DESCRIPTORS).unwrap();
        let all = pool.get_enum_by_name("horcrux.v1.Privilege").unwrap();
        // All but the unspecified: a gap in the numbers would end the list early.
        assert_eq!(privileges().count(), all.values().count() - 1);
        for privilege in privileges() {
            assert_eq!(privilege_named(&privilege_name(privilege)), Some(privilege));
        }
        assert_eq!(privilege_named("vmpowermgmt"), Some(Privilege::VmPowerMgmt));
        assert_eq!(privilege_named("Unspecified"), None);
        assert_eq!(privilege_named(""), None);
    }
}
