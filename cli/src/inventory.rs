//! `horcruxctl node`, `vm` and `container`.

use std::fs::File;
use std::future::Future;
use std::io::Read as _;

use anyhow::Context as _;
use horcrux_proto::v1::container_service_client::ContainerServiceClient;
use horcrux_proto::v1::node_service_client::NodeServiceClient;
use horcrux_proto::v1::vm_service_client::VmServiceClient;
use horcrux_proto::v1::{
    Container, ContainerServiceGetRequest, ContainerServiceListRequest, CreateJoinTokenRequest, Node,
    NodeServiceDeleteRequest, NodeServiceGetRequest, NodeServiceListRequest, Vm, VmServiceGetRequest,
    VmServiceListRequest,
};

use crate::App;
use crate::args::JoinTokenArgs;
use crate::failure::Failure;
use crate::private::write_secret;
use crate::prompt;
use crate::session::{MESSAGE_LIMIT, Session, Wire};
use crate::view::container::{ContainerDetailView, ContainerListView, ContainerView};
use crate::view::context::JoinTokenView;
use crate::view::node::{NodeDetailView, NodeListView, NodeView};
use crate::view::shown;
use crate::view::vm::{VmDetailView, VmListView, VmView};

/// A server that never ends its pages is not followed for ever: this is ten million objects.
const MAX_PAGES: usize = 10_000;

pub async fn nodes(session: &Session) -> Result<NodeListView, Failure> {
    let all: Vec<Node> = pages(|page_token| async {
        let request = NodeServiceListRequest { page_size: 0, page_token };
        let list = |wire| {
            let request = request.clone();
            async move { on_nodes(wire).list(request).await }
        };
        session.call(list).await.map(|page| (page.nodes, page.next_page_token))
    })
    .await?;
    Ok(NodeListView(all.iter().map(NodeView::from).collect()))
}

pub async fn node(session: &Session, name: &str) -> Result<NodeDetailView, Failure> {
    let request = NodeServiceGetRequest { name: name.to_owned() };
    let get = |wire| {
        let request = request.clone();
        async move { on_nodes(wire).get(request).await }
    };
    Ok(NodeDetailView::from(&session.call(get).await?))
}

/// Asks first, unless the user already agreed.
pub async fn delete_node(app: &App, name: &str, agreed: Agreed) -> Result<(), Failure> {
    let session = app.session().await?;
    // What is deleted is looked up first: a question about a node that doesn't exist helps nobody.
    let node = node(&session, name).await?.node;
    let bare = shown(crate::view::bare(&node.name));
    if agreed == Agreed::NotYet {
        let question = format!(
            "Delete the node {bare} ({})? Its certificate stops working; to come back it must enroll again.",
            node.state
        );
        if !prompt::agrees(&question, "--yes")? {
            return Err(Failure::Refused("nothing was deleted".to_owned()));
        }
    }
    let request = NodeServiceDeleteRequest { name: node.name, request_id: request_id()? };
    let delete = |wire| {
        let request = request.clone();
        async move { on_nodes(wire).delete(request).await }
    };
    session.call(delete).await?;
    app.say(&format!("deleted {bare}"));
    Ok(())
}

/// Whether the user has said already that a deletion is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreed {
    Yes,
    NotYet,
}

pub async fn join_token(app: &App, args: &JoinTokenArgs) -> Result<JoinTokenView, Failure> {
    let session = app.session().await?;
    let request = CreateJoinTokenRequest {
        node_name: args.name.clone().unwrap_or_default(),
        ttl_seconds: u32::try_from(args.ttl.as_secs()).unwrap_or(u32::MAX),
        request_id: request_id()?,
    };
    let create = |wire| {
        let request = request.clone();
        async move { on_nodes(wire).create_join_token(request).await }
    };
    let answer = session.call(create).await?;
    let (token, token_file) = match &args.token_file {
        Some(path) => {
            write_secret(path, &format!("{}\n", answer.token)).map_err(anyhow::Error::from)?;
            (None, Some(path.display().to_string()))
        }
        None => (Some(answer.token), None),
    };
    let view = JoinTokenView { token, token_file, expires_unix_ms: answer.expires_unix_ms };
    app.say(&view.talk(&session.url));
    Ok(view)
}

