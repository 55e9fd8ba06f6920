//! `horcruxctl node`.

use std::path::Path;

use horcrux_proto::authz::Privilege;
use horcrux_proto::name::NodeName;
use horcrux_proto::v1::node_service_client::NodeServiceClient;
use horcrux_proto::v1::{CreateJoinTokenRequest, LockRequest, NodeServiceDeleteRequest, UnlockRequest};
use horcrux_transport::clock;

use crate::App;
use crate::args::node::{JoinTokenArgs, NodeCommand, ReenrollArgs};
use crate::change::{Deed, Run, request_id};
use crate::consequence::{Going, grants_that_go};
use crate::failure::Failure;
use crate::inventory::{self, node_resource};
use crate::private::{SecretFile, secret_dir};
use crate::session::{Session, Wire};
use crate::view::secret::{JoinAs, JoinTokenView, ReenrollView, ReenrolledView};
use crate::view::{bare, shown};

/// What a join token is for.
struct Ticket<'a> {
    node: &'a str,
    ttl_seconds: u32,
    join_as: JoinAs,
    run: Run,
}

impl App {
    pub async fn nodes(&self, command: NodeCommand) -> Result<(), Failure> {
        if matches!(command, NodeCommand::Get { name: None }) && self.agent.is_none() {
            return Err(Failure::Usage("pass a node's name: `horcruxctl node list` shows all".to_owned()));
        }
        let session = self.session().await?;
        match command {
            NodeCommand::List => {
                let nodes = inventory::nodes(&session).await?;
                self.print(&nodes)?;
                let hint = "`horcruxctl node join-token NAME` makes a token with which one can enroll";
                self.suggest(&session, nodes.0.is_empty(), (Privilege::NodeEnroll, "/nodes"), hint).await
            }
            NodeCommand::Get { name } => {
                let name = match name {
                    Some(name) => name,
                    None => inventory::only_node(&session).await?,
                };
                self.print(&inventory::node(&session, &name).await?)
            }
            NodeCommand::Lock { name, reason, removal } => {
                let node = shown(bare(&name));
                let question = format!("Lock the node {node}? Its agent is shut out; its guests run on.");
                let deed = Deed::new("lock", "locked", node);
                self.remove(removal, &question, &deed, |run, request_id| {
                    let (name, reason) = (node_resource(&name), reason.clone().unwrap_or_default());
                    let request =
                        LockRequest { name, reason, request_id, validate_only: run.validate_only() };
                    session.send(request, |wire, r| async move { on_nodes(wire).lock(r).await })
                })
                .await
            }
            NodeCommand::Unlock { name, change } => {
                let run = Run::of(change);
                let (name, request_id) = (node_resource(&name), request_id()?);
                let deed = Deed::new("unlock", "unlocked", shown(bare(&name)));
                let request = UnlockRequest { name, request_id, validate_only: run.validate_only() };
                session.send(request, |wire, r| async move { on_nodes(wire).unlock(r).await }).await?;
                self.say(&deed.told(run));
                Ok(())
            }
            NodeCommand::Remove { name, removal } => {
                // The question tells whether it is alive: the wrong one is noticed.
                let node = inventory::node(&session, &name).await?.node;
                let name = shown(bare(&node.name));
                let deed = Deed::new("remove", "removed", name.clone());
                let question = format!(
                    "Remove the node {name} ({})? Its certificate stops working and grants on it go; to come back it \
                     must enroll again.",
                    node.state
                );
                let going = Going::Node(bare(&node.name));
                let with = async || grants_that_go(&session, &going, clock::unix_ms()).await;
                self.remove_with(removal, &question, &deed, with, |run, request_id| {
                    let (name, validate_only) = (node.name.clone(), run.validate_only());
                    let request = NodeServiceDeleteRequest { name, request_id, validate_only };
                    session.send(request, |wire, r| async move { on_nodes(wire).delete(r).await })
                })
                .await
                .map(drop)
            }
            NodeCommand::JoinToken(args) => self.join_token(&session, &args).await,
            NodeCommand::Reenroll(args) => self.reenroll(&session, &args).await,
        }
    }

    async fn join_token(&self, session: &Session, args: &JoinTokenArgs) -> Result<(), Failure> {
        let run = Run::of(args.change);
        let ticket =
            Ticket { node: &args.name, ttl_seconds: args.ttl.seconds(), join_as: JoinAs::NewNode, run };
        self.one_token(session, &ticket, args.token_file.as_deref()).await
    }

