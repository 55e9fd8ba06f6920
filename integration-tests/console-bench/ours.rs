//! A controller with its nodes. All but one are played in this process, so that the controller alone is measured; that one is
//! a real agent, whose horcrux-privd is played and opens socket pairs.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc::Receiver as Opens;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use horcrux_integration_tests::{Caller, Controller, Daemon, Opened, PlayedNode, succeeded, wait_until};
use horcrux_proto::console::Notice;
use horcrux_proto::v1::console_service_client::ConsoleServiceClient;
use horcrux_proto::v1::{ConsoleKind, ConsoleMode, ConsoleServiceCreateTicketRequest, VmFacts, VmState};
use horcrux_transport::websocket::{Heard, Receiver, Sender};

use crate::privd::{self, Vm};
use crate::read;

pub(crate) struct Ours {
    callers: Vec<Caller>,
    played: Vec<PlayedNode>,
    agent: Daemon,
    opens: Opens<Vm>,
    // Dropped last: the others talk to it.
    controller: Controller,
}

/// Of libvirt's own test driver: a VM that is always there.
const TEST_VM: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";
/// No node may have more than 64 consoles open, and no user more than 8 at a VM: the number of VMs shares none with that of users.
const USERS: usize = 4;
const PLAYED: usize = 4;
/// `RFB 003.008` and the end of its line.
const VERSION: usize = 12;
const VMS: usize = 27;
const OPENED_WITHIN: Duration = Duration::from_secs(10);

impl Ours {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let controller = Controller::start()?;
        let of = |node| (0..VMS).filter(move |number| number % PLAYED == node).map(facts).collect();
        let play = |node| controller.play_with(&format!("played{node}"), of(node));
        let played = (0..PLAYED).map(play).collect::<anyhow::Result<_>>()?;
        succeeded(&controller.enroll("real", &controller.join_token("real")?)?)?;
        let socket = controller.path("privd.sock");
        let opens = privd::start(Path::new(&socket))?;
        let config = fs::OpenOptions::new().append(true).open(controller.path("real.toml"));
        writeln!(config?, "privd_socket = {socket:?}\nlibvirt_uris = [\"test:///default\"]")?;
        let agent = controller.agent("real")?;
        let mut callers = Vec::new();
        for number in 0..USERS {
            let person = controller.person(&format!("user{number}"))?;
            let grant =
                ["grant", "create", "--yes", "--user", &person.name, "--role", "VmUser", "--path", "/"];
            controller.json(&grant)?;
            callers.push(person.caller()?);
        }
        wait_until("the real agent's VM", || {
            let seen = controller.json(&["vm", "get", TEST_VM])?;
            ensure!(seen["state"] == "running", "it is {}", seen["state"]);
            Ok(())
        })?;
        Ok(Self { callers, played, agent, opens, controller })
    }

    pub(crate) fn url(&self) -> String {
        self.controller.url()
    }

    pub(crate) fn fingerprint(&self) -> anyhow::Result<String> {
        Ok(self.controller.fingerprint()?.trim().to_owned())
    }

    pub(crate) fn password_file(&self) -> String {
        self.controller.path("password")
    }

    pub(crate) fn controller(&self) -> anyhow::Result<u32> {
        Ok(self.controller.daemon.pid()?.as_raw_nonzero().get().unsigned_abs())
    }

    pub(crate) fn agent(&self) -> anyhow::Result<u32> {
        Ok(self.agent.pid()?.as_raw_nonzero().get().unsigned_abs())
    }

    /// A console of a played node: who looks, and what the VM says it by.
    pub(crate) async fn open_played(&self, number: usize) -> anyhow::Result<(Sender, Receiver, Opened)> {
        let user = &self.callers[number % USERS];
        let (sender, mut receiver) = at_console(user, &uuid(number % VMS)).await?;
        // What its screen says first.
        read(&mut receiver, VERSION).await?;
        let opened = self.played[number % VMS % PLAYED]
            .consoles()
            .opened()
            .pop()
            .context("what a played node opened")?;
        Ok((sender, receiver, opened))
    }

    /// A console of the real agent's: who looks, and the VM.
    pub(crate) async fn open_real(&self) -> anyhow::Result<(Sender, Receiver, Vm)> {
        let (sender, receiver) = at_console(&self.callers[0], TEST_VM).await?;
        Ok((sender, receiver, self.opens.recv_timeout(OPENED_WITHIN).context("what privd opened")?))
    }
}

async fn at_console(caller: &Caller, vm: &str) -> anyhow::Result<(Sender, Receiver)> {
    let request = ConsoleServiceCreateTicketRequest {
        vm: vm.to_owned(),
        kind: ConsoleKind::Vnc.into(),
        mode: ConsoleMode::Control.into(),
        ..ConsoleServiceCreateTicketRequest::default()
    };
    let ticket = ConsoleServiceClient::new(caller.wire().await?).create_ticket(request).await?.into_inner();
    let (mut sender, mut receiver) = caller.websocket().await?;
    sender.text(&ticket.ticket).await?;
    loop {
        match receiver.next().await? {
            Heard::Text(text) => {
                if let Notice::Opened { .. } = serde_json::from_str(&text)? {
                    return Ok((sender, receiver));
                }
            }
            Heard::Bytes(_) => {}
            Heard::Closed { code, reason } => bail!("not opened: {code} {reason}"),
        }
    }
}

fn uuid(number: usize) -> String {
    format!("aaaaaaaa-0000-4000-8000-{number:012}")
}

fn facts(number: usize) -> VmFacts {
    VmFacts {
        uuid: uuid(number),
        display_name: format!("vm{number}"),
        state: VmState::Running.into(),
        started_unix_ms: Some(1000),
        ..VmFacts::default()
    }
}
