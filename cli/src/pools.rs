//! `horcruxctl pool` and `tag`.

use horcrux_proto::authz::Privilege;
use horcrux_proto::v1::pool_service_client::PoolServiceClient;
use horcrux_proto::v1::{
    ListTagsRequest, PoolServiceCreateRequest, PoolServiceDeleteRequest, PoolServiceListRequest,
    PoolServiceUpdateRequest, UpdateTagsRequest,
};
use horcrux_transport::clock;

use crate::App;
use crate::args::pool::{MembersArgs, PoolCommand, TagCommand, TagsArgs};
use crate::change::{Deed, Run, request_id};
use crate::consequence::{Going, grants_that_go};
use crate::failure::Failure;
use crate::place::{on_object, on_objects};
use crate::session::{MESSAGE_LIMIT, Session, Wire};
use crate::view::pool::{PoolListView, PoolView, TaggedListView, TaggedView};
use crate::view::{bare, shown};

impl App {
    pub async fn pools(&self, command: PoolCommand) -> Result<(), Failure> {
        let session = self.session().await?;
        match command {
            PoolCommand::List => {
                let pools = pools(&session).await?;
                self.print(&pools)?;
                let hint = "`horcruxctl pool create NAME` makes one";
                self.suggest(&session, pools.0.is_empty(), (Privilege::PoolAllocate, "/pools"), hint).await
            }
            PoolCommand::Create { name, comment, change } => {
                let run = Run::of(change);
                let deed = Deed::new("make", "made", format!("the pool {}", shown(&name)));
                let request = PoolServiceCreateRequest {
                    name,
                    comment: comment.unwrap_or_default(),
                    request_id: request_id()?,
                    validate_only: run.validate_only(),
                };
                let create = |wire, r| async move { on_pools(wire).create(r).await };
                let pool = session.send(request, create).await?.pool;
                self.done(run, &deed, pool.as_ref().map(PoolView::from).as_ref())
            }
            PoolCommand::Add(args) => {
                let add_members = on_objects(&session, &args.members).await?;
                let request = PoolServiceUpdateRequest { add_members, ..PoolServiceUpdateRequest::default() };
                members(self, &session, &args, ("put", "put", "into"), request).await
            }
            PoolCommand::Remove(args) => {
                let remove_members = on_objects(&session, &args.members).await?;
                let request =
                    PoolServiceUpdateRequest { remove_members, ..PoolServiceUpdateRequest::default() };
                members(self, &session, &args, ("take", "took", "out of"), request).await
            }
            PoolCommand::Delete { name, removal } => {
                let pool = shown(&name);
                let deed = Deed::new("delete", "deleted", format!("the pool {pool}"));
                let question = format!("Delete the pool {pool} and the grants on it? Its members stay.");
                let with =
                    async || grants_that_go(&session, &Going::Pool(bare(&name)), clock::unix_ms()).await;
                self.remove_with(removal, &question, &deed, with, |run, request_id| {
                    let (name, validate_only) = (name.clone(), run.validate_only());
                    let request = PoolServiceDeleteRequest { name, request_id, validate_only };
                    session.send(request, |wire, r| async move { on_pools(wire).delete(r).await })
                })
                .await
                .map(drop)
            }
        }
    }

    pub async fn tags(&self, command: TagCommand) -> Result<(), Failure> {
        let session = self.session().await?;
        match command {
            TagCommand::List { tag } => {
                self.print(&tagged(&session, tag.as_deref().unwrap_or_default()).await?)
            }
            TagCommand::Add(args) => {
                let request = UpdateTagsRequest { add: args.tags.clone(), ..UpdateTagsRequest::default() };
                tag(self, &session, &args, ("add", "added", "to"), request).await
            }
            TagCommand::Remove(args) => {
                let request = UpdateTagsRequest { remove: args.tags.clone(), ..UpdateTagsRequest::default() };
                tag(self, &session, &args, ("remove", "removed", "from"), request).await
            }
        }
    }
}

pub async fn pools(session: &Session) -> Result<PoolListView, Failure> {
    let list = |wire, r| async move { on_pools(wire).list(r).await };
    let answer = session.send(PoolServiceListRequest {}, list).await?;
    Ok(PoolListView(answer.pools.iter().map(PoolView::from).collect()))
}

pub async fn tagged(session: &Session, tag: &str) -> Result<TaggedListView, Failure> {
    let list = |wire, r| async move { on_pools(wire).list_tags(r).await };
    let answer = session.send(ListTagsRequest { tag: tag.to_owned() }, list).await?;
    Ok(TaggedListView(answer.objects.iter().map(TaggedView::from).collect()))
}

async fn members(
    app: &App,
    session: &Session,
    args: &MembersArgs,
    (plain, past, way): (&'static str, &'static str, &str),
    request: PoolServiceUpdateRequest,
) -> Result<(), Failure> {
    let run = Run::of(args.change);
    let what = format!("{} {way} the pool {}", shown(&args.members.join(", ")), shown(&args.name));
    let (name, request_id, validate_only) = (args.name.clone(), request_id()?, run.validate_only());
    let request = PoolServiceUpdateRequest { name, request_id, validate_only, ..request };
    let update = |wire, r| async move { on_pools(wire).update(r).await };
    let pool = session.send(request, update).await?.pool;
    app.done(run, &Deed::new(plain, past, what), pool.as_ref().map(PoolView::from).as_ref())
}

async fn tag(
    app: &App,
    session: &Session,
    args: &TagsArgs,
    (plain, past, way): (&'static str, &'static str, &str),
    request: UpdateTagsRequest,
) -> Result<(), Failure> {
    let run = Run::of(args.change);
    let noun = if args.tags.len() == 1 { "the tag" } else { "the tags" };
    let what = format!("{noun} {} {way} {}", shown(&args.tags.join(", ")), shown(&args.resource));
    let name = on_object(session, &args.resource).await?;
    let (request_id, validate_only) = (request_id()?, run.validate_only());
    let request = UpdateTagsRequest { name, request_id, validate_only, ..request };
    let update = |wire, r| async move { on_pools(wire).update_tags(r).await };
    let object = session.send(request, update).await?.object;
    app.done(run, &Deed::new(plain, past, what), object.as_ref().map(TaggedView::from).as_ref())
}

fn on_pools(wire: Wire) -> PoolServiceClient<Wire> {
    PoolServiceClient::new(wire).max_decoding_message_size(MESSAGE_LIMIT)
}
