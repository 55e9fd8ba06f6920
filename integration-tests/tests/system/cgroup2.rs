//! The agent on a real cgroup v2, in a Linux that is booted for it: beside containers of runc and crun, and a reader of the
//! same files. What is done there is in `cgroup2/run`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use horcrux_integration_tests::{lab, program, succeeded};
use horcrux_proto::catalogue::{CATALOGUE, EntityKind};
use serde_json::Value;

/// Ids of the containers: one that works, one that takes too much memory, and one without controllers.
const WEB: &str = "0000000000000000000000000000000000000000000000000000000000000001";
const DB: &str = "0000000000000000000000000000000000000000000000000000000000000002";
const BARE: &str = "0000000000000000000000000000000000000000000000000000000000000003";

/// How long a container may be there unseen, or be seen though it has gone.
const SEEN_WITHIN_SECONDS: f64 = 2.0;
/// What the client there, an emulated debug build, needs to print what it was told.
const PRINTED_WITHIN_SECONDS: f64 = 2.0;
/// How well the moment is known at which both clocks were read.
const CLOCK_SECONDS: f64 = 0.1;
/// What a reading of all containers may take there.
const READING_SECONDS: f64 = 1.0;

/// How a value compares with what the kernel said before and after it was read.
#[derive(Clone, Copy, Debug)]
enum Compared {
    /// It doesn't change.
    Same,
    /// It only grows: it lies between the two.
    Between,
    /// It moves, so far beyond the two at most.
    Near(f64),
}

/// What each metric is in the kernel's files, in which unit.
const COMPARED: [(&str, &str, f64, Compared); 26] = {
    use Compared::{Between, Near, Same};
    const US: f64 = 1000.0;
    const MIB: f64 = 1024.0 * 1024.0;
    [
        ("container_cpu_time", "cpu.stat usage_usec", US, Between),
        ("container_cpu_user_time", "cpu.stat user_usec", US, Between),
        ("container_cpu_system_time", "cpu.stat system_usec", US, Between),
        ("container_cpu_limit", "cpu.max", 1.0 / 100_000.0, Same),
        ("container_cpu_periods", "cpu.stat nr_periods", 1.0, Between),
        ("container_cpu_throttled_periods", "cpu.stat nr_throttled", 1.0, Between),
        ("container_cpu_throttled_time", "cpu.stat throttled_usec", US, Between),
        ("container_memory_current", "memory.current", 1.0, Near(MIB)),
        ("container_memory_working_set", "working set", 1.0, Near(MIB)),
        ("container_memory_limit", "memory.max", 1.0, Same),
        ("container_memory_anonymous", "memory.stat anon", 1.0, Near(MIB)),
        ("container_memory_file", "memory.stat file", 1.0, Near(MIB)),
        ("container_memory_swap", "memory.swap.current", 1.0, Same),
        ("container_memory_oom_kills", "memory.events oom_kill", 1.0, Between),
        ("container_io_read_bytes", "io.stat rbytes", 1.0, Between),
        ("container_io_written_bytes", "io.stat wbytes", 1.0, Between),
        ("container_io_reads", "io.stat rios", 1.0, Between),
        ("container_io_writes", "io.stat wios", 1.0, Between),
        // A shell that begins and ends programs all the time.
        ("container_pids", "pids.current", 1.0, Near(2.0)),
        ("container_pids_limit", "pids.max", 1.0, Same),
        ("container_pressure_cpu_some_time", "cpu.pressure some", US, Between),
        ("container_pressure_cpu_full_time", "cpu.pressure full", US, Between),
        ("container_pressure_memory_some_time", "memory.pressure some", US, Between),
        ("container_pressure_memory_full_time", "memory.pressure full", US, Between),
        ("container_pressure_io_some_time", "io.pressure some", US, Between),
        ("container_pressure_io_full_time", "io.pressure full", US, Between),
    ]
};

/// Those that are computed, and what they may be of a container that is held back by its limit and writes to its disk.
const COMPUTED: [(&str, f64, f64); 4] = [
    // Of 0.3 cores; a period may be used up twice within an interval that begins between two.
    ("container_cpu_usage", 60.0, 115.0),
    ("container_memory_usage", 12.5, 60.0),
    ("container_io_read_rate", 1024.0, 1e9),
    ("container_io_write_rate", 1024.0, 1e9),
];

