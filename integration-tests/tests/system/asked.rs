//! An agent that `horcruxctl --agent` asks: alone, and beside its controller.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use horcrux_integration_tests::{Controller, Daemon, program, succeeded, value, wait_until};
use serde_json::Value;
use tempfile::TempDir;

/// A group and a user that own nothing.
const NOBODY: u32 = 65534;

/// An agent on its own, and its directory.
struct Asked {
    agent: Daemon,
    dir: TempDir,
}

impl Asked {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (state, exporter) = (dir.path().join("state"), dir.path().join("run/exporter.sock"));
        let text = format!(
            "state_dir = {state:?}\nnode_slow_interval = \"1s\"\nagent_socket = {:?}\n[exporter]\nlisten = \"unix:{}\"\n",
            socket(&dir),
            exporter.display(),
        );
        let config = dir.path().join("agentd.toml");
        fs::write(&config, text).unwrap();
        let mut command = Command::new(program("horcrux-agentd").unwrap());
        command.args(["run", "--no-controller", "--config"]).arg(config);
        let agent = Daemon::start(command, &dir.path().join("log")).unwrap();
        Self { agent, dir }
    }

    fn ctl(&self, args: &[&str]) -> Output {
        ctl(&socket(&self.dir), args).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        json(&socket(&self.dir), args)
    }

    /// Waits until the node's values are there with what is computed of two readings.
    fn node(&self) -> Value {
        wait_until("the node's values", || {
            let node = self.json(&["node", "get"])?;
            anyhow::ensure!(value(&node, "node_cpu_usage").is_some(), "{node}");
            Ok(node)
        })
        .unwrap()
    }
}

fn socket(dir: &TempDir) -> PathBuf {
    dir.path().join("run/agent.sock")
}

fn ctl(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program("horcruxctl").unwrap());
    command.arg("--agent").arg(socket).args(args);
    command.env("XDG_CONFIG_HOME", "/nonexistent").env("TERM", "xterm");
    command
}

fn json(socket: &Path, args: &[&str]) -> anyhow::Result<Value> {
    let output = ctl(socket, &[args, &["-o", "json"]].concat()).output()?;
    succeeded(&output)?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn ended(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn an_agent_on_its_own_shows_its_node() {
    let asked = Asked::start();
    let node = asked.node();
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(node["hostname"], hostname.trim());
    assert_eq!(node["state"], "here");
    let total = value(&node, "node_memory_total").unwrap();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let kibibytes: f64 = meminfo.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(total, kibibytes * 1024.0);
    let usage = value(&node, "node_cpu_usage").unwrap();
    assert!((0.0..=100.0).contains(&usage), "{usage}");
    let nodes = asked.json(&["node", "list"]).unwrap();
    assert_eq!(nodes.as_array().unwrap().len(), 1);
    assert_eq!(nodes[0]["name"], node["name"]);
    for list in ["vm", "container"] {
        assert!(asked.json(&[list, "list"]).unwrap().is_array());
    }
    let table = asked.ctl(&["node", "get"]);
    let text = String::from_utf8(table.stdout).unwrap();
    assert!(text.contains("host name") && !text.contains("1970"), "{text}");
    assert_eq!(asked.agent.stop().unwrap(), Some(0));
    assert!(!socket(&asked.dir).exists());
}

#[test]
fn what_an_agent_does_not_have_is_refused_before_it_is_asked() {
    let nowhere = Path::new("/nonexistent/agent.sock");
    for args in [&["user", "list"][..], &["node", "lock", "web1"], &["login", "https://web1"], &["whoami"]] {
        let (code, said) = ended(&ctl(nowhere, args).output().unwrap());
        assert_eq!(code, Some(2), "{args:?}: {said}");
        assert!(said.contains("leave --agent out"), "{said}");
    }
    let (code, said) = ended(&ctl(nowhere, &["node", "list"]).output().unwrap());
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("/nonexistent/agent.sock") && said.contains("horcrux-agentd"), "{said}");
    let (code, said) = ended(&ctl(nowhere, &["node", "list", "--context", "lab"]).output().unwrap());
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn the_socket_is_for_its_group_and_says_which_that_is() {
    let asked = Asked::start();
    asked.node();
    let path = socket(&asked.dir);
    let there = fs::metadata(&path).unwrap();
    assert!(there.file_type().is_socket());
    assert_eq!(there.permissions().mode() & 0o777, 0o660);
    let as_nobody = || {
        let inner = ctl(&path, &["node", "list", "-o", "json"]);
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &NOBODY.to_string(), "--regid", &NOBODY.to_string(), "--clear-groups"]);
        command.arg(inner.get_program()).args(inner.get_args());
        command.env("XDG_CONFIG_HOME", "/nonexistent").output().unwrap()
    };
    let (code, said) = ended(&as_nobody());
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("root and the group root"), "{said}");
    std::os::unix::fs::chown(&path, None, Some(NOBODY)).unwrap();
    succeeded(&as_nobody()).unwrap();
}

