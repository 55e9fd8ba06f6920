//! GrantService: grants, roles, and what they come to.

use std::sync::Arc;

use horcrux_proto::authz::Privilege::{PermissionsModify, SysAudit, UserModify};
use horcrux_proto::name::Resource;
use horcrux_proto::v1::grant_service_server::GrantService;
use horcrux_proto::v1::{
    self, CreateRoleRequest, CreateRoleResponse, DeleteRoleRequest, DeleteRoleResponse,
    GrantServiceCreateRequest, GrantServiceCreateResponse, GrantServiceDeleteRequest,
    GrantServiceDeleteResponse, GrantServiceListRequest, GrantServiceListResponse, ListRolesRequest,
    ListRolesResponse, PrivilegeChange, UpdateRoleRequest, UpdateRoleResponse, WhatIfRequest, WhatIfResponse,
    WhyEffect, WhyRequest, WhyResponse, WhyStep, grant, grant_service_create_request,
    grant_service_list_request, why_request,
};
use horcrux_transport::clock;
use tonic::{Request, Response, Status};

use super::call::{Act, Call, path};
use super::fields::{group_name, role_name, user_id};
use super::guests::named_vm;
use super::roles::no_role;
use super::users::{keeps_an_administrator, no_group};
use crate::access::change::changes;
use crate::access::explain::{Effect, why};
use crate::access::keys::random_id;
use crate::access::path::Path;
use crate::access::policy::{Facts, Grant, Policy, Subject, Who};
use crate::access::principal::Principal;
use crate::access::privileges::Privileges;
use crate::access::signin::SignInError;
use crate::app::App;
use crate::live::page::page;

pub(super) struct Grants(pub(super) Arc<App>);

/// Changes that are told one by one.
const MAX_CHANGES: usize = 10_000;
const MAX_ASSUMED: usize = 100;

#[tonic::async_trait]
impl GrantService for Grants {
    async fn list(
        &self,
        request: Request<GrantServiceListRequest>,
    ) -> Result<Response<GrantServiceListResponse>, Status> {
        use grant_service_list_request::Subject as Asked;
        let request = request.into_inner();
        let subject = match request.subject {
            None => None,
            Some(Asked::User(user)) => Some(Subject::User(user_id(&user)?)),
            Some(Asked::Group(group)) => Some(Subject::Group(group_name(&group)?)),
            Some(Asked::Token(id)) => Some(Subject::Token(id.into())),
        };
        let on = (!request.path.is_empty()).then(|| path(&request.path)).transpose()?;
        let policy = self.0.registry.policy();
        let wanted = |grant: &&Grant| {
            subject.as_ref().is_none_or(|subject| *subject == grant.subject)
                && on.as_ref().is_none_or(|on| *on == grant.path)
        };
        let grants =
            policy.facts().grants.iter().filter(wanted).map(|g| (g.id.clone(), to_wire(g))).collect();
        let (grants, next_page_token) = page(grants, request.page_size, &request.page_token);
        let grants = grants.into_iter().map(|(_, grant)| grant).collect();
        Ok(Response::new(GrantServiceListResponse { grants, next_page_token }))
    }

