//! Roles, for GrantService: the built-in ones, and those that people make.

use std::sync::Arc;

use horcrux_proto::authz::Privilege::PermissionsModify;
use horcrux_proto::v1::{DeleteRoleRequest, Role};
use horcrux_transport::clock;
use tonic::Status;

use super::call::{Act, Call};
use super::fields::role_name;
use super::grants::Grants;
use super::users::keeps_an_administrator;
use crate::access::name::RoleName;
use crate::access::path::Path;
use crate::access::policy::Facts;
use crate::access::privileges::{Privileges, built_in};
use crate::app::App;

/// Custom roles that an error lists: more are no help.
const LISTED: usize = 30;

impl Grants {
    pub(super) async fn put_role(
        &self,
        call: &Call,
        name: RoleName,
        held: Privileges,
        doing: &str,
        request_id: String,
        validate_only: bool,
    ) -> Result<Role, Status> {
        let new = name.clone();
        let plan = call
            .plan(&self.0, |facts| {
                facts.roles.insert(new, held);
                Ok(())
            })
            .await?;
        keeps_an_administrator(&plan.after)?;
        let act = Act {
            resource: format!("roles/{name}"),
            decision: call.decision(PermissionsModify, &Path::access()),
            detail: format!("{doing}: {held}"),
            request_id,
            validate_only,
        };
        let (app, new) = (Arc::clone(&self.0), name.clone());
        let done = call.act(&self.0, act, async move {
            app.store.put_role(&new, held, clock::unix_ms()).await?;
            Ok(plan.publish().await?)
        });
        done.await?;
        Ok(Role { name: name.to_string(), privileges: held.to_wire(), built_in: false })
    }

    pub(super) async fn forget_role(&self, call: &Call, request: DeleteRoleRequest) -> Result<(), Status> {
        let name = custom(&request.name)?;
        let gone = name.clone();
        let repeated = call.repeats(&self.0, &request.request_id).await?;
        let plan = call
            .plan(&self.0, |facts| {
                let used = facts.grants.iter().filter(|grant| grant.role == gone).count();
                if used > 0 {
                    return Err(Status::failed_precondition(format!(
                        "name: {used} grants name the role {gone}: remove them first"
                    )));
                }
                let was_there = facts.roles.remove(&gone).is_some();
                (was_there || repeated).then_some(()).ok_or_else(|| no_role(facts, &gone))
            })
            .await?;
        let act = Act {
            resource: format!("roles/{name}"),
            decision: call.decision(PermissionsModify, &Path::access()),
            detail: "delete".to_owned(),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let app = Arc::clone(&self.0);
        call.act(&self.0, act, async move {
            app.store.delete_role(&name).await?;
            Ok(plan.publish().await?)
        })
        .await?;
        Ok(())
    }
}

impl App {
    pub(super) fn roles(&self) -> Vec<Role> {
        let policy = self.registry.policy();
        let role =
            |name: String, held: Privileges, built_in| Role { name, privileges: held.to_wire(), built_in };
        let fixed = built_in().iter().map(|(name, held)| role((*name).to_owned(), *held, true));
        let custom = policy.facts().roles.iter().map(|(name, held)| role(name.to_string(), *held, false));
        fixed.chain(custom).collect()
    }
}

pub(super) fn custom(text: &str) -> Result<RoleName, Status> {
    let name = role_name(text)?;
    if built_in().keys().any(|fixed| fixed.eq_ignore_ascii_case(name.as_str())) {
        return Err(Status::failed_precondition(format!("name: {name} is built in, and stays as it is")));
    }
    Ok(name)
}

pub(super) fn privileges(numbers: &[i32]) -> Result<Privileges, Status> {
    let held = Privileges::from_wire(numbers).filter(|held| !held.is_empty());
    held.ok_or_else(|| Status::invalid_argument("privileges: at least one, and only known ones"))
}

/// Says which there are: whoever is signed in may list them.
pub(super) fn no_role(facts: &Facts, name: &RoleName) -> Status {
    let custom = facts.roles.keys().take(LISTED).map(RoleName::as_str);
    let known: Vec<&str> = built_in().keys().copied().chain(custom).collect();
    let more = if facts.roles.len() > LISTED { ", and others" } else { "" };
    Status::not_found(format!("the role {name} does not exist: there are {}{more}", known.join(", ")))
}
