//! The network of a container is what its own namespace counts.

use horcrux_integration_tests::lab::{Lab, Work};
use horcrux_integration_tests::{Controller, Daemon, Place, value, wait_until};
use serde_json::Value;

const RX: &str = "container_network_rx_bytes";

struct Scene {
    // In the order in which they end.
    _agent: Daemon,
    controller: Controller,
    lab: Lab,
}

impl Scene {
    fn start() -> Self {
        let lab = Lab::up(1).unwrap();
        lab.start_dockerd(1).unwrap();
        let controller = Controller::start_at(Place::Lab(lab.network())).unwrap();
        let agent = lab.join(&controller, 1).unwrap();
        Self { _agent: agent, controller, lab }
    }

    fn run(&self, line: &str) -> String {
        self.lab.exec(1, &["bash", "-euc", line]).unwrap()
    }

    /// Another container, of the image that the first has.
    fn container(&self, name: &str, network: &str) -> String {
        let run = format!(
            "docker -H unix:///run/docker.sock run -d --network {network} --name {name} \
             --ulimit nofile=1024:1024 lab/busybox /bin/busybox sleep 1000"
        );
        self.run(&run).trim().to_owned()
    }

    fn look(&self, what: &str, id: &str, look: impl Fn(&Value) -> bool) -> Value {
        wait_until(what, || {
            let container = self.controller.json(&["container", "get", id])?;
            anyhow::ensure!(look(&container), "{container}");
            Ok(container)
        })
        .unwrap()
    }

    /// What a process's namespace says of an interface: bytes received and sent.
    fn counted(&self, pid: &str, interface: &str) -> [f64; 2] {
        let text = self.run(&format!("cat /proc/{pid}/net/dev"));
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(&format!("{interface}:")).map(str::to_owned));
        let columns: Vec<f64> =
            line.unwrap().split_whitespace().map(|column| column.parse().unwrap()).collect();
        [columns[0], columns[8]]
    }
}

fn reason(container: &Value, metric: &str) -> String {
    let absences = container["absent"].as_array().unwrap();
    absences.iter().find(|a| a["metric"] == metric).map_or_else(String::new, |a| a["reason"].to_string())
}

fn of(container: &Value, metric: &str, instance: &str) -> Option<f64> {
    let values = container["values"].as_array()?;
    values.iter().find(|v| v["metric"] == metric && v["instance"] == instance)?["value"].as_f64()
}

#[test]
fn a_container_s_traffic_is_counted_without_its_loopback_and_that_of_the_node_is_not_its_own() {
    let scene = Scene::start();
    let id = scene.lab.container(1, "web", Work::Idle).unwrap();
    let closed = scene.look("why it has no network", &id, |c| !reason(c, RX).is_empty());
    assert!(reason(&closed, RX).contains("no interface but loopback"), "{closed}");

    let pid =
        scene.run("docker -H unix:///run/docker.sock inspect -f '{{.State.Pid}}' web").trim().to_owned();
    scene.run(&format!(
        "ip link add hxc0 type veth peer name eth0 netns /proc/{pid}/ns/net
         ip addr add 10.99.0.1/24 dev hxc0
         ip link set hxc0 up
         nsenter --net=/proc/{pid}/ns/net ip link set lo up
         nsenter --net=/proc/{pid}/ns/net ip addr add 10.99.0.2/24 dev eth0
         nsenter --net=/proc/{pid}/ns/net ip link set eth0 up"
    ));
    scene.look("its interface", &id, |c| of(c, RX, "eth0").is_some() && reason(c, RX).is_empty());
    scene.run(&format!(
        "for n in {{1..300}}; do printf %01000d 0 >/dev/udp/10.99.0.2/9; done
         nsenter --net=/proc/{pid}/ns/net bash -c 'for n in {{1..300}}; do printf %01000d 0 >/dev/udp/127.0.0.1/9; done' || true"
    ));
    let [received, sent] = scene.counted(&pid, "eth0");
    assert!(received >= 300_000.0, "{received}");
    let told = scene.look("as much as its namespace counted", &id, |c| {
        value(c, RX) >= Some(received) && value(c, "container_network_tx_bytes") >= Some(sent)
    });
    let [received, sent] = scene.counted(&pid, "eth0");
    for (metric, at_most) in [(RX, received), ("container_network_tx_bytes", sent)] {
        assert!(value(&told, metric).unwrap() <= at_most, "{metric}: loopback is left out: {told}");
        assert_eq!(value(&told, metric), of(&told, metric, "eth0"));
        assert_eq!(of(&told, metric, "lo"), None);
    }
    scene.look("how fast", &id, |c| value(c, "container_network_rx_rate").is_some());

    let beside = scene.container("beside", "container:web");
    scene.look("the same network of another container", &beside, |c| value(c, RX) >= Some(received));
    let on_node = scene.container("on-node", "host");
    let on_node = scene.look("why it has no network of its own", &on_node, |c| !reason(c, RX).is_empty());
    assert!(reason(&on_node, RX).contains("shares the node's network"), "{on_node}");
    assert_eq!(value(&on_node, RX), None);
}
