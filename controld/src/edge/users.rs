//! UserService: people and groups.

use std::collections::BTreeSet;
use std::sync::Arc;

use horcrux_proto::authz::Privilege::UserModify;
use horcrux_proto::v1::user_service_server::UserService;
use horcrux_proto::v1::{
    CreateGroupRequest, CreateGroupResponse, DeleteGroupRequest, DeleteGroupResponse, ListGroupsRequest,
    ListGroupsResponse, UpdateGroupRequest, UpdateGroupResponse, User, UserServiceCreateRequest,
    UserServiceCreateResponse, UserServiceDeleteRequest, UserServiceDeleteResponse, UserServiceListRequest,
    UserServiceListResponse, UserServiceUpdateRequest, UserServiceUpdateResponse,
};
use horcrux_transport::clock;
use tonic::{Request, Response, Status};

use super::call::{Act, Call, Done};
use super::fields::{listed, local_group, new_password, text, user_id};
use crate::access::factors::MAX_FAILURES;
use crate::access::name::{GroupName, UserId};
use crate::access::path::Path;
use crate::access::policy::{Policy, Subject, Who};
use crate::access::sessions::Ended;
use crate::app::App;
use crate::live::page::page;
use crate::store::users::{UserRow, UserUpdate};

pub(super) struct Users(pub(super) Arc<App>);

#[tonic::async_trait]
impl UserService for Users {
    async fn list(
        &self,
        request: Request<UserServiceListRequest>,
    ) -> Result<Response<UserServiceListResponse>, Status> {
        let request = request.into_inner();
        let users = self.users().await?;
        let named = users.into_iter().map(|user| (user.id.clone(), user)).collect();
        let (users, next_page_token) = page(named, request.page_size, &request.page_token);
        let users = users.into_iter().map(|(_, user)| user).collect();
        Ok(Response::new(UserServiceListResponse { users, next_page_token }))
    }

    async fn create(
        &self,
        request: Request<UserServiceCreateRequest>,
    ) -> Result<Response<UserServiceCreateResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let user = user_id(&request.user)?;
        if self.0.sign_ins.realm(user.realm()).is_none() {
            return Err(Status::invalid_argument(format!("user: there is no realm {}", user.realm())));
        }
        let password = match (user.is_local(), request.password.is_empty()) {
            (true, _) => Some(new_password("password", request.password)?),
            (false, true) => None,
            (false, false) => {
                return Err(Status::invalid_argument("password: it is kept by the user's realm"));
            }
        };
        let groups = request.groups.iter().map(|g| local_group(g)).collect::<Result<BTreeSet<_>, _>>()?;
        let display_name = text("display_name", request.display_name)?;
        let joined = (user.clone(), groups.clone());
        let plan = call
            .plan(&self.0, |facts| {
                let (user, groups) = joined;
                for group in groups {
                    let members = facts.members.get_mut(&group);
                    members.ok_or_else(|| no_group(&group))?.insert(user.clone());
                }
                facts.users.insert(user);
                Ok(())
            })
            .await?;
        if self.0.store.user(&user).await?.is_some() && !call.repeats(&self.0, &request.request_id).await? {
            return Err(Status::already_exists(format!("user: {user} exists already")));
        }
        let by = &call.principal()?.user;
        let password_hash = match password {
            Some(password) if !request.validate_only => Some(self.0.sign_ins.hash(password, by).await?),
            Some(_) | None => None,
        };
        let row = UserRow {
            id: user.to_string(),
            display_name,
            password_hash,
            created_ms: clock::unix_ms(),
            ..UserRow::default()
        };
        let act = Act {
            resource: format!("users/{user}"),
            decision: call.decision(UserModify, &Path::access()),
            detail: format!("create, groups: {}", listed(&groups)),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let app = Arc::clone(&self.0);
        let made = row.clone();
        let done = call.act(&self.0, act, async move {
            if !app.store.insert_user(&made).await? {
                return Err(Status::already_exists(format!("user: {} exists already", made.id)));
            }
            for group in groups {
                let mut members = plan.before.facts().members.get(&group).cloned().unwrap_or_default();
                members.extend(made.id.parse::<UserId>());
                app.put_members(&group, None, &members).await?;
            }
            Ok(plan.publish().await?)
        });
        let user = match done.await? {
            Done::Valid => User { id: row.id, display_name: row.display_name, ..User::default() },
            Done::Now(()) | Done::Before => self.one(&user).await?,
        };
        Ok(Response::new(UserServiceCreateResponse { user: Some(user) }))
    }

