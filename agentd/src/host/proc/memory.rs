//! `/proc/meminfo`.

use horcrux_proto::v1::Metric;

use crate::host::read::Malformed;

/// What `/proc/meminfo` says, in bytes. A kernel that doesn't have a line gives no value for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) total: u64,
    pub(super) values: Vec<(Metric, u64)>,
    /// What needn't be told each time.
    pub(super) rarely: Vec<(Metric, u64)>,
    /// Pages of the default size, which are all that the kernel lists here: set aside, and in no use.
    pub(super) huge_pages: [Option<u64>; 2],
}

pub(super) fn memory(text: &str) -> Result<Memory, Malformed> {
    let mut total = None;
    let mut values = Vec::with_capacity(METRICS);
    let mut rarely = Vec::with_capacity(RARE_METRICS);
    let (mut huge_total, mut huge_free, mut huge_size) = (None, None, None);
    for line in text.lines() {
        let Some((key, rest)) = line.split_once(':') else { continue };
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
            "Dirty" => Metric::NodeMemoryDirty,
            "Writeback" => Metric::NodeMemoryWriteback,
            "Active" => {
                rarely.push((Metric::NodeMemoryActive, bytes(rest)?));
                continue;
            }
            "Inactive" => {
                rarely.push((Metric::NodeMemoryInactive, bytes(rest)?));
                continue;
            }
            "PageTables" => {
                rarely.push((Metric::NodeMemoryPageTables, bytes(rest)?));
                continue;
            }
            "CommitLimit" => {
                rarely.push((Metric::NodeMemoryCommitLimit, bytes(rest)?));
                continue;
            }
            "Committed_AS" => {
                rarely.push((Metric::NodeMemoryCommitted, bytes(rest)?));
                continue;
            }
            "SReclaimable" => {
                rarely.push((Metric::NodeMemorySlabReclaimable, bytes(rest)?));
                continue;
            }
            "SUnreclaim" => {
                rarely.push((Metric::NodeMemorySlabUnreclaimable, bytes(rest)?));
                continue;
            }
            "AnonPages" => {
                rarely.push((Metric::NodeMemoryAnonymous, bytes(rest)?));
                continue;
            }
            "Mapped" => {
                rarely.push((Metric::NodeMemoryMapped, bytes(rest)?));
                continue;
            }
            "SwapCached" => {
                rarely.push((Metric::NodeSwapCached, bytes(rest)?));
                continue;
            }
            "HugePages_Total" => {
                huge_total = rest.trim().parse::<u64>().ok();
                continue;
            }
            "HugePages_Free" => {
                huge_free = rest.trim().parse::<u64>().ok();
                continue;
            }
            "Hugepagesize" => {
                huge_size = Some(bytes(rest)?);
                continue;
            }
            _ => continue,
        };
        let value = bytes(rest)?;
        if metric == Metric::NodeMemoryTotal {
            total = Some(value);
        }
        values.push((metric, value));
    }
    let huge_pages = [huge_total, huge_free]
        .map(|pages| pages.zip(huge_size).map(|(pages, size)| pages.saturating_mul(size)));
    Ok(Memory { total: total.ok_or(Malformed("no MemTotal"))?, values, rarely, huge_pages })
}

/// How many metrics come from here.
const METRICS: usize = 11;
const RARE_METRICS: usize = 10;

/// The kernel writes `kB` and means 1024 bytes.
fn bytes(field: &str) -> Result<u64, Malformed> {
    let kibibytes = field.trim().strip_suffix(" kB").and_then(|number| number.parse::<u64>().ok());
    kibibytes.map(|number| number.saturating_mul(1024)).ok_or(Malformed("a value isn't a number of kB"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = include_str!("../../../testdata/proc/hybrid/meminfo");

    fn value(memory: &Memory, metric: Metric) -> Option<u64> {
        memory.values.iter().find(|(of, _)| *of == metric).map(|(_, value)| *value)
    }

    #[test]
    fn a_real_file_gives_every_metric_in_bytes() {
        let memory = memory(TEXT).unwrap();
        assert_eq!(memory.total, 24_684_096 * 1024);
        assert_eq!(value(&memory, Metric::NodeMemoryTotal), Some(memory.total));
        assert_eq!(value(&memory, Metric::NodeSwapTotal), Some(0));
        assert_eq!((memory.values.len(), memory.rarely.len()), (METRICS, RARE_METRICS));
    }

    #[test]
    fn huge_pages_are_counted_in_bytes() {
        let text = "MemTotal: 1 kB\nHugePages_Total:      4\nHugePages_Free:  1\nHugepagesize:  2048 kB\n";
        let memory = memory(text).unwrap();
        assert_eq!(memory.huge_pages, [Some(8 << 20), Some(2 << 20)]);
    }

    #[test]
    fn what_the_kernel_does_not_say_has_no_value() {
        let memory = memory("MemTotal: 1 kB\nMemFree: 1 kB\n").unwrap();
        assert_eq!(value(&memory, Metric::NodeMemoryAvailable), None);
        assert_eq!(memory.huge_pages, [None, None]);
    }

    #[test]
    fn a_value_that_is_no_number_refuses_the_file() {
        assert!(memory("MemTotal: 1 kB\nMemFree: x kB\n").is_err());
        assert!(memory("MemTotal: 24684").is_err());
        assert!(memory("").is_err());
    }

    proptest! {
        #[test]
        fn memory_never_panics(text in "(MemTotal:|HugePages_Total:|Hugepagesize:|[0-9]{1,22}| kB|\\n|.){0,60}") {
            let _memory = memory(&text);
        }
    }
}
