//! `horcruxctl user` and `group`.

use horcrux_proto::authz::Privilege;
use horcrux_proto::v1::user_service_client::UserServiceClient;
use horcrux_proto::v1::{
    CreateGroupRequest, DeleteGroupRequest, ListGroupsRequest, UpdateGroupRequest, UserServiceCreateRequest,
    UserServiceDeleteRequest, UserServiceListRequest, UserServiceUpdateRequest,
};
use horcrux_transport::clock;

use crate::App;
use crate::args::access::{GroupCommand, MembershipArgs, UserCommand, UserCreateArgs};
use crate::args::change::ChangeArgs;
use crate::change::{Deed, Run, request_id};
use crate::consequence::{Going, grants_that_go};
use crate::failure::Failure;
use crate::login::caller;
use crate::pages;
use crate::prompt;
use crate::session::{MESSAGE_LIMIT, Session, Wire};
use crate::user::identity;
use crate::view::people::{GroupListView, GroupView, UserListView, UserView};
use crate::view::shown;

const OWN_PASSWORD: &str = "`horcruxctl password` changes your own password";
const OWN_FACTOR: &str = "`horcruxctl totp remove` removes your own second factor, with a code of it or a recovery \
                          code; `horcruxctl totp setup` sets one up";

impl App {
    pub async fn users(&self, command: UserCommand) -> Result<(), Failure> {
        let session = self.session().await?;
        match command {
            UserCommand::List => self.print(&users(&session).await?),
            UserCommand::Create(args) => create(self, &session, &args).await,
            UserCommand::Disable { user, removal } => {
                let name = shown(&user.user);
                let deed = Deed::new("disable", "disabled", name.clone());
                let question =
                    format!("Disable {name}? Their sessions end, and their API tokens stop working.");
                let none = async || Ok(String::new());
                let answer = self.remove_with(removal, &question, &deed, none, |run, request_id| {
                    let request = UserServiceUpdateRequest {
                        user: user.user.clone(),
                        disabled: Some(true),
                        request_id,
                        validate_only: run.validate_only(),
                        ..UserServiceUpdateRequest::default()
                    };
                    session.send(request, |wire, r| async move { on_users(wire).update(r).await })
                });
                match (answer.await?.user, Run::of(removal.change)) {
                    (Some(user), Run::Change) => self.print(&UserView::from(&user)),
                    (Some(_) | None, _) => Ok(()),
                }
            }
            UserCommand::Enable { user, change } => {
                let request = UserServiceUpdateRequest {
                    user: user.user,
                    disabled: Some(false),
                    ..UserServiceUpdateRequest::default()
                };
                update(self, &session, change, ("enable", "enabled"), request).await
            }
            UserCommand::SetPassword { user, password, change } => {
                somebody_else(&session, &user.user, OWN_PASSWORD).await?;
                let file = password.password_file.as_deref();
                let password = prompt::new_password("new password", file, "--password-file F")?;
                let request = UserServiceUpdateRequest {
                    user: user.user,
                    password: Some(password.expose().to_owned()),
                    ..UserServiceUpdateRequest::default()
                };
                update(self, &session, change, ("set the password of", "set the password of"), request).await
            }
            UserCommand::ResetSecondFactor { user, removal } => {
                somebody_else(&session, &user.user, OWN_FACTOR).await?;
                let name = shown(&user.user);
                let deed = Deed::new("forget", "forgot", format!("the second factor of {name}"));
                let question = format!(
                    "Forget the second factor of {name}? Until they set up another, their password is enough."
                );
                self.remove(removal, &question, &deed, |run, request_id| {
                    let request = UserServiceUpdateRequest {
                        user: user.user.clone(),
                        reset_second_factor: true,
                        request_id,
                        validate_only: run.validate_only(),
                        ..UserServiceUpdateRequest::default()
                    };
                    session.send(request, |wire, r| async move { on_users(wire).update(r).await })
                })
                .await
            }
            UserCommand::Delete { user, removal } => {
                let name = shown(&user.user);
                let deed = Deed::new("delete", "deleted", format!("the user {name}"));
                let question =
                    format!("Delete the user {name} with their sessions, tokens, memberships and grants?");
                let id = identity(&user.user);
                let with = async || grants_that_go(&session, &Going::User(&id), clock::unix_ms()).await;
                self.remove_with(removal, &question, &deed, with, |run, request_id| {
                    let (user, validate_only) = (user.user.clone(), run.validate_only());
                    let request = UserServiceDeleteRequest { user, request_id, validate_only };
                    session.send(request, |wire, r| async move { on_users(wire).delete(r).await })
                })
                .await
                .map(drop)
            }
        }
    }

