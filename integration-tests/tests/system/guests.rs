//! What guest agents say of their guests: real ones, in guests that boot for it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::time::Duration;

use horcrux_integration_tests::lab::{Lab, Work};
use horcrux_integration_tests::{Controller, Daemon, Place, succeeded, wait_until};
use horcrux_transport::clock;
use serde_json::{Value, json};

use crate::vms::Watched;

/// What a guest is asked for, as a reason names it, and where the answer is shown.
const FAMILIES: [(&str, &str); 6] = [
    ("operating system", "/os"),
    ("host name", "/hostname"),
    ("users", "/users/0"),
    ("addresses", "/interfaces/0"),
    ("load", "/load/0"),
    ("filesystems", "/filesystems/0"),
];

struct Scene {
    // In the order in which they end.
    agent: Daemon,
    controller: Controller,
    lab: Lab,
}

impl Scene {
    /// A node whose agent asks guest agents.
    fn start() -> Self {
        let lab = Lab::up(1).unwrap();
        lab.start_libvirtd(1).unwrap();
        let controller = Controller::start_at(Place::Lab(lab.network())).unwrap();
        let token = controller.join_token("node1").unwrap();
        succeeded(&controller.enroll("node1", &token).unwrap()).unwrap();
        let config = fs::OpenOptions::new().append(true).open(controller.path("node1.toml"));
        config.unwrap().write_all(b"ask_guest_agents = true\n").unwrap();
        let agent = lab.agent(&controller, 1).unwrap();
        Self { agent, controller, lab }
    }

    /// Starts the agent anew, by the default: without asking.
    fn stop_asking(mut self) -> Self {
        self.agent.kill().unwrap();
        let config = self.controller.path("node1.toml");
        let kept = fs::read_to_string(&config).unwrap().replace("ask_guest_agents = true\n", "");
        fs::write(&config, kept).unwrap();
        self.agent = self.lab.agent(&self.controller, 1).unwrap();
        self
    }

    fn virsh(&self, args: &[&str]) -> String {
        self.lab.exec(1, &[&["virsh", "-q", "-c", "qemu:///system"], args].concat()).unwrap()
    }

    /// What `virsh guestinfo` says.
    fn guestinfo(&self, name: &str) -> BTreeMap<String, String> {
        let text = self.virsh(&["guestinfo", name]);
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()
    }

    /// Has the guest with that number do something to its agent: a signal, or its start.
    fn tell_agent(&self, number: usize, what: &str) {
        let url = format!("http://10.77.0.{}/cgi-bin/agent?{what}", 100 + number);
        let said = self.lab.exec(1, &["curl", "-sS", "--fail", "--max-time", "10", &url]).unwrap();
        assert_eq!(said, "done\n");
    }

    fn get(&self, uuid: &str) -> anyhow::Result<Value> {
        self.controller.json(&["vm", "get", uuid])
    }

    /// The VM, once what its guest says is as wanted.
    fn wait_for(&self, what: &str, uuid: &str, look: impl Fn(&Value) -> bool) -> Value {
        wait_until(what, || {
            let vm = self.get(uuid)?;
            let (guest, why) = (&vm["guest"], &vm["guest_unknown_reason"]);
            anyhow::ensure!(look(&vm), "{guest} {why}");
            Ok(vm)
        })
        .unwrap()
    }

    fn wait_for_facts(&self, uuid: &str) -> Value {
        self.wait_for("what the guest says", uuid, |vm| vm["guest"].is_object())
    }

    /// That nothing is known, and that the reason says this.
    fn wait_for_reason(&self, uuid: &str, why: &str) -> Value {
        self.wait_for(why, uuid, |vm| vm["guest"].is_null() && reason(vm).contains(why))
    }
}

/// That it comes before guests are asked anyway, every 30 s.
fn soon<T>(comes: impl FnOnce() -> T) -> T {
    let since = clock::monotonic();
    let come = comes();
    let took = since.elapsed();
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    come
}

fn reason(vm: &Value) -> &str {
    vm["guest_unknown_reason"].as_str().unwrap_or_default()
}

/// The same, from what virsh says of a guest.
fn facts(said: &BTreeMap<String, String>) -> Value {
    let text = |key: &str| said.get(key).unwrap_or_else(|| panic!("no {key} in {said:?}")).clone();
    let number = |key: &str| text(key).parse::<u64>().unwrap();
    let address = |of: &str| format!("{}/{}", text(&format!("{of}.addr")), text(&format!("{of}.prefix")));
    let interface = |at: u64| {
        let of = format!("if.{at}");
        let addresses: Vec<String> = (0..number(&format!("{of}.addr.count")))
            .map(|nth| address(&format!("{of}.addr.{nth}")))
            .collect();
        json!({"name": text(&format!("{of}.name")), "mac": text(&format!("{of}.hwaddr")), "addresses": addresses})
    };
    let filesystem = |at: u64| {
        let of = format!("fs.{at}");
        json!({"mountpoint": text(&format!("{of}.mountpoint")), "kind": text(&format!("{of}.fstype")),
               "size_bytes": number(&format!("{of}.total-bytes")), "used_bytes": number(&format!("{of}.used-bytes"))})
    };
    json!({
        "os": text("os.pretty-name"),
        "kernel": text("os.kernel-release"),
        "hostname": text("hostname"),
        "users": (0..number("user.count")).map(|at| text(&format!("user.{at}.name"))).collect::<Vec<_>>(),
        "interfaces": (0..number("if.count")).map(interface).collect::<Vec<_>>(),
        "filesystems": (0..number("fs.count")).map(filesystem).collect::<Vec<_>>(),
    })
}