    async fn create(
        &self,
        request: Request<GrantServiceCreateRequest>,
    ) -> Result<Response<GrantServiceCreateResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let on = path(&request.path)?;
        call.require(&self.0, PermissionsModify, &on)?;
        let grant = asked_for(&request, call.principal()?)?;
        self.require_to_name(&call, &grant.subject)?;
        if grant.not_after_ms.is_some_and(|end| end <= clock::unix_ms()) {
            return Err(Status::invalid_argument("not_after_unix_ms: it is past"));
        }
        let new = grant.clone();
        let planned =
            call.plan_once(&self.0, &request.request_id, |facts| match twin(facts, &new, clock::unix_ms()) {
                Some(there) => Err(exists(there, &new)),
                None => add(facts, new),
            });
        let planned = planned.await?;
        // While nobody else changes anything: the pool isn't deleted meanwhile.
        let absent = self.0.has_pool(&on).await.err();
        if let Some(absent) = &absent
            && !call.repeats(&self.0, &request.request_id).await?
        {
            return Err(absent.clone());
        }
        keeps_an_administrator(&planned.plan.after)?;
        let act = Act {
            resource: on.to_string(),
            decision: call.decision(PermissionsModify, &on),
            detail: described(&grant),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let (app, new) = (Arc::clone(&self.0), grant.clone());
        let done = call.act(&self.0, act, async move {
            let plan = planned.first()?;
            if let Some(absent) = absent {
                return Err(absent);
            }
            app.store.insert_grant(&new).await?;
            Ok(plan.publish().await?)
        });
        done.await?;
        // Repeated, it is there under the id that it got then.
        let policy = self.0.registry.policy();
        let same =
            |known: &&Grant| described(known) == described(&grant) && known.created_by == grant.created_by;
        let there = policy
            .facts()
            .grants
            .iter()
            .find(|g| g.id == grant.id)
            .or_else(|| policy.facts().grants.iter().find(same));
        Ok(Response::new(GrantServiceCreateResponse { grant: Some(to_wire(there.unwrap_or(&grant))) }))
    }

    async fn delete(
        &self,
        request: Request<GrantServiceDeleteRequest>,
    ) -> Result<Response<GrantServiceDeleteResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let policy = self.0.registry.policy();
        let absent = || Status::not_found("grant_id: no such grant, or its path is not yours");
        let known = policy.facts().grants.iter().find(|grant| grant.id == request.grant_id);
        let Some(grant) = known.cloned() else {
            // Who may remove every grant may know of each.
            call.require(&self.0, PermissionsModify, &Path::root()).map_err(|_| absent())?;
            return if call.repeats(&self.0, &request.request_id).await? {
                Ok(Response::new(GrantServiceDeleteResponse {}))
            } else {
                Err(absent())
            };
        };
        call.require(&self.0, PermissionsModify, &grant.path).map_err(|_| absent())?;
        let id = grant.id.clone();
        let plan = call
            .plan(&self.0, |facts| {
                facts.grants.retain(|grant| grant.id != id);
                Ok(())
            })
            .await?;
        keeps_an_administrator(&plan.after)?;
        let act = Act {
            resource: grant.path.to_string(),
            decision: call.decision(PermissionsModify, &grant.path),
            detail: format!("remove {}: {}", grant.id, described(&grant)),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let app = Arc::clone(&self.0);
        call.act(&self.0, act, async move {
            app.store.delete_grant(&grant.id).await?;
            Ok(plan.publish().await?)
        })
        .await?;
        Ok(Response::new(GrantServiceDeleteResponse {}))
    }

    async fn list_roles(&self, _: Request<ListRolesRequest>) -> Result<Response<ListRolesResponse>, Status> {
        Ok(Response::new(ListRolesResponse { roles: self.0.roles() }))
    }

    async fn create_role(
        &self,
        request: Request<CreateRoleRequest>,
    ) -> Result<Response<CreateRoleResponse>, Status> {
        let call = Call::of(&request)?;
        let role = self.made_role(&call, request.into_inner()).await?;
        Ok(Response::new(CreateRoleResponse { role: Some(role) }))
    }

    async fn update_role(
        &self,
        request: Request<UpdateRoleRequest>,
    ) -> Result<Response<UpdateRoleResponse>, Status> {
        let call = Call::of(&request)?;
        let role = self.changed_role(&call, request.into_inner()).await?;
        Ok(Response::new(UpdateRoleResponse { role: Some(role) }))
    }

    async fn delete_role(
        &self,
        request: Request<DeleteRoleRequest>,
    ) -> Result<Response<DeleteRoleResponse>, Status> {
        let call = Call::of(&request)?;
        self.forget_role(&call, request.into_inner()).await?;
        Ok(Response::new(DeleteRoleResponse {}))
    }

