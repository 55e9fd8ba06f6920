//! Groups, for UserService: a controller's own, and those that stand for a realm's.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use horcrux_proto::authz::Privilege::UserModify;
use horcrux_proto::v1::{CreateGroupRequest, DeleteGroupRequest, Group, UpdateGroupRequest};
use horcrux_transport::clock;
use tonic::Status;

use super::call::{Act, Call};
use super::fields::{group_name, listed, text, user_id};
use super::users::{Users, keeps_an_administrator, no_group, no_user};
use crate::access::name::{GroupName, UserId};
use crate::access::path::Path;
use crate::access::policy::Subject;
use crate::app::App;

const MAX_MEMBERS: usize = 1000;

impl Users {
    pub(super) async fn made_group(&self, call: &Call, request: CreateGroupRequest) -> Result<Group, Status> {
        let name = group_name(&request.name)?;
        let comment = text("comment", request.comment)?;
        if let Some(realm) = name.realm()
            && self.0.sign_ins.realm(realm).is_none()
        {
            return Err(Status::invalid_argument(format!("name: there is no realm {realm}")));
        }
        let new = name.clone();
        let planned = call.plan_once(&self.0, &request.request_id, |facts| match facts.members.entry(new) {
            Entry::Occupied(taken) => {
                Err(Status::already_exists(format!("name: the group {} exists already", taken.key())))
            }
            Entry::Vacant(free) => {
                free.insert(BTreeSet::new());
                Ok(())
            }
        });
        let planned = planned.await?;
        let act = Act {
            resource: format!("groups/{name}"),
            decision: call.decision(UserModify, &Path::access()),
            detail: "create".to_owned(),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let (app, new, told) = (Arc::clone(&self.0), name.clone(), comment.clone());
        let done = call.act(&self.0, act, async move {
            let plan = planned.first()?;
            app.put_members(&new, Some(told), &BTreeSet::new()).await?;
            Ok(plan.publish().await?)
        });
        done.await?;
        Ok(Group { name: name.to_string(), comment, members: Vec::new() })
    }

    pub(super) async fn changed_group(
        &self,
        call: &Call,
        request: UpdateGroupRequest,
    ) -> Result<Option<Group>, Status> {
        let name = group_name(&request.name)?;
        if request.add_members.len() + request.remove_members.len() > MAX_MEMBERS {
            return Err(Status::invalid_argument("add_members, remove_members: at most 1000"));
        }
        let ids = |all: &[String]| all.iter().map(|id| user_id(id)).collect::<Result<BTreeSet<_>, _>>();
        let (add, remove) = (ids(&request.add_members)?, ids(&request.remove_members)?);
        if name.realm().is_some() && !(add.is_empty() && remove.is_empty()) {
            return Err(Status::failed_precondition("name: who is in this group is said by its realm"));
        }
        let comment = request.comment.map(|comment| text("comment", comment)).transpose()?;
        let users: BTreeSet<String> = self.0.store.users().await?.into_iter().map(|row| row.id).collect();
        if let Some(missing) = add.iter().find(|user| !users.contains(user.as_str())) {
            return Err(no_user(missing));
        }
        let mut members = BTreeSet::new();
        let plan = call
            .plan(&self.0, |facts| {
                let there = facts.members.get_mut(&name).ok_or_else(|| no_group(&name))?;
                there.extend(add.iter().cloned());
                there.retain(|member| !remove.contains(member));
                members.clone_from(there);
                Ok(())
            })
            .await?;
        keeps_an_administrator(&plan.after)?;
        let act = Act {
            resource: format!("groups/{name}"),
            decision: call.decision(UserModify, &Path::access()),
            detail: format!("add: {}; remove: {}", listed(&add), listed(&remove)),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let (app, of, told) = (Arc::clone(&self.0), name.clone(), members.clone());
        let done = call.act(&self.0, act, async move {
            app.put_members(&of, comment, &told).await?;
            Ok(plan.publish().await?)
        });
        done.await?;
        let groups = self.0.groups().await?;
        Ok(groups.into_iter().find(|group| group.name == name.as_str()))
    }

    pub(super) async fn forget_group(&self, call: &Call, request: DeleteGroupRequest) -> Result<(), Status> {
        let name = group_name(&request.name)?;
        let planned = call.plan_once(&self.0, &request.request_id, |facts| {
            facts.members.remove(&name).ok_or_else(|| no_group(&name))?;
            facts.grants.retain(|grant| grant.subject != Subject::Group(name.clone()));
            Ok(())
        });
        let planned = planned.await?;
        keeps_an_administrator(&planned.plan.after)?;
        let act = Act {
            resource: format!("groups/{name}"),
            decision: call.decision(UserModify, &Path::access()),
            detail: "delete".to_owned(),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let app = Arc::clone(&self.0);
        call.act(&self.0, act, async move {
            let plan = planned.first()?;
            app.store.delete_group(&name).await?;
            Ok(plan.publish().await?)
        })
        .await?;
        Ok(())
    }
}

impl App {
    pub(super) async fn groups(&self) -> Result<Vec<Group>, Status> {
        let policy = self.registry.policy();
        let members = |name: &str| {
            let group = name.parse::<GroupName>().ok();
            group
                .and_then(|group| policy.facts().members.get(&group))
                .map(|all| all.iter().map(ToString::to_string).collect())
        };
        let rows = self.store.groups().await?;
        let told = rows.into_iter().map(|row| Group {
            members: members(&row.name).unwrap_or_default(),
            name: row.name,
            comment: row.comment,
        });
        Ok(told.collect())
    }

    /// Stores a group with its members; `None` leaves its comment.
    pub(super) async fn put_members(
        &self,
        group: &GroupName,
        comment: Option<String>,
        members: &BTreeSet<UserId>,
    ) -> Result<(), Status> {
        let comment = match comment {
            Some(comment) => comment,
            None => {
                let rows = self.store.groups().await?;
                rows.into_iter()
                    .find(|row| row.name == group.as_str())
                    .map(|row| row.comment)
                    .unwrap_or_default()
            }
        };
        Ok(self.store.put_group(group, &comment, members, clock::unix_ms()).await?)
    }
}