/// What of `FAMILIES` is not there; each has a reason, alone or with others.
fn lacking(guest: &Value) -> Vec<&'static str> {
    let unknown: Vec<&str> =
        guest["unknown"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut lacking = Vec::new();
    for (family, shown) in FAMILIES {
        let is_there = guest.pointer(shown).is_some_and(|value| !value.is_null());
        let has_reason = unknown
            .iter()
            .any(|why| why.split_once(": ").is_some_and(|(of, _)| of.split(", ").any(|one| one == family)));
        assert_ne!(is_there, has_reason, "{family}: {guest}");
        if has_reason {
            lacking.push(family);
        }
    }
    lacking
}

#[test]
fn what_a_guest_says_agrees_with_virsh_and_what_it_does_not_say_has_a_reason() {
    let scene = Scene::start();
    let uuid = scene.lab.vm(1, "web1", 1, Work::Agent).unwrap();
    let without = scene.lab.vm(1, "plain", 2, Work::Idle).unwrap();
    let guest = scene.wait_for_facts(&uuid)["guest"].clone();
    let said = scene.guestinfo("web1");
    for (key, theirs) in facts(&said).as_object().unwrap() {
        assert_eq!(&guest[key], theirs, "{key}");
    }
    // That virsh and the agent agree on nothing at all would be no news.
    assert_eq!((&guest["hostname"], &guest["users"]), (&json!("web1"), &json!(["ada"])));
    assert_eq!(guest["os"], "A guest of the lab");
    let eth0 = &guest["interfaces"][1];
    assert_eq!((&eth0["name"], &eth0["mac"]), (&json!("eth0"), &json!("52:54:00:77:00:01")));
    assert_eq!(eth0["addresses"][0], "10.77.0.101/24");
    let disk = &guest["filesystems"][0];
    assert_eq!((&disk["mountpoint"], &disk["kind"]), (&json!("/srv"), &json!("ext2")));
    assert!((50 << 20..64 << 20).contains(&disk["size_bytes"].as_u64().unwrap()), "{disk}");
    // libvirt has it since 11.2, and QEMU's guest agent since 10.0.
    match said.get("load.1m") {
        Some(theirs) => {
            let off = guest["load"][0].as_f64().unwrap() - theirs.parse::<f64>().unwrap();
            assert!(off.abs() < 0.5 && lacking(&guest).is_empty(), "{guest}, but {said:?}");
        }
        None => assert_eq!(lacking(&guest), ["load"]),
    }

    scene.wait_for_reason(&without, "no channel named org.qemu.guest_agent.0");
    scene.tell_agent(1, "KILL");
    scene.wait_for_reason(&uuid, "does qemu-guest-agent run in the guest?");
    scene.tell_agent(1, "start-without-users");
    let guest = scene.wait_for_facts(&uuid)["guest"].clone();
    assert!(lacking(&guest).contains(&"users") && guest["hostname"] == "web1", "{guest}");

    let scene = scene.stop_asking();
    scene.wait_for_reason(&uuid, "ask_guest_agents = true");
}

#[test]
fn an_agent_that_comes_or_goes_is_told_at_once_and_one_that_hangs_costs_its_own_vm() {
    let scene = Scene::start();
    let hangs = scene.lab.vm(1, "hangs", 1, Work::Agent).unwrap();
    let well = scene.lab.vm(1, "well", 2, Work::Agent).unwrap();
    for uuid in [&hangs, &well] {
        scene.wait_for_facts(uuid);
    }
    let watched = Watched::start(&scene.controller);
    let resource = format!("vms/{well}");
    watched.next("that the VM is there", |line| line["change"] == "present" && line["resource"] == *resource);
    let told = |kind: &str| watched.next(kind, |line| line["kind"] == kind && line["resource"] == *resource);
    let comes_and_goes = || {
        scene.tell_agent(2, "KILL");
        told("vm_guest_agent_disconnected");
        soon(|| scene.wait_for_reason(&well, "does qemu-guest-agent run in the guest?"));
        scene.tell_agent(2, "start");
        told("vm_guest_agent_connected");
        soon(|| scene.wait_for_facts(&well));
    };
    comes_and_goes();

    // A VM that goes on is asked at once.
    let go_on = || {
        scene.virsh(&["suspend", "hangs"]);
        scene.wait_for_reason(&hangs, "the VM is paused");
        scene.virsh(&["resume", "hangs"]);
    };
    scene.tell_agent(1, "STOP");
    go_on();
    let before = scene.wait_for_reason(&hangs, "its guest agent: no answer for ");
    comes_and_goes();
    let after = scene.wait_for("newer values", &hangs, |vm| {
        vm["last_sample_unix_ms"].as_i64() > before["last_sample_unix_ms"].as_i64()
    });
    assert!(reason(&after).contains("no answer for "), "{after}");
    scene.tell_agent(1, "CONT");
    go_on();
    scene.wait_for_facts(&hangs);

    scene.lab.kill_libvirtd(1).unwrap();
    scene.wait_for_reason(&well, "libvirt");
    scene.lab.start_libvirtd(1).unwrap();
    let back = soon(|| [&hangs, &well].map(|uuid| scene.wait_for_facts(uuid)["guest"].clone()));
    // A connection that was lost costs none of the answers.
    for guest in back {
        assert!(lacking(&guest).iter().all(|family| *family == "load"), "{guest}");
    }
}