pub async fn vms(session: &Session, node: Option<&str>) -> Result<VmListView, Failure> {
    let node = node.map(node_resource).unwrap_or_default();
    let all: Vec<Vm> = pages(|page_token| async {
        let request = VmServiceListRequest { node: node.clone(), page_size: 0, page_token };
        let list = |wire| {
            let request = request.clone();
            async move { on_vms(wire).list(request).await }
        };
        session.call(list).await.map(|page| (page.vms, page.next_page_token))
    })
    .await?;
    Ok(VmListView(all.iter().map(VmView::from).collect()))
}

pub async fn vm(session: &Session, name: &str) -> Result<VmDetailView, Failure> {
    let request = VmServiceGetRequest { name: name.to_owned() };
    let get = |wire| {
        let request = request.clone();
        async move { on_vms(wire).get(request).await }
    };
    Ok(VmDetailView::from(&session.call(get).await?))
}

pub async fn containers(session: &Session, node: Option<&str>) -> Result<ContainerListView, Failure> {
    let node = node.map(node_resource).unwrap_or_default();
    let all: Vec<Container> = pages(|page_token| async {
        let request = ContainerServiceListRequest { node: node.clone(), page_size: 0, page_token };
        let list = |wire| {
            let request = request.clone();
            async move { on_containers(wire).list(request).await }
        };
        session.call(list).await.map(|page| (page.containers, page.next_page_token))
    })
    .await?;
    Ok(ContainerListView(all.iter().map(ContainerView::from).collect()))
}

pub async fn container(session: &Session, name: &str) -> Result<ContainerDetailView, Failure> {
    let request = ContainerServiceGetRequest { name: container_resource(name) };
    let get = |wire| {
        let request = request.clone();
        async move { on_containers(wire).get(request).await }
    };
    Ok(ContainerDetailView::from(&session.call(get).await?))
}

/// `web1` as the contract names it.
#[must_use]
pub fn node_resource(name: &str) -> String {
    if name.starts_with("nodes/") { name.to_owned() } else { format!("nodes/{name}") }
}

/// `NODE/ID` as the contract names it; anything else is for the server to make sense of.
fn container_resource(name: &str) -> String {
    if name.contains('/') && !name.starts_with("containers/") {
        format!("containers/{name}")
    } else {
        name.to_owned()
    }
}

fn on_nodes(wire: Wire) -> NodeServiceClient<Wire> {
    NodeServiceClient::new(wire).max_decoding_message_size(MESSAGE_LIMIT)
}

fn on_vms(wire: Wire) -> VmServiceClient<Wire> {
    VmServiceClient::new(wire).max_decoding_message_size(MESSAGE_LIMIT)
}

fn on_containers(wire: Wire) -> ContainerServiceClient<Wire> {
    ContainerServiceClient::new(wire).max_decoding_message_size(MESSAGE_LIMIT)
}

/// All pages, in order.
async fn pages<T, F>(page: impl Fn(String) -> F) -> Result<Vec<T>, Failure>
where
    F: Future<Output = Result<(Vec<T>, String), Failure>>,
{
    let mut all = Vec::new();
    let mut token = String::new();
    for _ in 0..MAX_PAGES {
        let (objects, next) = page(token).await?;
        all.extend(objects);
        if next.is_empty() {
            return Ok(all);
        }
        token = next;
    }
    Err(Failure::Refused("the controller's list does not end".to_owned()))
}

/// 128 random bits: the same request sent twice is done once.
fn request_id() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    let random = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    random.context("read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_differ() {
        let (one, two) = (request_id().unwrap(), request_id().unwrap());
        assert_eq!(one.len(), 32);
        assert_ne!(one, two);
    }

    #[test]
    fn names_may_be_given_in_full_or_short() {
        assert_eq!(node_resource("web1"), "nodes/web1");
        assert_eq!(node_resource("nodes/web1"), "nodes/web1");
        assert_eq!(container_resource("web1/3f2a"), "containers/web1/3f2a");
        assert_eq!(container_resource("containers/web1/3f2a"), "containers/web1/3f2a");
        assert_eq!(container_resource("3f2a"), "3f2a");
    }
}
