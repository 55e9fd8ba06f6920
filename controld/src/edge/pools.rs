//! PoolService: pools and tags.

use std::collections::BTreeSet;
use std::sync::Arc;

use horcrux_proto::authz::Privilege::{self, NodeModify, PoolAllocate, VmConfig};
use horcrux_proto::name::{InvalidField, PoolName, Resource};
use horcrux_proto::v1::pool_service_server::PoolService;
use horcrux_proto::v1::{
    ListTagsRequest, ListTagsResponse, Pool, PoolServiceCreateRequest, PoolServiceCreateResponse,
    PoolServiceDeleteRequest, PoolServiceDeleteResponse, PoolServiceListRequest, PoolServiceListResponse,
    PoolServiceUpdateRequest, PoolServiceUpdateResponse, Tagged, UpdateTagsRequest, UpdateTagsResponse,
};
use horcrux_transport::clock;
use tonic::{Request, Response, Status};

use super::call::{Act, Call, absent};
use super::fields::{listed, text};
use super::guests::named_vm;
use crate::access::path::{Path, Tag};
use crate::access::principal::Principal;
use crate::access::rights::Labels;
use crate::app::{App, sees};

pub(super) struct Pools(pub(super) Arc<App>);

const MAX_MEMBERS: usize = 1000;
/// On one object.
const MAX_TAGS: usize = 50;

#[tonic::async_trait]
impl PoolService for Pools {
    async fn list(
        &self,
        request: Request<PoolServiceListRequest>,
    ) -> Result<Response<PoolServiceListResponse>, Status> {
        let call = Call::of(&request)?;
        let principal = call.principal()?;
        let all = self.0.store.pools().await?;
        let pools = all.into_iter().filter_map(|row| shown(principal, &row.name, &row.comment)).collect();
        Ok(Response::new(PoolServiceListResponse { pools }))
    }

    async fn create(
        &self,
        request: Request<PoolServiceCreateRequest>,
    ) -> Result<Response<PoolServiceCreateResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let (pool, at) = pool(&request.name)?;
        call.require(&self.0, PoolAllocate, &at)?;
        let comment = text("comment", request.comment)?;
        // Nobody else makes or deletes one meanwhile.
        let plan = call.plan(&self.0, |_| Ok(())).await?;
        let exists = self.comment(&pool).await?.is_some();
        let taken = exists.then(|| Status::already_exists(format!("name: pools/{pool} exists already")));
        if let Some(taken) = &taken
            && !call.repeats(&self.0, &request.request_id).await?
        {
            return Err(taken.clone());
        }
        let act = Act {
            resource: format!("pools/{pool}"),
            decision: call.decision(PoolAllocate, &at),
            detail: "create".to_owned(),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let (app, name, told) = (Arc::clone(&self.0), pool.to_string(), comment.clone());
        let done = call.act(&self.0, act, async move {
            // It was another request that made it.
            if let Some(taken) = taken {
                return Err(taken);
            }
            app.store.put_pool(&name, &told, &[], &[], clock::unix_ms()).await?;
            Ok(plan.publish().await?)
        });
        done.await?;
        let pool = Pool { name: format!("pools/{pool}"), comment, members: Vec::new() };
        Ok(Response::new(PoolServiceCreateResponse { pool: Some(pool) }))
    }

