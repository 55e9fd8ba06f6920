//! Nodes that a test plays itself: an enrolled identity, an inventory of VMs that run nowhere, and consoles of those.

mod consoles;

use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use horcrux_agentd::identity::Enrolled;
use horcrux_proto::agent::v1::agent_link_client::AgentLinkClient;
use horcrux_proto::agent::v1::{
    AttachRequest, Command, Hello, Inventory, attach_request, attach_response, command,
};
use horcrux_proto::v1::{NodeFacts, VmFacts, VmState};
use horcrux_transport::clock;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

pub use self::consoles::{Consoles, Manner, Opened};
use crate::caller::runtime;
use crate::{Controller, PATIENCE, succeeded, wait_until};

/// A node whose stream is open until this is dropped or the controller ends it.
#[derive(Debug)]
pub struct PlayedNode {
    _leave: oneshot::Sender<()>,
    ended: Receiver<(Instant, Status)>,
    consoles: Consoles,
}

const DEADLINE: Duration = Duration::from_secs(10);
/// What it says before it is taken.
const QUEUE: usize = 64;

impl PlayedNode {
    /// Attaches with the identity in `state`, and tells that these VMs are there, by uuid and name.
    pub fn attach(state: &Path, vms: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::attach_with(state, vms.iter().map(running).collect())
    }

    /// The same, with all that is to be told of its VMs.
    pub fn attach_with(state: &Path, vms: Vec<VmFacts>) -> anyhow::Result<Self> {
        let enrolled = Enrolled::load(state)?;
        let inventory =
            Inventory { complete: true, node: Some(NodeFacts::default()), vms, ..Inventory::default() };
        let (leave, left) = oneshot::channel();
        let (put, ended) = sync_channel(1);
        let (say, said) = mpsc::channel(QUEUE);
        let consoles = Consoles::new(enrolled.clone(), say);
        let (playing, runtime) = (consoles.clone(), runtime()?);
        let play = move || {
            let end = runtime.block_on(async {
                tokio::select! {
                    end = talk(&enrolled, inventory, &playing, said) => end,
                    _ = left => Status::cancelled("the test let it go"),
                }
            });
            // A test that is over doesn't hear it.
            drop(put.send((clock::monotonic(), end)));
        };
        thread::Builder::new().name("played node".to_owned()).spawn(play)?;
        Ok(Self { _leave: leave, ended, consoles })
    }

    /// What it was ordered to open.
    #[must_use]
    pub fn consoles(&self) -> &Consoles {
        &self.consoles
    }

    /// Tells what has changed of one of its VMs.
    pub fn tells(&self, vm: VmFacts) -> anyhow::Result<()> {
        let inventory = Inventory { vms: vec![vm], ..Inventory::default() };
        self.consoles.say(attach_request::Message::Inventory(inventory))
    }

    /// How and when the controller ended its stream.
    pub fn end(&self) -> anyhow::Result<(Instant, Status)> {
        self.ended.recv_timeout(PATIENCE).context("the node's stream goes on")
    }
}

impl Controller {
    /// Enrolls and plays a node with these VMs, and waits until they are seen.
    pub fn play(&self, node: &str, vms: &[(&str, &str)]) -> anyhow::Result<PlayedNode> {
        self.play_with(node, vms.iter().map(running).collect())
    }

    /// The same, with all that is to be told of its VMs.
    pub fn play_with(&self, node: &str, vms: Vec<VmFacts>) -> anyhow::Result<PlayedNode> {
        let most = vms.len();
        succeeded(&self.enroll(node, &self.join_token(node)?)?)?;
        let played = PlayedNode::attach_with(Path::new(&self.path(&format!("agent-{node}"))), vms)?;
        wait_until("what the node tells", || {
            let seen = self.json(&["vm", "list", "--node", node])?;
            let count = seen.as_array().context("a list")?.len();
            if count == most { Ok(()) } else { bail!("{count} VMs are seen") }
        })?;
        Ok(played)
    }
}

fn running((uuid, name): &(&str, &str)) -> VmFacts {
    VmFacts {
        uuid: (*uuid).to_owned(),
        display_name: (*name).to_owned(),
        state: VmState::Running.into(),
        ..VmFacts::default()
    }
}

/// Says who it is and what it has, and listens to the end.
async fn talk(
    enrolled: &Enrolled,
    inventory: Inventory,
    consoles: &Consoles,
    said: mpsc::Receiver<AttachRequest>,
) -> Status {
    let talking = async {
        let channel = enrolled.connect(DEADLINE).channel().await;
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        let hello = Hello { epoch: 1, ..Hello::default() };
        for message in [attach_request::Message::Hello(hello), attach_request::Message::Inventory(inventory)]
        {
            consoles.say_now(message).map_err(|_| Status::internal("nobody listens"))?;
        }
        let mut answers = AgentLinkClient::new(channel).attach(ReceiverStream::new(said)).await?.into_inner();
        let mut carried = JoinSet::new();
        while let Some(answer) = answers.message().await? {
            if let Some(attach_response::Message::Command(Command {
                command_id,
                action: Some(command::Action::Order(order)),
            })) = answer.message
            {
                consoles.ordered(&command_id, &order, &mut carried);
            }
        }
        Ok::<_, Status>(())
    };
    talking.await.err().unwrap_or_else(|| Status::ok("the stream ended"))
}
