//! Disks and network devices.
//!
//! Disks are whole ones: no partitions, loop or RAM disks. The sum counts physical disks only (those with
//! /sys/block/NAME/device), so that a device mapper's or RAID's traffic isn't counted twice. The sum of network devices
//! likewise counts physical ones (/sys/class/net/NAME/device); where there is none, as in a network namespace, it counts
//! those that lead out: veth ends that no bridge holds, and bridges are left out where their members are counted.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use horcrux_proto::v1::{Metric, Source};

use super::super::file::{Held, ReadError};
use super::{Gathered, parse};
use crate::sample::Value;

/// What /sys says of a device doesn't change while it has its name; it is looked at again after this many readings all
/// the same, since a name can be given to another.
const LOOK_AGAIN: u32 = 60;

#[derive(Debug)]
pub(super) struct Devices {
    diskstats: Held,
    net_dev: Held,
    sys: PathBuf,
    whole: Arc<str>,
    disks: HashMap<String, Known>,
    networks: HashMap<String, Known>,
    readings: u32,
}

#[derive(Clone, Debug)]
struct Known {
    name: Arc<str>,
    role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Shown, and part of the sum.
    Physical,
    /// Shown, and part of the sum where nothing is physical.
    Outward,
    /// Shown.
    Other,
    /// Not shown: a partition, loop or RAM disk.
    Hidden,
}

/// A sector of /proc/diskstats, whatever the device's own.
const SECTOR: u64 = 512;
const NS_PER_MS: u64 = 1_000_000;

/// Which metric each field of a disk's line is, and in what unit.
const DISK: [(usize, Metric, u64); 8] = [
    (0, Metric::NodeDiskReads, 1),
    (2, Metric::NodeDiskReadBytes, SECTOR),
    (3, Metric::NodeDiskReadTime, NS_PER_MS),
    (4, Metric::NodeDiskWrites, 1),
    (6, Metric::NodeDiskWrittenBytes, SECTOR),
    (7, Metric::NodeDiskWriteTime, NS_PER_MS),
    (9, Metric::NodeDiskBusyTime, NS_PER_MS),
    (10, Metric::NodeDiskQueueTime, NS_PER_MS),
];
const IN_FLIGHT: usize = 8;

const RECEIVED: [Metric; 4] = [
    Metric::NodeNetworkRxBytes,
    Metric::NodeNetworkRxPackets,
    Metric::NodeNetworkRxErrors,
    Metric::NodeNetworkRxDrops,
];
const SENT: [Metric; 4] = [
    Metric::NodeNetworkTxBytes,
    Metric::NodeNetworkTxPackets,
    Metric::NodeNetworkTxErrors,
    Metric::NodeNetworkTxDrops,
];

impl Devices {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            diskstats: Held::new(root.join("proc/diskstats")),
            // Through self: /proc/net is a link to it, of the reader's own network namespace.
            net_dev: Held::new(root.join("proc/self/net/dev")),
            sys: root.join("sys"),
            whole: Arc::from(""),
            disks: HashMap::new(),
            networks: HashMap::new(),
            readings: 0,
        }
    }

    pub(super) fn read(&mut self, out: &mut Gathered) {
        self.readings = self.readings.wrapping_add(1);
        if self.readings.is_multiple_of(LOOK_AGAIN) {
            self.disks.clear();
            self.networks.clear();
        }
        let disks = self.read_disks(out);
        out.part(disks);
        let networks = self.read_networks(out);
        out.part(networks);
    }

    fn read_disks(&mut self, out: &mut Gathered) -> Result<(), ReadError> {
        let mut sums: Option<[u64; DISK.len()]> = None;
        for disk in parse::disks(self.diskstats.read()?) {
            let known = known(&mut self.disks, disk.name, || disk_role(&self.sys, disk.name));
            if known.role == Role::Hidden {
                continue;
            }
            let mut values = [0; DISK.len()];
            for (value, (field, metric, unit)) in values.iter_mut().zip(DISK) {
                *value = disk.fields[field].saturating_mul(unit);
                out.put(metric, &known.name, Value::Counter(*value), Source::Proc);
            }
            let in_flight = Value::Gauge(parse::float(disk.fields[IN_FLIGHT]));
            out.put(Metric::NodeDiskInFlight, &known.name, in_flight, Source::Proc);
            if known.role == Role::Physical {
                add(&mut sums, &values);
            }
        }
        for ((_, metric, _), sum) in DISK.iter().zip(sums.into_iter().flatten()) {
            // Disks are busy at the same time: the sum of their busy times is nobody's share of time.
            if *metric != Metric::NodeDiskBusyTime {
                out.put(*metric, &self.whole, Value::Counter(sum), Source::Proc);
            }
        }
        Ok(())
    }

    fn read_networks(&mut self, out: &mut Gathered) -> Result<(), ReadError> {
        let (mut physical, mut outward) = (None, None);
        for network in parse::networks(self.net_dev.read()?) {
            let known = known(&mut self.networks, network.name, || network_role(&self.sys, network.name));
            let metrics = RECEIVED.iter().chain(&SENT);
            for (metric, value) in metrics.zip(network.received.iter().chain(&network.sent)) {
                out.put(*metric, &known.name, Value::Counter(*value), Source::Proc);
            }
            let mut all = [0; 8];
            all[..4].copy_from_slice(&network.received);
            all[4..].copy_from_slice(&network.sent);
            match known.role {
                Role::Physical => add(&mut physical, &all),
                Role::Outward => add(&mut outward, &all),
                Role::Other | Role::Hidden => {}
            }
        }
        let sums = physical.or(outward);
        for (metric, sum) in RECEIVED.iter().chain(&SENT).zip(sums.into_iter().flatten()) {
            out.put(*metric, &self.whole, Value::Counter(sum), Source::Proc);
        }
        Ok(())
    }
}

