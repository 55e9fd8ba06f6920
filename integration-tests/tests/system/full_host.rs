//! An agent on a host with as many guests as hosts have: all of them are seen, and what that costs is bounded.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::Context as _;
use horcrux_integration_tests::lab::Lab;
use horcrux_integration_tests::{Daemon, program, succeeded, wait_until};
use tempfile::TempDir;

const CONTAINERS: usize = 1000;
const VMS: usize = 300;
/// Times that containers are read while what that costs is looked at.
const READINGS: f64 = 4.0;
/// In a build for development. A quarter of it is what the live model has of so many guests.
const MOST_MIB: f64 = 160.0;

/// Groups as Docker makes them, each with a process in it.
const MAKE: &str = r#"
trees=.
[[ ! -d /sys/fs/cgroup/memory ]] || trees="cpu cpuacct memory blkio pids"
for number in $(seq "$1"); do
    id=$(printf %064x "$number")
    sleep 600 >/dev/null 2>&1 </dev/null &
    for tree in $trees; do
        mkdir -p "/sys/fs/cgroup/$tree/docker/$id"
        echo "$!" >"/sys/fs/cgroup/$tree/docker/$id/cgroup.procs"
    done
done
"#;

struct Scene {
    // In the order in which they end.
    agent: Daemon,
    _lab: Lab,
    dir: TempDir,
}

impl Scene {
    fn start() -> Self {
        let (lab, dir) = (Lab::up(1).unwrap(), tempfile::tempdir().unwrap());
        lab.exec(1, &["bash", "-c", MAKE, "make", &CONTAINERS.to_string()]).unwrap();
        let domain = |number: usize| {
            format!(
                "<domain type='test'><name>vm{number}</name><memory>8192</memory><vcpu>1</vcpu>\
                 <os><type>hvm</type></os></domain>"
            )
        };
        let domains: String = (0..VMS).map(domain).collect();
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::write(path("vms.xml"), format!("<node>{domains}</node>")).unwrap();
        let settings = format!(
            "state_dir = {:?}\nno_controller = true\nagent_socket = {:?}\nlibvirt_uris = [\"test://{}\"]\n\
             [exporter]\nlisten = \"unix:{}\"\n",
            path("state"),
            path("run/agent.sock"),
            path("vms.xml"),
            path("run/exporter.sock"),
        );
        fs::write(path("agentd.toml"), settings).unwrap();
        let mut command = lab.command(1, &program("horcrux-agentd").unwrap());
        command.args(["run", "--config"]).arg(path("agentd.toml"));
        let agent = Daemon::start(command, &dir.path().join("log")).unwrap();
        Self { agent, _lab: lab, dir }
    }

    /// How many lines `horcruxctl` lists.
    fn listed(&self, what: &str) -> anyhow::Result<usize> {
        let mut command = Command::new(program("horcruxctl")?);
        command.arg("--agent").arg(self.dir.path().join("run/agent.sock"));
        let output = command.args(["-o", "json", what, "list"]).output()?;
        succeeded(&output)?;
        let list: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        Ok(list.as_array().context("a list")?.len())
    }

    /// Values of the agent's own metrics, by lane.
    fn own(&self, metric: &str) -> anyhow::Result<Vec<(String, f64)>> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--fail", "--max-time", "20", "--unix-socket"]);
        command.arg(self.dir.path().join("run/exporter.sock")).arg("http://agent/metrics");
        let output = command.output()?;
        succeeded(&output)?;
        let text = String::from_utf8(output.stdout)?;
        let start = format!("{metric}{{");
        let lines = text.lines().filter_map(|line| line.strip_prefix(&start)?.rsplit_once("} "));
        lines.map(|(labels, value)| Ok((labels.to_owned(), value.parse()?))).collect()
    }

    fn container_readings(&self) -> anyhow::Result<f64> {
        let all = self.own("horcrux_agent_lane_readings_total")?;
        let of_containers = all.iter().find(|(labels, _)| labels.contains("\"containers\""));
        Ok(of_containers.context("a lane of containers")?.1)
    }

    /// CPU time in seconds, and the most memory that it had in MiB.
    fn cost(&self) -> (f64, f64) {
        let pid = self.agent.pid().unwrap().as_raw_nonzero();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let ticks: u64 = rest.split_whitespace().skip(11).take(2).map(|f| f.parse::<u64>().unwrap()).sum();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: f64 = line.split_whitespace().next().unwrap().parse().unwrap();
        (ticks as f64 / rustix::param::clock_ticks_per_second() as f64, kib / 1024.0)
    }
}

#[test]
fn a_thousand_containers_and_three_hundred_vms_cost_a_bounded_share_of_their_host() {
    let scene = Scene::start();
    wait_until("all guests", || {
        let listed = (scene.listed("container")?, scene.listed("vm")?);
        anyhow::ensure!(listed == (CONTAINERS, VMS), "{listed:?}");
        Ok(())
    })
    .unwrap();
    let (first, before) = (scene.container_readings().unwrap(), scene.cost());
    let readings = wait_until("some readings more", || {
        let readings = scene.container_readings()? - first;
        anyhow::ensure!(readings >= READINGS, "{readings}");
        Ok(readings)
    })
    .unwrap();
    let (cpu, peak_mib) = scene.cost();
    // An interval is 5 s.
    let cores = (cpu - before.0) / (readings * 5.0);
    println!("{readings} readings, {cores:.2} of a core, {peak_mib:.0} MiB");
    assert!(cores < 1.0, "{cores:.2} cores");
    assert!(peak_mib < MOST_MIB, "{peak_mib:.0} MiB");
    let dropped = scene.own("horcrux_agent_lane_dropped_total").unwrap();
    assert!(dropped.iter().all(|(_, dropped)| *dropped == 0.0), "{dropped:?}");
    // A machine that is busy with other things lets a tick pass now and then.
    let taken: BTreeMap<_, _> = scene.own("horcrux_agent_lane_readings_total").unwrap().into_iter().collect();
    for (lane, skipped) in scene.own("horcrux_agent_lane_skipped_total").unwrap() {
        assert!(skipped <= 1.0 + taken[&lane] / 10.0, "{lane}: {skipped} of {}", taken[&lane]);
    }
}
