//! Nodes, VMs and containers: list, get, and what else a node can be told.

use anyhow::{Context as _, bail};
use horcrux_proto::v1::container_service_client::ContainerServiceClient;
use horcrux_proto::v1::node_service_client::NodeServiceClient;
use horcrux_proto::v1::vm_service_client::VmServiceClient;
use horcrux_proto::v1::{
    ContainerServiceGetRequest, ContainerServiceListRequest, CreateJoinTokenRequest,
    NodeServiceDeleteRequest, NodeServiceGetRequest, NodeServiceListRequest, VmServiceGetRequest,
    VmServiceListRequest,
};
use horcrux_transport::clock;
use serde_json::json;

use super::print;
use crate::args::{Guest, Node, Output};
use crate::contexts::Home;
use crate::prompt;
use crate::session::signed;
use crate::view::{self, ValueView};

pub(super) async fn node(
    home: &Home,
    context: Option<&str>,
    output: Output,
    command: Node,
) -> anyhow::Result<()> {
    let (_, channel, bearer) = signed(home, context).await?;
    let mut client = NodeServiceClient::with_interceptor(channel, bearer);
    match command {
        Node::List => {
            let (mut rows, mut page_token) = (Vec::new(), String::new());
            loop {
                let answer =
                    client.list(NodeServiceListRequest { page_size: 0, page_token }).await?.into_inner();
                rows.extend(answer.nodes.into_iter().map(|node| view::node(node, None)));
                page_token = answer.next_page_token;
                if page_token.is_empty() {
                    return print(&view::list(&rows, output)?);
                }
            }
        }
        Node::Get { name } => {
            let answer = client.get(NodeServiceGetRequest { name }).await?.into_inner();
            let node = view::node(answer.node.context("an empty answer")?, Some(answer.values));
            if output != Output::Table {
                return print(&view::data(&node, output)?);
            }
            print(&view::table(std::slice::from_ref(&node)))?;
            for trouble in node.troubles() {
                print(&format!("{trouble}\n"))?;
            }
            values(node.values())
        }
        Node::Delete { name, yes } => {
            let question = format!("Forget {name}? Its certificate stops working.");
            if !yes && !prompt::agree(&question, "--yes")? {
                bail!("not deleted");
            }
            let request_id = format!("{name}-{}", clock::unix_ms());
            client.delete(NodeServiceDeleteRequest { name: name.clone(), request_id }).await?;
            eprintln!("{name} is deleted");
            Ok(())
        }
        Node::JoinToken { name, ttl } => {
            let request = CreateJoinTokenRequest {
                node_name: name.unwrap_or_default(),
                ttl_seconds: ttl,
                request_id: String::new(),
            };
            let answer = client.create_join_token(request).await?.into_inner();
            match output {
                Output::Table => {
                    eprintln!("works once, for {ttl} s. Put it into a file on the node and run there:");
                    eprintln!(
                        "  horcrux-agentd enroll --controller https://CONTROLLER:8006 --token-file FILE"
                    );
                    print(&format!("{}\n", answer.token))
                }
                Output::Json | Output::Yaml => {
                    let whole = json!({ "token": answer.token, "expires_unix_ms": answer.expires_unix_ms });
                    print(&view::data(&whole, output)?)
                }
            }
        }
    }
}

pub(super) async fn vm(
    home: &Home,
    context: Option<&str>,
    output: Output,
    command: Guest,
) -> anyhow::Result<()> {
    let (_, channel, bearer) = signed(home, context).await?;
    let mut client = VmServiceClient::with_interceptor(channel, bearer);
    match command {
        Guest::List { node } => {
            let (node, mut rows, mut page_token) = (node.unwrap_or_default(), Vec::new(), String::new());
            loop {
                let request = VmServiceListRequest { node: node.clone(), page_size: 0, page_token };
                let answer = client.list(request).await?.into_inner();
                rows.extend(answer.vms.into_iter().map(|vm| view::vm(vm, None)));
                page_token = answer.next_page_token;
                if page_token.is_empty() {
                    return print(&view::list(&rows, output)?);
                }
            }
        }
        Guest::Get { name } => {
            let answer = client.get(VmServiceGetRequest { name }).await?.into_inner();
            let vm = view::vm(answer.vm.context("an empty answer")?, Some(answer.values));
            if output != Output::Table {
                return print(&view::data(&vm, output)?);
            }
            print(&view::table(std::slice::from_ref(&vm)))?;
            values(vm.values())
        }
    }
}

pub(super) async fn container(
    home: &Home,
    context: Option<&str>,
    output: Output,
    command: Guest,
) -> anyhow::Result<()> {
    let (_, channel, bearer) = signed(home, context).await?;
    let mut client = ContainerServiceClient::with_interceptor(channel, bearer);
    match command {
        Guest::List { node } => {
            let (node, mut rows, mut page_token) = (node.unwrap_or_default(), Vec::new(), String::new());
            loop {
                let request = ContainerServiceListRequest { node: node.clone(), page_size: 0, page_token };
                let answer = client.list(request).await?.into_inner();
                rows.extend(answer.containers.into_iter().map(|c| view::container(c, None)));
                page_token = answer.next_page_token;
                if page_token.is_empty() {
                    return print(&view::list(&rows, output)?);
                }
            }
        }
        Guest::Get { name } => {
            let answer = client.get(ContainerServiceGetRequest { name }).await?.into_inner();
            let container =
                view::container(answer.container.context("an empty answer")?, Some(answer.values));
            if output != Output::Table {
                return print(&view::data(&container, output)?);
            }
            print(&view::table(std::slice::from_ref(&container)))?;
            values(container.values())
        }
    }
}

fn values(values: &[ValueView]) -> anyhow::Result<()> {
    if values.is_empty() {
        return print("no values yet\n");
    }
    print("\n")?;
    print(&view::table(values))
}
