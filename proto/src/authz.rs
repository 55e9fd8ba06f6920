//! What each RPC demands, as its `(horcrux.v1.requires)` option says. The table is made by the build from the contract;
//! a method that is not in it is denied.

pub use crate::v1::Privilege;

/// What one method demands of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// As in the request path: `/horcrux.v1.NodeService/Get`.
    pub method: &'static str,
    pub caller: Caller,
    /// The request field that names the resource; empty when the privilege is needed on `/`.
    pub resource_field: &'static str,
    /// The answer is filtered by object.
    pub filtered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    Anyone,
    SignedIn,
    /// An enrolled node, by its certificate.
    Node,
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