#[test]
fn watch_prints_what_changes_and_ends_with_its_reader() {
    let asked = Asked::start();
    asked.node();
    let mut watch =
        ctl(&socket(&asked.dir), &["watch", "-o", "json"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let (sender, heard) = channel();
    let reader = thread::spawn(move || {
        for line in lines.map_while(Result::ok).take(20) {
            let change: Value = serde_json::from_str(&line).unwrap();
            if sender.send(change).is_err() {
                return;
            }
        }
    });
    let next = || heard.recv_timeout(Duration::from_secs(30)).unwrap();
    let mut values = 0;
    let mut present = 0;
    while values < 2 {
        let line = next();
        match line["change"].as_str().unwrap() {
            "values" => values += 1,
            "present" => present += 1,
            other => assert!(["changed", "event", "gone"].contains(&other), "{line}"),
        }
    }
    assert!(present >= 1);
    watch.kill().unwrap();
    watch.wait().unwrap();
    reader.join().unwrap();
}

#[test]
fn top_draws_the_host_on_a_terminal() {
    let asked = Asked::start();
    let node = asked.node();
    let inner = ctl(&socket(&asked.dir), &["top"]);
    let words: Vec<_> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(|word| word.to_str().unwrap().to_owned())
        .collect();
    let sized = format!("stty rows 40 cols 120; exec {}", words.join(" "));
    let mut top = Command::new("script")
        .args(["--quiet", "--return", "--command", &sized, "/dev/null"])
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut screen = top.stdout.take().unwrap();
    let (sender, drawn) = channel();
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = screen.read(&mut bytes) {
            if sender.send(String::from_utf8_lossy(&bytes[..length]).into_owned()).is_err() {
                return;
            }
        }
    });
    let name = node["name"].as_str().unwrap().trim_start_matches("nodes/").to_owned();
    let mut all = String::new();
    wait_until("the node on the screen", || {
        all.extend(drawn.try_iter());
        anyhow::ensure!(all.contains("live") && all.contains(&name), "{all}");
        Ok(())
    })
    .unwrap();
    top.stdin.as_mut().unwrap().write_all(b"q").unwrap();
    let code = wait_until("the end of top", || top.try_wait()?.ok_or_else(|| anyhow::anyhow!("it runs")));
    assert_eq!(code.unwrap().code(), Some(0), "{all}");
}

/// A value by what it is of and when it was read.
fn read(node: &Value) -> BTreeMap<(String, String, i64), f64> {
    let values = node["values"].as_array().unwrap();
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    values
        .iter()
        .filter_map(|value| {
            let taken = value["taken_unix_ms"].as_i64()?;
            Some(((text(value, "metric"), text(value, "instance"), taken), value["value"].as_f64()?))
        })
        .collect()
}

#[test]
fn what_the_agent_shows_is_what_its_controller_shows_of_it() {
    let controller = Controller::start().unwrap();
    succeeded(&controller.enroll("here", &controller.join_token("here").unwrap()).unwrap()).unwrap();
    let socket = PathBuf::from(controller.path("here-agent.sock"));
    let config = controller.path("here.toml");
    let settings = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{settings}agent_socket = {socket:?}\n")).unwrap();
    let _agent = controller.agent("here").unwrap();
    controller.wait_for_state("here", "connected").unwrap();
    wait_until("rates at the controller", || {
        let node = controller.json(&["node", "get", "here"])?;
        anyhow::ensure!(value(&node, "node_cpu_usage").is_some(), "{node}");
        Ok(())
    })
    .unwrap();
    // Of readings that both have, all values are the same, computed ones too.
    let (mut compared, mut computed) = (0, false);
    for _ in 0..20 {
        let (there, here) = thread::scope(|scope| {
            let there = scope.spawn(|| controller.json(&["node", "get", "here"]).unwrap());
            let here = json(&socket, &["node", "get", "here"]).unwrap();
            (there.join().unwrap(), here)
        });
        let (there, here) = (read(&there), read(&here));
        for (key, value) in &here {
            if let Some(other) = there.get(key) {
                assert_eq!(value, other, "{key:?}");
                compared += 1;
                computed |= key.0 == "node_cpu_usage";
            }
        }
        if computed && compared > 100 {
            return;
        }
    }
    panic!("too few values were of the same reading: {compared}");
}
