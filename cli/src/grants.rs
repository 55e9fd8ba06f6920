//! `horcruxctl role`, `grant` and `auth`.

use horcrux_proto::v1::grant_service_client::GrantServiceClient;
use horcrux_proto::v1::{
    CreateRoleRequest, DeleteRoleRequest, GrantServiceCreateRequest, GrantServiceDeleteRequest,
    GrantServiceListRequest, ListRolesRequest, UpdateRoleRequest, WhatIfRequest, WhyRequest,
    grant_service_create_request, grant_service_list_request, why_request,
};
use horcrux_transport::clock;

use crate::App;
use crate::args::access::{
    Asked, AuthCommand, GrantCommand, GrantCreateArgs, GrantListArgs, RoleArgs, RoleCommand, WhatIfArgs,
    WhyArgs,
};
use crate::args::value::{Subject, Wanted};
use crate::change::{Deed, Run, request_id};
use crate::failure::Failure;
use crate::pages;
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
            GrantCommand::Create(args) => {
                let run = Run::of(args.change);
                let request = create_request(&args, clock::unix_ms())?;
                let create = |wire, r| async move { on_grants(wire).create(r).await };
                let grant = session.send(request, create).await?.grant;
                let to = args.subject.user.as_deref().or(args.subject.group.as_deref()).unwrap_or_default();
                let what = format!("{} on {} to {}", shown(&args.role), shown(&args.path), shown(to));
                let made = grant.as_ref().map(GrantView::from);
                self.done(run, &Deed::new("give", "gave", what), made.as_ref())
            }
            GrantCommand::Delete { id, removal } => {
                let deed = Deed::new("delete", "deleted", format!("the grant {}", shown(&id)));
                let question = format!(
                    "Delete the grant {0}? `horcruxctl auth what-if --remove {0}` shows what that takes away.",
                    shown(&id)
                );
                self.remove(removal, &question, &deed, |run, request_id| {
                    let (grant_id, validate_only) = (id.clone(), run.validate_only());
                    let request = GrantServiceDeleteRequest { grant_id, request_id, validate_only };
                    session.send(request, |wire, r| async move { on_grants(wire).delete(r).await })
                })
                .await
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
            AuthCommand::WhatIf(args) => self.print(&what_if(&self.session().await?, &args).await?),
        }
    }
}

pub async fn roles(session: &Session) -> Result<RoleListView, Failure> {
    let list = |wire, r| async move { on_grants(wire).list_roles(r).await };
    let answer = session.send(ListRolesRequest {}, list).await?;
    Ok(RoleListView(answer.roles.iter().map(RoleView::from).collect()))
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
    let all = pages::all(|page_token| async {
        let (path, subject) = (args.path.clone().unwrap_or_default(), subject.clone());
        let request = GrantServiceListRequest { subject, path, page_size: 0, page_token };
        let list = |wire, r| async move { on_grants(wire).list(r).await };
        session.send(request, list).await.map(|page| (page.grants, page.next_page_token))
    })
    .await?;
    Ok(GrantListView(all.iter().map(GrantView::from).collect()))
}

pub async fn why(session: &Session, request: WhyRequest) -> Result<WhyView, Failure> {
    let why = |wire, r| async move { on_grants(wire).why(r).await };
    let asked = request.clone();
    Ok(WhyView::new(&asked, &session.send(request, why).await?))
}

pub async fn what_if(session: &Session, args: &WhatIfArgs) -> Result<WhatIfView, Failure> {
    let add = args.change.grants.iter().map(|wanted| would_be(wanted, args.no_propagate)).collect();
    let request = WhatIfRequest { add, remove: args.change.removed.clone() };
    let what_if = |wire, r| async move { on_grants(wire).what_if(r).await };
    Ok(WhatIfView::from(&session.send(request, what_if).await?))
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

fn create_request(args: &GrantCreateArgs, now_ms: i64) -> Result<GrantServiceCreateRequest, Failure> {
    use grant_service_create_request::Subject;
    let user = args.subject.user.clone().map(Subject::User);
    let not_after = args.not_after.map(|left| i64::try_from(left.as_millis()).unwrap_or(i64::MAX));
    Ok(GrantServiceCreateRequest {
        subject: user.or_else(|| args.subject.group.clone().map(Subject::Group)),
        role: args.role.clone(),
        path: args.path.clone(),
        no_propagate: args.no_propagate,
        not_after_unix_ms: not_after.map(|left| now_ms.saturating_add(left)),
        request_id: request_id()?,
        validate_only: args.change.dry_run,
    })
}

fn would_be(wanted: &Wanted, no_propagate: bool) -> GrantServiceCreateRequest {
    use grant_service_create_request::Subject as Wire;
    let subject = match &wanted.subject {
        Subject::User(name) => Wire::User(name.clone()),
        Subject::Group(name) => Wire::Group(name.clone()),
    };
    GrantServiceCreateRequest {
        subject: Some(subject),
        role: wanted.on.role.clone(),
        path: wanted.on.path.clone(),
        no_propagate,
        ..GrantServiceCreateRequest::default()
    }
}

fn on_grants(wire: Wire) -> GrantServiceClient<Wire> {
    GrantServiceClient::new(wire).max_decoding_message_size(MESSAGE_LIMIT)
}
