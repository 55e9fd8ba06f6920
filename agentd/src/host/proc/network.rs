//! `/proc/net/dev`: every interface, and their sum.
//!
//! The sum is over physical interfaces, those with a device in sysfs: what passes a bridge, a bond or a tap passes them
//! too. Where there is none, as in a network namespace, it is over all but loopback and those that have a master, whose
//! traffic their master counts.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use horcrux_proto::v1::{Metric, Source};

use crate::host::read::{Malformed, numbers};
use crate::host::readings::Readings;

/// Columns after the name: eight received, then eight sent.
const COLUMNS: usize = 16;
/// Two lines of headings.
const HEADINGS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Physical,
    /// Counted where nothing is physical.
    Free,
    /// Loopback, or part of a bridge or bond.
    Uncounted,
}

/// What to show of each, and in what order.
type Counters = [u64; COLUMNS];

#[derive(Debug)]
pub(super) struct Interfaces {
    /// `/sys/class/net`.
    class: PathBuf,
    /// Without sysfs it can't be told which interfaces pass the same packets.
    has_classes: bool,
    known: HashMap<String, (Arc<str>, Class)>,
}

impl Interfaces {
    pub(super) fn new(class: PathBuf) -> Self {
        let has_classes = class.is_dir();
        Self { class, has_classes, known: HashMap::new() }
    }

    /// Has every interface looked up anew: names are used again, and bridges gain and lose members.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.has_classes = self.class.is_dir();
    }

    pub(super) fn read(&mut self, text: &str, readings: &mut Readings) -> Result<(), Malformed> {
        let lines = net_dev(text)?;
        let (mut physical, mut free) = (None, None);
        for (name, columns) in &lines {
            let (instance, class) = self.interface(name);
            emit(readings, &instance, columns);
            let sum: &mut Option<Counters> = match class {
                Class::Physical => &mut physical,
                Class::Free => &mut free,
                Class::Uncounted => continue,
            };
            let sum = sum.get_or_insert([0; COLUMNS]);
            for (sum, column) in sum.iter_mut().zip(columns) {
                *sum = sum.wrapping_add(*column);
            }
        }
        if let Some(sum) = physical.or(free).filter(|_| self.has_classes) {
            emit(readings, &Arc::from(""), &sum);
        }
        Ok(())
    }

    fn interface(&mut self, name: &str) -> (Arc<str>, Class) {
        if let Some((instance, class)) = self.known.get(name) {
            return (Arc::clone(instance), *class);
        }
        let dir = self.class.join(name);
        let class = if dir.join("device").exists() {
            Class::Physical
        } else if name == "lo" || dir.join("master").exists() {
            Class::Uncounted
        } else {
            Class::Free
        };
        let interface = (Arc::from(name), class);
        self.known.insert(name.to_owned(), interface.clone());
        interface
    }
}

fn net_dev(text: &str) -> Result<Vec<(&str, Counters)>, Malformed> {
    let line = |line: &'_ str| -> Result<(usize, Counters), Malformed> {
        // A name may hold a colon, as an alias does; the last one ends it.
        let colon = line.rfind(':').ok_or(Malformed("an interface has no name"))?;
        let columns = numbers(&mut line[colon + 1..].split_ascii_whitespace(), "an interface lacks columns")?;
        Ok((colon, columns))
    };
    let lines = text.lines().skip(HEADINGS);
    lines.map(|text| line(text).map(|(colon, columns)| (text[..colon].trim(), columns))).collect()
}

fn emit(readings: &mut Readings, instance: &Arc<str>, columns: &Counters) {
    let counters = [
        (Metric::NodeNetworkRxBytes, columns[0]),
        (Metric::NodeNetworkRxPackets, columns[1]),
        (Metric::NodeNetworkRxErrors, columns[2]),
        (Metric::NodeNetworkRxDrops, columns[3]),
        (Metric::NodeNetworkTxBytes, columns[8]),
        (Metric::NodeNetworkTxPackets, columns[9]),
        (Metric::NodeNetworkTxErrors, columns[10]),
        (Metric::NodeNetworkTxDrops, columns[11]),
    ];
    for (metric, value) in counters {
        readings.counter(Source::Proc, metric, instance, value);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::sample::{Reading, Value};

    const TEXT: &str = include_str!("../../../testdata/proc/hybrid/net/dev");
    const NAMESPACE: &str = "Inter-|\n face |\n    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n\
        eth0: 100 2 0 0 0 0 0 0 200 3 0 0 0 0 0 0\n vnet0: 7 1 0 0 0 0 0 0 8 1 0 0 0 0 0 0\n\
        virbr0: 5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0\n";

    fn read(text: &str, marks: &[&str]) -> Vec<Reading> {
        let dir = tempfile::tempdir().unwrap();
        for mark in marks {
            fs::create_dir_all(dir.path().join(mark)).unwrap();
        }
        let mut readings = Readings::new(&Arc::from(""), 0);
        Interfaces::new(dir.path().to_path_buf()).read(text, &mut readings).unwrap();
        readings.into_list()
    }

    fn rx_bytes(readings: &[Reading], instance: &str) -> Option<Value> {
        let of = |reading: &&Reading| {
            reading.metric == Metric::NodeNetworkRxBytes && &*reading.instance == instance
        };
        readings.iter().find(of).map(|reading| reading.value)
    }

    #[test]
    fn the_sum_is_over_physical_interfaces() {
        let readings = read(TEXT, &["eth0/device", "ifb0", "lo"]);
        assert!(rx_bytes(&readings, "eth0").is_some());
        assert_eq!(rx_bytes(&readings, ""), rx_bytes(&readings, "eth0"));
        assert!(rx_bytes(&readings, "ifb0").is_some());
    }

    #[test]
    fn a_namespace_without_a_device_counts_a_bridge_and_its_members_once() {
        let readings = read(NAMESPACE, &["eth0", "vnet0/master", "virbr0", "lo"]);
        assert_eq!(rx_bytes(&readings, ""), Some(Value::Counter(105)));
        assert_eq!(rx_bytes(&readings, "vnet0"), Some(Value::Counter(7)));
    }

    #[test]
    fn a_namespace_with_loopback_alone_has_no_sum() {
        let readings = read("a\nb\n    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n", &["lo"]);
        assert_eq!(rx_bytes(&readings, ""), None);
        assert_eq!(rx_bytes(&readings, "lo"), Some(Value::Counter(9)));
    }

    #[test]
    fn sent_and_received_are_not_confused() {
        let readings = read(NAMESPACE, &["eth0/device"]);
        let of =
            |metric| readings.iter().find(|r| r.metric == metric && &*r.instance == "eth0").map(|r| r.value);
        assert_eq!(of(Metric::NodeNetworkTxBytes), Some(Value::Counter(200)));
        assert_eq!(of(Metric::NodeNetworkTxPackets), Some(Value::Counter(3)));
    }

    #[test]
    fn a_line_cut_short_refuses_the_file() {
        assert!(net_dev("a\nb\n eth0: 1 2 3\n").is_err());
        assert!(net_dev("a\nb\n eth0\n").is_err());
    }

    proptest! {
        #[test]
        fn net_dev_never_panics(text in "a\nb\n([a-z]{1,3}:|[0-9]{1,22} |\\n|.){0,60}") {
            let _lines = net_dev(&text);
        }
    }
}
