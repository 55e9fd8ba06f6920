//! Libvirts other than the system's own, and one that doesn't let everybody look: by agents that run as a user of their own.

use std::fs;
use std::path::{Path, PathBuf};

use horcrux_integration_tests::lab::{Lab, Work};
use horcrux_integration_tests::machine::Machine;
use horcrux_integration_tests::{Daemon, program, value, wait_until};
use serde_json::Value;
use tempfile::TempDir;

/// As nodes see what they share.
const AGENT: &str = "/var/lib/libvirt/shared/horcrux-agentd";
const CONFIG: &str = "/run/agent/agentd.toml";
const SOCKET: &str = "/run/agent/agent.sock";

/// An agent without a controller, on the lab's first node.
struct Scene {
    // In the order in which they end.
    agent: Option<Daemon>,
    lab: Lab,
    log: TempDir,
}

fn libvirts() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/libvirts").display().to_string()
}

/// Waits until what stands for all that a libvirt tells is so; gives why.
fn source(uri: &str, state: &str, node: impl Fn() -> anyhow::Result<Value>) -> String {
    wait_until(&format!("{uri} to be {state}"), || {
        let node = node()?;
        let mut all = node["sources"].as_array().into_iter().flatten();
        let found = all.find(|source| source["source"] == "libvirt" && source["instance"] == uri);
        let found = found.ok_or_else(|| anyhow::anyhow!("nothing of it: {node}"))?;
        anyhow::ensure!(found["state"] == state, "{found}");
        Ok(found["detail"].as_str().unwrap_or_default().to_owned())
    })
    .unwrap()
}

fn reason(object: &Value, metric: &str) -> String {
    let mut absences = object["absent"].as_array().into_iter().flatten();
    absences.find(|a| a["metric"] == metric).map_or_else(String::new, |a| a["reason"].to_string())
}

fn taken(object: &Value, metric: &str) -> i64 {
    let mut values = object["values"].as_array().into_iter().flatten();
    values.find(|v| v["metric"] == metric).and_then(|v| v["taken_unix_ms"].as_i64()).unwrap_or_default()
}

impl Scene {
    fn new(nodes: usize) -> Self {
        Self { agent: None, lab: Lab::up(nodes).unwrap(), log: TempDir::new().unwrap() }
    }

    fn libvirts(&self, node: usize, arguments: &[&str]) -> String {
        self.lab.exec(node, &[&[libvirts().as_str()], arguments].concat()).unwrap()
    }

    /// As root.
    fn sh(&self, node: usize, script: &str) -> String {
        self.lab.exec(node, &["sh", "-euc", script]).unwrap()
    }

    fn start(&mut self, uris: &[&str]) {
        self.libvirts(1, &["as-agent", "true"]);
        // Where the programs are built, other users may not look.
        let built = program("horcrux-agentd").unwrap().display().to_string();
        self.lab.exec(1, &["install", "-m", "755", &built, AGENT]).unwrap();
        let settings = format!(
            "state_dir = \"/run/agent/state\"\nno_controller = true\nagent_socket = {SOCKET:?}\nlibvirt_uris = {uris:?}\n\
             vm_interval = \"1s\"\nvm_slow_interval = \"2s\"\ncontainer_interval = \"1s\"\n\
             [exporter]\nlisten = \"unix:/run/agent/exporter.sock\"\n"
        );
        let file = self.log.path().join("agentd.toml");
        fs::write(&file, settings).unwrap();
        self.lab.exec(1, &["install", "-m", "644", &file.display().to_string(), CONFIG]).unwrap();
        self.restart();
    }

    fn restart(&mut self) {
        self.agent = None;
        let mut command = self.lab.command(1, &PathBuf::from(libvirts()));
        command.args(["as-agent", AGENT, "run", "--config", CONFIG]);
        self.agent = Some(Daemon::start(command, &self.log.path().join("agent.log")).unwrap());
    }

    fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let ctl = program("horcruxctl")?.display().to_string();
        let all = [&[ctl.as_str(), "--agent", SOCKET, "-o", "json"], args].concat();
        Ok(serde_json::from_str(&self.lab.exec(1, &all)?)?)
    }

    /// Waits until a libvirt's source is so; gives why.
    fn source(&self, uri: &str, state: &str) -> String {
        source(uri, state, || self.json(&["node", "get"]))
    }

    fn guest(&self, kind: &str, name: &str, what: &str, look: impl Fn(&Value) -> bool) -> Value {
        wait_until(what, || {
            let guest = self.json(&[kind, "get", name])?;
            anyhow::ensure!(look(&guest), "{guest}");
            Ok(guest)
        })
        .unwrap()
    }

    fn vm(&self, name: &str, what: &str, look: impl Fn(&Value) -> bool) -> Value {
        self.guest("vm", name, what, look)
    }
}

#[test]
fn a_container_of_libvirt_s_lxc_driver_is_a_vm_with_what_that_tells_and_a_container_with_the_rest() {
    const LXC: &str = "lxc:///system";
    let mut scene = Scene::new(1);
    scene.lab.start_libvirtd(1).unwrap();
    scene.libvirts(1, &["box", "box"]);
    scene.start(&["qemu:///system", LXC]);
    scene.source(LXC, "ok");
    let all = ["vm_cpu_time", "vm_network_rx_bytes", "vm_vcpus", "vm_memory_max"];
    let vm = scene.vm("box", "its values", |vm| {
        vm["state"] == "running" && all.iter().all(|metric| value(vm, metric).is_some())
    });
    assert_eq!((&vm["connection"], value(&vm, "vm_memory_max")), (&LXC.into(), Some(67_108_864.0)), "{vm}");
    assert!(reason(&vm, "vm_memory_resident").contains("the container of its name"), "{vm}");
    assert!(reason(&vm, "vm_memory_balloon").contains("no QEMU monitor"), "{vm}");
    // The same kernel counts for both, who were asked one after the other.
    scene.guest("container", "box", "the container, with the CPU time that libvirt tells", |container| {
        let vm = scene.json(&["vm", "get", "box"]).unwrap();
        let cpu = |object, metric| value(object, metric).unwrap_or(f64::NAN);
        let (of_vm, of_container) = (cpu(&vm, "vm_cpu_time"), cpu(container, "container_cpu_time"));
        value(container, "container_memory_usage").is_some() && (of_vm / of_container - 1.0).abs() < 0.2
    });
    let before = taken(&vm, "vm_cpu_time");
    scene.vm("box", "newer values", |vm| taken(vm, "vm_cpu_time") > before + 2000);
    scene.source(LXC, "ok");
    scene.lab.exec(1, &["virsh", "-q", "-c", LXC, "destroy", "box"]).unwrap();
    scene.vm("box", "its end", |vm| {
        vm["state"] == "shut_off" && vm["values"].as_array().is_some_and(Vec::is_empty)
    });
}

