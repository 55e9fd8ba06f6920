//! The agent's program against a controller: it keeps one identity at a time, whatever it is killed over.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use horcrux_agentd::identity::Enrolled;
use horcrux_envelope::Signer;
use horcrux_privd::settings::Controller as Trusted;
use horcrux_transport::clock;
use tempfile::TempDir;

mod fake;
use fake::{Controller, Record};

const PATIENCE: Duration = Duration::from_secs(20);

/// A node of its own, with an agent that may run on it.
struct Node {
    dir: TempDir,
    agent: Option<Child>,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        fs::write(dir.path().join("agentd.toml"), format!("state_dir = {state:?}\n")).unwrap();
        Self { dir, agent: None }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn privd_dir(&self) -> PathBuf {
        self.dir.path().join("etc/horcrux/privd")
    }

    fn identity(&self) -> Enrolled {
        Enrolled::load(&self.state()).unwrap()
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_horcrux-agentd"));
        command.arg(verb).arg("--config").arg(self.dir.path().join("agentd.toml"));
        command.env("RUST_LOG", "info").stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    async fn enroll(&self, controller: &Controller, token: &str, arguments: &[&str]) -> Output {
        let file = self.dir.path().join("token");
        fs::write(&file, controller.token(token)).unwrap();
        let mut command = self.command("enroll");
        command.arg("--token-file").arg(file).args(arguments);
        command.arg("--privd-dir").arg(self.privd_dir());
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn enroll_first(&self, controller: &Controller) {
        let url = format!("https://127.0.0.1:{}", controller.port);
        let enrolled = self.enroll(controller, "first", &["--controller", &url]).await;
        assert!(enrolled.status.success(), "{}", said(&enrolled));
    }

    fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        self.agent = Some(self.command("run").stderr(log).spawn().unwrap());
    }

    /// kill -9.
    fn kill(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().unwrap();
            agent.wait().unwrap();
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    async fn wait(&self, controller: &Controller, what: &str, is: impl Fn(&Record) -> bool) {
        let until = clock::monotonic() + PATIENCE;
        while !is(&controller.record()) {
            assert!(clock::monotonic() < until, "waited for {what}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn enrolled(record: Record) -> (Controller, Node) {
    let (controller, node) = (Controller::start().await, Node::new());
    *controller.record() = record;
    node.enroll_first(&controller).await;
    (controller, node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_renewal_every_connection_shows_the_new_certificate() {
    let due = Record { id: "1".to_owned(), due_at_once: 1, ..Record::default() };
    let (controller, mut node) = enrolled(due).await;
    let first = controller.record().serial.clone();
    assert_eq!(node.identity().facts.generation, 1);
    node.start();
    node.wait(&controller, "a renewal", |r| r.generation == 2).await;
    for stream in 0..4 {
        node.wait(&controller, "a stream", |r| r.attached > stream + 1).await;
        controller.drop_streams();
    }
    let record = controller.record();
    assert_eq!((record.locked, record.renewals), (None, 1));
    assert_eq!(
        record.shown,
        [first, record.serial.clone()],
        "the old one, and never again after the new one"
    );
    assert_eq!(node.identity().facts.generation, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_while_it_renews_is_never_locked_out() {
    // All are due at once: it renews as often as it connects.
    let due = Record { id: "1".to_owned(), due_at_once: u32::MAX, ..Record::default() };
    let (controller, mut node) = enrolled(due).await;
    for round in 0..12 {
        let before = controller.record().renewals;
        node.start();
        node.wait(&controller, "a renewal", |r| r.renewals > before).await;
        tokio::time::sleep(Duration::from_micros(700 * round)).await;
        node.kill();
        node.identity();
    }
    controller.record().due_at_once = 0;
    let before = controller.record().attached;
    node.start();
    node.wait(&controller, "a last stream", |r| r.attached > before).await;
    let record = controller.record();
    assert_eq!(record.locked, None, "{}", node.log());
    let mut shown = record.shown.clone();
    shown.sort();
    shown.dedup();
    assert_eq!(shown.len(), record.shown.len(), "one was shown after another: {:?}", record.shown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_enrolled_again_needs_no_restart() {
    let (controller, mut node) = enrolled(Record { id: "1".to_owned(), ..Record::default() }).await;
    node.start();
    node.wait(&controller, "a stream", |r| r.attached == 1).await;
    let url = format!("https://127.0.0.1:{}", controller.port);
    let refused = node.enroll(&controller, "second", &["--controller", &url]).await;
    assert!(said(&refused).contains("enrolled already, as nodes/a"), "{}", said(&refused));
    assert!(said(&refused).contains("--again"), "{}", said(&refused));
    assert_eq!(controller.record().asked.len(), 1, "the token was not shown");
    // While it has a stream, and without a word on where the controller is.
    let again = node.enroll(&controller, "second", &["--again"]).await;
    assert!(again.status.success() && said(&again).contains("enrolled again"), "{}", said(&again));
    node.wait(&controller, "the new certificate", |r| r.shown.last() == Some(&r.serial)).await;
    // While it is refused.
    controller.record().serial = "00".to_owned();
    controller.drop_streams();
    node.wait(&controller, "refusals", |r| r.refused >= 2).await;
    let attached = controller.record().attached;
    controller.record().id = "2".to_owned();
    let other = node.enroll(&controller, "third", &["--again"]).await;
    let told = said(&other);
    assert!(other.status.success() && told.contains("another node than this was"), "{told}");
    assert!(told.contains("spiffe://c/node/1") && told.contains("spiffe://c/node/2"), "{told}");
    node.wait(&controller, "a stream of the new identity", |r| r.attached > attached).await;
    let log = node.log();
    assert_eq!(log.matches("no longer accepted").count(), 1, "once: {log}");
    assert!(log.contains("--again"), "what to do: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_lost_is_given_again_to_the_same_key() {
    let (controller, node) = (Controller::start().await, Node::new());
    *controller.record() = Record { id: "1".to_owned(), lose_answers: 1, ..Record::default() };
    let url = format!("https://127.0.0.1:{}", controller.port);
    let lost = node.enroll(&controller, "first", &["--controller", &url]).await;
    assert!(!lost.status.success());
    node.enroll_first(&controller).await;
    controller.record().lose_answers = 1;
    let before = node.identity();
    assert!(!node.enroll(&controller, "second", &["--again"]).await.status.success());
    assert!(node.identity().is(&before), "until the answer is here");
    assert!(node.enroll(&controller, "second", &["--again"]).await.status.success());
    let record = controller.record();
    let keys: Vec<_> = record.asked.iter().map(|(_, key)| key).collect();
    assert!(keys[0] == keys[1] && keys[2] == keys[3] && keys[1] != keys[2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_has_ended_is_told_and_does_not_block_a_new_one() {
    let ended = Record { id: "1".to_owned(), ended: true, ..Record::default() };
    let (controller, mut node) = enrolled(ended).await;
    node.start();
    node.wait(&controller, "a refusal", |_| node.log().contains("certificate has ended")).await;
    // A few more dials.
    tokio::time::sleep(Duration::from_secs(3)).await;
    controller.record().ended = false;
    let again = node.enroll(&controller, "second", &["--again"]).await;
    assert!(again.status.success(), "{}", said(&again));
    node.wait(&controller, "a stream", |r| r.attached == 1).await;
    let log = node.log();
    assert_eq!(log.matches("certificate has ended").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_node_says_so_once_and_comes_back_when_it_is_unlocked() {
    let (controller, mut node) = enrolled(Record { id: "1".to_owned(), ..Record::default() }).await;
    controller.record().locked = Some("an administrator must unlock it");
    node.start();
    node.wait(&controller, "dials", |r| r.refused >= 4).await;
    controller.record().locked = None;
    node.wait(&controller, "a stream", |r| r.attached == 1).await;
    let log = node.log();
    assert_eq!(log.matches("shut this node out").count(), 1, "{log}");
    assert!(node.agent.as_mut().unwrap().try_wait().unwrap().is_none(), "it ran on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_enrolls_at_the_agents_port_learns_which_one_it_is() {
    let (controller, node) = (Controller::start().await, Node::new());
    let url = format!("https://127.0.0.1:{}", controller.agents_port());
    let refused = node.enroll(&controller, "first", &["--controller", &url]).await;
    assert!(!refused.status.success());
    let said = said(&refused);
    assert!(said.starts_with("error: ") && said.contains("is a port for agents"), "{said}");
    assert!(said.contains(&url) && said.contains("8006"), "{said}");
    let url = format!("https://127.0.0.1:{}", controller.port);
    let enrolled = node.enroll(&controller, "first", &["--controller", &url]).await;
    assert!(enrolled.status.success(), "the token is not used up: {enrolled:?}");
}

#[test]
fn settings_that_would_show_nothing_are_refused() {
    let node = Node::new();
    let check = |node: &Node| node.command("check-config").output().unwrap();
    assert!(check(&node).status.success(), "{}", said(&check(&node)));
    let file = node.dir.path().join("agentd.toml");
    let exporter = "[exporter]\nlisten = \"0.0.0.0:1\"\ncertificate = \"/nonexist/c\"\nkey = \"/nonexist/k\"\n\
                    token_file = \"/nonexist/t\"\n";
    let state = fs::read_to_string(&file).unwrap();
    for (settings, named) in [
        ("root = \"/nonexist\"\n".to_owned(), "/nonexist/proc"),
        (format!("{state}{exporter}"), "/nonexist/"),
    ] {
        fs::write(&file, settings).unwrap();
        for verb in ["check-config", "run"] {
            let refused = node.command(verb).output().unwrap();
            assert!(!refused.status.success(), "{verb}");
            assert!(said(&refused).contains(named), "{verb}: {}", said(&refused));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_leaves_whose_orders_count_and_the_agent_s_user_has_no_part_in_it() {
    let node = Node::new();
    let controller = Controller::start().await;
    let key = |seed| Signer::new(&[seed; 32]).public_key();
    let set = |keys: &[&[u8]]| {
        let command_keys = keys.iter().map(|key| bytes::Bytes::copy_from_slice(key)).collect();
        *controller.record() = Record { id: "1".to_owned(), command_keys, ..Record::default() };
    };
    let url = format!("https://127.0.0.1:{}", controller.port);
    let again = ["--controller", &url, "--again"];
    set(&[]);
    let none = node.enroll(&controller, "first", &again).await;
    assert!(
        none.status.success() && said(&none).contains("it gave no key to know them by"),
        "{}",
        said(&none)
    );
    set(&[&[0; 31]]);
    let wrong = node.enroll(&controller, "second", &again).await;
    assert!(said(&wrong).contains("it gave no key to know them by"), "{}", said(&wrong));
    assert!(!node.privd_dir().exists());

    set(&[key(1).as_bytes()]);
    if !rustix::process::geteuid().is_root() {
        let refused = node.enroll(&controller, "third", &again).await;
        assert!(said(&refused).contains("run this as root"), "{}", said(&refused));
        return;
    }
    // As it is where the agent's package is installed: the state is the agent's own user's.
    let reach = fs::Permissions::from_mode(0o755);
    fs::set_permissions(node.dir.path(), reach).unwrap();
    for entry in fs::read_dir(node.state()).unwrap() {
        chown(entry.unwrap().path(), Some(65534), Some(65534)).unwrap();
    }
    chown(node.state(), Some(65534), Some(65534)).unwrap();
    let first = node.enroll(&controller, "third", &[&again[..], &["--mode", "console"]].concat()).await;
    assert!(
        said(&first).contains("are taken as") && said(&first).contains("allows: console"),
        "{}",
        said(&first)
    );
    set(&[key(2).as_bytes()]);
    let second = node.enroll(&controller, "fourth", &[&again[..], &["--mode", "manage"]].concat()).await;
    assert!(said(&second).contains("it is as it was"), "{}", said(&second));
    let owner = |path: PathBuf| fs::metadata(path).unwrap().uid();
    let kept = fs::read_to_string(node.privd_dir().join("controller.toml")).unwrap();
    let kept = Trusted::parse(&kept).unwrap();
    assert_eq!(
        (kept.keys, format!("spiffe://{}/node/{}", kept.cluster, kept.node_id)),
        (vec![key(2)], node.identity().id())
    );
    let policy = fs::read_to_string(node.privd_dir().join("policy.toml")).unwrap();
    assert!(policy.contains("\nmode = \"console\"\n"), "{policy}");
    for name in ["controller.toml", "policy.toml", "."] {
        assert_eq!(owner(node.privd_dir().join(name)), 0, "{name}");
    }
    for entry in fs::read_dir(node.state()).unwrap() {
        assert_eq!(owner(entry.unwrap().path()), 65534, "root made it its own");
    }
}
