//! `/proc/net/dev`: every interface, and their sum.
//!
//! The sum is over physical interfaces, those with a device in sysfs: what passes a bridge, a bond or a tap passes them
//! too. Where there is none, as in a network namespace, it is over all but loopback and those that have a master, whose
//! traffic their master counts.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use horcrux_proto::v1::{Metric, NetworkDevice, NetworkDeviceKind as Kind, Source};

use crate::host::read::{Malformed, numbers};
use crate::host::readings::Readings;

use super::device::{carrier, device, has_link};

/// Columns after the name: eight received, then eight sent.
const COLUMNS: usize = 16;
/// Two lines of headings.
const HEADINGS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Physical,
    /// Counted where nothing is physical.
    Free,
    /// Loopback, part of a bridge or bond, or on another.
    Uncounted,
}

/// Of one interface, in the order of the file.
pub(in crate::host) type Counters = [u64; COLUMNS];

#[derive(Debug)]
pub(super) struct Interfaces {
    /// `/sys/class/net`.
    class: PathBuf,
    /// Without sysfs it can't be told which interfaces pass the same packets.
    has_classes: bool,
    known: HashMap<String, Known>,
    /// Devices looked up so far.
    looked: u64,
}

#[derive(Debug)]
struct Known {
    instance: Arc<str>,
    class: Class,
    facts: NetworkDevice,
    /// Whether it has a carrier, where it can have one.
    carrier: Option<f64>,
    /// Times that it needn't be looked up anew.
    spared: u64,
}

/// A device is looked up anew every so many times; those that guests and containers make each at another time: there may be
/// a thousand, and each costs 50 µs.
const SPARED: u64 = 6;
/// Devices that are told of; their values go on.
const MOST_TOLD: usize = 1024;

impl Interfaces {
    pub(super) fn new(class: PathBuf) -> Self {
        let has_classes = class.is_dir();
        Self { class, has_classes, known: HashMap::new(), looked: 0 }
    }

    /// Has interfaces looked up anew: bridges gain and lose members, and links go down.
    pub(super) fn look_again(&mut self) {
        self.known.retain(|_, known| {
            known.spared = known.spared.saturating_sub(1);
            known.spared > 0
        });
        self.has_classes = self.class.is_dir();
    }

    /// What there is, as it was looked up last: first what stays, then what comes and goes with guests.
    pub(super) fn facts(&self) -> Vec<NetworkDevice> {
        let mut all: Vec<&NetworkDevice> = self.known.values().map(|known| &known.facts).collect();
        all.sort_unstable_by_key(|device| (!has_link(device.kind()), &device.name));
        all.into_iter().take(MOST_TOLD).cloned().collect()
    }

    /// Speeds and carriers, of what has a link. Where a carrier came or went, all of it is looked up anew.
    pub(super) fn links(&mut self, readings: &mut Readings) {
        for known in self.known.values_mut().filter(|known| has_link(known.facts.kind())) {
            let carrier = carrier(&self.class, &known.instance);
            if std::mem::replace(&mut known.carrier, carrier) != carrier {
                known.facts = device(&self.class, &known.instance);
                known.class = class(&known.facts);
            }
            let carrier = carrier.map(|carrier| (Metric::NodeNetworkCarrier, carrier));
            let speed = known.facts.speed_bits_per_second.map(|bits| (Metric::NodeNetworkSpeed, bits as f64));
            for (metric, value) in [carrier, speed].into_iter().flatten() {
                readings.gauge(Source::Sysfs, metric, &known.instance, value);
            }
        }
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
        if self.known.len() > lines.len() {
            // Their names may be used again, by others.
            let here: HashSet<&str> = lines.iter().map(|(name, _)| *name).collect();
            self.known.retain(|name, _| here.contains(name.as_str()));
        }
        if let Some(sum) = physical.or(free).filter(|_| self.has_classes) {
            emit(readings, &Arc::from(""), &sum);
        }
        Ok(())
    }

    fn interface(&mut self, name: &str) -> (Arc<str>, Class) {
        if let Some(known) = self.known.get(name) {
            return (Arc::clone(&known.instance), known.class);
        }
        let facts = device(&self.class, name);
        let class = class(&facts);
        let spared = if has_link(facts.kind()) { SPARED } else { 1 + self.looked % SPARED };
        self.looked += 1;
        let instance: Arc<str> = Arc::from(name);
        let carrier = carrier(&self.class, name).filter(|_| has_link(facts.kind()));
        let known = Known { instance: Arc::clone(&instance), class, facts, carrier, spared };
        self.known.insert(name.to_owned(), known);
        (instance, class)
    }
}

fn class(facts: &NetworkDevice) -> Class {
    match facts.kind() {
        Kind::Physical => Class::Physical,
        Kind::Loopback | Kind::Vlan => Class::Uncounted,
        Kind::Unspecified | Kind::Bridge | Kind::Bond | Kind::Tap | Kind::Virtual => {
            if facts.master.is_some() { Class::Uncounted } else { Class::Free }
        }
    }
}

/// The interfaces of `/proc/net/dev`, or of any process's.
pub(in crate::host) fn net_dev(text: &str) -> Result<Vec<(&str, Counters)>, Malformed> {
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
        (Metric::NodeNetworkRxMulticast, columns[7]),
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
    use std::os::unix::fs::symlink;

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
            let path = dir.path().join(mark);
            if mark.ends_with("/master") {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                symlink("../virbr0", path).unwrap();
            } else {
                fs::create_dir_all(path).unwrap();
            }
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
    fn a_link_that_comes_is_looked_up_at_once_and_what_guests_make_by_turns() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["eth0/device", "vnet0", "virbr0/bridge", "lo"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let mut interfaces = Interfaces::new(dir.path().to_path_buf());
        let mut read = |text: &str| {
            let mut readings = Readings::new(&Arc::from(""), 0);
            interfaces.look_again();
            interfaces.read(text, &mut readings).unwrap();
            interfaces.links(&mut readings);
            (interfaces.facts(), readings.into_list())
        };
        read(NAMESPACE);
        fs::write(dir.path().join("eth0/speed"), "1000\n").unwrap();
        fs::write(dir.path().join("eth0/carrier"), "1\n").unwrap();
        symlink("../virbr0", dir.path().join("vnet0/master")).unwrap();
        let (facts, list) = read(NAMESPACE);
        let names: Vec<&str> = facts.iter().map(|device| device.name.as_str()).collect();
        assert_eq!(names, ["eth0", "virbr0", "lo", "vnet0"]);
        assert_eq!(facts[0].speed_bits_per_second, Some(1_000_000_000));
        let of = |metric| list.iter().find(|r| r.metric == metric && &*r.instance == "eth0").map(|r| r.value);
        assert_eq!(of(Metric::NodeNetworkSpeed), Some(Value::Gauge(1e9)));
        assert_eq!(of(Metric::NodeNetworkCarrier), Some(Value::Gauge(1.0)));
        let (facts, _) = (0..SPARED).map(|_| read(NAMESPACE)).last().unwrap();
        assert_eq!(facts[3].master.as_deref(), Some("virbr0"));
        let without: String = NAMESPACE
            .lines()
            .filter(|line| !line.contains("vnet0"))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(read(&without).0.len(), 3, "one that is gone is forgotten");
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
