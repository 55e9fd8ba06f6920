//! An agent without a controller: what Prometheus sees of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::Context as _;
use horcrux_integration_tests::{Daemon, program, succeeded, wait_until};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;

const TOKEN: &str = "a-token-that-is-long-enough";

/// An agent on its own, and its directory.
struct Alone {
    agent: Daemon,
    dir: TempDir,
    listen: String,
}

impl Alone {
    /// With these lines in `[exporter]`.
    fn start(dir: TempDir, listen: &str, more: &str) -> Self {
        let agent = Daemon::start(agent(&dir, listen, more), &dir.path().join("log")).unwrap();
        Self { agent, dir, listen: listen.to_owned() }
    }

    /// What `curl` gets of it.
    fn curl(&self, args: &[&str], path: &str) -> Output {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "10"]).args(args);
        let url = match self.listen.strip_prefix("unix:") {
            Some(socket) => {
                command.args(["--unix-socket", socket]);
                format!("http://agent{path}")
            }
            None => format!("http://{}{path}", self.listen),
        };
        command.arg(url).output().unwrap()
    }

    fn scrape(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = self.curl(&[&["--fail"], args].concat(), "/metrics");
        succeeded(&output)?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Waits until every lane that there is has read, file systems included.
    fn scraped(&self, args: &[&str]) -> String {
        wait_until("values of the node", || {
            let text = self.scrape(args)?;
            let has = |name: &str| text.contains(&format!("\n{name}"));
            anyhow::ensure!(has("node_load1 ") && has("node_filesystem_size_bytes{"), "{text}");
            Ok(text)
        })
        .unwrap()
    }
}

fn agent(dir: &TempDir, listen: &str, more: &str) -> Command {
    let config = dir.path().join("agentd.toml");
    let state = dir.path().join("state");
    let text = format!(
        "state_dir = {state:?}\nno_controller = true\nagent_socket = {:?}\n[exporter]\nlisten = {listen:?}\n{more}",
        dir.path().join("run/agent.sock"),
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(program("horcrux-agentd").unwrap());
    command.args(["run", "--config"]).arg(config);
    command
}

fn socket(dir: &TempDir) -> String {
    format!("unix:{}", dir.path().join("run/exporter.sock").display())
}

/// An address that was free a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// A program of Prometheus, as `integration-tests/install` unpacks it.
pub(crate) fn tool(name: &str) -> PathBuf {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/prometheus/usr/bin").join(name);
    if unpacked.exists() { unpacked } else { PathBuf::from(name) }
}

/// By family and labels, whatever their order.
type Series = BTreeMap<(String, Vec<String>), f64>;

fn series(text: &str) -> Series {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (head, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = head.split_once('{').unwrap_or((head, ""));
            // None of the labels that are compared holds a comma.
            let mut labels: Vec<String> = labels
                .trim_end_matches('}')
                .split(',')
                .filter(|l| !l.is_empty())
                .map(str::to_owned)
                .collect();
            labels.sort();
            ((name.to_owned(), labels), value.parse().unwrap())
        })
        .collect()
}