    async fn why(&self, request: Request<WhyRequest>) -> Result<Response<WhyResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let privilege = request.privilege();
        if Privileges::from_wire(&[request.privilege]).is_none() {
            return Err(Status::invalid_argument("privilege: it is not known here"));
        }
        let policy = self.0.registry.policy();
        let principal = call.principal()?;
        let who = match request.subject {
            None => principal.who(),
            Some(why_request::Subject::User(user)) => Who::User(user_id(&user)?),
            Some(why_request::Subject::Token(id)) => Who::Token(id.into()),
        };
        let own = match &who {
            Who::User(user) => *user == principal.user,
            Who::Token(id) => {
                policy.facts().tokens.get(id).is_some_and(|scope| scope.owner == principal.user)
            }
        };
        // A token is asked about itself alone: it was given less than its owner.
        let own = own && (principal.session().is_some() || who == principal.who());
        if !own {
            call.require(&self.0, SysAudit, &Path::access())?;
        }
        let at = match path(&request.path) {
            Ok(path) => path,
            Err(wrong) => match request.path.strip_prefix("/vms/") {
                Some(name) => Path::of(&named_vm(&self.0, principal, name).await?),
                None => return Err(wrong),
            },
        };
        let told = why(&policy, &who, privilege, &at, clock::unix_ms());
        let deciding = told.deciding().map(to_wire).collect();
        let step = |step: &crate::access::explain::Step| WhyStep {
            path: step.grant.path.to_string(),
            subject: step.grant.subject.to_string(),
            grant: Some(to_wire(&step.grant)),
            effect: effect(step.effect).into(),
        };
        Ok(Response::new(WhyResponse {
            allowed: told.allowed,
            path: at.to_string(),
            steps: told.steps.iter().map(step).collect(),
            grants: deciding,
            because: told.because,
        }))
    }

    async fn what_if(&self, request: Request<WhatIfRequest>) -> Result<Response<WhatIfResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        if request.add.len() + request.remove.len() > MAX_ASSUMED {
            return Err(Status::invalid_argument("add, remove: at most 100"));
        }
        let before = self.0.registry.policy();
        let mut facts = before.facts().clone();
        for id in &request.remove {
            let count = facts.grants.len();
            facts.grants.retain(|grant| grant.id != *id);
            if facts.grants.len() == count {
                return Err(Status::not_found(format!("remove: there is no grant {id}")));
            }
        }
        for assumed in &request.add {
            add(&mut facts, asked_for(assumed, call.principal()?)?)?;
        }
        let after = Policy::new(facts);
        let seen = self.0.objects(call.principal()?, |_, _| true).await?;
        let objects: Vec<Path> =
            seen.iter().filter_map(|(name, _)| format!("/{name}").parse().ok()).collect();
        // With many people and objects it takes a moment: not on a thread that serves others.
        let compared =
            tokio::task::spawn_blocking(move || changes(&before, &after, &objects, clock::unix_ms()));
        let all = compared.await.map_err(|_| Status::internal("internal error"))?;
        let more = u64::try_from(all.len().saturating_sub(MAX_CHANGES)).unwrap_or(u64::MAX);
        let told = all.into_iter().take(MAX_CHANGES).map(|change| PrivilegeChange {
            principal: change.who.to_string(),
            resource: change.path.to_string(),
            gained: change.gained.to_wire(),
            lost: change.lost.to_wire(),
        });
        Ok(Response::new(WhatIfResponse { changes: told.collect(), more }))
    }
}

impl Grants {
    /// Refuses, on record, to give something to somebody whom the caller may not see. Otherwise whoever may grant on one VM
    /// could ask who exists.
    fn require_to_name(&self, call: &Call, subject: &Subject) -> Result<(), Status> {
        let principal = call.principal()?;
        let (field, own) = match subject {
            Subject::User(user) => ("user", *user == principal.user),
            Subject::Group(group) => ("group", principal.policy.groups(&principal.user).contains(group)),
            Subject::Token(_) => ("token", false),
        };
        if own || principal.may(UserModify, &Path::access()) {
            return Ok(());
        }
        call.require(&self.0, SysAudit, &Path::access()).map_err(|status| {
            let why = status.message();
            Status::permission_denied(format!("{field}: who sees no others can name only themselves: {why}"))
        })
    }
}

