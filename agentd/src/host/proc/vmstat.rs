//! `/proc/vmstat`: paging. Making its 180 lines costs the kernel as much as `/proc/stat`, `/proc/meminfo` and
//! `/proc/loadavg` together, so it is read rarely.

use horcrux_proto::v1::Metric;

use crate::host::read::Malformed;

/// Counters in the units of their metrics. A kernel that doesn't have a line gives no value for it.
pub(super) fn vmstat(text: &str, page_bytes: u64) -> Result<Vec<(Metric, u64)>, Malformed> {
    let mut values = Vec::with_capacity(7);
    for line in text.lines() {
        let Some((key, rest)) = line.split_once(' ') else { continue };
        let (metric, unit) = match key {
            "pgfault" => (Metric::NodePageFaults, 1),
            "pgmajfault" => (Metric::NodeMajorPageFaults, 1),
            "pswpin" => (Metric::NodeSwappedIn, page_bytes),
            "pswpout" => (Metric::NodeSwappedOut, page_bytes),
            // Of block devices the kernel counts in KiB, whatever its pages.
            "pgpgin" => (Metric::NodePagedIn, 1024),
            "pgpgout" => (Metric::NodePagedOut, 1024),
            "oom_kill" => (Metric::NodeOomKills, 1),
            _ => continue,
        };
        let count: u64 = rest.trim().parse().map_err(|_| Malformed("a counter isn't a number"))?;
        values.push((metric, count.saturating_mul(unit)));
    }
    if values.is_empty() { Err(Malformed("no counter of page faults")) } else { Ok(values) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = include_str!("../../../testdata/proc/hybrid/vmstat");

    #[test]
    fn a_real_file_gives_every_counter_and_swapping_in_bytes() {
        let values = vmstat(&TEXT.replace("pswpin 0", "pswpin 3"), 4096).unwrap();
        assert_eq!(values.len(), 7);
        assert!(values.contains(&(Metric::NodeSwappedIn, 3 * 4096)));
        let faults = values.iter().find(|(metric, _)| *metric == Metric::NodePageFaults).unwrap().1;
        assert!(faults > 1_000_000, "{faults}");
    }

    #[test]
    fn a_file_without_counters_is_refused() {
        assert!(vmstat("", 4096).is_err());
        assert!(vmstat("pgfault x\n", 4096).is_err());
    }

    proptest! {
        #[test]
        fn vmstat_never_panics(text in "(pgfault|pswpin|oom_kill|[0-9]{1,22}| |\\n|.){0,60}") {
            let _values = vmstat(&text, 4096);
        }
    }
}