    async fn reenroll(&self, session: &Session, args: &ReenrollArgs) -> Result<(), Failure> {
        let (run, ttl_seconds) = (Run::of(args.change), args.ttl.seconds());
        match (&args.name, &args.token_dir) {
            (Some(name), _) => {
                let ticket = Ticket { node: bare(name), ttl_seconds, join_as: JoinAs::Itself, run };
                self.one_token(session, &ticket, args.token_file.as_deref()).await
            }
            (None, Some(dir)) => {
                let made = reenroll_all(session, dir, ttl_seconds, run).await?;
                self.say(&made.talk(run));
                if run == Run::Change {
                    self.print(&made)?;
                }
                match made.0.iter().filter(|node| node.problem.is_some()).count() {
                    0 => Ok(()),
                    failed => {
                        Err(Failure::Refused(format!("{failed} of {} nodes have no token", made.0.len())))
                    }
                }
            }
            (None, None) => {
                Err(Failure::Usage("pass a node's name, or --all and --token-dir DIR".to_owned()))
            }
        }
    }

    async fn one_token(
        &self,
        session: &Session,
        ticket: &Ticket<'_>,
        file: Option<&Path>,
    ) -> Result<(), Failure> {
        match token(session, ticket, file).await? {
            Some(view) => {
                self.say(&view.talk(ticket.join_as, &session.url));
                self.print(&view)
            }
            None => {
                let node = shown(ticket.node);
                self.say(&format!("would make a token with which {node} may enroll"));
                Ok(())
            }
        }
    }
}

/// A token for each node, in its file. A node that fails does not keep the others from theirs.
pub async fn reenroll_all(
    session: &Session,
    dir: &Path,
    ttl_seconds: u32,
    run: Run,
) -> Result<ReenrollView, Failure> {
    let nodes = inventory::nodes(session).await?;
    if run == Run::Change {
        secret_dir(dir).map_err(anyhow::Error::from)?;
    }
    let mut all = Vec::new();
    for node in &nodes.0 {
        let name = bare(&node.name);
        // It becomes a file's name here, and came from outside.
        let made = match name.parse::<NodeName>() {
            Ok(_) => {
                let file = dir.join(format!("{name}.token"));
                token(session, &Ticket { node: name, ttl_seconds, join_as: JoinAs::Itself, run }, Some(&file))
                    .await
            }
            Err(error) => Err(Failure::Refused(error.to_string())),
        };
        all.push(match made {
            Ok(view) => ReenrolledView {
                node: name.to_owned(),
                expires_unix_ms: view.as_ref().map(|view| view.expires_unix_ms),
                token_file: view.and_then(|view| view.token_file),
                problem: None,
            },
            // It would be the same for all.
            Err(
                failure @ (Failure::NotSignedIn { .. } | Failure::Unreachable(_) | Failure::Untrusted(_)),
            ) => {
                return Err(failure);
            }
            Err(failure) => ReenrolledView {
                node: name.to_owned(),
                token_file: None,
                expires_unix_ms: None,
                problem: Some(failure.text()),
            },
        });
    }
    Ok(ReenrollView(all))
}

/// `None`: it was only asked whether one would be made.
async fn token(
    session: &Session,
    ticket: &Ticket<'_>,
    path: Option<&Path>,
) -> Result<Option<JoinTokenView>, Failure> {
    let file = match (path, ticket.run) {
        (Some(path), Run::Change) => Some(SecretFile::create(path).map_err(anyhow::Error::from)?),
        (Some(_) | None, Run::Check) | (None, Run::Change) => None,
    };
    let request = CreateJoinTokenRequest {
        node_name: ticket.node.to_owned(),
        ttl_seconds: ticket.ttl_seconds,
        request_id: request_id()?,
        reenroll: ticket.join_as == JoinAs::Itself,
        validate_only: ticket.run.validate_only(),
    };
    let create = |wire, r| async move { on_nodes(wire).create_join_token(r).await };
    let answer = session.send(request, create).await?;
    if ticket.run == Run::Check {
        return Ok(None);
    }
    let (token, token_file) = match (file, path) {
        (Some(file), Some(path)) => {
            file.fill(&format!("{}\n", answer.token)).map_err(anyhow::Error::from)?;
            (None, Some(path.display().to_string()))
        }
        (Some(_) | None, _) => (Some(answer.token), None),
    };
    Ok(Some(JoinTokenView { token, token_file, expires_unix_ms: answer.expires_unix_ms }))
}

fn on_nodes(wire: Wire) -> NodeServiceClient<Wire> {
    NodeServiceClient::new(wire)
}