impl App {
    /// Refuses a path that names a pool which doesn't exist. Other things may come later, and be prepared for.
    async fn has_pool(&self, path: &Path) -> Result<(), Status> {
        let Some(Resource::Pool(pool)) = path.resource() else { return Ok(()) };
        let exists = self.store.pools().await?.iter().any(|row| row.name == pool.as_str());
        exists.then_some(()).ok_or_else(|| {
            let make = format!("make it first (`horcruxctl pool create {pool}`)");
            Status::not_found(format!("path: the pool {pool} does not exist: {make}"))
        })
    }
}

/// The grant that a request describes.
fn asked_for(request: &GrantServiceCreateRequest, author: &Principal) -> Result<Grant, Status> {
    use grant_service_create_request::Subject as Asked;
    let subject = match &request.subject {
        Some(Asked::User(user)) => Subject::User(user_id(user)?),
        Some(Asked::Group(group)) => Subject::Group(group_name(group)?),
        None => return Err(Status::invalid_argument("subject: name a user or a group")),
    };
    Ok(Grant {
        id: random_id().map_err(SignInError::Key)?,
        subject,
        role: role_name(&request.role)?,
        path: path(&request.path)?,
        propagate: !request.no_propagate,
        not_after_ms: request.not_after_unix_ms,
        created_ms: clock::unix_ms(),
        created_by: author.user.to_string(),
    })
}

/// A grant that gives the same, and has not ended.
fn twin<'a>(facts: &'a Facts, new: &Grant, now_ms: i64) -> Option<&'a Grant> {
    facts.grants.iter().find(|known| {
        (&known.subject, &known.role, &known.path) == (&new.subject, &new.role, &new.path)
            && known.propagates() == new.propagates()
            && known.is_live(now_ms)
    })
}

fn exists(there: &Grant, new: &Grant) -> Status {
    let Grant { id, subject, role, path, .. } = there;
    let what = format!("the grant {id} gives {subject} {role} on {path} already");
    if there.not_after_ms == new.not_after_ms {
        return Status::already_exists(what);
    }
    Status::already_exists(format!(
        "{what}, with another end: remove it and grant again (`horcruxctl grant delete {id}`)"
    ))
}

/// Adds a grant whose role and subject exist.
pub(super) fn add(facts: &mut Facts, grant: Grant) -> Result<(), Status> {
    facts.role(&grant.role).ok_or_else(|| no_role(facts, &grant.role))?;
    match &grant.subject {
        Subject::User(user) if !facts.users.contains(user) => {
            return Err(Status::not_found(format!("the user {user} does not exist, or is disabled")));
        }
        Subject::Group(group) if !facts.members.contains_key(group) => return Err(no_group(group)),
        Subject::User(_) | Subject::Group(_) | Subject::Token(_) => {}
    }
    facts.grants.push(grant);
    Ok(())
}

/// A grant in one line.
pub(super) fn described(grant: &Grant) -> String {
    let Grant { subject, role, path, .. } = grant;
    let here = if grant.propagate { "" } else { ", not below" };
    let end = grant.not_after_ms.map(|end| format!(", until {end}")).unwrap_or_default();
    format!("{subject} {role} {path}{here}{end}")
}

pub(super) fn to_wire(grant: &Grant) -> v1::Grant {
    let subject = match &grant.subject {
        Subject::User(user) => grant::Subject::User(user.to_string()),
        Subject::Group(group) => grant::Subject::Group(group.to_string()),
        Subject::Token(id) => grant::Subject::Token(id.to_string()),
    };
    v1::Grant {
        id: grant.id.clone(),
        subject: Some(subject),
        role: grant.role.to_string(),
        path: grant.path.to_string(),
        propagate: grant.propagate,
        not_after_unix_ms: grant.not_after_ms,
        created_unix_ms: grant.created_ms,
        created_by: grant.created_by.clone(),
    }
}

fn effect(effect: Effect) -> WhyEffect {
    match effect {
        Effect::Allows => WhyEffect::Allows,
        Effect::Lacks => WhyEffect::Lacks,
        Effect::Denies => WhyEffect::Denies,
        Effect::Replaced => WhyEffect::Replaced,
        Effect::Overridden => WhyEffect::Overridden,
        Effect::NotPropagated => WhyEffect::NotPropagated,
        Effect::Expired => WhyEffect::Expired,
    }
}