#[test]
fn promtool_accepts_both_forms_of_a_real_scrape() {
    let dir = TempDir::new().unwrap();
    let listen = socket(&dir);
    let alone = Alone::start(dir, &listen, "");
    let text = alone.scraped(&[]);
    let mut promtool = Command::new(tool("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool: integration-tests/install unpacks it")
        .unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    // 3: it can be read, and promtool would call something otherwise.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    // node_exporter's own names are not as promtool likes them; ours are.
    let theirs = ["node_memory_", "node_vmstat_", "node_sockstat_", "node_netstat_"];
    let is_theirs = |line: &&str| theirs.iter().any(|family| line.starts_with(family));
    let ours: Vec<&str> = said.lines().filter(|line| !is_theirs(line)).collect();
    assert_eq!(ours, Vec::<&str>::new());

    let open_metrics =
        alone.scrape(&["--header", "Accept: application/openmetrics-text;version=1.0.0"]).unwrap();
    assert!(
        open_metrics.ends_with("\n# EOF\n") && open_metrics.contains("# TYPE node_cpu_seconds counter\n")
    );
    let zipped = alone.scraped(&["--compressed"]);
    assert!(zipped.contains("horcrux_agent_build_info{"), "{zipped}");
    assert!(series(&text).keys().any(|(name, _)| name == "horcrux_agent_lane_readings_total"));
}

#[test]
fn the_socket_is_for_its_group_and_goes_with_the_agent() {
    let dir = TempDir::new().unwrap();
    let listen = socket(&dir);
    let alone = Alone::start(dir, &listen, "");
    alone.scraped(&[]);
    let path = alone.dir.path().join("run/exporter.sock");
    let there = fs::metadata(&path).unwrap();
    assert!(there.file_type().is_socket());
    assert_eq!(there.permissions().mode() & 0o777, 0o660);
    for (path, method, expected) in [
        ("/metrics", "GET", "200"),
        ("/", "GET", "404"),
        ("/metrics", "POST", "405"),
        ("/metrics", "DELETE", "405"),
    ] {
        let args = ["--output", "/dev/null", "--write-out", "%{http_code}", "--request", method];
        let code = alone.curl(&args, path).stdout;
        assert_eq!(String::from_utf8(code).unwrap(), expected, "{method} {path}");
    }
    assert_eq!(alone.agent.stop().unwrap(), Some(0));
    assert!(!path.exists());
}

#[test]
fn an_address_that_others_reach_needs_a_certificate_and_a_token() {
    let dir = TempDir::new().unwrap();
    let output = agent(&dir, "0.0.0.0:0", "").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no loopback address") && said.contains("token_file"), "{said}");

    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let certificate = file("certificate", &cert.pem());
    let key = file("key", &signing_key.serialize_pem());
    let token = file("token", TOKEN);
    let more = format!("certificate = {certificate:?}\nkey = {key:?}\ntoken_file = {token:?}\n");
    let address = free_address();
    let listen = format!("0.0.0.0:{}", address.port());
    let alone = Alone::start(dir, &listen, &more);
    let asked = |header: &str| -> anyhow::Result<String> {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "10", "--cacert", &certificate])
            .args(["--output", "/dev/null", "--write-out", "%{http_code}", "--header", header])
            .arg(format!("https://localhost:{}/metrics", address.port()))
            .output()?;
        succeeded(&output)?;
        Ok(String::from_utf8(output.stdout)?)
    };
    let with_token = format!("Authorization: Bearer {TOKEN}");
    assert_eq!(wait_until("an answer", || asked(&with_token)).unwrap(), "200");
    for wrong in ["Authorization: Bearer another-token-of-length-", "Authorization: Basic YTpi", "X: y"] {
        assert_eq!(asked(wrong).unwrap(), "401", "{wrong}");
    }
    assert!(!alone.curl(&["--fail"], "/metrics").status.success(), "it speaks no plain HTTP");
    assert!(!alone.agent.log().contains(TOKEN));
}

/// How far two readings of a value may lie apart that were taken within two seconds.
fn tolerance(name: &str, value: f64) -> Option<f64> {
    Some(match name {
        "node_boot_time_seconds" => 1.0,
        "node_memory_MemTotal_bytes"
        | "node_memory_SwapTotal_bytes"
        | "node_filesystem_size_bytes"
        | "node_filesystem_files"
        | "node_filesystem_readonly"
        | "node_filefd_maximum"
        | "node_memory_CommitLimit_bytes"
        | "node_network_up"
        | "node_network_carrier"
        | "node_network_mtu_bytes"
        | "node_network_speed_bytes" => 0.0,
        "node_time_seconds" => 5.0,
        "node_load1" | "node_load5" | "node_load15" => 1.0,
        "node_cpu_seconds_total" | "node_cpu_guest_seconds_total" => 10.0,
        "node_filefd_allocated" | "node_sockstat_sockets_used" => (value * 0.2).max(500.0),
        _ if name.starts_with("node_sockstat_") && name.ends_with("_bytes") => 16.0 * 1024.0 * 1024.0,
        _ if name.starts_with("node_sockstat_") => (value * 0.2).max(4096.0),
        _ if name.starts_with("node_netstat_") => (value * 0.02).max(10_000.0),
        _ if name.starts_with("node_vmstat_") => (value * 0.02).max(1_000_000.0),
        _ if name.starts_with("node_pressure_") => 10.0,
        _ if name.starts_with("node_memory_") => 512.0 * 1024.0 * 1024.0,
        _ if name.starts_with("node_filesystem_") => (value * 0.02).max(1000.0),
        _ if name.starts_with("node_disk_") && name.ends_with("_total") => {
            (value * 0.02).max(256.0 * 1024.0 * 1024.0)
        }
        _ if name.starts_with("node_network_") && name.ends_with("_total") => {
            (value * 0.02).max(16.0 * 1024.0 * 1024.0)
        }
        _ => return None,
    })
}

