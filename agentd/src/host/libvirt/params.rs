//! What the parameters of a statistics call mean. Keys and units are those of `virConnectGetAllDomainStats`.

use horcrux_proto::v1::{Metric, VmState};

/// Named values as libvirt gave them.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(String, Param)>);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Param {
    Signed(i64),
    Unsigned(u64),
    Fraction(f64),
    Text(String),
}

/// The counters of one device, in the order that its metrics are listed here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Device<const N: usize> {
    pub(super) name: String,
    /// libvirt leaves out what it can't know.
    pub(super) values: [Option<u64>; N],
}

pub(super) const INTERFACE_METRICS: [Metric; 8] = [
    Metric::VmNetworkRxBytes,
    Metric::VmNetworkRxPackets,
    Metric::VmNetworkRxErrors,
    Metric::VmNetworkRxDrops,
    Metric::VmNetworkTxBytes,
    Metric::VmNetworkTxPackets,
    Metric::VmNetworkTxErrors,
    Metric::VmNetworkTxDrops,
];
pub(super) const INTERFACE_KEYS: [&str; 8] =
    ["rx.bytes", "rx.pkts", "rx.errs", "rx.drop", "tx.bytes", "tx.pkts", "tx.errs", "tx.drop"];

/// All are counters but the last two.
pub(super) const BLOCK_METRICS: [Metric; 10] = [
    Metric::VmDiskReadBytes,
    Metric::VmDiskWrittenBytes,
    Metric::VmDiskReads,
    Metric::VmDiskWrites,
    Metric::VmDiskReadTime,
    Metric::VmDiskWriteTime,
    Metric::VmDiskFlushes,
    Metric::VmDiskFlushTime,
    Metric::VmDiskCapacity,
    Metric::VmDiskAllocation,
];
pub(super) const BLOCK_COUNTERS: usize = 8;
const BLOCK_KEYS: [&str; 10] = [
    "rd.bytes",
    "wr.bytes",
    "rd.reqs",
    "wr.reqs",
    "rd.times",
    "wr.times",
    "fl.reqs",
    "fl.times",
    "capacity",
    "allocation",
];

/// What the guest's balloon driver tells the last four of; `true`: a counter. libvirt has memory in KiB.
pub(super) const BALLOON: [(&str, Metric, bool, u64); 8] = [
    ("balloon.current", Metric::VmMemoryBalloon, false, 1024),
    ("balloon.available", Metric::VmMemoryAvailable, false, 1024),
    ("balloon.usable", Metric::VmMemoryUsable, false, 1024),
    ("balloon.unused", Metric::VmMemoryUnused, false, 1024),
    ("balloon.swap_in", Metric::VmMemorySwappedIn, true, 1024),
    ("balloon.swap_out", Metric::VmMemorySwappedOut, true, 1024),
    ("balloon.major_fault", Metric::VmMemoryMajorFaults, true, 1),
    ("balloon.minor_fault", Metric::VmMemoryMinorFaults, true, 1),
];
/// Devices that a domain is believed to have.
const MOST_DEVICES: u64 = 1024;

impl Params {
    pub(super) fn new(list: Vec<(String, Param)>) -> Self {
        Self(list)
    }

