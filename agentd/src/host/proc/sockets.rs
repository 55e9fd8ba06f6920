//! Files and sockets of the whole host: `/proc/sys/fs/file-nr`, and of `/proc/net` `sockstat`, `snmp` and `netstat`.

use std::path::Path;

use horcrux_proto::v1::{Metric, Source};

use crate::host::read::{Buffer, Keep, KeptFile, Malformed, ReadError, Shape, numbers};
use crate::host::readings::Readings;

use super::Problems;

/// Reads them.
#[derive(Debug)]
pub(super) struct Sockets {
    files: KeptFile,
    sockstat: KeptFile,
    /// Each in pairs of lines.
    protocols: [KeptFile; 2],
    page_bytes: u64,
}

/// Where a value of `sockstat` is, and whether it is in pages.
const SOCKSTAT: [(&str, &str, Metric, Unit); 8] = [
    ("sockets", "used", Metric::NodeSocketsUsed, Unit::One),
    ("TCP", "inuse", Metric::NodeTcpInUse, Unit::One),
    ("TCP", "orphan", Metric::NodeTcpOrphans, Unit::One),
    ("TCP", "tw", Metric::NodeTcpTimeWait, Unit::One),
    ("TCP", "alloc", Metric::NodeTcpAllocated, Unit::One),
    ("TCP", "mem", Metric::NodeTcpMemory, Unit::Page),
    ("UDP", "inuse", Metric::NodeUdpInUse, Unit::One),
    ("UDP", "mem", Metric::NodeUdpMemory, Unit::Page),
];

const PROTOCOLS: [(&str, &str, Metric); 12] = [
    ("Tcp", "CurrEstab", Metric::NodeTcpEstablished),
    ("Tcp", "ActiveOpens", Metric::NodeTcpActiveOpens),
    ("Tcp", "PassiveOpens", Metric::NodeTcpPassiveOpens),
    ("Tcp", "InSegs", Metric::NodeTcpSegmentsReceived),
    ("Tcp", "OutSegs", Metric::NodeTcpSegmentsSent),
    ("Tcp", "RetransSegs", Metric::NodeTcpSegmentsRetransmitted),
    ("Udp", "InDatagrams", Metric::NodeUdpDatagramsReceived),
    ("Udp", "OutDatagrams", Metric::NodeUdpDatagramsSent),
    ("Udp", "InErrors", Metric::NodeUdpReceiveErrors),
    ("Udp", "NoPorts", Metric::NodeUdpNoPort),
    ("TcpExt", "ListenOverflows", Metric::NodeTcpListenOverflows),
    ("TcpExt", "ListenDrops", Metric::NodeTcpListenDrops),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    One,
    Page,
}

impl Sockets {
    pub(super) fn new(proc: &Path, page_bytes: u64) -> Self {
        let file = |name: &str| KeptFile::new(proc.join(name), Shape::Records, Keep::Open);
        Self {
            files: KeptFile::new(proc.join("sys/fs/file-nr"), Shape::Whole, Keep::Open),
            sockstat: file("net/sockstat"),
            protocols: ["net/snmp", "net/netstat"].map(file),
            page_bytes,
        }
    }

    pub(super) fn read(&mut self, buffer: &mut Buffer, readings: &mut Readings, problems: &mut Problems) {
        if let Some([open, _, most]) = offered(self.files.parse(buffer, file_nr), problems) {
            readings.whole_gauge(Source::Proc, Metric::NodeFilesOpen, open as f64);
            readings.whole_gauge(Source::Proc, Metric::NodeFilesMax, most as f64);
        }
        let page_bytes = self.page_bytes;
        for (metric, value) in
            offered(self.sockstat.parse(buffer, |t| sockstat(t, page_bytes)), problems).into_iter().flatten()
        {
            readings.whole_gauge(Source::Proc, metric, value as f64);
        }
        for file in &mut self.protocols {
            for (metric, value) in offered(file.parse(buffer, protocols), problems).into_iter().flatten() {
                if metric == Metric::NodeTcpEstablished {
                    readings.whole_gauge(Source::Proc, metric, value as f64);
                } else {
                    readings.whole_counter(Source::Proc, metric, value);
                }
            }
        }
    }
}

/// A kernel without a network lacks nothing.
fn offered<T>(read: Result<T, ReadError>, problems: &mut Problems) -> Option<T> {
    match read {
        Err(error) if error.is_gone() => None,
        read => problems.keep(read),
    }
}