/// What the kernel said at one moment.
#[derive(Debug)]
struct Round {
    /// When it was begun to be read.
    at: f64,
    values: BTreeMap<String, f64>,
}

/// What was printed there, by section.
struct Printed(BTreeMap<String, Vec<String>>);

impl Printed {
    fn new(text: &str) -> Self {
        let mut sections: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut name = "";
        for line in text.lines().map(|line| line.trim_end_matches('\r')) {
            match line.strip_prefix("== ") {
                Some(begun) => name = begun,
                None => sections.entry(name.to_owned()).or_default().push(line.to_owned()),
            }
        }
        Self(sections)
    }

    fn section(&self, name: &str) -> &[String] {
        self.0.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.0.keys()))
    }

    /// Seconds since the boot at the wall clock's zero.
    fn clock(&self) -> f64 {
        let (wall, up) = self.section("clock")[0].split_once(' ').unwrap();
        up.parse::<f64>().unwrap() - wall.parse::<f64>().unwrap()
    }

    /// What was told of a container, in order.
    fn told(&self, id: &str) -> Vec<Value> {
        let all = self.section("told").iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.filter(|told| told["id"] == id).collect()
    }

    /// When something was done to a container.
    fn done(&self, section: &str, what: &str, id: &str) -> f64 {
        let head = format!("{what} {id} ");
        let line = self.section(section).iter().find_map(|line| line.strip_prefix(&head));
        line.unwrap_or_else(|| panic!("{head}: {:?}", self.section(section))).parse().unwrap()
    }

    /// What a watcher was told, and when it printed that.
    fn watched(&self) -> impl Iterator<Item = (f64, Value)> {
        self.section("watched").iter().map(|line| {
            let (at, line) = line.split_once(' ').unwrap();
            (at.parse().unwrap(), serde_json::from_str(line).unwrap())
        })
    }

    fn rounds(&self, name: &str) -> Vec<Round> {
        let mut rounds: Vec<Round> = Vec::new();
        for line in self.section(name) {
            if let Some(at) = line.strip_prefix("@ ") {
                rounds.push(Round { at: at.parse().unwrap(), values: BTreeMap::new() });
            } else {
                rounds.last_mut().unwrap().take(line);
            }
        }
        rounds
    }
}

impl Round {
    /// A line as `grep` prints it: `FILE:LINE`.
    fn take(&mut self, line: &str) {
        let (file, line) = line.split_once(':').unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        // Of `key=value`: a device's counts, and pressure as a whole.
        for pair in words.iter().filter_map(|word| word.split_once('=')) {
            match (file, pair) {
                ("io.stat", (key, value)) => self.put(format!("{file} {key}"), value),
                (_, ("total", value)) => self.put(format!("{file} {}", words[0]), value),
                _ => {}
            }
        }
        match words[..] {
            [key, value] if key.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                self.put(format!("{file} {key}"), value);
            }
            [value] | [value, _] => self.put(file.to_owned(), value),
            _ => {}
        }
        if let (Some(current), Some(inactive)) =
            (self.values.get("memory.current"), self.values.get("memory.stat inactive_file"))
        {
            self.values.insert("working set".to_owned(), current - inactive);
        }
    }

    fn put(&mut self, name: String, value: &str) {
        if let Ok(value) = value.parse() {
            self.values.insert(name, value);
        }
    }
}

fn of<'a>(told: &'a Value, metric: &str) -> Option<&'a Value> {
    told["values"].as_array().unwrap().iter().find(|v| v["metric"] == metric && v["instance"] == "")
}

fn number(told: &Value, metric: &str) -> Option<f64> {
    of(told, metric)?["value"].as_f64()
}

