//! Real libvirts, QEMUs and Docker, on nodes of a lab.

use std::process::Command;

use horcrux_integration_tests::lab::{Lab, Work};
use horcrux_integration_tests::{Controller, Daemon, Place, value, wait_until};
use serde_json::Value;

/// A lab of one node with a libvirt, and its controller and agent.
struct OneNode {
    // In the order in which they end.
    _agent: Daemon,
    controller: Controller,
    lab: Lab,
}

impl OneNode {
    fn start() -> Self {
        let lab = Lab::up(1).unwrap();
        lab.start_libvirtd(1).unwrap();
        let controller = Controller::start_at(Place::Lab(lab.network())).unwrap();
        let agent = lab.join(&controller, 1).unwrap();
        Self { _agent: agent, controller, lab }
    }

    /// Waits until a VM is as `look` wants it.
    fn vm(&self, what: &str, name: &str, look: impl Fn(&Value) -> bool) -> Value {
        wait_until(what, || {
            let vm = self.controller.json(&["vm", "get", name])?;
            anyhow::ensure!(look(&vm), "{vm}");
            Ok(vm)
        })
        .unwrap()
    }

    /// Waits until the node says so of a source; gives why.
    fn source(&self, name: &str, state: &str) -> String {
        wait_until(&format!("{name} to be {state}"), || {
            let node = self.controller.json(&["node", "get", "node1"])?;
            let found = node["sources"].as_array().and_then(|all| all.iter().find(|s| s["source"] == name));
            let found = found.ok_or_else(|| anyhow::anyhow!("not told: {node}"))?;
            anyhow::ensure!(found["state"] == state, "{found}");
            Ok(found["detail"].to_string())
        })
        .unwrap()
    }
}

fn has(object: &Value, metric: &str) -> bool {
    value(object, metric).is_some()
}

/// Why a value isn't there.
fn reason(object: &Value, metric: &str) -> String {
    let absences = object["absent"].as_array().unwrap();
    absences.iter().find(|a| a["metric"] == metric).map_or_else(String::new, |a| a["reason"].to_string())
}

fn taken(object: &Value, metric: &str) -> i64 {
    let values = object["values"].as_array().unwrap();
    values.iter().find(|v| v["metric"] == metric && v["instance"] == "").unwrap()["taken_unix_ms"]
        .as_i64()
        .unwrap()
}

#[test]
fn three_nodes_are_seen_and_one_that_is_cut_off_is_late_then_down_and_comes_back() {
    let lab = Lab::up(3).unwrap();
    let controller = Controller::start_at(Place::Lab(lab.network())).unwrap();
    let mut agents = Vec::new();
    for node in 1..=3 {
        lab.start_libvirtd(node).unwrap();
        lab.vm(node, &format!("web{node}"), node, Work::Idle).unwrap();
        agents.push(lab.join(&controller, node).unwrap());
    }
    wait_until("a VM on each node", || {
        let vms = controller.json(&["vm", "list"])?;
        let runs = |n: usize| {
            let (node, name) = (format!("nodes/node{n}"), format!("web{n}"));
            let is_it =
                |vm: &Value| vm["node"] == node && vm["display_name"] == name && vm["state"] == "running";
            vms.as_array().is_some_and(|all| all.iter().any(is_it))
        };
        anyhow::ensure!((1..=3).all(runs), "{vms}");
        Ok(())
    })
    .unwrap();
    lab.partition(2).unwrap();
    controller.wait_for_state("node2", "late").unwrap();
    controller.wait_for_state("node2", "down").unwrap();
    for other in ["node1", "node3"] {
        controller.wait_for_state(other, "connected").unwrap();
    }
    lab.heal(2).unwrap();
    controller.wait_for_state("node2", "connected").unwrap();
}