fn known<'a>(all: &'a mut HashMap<String, Known>, name: &str, role: impl FnOnce() -> Role) -> &'a Known {
    if !all.contains_key(name) {
        all.insert(name.to_owned(), Known { name: name.into(), role: role() });
    }
    &all[name]
}

fn add<const N: usize>(sums: &mut Option<[u64; N]>, values: &[u64; N]) {
    let sums = sums.get_or_insert([0; N]);
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = sum.saturating_add(*value);
    }
}

fn disk_role(sys: &Path, name: &str) -> Role {
    // The kernel writes a slash in a device's name as an exclamation mark.
    let dir = sys.join("block").join(name.replace('/', "!"));
    if !dir.exists() || ["loop", "ram", "zram", "fd", "sr"].iter().any(|p| name.starts_with(p)) {
        Role::Hidden
    } else if dir.join("device").exists() {
        Role::Physical
    } else {
        Role::Other
    }
}

fn network_role(sys: &Path, name: &str) -> Role {
    let dir = sys.join("class/net").join(name);
    let is_virtual_end = name == "lo" || dir.join("bridge").exists() || dir.join("tun_flags").exists();
    if dir.join("device").exists() {
        Role::Physical
    } else if is_virtual_end || ["ifb", "dummy", "sit", "gre", "teql"].iter().any(|p| name.starts_with(p)) {
        Role::Other
    } else {
        Role::Outward
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sample::Reading;

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let dir = |path: &str| fs::create_dir_all(root.path().join(path)).unwrap();
        dir("proc/self/net");
        for path in ["sys/block/vda/device", "sys/block/dm-0", "sys/block/loop0", "sys/class/net/eth0/device"]
        {
            dir(path);
        }
        dir("sys/class/net/veth1");
        let disks = "254 0 vda 10 0 20 1 5 0 8 2 0 3 4\n254 1 vda1 9 0 9 9 9 9 9 9 9 9 9\n\
                     253 0 dm-0 7 0 14 1 5 0 8 2 0 3 4\n7 0 loop0 1 0 1 1 1 1 1 1 1 1 1\n";
        fs::write(root.path().join("proc/diskstats"), disks).unwrap();
        let nets = "Inter-|\n face |bytes\n  eth0: 100 2 0 0 0 0 0 0 50 1 0 0 0 0 0 0\n\
                    veth1: 7 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n";
        fs::write(root.path().join("proc/self/net/dev"), nets).unwrap();
        root
    }

    fn read(root: &Path) -> Vec<Reading> {
        let mut out = Gathered { readings: Vec::new(), problems: Vec::new() };
        Devices::new(root).read(&mut out);
        assert_eq!(out.problems, Vec::<String>::new());
        out.readings
    }

    fn value(readings: &[Reading], metric: Metric, instance: &str) -> Option<Value> {
        readings.iter().find(|r| r.metric == metric && &*r.instance == instance).map(|r| r.value)
    }

    #[test]
    fn the_sum_counts_physical_devices_once() {
        let root = root();
        let readings = read(root.path());
        assert_eq!(value(&readings, Metric::NodeDiskReadBytes, ""), Some(Value::Counter(20 * 512)));
        assert_eq!(value(&readings, Metric::NodeDiskReadBytes, "dm-0"), Some(Value::Counter(14 * 512)));
        assert_eq!(value(&readings, Metric::NodeDiskReadBytes, "vda1"), None);
        assert_eq!(value(&readings, Metric::NodeDiskReadBytes, "loop0"), None);
        assert_eq!(value(&readings, Metric::NodeNetworkRxBytes, ""), Some(Value::Counter(100)));
    }

    #[test]
    fn without_a_physical_network_device_those_that_lead_out_are_summed() {
        let root = root();
        fs::remove_dir(root.path().join("sys/class/net/eth0/device")).unwrap();
        let readings = read(root.path());
        assert_eq!(value(&readings, Metric::NodeNetworkRxBytes, ""), Some(Value::Counter(107)));
    }
}
