//! A real guest under a real libvirt: its screen and its serial line in a browser and in a terminal, on a node on which
//! nothing listens for that.

use std::time::Duration;

use horcrux_integration_tests::lab::{Lab, Work};
use horcrux_integration_tests::{Browser, Controller, Daemon, Place, wait_until};
use horcrux_test_parts::Terminal;
use serde_json::{Value, json};

/// A node with a guest that one can sit at, and whose policy lets consoles be opened.
pub(super) struct Scene {
    // In the order in which they end.
    _agent: Daemon,
    _privd: Daemon,
    pub(super) controller: Controller,
    vm: String,
    pub(super) lab: Lab,
}

impl Scene {
    fn start() -> Self {
        Self::of(Work::Console)
    }

    pub(super) fn of(work: Work) -> Self {
        let lab = Lab::up(1).unwrap();
        lab.start_libvirtd(1).unwrap();
        let vm = lab.vm(1, "web1", 1, work).unwrap();
        let controller = Controller::start_at(Place::Lab(lab.network())).unwrap();
        let privd = lab.start_privd(1).unwrap();
        let agent = lab.join(&controller, 1).unwrap();
        let scene = Self { _agent: agent, _privd: privd, controller, vm, lab };
        scene.mode("console");
        scene
    }

    fn mode(&self, mode: &str) {
        set_mode(&self.lab, &self.controller, 1, mode);
    }

    /// What listens for TCP connections on the node.
    pub(super) fn listeners(&self) -> String {
        self.lab.exec(1, &["ss", "-Hltnp"]).unwrap()
    }
}

/// Changes a node's policy, and waits until it is told.
pub(super) fn set_mode(lab: &Lab, controller: &Controller, node: usize, mode: &str) {
    let set = format!("s/^mode = .*/mode = \"{mode}\"/");
    lab.exec(node, &["sed", "-i", &set, "/etc/horcrux/privd/policy.toml"]).unwrap();
    wait_until("the node's mode", || {
        let node = controller.json(&["node", "get", &format!("node{node}")])?;
        anyhow::ensure!(node["policy"]["mode"] == mode, "{node}");
        Ok(())
    })
    .unwrap();
}

fn shown(browser: &mut Browser, what: &str, look: impl Fn(&Value) -> bool) -> Value {
    wait_until(what, || {
        let shown = browser.ask("shown")?;
        anyhow::ensure!(look(&shown), "{shown}");
        Ok(shown)
    })
    .unwrap()
}