#[test]
fn a_killed_libvirtd_is_told_and_what_the_kernel_knows_goes_on() {
    let node = OneNode::start();
    node.lab.vm(1, "web1", 1, Work::Busy).unwrap();
    let everything = ["vm_cpu_usage", "vm_memory_resident", "vm_network_rx_rate", "vm_memory_balloon"];
    node.vm("all values of a VM", "web1", |vm| everything.iter().all(|metric| has(vm, metric)));
    node.lab.kill_libvirtd(1).unwrap();
    let why = node.source("libvirt", "failing");
    assert!(why.len() > "\"\"".len(), "a reason is told");
    let without = node.vm("what libvirt told to be withdrawn", "web1", |vm| {
        !has(vm, "vm_network_rx_rate")
            && !has(vm, "vm_memory_balloon")
            && reason(vm, "vm_network_rx_bytes").contains("libvirt")
    });
    let before = taken(&without, "vm_cpu_usage");
    let later = node.vm("newer values from the kernel", "web1", |vm| {
        has(vm, "vm_cpu_usage") && taken(vm, "vm_cpu_usage") > before + 2000
    });
    assert!(value(&later, "vm_cpu_usage").unwrap() > 5.0, "it burns half of a core: {later}");
    node.lab.start_libvirtd(1).unwrap();
    node.source("libvirt", "ok");
    node.vm("all values again", "web1", |vm| everything.iter().all(|metric| has(vm, metric)));
}

#[test]
fn a_vm_that_ran_before_the_agent_is_seen_while_no_libvirt_answers_and_is_libvirt_s_when_one_does() {
    let node = OneNode::start();
    node.lab.vm(1, "web1", 1, Work::Busy).unwrap();
    node.vm("it to run", "web1", |vm| vm["state"] == "running" && has(vm, "vm_cpu_usage"));
    node.lab.kill_libvirtd(1).unwrap();
    let OneNode { _agent: agent, controller, lab } = node;
    agent.stop().unwrap();
    let agent = lab.agent(&controller, 1).unwrap();
    let node = OneNode { _agent: agent, controller, lab };
    let uuid = node.vm("it to be seen by its process", "web1", |vm| {
        vm["state"] == "unknown"
            && has(vm, "vm_cpu_usage")
            && vm["state_unknown_reason"].as_str().is_some_and(|why| why.starts_with("libvirt: "))
            && reason(vm, "vm_memory_balloon").contains("libvirt")
    })["name"]
        .clone();
    let vms = node.controller.json(&["vm", "list"]).unwrap();
    assert_eq!((vms.as_array().unwrap().len(), &vms[0]["unmanaged"]), (1, &false.into()), "{vms}");
    node.lab.start_libvirtd(1).unwrap();
    let told = node.vm("libvirt to tell of it", "web1", |vm| {
        vm["state"] == "running" && has(vm, "vm_memory_balloon") && has(vm, "vm_network_rx_rate")
    });
    assert_eq!((&told["name"], &told["state_unknown_reason"]), (&uuid, &"".into()), "{told}");
}

#[test]
fn a_qemu_that_hangs_costs_the_values_of_its_own_monitor_alone() {
    let node = OneNode::start();
    let hung = node.lab.vm(1, "hung", 1, Work::Idle).unwrap();
    node.lab.vm(1, "well", 2, Work::Idle).unwrap();
    for name in ["hung", "well"] {
        node.vm("the monitor's values", name, |vm| has(vm, "vm_memory_balloon"));
    }
    node.lab.exec(1, &["pkill", "-STOP", "-f", &format!("uuid {hung}")]).unwrap();
    node.vm("the monitor's values to be withdrawn, with the reason", "hung", |vm| {
        !has(vm, "vm_memory_balloon") && reason(vm, "vm_memory_balloon").contains("no answer")
    });
    assert!(node.source("qemu_monitor", "failing").contains("hung: "));
    // Several rounds of both lanes later the stopped one is still read where no monitor is needed, and the other in full.
    let before = taken(&node.vm("a value", "well", |vm| has(vm, "vm_memory_balloon")), "vm_memory_balloon");
    node.vm("newer values of the other", "well", |vm| {
        has(vm, "vm_memory_balloon") && taken(vm, "vm_memory_balloon") > before + 5000
    });
    let stopped = node.vm("the stopped VM's values", "hung", |vm| has(vm, "vm_memory_resident"));
    assert!(taken(&stopped, "vm_memory_resident") > before + 3000, "{stopped}");
    node.lab.exec(1, &["pkill", "-CONT", "-f", &format!("uuid {hung}")]).unwrap();
    node.vm("the monitor's values again", "hung", |vm| has(vm, "vm_memory_balloon"));
    node.source("qemu_monitor", "ok");
}