#[test]
fn a_user_s_own_libvirt_is_seen_by_an_agent_of_that_user_which_does_not_start_it() {
    const SESSION: &str = "qemu:///session";
    let mut scene = Scene::new(1);
    scene.start(&[SESSION]);
    let why = scene.source(SESSION, "absent");
    assert!(why.contains("libvirtd is not running: /run/agent/run/libvirt/libvirt-sock"), "{why}");
    assert_eq!(scene.sh(1, "pgrep -x libvirtd || true"), "");
    scene.libvirts(1, &["session", "mine"]);
    let vm = scene.vm("mine", "its values", |vm| {
        ["vm_cpu_time", "vm_memory_resident", "vm_memory_balloon"].iter().all(|m| value(vm, m).is_some())
    });
    assert_eq!((&vm["state"], &vm["connection"]), (&"running".into(), &SESSION.into()), "{vm}");
    assert_eq!(
        (&vm["unmanaged"], scene.json(&["vm", "list"]).unwrap().as_array().unwrap().len()),
        (&false.into(), 1)
    );
    // It leaves its socket, and who asks there would start another.
    scene.sh(1, "kill -9 $(pgrep -x libvirtd)");
    wait_until("the agent to leave it at that", || {
        let why = scene.source(SESSION, "failing");
        anyhow::ensure!(why.contains("nobody answers at /run/agent/run/libvirt/libvirt-sock"), "{why}");
        Ok(())
    })
    .unwrap();
    assert_eq!(scene.sh(1, "pgrep -x libvirtd || true"), "");
    scene.vm("mine", "what the kernel knows of it, still", |vm| {
        value(vm, "vm_cpu_time").is_some() && reason(vm, "vm_memory_balloon").contains("libvirt")
    });
    scene.libvirts(1, &["as-agent", "virsh", "-q", "-c", SESSION, "uri"]);
    scene.source(SESSION, "ok");
}

/// An administrator's rule.
const FORBID: &str =
    "polkit.addRule(function (a) { if (a.id == \"org.libvirt.unix.monitor\") return \"no\"; });";

#[test]
fn where_polkit_refuses_the_agent_says_what_mends_it_and_that_and_the_shipped_rule_do() {
    const SYSTEM: &str = "qemu:///system";
    let mut scene = Scene::new(1);
    scene.libvirts(1, &["polkit"]);
    scene.lab.start_libvirtd(1).unwrap();
    scene.start(&[SYSTEM]);
    // As Debian has it, whoever asks may look.
    scene.source(SYSTEM, "ok");
    // An administrator's rule, which is read before the package's.
    scene.sh(1, &format!("echo '{FORBID}' >/etc/polkit-1/rules.d/10-forbid.rules"));
    scene.sh(1, "chmod 644 /etc/polkit-1/rules.d/*");
    let rule = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/polkit/60-horcrux-agent.rules");
    let rule = rule.display().to_string();
    let shipped = "/usr/share/polkit-1/rules.d/60-horcrux-agent.rules";
    scene.lab.exec(1, &["install", "-m", "644", &rule, shipped]).unwrap();
    let refused = |scene: &Scene| {
        wait_until("polkit to forbid it", || {
            let look = [&libvirts(), "as-agent", "virsh", "-r", "-c", SYSTEM, "uri"];
            anyhow::ensure!(scene.lab.exec(1, &look).is_err(), "it may look");
            Ok(())
        })
        .unwrap();
    };
    refused(&scene);
    scene.restart();
    let why = scene.source(SYSTEM, "failing");
    assert!(
        why.starts_with("libvirt refuses user horcrux-agent: ") && why.contains("denied by policy"),
        "{why}"
    );
    let vms = scene.json(&["vm", "list"]).unwrap();
    assert_eq!(vms, serde_json::json!([]));
    // As root types it, and without a restart.
    let mend = why.split('`').nth(1).unwrap();
    scene.sh(1, mend);
    scene.source(SYSTEM, "ok");

    // One that is read after the package's doesn't keep the agent out.
    scene.sh(1, "rm /etc/polkit-1/rules.d/00-horcrux-agent.rules");
    refused(&scene);
    scene.sh(1, "mv /etc/polkit-1/rules.d/10-forbid.rules /etc/polkit-1/rules.d/70-forbid.rules");
    scene.restart();
    scene.source(SYSTEM, "ok");
    scene.lab.exec(1, &["rm", shipped]).unwrap();
    refused(&scene);
    // It may look, and no more.
    let change = [&libvirts(), "as-agent", "virsh", "-c", SYSTEM, "uri"];
    assert!(scene.lab.exec(1, &change).is_err());
}

