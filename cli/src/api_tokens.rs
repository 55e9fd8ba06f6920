//! `horcruxctl token`.

use horcrux_proto::v1::token_service_client::TokenServiceClient;
use horcrux_proto::v1::{
    TokenGrant, TokenServiceCreateRequest, TokenServiceListRequest, TokenServiceRevokeRequest,
};

use crate::App;
use crate::args::sign_in::OwnerArgs;
use crate::args::token::{TokenCommand, TokenCreateArgs};
use crate::change::{Deed, Run, request_id};
use crate::failure::Failure;
use crate::login::caller;
use crate::place::on_path;
use crate::private::SecretFile;
use crate::session::{MESSAGE_LIMIT, Session, Wire};
use crate::sign_in::code;
use crate::view::secret::NewApiTokenView;
use crate::view::shown;
use crate::view::token::{ApiTokenListView, ApiTokenView};

impl App {
    pub async fn api_tokens(&self, command: TokenCommand) -> Result<(), Failure> {
        let session = self.session().await?;
        match command {
            TokenCommand::List(owner) => self.print(&tokens(&session, &owner).await?),
            TokenCommand::Create(args) => match create(&session, &args).await? {
                Some(view) => {
                    self.say(&view.talk());
                    self.print(&view)
                }
                None => {
                    self.say(&format!("would make the API token \"{}\"", shown(&args.comment)));
                    Ok(())
                }
            },
            TokenCommand::Revoke { id, removal } => {
                let deed = Deed::new("revoke", "revoked", format!("the API token {}", shown(&id)));
                let question = format!("Revoke the API token {}? What uses it stops working.", shown(&id));
                self.remove(removal, &question, &deed, |run, request_id| {
                    let (token_id, validate_only) = (id.clone(), run.validate_only());
                    let request = TokenServiceRevokeRequest { token_id, request_id, validate_only };
                    session.send(request, |wire, r| async move { on_tokens(wire).revoke(r).await })
                })
                .await
            }
        }
    }
}

pub async fn tokens(session: &Session, owner: &OwnerArgs) -> Result<ApiTokenListView, Failure> {
    let list = |wire, r| async move { on_tokens(wire).list(r).await };
    let answer = session.send(TokenServiceListRequest { user: owner.wire() }, list).await?;
    Ok(ApiTokenListView(answer.tokens.iter().map(ApiTokenView::from).collect()))
}

/// `None`: it was only asked whether one would be made.
pub async fn create(session: &Session, args: &TokenCreateArgs) -> Result<Option<NewApiTokenView>, Failure> {
    let run = Run::of(args.change);
    let file = match (&args.token_file, run) {
        (Some(path), Run::Change) => Some(SecretFile::create(path).map_err(anyhow::Error::from)?),
        (Some(_) | None, Run::Check) | (None, Run::Change) => None,
    };
    let factor = args.second_factor.second_factor_file.as_deref();
    let code = if factor.is_some() || caller(session).await?.second_factor {
        code("code of the second factor", factor)?.expose().to_owned()
    } else {
        String::new()
    };
    let mut grants = Vec::with_capacity(args.rights.grants.len());
    for on in &args.rights.grants {
        let path = on_path(session, &on.path).await?.path;
        grants.push(TokenGrant { role: on.role.clone(), path, no_propagate: args.no_propagate });
    }
    let request = TokenServiceCreateRequest {
        comment: args.comment.clone(),
        // The parser lets a year through at most.
        ttl_seconds: u32::try_from(args.expires.as_secs()).unwrap_or(u32::MAX),
        full: args.rights.full,
        grants,
        networks: args.networks.clone(),
        code,
        request_id: request_id()?,
        validate_only: run.validate_only(),
    };
    let create = |wire, r| async move { on_tokens(wire).create(r).await };
    let answer = session.send(request, create).await?;
    if run == Run::Check {
        return Ok(None);
    }
    let secret = match file {
        Some(file) => {
            file.fill(&format!("{}\n", answer.secret)).map_err(anyhow::Error::from)?;
            None
        }
        None => Some(answer.secret),
    };
    Ok(Some(NewApiTokenView {
        token: ApiTokenView::from(&answer.token.unwrap_or_default()),
        secret,
        token_file: args.token_file.as_ref().map(|path| path.display().to_string()),
    }))
}

fn on_tokens(wire: Wire) -> TokenServiceClient<Wire> {
    TokenServiceClient::new(wire).max_decoding_message_size(MESSAGE_LIMIT)
}
