//! `horcruxctl role`, `grant` and `auth`.

use horcrux_proto::v1::grant_service_client::GrantServiceClient;
use horcrux_proto::v1::{
    CreateRoleRequest, DeleteRoleRequest, Grant, GrantServiceCreateRequest, GrantServiceDeleteRequest,
    GrantServiceListRequest, ListRolesRequest, Role, UpdateRoleRequest, WhatIfRequest, WhyRequest,
    grant_service_create_request, grant_service_list_request, why_request,
};
use horcrux_transport::clock;

use crate::App;
use crate::args::access::{
    Asked, AuthCommand, GrantCommand, GrantCreateArgs, GrantListArgs, RoleArgs, RoleCommand, WhatIfArgs,
    WhyArgs,
};
use crate::args::value::{Subject, Wanted};
use crate::change::{Deed, Run, consent, request_id};
use crate::consequence::outlook;
use crate::failure::Failure;
use crate::pages;
use crate::place::{Place, on_path};
use crate::session::{MESSAGE_LIMIT, Session, Wire};
use crate::view::grant::{GrantListView, GrantView, RoleListView, RoleView};
use crate::view::shown;
use crate::view::why::{WhatIfView, WhyView};

impl App {
    pub async fn roles(&self, command: RoleCommand) -> Result<(), Failure> {
        let session = self.session().await?;
        match command {
            RoleCommand::List => self.print(&roles(&session).await?),
            RoleCommand::Create(args) => {
                let (run, name, privileges) = role(&args);
                let (request_id, validate_only) = (request_id()?, run.validate_only());
                let request = CreateRoleRequest { name, privileges, request_id, validate_only };
                let create = |wire, r| async move { on_grants(wire).create_role(r).await };
                let role = session.send(request, create).await?.role;
                let deed = Deed::new("make", "made", format!("the role {}", shown(&args.name)));
                self.done(run, &deed, role.as_ref().map(RoleView::from).as_ref())
            }
            RoleCommand::Update(args) => {
                let (run, name, privileges) = role(&args);
                let (request_id, validate_only) = (request_id()?, run.validate_only());
                let request = UpdateRoleRequest { name, privileges, request_id, validate_only };
                let update = |wire, r| async move { on_grants(wire).update_role(r).await };
                let role = session.send(request, update).await?.role;
                let deed = Deed::new("change", "changed", format!("the role {}", shown(&args.name)));
                self.done(run, &deed, role.as_ref().map(RoleView::from).as_ref())
            }
            RoleCommand::Delete { name, removal } => {
                let deed = Deed::new("delete", "deleted", format!("the role {}", shown(&name)));
                let question = format!("Delete the role {}?", shown(&name));
                self.remove(removal, &question, &deed, |run, request_id| {
                    let (name, validate_only) = (name.clone(), run.validate_only());
                    let request = DeleteRoleRequest { name, request_id, validate_only };
                    session.send(request, |wire, r| async move { on_grants(wire).delete_role(r).await })
                })
                .await
            }
        }
    }

    pub async fn grants(&self, command: GrantCommand) -> Result<(), Failure> {
        let session = self.session().await?;
        match command {
            GrantCommand::List(args) => self.print(&grants(&session, &args).await?),
            GrantCommand::Create(args) => self.give(&session, &args).await,
            GrantCommand::Delete { id, removal } => {
                let deed = Deed::new("delete", "deleted", format!("the grant {}", shown(&id)));
                let question = format!("Delete the grant {}?", shown(&id));
                let with = async || {
                    let request = WhatIfRequest { add: Vec::new(), remove: vec![id.clone()] };
                    outlook(&session, request).await.map(|outlook| outlook.told(clock::unix_ms()))
                };
                self.remove_with(removal, &question, &deed, with, |run, request_id| {
                    let (grant_id, validate_only) = (id.clone(), run.validate_only());
                    let request = GrantServiceDeleteRequest { grant_id, request_id, validate_only };
                    session.send(request, |wire, r| async move { on_grants(wire).delete(r).await })
                })
                .await
                .map(drop)
            }
        }
    }

    pub async fn explain(&self, command: AuthCommand) -> Result<(), Failure> {
        // What is asked wrongly needs no controller to say so.
        match command {
            AuthCommand::Why(args) => {
                let request = why_request(&args)?;
                self.print(&why(&self.session().await?, request).await?)
            }
            AuthCommand::WhatIf(args) => {
                let session = self.session().await?;
                let request = what_if_request(&session, &args, |note| self.say(note)).await?;
                self.print(&would_change(&session, request).await?)
            }
        }
    }

    /// Tells who gains and who loses what, and asks where anybody loses something.
    pub async fn give(&self, session: &Session, args: &GrantCreateArgs) -> Result<(), Failure> {
        let path = self.place(session, &args.path).await?;
        let to = args.subject.user.as_deref().or(args.subject.group.as_deref()).unwrap_or_default();
        let deed =
            Deed::new("give", "gave", format!("{} on {} to {}", shown(&args.role), shown(&path), shown(to)));
        let request = create_request(args, path, clock::unix_ms())?;
        let run = Run::of(args.removal.change);
        let create = |wire, r| async move { on_grants(wire).create(r).await };
        if run == Run::Check || !args.removal.yes {
            // A request that is refused has no outlook.
            let check = GrantServiceCreateRequest {
                request_id: request_id()?,
                validate_only: true,
                ..request.clone()
            };
            session.send(check, create).await?;
            let add = vec![request.clone()];
            let outlook = outlook(session, WhatIfRequest { add, remove: Vec::new() }).await?;
            self.say(&outlook.told(clock::unix_ms()));
            if run == Run::Check {
                return self.done(run, &deed, None::<&GrantView>);
            }
            if outlook.takes_away() {
                consent("This takes privileges away, or may. Make the grant all the same?")?;
            }
        }
        let made = session.send(request, create).await?.grant;
        self.done(run, &deed, made.as_ref().map(GrantView::from).as_ref())
    }
}