    async fn update(
        &self,
        request: Request<UserServiceUpdateRequest>,
    ) -> Result<Response<UserServiceUpdateResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let user = user_id(&request.user)?;
        let row = self.0.store.user(&user).await?.ok_or_else(|| no_user(&user))?;
        if request.password.is_some() && !user.is_local() {
            return Err(Status::invalid_argument("password: it is kept by the user's realm"));
        }
        // For oneself these ask for the old password, or for a code: a session that was left open must not do without.
        if user == call.principal()?.user {
            if request.password.is_some() {
                return Err(Status::failed_precondition(
                    "password: your own is changed by AuthService/ChangePassword, which asks for the old one \
                     (`horcruxctl password`)",
                ));
            }
            if request.reset_second_factor {
                return Err(Status::failed_precondition(
                    "reset_second_factor: your own is removed by AuthService/RemoveTotp, which asks for a code of it or \
                     a recovery code (`horcruxctl totp remove`)",
                ));
            }
        }
        let disabled = request.disabled.filter(|disabled| *disabled != row.disabled);
        let changed = user.clone();
        let plan = call
            .plan(&self.0, |facts| {
                match disabled {
                    Some(true) => facts.users.remove(&changed),
                    Some(false) => facts.users.insert(changed),
                    None => false,
                };
                Ok(())
            })
            .await?;
        // With their password or without their second factor one can be who they are. While nobody changes what they hold.
        if request.password.is_some() || request.reset_second_factor {
            let covered = self.0.registry.covers(&call.who()?, &Who::User(user.clone()));
            covered.map_err(|escalation| call.escalates(&self.0, &escalation))?;
        }
        if disabled == Some(true) {
            keeps_an_administrator(&plan.after)?;
        }
        let password_hash = match request.password.map(|new| new_password("password", new)).transpose()? {
            Some(password) if !request.validate_only => {
                Some(self.0.sign_ins.hash(password, &call.principal()?.user).await?)
            }
            Some(_) | None => None,
        };
        let mut told = Vec::new();
        told.extend(disabled.map(|disabled| if disabled { "disable" } else { "enable" }));
        told.extend(password_hash.as_ref().map(|_| "new password"));
        told.extend(request.display_name.as_ref().map(|_| "display name"));
        told.extend(request.reset_second_factor.then_some("forget second factor"));
        let update = UserUpdate {
            display_name: request.display_name.map(|name| text("display_name", name)).transpose()?,
            password_hash,
            disabled,
            forget_factor: request.reset_second_factor,
        };
        let act = Act {
            resource: format!("users/{user}"),
            decision: call.decision(UserModify, &Path::access()),
            detail: told.join(", "),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let (app, id) = (Arc::clone(&self.0), user.clone());
        call.act(&self.0, act, async move {
            app.store.update_user(&id, &update).await?;
            plan.publish().await?;
            if update.ends_sessions() {
                app.sign_ins.challenges.forget(&id);
                app.sessions.told(Ended::AllOf { user: id, but: None });
            }
            Ok(())
        })
        .await?;
        Ok(Response::new(UserServiceUpdateResponse { user: Some(self.one(&user).await?) }))
    }

