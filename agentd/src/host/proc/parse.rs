//! Kernel text as values. Pure; what doesn't fit gives `None` or is left out, and never panics.

use horcrux_proto::v1::Metric;

pub(super) use horcrux_proto::rates::float;

/// The columns of a `cpu` line of /proc/stat, in their order (proc(5), Linux 2.6.33 and later).
pub(super) const CPU_MODES: [Metric; 10] = [
    Metric::NodeCpuUserTime,
    Metric::NodeCpuNiceTime,
    Metric::NodeCpuSystemTime,
    Metric::NodeCpuIdleTime,
    Metric::NodeCpuIowaitTime,
    Metric::NodeCpuIrqTime,
    Metric::NodeCpuSoftirqTime,
    Metric::NodeCpuStealTime,
    Metric::NodeCpuGuestTime,
    Metric::NodeCpuGuestNiceTime,
];

/// A core's number is bounded so that a malformed line can't ask for memory.
const MAX_CORES: usize = 1 << 16;

/// /proc/stat.
#[derive(Debug, PartialEq)]
pub(super) struct Stat {
    /// Ticks by mode; `None` is all cores together.
    pub(super) cpus: Vec<(Option<usize>, [u64; CPU_MODES.len()])>,
    pub(super) processes_running: Option<u64>,
    pub(super) processes_blocked: Option<u64>,
    pub(super) boot_unix_seconds: Option<i64>,
}

/// One line of a pressure file.
#[derive(Debug, PartialEq)]
pub(super) struct Pressure {
    pub(super) total_us: u64,
    pub(super) avg10: f64,
}

/// One line of /proc/diskstats.
#[derive(Debug, PartialEq)]
pub(super) struct Disk<'a> {
    pub(super) name: &'a str,
    /// From `reads completed` on, in the kernel's order.
    pub(super) fields: [u64; 11],
}

/// One line of /proc/net/dev: receive bytes, packets, errors, drops, and the same for transmit.
#[derive(Debug, PartialEq)]
pub(super) struct Network<'a> {
    pub(super) name: &'a str,
    pub(super) received: [u64; 4],
    pub(super) sent: [u64; 4],
}

pub(super) fn stat(text: &str) -> Option<Stat> {
    let mut stat =
        Stat { cpus: Vec::new(), processes_running: None, processes_blocked: None, boot_unix_seconds: None };
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(key) = words.next() else { continue };
        if let Some(core) = key.strip_prefix("cpu") {
            let core = match core {
                "" => None,
                number => Some(number.parse().ok().filter(|&n: &usize| n < MAX_CORES)?),
            };
            stat.cpus.push((core, numbers(&mut words)?));
        } else {
            let number = || line.split_ascii_whitespace().nth(1);
            match key {
                "procs_running" => stat.processes_running = number().and_then(|n| n.parse().ok()),
                "procs_blocked" => stat.processes_blocked = number().and_then(|n| n.parse().ok()),
                "btime" => stat.boot_unix_seconds = number().and_then(|n| n.parse().ok()),
                _ => {}
            }
        }
    }
    stat.cpus.first().is_some_and(|(core, _)| core.is_none()).then_some(stat)
}

/// The sizes that are in the catalogue, in bytes.
pub(super) fn meminfo(text: &str) -> Vec<(Metric, u64)> {
    let (mut huge_total, mut huge_free, mut huge_size) = (None, None, None);
    let mut values = Vec::with_capacity(12);
    for line in text.lines() {
        let Some((key, rest)) = line.split_once(':') else { continue };
        let Some(number) = rest.split_ascii_whitespace().next().and_then(|n| n.parse::<u64>().ok()) else {
            continue;
        };
        let metric = match key {
            "MemTotal" => Metric::NodeMemoryTotal,
            "MemAvailable" => Metric::NodeMemoryAvailable,
            "MemFree" => Metric::NodeMemoryFree,
            "Cached" => Metric::NodeMemoryCached,
            "Buffers" => Metric::NodeMemoryBuffers,
            "Slab" => Metric::NodeMemorySlab,
            "Shmem" => Metric::NodeMemoryShared,
            "SwapTotal" => Metric::NodeSwapTotal,
            "SwapFree" => Metric::NodeSwapFree,
            "HugePages_Total" => {
                huge_total = Some(number);
                continue;
            }
            "HugePages_Free" => {
                huge_free = Some(number);
                continue;
            }
            "Hugepagesize" => {
                huge_size = Some(number);
                continue;
            }
            _ => continue,
        };
        values.push((metric, number.saturating_mul(1024)));
    }
    // Counted in pages; the size of a page is in KiB.
    if let Some(size) = huge_size {
        let bytes = |pages: u64| pages.saturating_mul(size).saturating_mul(1024);
        values.extend(huge_total.map(|pages| (Metric::NodeMemoryHugepagesTotal, bytes(pages))));
        values.extend(huge_free.map(|pages| (Metric::NodeMemoryHugepagesFree, bytes(pages))));
    }
    values
}

