//! The dashboards and alert rules that are shipped, at a real Prometheus that scrapes a real agent.

mod board;
mod prometheus;
mod promql;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use horcrux_agentd::local::exporter::families;
use horcrux_integration_tests::lab::{Lab, Work};
use horcrux_integration_tests::{Daemon, program, succeeded, wait_until};
use serde_json::Value;
use tempfile::TempDir;

use self::board::{Board, Chosen, Target, deploy, shown, text};
use self::prometheus::Prometheus;
use self::promql::Named;
use crate::alone::tool;

const AGENT: Chosen<'_> = Chosen { job: "horcrux", instance: "127.0.0.1:9105" };
const NODE_EXPORTER: Chosen<'_> = Chosen { job: "node", instance: "127.0.0.1:9100" };

/// What a machine that tests run on may lack, so that a query for it alone may rightly return nothing.
const MAY_BE_ABSENT: &[(&str, &str)] = &[
    ("horcrux_node_temperature_celsius", "a virtual machine has no sensors"),
    ("horcrux_node_temperature_critical_celsius", "a virtual machine has no sensors"),
    ("horcrux_node_fan_speed_rpm", "a virtual machine has no fans"),
    ("node_hwmon_temp_celsius", "node_exporter's; a virtual machine has no sensors"),
    ("horcrux_node_zfs_arc_size_bytes", "ZFS is not loaded"),
    ("container_pressure_cpu_waiting_seconds_total", "cgroup v1 alone has no pressure"),
    ("container_pressure_memory_waiting_seconds_total", "cgroup v1 alone has no pressure"),
    ("container_pressure_memory_stalled_seconds_total", "cgroup v1 alone has no pressure"),
    ("container_pressure_io_waiting_seconds_total", "cgroup v1 alone has no pressure"),
    ("container_pressure_io_stalled_seconds_total", "cgroup v1 alone has no pressure"),
    ("container_memory_swap", "kernels that don't account for swap don't tell"),
];

/// Names that other exporters have for what ours has too, of which no real one here says so.
const FOREIGN: [&str; 3] = ["node_hwmon_temp_celsius", "node_hwmon_fan_rpm", "node_zfs_arc_size"];
/// What Prometheus itself says of a scrape.
const OF_SCRAPES: [&str; 2] = ["up", "scrape_duration_seconds"];
/// What only an agent with a controller tells.
const OF_LINKS: [&str; 3] = [
    "horcrux_agent_controller_connected",
    "horcrux_agent_spool_on_disk",
    "horcrux_agent_certificate_expiry_timestamp_seconds",
];

/// An agent on its own beside a VM, a container and a node_exporter, and who scrapes them.
struct Scraped {
    // In the order in which they end.
    prometheus: Prometheus,
    agent: Daemon,
    _others: [Daemon; 2],
    lab: Lab,
    _dir: TempDir,
}

impl Scraped {
    fn start() -> Self {
        let lab = Lab::up(1).unwrap();
        std::thread::scope(|both| {
            both.spawn(|| {
                lab.start_libvirtd(1).unwrap();
                lab.vm(1, "web1", 1, Work::Busy).unwrap();
            });
            both.spawn(|| {
                lab.start_dockerd(1).unwrap();
                lab.container(1, "app", Work::Busy).unwrap();
            });
        });
        let dir = TempDir::new().unwrap();
        let privd = lab.start_privd(1).unwrap();
        let config = dir.path().join("agentd.toml");
        let lanes =
            ["node_slow", "container", "vm", "vm_slow"].map(|lane| format!("{lane}_interval = \"1s\"\n"));
        let settings = format!(
            "state_dir = {:?}\nno_controller = true\n{}[exporter]\nlisten = {:?}\n",
            dir.path().join("state"),
            lanes.concat(),
            AGENT.instance
        );
        fs::write(&config, settings).unwrap();
        let mut agent = lab.command(1, &program("horcrux-agentd").unwrap());
        agent.args(["run", "--config"]).arg(config);
        let agent = Daemon::start(agent, &dir.path().join("agent.log")).unwrap();
        let mut node_exporter = lab.command(1, &tool("prometheus-node-exporter"));
        node_exporter.arg(format!("--web.listen-address={}", NODE_EXPORTER.instance));
        let node_exporter = Daemon::start(node_exporter, &dir.path().join("node_exporter.log")).unwrap();
        let jobs = [AGENT, NODE_EXPORTER].map(|chosen| (chosen.job, chosen.instance));
        let prometheus = Prometheus::start(&lab, &jobs);
        Self { prometheus, agent, _others: [privd, node_exporter], lab, _dir: dir }
    }