    async fn update(
        &self,
        request: Request<PoolServiceUpdateRequest>,
    ) -> Result<Response<PoolServiceUpdateResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let (pool, at) = pool(&request.name)?;
        self.require(&call, &at)?;
        if request.add_members.len() + request.remove_members.len() > MAX_MEMBERS {
            return Err(Status::invalid_argument("add_members, remove_members: at most 1000"));
        }
        let comment = request.comment.map(|comment| text("comment", comment)).transpose()?;
        let (mut add, mut remove) = (Vec::new(), Vec::new());
        // All of it is checked before any of it is done.
        for name in &request.add_members {
            add.push(self.changeable(&call, name, Existing::Must).await?);
        }
        for name in &request.remove_members {
            remove.push(self.changeable(&call, name, Existing::May).await?);
        }
        let plan = call
            .plan(&self.0, |facts| {
                let mut pools = facts.labels.pools.clone();
                for member in &add {
                    pools.entry(member.clone()).or_default().insert(pool.clone());
                }
                for member in &remove {
                    pools.entry(member.clone()).or_default().remove(&pool);
                }
                facts.labels = Arc::new(Labels::new(facts.labels.tags.clone(), pools));
                Ok(())
            })
            .await?;
        // While nobody else changes anything: it isn't deleted meanwhile.
        let told = self.comment(&pool).await?.ok_or_else(|| absent(&format!("pools/{pool}")))?;
        let comment = comment.unwrap_or(told);
        let act = Act {
            resource: format!("pools/{pool}"),
            decision: call.decision(PoolAllocate, &at),
            detail: format!("add: {}; remove: {}", listed(&add), listed(&remove)),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let (app, name, told) = (Arc::clone(&self.0), pool.to_string(), comment.clone());
        let done = call.act(&self.0, act, async move {
            app.store.put_pool(&name, &told, &add, &remove, clock::unix_ms()).await?;
            Ok(plan.publish().await?)
        });
        done.await?;
        let principal = call.principal()?;
        let now = Principal { policy: self.0.registry.policy(), ..principal.clone() };
        Ok(Response::new(PoolServiceUpdateResponse { pool: shown(&now, pool.as_str(), &comment) }))
    }

    async fn delete(
        &self,
        request: Request<PoolServiceDeleteRequest>,
    ) -> Result<Response<PoolServiceDeleteResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let (pool, at) = pool(&request.name)?;
        self.require(&call, &at)?;
        let exists = self.comment(&pool).await?.is_some();
        if !exists && !call.repeats(&self.0, &request.request_id).await? {
            return Err(absent(&format!("pools/{pool}")));
        }
        let plan = call
            .plan(&self.0, |facts| {
                let mut pools = facts.labels.pools.clone();
                for of in pools.values_mut() {
                    of.remove(&pool);
                }
                facts.labels = Arc::new(Labels::new(facts.labels.tags.clone(), pools));
                facts.grants.retain(|grant| grant.path != at);
                Ok(())
            })
            .await?;
        super::users::keeps_an_administrator(&plan.after)?;
        let act = Act {
            resource: format!("pools/{pool}"),
            decision: call.decision(PoolAllocate, &at),
            detail: "delete".to_owned(),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let app = Arc::clone(&self.0);
        call.act(&self.0, act, async move {
            app.store.delete_pool(pool.as_str()).await?;
            Ok(plan.publish().await?)
        })
        .await?;
        Ok(Response::new(PoolServiceDeleteResponse {}))
    }

    async fn list_tags(
        &self,
        request: Request<ListTagsRequest>,
    ) -> Result<Response<ListTagsResponse>, Status> {
        let call = Call::of(&request)?;
        let tag = request.into_inner().tag;
        let tag = (!tag.is_empty()).then(|| tag_of(&tag)).transpose()?;
        let principal = call.principal()?;
        let labels = principal.policy.labels();
        let wanted =
            |tags: &BTreeSet<Tag>| !tags.is_empty() && tag.as_ref().is_none_or(|tag| tags.contains(tag));
        let seen = labels.tags.iter().filter(|(object, tags)| wanted(tags) && is_seen(principal, object));
        let objects = seen.map(|(object, tags)| tagged(object, tags)).collect();
        Ok(Response::new(ListTagsResponse { objects }))
    }

    async fn update_tags(
        &self,
        request: Request<UpdateTagsRequest>,
    ) -> Result<Response<UpdateTagsResponse>, Status> {
        let call = Call::of(&request)?;
        let request = request.into_inner();
        let tags = |all: &[String]| all.iter().map(|tag| tag_of(tag)).collect::<Result<BTreeSet<_>, _>>();
        let (add, remove) = (tags(&request.add)?, tags(&request.remove)?);
        let object = self.changeable(&call, &request.name, Existing::Must).await?;
        let mut now = BTreeSet::new();
        let plan = call
            .plan(&self.0, |facts| {
                let mut all = facts.labels.tags.clone();
                let of = all.entry(object.clone()).or_default();
                of.extend(add.iter().cloned());
                of.retain(|tag| !remove.contains(tag));
                if of.len() > MAX_TAGS {
                    return Err(Status::failed_precondition(format!(
                        "add: an object has {MAX_TAGS} tags at most"
                    )));
                }
                now.clone_from(of);
                facts.labels = Arc::new(Labels::new(all, facts.labels.pools.clone()));
                Ok(())
            })
            .await?;
        let needed = changes_by(&object);
        let act = Act {
            resource: object.to_string(),
            decision: call.decision(needed, &Path::of(&object)),
            detail: format!("add tags: {}; remove tags: {}", listed(&add), listed(&remove)),
            request_id: request.request_id,
            validate_only: request.validate_only,
        };
        let (app, of) = (Arc::clone(&self.0), object.clone());
        let done = call.act(&self.0, act, async move {
            let texts = |all: &BTreeSet<Tag>| all.iter().map(ToString::to_string).collect::<Vec<_>>();
            app.store.put_tags(&of, &texts(&add), &texts(&remove)).await?;
            Ok(plan.publish().await?)
        });
        done.await?;
        Ok(Response::new(UpdateTagsResponse { object: Some(tagged(&object, &now)) }))
    }
}

