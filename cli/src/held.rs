//! What the caller holds, from what WhoAmI tells: for hints, and for questions that would only be refused. The controller
//! decides; this is a guess from its own words.

use horcrux_proto::authz::Privilege;
use horcrux_proto::v1::WhoAmIResponse;

use crate::failure::Failure;
use crate::login::caller;
use crate::session::Session;

/// Whether the caller has `privilege` on `path`, which is `/` or right below it.
pub(crate) async fn holds(session: &Session, privilege: Privilege, path: &str) -> Result<bool, Failure> {
    Ok(may(&caller(session).await?, privilege, path))
}

/// The deepest level counts: it replaces those above it.
fn may(answer: &WhoAmIResponse, privilege: Privilege, path: &str) -> bool {
    let held = |at: &str| answer.held.iter().find(|held| held.path == at);
    let level = held(path).or_else(|| held("/").filter(|held| held.propagate));
    level.is_some_and(|held| held.privileges.contains(&privilege.into()))
}

#[cfg(test)]
mod tests {
    use horcrux_proto::v1::HeldPrivileges;

    use super::*;

    fn holding(path: &str, privileges: &[Privilege], propagate: bool) -> HeldPrivileges {
        let privileges = privileges.iter().map(|&privilege| privilege.into()).collect();
        HeldPrivileges { path: path.to_owned(), privileges, propagate }
    }

    #[test]
    fn a_deeper_level_replaces_the_root() {
        let audit = Privilege::SysAudit;
        let may_audit = |held| may(&WhoAmIResponse { held, ..WhoAmIResponse::default() }, audit, "/access");
        assert!(may_audit(vec![holding("/", &[audit], true)]));
        assert!(may_audit(vec![holding("/access", &[audit], false)]));
        assert!(!may_audit(vec![holding("/", &[audit], false)]));
        assert!(!may_audit(vec![holding("/", &[audit], true), holding("/access", &[], true)]));
        assert!(!may_audit(vec![holding("/vms", &[audit], true)]));
        assert!(!may_audit(vec![]));
    }
}
