//! Roles, for GrantService: the built-in ones, and those that people make.

use std::collections::btree_map::Entry;
use std::sync::Arc;

use horcrux_proto::authz::Privilege::PermissionsModify;
use horcrux_proto::v1::{CreateRoleRequest, DeleteRoleRequest, Role, UpdateRoleRequest};
use horcrux_transport::clock;
use tonic::Status;

use super::call::{Act, Call, Planned};
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
    pub(super) async fn made_role(&self, call: &Call, request: CreateRoleRequest) -> Result<Role, Status> {
        let (name, held) = (custom(&request.name)?, privileges(&request.privileges)?);
        let new = name.clone();
        let planned = call.plan_once(&self.0, &request.request_id, |facts| match facts.roles.entry(new) {
            Entry::Occupied(taken) => {
                Err(Status::already_exists(format!("name: the role {} exists already", taken.key())))
            }
            Entry::Vacant(free) => {
                free.insert(held);
                Ok(())
            }
        });
        let planned = planned.await?;
        let act = recorded(call, &name, format!("create: {held}"), request.request_id, request.validate_only);
        self.put_role(call, planned, act, name, held).await
    }

    pub(super) async fn changed_role(&self, call: &Call, request: UpdateRoleRequest) -> Result<Role, Status> {
        let (name, held) = (custom(&request.name)?, privileges(&request.privileges)?);
        let planned =
            call.plan_once(&self.0, &request.request_id, |facts| match facts.roles.get_mut(&name) {
                Some(there) => {
                    *there = held;
                    Ok(())
                }
                None => Err(no_role(facts, &name)),
            });
        let planned = planned.await?;
        let act = recorded(call, &name, format!("change: {held}"), request.request_id, request.validate_only);
        self.put_role(call, planned, act, name, held).await
    }

    async fn put_role(
        &self,
        call: &Call,
        planned: Planned,
        act: Act,
        name: RoleName,
        held: Privileges,
    ) -> Result<Role, Status> {
        keeps_an_administrator(&planned.plan.after)?;
        let (app, new) = (Arc::clone(&self.0), name.clone());
        let done = call.act(&self.0, act, async move {
            let plan = planned.first()?;
            app.store.put_role(&new, held, clock::unix_ms()).await?;
            Ok(plan.publish().await?)
        });
        done.await?;
        Ok(Role { name: name.to_string(), privileges: held.to_wire(), built_in: false })
    }

    pub(super) async fn forget_role(&self, call: &Call, request: DeleteRoleRequest) -> Result<(), Status> {
        let name = custom(&request.name)?;
        let planned = call.plan_once(&self.0, &request.request_id, |facts| {
            let used = facts.grants.iter().filter(|grant| grant.role == name).count();
            if used > 0 {
                return Err(Status::failed_precondition(format!(
                    "name: {used} grants name the role {name}: remove them first"
                )));
            }
            facts.roles.remove(&name).map(drop).ok_or_else(|| no_role(facts, &name))
        });
        let planned = planned.await?;
        let act = recorded(call, &name, "delete".to_owned(), request.request_id, request.validate_only);
        let app = Arc::clone(&self.0);
        call.act(&self.0, act, async move {
            let plan = planned.first()?;
            app.store.delete_role(&name).await?;
            Ok(plan.publish().await?)
        })
        .await?;
        Ok(())
    }
}

fn recorded(call: &Call, name: &RoleName, detail: String, request_id: String, validate_only: bool) -> Act {
    let decision = call.decision(PermissionsModify, &Path::access());
    Act { resource: format!("roles/{name}"), decision, detail, request_id, validate_only }
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

fn custom(text: &str) -> Result<RoleName, Status> {
    let name = role_name(text)?;
    if built_in().keys().any(|fixed| fixed.eq_ignore_ascii_case(name.as_str())) {
        return Err(Status::failed_precondition(format!("name: {name} is built in, and stays as it is")));
    }
    Ok(name)
}

fn privileges(numbers: &[i32]) -> Result<Privileges, Status> {
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
