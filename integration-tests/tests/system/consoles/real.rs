//! A real guest under a real libvirt: its screen and its serial line in a browser and in a terminal, on a node on which
//! nothing listens for that.

use horcrux_integration_tests::lab::{Lab, Work};
use horcrux_integration_tests::{Browser, Controller, Daemon, Place, wait_until};
use serde_json::Value;

/// A node with a guest that one can sit at, and whose policy lets consoles be opened.
struct Scene {
    // In the order in which they end.
    _agent: Daemon,
    _privd: Daemon,
    controller: Controller,
    vm: String,
    lab: Lab,
}

impl Scene {
    fn start() -> Self {
        let lab = Lab::up(1).unwrap();
        lab.start_libvirtd(1).unwrap();
        let vm = lab.vm(1, "web1", 1, Work::Console).unwrap();
        let controller = Controller::start_at(Place::Lab(lab.network())).unwrap();
        let privd = lab.start_privd(1).unwrap();
        let agent = lab.join(&controller, 1).unwrap();
        let scene = Self { _agent: agent, _privd: privd, controller, vm, lab };
        scene.mode("console");
        scene
    }

    /// Changes the node's policy, and waits until it is told.
    fn mode(&self, mode: &str) {
        let set = format!("s/^mode = .*/mode = \"{mode}\"/");
        self.lab.exec(1, &["sed", "-i", &set, "/etc/horcrux/privd/policy.toml"]).unwrap();
        wait_until("the node's mode", || {
            let node = self.controller.json(&["node", "get", "node1"])?;
            anyhow::ensure!(node["policy"]["mode"] == mode, "{node}");
            Ok(())
        })
        .unwrap();
    }

    /// What listens for TCP connections on the node.
    fn listeners(&self) -> String {
        self.lab.exec(1, &["ss", "-Hltnp"]).unwrap()
    }
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

    // The node has the last word.
    scene.mode("observe");
    let refused = scene.controller.ctl(&["vm", "console", "web1"]).unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("lets no console be opened"), "{said}");
}