#[test]
fn a_vm_that_is_shut_off_has_no_values_and_one_that_is_undefined_is_gone() {
    let node = OneNode::start();
    node.lab.vm(1, "web1", 1, Work::Idle).unwrap();
    node.vm("values", "web1", |vm| {
        has(vm, "vm_cpu_usage") && has(vm, "vm_disk_capacity") || has(vm, "vm_memory_balloon")
    });
    node.lab.exec(1, &["virsh", "-q", "-c", "qemu:///system", "destroy", "web1"]).unwrap();
    let off = node.vm("its end", "web1", |vm| {
        vm["state"] == "shut_off" && vm["values"].as_array().is_some_and(Vec::is_empty)
    });
    assert_eq!(off["absent"], serde_json::json!([]), "a VM that doesn't run lacks nothing");
    node.lab.exec(1, &["virsh", "-q", "-c", "qemu:///system", "undefine", "web1"]).unwrap();
    wait_until("it to be gone", || {
        let code = node.controller.ctl(&["vm", "get", "web1"])?.status.code();
        anyhow::ensure!(code == Some(4), "exit code {code:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn docker_s_containers_have_names_images_and_states_where_privd_runs_and_the_reason_where_not() {
    let lab = Lab::up(1).unwrap();
    lab.start_dockerd(1).unwrap();
    let controller = Controller::start_at(Place::Lab(lab.network())).unwrap();
    let agent = lab.join(&controller, 1).unwrap();
    let node = OneNode { _agent: agent, controller, lab };
    let id = node.lab.container(1, "web", Work::Idle).unwrap();
    let container = |what: &str, look: &dyn Fn(&Value) -> bool| {
        wait_until(what, || {
            let container = node.controller.json(&["container", "get", &id])?;
            anyhow::ensure!(look(&container), "{container}");
            Ok(container)
        })
        .unwrap()
    };
    let unnamed = container("the container", &|_| true);
    assert!(unnamed["display_name"].is_null() && unnamed["state"].is_null(), "{unnamed}");
    let why = unnamed["name_unknown_reason"].as_str().unwrap();
    assert!(why.starts_with("horcrux-privd is not running: ") && why.contains("privd.sock"), "{why}");
    assert_eq!(unnamed["state_unknown_reason"], why);
    node.source("container_runtimes", "absent");

    let privd = node.lab.start_privd(1).unwrap();
    let named = container("its name", &|c| c["display_name"] == "web");
    assert_eq!((&named["image"], &named["state"]), (&"lab/busybox".into(), &"running".into()), "{named}");
    assert_eq!(named["name_unknown_reason"], "");
    node.source("container_runtimes", "ok");
    assert_eq!(node.controller.json(&["container", "get", "web"]).unwrap()["id"], id.as_str());
    let docker = |verb| node.lab.exec(1, &["docker", "-H", "unix:///run/docker.sock", verb, "web"]).unwrap();
    docker("pause");
    container("its pause", &|c| c["state"] == "paused");
    docker("unpause");
    container("its return", &|c| c["state"] == "running");

    // Its name holds while nobody answers; its state does not.
    drop(privd);
    let later = container("its state to be withdrawn", &|c| c["state"].is_null());
    assert_eq!(later["display_name"], "web");
    let why = node.source("container_runtimes", "failing");
    assert!(why.contains("horcrux-privd is not running"), "{why}");
}

#[test]
fn an_agent_without_libvirt_says_so_and_serves_the_rest() {
    let lab = Lab::up(1).unwrap();
    let controller = Controller::start_at(Place::Lab(lab.network())).unwrap();
    let agent = lab.join(&controller, 1).unwrap();
    let node = OneNode { _agent: agent, controller, lab };
    let why = node.source("libvirt", "absent");
    assert!(why.contains("libvirtd is not running"), "{why}");
    // Started later, it is found without a restart of the agent.
    node.lab.start_libvirtd(1).unwrap();
    node.source("libvirt", "ok");
}

#[test]
fn the_agent_is_not_linked_with_libvirt() {
    let agent = horcrux_integration_tests::program("horcrux-agentd").unwrap();
    let linked = Command::new("ldd").arg(agent).output().unwrap();
    let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
    assert!(linked.contains("libc.so"), "{linked}");
    assert!(!linked.contains("libvirt"), "{linked}");
}