/// Why a value isn't there.
fn reason(told: &Value, metric: &str) -> String {
    let listed = told["absent"].as_array().unwrap().iter().find(|a| a["metric"] == metric);
    let said = listed.map(|a| &a["reason"]).or_else(|| of(told, metric).map(|v| &v["absent_reason"]));
    said.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Holds what was told of a container against what the kernel said right before and right after that. Gives what was read
/// before the reader was there.
fn compare(told: &Value, rounds: &[Round], clock: f64) -> Vec<&'static str> {
    let mut earlier = Vec::new();
    for (metric, name, unit, compared) in COMPARED {
        let Some(value) = number(told, metric) else {
            panic!("{metric}: {:?}: {told}", reason(told, metric));
        };
        let read_at = of(told, metric).unwrap()["taken_unix_ms"].as_f64().unwrap() / 1000.0 + clock;
        // The one that had ended before: the next one had begun.
        let ended = rounds.partition_point(|round| round.at < read_at - CLOCK_SECONDS);
        let begun = rounds.partition_point(|round| round.at <= read_at + CLOCK_SECONDS + READING_SECONDS);
        assert!(begun < rounds.len(), "{metric}: nothing was read after {read_at}");
        if ended < 2 {
            earlier.push(metric);
            continue;
        }
        let said = rounds[ended - 2..=begun].iter().map(|round| {
            // A group that did no i/o has no device.
            let none = name.starts_with("io.stat").then_some(0.0);
            round.values.get(name).copied().or(none).unwrap_or_else(|| panic!("{name}: {round:?}")) * unit
        });
        let (least, most) =
            said.fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(value), most.max(value)));
        let room = match compared {
            Compared::Near(room) => room,
            Compared::Between => 0.0,
            Compared::Same => {
                assert!((most - least).abs() < f64::EPSILON, "{name} changes: {least} {most}");
                1e-9
            }
        };
        assert!(
            (least - room..=most + room).contains(&value),
            "{metric} at {read_at}: {value}, where the kernel says {least} to {most} in {name}"
        );
    }
    earlier
}

