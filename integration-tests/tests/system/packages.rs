//! The packages, on a clean Debian that systemd runs.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use horcrux_integration_tests::machine::{Machine, package};
use horcrux_integration_tests::{succeeded, wait_until};

const EXPORTER: &str = "/run/horcrux/exporter.sock";

/// Waits until a unit is active, and has been since it was first started.
fn active(machine: &Machine, unit: &str) {
    wait_until(&format!("{unit} to be active"), || machine.run(&["systemctl", "is-active", unit])).unwrap();
    let restarts = machine.run(&["systemctl", "show", "--value", "-p", "NRestarts", unit]).unwrap();
    assert!(["0", ""].contains(&restarts.trim()), "{unit} was restarted {restarts}");
}

/// A unit's score by systemd-analyze, in tenths, is no more than this.
fn exposed_at_most(machine: &Machine, service: &str, tenths: u32) {
    let file = format!("/usr/lib/systemd/system/{service}.service");
    let bound = format!("--threshold={tenths}");
    machine.run(&["systemd-analyze", "security", "--offline=true", "--no-pager", &bound, &file]).unwrap();
}

/// The processes of a service run as `user`, without any capability.
fn runs_without_capabilities(machine: &Machine, service: &str, user: &str) {
    let pid = machine.run(&["systemctl", "show", "--value", "-p", "MainPID", service]).unwrap();
    let status = machine.run(&["cat", &format!("/proc/{}/status", pid.trim())]).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let id = machine.run(&["id", "-u", user]).unwrap();
    assert!(field("Uid:").iter().all(|uid| uid == id.trim()), "{status}");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), ["1"]);
}

/// The value of the one line that begins so.
fn metric(text: &str, begin: &str) -> Option<f64> {
    let mut lines = text.lines().filter(|line| line.starts_with(begin) && !line.starts_with('#'));
    let line = lines.next()?;
    assert_eq!(lines.next(), None, "{begin}");
    line.rsplit_once(' ')?.1.parse().ok()
}

fn scrape(machine: &Machine, what: &str, look: impl Fn(&str) -> bool) -> String {
    wait_until(what, || {
        let text = machine.get(EXPORTER, "/metrics")?;
        anyhow::ensure!(look(&text), "{text}");
        Ok(text)
    })
    .unwrap()
}

/// What is left of the project, apart from the packages themselves.
fn left(machine: &Machine) -> String {
    let files = ["find", "/", "-xdev", "-iname", "*horcrux*"];
    let known = ["-not", "-path", "/packages/*", "-not", "-path", "/proc/*"];
    let logs = ["-not", "-path", "/var/log/apt/*"];
    machine.run(&[&files[..], &known[..], &logs[..]].concat()).unwrap()
}

#[test]
fn the_agent_serves_its_host_from_within_its_sandbox_as_soon_as_it_is_installed() {
    let machine = Machine::boot().unwrap();
    machine.install("horcrux-agent").unwrap();
    active(&machine, "horcrux-agentd.service");
    active(&machine, "horcrux-privd.socket");
    runs_without_capabilities(&machine, "horcrux-agentd.service", "horcrux-agent");
    exposed_at_most(&machine, "horcrux-agentd", 15);
    exposed_at_most(&machine, "horcrux-privd", 8);
    machine.run(&["systemctl", "start", "horcrux-privd.service"]).unwrap();
    active(&machine, "horcrux-privd.service");
    let rule = machine.run(&["cat", "/usr/share/polkit-1/rules.d/60-horcrux-agent.rules"]).unwrap();
    assert!(rule.contains("org.libvirt.unix.monitor") && !rule.contains("org.libvirt.unix.manage"));

    let there = |text: &str| metric(text, "node_filesystem_readonly{mountpoint=\"/srv\"").is_some();
    let text = scrape(&machine, "the file system at /srv", there);
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let memory_kib: f64 = meminfo.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(metric(&text, "node_memory_MemTotal_bytes "), Some(memory_kib * 1024.0));
    let cpus =
        text.lines().filter(|line| line.starts_with("node_cpu_seconds_total{") && line.contains("\"idle\""));
    assert_eq!(cpus.count(), std::thread::available_parallelism().unwrap().get());
    for name in ["node_load1 ", "node_boot_time_seconds ", "node_procs_running "] {
        assert!(metric(&text, name).is_some_and(|value| value >= 0.0), "{name}");
    }
    let size = metric(&text, "node_filesystem_size_bytes{mountpoint=\"/srv\"").unwrap();
    let disk = fs::metadata(machine.disk()).unwrap().len() as f64;
    assert!(size > disk * 0.7 && size < disk, "{size} of {disk}");

    // The sandbox lets the agent write there no more than elsewhere; that is not what is asked.
    assert_eq!(metric(&text, "node_filesystem_readonly{mountpoint=\"/srv\""), Some(0.0));
    machine.run(&["mount", "-o", "remount,bind,ro", "/srv"]).unwrap();
    let read_only = |text: &str| metric(text, "node_filesystem_readonly{mountpoint=\"/srv\"") == Some(1.0);
    scrape(&machine, "/srv to be read-only", read_only);

    machine.run(&["apt-get", "remove", "-y", "horcrux-agent"]).unwrap();
    machine
        .run(&["test", "-e", "/var/lib/horcrux-agentd/lock", "-a", "-e", "/etc/horcrux/agentd.toml"])
        .unwrap();
    machine.run(&["apt-get", "purge", "-y", "horcrux-agent"]).unwrap();
    assert_eq!(left(&machine), "");
    machine.run(&["id", "horcrux-agent"]).unwrap();
}

