//! `/sys/devices/system/node`: what each NUMA node has.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use horcrux_proto::v1::{Metric, Source};

use crate::host::read::{Malformed, ReadError, read_text};
use crate::host::readings::Readings;

#[derive(Debug)]
pub(super) struct Numa {
    /// `/sys/devices/system/node`.
    dir: PathBuf,
}

/// Linux has at most 1024 (arch/x86/Kconfig, `NODES_SHIFT`).
const MOST_NODES: usize = 1024;

impl Numa {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// A kernel without NUMA has no values here; gives what could not be read.
    pub(super) fn read(&self, readings: &mut Readings) -> Vec<ReadError> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let number = |entry: &fs::DirEntry| -> Option<u32> {
            entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()
        };
        let mut nodes: Vec<u32> = entries.filter_map(|entry| number(&entry)).take(MOST_NODES).collect();
        nodes.sort_unstable();
        nodes.into_iter().filter_map(|node| self.node(node, readings).err()).collect()
    }

    fn node(&self, node: u32, readings: &mut Readings) -> Result<(), ReadError> {
        let dir = self.dir.join(format!("node{node}"));
        let instance: Arc<str> = Arc::from(node.to_string());
        let memory: [u64; 2] = parse(&dir.join("meminfo"), memory)?;
        for (metric, bytes) in
            [Metric::NodeNumaMemoryTotal, Metric::NodeNumaMemoryFree].into_iter().zip(memory)
        {
            readings.gauge(Source::Sysfs, metric, &instance, bytes as f64);
        }
        let cpus = parse(&dir.join("cpulist"), listed)?;
        readings.gauge(Source::Sysfs, Metric::NodeNumaCpus, &instance, f64::from(cpus));
        Ok(())
    }
}

fn parse<T>(path: &Path, parse: fn(&str) -> Result<T, Malformed>) -> Result<T, ReadError> {
    let text = read_text(path)?;
    parse(&text).map_err(|Malformed(what)| ReadError::Malformed { path: path.to_path_buf(), what })
}

/// `Node 0 MemTotal:       22243544 kB`: total and free, in bytes.
fn memory(text: &str) -> Result<[u64; 2], Malformed> {
    let value = |wanted: &str| {
        let line = text.lines().find_map(|line| line.split_once(wanted).map(|(_, rest)| rest))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let bytes = |wanted| value(wanted).map(|kibibytes| kibibytes.saturating_mul(1024));
    bytes(" MemTotal:").zip(bytes(" MemFree:")).map(Into::into).ok_or(Malformed("no MemTotal or MemFree"))
}

/// How many numbers a list such as `0-3,8` has; one of a node of memory alone is empty.
fn listed(text: &str) -> Result<u32, Malformed> {
    let wrong = Malformed("not a list of numbers");
    let mut count: u32 = 0;
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().map_err(|_| wrong)?, last.parse().map_err(|_| wrong)?);
        let length = last.checked_sub(first).and_then(|more| more.checked_add(1)).ok_or(wrong)?;
        count = count.checked_add(length).ok_or(wrong)?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(root: &Path, name: &str, total_kib: u64, cpus: &str) {
        let dir = root.join(name);
        fs::create_dir(&dir).unwrap();
        let meminfo =
            format!("Node 0 MemTotal:   {total_kib} kB\nNode 0 MemFree:   7 kB\nNode 0 MemUsed:  1 kB\n");
        fs::write(dir.join("meminfo"), meminfo).unwrap();
        fs::write(dir.join("cpulist"), format!("{cpus}\n")).unwrap();
    }

    #[test]
    fn every_node_has_its_memory_and_cpus() {
        let dir = tempfile::tempdir().unwrap();
        node(dir.path(), "node0", 100, "0-3,8");
        node(dir.path(), "node10", 200, "");
        fs::create_dir(dir.path().join("power")).unwrap();
        let mut readings = Readings::new(&Arc::from(""), 0);
        assert!(Numa::new(dir.path().to_path_buf()).read(&mut readings).is_empty());
        let list = readings.into_list();
        let value = |metric, node: &str| {
            list.iter().find(|r| r.metric == metric && &*r.instance == node).map(|r| r.value)
        };
        use crate::sample::Value::Gauge;
        assert_eq!(value(Metric::NodeNumaMemoryTotal, "0"), Some(Gauge(102_400.0)));
        assert_eq!(value(Metric::NodeNumaMemoryFree, "0"), Some(Gauge(7168.0)));
        assert_eq!(value(Metric::NodeNumaCpus, "0"), Some(Gauge(5.0)));
        assert_eq!(value(Metric::NodeNumaCpus, "10"), Some(Gauge(0.0)), "it has memory alone");
    }

    #[test]
    fn a_node_that_cannot_be_read_is_named_and_costs_itself_only() {
        let dir = tempfile::tempdir().unwrap();
        node(dir.path(), "node0", 100, "0");
        fs::create_dir(dir.path().join("node1")).unwrap();
        let mut readings = Readings::new(&Arc::from(""), 0);
        let problems = Numa::new(dir.path().to_path_buf()).read(&mut readings);
        assert_eq!((problems.len(), readings.len()), (1, 3));
    }

    #[test]
    fn lists_that_are_none_are_refused() {
        for text in ["x", "3-1", "0-4294967295", "1-", "0-4294967294,0-4294967294"] {
            assert!(listed(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "( MemTotal:| MemFree:| kB|[0-9]{1,22}|-|,|\\n|.){0,40}") {
            let _memory = memory(&text);
            let _listed = listed(&text);
        }
    }
}