pub(super) fn loadavg(text: &str) -> Option<[f64; 3]> {
    let mut words = text.split_ascii_whitespace();
    let mut next = || finite(words.next()?);
    Some([next()?, next()?, next()?])
}

pub(super) fn first_float(text: &str) -> Option<f64> {
    finite(text.split_ascii_whitespace().next()?)
}

pub(super) fn pressure(text: &str, line: &str) -> Option<Pressure> {
    let fields = text.lines().find_map(|l| l.strip_prefix(line))?;
    let field = |name: &str| fields.split_ascii_whitespace().find_map(|f| f.strip_prefix(name));
    Some(Pressure { total_us: field("total=")?.parse().ok()?, avg10: finite(field("avg10=")?)? })
}

pub(super) fn disks(text: &str) -> impl Iterator<Item = Disk<'_>> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(2);
        Some(Disk { name: words.next()?, fields: numbers(&mut words)? })
    })
}

pub(super) fn networks(text: &str) -> impl Iterator<Item = Network<'_>> {
    text.lines().filter_map(|line| {
        let (name, rest) = line.rsplit_once(':')?;
        let all: [u64; 16] = numbers(&mut rest.split_ascii_whitespace())?;
        let four = |from: usize| [all[from], all[from + 1], all[from + 2], all[from + 3]];
        Some(Network { name: name.trim(), received: four(0), sent: four(8) })
    })
}

/// `PRETTY_NAME` of os-release.
pub(super) fn os_name(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

pub(super) fn cpu_model(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(value.split_once(':')?.1.trim().to_owned())
}

fn numbers<'a, const N: usize>(words: &mut impl Iterator<Item = &'a str>) -> Option<[u64; N]> {
    let mut out = [0; N];
    for number in &mut out {
        *number = words.next()?.parse().ok()?;
    }
    Some(out)
}

fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAT: &str = include_str!("../../../testdata/proc/stat");
    const MEMINFO: &str = include_str!("../../../testdata/proc/meminfo");
    const DISKSTATS: &str = include_str!("../../../testdata/proc/diskstats");
    const NET_DEV: &str = include_str!("../../../testdata/proc/net_dev");

    #[test]
    fn stat_has_all_cores_together_first() {
        let stat = stat(STAT).unwrap();
        assert_eq!(stat.cpus.len(), 3);
        assert_eq!(stat.cpus[0].0, None);
        assert_eq!(stat.cpus[2].0, Some(1));
        assert!(stat.boot_unix_seconds.is_some() && stat.processes_running.is_some());
    }

    #[test]
    fn a_truncated_stat_is_refused() {
        assert_eq!(stat("cpu 1 2 3"), None);
        assert_eq!(stat(""), None);
        assert_eq!(stat("cpu0 1 2 3 4 5 6 7 8 9 10"), None);
    }

    #[test]
    fn meminfo_is_in_bytes() {
        let values = meminfo(MEMINFO);
        let total = values.iter().find(|(m, _)| *m == Metric::NodeMemoryTotal).unwrap().1;
        assert_eq!(total % 1024, 0);
        assert!(total > 1 << 30);
        assert_eq!(meminfo("HugePages_Total: 2\nHugepagesize: 2048 kB")[0].1, 2 * 2048 * 1024);
    }

    #[test]
    fn disks_and_networks_are_read_by_column() {
        let vda = disks(DISKSTATS).find(|d| d.name == "vda").unwrap();
        assert!(vda.fields[0] > 0 && vda.fields[2] > vda.fields[0], "reads, then sectors read");
        let eth0 = networks(NET_DEV).find(|n| n.name == "eth0").unwrap();
        assert!(eth0.received[0] > eth0.received[1], "bytes, then packets");
        assert!(eth0.sent[0] > eth0.sent[1]);
    }

    #[test]
    fn pressure_is_found_by_line() {
        let text =
            "some avg10=1.50 avg60=0.5 avg300=0.1 total=123\nfull avg10=0.00 avg60=0 avg300=0 total=7\n";
        assert_eq!(pressure(text, "some"), Some(Pressure { total_us: 123, avg10: 1.5 }));
        assert_eq!(pressure(text, "full").unwrap().total_us, 7);
        assert_eq!(pressure("some total=", "some"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "[a-z0-9 :=.\n-]{0,300}") {
            stat(&text);
            meminfo(&text);
            loadavg(&text);
            pressure(&text, "some");
            disks(&text).count();
            networks(&text).count();
            os_name(&text);
            cpu_model(&text);
        }
    }
}