/// The libvirt of another node is seen, lost with its libvirtd and with the network, and comes back by itself; the agent's
/// own goes on.
fn another_host_s(scene: &mut Scene, far: &str) {
    const NEAR: &str = "qemu:///system";
    scene.lab.start_libvirtd(1).unwrap();
    scene.lab.vm(1, "near", 1, Work::Idle).unwrap();
    scene.lab.vm(2, "far", 2, Work::Idle).unwrap();
    scene.start(&[NEAR, far]);
    scene.source(NEAR, "ok");
    let vm = scene.vm("far", "its values", |vm| {
        vm["state"] == "running"
            && ["vm_memory_balloon", "vm_network_rx_bytes"].iter().all(|m| value(vm, m).is_some())
    });
    assert_eq!(vm["connection"], far, "{vm}");
    assert!(reason(&vm, "vm_cpu_time").contains("another host"), "{vm}");

    scene.lab.kill_libvirtd(2).unwrap();
    assert_ne!(scene.source(far, "failing"), "");
    scene.lab.start_libvirtd(2).unwrap();
    scene.source(far, "ok");

    scene.lab.partition(2).unwrap();
    // QEMU's monitor is asked by another lane, whose deadline is its own.
    let lost = scene.vm("far", "it to be lost", |vm| {
        ["vm_network_rx_bytes", "vm_memory_balloon"].iter().all(|m| reason(vm, m).contains("libvirt: "))
    });
    assert!(value(&lost, "vm_network_rx_rate").is_none(), "{lost}");
    // Reached no more, it costs the others nothing: six readings in no more than nine seconds.
    let near = || scene.vm("near", "a value", |vm| value(vm, "vm_cpu_time").is_some());
    let readings = |until: i64| {
        let mut times = vec![taken(&near(), "vm_cpu_time")];
        while times.last().is_some_and(|last| *last < times[0] + until) {
            times.push(taken(
                &scene.vm("near", "a newer value", |vm| taken(vm, "vm_cpu_time") > times[times.len() - 1]),
                "vm_cpu_time",
            ));
        }
        times
    };
    let times = readings(6000);
    assert!(times.windows(2).all(|two| two[1] - two[0] < 2500), "{times:?}");
    scene.lab.heal(2).unwrap();
    scene.source(far, "ok");
    scene.vm("far", "its values again", |vm| value(vm, "vm_memory_balloon").is_some());
}

#[test]
fn another_host_s_libvirt_is_reached_by_tls_and_comes_back() {
    let mut scene = Scene::new(2);
    scene.libvirts(2, &["tls", "node2"]);
    scene.lab.start_libvirtd(2).unwrap();
    another_host_s(&mut scene, "qemu+tls://node2/system?pkipath=/var/lib/libvirt/shared/pki");
    // The certificate is of another name.
    let other = "qemu+tls://10.77.0.2/system?pkipath=/var/lib/libvirt/shared/pki";
    scene.start(&[other]);
    let why = scene.source(other, "failing");
    assert!(
        why.starts_with("libvirt on 10.77.0.2 refuses user horcrux-agent: ") && why.contains("certificate"),
        "{why}"
    );
}