    pub async fn groups(&self, command: GroupCommand) -> Result<(), Failure> {
        let session = self.session().await?;
        match command {
            GroupCommand::List => {
                let groups = groups(&session).await?;
                self.print(&groups)?;
                let hint = "`horcruxctl group create NAME` makes one";
                self.suggest(&session, groups.0.is_empty(), (Privilege::UserModify, "/access"), hint).await
            }
            GroupCommand::Create { name, comment, change } => {
                let run = Run::of(change);
                let deed = Deed::new("make", "made", format!("the group {}", shown(&name)));
                let request = CreateGroupRequest {
                    name,
                    comment: comment.unwrap_or_default(),
                    request_id: request_id()?,
                    validate_only: run.validate_only(),
                };
                let create = |wire, r| async move { on_users(wire).create_group(r).await };
                let group = session.send(request, create).await?.group;
                self.done(run, &deed, group.as_ref().map(GroupView::from).as_ref())
            }
            GroupCommand::Add(args) => {
                let add_members = args.users.clone();
                let request = UpdateGroupRequest { add_members, ..UpdateGroupRequest::default() };
                membership(self, &session, &args, ("add", "added", "to"), request).await
            }
            GroupCommand::Remove(args) => {
                let remove_members = args.users.clone();
                let request = UpdateGroupRequest { remove_members, ..UpdateGroupRequest::default() };
                membership(self, &session, &args, ("remove", "removed", "from"), request).await
            }
            GroupCommand::Delete { name, removal } => {
                let group = shown(&name);
                let deed = Deed::new("delete", "deleted", format!("the group {group}"));
                let question = format!("Delete the group {group} and its grants?");
                let with = async || grants_that_go(&session, &Going::Group(&name), clock::unix_ms()).await;
                self.remove_with(removal, &question, &deed, with, |run, request_id| {
                    let (name, validate_only) = (name.clone(), run.validate_only());
                    let request = DeleteGroupRequest { name, request_id, validate_only };
                    session.send(request, |wire, r| async move { on_users(wire).delete_group(r).await })
                })
                .await
                .map(drop)
            }
        }
    }
}

pub async fn users(session: &Session) -> Result<UserListView, Failure> {
    let all = pages::all(|page_token| async {
        let request = UserServiceListRequest { page_size: 0, page_token };
        let list = |wire, r| async move { on_users(wire).list(r).await };
        session.send(request, list).await.map(|page| (page.users, page.next_page_token))
    })
    .await?;
    Ok(UserListView(all.iter().map(UserView::from).collect()))
}

pub async fn groups(session: &Session) -> Result<GroupListView, Failure> {
    let list = |wire, r| async move { on_users(wire).list_groups(r).await };
    let answer = session.send(ListGroupsRequest {}, list).await?;
    Ok(GroupListView(answer.groups.iter().map(GroupView::from).collect()))
}

/// What one does to others as an administrator is not how one's own is changed.
pub async fn somebody_else(session: &Session, user: &str, instead: &str) -> Result<(), Failure> {
    if caller(session).await?.user == identity(user) {
        return Err(Failure::Usage(format!("{} is you: {instead}", shown(user))));
    }
    Ok(())
}

async fn create(app: &App, session: &Session, args: &UserCreateArgs) -> Result<(), Failure> {
    let user = args.user.user.clone();
    let file = args.password_file.as_deref();
    // Other realms keep their users' passwords themselves.
    let is_local = user.rsplit_once('@').is_none_or(|(_, realm)| realm == "local");
    let password = match (is_local, file) {
        (true, _) => prompt::new_password("password", file, "--password-file F")?.expose().to_owned(),
        (false, None) => String::new(),
        (false, Some(_)) => {
            return Err(Failure::Usage(format!("{user} is not local: their realm has their password")));
        }
    };
    let run = Run::of(args.change);
    let deed = Deed::new("make", "made", format!("the user {}", shown(&user)));
    let request = UserServiceCreateRequest {
        user,
        display_name: args.display_name.clone().unwrap_or_default(),
        password,
        groups: args.groups.clone(),
        request_id: request_id()?,
        validate_only: run.validate_only(),
    };
    let create = |wire, r| async move { on_users(wire).create(r).await };
    let user = session.send(request, create).await?.user;
    app.done(run, &deed, user.as_ref().map(UserView::from).as_ref())
}

async fn update(
    app: &App,
    session: &Session,
    change: ChangeArgs,
    (plain, past): (&'static str, &'static str),
    request: UserServiceUpdateRequest,
) -> Result<(), Failure> {
    let run = Run::of(change);
    let deed = Deed::new(plain, past, shown(&request.user));
    let (request_id, validate_only) = (request_id()?, run.validate_only());
    let request = UserServiceUpdateRequest { request_id, validate_only, ..request };
    let update = |wire, r| async move { on_users(wire).update(r).await };
    let user = session.send(request, update).await?.user;
    app.done(run, &deed, user.as_ref().map(UserView::from).as_ref())
}

async fn membership(
    app: &App,
    session: &Session,
    args: &MembershipArgs,
    (plain, past, way): (&'static str, &'static str, &str),
    request: UpdateGroupRequest,
) -> Result<(), Failure> {
    let run = Run::of(args.change);
    let what = format!("{} {way} the group {}", shown(&args.users.join(", ")), shown(&args.name));
    let (name, request_id, validate_only) = (args.name.clone(), request_id()?, run.validate_only());
    let request = UpdateGroupRequest { name, request_id, validate_only, ..request };
    let update = |wire, r| async move { on_users(wire).update_group(r).await };
    let group = session.send(request, update).await?.group;
    app.done(run, &Deed::new(plain, past, what), group.as_ref().map(GroupView::from).as_ref())
}

fn on_users(wire: Wire) -> UserServiceClient<Wire> {
    UserServiceClient::new(wire).max_decoding_message_size(MESSAGE_LIMIT)
}