/// Given out, free of those, and at most.
fn file_nr(text: &str) -> Result<[u64; 3], Malformed> {
    numbers(&mut text.split_ascii_whitespace(), "too few numbers")
}

/// `TCP: inuse 1 orphan 0`. A kernel that doesn't have a value gives none for it.
fn sockstat(text: &str, page_bytes: u64) -> Result<Vec<(Metric, u64)>, Malformed> {
    let mut values = Vec::with_capacity(SOCKSTAT.len());
    for line in text.lines() {
        let (of, rest) = line.split_once(':').ok_or(Malformed("a line has no name"))?;
        let mut fields = rest.split_ascii_whitespace();
        while let Some(key) = fields.next() {
            let value = fields.next().ok_or(Malformed("a name has no value"))?;
            let wanted = SOCKSTAT.iter().find(|(name, field, ..)| *name == of && *field == key);
            let Some((.., metric, unit)) = wanted else { continue };
            // What is freed on another core than it was taken on may make a sum negative for a moment.
            let value =
                value.parse::<i64>().map_err(|_| Malformed("a value isn't a number"))?.max(0).unsigned_abs();
            values
                .push((*metric, if *unit == Unit::Page { value.saturating_mul(page_bytes) } else { value }));
        }
    }
    Ok(values)
}

/// Pairs of lines: `Tcp: InSegs OutSegs`, `Tcp: 5 6`. A kernel that doesn't have a value gives none for it.
fn protocols(text: &str) -> Result<Vec<(Metric, u64)>, Malformed> {
    let mut values = Vec::with_capacity(PROTOCOLS.len());
    let mut lines = text.lines();
    while let Some(head) = lines.next() {
        let (of, names) = head.split_once(':').ok_or(Malformed("a line has no name"))?;
        let row = lines.next().and_then(|line| line.split_once(':')).filter(|(name, _)| *name == of);
        let (_, row) = row.ok_or(Malformed("a line of names has no values"))?;
        let mut row = row.split_ascii_whitespace();
        for key in names.split_ascii_whitespace() {
            let value = row.next().ok_or(Malformed("a name has no value"))?;
            if let Some((.., metric)) = PROTOCOLS.iter().find(|(name, field, _)| *name == of && *field == key)
            {
                values.push((*metric, value.parse().map_err(|_| Malformed("a value isn't a number"))?));
            }
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SOCKSTAT_TEXT: &str = include_str!("../../../testdata/proc/hybrid/net/sockstat");
    const SNMP: &str = include_str!("../../../testdata/proc/hybrid/net/snmp");
    const NETSTAT: &str = include_str!("../../../testdata/proc/hybrid/net/netstat");

    #[test]
    fn real_files_give_every_value_and_memory_in_bytes() {
        let values = sockstat(&SOCKSTAT_TEXT.replace("alloc 1 mem 0", "alloc 1 mem 3"), 4096).unwrap();
        assert_eq!(values.len(), SOCKSTAT.len());
        assert!(values.contains(&(Metric::NodeTcpMemory, 3 * 4096)), "{values:?}");
        let (snmp, netstat) = (protocols(SNMP).unwrap(), protocols(NETSTAT).unwrap());
        assert_eq!(snmp.len() + netstat.len(), PROTOCOLS.len());
        assert!(
            snmp.iter().any(|(metric, value)| *metric == Metric::NodeTcpSegmentsReceived && *value > 1000)
        );
        assert_eq!(file_nr("1299\t0\t2466183\n"), Ok([1299, 0, 2_466_183]));
    }

    #[test]
    fn what_is_negative_for_a_moment_is_nothing_and_what_is_no_number_is_refused() {
        assert_eq!(sockstat("UDP: inuse 1 mem -1\n", 4096).unwrap()[1], (Metric::NodeUdpMemory, 0));
        assert!(sockstat("TCP: inuse x\n", 4096).is_err() && sockstat("TCP: inuse\n", 4096).is_err());
        assert!(
            protocols("Tcp: InSegs\nUdp: 1\n").is_err()
                && protocols("Tcp: InSegs OutSegs\nTcp: 1\n").is_err()
        );
    }

    proptest! {
        #[test]
        fn parsers_never_panic(text in "((Tcp|TCP|sockets): |InSegs|inuse|mem|-?[0-9]{1,22}| |\\n|.){0,40}") {
            let _values = (sockstat(&text, 4096), protocols(&text), file_nr(&text));
        }
    }
}
