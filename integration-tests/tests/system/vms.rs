//! What happens to VMs is told when it happens, and those that no libvirt knows are seen.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use horcrux_integration_tests::lab::{Lab, Work};
use horcrux_integration_tests::{Controller, Daemon, Place, value, wait_until};
use horcrux_transport::clock;
use serde_json::Value;

/// Of the process that the test starts without libvirt.
const STRAY: &str = "bbbbbbbb-0000-4000-8000-000000000001";

struct Scene {
    // In the order in which they end.
    agent: Daemon,
    controller: Controller,
    lab: Lab,
}

impl Scene {
    fn start() -> Self {
        let lab = Lab::up(1).unwrap();
        lab.start_libvirtd(1).unwrap();
        let controller = Controller::start_at(Place::Lab(lab.network())).unwrap();
        let agent = lab.join(&controller, 1).unwrap();
        Self { agent, controller, lab }
    }

    fn virsh(&self, verb: &str, name: &str) {
        self.lab.exec(1, &["virsh", "-q", "-c", "qemu:///system", verb, name]).unwrap();
    }

    /// Names of all VMs that are told, once they are these.
    fn wait_for_vms(&self, what: &str, names: &[&str]) -> Value {
        wait_until(what, || {
            let vms = self.controller.json(&["vm", "list"])?;
            let mut told: Vec<&str> =
                vms.as_array().into_iter().flatten().filter_map(|vm| vm["display_name"].as_str()).collect();
            told.sort_unstable();
            anyhow::ensure!(told == names, "{vms}");
            Ok(vms)
        })
        .unwrap()
    }
}

/// Events as a watcher gets them.
pub(crate) struct Watched {
    program: Child,
    events: Receiver<Value>,
}

impl Watched {
    pub(crate) fn start(controller: &Controller) -> Self {
        let client = controller.client("admin").unwrap();
        let mut command = client.command(&["-o", "json", "watch", "events", "status"]).unwrap();
        let mut program = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(program.stdout.take().unwrap()).lines();
        let (told, events) = channel();
        let watched = Self { program, events };
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).unwrap();
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        watched
    }

    pub(crate) fn next(&self, what: &str, look: impl Fn(&Value) -> bool) -> Value {
        let mut others = Vec::new();
        loop {
            let Ok(line) = self.events.recv_timeout(Duration::from_secs(20)) else {
                panic!("{what} was not told, but {others:?}");
            };
            if look(&line) {
                return line;
            }
            others.push(line);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.program.kill().unwrap();
        self.program.wait().unwrap();
    }
}

#[test]
fn what_happens_to_a_vm_is_told_within_a_second_and_its_state_is_seen_then() {
    let scene = Scene::start();
    let uuid = scene.lab.vm(1, "web1", 1, Work::Idle).unwrap();
    let resource = format!("vms/{uuid}");
    scene.wait_for_vms("the VM", &["web1"]);
    let watched = Watched::start(&scene.controller);
    watched.next("that the VM is there", |line| line["change"] == "present" && line["resource"] == *resource);
    for (verb, kind, state) in [
        ("suspend", "vm_suspended", "paused"),
        ("resume", "vm_resumed", "running"),
        ("destroy", "vm_stopped", "shut_off"),
        ("start", "vm_started", "running"),
    ] {
        scene.virsh(verb, "web1");
        let done_ms = clock::unix_ms();
        // The fast lane reads every 5 s: it was rung. Which of the two comes first is not said.
        let (mut told, mut seen) = (None, false);
        while told.is_none() || !seen {
            let line = watched.next(&format!("{kind} and {state}"), |line| line["resource"] == *resource);
            if line["change"] == "event" && line["kind"] == kind {
                told = Some(line.clone());
            }
            seen |=
                line["change"] == "changed" && line["object"].to_string().contains(&format!("\"{state}\""));
        }
        let (told, all_ms) = (told.unwrap(), clock::unix_ms() - done_ms);
        assert!(told["detail"].as_str().unwrap().starts_with("web1: "), "{told}");
        let late_ms = told["at_unix_ms"].as_i64().unwrap() - done_ms;
        assert!(
            late_ms < 1000 && all_ms < 2500,
            "{verb}: told after {late_ms} ms, all known after {all_ms} ms"
        );
    }
}

#[test]
fn a_qemu_without_a_libvirt_is_seen_and_then_gone_and_none_of_libvirt_s_is_taken_for_one() {
    let mut scene = Scene::start();
    scene.lab.vm(1, "web1", 1, Work::Idle).unwrap();
    scene.wait_for_vms("libvirt's own alone", &["web1"]);
    let stray = [
        "qemu-system-x86_64",
        "-machine",
        "none",
        "-display",
        "none",
        "-S",
        "-daemonize",
        "-name",
        "stray",
        "-m",
        "64",
        "-uuid",
        STRAY,
    ];
    scene.lab.exec(1, &stray).unwrap();
    let vms = scene.wait_for_vms("both", &["stray", "web1"]);
    for vm in vms.as_array().unwrap() {
        assert_eq!(vm["unmanaged"], vm["display_name"] == "stray", "{vm}");
    }
    let values = wait_until("its values", || {
        let vm = scene.controller.json(&["vm", "get", STRAY])?;
        anyhow::ensure!(value(&vm, "vm_memory_resident").is_some(), "{vm}");
        Ok(vm)
    })
    .unwrap();
    assert_eq!(values["memory_max_bytes"], 64 << 20);
    let listed = scene.controller.ctl(&["vm", "list"]).unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("(unmanaged)"), "{listed:?}");

    // An agent that never heard of libvirt's VMs doesn't take them for unmanaged: whose they are their processes say.
    scene.lab.kill_libvirtd(1).unwrap();
    scene.agent = {
        drop(scene.agent);
        scene.lab.agent(&scene.controller, 1).unwrap()
    };
    let states = |what: &str, of_libvirt_s: &str| {
        let states = wait_until(what, || {
            let vms = scene.controller.json(&["vm", "list"])?;
            let all = vms.as_array().into_iter().flatten();
            let mut states: Vec<String> =
                all.map(|vm| format!("{} {} {}", vm["display_name"], vm["state"], vm["unmanaged"])).collect();
            states.sort_unstable();
            let wanted = format!("\"web1\" \"{of_libvirt_s}\" false");
            anyhow::ensure!(states.len() == 2 && states[1] == wanted, "{states:?}");
            Ok(states)
        });
        assert!(states.unwrap()[0].ends_with(" true"), "the stray is unmanaged");
    };
    states("that the state of libvirt's own isn't known", "unknown");
    scene.lab.start_libvirtd(1).unwrap();
    states("that it is known again", "running");
    scene.lab.exec(1, &["pkill", "-f", &format!("uuid {STRAY}")]).unwrap();
    scene.wait_for_vms("its end", &["web1"]);
}
