//! UserService: people and groups.

use std::collections::BTreeSet;
use std::sync::Arc;

use horcrux_proto::authz::Privilege::UserModify;
use horcrux_proto::name::InvalidField;
use horcrux_proto::v1::user_service_server::UserService;
use horcrux_proto::v1::{
    CreateGroupRequest, CreateGroupResponse, DeleteGroupRequest, DeleteGroupResponse, Group,
    ListGroupsRequest, ListGroupsResponse, UpdateGroupRequest, UpdateGroupResponse, User,
    UserServiceCreateRequest, UserServiceCreateResponse, UserServiceDeleteRequest, UserServiceDeleteResponse,
    UserServiceListRequest, UserServiceListResponse, UserServiceUpdateRequest, UserServiceUpdateResponse,
};
use horcrux_transport::clock;
use horcrux_transport::secret::Secret;
use tonic::{Request, Response, Status};

use super::call::{Act, Call, Done};
use super::page::page;
use crate::access::factors::MAX_FAILURES;
use crate::access::name::{GroupName, UserId};
use crate::access::password::{MAX_BYTES, MIN_CHARS};
use crate::access::path::Path;
use crate::access::policy::{Policy, Subject, Who};
use crate::access::sessions::Ended;
use crate::app::App;
use crate::store::users::{UserRow, UserUpdate};

pub(super) struct Users(pub(super) Arc<App>);

const MAX_TEXT: usize = 256;
const MAX_MEMBERS: usize = 1000;

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
            (true, _) => Some(new_password(request.password)?),
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
        // With their password or without their second factor one can be who they are.
        if request.password.is_some() || request.reset_second_factor {
            let covered = self.0.registry.covers(&call.who()?, &Who::User(user.clone()));
            covered.map_err(|escalation| call.escalates(&self.0, &escalation))?;
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
        if disabled == Some(true) {
            keeps_an_administrator(&plan.after)?;
        }
        let password_hash = match request.password.map(new_password).transpose()? {
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
        let request = request.into_inner();
        let name = group_name(&request.name)?;
        let comment = text("comment", request.comment)?;
        if let Some(realm) = name.realm()
            && self.0.sign_ins.realm(realm).is_none()
        {
            return Err(Status::invalid_argument(format!("name: there is no realm {realm}")));
        }
        let taken = self.0.registry.policy().facts().members.contains_key(&name);
        if taken && !call.repeats(&self.0, &request.request_id).await? {
            return Err(Status::already_exists(format!("name: the group {name} exists already")));
        }
        let new = name.clone();
        let plan = call
            .plan(&self.0, |facts| {
                facts.members.entry(new).or_default();
                Ok(())
            })
            .await?;
        let act = Act {
            resource: format!("groups/{name}"),
            decision: call.decision(UserModify, &Path::access()),
            detail: "create".to_owned(),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let (app, new, told) = (Arc::clone(&self.0), name.clone(), comment.clone());
        let done = call.act(&self.0, act, async move {
            app.put_members(&new, Some(told), &BTreeSet::new()).await?;
            Ok(plan.publish().await?)
        });
        done.await?;
        let group = Group { name: name.to_string(), comment, members: Vec::new() };
        Ok(Response::new(CreateGroupResponse { group: Some(group) }))
    }

    async fn update_group(
        &self,
        request: Request<UpdateGroupRequest>,
    ) -> Result<Response<UpdateGroupResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
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
        let group = groups.into_iter().find(|group| group.name == name.as_str());
        Ok(Response::new(UpdateGroupResponse { group }))
    }

    async fn delete_group(
        &self,
        request: Request<DeleteGroupRequest>,
    ) -> Result<Response<DeleteGroupResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let name = group_name(&request.name)?;
        let gone = name.clone();
        let repeated = call.repeats(&self.0, &request.request_id).await?;
        let plan = call
            .plan(&self.0, |facts| {
                if facts.members.remove(&gone).is_none() && !repeated {
                    return Err(no_group(&gone));
                }
                facts.grants.retain(|grant| grant.subject != Subject::Group(gone.clone()));
                Ok(())
            })
            .await?;
        keeps_an_administrator(&plan.after)?;
        let act = Act {
            resource: format!("groups/{name}"),
            decision: call.decision(UserModify, &Path::access()),
            detail: "delete".to_owned(),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let app = Arc::clone(&self.0);
        call.act(&self.0, act, async move {
            app.store.delete_group(&name).await?;
            Ok(plan.publish().await?)
        })
        .await?;
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

pub(super) fn user_id(text: &str) -> Result<UserId, Status> {
    text.parse().map_err(|error: InvalidField| Status::invalid_argument(error.to_string()))
}

pub(super) fn group_name(text: &str) -> Result<GroupName, Status> {
    text.parse().map_err(|error: InvalidField| Status::invalid_argument(error.to_string()))
}

fn local_group(text: &str) -> Result<GroupName, Status> {
    let group = group_name(text)?;
    match group.realm() {
        None => Ok(group),
        Some(_) => {
            Err(Status::failed_precondition(format!("groups: who is in {group} is said by its realm")))
        }
    }
}

pub(super) fn no_user(user: &UserId) -> Status {
    Status::not_found(format!("the user {user} does not exist"))
}

pub(super) fn no_group(group: &GroupName) -> Status {
    Status::not_found(format!("the group {group} does not exist"))
}

/// Text that a person wrote for people.
pub(super) fn text(field: &str, text: String) -> Result<String, Status> {
    if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
        return Err(Status::invalid_argument(format!(
            "{field}: at most {MAX_TEXT} bytes, no control characters"
        )));
    }
    Ok(text)
}

pub(super) fn new_password(password: String) -> Result<Secret, Status> {
    if password.chars().count() < MIN_CHARS {
        return Err(Status::invalid_argument(format!("password: at least {MIN_CHARS} characters")));
    }
    if password.len() > MAX_BYTES {
        return Err(Status::invalid_argument(format!("password: at most {MAX_BYTES} bytes")));
    }
    Ok(Secret::from(password))
}

pub(super) fn listed<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    all.into_iter().map(|one| one.to_string()).collect::<Vec<_>>().join(" ")
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
    async fn put_members(
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