    /// Waits until every target returns something that holds the labels of its legend, or may return nothing.
    fn returns_data(&self, targets: &[Target], may_be_absent: impl Fn(&Named) -> bool) {
        wait_until("data for every query", || {
            let queries = targets.iter().map(|target| target.expression.as_str());
            let results = self.prometheus.query(&self.lab, queries)?;
            let faults: Vec<String> = targets
                .iter()
                .zip(&results)
                .filter_map(|(target, result)| {
                    let series = result.as_array().map_or(&[] as &[Value], Vec::as_slice);
                    if series.is_empty() {
                        let absent = may_be_absent(&Named::by(&target.expression));
                        return (!absent)
                            .then(|| format!("{}: no data: {}", target.place, target.expression));
                    }
                    let has = |label: &&str| series.iter().any(|one| one["metric"][*label].is_string());
                    let lacks: Vec<&str> =
                        shown(&target.legend).into_iter().filter(|label| !has(label)).collect();
                    (!lacks.is_empty()).then(|| format!("{}: no label {lacks:?}: {result}", target.place))
                })
                .collect();
            anyhow::ensure!(faults.is_empty(), "{}", faults.join("\n"));
            Ok(())
        })
        .unwrap();
    }

    /// Every name of a metric that there can be, and every label that there is.
    fn known(&self) -> Named {
        let names = |path: &str| {
            let names = self.prometheus.get(&self.lab, path).unwrap();
            let names = names.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
            names.collect::<BTreeSet<String>>()
        };
        let mut known = Named { metrics: names("label/__name__/values"), labels: names("labels") };
        known.metrics.extend(FOREIGN.into_iter().chain(OF_SCRAPES).chain(OF_LINKS).map(str::to_owned));
        for (metric, label) in families() {
            known.metrics.insert(metric);
            known.labels.insert(label.to_owned());
        }
        known
    }
}

/// Nothing is wrong where one of these is all that is asked for and it is not there.
fn rightly_absent(named: &Named) -> bool {
    MAY_BE_ABSENT.iter().any(|(metric, _)| named.metrics.contains(*metric))
}

fn assert_known(known: &Named, place: &str, expression: &str) -> Named {
    let named = Named::by(expression);
    let unknown: Vec<_> =
        named.metrics.difference(&known.metrics).chain(named.labels.difference(&known.labels)).collect();
    assert!(unknown.is_empty(), "{place}: {unknown:?} is nowhere: {expression}");
    named
}

#[test]
fn every_query_and_rule_works_at_a_real_prometheus() {
    let scraped = Scraped::start();
    let boards = Board::all();
    let targets: Vec<Target> = boards.iter().flat_map(|board| board.targets(AGENT)).collect();
    scraped.returns_data(&targets, rightly_absent);
    let known = scraped.known();
    let mut asked_for = BTreeSet::new();
    for target in &targets {
        asked_for.extend(assert_known(&known, &target.place, &target.expression).metrics);
    }
    for (metric, _) in MAY_BE_ABSENT {
        assert!(asked_for.contains(*metric), "nobody asks for {metric}: take it off the list");
    }
    let choices: Vec<_> = boards.iter().flat_map(|board| board.choices(AGENT)).collect();
    let values = scraped.prometheus.choices(&scraped.lab, choices.iter()).unwrap();
    for (choice, values) in choices.iter().zip(values) {
        assert!(!values.as_array().unwrap().is_empty(), "{}: nothing to choose from", choice.place);
    }

    // With node_exporter's values the same board works, but for what only the agent has.
    let node = boards.iter().find(|board| board.file == "node.json").unwrap();
    scraped.returns_data(&node.targets(NODE_EXPORTER), |named| {
        rightly_absent(named) || named.metrics.iter().all(|metric| metric.starts_with("horcrux_"))
    });

    rules_hold(scraped, &known);
}