/// Whether an object must exist now: one that is gone may still be taken out of a pool.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    Must,
    May,
}

impl Pools {
    /// Refuses a change of a pool; who holds nothing there hears that it is absent.
    fn require(&self, call: &Call, at: &Path) -> Result<(), Status> {
        let principal = call.principal()?;
        if principal.rights.on(at, principal.policy.labels()).is_empty() {
            return call.require_to_know(&self.0, PoolAllocate, at);
        }
        call.require(&self.0, PoolAllocate, at)
    }

    async fn comment(&self, pool: &PoolName) -> Result<Option<String>, Status> {
        let pools = self.0.store.pools().await?;
        Ok(pools.into_iter().find(|row| row.name == pool.as_str()).map(|row| row.comment))
    }

    /// An object that the caller may label.
    async fn changeable(&self, call: &Call, name: &str, existing: Existing) -> Result<Resource, Status> {
        let object = match (name.parse::<Resource>(), name.strip_prefix("vms/")) {
            (Ok(object), _) => object,
            (Err(_), Some(vm)) => named_vm(&self.0, call.principal()?, vm).await?,
            (Err(error), None) => return Err(Status::invalid_argument(error.to_string())),
        };
        let Some(seeing) = sees(&object) else {
            return Err(Status::invalid_argument("name: expected nodes/…, vms/… or containers/…"));
        };
        call.require_on(&self.0, changes_by(&object), seeing, &Path::of(&object))?;
        let wanted = object.clone();
        let exists = self.0.live.ask(move |fleet| fleet.find(&wanted).is_some()).await?;
        if exists || existing == Existing::May { Ok(object) } else { Err(absent(&object.to_string())) }
    }
}

/// The privilege by which an object's labels are changed.
fn changes_by(object: &Resource) -> Privilege {
    match object {
        Resource::Node(_) => NodeModify,
        Resource::Root | Resource::Vm(_) | Resource::Container(..) | Resource::Pool(_) => VmConfig,
    }
}

fn is_seen(principal: &Principal, object: &Resource) -> bool {
    sees(object).is_some_and(|privilege| principal.may(privilege, &Path::of(object)))
}

/// A pool as the principal may know it: who may neither fill it nor see anything in it doesn't know of it.
fn shown(principal: &Principal, name: &str, comment: &str) -> Option<Pool> {
    let (pool, at) = pool(name).ok()?;
    let members: Vec<String> = principal
        .policy
        .labels()
        .pools
        .iter()
        .filter(|(object, pools)| pools.contains(&pool) && is_seen(principal, object))
        .map(|(object, _)| object.to_string())
        .collect();
    let holds = !principal.rights.on(&at, principal.policy.labels()).is_empty();
    (holds || !members.is_empty()).then(|| Pool {
        name: format!("pools/{pool}"),
        comment: comment.to_owned(),
        members,
    })
}

fn tagged(object: &Resource, tags: &BTreeSet<Tag>) -> Tagged {
    Tagged { name: object.to_string(), tags: tags.iter().map(ToString::to_string).collect() }
}

/// `pools/POOL` or a bare name, with the path of its grants.
fn pool(text: &str) -> Result<(PoolName, Path), Status> {
    let wrong = |error: InvalidField| Status::invalid_argument(error.to_string());
    let pool: PoolName = text.strip_prefix("pools/").unwrap_or(text).parse().map_err(wrong)?;
    let at = Path::of(&Resource::Pool(pool.clone()));
    Ok((pool, at))
}

fn tag_of(text: &str) -> Result<Tag, Status> {
    text.parse().map_err(|error: InvalidField| Status::invalid_argument(error.to_string()))
}