pub async fn roles(session: &Session) -> Result<RoleListView, Failure> {
    Ok(RoleListView(all_roles(session).await?.iter().map(RoleView::from).collect()))
}

/// Built-in and custom.
pub async fn all_roles(session: &Session) -> Result<Vec<Role>, Failure> {
    let list = |wire, r| async move { on_grants(wire).list_roles(r).await };
    Ok(session.send(ListRolesRequest {}, list).await?.roles)
}

pub async fn grants(session: &Session, args: &GrantListArgs) -> Result<GrantListView, Failure> {
    use grant_service_list_request::Subject;
    let asked = &args.subject;
    let subject = asked
        .user
        .clone()
        .map(Subject::User)
        .or_else(|| asked.group.clone().map(Subject::Group))
        .or_else(|| asked.token.clone().map(Subject::Token));
    let path = match &args.path {
        Some(path) => on_path(session, path).await?.path,
        None => String::new(),
    };
    let all =
        listed(session, &GrantServiceListRequest { subject, path, ..GrantServiceListRequest::default() })
            .await?;
    Ok(GrantListView(all.iter().map(GrantView::from).collect()))
}

/// Every grant there is.
pub async fn all_grants(session: &Session) -> Result<Vec<Grant>, Failure> {
    listed(session, &GrantServiceListRequest::default()).await
}

async fn listed(session: &Session, request: &GrantServiceListRequest) -> Result<Vec<Grant>, Failure> {
    pages::all(|page_token| async {
        let request = GrantServiceListRequest { page_token, ..request.clone() };
        let list = |wire, r| async move { on_grants(wire).list(r).await };
        session.send(request, list).await.map(|page| (page.grants, page.next_page_token))
    })
    .await
}

/// About the path that is meant; where nothing is known there the answer says so.
pub async fn why(session: &Session, request: WhyRequest) -> Result<WhyView, Failure> {
    let why = |wire, r| async move { on_grants(wire).why(r).await };
    let Place { path, known } = on_path(session, &request.path).await?;
    let asked = WhyRequest { path, ..request };
    Ok(WhyView::new(&asked, known, &session.send(asked.clone(), why).await?))
}

pub async fn would_change(session: &Session, request: WhatIfRequest) -> Result<WhatIfView, Failure> {
    let what_if = |wire, r| async move { on_grants(wire).what_if(r).await };
    Ok(WhatIfView::from(&session.send(request, what_if).await?))
}

/// What `auth what-if` asks; `say` hears of paths where nothing is known.
pub async fn what_if_request(
    session: &Session,
    args: &WhatIfArgs,
    say: impl Fn(&str),
) -> Result<WhatIfRequest, Failure> {
    let mut add = Vec::with_capacity(args.change.grants.len());
    for wanted in &args.change.grants {
        let place = on_path(session, &wanted.on.path).await?;
        if let Some(note) = place.note() {
            say(&note);
        }
        add.push(would_be(wanted, place.path, args.no_propagate));
    }
    Ok(WhatIfRequest { add, remove: args.change.removed.clone() })
}

fn why_request(args: &WhyArgs) -> Result<WhyRequest, Failure> {
    let question = args.question().map_err(Failure::Usage)?;
    let subject = match question.subject {
        Asked::User(user) => why_request::Subject::User(user.to_owned()),
        Asked::Token(id) => why_request::Subject::Token(id.to_owned()),
    };
    Ok(WhyRequest {
        subject: Some(subject),
        privilege: question.privilege.into(),
        path: question.path.to_owned(),
    })
}

fn role(args: &RoleArgs) -> (Run, String, Vec<i32>) {
    let privileges = args.privileges.iter().copied().map(i32::from).collect();
    (Run::of(args.change), args.name.clone(), privileges)
}

fn create_request(
    args: &GrantCreateArgs,
    path: String,
    now_ms: i64,
) -> Result<GrantServiceCreateRequest, Failure> {
    use grant_service_create_request::Subject;
    let user = args.subject.user.clone().map(Subject::User);
    let not_after = args.not_after.map(|left| i64::try_from(left.as_millis()).unwrap_or(i64::MAX));
    Ok(GrantServiceCreateRequest {
        subject: user.or_else(|| args.subject.group.clone().map(Subject::Group)),
        role: args.role.clone(),
        path,
        no_propagate: args.no_propagate,
        not_after_unix_ms: not_after.map(|left| now_ms.saturating_add(left)),
        request_id: request_id()?,
        validate_only: false,
    })
}

fn would_be(wanted: &Wanted, path: String, no_propagate: bool) -> GrantServiceCreateRequest {
    use grant_service_create_request::Subject as Wire;
    let subject = match &wanted.subject {
        Subject::User(name) => Wire::User(name.clone()),
        Subject::Group(name) => Wire::Group(name.clone()),
    };
    GrantServiceCreateRequest {
        subject: Some(subject),
        role: wanted.on.role.clone(),
        path,
        no_propagate,
        ..GrantServiceCreateRequest::default()
    }
}

fn on_grants(wire: Wire) -> GrantServiceClient<Wire> {
    GrantServiceClient::new(wire).max_decoding_message_size(MESSAGE_LIMIT)
}
