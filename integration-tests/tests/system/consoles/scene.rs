//! What tests of consoles begin with: a node that opens what it is told to, and bob.

use std::time::{Duration, Instant};

use horcrux_integration_tests::{Caller, Controller, Manner, Opened, Person, PlayedNode, Viewer, wait_until};
use horcrux_proto::v1::console_service_client::ConsoleServiceClient;
use horcrux_proto::v1::{
    ConsoleKind, ConsoleMode, ConsoleServiceCreateTicketRequest, ConsoleServiceCreateTicketResponse, VmFacts,
    VmState,
};
use tonic::Status;

pub(crate) const WEB: &str = "aaaaaaaa-0000-4000-8000-000000000001";
pub(crate) const OTHER: &str = "aaaaaaaa-0000-4000-8000-000000000002";
/// What a viewer says up to its ClientInit, without asking for control of the VM alone.
pub(crate) const GREETING: [&[u8]; 3] = [b"RFB 003.008\n", &[1], &[1]];
/// How the played screen's greeting ends.
pub(crate) const SCREEN: &[u8] = b"played";

/// A node `here` with its VMs `web1` and `other1`, and bob, who may use `web1`.
pub(crate) struct Scene {
    pub(crate) bob: Person,
    pub(crate) admin: Person,
    pub(crate) node: PlayedNode,
    // Dropped last: the others talk to it.
    pub(crate) controller: Controller,
}

pub(crate) fn facts(uuid: &str, name: &str, started_ms: i64) -> VmFacts {
    VmFacts {
        uuid: uuid.to_owned(),
        display_name: name.to_owned(),
        state: VmState::Running.into(),
        started_unix_ms: Some(started_ms),
        ..VmFacts::default()
    }
}

fn vms() -> Vec<VmFacts> {
    vec![facts(WEB, "web1", 1000), facts(OTHER, "other1", 1000)]
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::on(Controller::start_talkative().unwrap())
    }

    pub(crate) fn on(controller: Controller) -> Self {
        let node = controller.play_with("here", vms());
        let (admin, bob) = (controller.administrator().unwrap(), controller.person("bob").unwrap());
        let scene = Self { bob, admin, node: node.unwrap(), controller };
        scene.grant("VmUser", &format!("/vms/{WEB}"));
        scene
    }

    /// Starts the controller anew, and the node's stream with it.
    pub(crate) fn restart(&mut self) {
        self.controller.daemon.kill().unwrap();
        self.controller.restart().unwrap();
        let state = self.controller.path("agent-here");
        self.node = PlayedNode::attach_with(state.as_ref(), vms()).unwrap();
        self.controller.wait_for_state("here", "connected").unwrap();
    }

    /// Gives bob a role; says under which id.
    pub(crate) fn grant(&self, role: &str, path: &str) -> String {
        let create = ["grant", "create", "--yes", "--user", "bob", "--role", role, "--path", path];
        self.admin.json(&create).unwrap()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn caller(&self) -> Caller {
        self.bob.caller().unwrap()
    }

    /// A ticket of bob's for `web1`.
    pub(crate) fn ticket(&self, kind: ConsoleKind, mode: ConsoleMode) -> String {
        ticket(&self.caller(), WEB, kind, mode).unwrap().ticket
    }

    /// Bob, at a console of `web1`.
    pub(crate) fn at(&self, kind: ConsoleKind, mode: ConsoleMode) -> Viewer {
        self.caller().at_console(&self.ticket(kind, mode)).unwrap()
    }

    pub(crate) fn serial(&self) -> Viewer {
        self.at(ConsoleKind::Serial, ConsoleMode::Control)
    }

    /// Bob, at the screen, after the greetings.
    pub(crate) fn screen(&self, mode: ConsoleMode) -> Viewer {
        let viewer = self.at(ConsoleKind::Vnc, mode);
        GREETING.iter().for_each(|part| viewer.bytes(part).unwrap());
        viewer.read_until(SCREEN).unwrap();
        viewer
    }

    /// What the node opened last, once it is as `look` wants it.
    pub(crate) fn opened(&self, what: &str, look: impl Fn(&Opened) -> bool) -> Opened {
        wait_until(what, || {
            let opened = self.node.consoles().opened().pop();
            let opened = opened.ok_or_else(|| anyhow::anyhow!("nothing was opened"))?;
            anyhow::ensure!(look(&opened), "{opened:?}");
            Ok(opened)
        })
        .unwrap()
    }

    pub(crate) fn node_behaves(&self, manner: Manner) {
        self.node.consoles().behave(manner);
    }
}

pub(crate) fn ticket(
    caller: &Caller,
    vm: &str,
    kind: ConsoleKind,
    mode: ConsoleMode,
) -> Result<ConsoleServiceCreateTicketResponse, Status> {
    asked(
        caller,
        ConsoleServiceCreateTicketRequest {
            vm: vm.to_owned(),
            kind: kind.into(),
            mode: mode.into(),
            ..ConsoleServiceCreateTicketRequest::default()
        },
    )
}

pub(crate) fn asked(
    caller: &Caller,
    request: ConsoleServiceCreateTicketRequest,
) -> Result<ConsoleServiceCreateTicketResponse, Status> {
    caller.call(|wire| async { ConsoleServiceClient::new(wire).create_ticket(request).await })
}

/// A console ended so, within the time that one has to end in.
pub(crate) fn ended(what: &str, viewer: &Viewer, code: u16, words: &str, began: Instant) {
    let (at, told, reason) = viewer.end().unwrap();
    let took = at.saturating_duration_since(began);
    eprintln!("{what}: {} ms", took.as_millis());
    assert_eq!(told, code, "{what}: {reason}");
    assert!(reason.contains(words), "{what}: {reason}");
    assert!(took < Duration::from_secs(1), "{what} took {took:?}");
}
