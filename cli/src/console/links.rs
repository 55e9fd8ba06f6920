//! `horcruxctl console link`.

use horcrux_proto::v1::guest_link_service_client::GuestLinkServiceClient;
use horcrux_proto::v1::{
    ConsoleKind, ConsoleMode, GuestLinkServiceCreateRequest, GuestLinkServiceListRequest,
    GuestLinkServiceRevokeRequest,
};

use super::resource;
use crate::App;
use crate::args::console::{LinkCommand, LinkCreateArgs};
use crate::change::{Deed, Run, request_id};
use crate::failure::Failure;
use crate::session::{MESSAGE_LIMIT, Session, Wire};
use crate::view::link::{GuestLinkListView, GuestLinkView, NewGuestLinkView};
use crate::view::shown;

impl App {
    pub(super) async fn guest_links(&self, session: &Session, command: LinkCommand) -> Result<(), Failure> {
        match command {
            LinkCommand::Create(args) => match create(session, &args).await? {
                Some(view) => {
                    self.say(&view.talk());
                    self.print(&view)
                }
                None => {
                    self.say(&format!("would make a guest link for {}", shown(&args.vm)));
                    Ok(())
                }
            },
            LinkCommand::List { vm } => {
                let vm = match vm {
                    Some(name) => resource(session, &name).await?,
                    None => String::new(),
                };
                let list = |wire, r| async move { on_links(wire).list(r).await };
                let answer = session.send(GuestLinkServiceListRequest { vm }, list).await?;
                self.print(&GuestLinkListView(answer.links.iter().map(GuestLinkView::from).collect()))
            }
            LinkCommand::Revoke { id, removal } => {
                let deed = Deed::new("revoke", "revoked", format!("the guest link {}", shown(&id)));
                let question =
                    format!("Revoke the guest link {}? Who came with it is thrown out.", shown(&id));
                self.remove(removal, &question, &deed, |run, request_id| {
                    let (name, validate_only) = (id.clone(), run.validate_only());
                    let request = GuestLinkServiceRevokeRequest { name, request_id, validate_only };
                    session.send(request, |wire, r| async move { on_links(wire).revoke(r).await })
                })
                .await
            }
        }
    }
}

/// `None`: it was only asked whether one would be made.
async fn create(session: &Session, args: &LinkCreateArgs) -> Result<Option<NewGuestLinkView>, Failure> {
    let run = Run::of(args.change);
    let kind = if args.serial { ConsoleKind::Serial } else { ConsoleKind::Vnc };
    let mode = if args.view { ConsoleMode::View } else { ConsoleMode::Control };
    let request = GuestLinkServiceCreateRequest {
        vm: resource(session, &args.vm).await?,
        kind: kind.into(),
        mode: mode.into(),
        // The parser lets a week through at most.
        ttl_seconds: u32::try_from(args.expires.as_secs()).unwrap_or(u32::MAX),
        comment: args.comment.clone(),
        request_id: request_id()?,
        validate_only: run.validate_only(),
    };
    let create = |wire, r| async move { on_links(wire).create(r).await };
    let answer = session.send(request, create).await?;
    let link = GuestLinkView::from(&answer.link.unwrap_or_default());
    Ok((run == Run::Change).then_some(NewGuestLinkView { url: answer.url, link }))
}

fn on_links(wire: Wire) -> GuestLinkServiceClient<Wire> {
    GuestLinkServiceClient::new(wire).max_decoding_message_size(MESSAGE_LIMIT)
}
