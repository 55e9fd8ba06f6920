//! horcrux-privd at its socket: what it carries out, and what nobody can have it do.

mod consoles;
mod hostile;
mod refused;
mod sandboxed;

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use horcrux_envelope::Signer;
use horcrux_envelope::v1::{ConsoleClose, ConsoleKind, ConsoleOpen, Envelope, SignedEnvelope, envelope};
use horcrux_integration_tests::{Daemon, program, wait_until};
use horcrux_privd::settings::{Controller, Mode, starting_policy};
use horcrux_privd::v1::{OrderAnswer, OrderStatus};
use horcrux_privd::{AskError, OpenedConsole, Settled, Submitted};
use horcrux_transport::clock;
use prost::Message as _;
use serde_json::Value;
use tempfile::TempDir;

/// Longer than an order takes.
const LONG: Duration = Duration::from_secs(40);
const CLUSTER: &str = "lab";
const NODE: &str = "0123456789abcdef0123456789abcdef";
/// The VM of libvirt's `test:///default`, which has no display.
const TEST_VM: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

/// A controller that signs orders, as a test wants them.
struct Orders {
    signer: Signer,
    sequence: u64,
}

/// One that answers this test, on a host of its own: a directory.
struct Host {
    daemon: Daemon,
    root: TempDir,
}

impl Orders {
    fn new() -> Self {
        Self { signer: Signer::new(&[7; 32]), sequence: 0 }
    }

    fn controller(&self) -> Controller {
        let keys = vec![self.signer.public_key()];
        Controller { cluster: CLUSTER.to_owned(), node_id: NODE.to_owned(), keys }
    }

    fn envelope(&mut self, operation: envelope::Operation) -> Envelope {
        self.sequence += 1;
        let now = clock::unix_ms();
        Envelope {
            cluster: CLUSTER.to_owned(),
            node_id: NODE.to_owned(),
            command_id: format!("{:032x}", self.sequence),
            sequence: self.sequence,
            issued_unix_ms: now,
            expires_unix_ms: now + 30_000,
            actor: "ada@local".to_owned(),
            operation: Some(operation),
        }
    }

    fn open(&mut self, vm: &str, kind: ConsoleKind) -> Envelope {
        let console_id = format!("c{:031x}", self.sequence);
        self.envelope(envelope::Operation::ConsoleOpen(ConsoleOpen {
            console_id,
            vm_uuid: vm.to_owned(),
            kind: kind.into(),
            rendezvous: vec![9; 32],
            until_unix_ms: clock::unix_ms() + 3_600_000,
        }))
    }

    fn close(&mut self, console_id: &str) -> Envelope {
        let console_id = console_id.to_owned();
        self.envelope(envelope::Operation::ConsoleClose(ConsoleClose { console_id }))
    }

    /// What comes of an order in the end.
    fn settled(&self, socket: &Path, envelope: &Envelope) -> Settled {
        settled(socket, &self.signer.sign(envelope)).unwrap()
    }

    fn answer(&self, socket: &Path, envelope: &Envelope) -> OrderAnswer {
        self.settled(socket, envelope).answer
    }

    fn opened(&self, socket: &Path, envelope: &Envelope) -> OpenedConsole {
        let settled = self.settled(socket, envelope);
        settled.console.unwrap_or_else(|| panic!("{:?}", settled.answer))
    }
}

fn settled(socket: &Path, signed: &SignedEnvelope) -> Result<Settled, AskError> {
    match horcrux_privd::submit(socket, &signed.encode_to_vec(), LONG)? {
        Submitted::Answered(answer) => Ok(Settled { answer, console: None }),
        Submitted::Accepted(pending) => pending.wait(LONG),
    }
}

fn console_id(envelope: &Envelope) -> &str {
    match envelope.operation.as_ref().unwrap() {
        envelope::Operation::ConsoleOpen(open) => &open.console_id,
        envelope::Operation::ConsoleClose(close) => &close.console_id,
    }
}

/// Waits for the program to answer at `socket`.
fn answers(socket: &Path) {
    wait_until("that privd answers", || Ok(horcrux_privd::policy(socket, LONG)?)).unwrap();
}

/// Whether the other side of a socket has ended it.
fn is_dead(socket: &OwnedFd) -> bool {
    let mut some = [0; 4096];
    loop {
        match rustix::net::recv(socket, &mut some[..], rustix::net::RecvFlags::DONTWAIT) {
            Ok((_, 0)) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => return true,
            // What was said before.
            Ok(_) => {}
            Err(rustix::io::Errno::AGAIN) => return false,
            Err(errno) => panic!("{errno}"),
        }
    }
}

impl Host {
    /// With the policy that a host starts with, and libvirt's own test driver.
    fn start(orders: &Orders, mode: Mode) -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("etc/horcrux/privd");
        fs::create_dir_all(&dir).unwrap();
        fs::create_dir_all(root.path().join("run/horcrux")).unwrap();
        fs::write(dir.join("controller.toml"), orders.controller().to_file().unwrap()).unwrap();
        let policy = starting_policy(mode) + "libvirt_uri = \"test:///default\"\n";
        fs::write(dir.join("policy.toml"), policy).unwrap();
        let daemon = Self::daemon(root.path());
        let host = Self { daemon, root };
        answers(&host.socket());
        host
    }

    fn daemon(root: &Path) -> Daemon {
        Daemon::start(Self::command(root), &root.join("privd.log")).unwrap()
    }

    fn command(root: &Path) -> Command {
        let mut command = Command::new(program("horcrux-privd").unwrap());
        command.arg("--socket").arg(root.join("socket")).arg("--root").arg(root);
        command.args(["--allow-uid", "0"]);
        command
    }

    /// kill -9, and another in its place.
    fn restart(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon = Self::daemon(self.root.path());
        answers(&self.socket());
    }

    fn socket(&self) -> PathBuf {
        self.root.path().join("socket")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.path().join("etc/horcrux/privd").join(name)
    }

    fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.root.path().join("var/lib/horcrux-privd/audit")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// An order that is allowed, and comes to nothing: the VM has no display.
    fn takes_orders(&self, orders: &mut Orders) {
        let order = orders_open(orders);
        let answer = orders.answer(&self.socket(), &order);
        assert_eq!(answer.status(), OrderStatus::Failed, "{answer:?}");
        assert!(answer.reason.contains("no display for vnc"), "{answer:?}");
    }
}

fn orders_open(orders: &mut Orders) -> Envelope {
    orders.open(TEST_VM, ConsoleKind::Vnc)
}