/// The rules as Prometheus has loaded them; and one of them at work.
fn rules_hold(scraped: Scraped, known: &Named) {
    let rules = || -> anyhow::Result<Vec<Value>> {
        let groups = scraped.prometheus.get(&scraped.lab, "rules")?;
        let groups = groups["groups"].as_array().into_iter().flatten();
        Ok(groups.flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect())
    };
    let loaded = rules().unwrap();
    assert!(!loaded.is_empty());
    for rule in &loaded {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_known(known, text(rule, "name"), text(rule, "query"));
    }
    scraped.agent.stop().unwrap();
    wait_until("an alert of the agent that is gone", || {
        let down = rules()?.into_iter().find(|rule| rule["name"] == "HorcruxAgentDown");
        let state = down.map(|rule| rule["state"].clone());
        anyhow::ensure!(state.as_ref().is_some_and(|state| state == "pending"), "{state:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn alerts_fire_when_they_should_and_the_example_of_a_scrape_is_accepted() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system/dashboards/rules.yml");
    let checks: [(&[&str], PathBuf); 3] = [
        (&["check", "rules"], deploy("prometheus/horcrux.rules.yml")),
        (&["test", "rules"], here),
        // The example names files that only its reader has.
        (&["check", "config", "--syntax-only"], deploy("prometheus/prometheus.yml")),
    ];
    for (verb, file) in checks {
        let output = Command::new(tool("promtool")).args(verb).arg(file).output().unwrap();
        succeeded(&output).unwrap();
    }
}

/// Grafana's grid.
const COLUMNS: u64 = 24;

/// The cells of the grid that a panel takes.
fn cells(panel: &Value) -> Vec<(u64, u64)> {
    let side = |key: &str| panel["gridPos"][key].as_u64().unwrap();
    let (x, y, w, h) = (side("x"), side("y"), side("w"), side("h"));
    assert!(w > 0 && h > 0 && x + w <= COLUMNS, "{panel}");
    (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))).collect()
}

#[test]
fn panels_have_ids_places_units_and_descriptions_of_their_own() {
    for board in Board::all() {
        let file = &board.file;
        let mut ids = BTreeSet::new();
        for layer in board.layers() {
            let mut taken = BTreeSet::new();
            for panel in layer {
                let place = format!("{file}: {}", text(panel, "title"));
                assert!(panel["id"].as_u64().is_some_and(|id| ids.insert(id)), "{place}: its id");
                assert!(cells(panel).into_iter().all(|cell| taken.insert(cell)), "{place}: covers another");
                assert!(!text(panel, "title").is_empty(), "{panel}");
                if panel["type"] != "row" {
                    assert!(!text(panel, "description").is_empty(), "{place}: no description");
                }
                if matches!(text(panel, "type"), "row" | "text") {
                    continue;
                }
                assert!(!text(&panel["fieldConfig"]["defaults"], "unit").is_empty(), "{place}: no unit");
                let targets = panel["targets"].as_array().unwrap();
                for asked in std::iter::once(panel).chain(targets) {
                    assert_eq!(text(&asked["datasource"], "uid"), "${datasource}", "{place}");
                }
                let legends: BTreeSet<&str> = targets.iter().map(|t| text(t, "legendFormat")).collect();
                if panel["type"] == "timeseries" {
                    assert!(legends.len() == targets.len() && !legends.contains(""), "{place}: {legends:?}");
                }
            }
        }
    }
}

#[test]
fn dashboards_can_be_provisioned_and_lead_to_each_other() {
    let boards = Board::all();
    let of = |key: &str| boards.iter().map(|board| text(&board.json, key)).collect::<BTreeSet<_>>();
    let titles = ["Horcrux: containers", "Horcrux: node", "Horcrux: virtual machines"];
    assert_eq!(of("title"), BTreeSet::from(titles));
    let uids = of("uid");
    for board in &boards {
        assert!(board.json["id"].is_null() && board.json["__inputs"].is_null(), "{}", board.file);
        let links = board.json["links"].as_array().unwrap().iter();
        let mut led_to: BTreeSet<&str> = links.map(|l| text(l, "url").strip_prefix("/d/").unwrap()).collect();
        led_to.insert(text(&board.json, "uid"));
        assert_eq!(led_to, uids, "{}", board.file);
        let kinds: Vec<&str> = board.variables().iter().map(|variable| text(variable, "type")).collect();
        assert_eq!(kinds[0], "datasource", "{}", board.file);
    }
}