    async fn delete(
        &self,
        request: Request<UserServiceDeleteRequest>,
    ) -> Result<Response<UserServiceDeleteResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let user = user_id(&request.user)?;
        let exists = self.0.store.user(&user).await?.is_some();
        if !exists && !call.repeats(&self.0, &request.request_id).await? {
            return Err(no_user(&user));
        }
        let gone = user.clone();
        let plan = call
            .plan(&self.0, |facts| {
                facts.users.remove(&gone);
                facts.grants.retain(|grant| grant.subject != Subject::User(gone.clone()));
                Ok(())
            })
            .await?;
        keeps_an_administrator(&plan.after)?;
        let act = Act {
            resource: format!("users/{user}"),
            decision: call.decision(UserModify, &Path::access()),
            detail: "delete".to_owned(),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let app = Arc::clone(&self.0);
        call.act(&self.0, act, async move {
            app.store.delete_user(&user).await?;
            plan.publish().await?;
            app.sign_ins.challenges.forget(&user);
            app.sessions.told(Ended::AllOf { user, but: None });
            Ok(())
        })
        .await?;
        Ok(Response::new(UserServiceDeleteResponse {}))
    }

    async fn list_groups(
        &self,
        _: Request<ListGroupsRequest>,
    ) -> Result<Response<ListGroupsResponse>, Status> {
        Ok(Response::new(ListGroupsResponse { groups: self.0.groups().await? }))
    }

    async fn create_group(
        &self,
        request: Request<CreateGroupRequest>,
    ) -> Result<Response<CreateGroupResponse>, Status> {
        let call = Call::of(&request)?;
        let group = self.made_group(&call, request.into_inner()).await?;
        Ok(Response::new(CreateGroupResponse { group: Some(group) }))
    }

    async fn update_group(
        &self,
        request: Request<UpdateGroupRequest>,
    ) -> Result<Response<UpdateGroupResponse>, Status> {
        let call = Call::of(&request)?;
        let group = self.changed_group(&call, request.into_inner()).await?;
        Ok(Response::new(UpdateGroupResponse { group }))
    }

    async fn delete_group(
        &self,
        request: Request<DeleteGroupRequest>,
    ) -> Result<Response<DeleteGroupResponse>, Status> {
        let call = Call::of(&request)?;
        self.forget_group(&call, request.into_inner()).await?;
        Ok(Response::new(DeleteGroupResponse {}))
    }
}

impl Users {
    async fn users(&self) -> Result<Vec<User>, Status> {
        let policy = self.0.registry.policy();
        let factors: std::collections::HashMap<String, i64> =
            self.0.store.factors().await?.into_iter().collect();
        let rows = self.0.store.users().await?;
        let user = |row: UserRow| {
            let groups = row.id.parse().map(|id: UserId| policy.groups(&id).to_vec()).unwrap_or_default();
            User {
                second_factor: factors.contains_key(&row.id),
                second_factor_locked: factors.get(&row.id).is_some_and(|&n| n >= MAX_FAILURES),
                id: row.id,
                display_name: row.display_name,
                disabled: row.disabled,
                created_unix_ms: row.created_ms,
                last_sign_in_unix_ms: row.last_sign_in_ms,
                groups: groups.iter().map(ToString::to_string).collect(),
            }
        };
        Ok(rows.into_iter().map(user).collect())
    }

    async fn one(&self, id: &UserId) -> Result<User, Status> {
        let users = self.users().await?;
        users.into_iter().find(|user| user.id == id.as_str()).ok_or_else(|| no_user(id))
    }
}

/// A controller that nobody may administer can only be saved on its host.
pub(super) fn keeps_an_administrator(after: &Policy) -> Result<(), Status> {
    let now_ms = clock::unix_ms();
    let administers = |user: &UserId| {
        let rights = after.compile(&Who::User(user.clone()), now_ms);
        let access = Path::access();
        [UserModify, horcrux_proto::authz::Privilege::PermissionsModify]
            .into_iter()
            .all(|privilege| rights.allow(privilege, &access, after.labels()))
    };
    if after.facts().users.iter().any(administers) {
        return Ok(());
    }
    Err(Status::failed_precondition(
        "nobody would be left who may administer users and permissions: make another administrator first",
    ))
}

pub(super) fn no_user(user: &UserId) -> Status {
    Status::not_found(format!("the user {user} does not exist"))
}

pub(super) fn no_group(group: &GroupName) -> Status {
    Status::not_found(format!("the group {group} does not exist"))
}
