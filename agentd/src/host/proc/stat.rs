//! `/proc/stat`.

use crate::host::read::{Malformed, numbers};

/// The modes in the order of the columns: user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice.
/// Linux has all ten since 2.6.33.
pub(super) const MODES: usize = 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) all: [u64; MODES],
    /// Online cores by number; an offline core has no line.
    pub(super) cores: Vec<(usize, [u64; MODES])>,
    pub(super) boot_unix_s: i64,
    pub(super) running: Option<u64>,
    pub(super) blocked: Option<u64>,
    pub(super) context_switches: Option<u64>,
    pub(super) interrupts: Option<u64>,
    pub(super) forks: Option<u64>,
}

/// Times are in ticks.
pub(super) fn stat(text: &str) -> Result<Stat, Malformed> {
    let mut all = None;
    let mut cores = Vec::new();
    let (mut boot, mut running, mut blocked) = (None, None, None);
    let (mut context_switches, mut interrupts, mut forks) = (None, None, None);
    for line in text.lines() {
        let Some((key, rest)) = line.split_once(' ') else { continue };
        if let Some(core) = key.strip_prefix("cpu") {
            let ticks = numbers(&mut rest.split_ascii_whitespace(), "a cpu line lacks a column")?;
            if core.is_empty() {
                all = Some(ticks);
            } else {
                cores.push((core.parse().map_err(|_| Malformed("a core has no number"))?, ticks));
            }
        } else {
            match key {
                "btime" => boot = rest.trim().parse().ok(),
                "procs_running" => running = rest.trim().parse().ok(),
                "procs_blocked" => blocked = rest.trim().parse().ok(),
                "ctxt" => context_switches = rest.trim().parse().ok(),
                "processes" => forks = rest.trim().parse().ok(),
                // By far the longest line, with one number for each source after the sum: don't split it.
                "intr" => interrupts = rest.split(' ').next().and_then(|sum| sum.trim().parse().ok()),
                _ => {}
            }
        }
    }
    let all = all.ok_or(Malformed("no line `cpu`"))?;
    let boot_unix_s = boot.ok_or(Malformed("no btime"))?;
    Ok(Stat { all, cores, boot_unix_s, running, blocked, context_switches, interrupts, forks })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = include_str!("../../../testdata/proc/hybrid/stat");

    #[test]
    fn the_columns_of_a_real_file_keep_their_order() {
        let stat = stat(TEXT).unwrap();
        let first: Vec<u64> =
            TEXT.lines().next().unwrap().split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect();
        assert_eq!(stat.all.to_vec(), first);
        assert_eq!(stat.cores.iter().map(|(core, _)| *core).collect::<Vec<_>>(), [0, 1]);
        assert!(stat.boot_unix_s > 1_700_000_000);
        assert!(stat.running.is_some() && stat.blocked.is_some());
        let counts = [stat.context_switches, stat.interrupts, stat.forks];
        assert_eq!(counts, [936_205, 789_717, 20_252].map(Some));
    }

    #[test]
    fn an_offline_core_leaves_a_gap() {
        let stat = stat(
            "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu2 1 2 3 4 5 6 7 8 9 10\nbtime 1\n",
        )
        .unwrap();
        assert_eq!(stat.cores.iter().map(|(core, _)| *core).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn a_cpu_line_cut_short_refuses_the_file() {
        assert!(stat("cpu  1 2 3 4\nbtime 1\n").is_err());
        assert!(stat(TEXT.split_at(40).0).is_err());
        assert!(stat("").is_err());
    }

    proptest! {
        #[test]
        fn stat_never_panics(text in "(cpu|btime|procs_running|intr|ctxt|[0-9]{1,22}| |\\n|.){0,80}") {
            let _stat = stat(&text);
        }
    }
}