    fn get(&self, key: &str) -> Option<&Param> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Param::Text(text) => Some(text),
            Param::Signed(_) | Param::Unsigned(_) | Param::Fraction(_) => None,
        }
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        match self.get(key)? {
            Param::Unsigned(value) => Some(*value),
            // -1 is how libvirt says that it doesn't know.
            Param::Signed(value) => u64::try_from(*value).ok(),
            Param::Text(_) | Param::Fraction(_) => None,
        }
    }

    pub(super) fn fraction(&self, key: &str) -> Option<f64> {
        match self.get(key)? {
            Param::Fraction(value) => Some(*value),
            Param::Signed(_) | Param::Unsigned(_) | Param::Text(_) => None,
        }
    }

    pub(super) fn state(&self) -> VmState {
        match self.number("state.state") {
            Some(1) => VmState::Running,
            Some(2) => VmState::Blocked,
            Some(3) => VmState::Paused,
            Some(4) => VmState::ShuttingDown,
            Some(5) => VmState::ShutOff,
            Some(6) => VmState::Crashed,
            Some(7) => VmState::PmSuspended,
            _ => VmState::Unspecified,
        }
    }

    pub(super) fn interfaces(&self) -> Vec<Device<8>> {
        self.devices("net", INTERFACE_KEYS)
    }

    pub(super) fn blocks(&self) -> Vec<Device<10>> {
        self.devices("block", BLOCK_KEYS)
    }

    fn devices<const N: usize>(&self, kind: &str, keys: [&str; N]) -> Vec<Device<N>> {
        let count = self.number(&format!("{kind}.count")).unwrap_or(0).min(MOST_DEVICES);
        let device = |at: u64| {
            let prefix = format!("{kind}.{at}.");
            let mut device = Device { name: String::new(), values: [None; N] };
            for (key, value) in self.0.iter().filter_map(|(k, v)| Some((k.strip_prefix(&prefix)?, v))) {
                if let (Param::Text(name), "name") = (value, key) {
                    device.name.clone_from(name);
                } else if let Some(column) = keys.iter().position(|known| *known == key) {
                    device.values[column] = match value {
                        Param::Unsigned(value) => Some(*value),
                        Param::Signed(value) => u64::try_from(*value).ok(),
                        Param::Text(_) | Param::Fraction(_) => None,
                    };
                }
            }
            (!device.name.is_empty()).then_some(device)
        };
        (0..count).filter_map(device).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `virsh domstats` prints it.
    fn params(text: &str) -> Params {
        let line = |line: &str| {
            let (key, value) = line.trim().split_once('=')?;
            let number = value.parse().map(Param::Unsigned).or_else(|_| value.parse().map(Param::Signed));
            Some((key.to_owned(), number.unwrap_or_else(|_| Param::Text(value.to_owned()))))
        };
        Params::new(text.lines().filter_map(line).collect())
    }

    const RUNNING: &str = "state.state=1\nstate.reason=1\nnet.count=1\nnet.0.name=vnet0\nnet.0.rx.bytes=840\n\
        net.0.rx.pkts=12\nnet.0.rx.errs=0\nnet.0.rx.drop=0\nnet.0.tx.bytes=4620\nnet.0.tx.pkts=66\n\
        net.0.tx.errs=0\nnet.0.tx.drop=1\nblock.count=2\nblock.0.name=vda\nblock.0.path=/x.qcow2\n\
        block.0.rd.reqs=3\nblock.0.rd.bytes=12288\nblock.0.allocation=196616\nblock.0.capacity=67108864\n\
        block.1.name=sda\nblock.1.rd.bytes=-1\n";

    #[test]
    fn interfaces_and_disks_are_found_by_number() {
        let params = params(RUNNING);
        assert_eq!(params.state(), VmState::Running);
        let [tap] = params.interfaces().try_into().unwrap();
        assert_eq!(tap.name, "vnet0");
        assert_eq!(tap.values, [840, 12, 0, 0, 4620, 66, 0, 1].map(Some));
        let disks = params.blocks();
        assert_eq!(
            (disks[0].name.as_str(), disks[0].values[0], disks[0].values[2]),
            ("vda", Some(12288), Some(3))
        );
        assert_eq!(disks[0].values[8..], [Some(67_108_864), Some(196_616)]);
        assert_eq!(disks[1].values[0], None, "libvirt said -1: it doesn't know");
    }

    #[test]
    fn a_count_that_is_a_lie_gives_what_is_there() {
        let params = params("block.count=18446744073709551615\nblock.0.name=vda\n");
        assert_eq!(params.blocks().len(), 1);
        assert_eq!(params.blocks()[0].values, [None; 10]);
    }

    #[test]
    fn a_state_that_libvirt_may_get_is_not_taken_for_one_that_it_has() {
        assert_eq!(params("state.state=9").state(), VmState::Unspecified);
        assert_eq!(params("").state(), VmState::Unspecified);
    }
}
