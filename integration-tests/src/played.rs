//! Nodes that a test plays itself: an enrolled identity, and an inventory of VMs that run nowhere.

use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use horcrux_agentd::identity::Enrolled;
use horcrux_proto::agent::v1::agent_link_client::AgentLinkClient;
use horcrux_proto::agent::v1::{AttachRequest, Hello, Inventory, attach_request};
use horcrux_proto::v1::{NodeFacts, VmFacts, VmState};
use horcrux_transport::clock;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::caller::runtime;
use crate::{Controller, PATIENCE, succeeded, wait_until};

/// A node whose stream is open until this is dropped or the controller ends it.
#[derive(Debug)]
pub struct PlayedNode {
    _leave: oneshot::Sender<()>,
    ended: Receiver<(Instant, Status)>,
}

const DEADLINE: Duration = Duration::from_secs(10);

impl PlayedNode {
    /// Attaches with the identity in `state`, and tells that these VMs are there, by uuid and name.
    pub fn attach(state: &Path, vms: &[(&str, &str)]) -> anyhow::Result<Self> {
        let enrolled = Enrolled::load(state)?;
        let vm = |(uuid, name): &(&str, &str)| VmFacts {
            uuid: (*uuid).to_owned(),
            display_name: (*name).to_owned(),
            state: VmState::Running.into(),
            ..VmFacts::default()
        };
        let inventory = Inventory {
            complete: true,
            node: Some(NodeFacts::default()),
            vms: vms.iter().map(vm).collect(),
            ..Inventory::default()
        };
        let (leave, left) = oneshot::channel();
        let (put, ended) = sync_channel(1);
        let runtime = runtime()?;
        let play = move || {
            let end = runtime.block_on(async {
                tokio::select! {
                    end = talk(&enrolled, inventory) => end,
                    _ = left => Status::cancelled("the test let it go"),
                }
            });
            // A test that is over doesn't hear it.
            drop(put.send((clock::monotonic(), end)));
        };
        thread::Builder::new().name("played node".to_owned()).spawn(play)?;
        Ok(Self { _leave: leave, ended })
    }

    /// How and when the controller ended its stream.
    pub fn end(&self) -> anyhow::Result<(Instant, Status)> {
        self.ended.recv_timeout(PATIENCE).context("the node's stream goes on")
    }
}

impl Controller {
    /// Enrolls and plays a node with these VMs, and waits until they are seen.
    pub fn play(&self, node: &str, vms: &[(&str, &str)]) -> anyhow::Result<PlayedNode> {
        succeeded(&self.enroll(node, &self.join_token(node)?)?)?;
        let played = PlayedNode::attach(Path::new(&self.path(&format!("agent-{node}"))), vms)?;
        wait_until("what the node tells", || {
            let seen = self.json(&["vm", "list", "--node", node])?;
            let count = seen.as_array().context("a list")?.len();
            if count == vms.len() { Ok(()) } else { bail!("{count} VMs are seen") }
        })?;
        Ok(played)
    }
}

/// Says who it is and what it has, and listens to the end.
async fn talk(enrolled: &Enrolled, inventory: Inventory) -> Status {
    let talking = async {
        let channel = enrolled.connect(DEADLINE).channel().await;
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        let (say, said) = mpsc::channel(2);
        let hello = Hello { epoch: 1, ..Hello::default() };
        for message in [attach_request::Message::Hello(hello), attach_request::Message::Inventory(inventory)]
        {
            let sent = say.send(AttachRequest { message: Some(message) }).await;
            sent.map_err(|_| Status::internal("nobody listens"))?;
        }
        let mut answers = AgentLinkClient::new(channel).attach(ReceiverStream::new(said)).await?.into_inner();
        while answers.message().await?.is_some() {}
        // Only now: a node that says no more has left.
        drop(say);
        Ok::<_, Status>(())
    };
    talking.await.err().unwrap_or_else(|| Status::ok("the stream ended"))
}