/// Waits until the serial line has said so.
fn says(browser: &mut Browser, what: &str) {
    wait_until(what, || {
        let lines = browser.ask("terminal")?;
        let all = lines["lines"].as_array();
        let found = all.is_some_and(|all| all.iter().any(|l| l.as_str().is_some_and(|l| l.contains(what))));
        anyhow::ensure!(found, "{lines}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn in_a_browser_the_screen_shows_the_guest_and_keys_reach_it_and_the_serial_line_logs_in() {
    let scene = Scene::start();
    let uuid = scene.vm.trim_start_matches("vms/").to_owned();
    let before = scene.listeners();
    scene.controller.ctl(&["recording", "policy", "set", "vms/web1", "all"]).unwrap();
    let mut browser = Browser::open(&scene.controller).unwrap();
    let sat = browser.ask(&format!("sit {uuid}")).unwrap();
    assert_eq!(sat["path"], format!("/vms/{uuid}/console"));
    shown(&mut browser, "the screen", |shown| shown["drawn"] == true && shown["ending"] == "");
    // A text screen of the guest's own: light letters on black.
    let text = wait_until("the guest's shell", || {
        let picture = browser.ask("picture")?;
        let (width, height) = (picture["width"].as_u64(), picture["height"].as_u64());
        anyhow::ensure!((width, height) == (Some(720), Some(400)), "{picture}");
        anyhow::ensure!(picture["lit"].as_u64().is_some_and(|lit| lit > 2000), "{picture}");
        Ok(picture)
    })
    .unwrap();
    browser.ask("keys echo seen >/dev/ttyS0\\n").unwrap();
    wait_until("another picture", || {
        let picture = browser.ask("picture")?;
        anyhow::ensure!(picture["hash"] != text["hash"], "{picture}");
        Ok(())
    })
    .unwrap();
    // While it is open, nothing new listens on the node, and another user of the host reaches nothing.
    assert_eq!(scene.listeners(), before);
    assert!(!before.contains("qemu"), "{before}");
    let another = ["setpriv", "--reuid=look", "--regid=look", "--clear-groups", "--"];
    let connect = [
        "python3",
        "-c",
        "import socket,sys; s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET); s.connect(sys.argv[1]); s.send(b'\\0'); sys.exit(0 if s.recv(9) else 3)",
        "/run/horcrux/privd.sock",
    ];
    assert!(scene.lab.exec(1, &[&another[..], &connect].concat()).is_err());
    browser.ask("rise").unwrap();

    browser.ask(&format!("console {uuid} serial")).unwrap();
    // It says nothing until it is spoken to: what it said before, nobody heard.
    shown(&mut browser, "the line", |shown| shown["stage"] == "open");
    browser.ask("press Enter").unwrap();
    says(&mut browser, "login:");
    browser.ask("keys root\\n").unwrap();
    says(&mut browser, "Password:");
    browser.ask("keys horcrux\\n").unwrap();
    says(&mut browser, "built-in shell");
    browser.ask("keys echo a$((6*7))b\\n").unwrap();
    says(&mut browser, "a42b");
    browser.ask("rise").unwrap();
    replays(&scene, &mut browser);

    // The node has the last word.
    scene.mode("observe");
    let refused = scene.controller.ctl(&["vm", "console", "web1"]).unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("lets no console be opened"), "{said}");
}

/// What was recorded of both: the newest is the line.
fn replays(scene: &Scene, browser: &mut Browser) {
    let ids = wait_until("both recordings' ends", || {
        let all = scene.controller.json(&["recording", "list"])?;
        let all = all.as_array().cloned().unwrap_or_default();
        anyhow::ensure!(all.len() == 2 && all.iter().all(|one| one["ended_unix_ms"].is_i64()), "{all:?}");
        Ok(all.iter().map(|one| one["name"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>())
    })
    .unwrap();
    for id in &ids {
        browser.ask(&format!("replay {}", id.trim_start_matches("recordings/"))).unwrap();
        wait_until("the recording", || {
            let seen = browser.ask("replayed")?;
            anyhow::ensure!(seen["verdict"] == "intact" && seen["warnings"] == json!({}), "{seen}");
            Ok(())
        })
        .unwrap();
        browser.ask("tap End").unwrap();
        wait_until("what was there at its end", || {
            let (lines, drawn) = (browser.ask("lines")?.to_string(), browser.ask("drawing")?);
            let size = (drawn["width"].as_u64(), drawn["height"].as_u64());
            let is_drawn =
                size == (Some(720), Some(400)) && drawn["lit"].as_u64().is_some_and(|lit| lit > 2000);
            anyhow::ensure!(is_drawn || lines.contains("a42b"), "{lines}, {drawn}");
            Ok(())
        })
        .unwrap();
        browser.ask("put-away").unwrap();
    }
    assert_eq!(browser.ask("read").unwrap()["problems"], json!([]), "of replays and consoles");
}

#[test]
fn in_a_terminal_the_serial_line_logs_in_and_a_key_leads_out() {
    let scene = Scene::start();
    let log = scene.controller.path("serial.log");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let status = runtime.block_on(async {
        let terminal = Terminal::open();
        let before = terminal.modes();
        let client = scene.controller.client("terminal").unwrap();
        scene.controller.administrator().unwrap().elsewhere("client-terminal").sign_in().unwrap();
        let command = client.command(&["vm", "console", "web1", "--log", &log]).unwrap();
        let mut child = terminal.run(command.into());
        let mut screen = terminal.screen();
        terminal.is_raw().await;
        screen.shows("Ctrl-]").await;
        terminal.types(b"\r");
        screen.shows("login:").await;
        terminal.types(b"root\r");
        screen.shows("Password:").await;
        terminal.types(b"horcrux\r");
        screen.shows("built-in shell").await;
        terminal.types(b"echo a$((6*7))b\r");
        screen.shows("a42b").await;
        terminal.types(b"\x1d");
        let status = tokio::time::timeout(Duration::from_secs(20), child.wait()).await.unwrap().unwrap();
        assert_eq!(terminal.modes(), before);
        status
    });
    assert!(status.success(), "{status}");
    let kept = std::fs::read_to_string(&log).unwrap();
    assert!(kept.contains("a42b") && !kept.contains("horcrux\n"), "{kept}");

    // Its screen, as a picture.
    let picture = scene.controller.path("screen.png");
    scene.controller.ctl(&["vm", "console", "web1", "--screenshot", &picture]).unwrap();
    let png = std::fs::read(&picture).unwrap();
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    // Its width and height stand in its head.
    assert_eq!(png[16..24], [0, 0, 720_u32.to_be_bytes()[2], 720_u32.to_be_bytes()[3], 0, 0, 1, 144]);
}

#[test]
fn a_console_follows_its_vm_to_another_node() {
    let lab = Lab::up(2).unwrap();
    for node in [1, 2] {
        lab.start_libvirtd(node).unwrap();
    }
    lab.disk(2, "web1").unwrap();
    let vm = lab.vm(1, "web1", 1, Work::Console).unwrap();
    let controller = Controller::start_at(Place::Lab(lab.network())).unwrap();
    let _running: Vec<(Daemon, Daemon)> = [1, 2]
        .map(|node| {
            let privd = lab.start_privd(node).unwrap();
            (lab.join(&controller, node).unwrap(), privd)
        })
        .into();
    for node in [1, 2] {
        set_mode(&lab, &controller, node, "console");
    }
    let uuid = vm.trim_start_matches("vms/").to_owned();
    let mut browser = Browser::open(&controller).unwrap();
    browser.ask(&format!("console {uuid} vnc")).unwrap();
    shown(&mut browser, "the screen", |shown| shown["drawn"] == true && shown["node"] == "on node1");
    wait_until("the guest's shell", || {
        let picture = browser.ask("picture")?;
        anyhow::ensure!(picture["lit"].as_u64().is_some_and(|lit| lit > 2000), "{picture}");
        Ok(())
    })
    .unwrap();
    let consoles = || controller.json(&["console", "list"]).unwrap();
    let before = consoles();
    let migrate = ["virsh", "-q", "-c", "qemu:///system", "migrate", "--live", "--p2p", "--unsafe"];
    lab.exec(1, &[&migrate[..], &["--persistent", "web1", "qemu+tcp://10.77.0.2/system"]].concat()).unwrap();
    shown(&mut browser, "the other node", |shown| {
        shown["node"] == "on node2"
            && shown["stage"] == "open"
            && shown["ending"] == ""
            && shown["drawn"] == true
    });
    let after = wait_until("the picture", || {
        let picture = browser.ask("picture")?;
        anyhow::ensure!(picture["lit"].as_u64().is_some_and(|lit| lit > 2000), "{picture}");
        Ok(picture)
    })
    .unwrap();
    browser.ask("keys echo here\\n").unwrap();
    wait_until("what was typed there", || {
        let picture = browser.ask("picture")?;
        anyhow::ensure!(picture["hash"] != after["hash"], "{picture}");
        Ok(())
    })
    .unwrap();
    // It is the same console, by the same ticket.
    assert_eq!(consoles()[0]["name"], before[0]["name"]);
    assert_eq!(consoles()[0]["node"], "nodes/node2");
}