/// Those that every Linux host with a disk and a network has.
const COMPARED: [&str; 41] = [
    "node_cpu_seconds_total",
    "node_memory_MemTotal_bytes",
    "node_memory_MemAvailable_bytes",
    "node_load1",
    "node_boot_time_seconds",
    "node_time_seconds",
    "node_filesystem_size_bytes",
    "node_disk_read_bytes_total",
    "node_network_receive_bytes_total",
    "node_memory_SReclaimable_bytes",
    "node_memory_SUnreclaim_bytes",
    "node_memory_AnonPages_bytes",
    "node_memory_Mapped_bytes",
    "node_memory_SwapCached_bytes",
    "node_memory_CommitLimit_bytes",
    "node_vmstat_pgfault",
    "node_vmstat_pgmajfault",
    "node_vmstat_pgpgin",
    "node_vmstat_pgpgout",
    "node_vmstat_pswpin",
    "node_vmstat_pswpout",
    "node_vmstat_oom_kill",
    "node_filefd_allocated",
    "node_filefd_maximum",
    "node_sockstat_sockets_used",
    "node_sockstat_TCP_inuse",
    "node_sockstat_TCP_mem",
    "node_sockstat_TCP_mem_bytes",
    "node_sockstat_UDP_inuse",
    "node_sockstat_UDP_mem_bytes",
    "node_netstat_Tcp_CurrEstab",
    "node_netstat_Tcp_ActiveOpens",
    "node_netstat_Tcp_InSegs",
    "node_netstat_Tcp_OutSegs",
    "node_netstat_Tcp_RetransSegs",
    "node_netstat_TcpExt_ListenDrops",
    "node_netstat_TcpExt_ListenOverflows",
    "node_netstat_Udp_InDatagrams",
    "node_netstat_Udp_NoPorts",
    "node_network_up",
    "node_network_mtu_bytes",
];

#[test]
fn node_metrics_agree_with_a_node_exporter() {
    let dir = TempDir::new().unwrap();
    let address = free_address();
    let mut other = Command::new(tool("prometheus-node-exporter"));
    other.arg(format!("--web.listen-address={address}"));
    let _other = Daemon::start(other, &dir.path().join("node_exporter.log"))
        .context("node_exporter: integration-tests/install unpacks it")
        .unwrap();
    let listen = socket(&dir);
    let alone = Alone::start(dir, &listen, "");
    alone.scraped(&[]);
    let theirs = wait_until("node_exporter", || {
        let url = format!("http://{address}/metrics");
        let output = Command::new("curl").args(["--silent", "--show-error", "--fail", &url]).output()?;
        succeeded(&output)?;
        Ok(series(&String::from_utf8(output.stdout)?))
    })
    .unwrap();
    let ours = series(&alone.scrape(&[]).unwrap());
    let mut compared: BTreeMap<&str, usize> = BTreeMap::new();
    for (key, theirs) in &theirs {
        let name = key.0.as_str();
        let (Some(ours), Some(tolerance)) = (ours.get(key), tolerance(name, *theirs)) else { continue };
        assert!((ours - theirs).abs() <= tolerance, "{key:?}: here {ours}, there {theirs}");
        *compared.entry(name).or_default() += 1;
    }
    for name in COMPARED {
        assert!(compared.contains_key(name), "{name} is not in both: {compared:?}");
    }
    let uname = |all: &Series| all.keys().find(|(name, _)| name == "node_uname_info").cloned();
    assert_eq!(uname(&ours), uname(&theirs));
}
