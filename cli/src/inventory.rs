//! What there is: nodes, VMs and containers.

use horcrux_proto::v1::container_service_client::ContainerServiceClient;
use horcrux_proto::v1::node_service_client::NodeServiceClient;
use horcrux_proto::v1::vm_service_client::VmServiceClient;
use horcrux_proto::v1::{
    Container, ContainerServiceGetRequest, ContainerServiceListRequest, Node, NodeServiceGetRequest,
    NodeServiceListRequest, Vm, VmServiceGetRequest, VmServiceListRequest,
};

use crate::failure::Failure;
use crate::footnotes::{self, Listed};
use crate::pages;
use crate::session::{MESSAGE_LIMIT, Session, Wire};
use crate::view::container::{ContainerDetailView, ContainerListView, ContainerView};
use crate::view::node::{NodeDetailView, NodeListView, NodeView};
use crate::view::vm::{VmDetailView, VmListView, VmView};

pub async fn nodes(session: &Session) -> Result<NodeListView, Failure> {
    let all = all_nodes(session).await?;
    Ok(NodeListView(all.iter().map(NodeView::from).collect()))
}

async fn all_nodes(session: &Session) -> Result<Vec<Node>, Failure> {
    pages::all(|page_token| async {
        let request = NodeServiceListRequest { page_size: 0, page_token };
        let list = |wire, r| async move { on_nodes(wire).list(r).await };
        session.send(request, list).await.map(|page| (page.nodes, page.next_page_token))
    })
    .await
}

/// Why a list that was just given may lack something.
pub async fn missing(session: &Session, listed: Listed, only: Option<&str>) -> Vec<String> {
    match all_nodes(session).await {
        Ok(nodes) => footnotes::missing(listed, &nodes, only),
        // The list itself stands.
        Err(failure) => vec![format!("whether all nodes could tell is not known: {}", failure.text())],
    }
}

pub async fn node(session: &Session, name: &str) -> Result<NodeDetailView, Failure> {
    let request = NodeServiceGetRequest { name: name.to_owned() };
    let get = |wire, r| async move { on_nodes(wire).get(r).await };
    Ok(NodeDetailView::from(&session.send(request, get).await?))
}

/// The name of the one node that an agent has.
pub async fn only_node(session: &Session) -> Result<String, Failure> {
    let nodes = nodes(session).await?;
    let first = nodes.0.into_iter().next();
    first.map(|node| node.name).ok_or_else(|| Failure::Refused("the agent shows no node".to_owned()))
}

pub async fn vms(session: &Session, node: Option<&str>) -> Result<VmListView, Failure> {
    let node = node.map(node_resource).unwrap_or_default();
    let all: Vec<Vm> = pages::all(|page_token| async {
        let request = VmServiceListRequest { node: node.clone(), page_size: 0, page_token };
        let list = |wire, r| async move { on_vms(wire).list(r).await };
        session.send(request, list).await.map(|page| (page.vms, page.next_page_token))
    })
    .await?;
    Ok(VmListView(all.iter().map(VmView::from).collect()))
}

pub async fn vm(session: &Session, name: &str) -> Result<VmDetailView, Failure> {
    let request = VmServiceGetRequest { name: name.to_owned() };
    let get = |wire, r| async move { on_vms(wire).get(r).await };
    Ok(VmDetailView::from(&session.send(request, get).await?))
}

pub async fn containers(session: &Session, node: Option<&str>) -> Result<ContainerListView, Failure> {
    let node = node.map(node_resource).unwrap_or_default();
    let all: Vec<Container> = pages::all(|page_token| async {
        let request = ContainerServiceListRequest { node: node.clone(), page_size: 0, page_token };
        let list = |wire, r| async move { on_containers(wire).list(r).await };
        session.send(request, list).await.map(|page| (page.containers, page.next_page_token))
    })
    .await?;
    Ok(ContainerListView(all.iter().map(ContainerView::from).collect()))
}

pub async fn container(session: &Session, name: &str) -> Result<ContainerDetailView, Failure> {
    let request = ContainerServiceGetRequest { name: name.to_owned() };
    let get = |wire, r| async move { on_containers(wire).get(r).await };
    Ok(ContainerDetailView::from(&session.send(request, get).await?))
}

/// Without its values.
pub async fn container_named(session: &Session, name: &str) -> Result<Container, Failure> {
    let request = ContainerServiceGetRequest { name: name.to_owned() };
    let get = |wire, r| async move { on_containers(wire).get(r).await };
    Ok(session.send(request, get).await?.container.unwrap_or_default())
}

/// `web1` as the contract names it.
#[must_use]
pub fn node_resource(name: &str) -> String {
    if name.starts_with("nodes/") { name.to_owned() } else { format!("nodes/{name}") }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_be_given_in_full_or_short() {
        assert_eq!(node_resource("web1"), "nodes/web1");
        assert_eq!(node_resource("nodes/web1"), "nodes/web1");
    }
}