#[test]
fn an_agent_on_cgroup_v2_says_what_the_kernel_says() {
    let given = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system/cgroup2/run");
    fs::copy(script, given.path().join("run")).unwrap();
    for name in ["horcrux-agentd", "horcruxctl"] {
        // What is for a debugger is most of it, and all of it has to go through the emulated machine's memory.
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(given.path().join(name)).arg(program(name).unwrap());
        succeeded(&strip.output().unwrap()).unwrap();
    }
    let printed = Printed::new(&lab::on_cgroup2(given.path()).unwrap());
    println!("{}", printed.section("agentd.log").join("\n"));
    let clock = printed.clock();

    // What works is read in full, and is what the kernel says.
    let web = printed.told(WEB);
    assert_eq!((web.len(), &web[0]["runtime"]), (2, &"docker".into()), "{web:?}");
    let rounds = printed.rounds("read.web");
    let earlier = compare(&web[0], &rounds, clock);
    assert!(earlier.len() < COMPARED.len() / 2, "{earlier:?}");
    assert_eq!(compare(&web[1], &rounds, clock), [""; 0]);
    let network = |name: &str| name.starts_with("container_network_");
    for info in CATALOGUE.iter().filter(|info| info.entity == EntityKind::Container) {
        let (value, reason) = (number(&web[1], info.name), reason(&web[1], info.name));
        if let Some((_, least, most)) = COMPUTED.iter().find(|(name, ..)| *name == info.name) {
            let value = value.unwrap_or_else(|| panic!("{}: {reason}", info.name));
            assert!((*least..=*most).contains(&value), "{}: {value}", info.name);
        } else if network(info.name) {
            assert!(value.map_or(!reason.is_empty(), |value| value >= 0.0), "{}", info.name);
        } else {
            assert!(COMPARED.iter().any(|(name, ..)| *name == info.name), "{} is not compared", info.name);
        }
        if let Some(value) = of(&web[1], info.name) {
            assert!(value["source"] == "cgroup_v2" || network(info.name), "{value}");
        }
    }
    for (metric, least) in [
        ("container_memory_anonymous", 8.0 * 1024.0 * 1024.0),
        ("container_memory_file", 4.0 * 1024.0 * 1024.0),
        ("container_io_written_bytes", 262_144.0),
        ("container_io_read_bytes", 131_072.0),
        ("container_cpu_throttled_time", 1e9),
    ] {
        let value = number(&web[1], metric).unwrap();
        assert!(value >= least, "{metric} of what works so: {value}");
    }

    // What was killed for its memory is counted, and told when it happens.
    let db = &printed.told(DB)[0];
    assert_eq!(db["runtime"], "podman");
    assert_eq!(number(db, "container_memory_oom_kills"), Some(1.0), "{db}");
    assert_eq!(number(db, "container_cpu_limit"), None, "{db}");
    assert_eq!(reason(db, "container_cpu_limit"), "", "no limit is nothing amiss");
    let killed = printed.watched().find(|(_, line)| line["kind"] == "container_oom_killed");
    let (_, killed) = killed.unwrap_or_else(|| panic!("not told: {:?}", printed.section("watched")));
    assert!(killed["resource"].as_str().unwrap().ends_with(DB), "{killed}");

    // Without controllers there is what the kernel keeps of every group, and the reason for all else.
    let bare = &printed.told(BARE)[0];
    assert!(number(bare, "container_cpu_time").is_some(), "{bare}");
    assert!(number(bare, "container_pressure_cpu_some_time").is_some(), "{bare}");
    for (metric, controller) in [
        ("container_cpu_limit", "cpu"),
        ("container_cpu_throttled_time", "cpu"),
        ("container_memory_current", "memory"),
        ("container_memory_working_set", "memory"),
        ("container_memory_oom_kills", "memory"),
        ("container_io_read_bytes", "io"),
        ("container_pids", "pids"),
    ] {
        assert_eq!(number(bare, metric), None, "{metric}");
        let reason = reason(bare, metric);
        assert!(
            reason.starts_with(&format!("the {controller} controller is not enabled")),
            "{metric}: {reason}"
        );
    }
    for told in [&web[1], db, bare] {
        let why = told["name_unknown_reason"].as_str().unwrap();
        assert!(why.starts_with("horcrux-privd is not running: "), "{why}");
    }

    // The node, and why it has no VMs.
    let node: Value = serde_json::from_str(&printed.section("node")[0]).unwrap();
    assert_eq!(node["cgroup_mode"], "v2", "{node}");
    let source = |name: &str| {
        let all = node["sources"].as_array().unwrap();
        let found = all.iter().find(|source| source["source"] == name).unwrap();
        (found["state"].as_str().unwrap().to_owned(), found["detail"].as_str().unwrap().to_owned())
    };
    assert_eq!(source("cgroup_v2"), ("ok".to_owned(), String::new()));
    assert_eq!(source("cgroup_v1"), ("absent".to_owned(), "not mounted".to_owned()));
    let (state, why) = source("libvirt");
    assert!(state == "absent" && why.contains("libvirtd is not running"), "{state}: {why}");
    assert_eq!(printed.section("ended").last().unwrap(), "agent 0");

    // Who watches sees a container soon after it began, and soon that it has gone.
    let soon = |section: &str, what: &str, id: &str, kinds: [&str; 2], event: &str| {
        let done = printed.done(section, what, id);
        let is_it = |line: &Value| line["resource"].as_str().is_some_and(|name| name.ends_with(id));
        let first = |look: &dyn Fn(&Value) -> bool| {
            let found = printed.watched().find(|(_, line)| is_it(line) && look(line));
            found.unwrap_or_else(|| panic!("{what} {id}: not told: {:?}", printed.section("watched")))
        };
        let (at, _) = first(&|line| kinds.iter().any(|kind| line["change"] == *kind));
        let (_, told) = first(&|line| line["kind"] == event);
        let seen = told["at_unix_ms"].as_f64().unwrap() / 1000.0 + clock;
        println!("{what} {id} at {done}: seen at {seen:.2}, printed at {at}");
        assert!(seen - done <= SEEN_WITHIN_SECONDS + CLOCK_SECONDS, "{what} at {done}, seen at {seen}");
        assert!(
            at - done <= SEEN_WITHIN_SECONDS + PRINTED_WITHIN_SECONDS,
            "{what} at {done}, printed at {at}"
        );
    };
    for id in [WEB, DB, BARE] {
        soon("times", "started", id, ["present", "changed"], "container_appeared");
    }
    for id in [WEB, DB] {
        soon("ended", "ended", id, ["gone", "gone"], "container_gone");
    }
}