#[test]
fn another_host_s_libvirt_is_reached_by_ssh_which_asks_nothing_and_comes_back() {
    let mut scene = Scene::new(2);
    scene.lab.start_libvirtd(2).unwrap();
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/sshd/usr/sbin/sshd");
    let sshd = if unpacked.exists() { unpacked } else { PathBuf::from("/usr/sbin/sshd") };
    scene.libvirts(2, &["sshd", &sshd.display().to_string(), "node2"]);
    scene.libvirts(1, &["ssh-key", "node2"]);
    let far = "qemu+ssh://look@node2/system";
    another_host_s(&mut scene, far);
    // A password would do, and nobody is asked for it.
    scene.sh(2, "rm /run/look/.ssh/authorized_keys");
    scene.restart();
    let why = scene.source(far, "failing");
    assert!(
        why.contains("`sudo -u horcrux-agent ssh look@node2 true`") && !why.contains("try again"),
        "{why}"
    );
    // One that takes a connection and says nothing: each lane waits with one ssh, however often it reads.
    scene.sh(2, "pkill -STOP -x sshd");
    scene.restart();
    // What the agent before it had begun meanwhile.
    scene.sh(1, "pkill -x ssh || true");
    wait_until("several rounds of all lanes", || {
        let why = scene.source(far, "stuck");
        let seconds = why.strip_prefix("libvirtd: no answer for ").and_then(|rest| rest.strip_suffix(" s"));
        anyhow::ensure!(
            seconds.and_then(|seconds| seconds.parse().ok()).is_some_and(|s: u64| s >= 16),
            "{why}"
        );
        Ok(())
    })
    .unwrap();
    assert_eq!(scene.sh(1, "pgrep -c -x ssh").trim(), "3");
    scene.sh(2, "pkill -CONT -x sshd");
    scene.source(far, "failing");
}

/// ssh, from a host to itself.
const SSH: &str = r#"
useradd --create-home --shell /bin/sh look
state=/var/lib/horcrux-agentd
mkdir -p $state/.ssh /home/look/.ssh
ssh-keygen -q -t ed25519 -N '' -f $state/.ssh/id_ed25519
cp $state/.ssh/id_ed25519.pub /home/look/.ssh/authorized_keys
echo "there $(cat /etc/ssh/ssh_host_ed25519_key.pub)" >$state/.ssh/known_hosts
chown -R horcrux-agent: $state/.ssh
chown -R look: /home/look/.ssh
echo 127.0.0.1 there >>/etc/hosts
systemctl start ssh
"#;

#[test]
fn the_service_looks_at_debian_s_libvirt_as_polkit_lets_it_and_at_another_host_s_by_ssh() {
    const SYSTEM: &str = "qemu:///system";
    let machine = Machine::boot_with_libvirt().unwrap();
    for name in ["horcrux-agent", "horcruxctl"] {
        machine.install(name).unwrap();
    }
    let sh = |script: &str| machine.run(&["sh", "-euc", script]).unwrap();
    let restart = || sh("systemctl restart horcrux-agentd");
    let is = |uri: &str, state: &str| {
        let ctl = ["horcruxctl", "--agent", "/run/horcrux/agent.sock", "-o", "json", "node", "get"];
        source(uri, state, || Ok(serde_json::from_str(&machine.run(&ctl)?)?))
    };
    is(SYSTEM, "ok");
    // Read after the package's rule, it doesn't keep the agent out, and others it does.
    sh(&format!("echo '{FORBID}' >/etc/polkit-1/rules.d/70-forbid.rules"));
    let others = ["setpriv", "--reuid=nobody", "--clear-groups", "virsh", "-r", "-c", SYSTEM, "uri"];
    let forbidden = || {
        wait_until("polkit to forbid it", || {
            anyhow::ensure!(machine.run(&others).is_err(), "it may look");
            Ok(())
        })
        .unwrap();
    };
    forbidden();
    restart();
    is(SYSTEM, "ok");
    // Read before it, it does; what the agent proposes is read before that.
    sh("mv /etc/polkit-1/rules.d/70-forbid.rules /etc/polkit-1/rules.d/10-forbid.rules");
    restart();
    let why = is(SYSTEM, "failing");
    sh(why.split('`').nth(1).unwrap());
    is(SYSTEM, "ok");

    sh("rm /etc/polkit-1/rules.d/*");
    sh(SSH);
    let uris = "libvirt_uris = [\"qemu:///system\", \"qemu+ssh://look@there/system\"]";
    sh(&format!("sed -i '1i {uris}' /etc/horcrux/agentd.toml"));
    restart();
    is("qemu+ssh://look@there/system", "ok");
    is(SYSTEM, "ok");
}