#[test]
fn the_controller_starts_as_it_is_installed_and_root_enrolls_the_node() {
    let machine = Machine::boot().unwrap();
    for name in ["horcrux-controller", "horcrux-agent", "horcruxctl"] {
        machine.install(name).unwrap();
    }
    active(&machine, "horcrux-controld.service");
    runs_without_capabilities(&machine, "horcrux-controld.service", "horcrux-controld");
    exposed_at_most(&machine, "horcrux-controld", 12);
    // What PAM's modules need is more than others do.
    exposed_at_most(&machine, "horcrux-pamd", 22);
    machine.run(&["systemctl", "start", "horcrux-pamd.socket", "horcrux-pamd.service"]).unwrap();
    active(&machine, "horcrux-pamd.service");

    wait_until("the controller's state", || machine.run(&["test", "-s", "/var/lib/horcrux-controld/ports"]))
        .unwrap();
    machine
        .run(&["horcrux-controld", "join-token", "--name", "here", "--token-file", "/root/token"])
        .unwrap();
    let controller = ["--controller", "https://127.0.0.1:8006", "--token-file", "/root/token"];
    machine.run(&[&["horcrux-agentd", "enroll"][..], &controller[..]].concat()).unwrap();
    wait_until("the agent to go on with its controller", || {
        let journal =
            machine.run(&["journalctl", "--no-pager", "-o", "cat", "-u", "horcrux-agentd.service"])?;
        anyhow::ensure!(journal.contains("attached"), "{journal}");
        Ok(())
    })
    .unwrap();
    for (dir, user) in
        [("/var/lib/horcrux-agentd", "horcrux-agent"), ("/var/lib/horcrux-controld", "horcrux-controld")]
    {
        assert_eq!(machine.run(&["find", dir, "!", "-user", user]).unwrap(), "", "root made it its own");
    }
    active(&machine, "horcrux-agentd.service");
    assert!(machine.run(&["horcruxctl", "version"]).unwrap().contains(env!("CARGO_PKG_VERSION")));

    machine.run(&["apt-get", "purge", "-y", "horcrux-controller", "horcrux-agent", "horcruxctl"]).unwrap();
    assert_eq!(left(&machine), "");
}

/// A list of files, without directories and what each kind has elsewhere: the licence, and zsh's completions.
fn files(listed: &str) -> BTreeSet<String> {
    let own = |path: &&str| !path.ends_with("/copyright") && !path.starts_with("/usr/share/licenses/");
    let zsh = |path: &str| path.replace("/vendor-completions/_", "/site-functions/_");
    listed.lines().filter(own).map(zsh).collect()
}

#[test]
fn an_rpm_holds_what_the_deb_holds() {
    let said = |command: &mut Command| {
        let output = command.output().unwrap();
        succeeded(&output).unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for name in ["horcrux-agent", "horcrux-controller", "horcruxctl"] {
        let (deb, rpm) = (package(name, ".deb").unwrap(), package(name, ".rpm").unwrap());
        let deb = said(Command::new("dpkg-deb").arg("-c").arg(deb));
        let deb: Vec<&str> = deb.lines().filter(|line| line.starts_with('-')).collect();
        let paths = deb.iter().map(|line| line.rsplit_once(" .").unwrap().1.to_owned() + "\n");
        let needs = said(Command::new("rpm").args(["-qp", "--nosignature", "--requires"]).arg(&rpm));
        assert!(!needs.contains("openrc"), "what is documentation needs nothing: {needs}");
        let rpm = said(Command::new("rpm").args(["-qlp", "--nosignature"]).arg(rpm));
        let (in_deb, in_rpm) = (files(&paths.collect::<String>()), files(&rpm));
        assert_eq!(in_deb, in_rpm, "{name}");
        let has = |end: &str| in_rpm.iter().any(|path| path.ends_with(end));
        let expected: &[&str] = match name {
            "horcrux-agent" => &["/horcrux-agentd.8", "/horcrux-privd.8", "/60-horcrux-agent.rules"],
            "horcrux-controller" => &["/horcrux-controld.8", "/horcrux-pamd.8", "/etc/pam.d/horcrux"],
            _ => &["/horcruxctl.1", "/completions/horcruxctl", "/_horcruxctl", "/horcruxctl.fish"],
        };
        assert!(expected.iter().all(|end| has(end)), "{in_rpm:?}");
    }
}
