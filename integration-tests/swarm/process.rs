//! What a process costs, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

/// At one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    cpu: Duration,
    resident_kib: u64,
    peak_kib: u64,
}

/// Over some time.
#[derive(Debug, Serialize)]
pub(crate) struct Cost {
    /// 100 is one core.
    cpu_percent_of_a_core: f64,
    resident_mib: f64,
    peak_mib: f64,
    #[serde(skip)]
    cpu: Duration,
}

impl Usage {
    pub(crate) fn of(pid: Option<u32>) -> anyhow::Result<Option<Self>> {
        let Some(pid) = pid else { return Ok(None) };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("read the process's CPU time")?;
        // The name, in parentheses, may hold anything.
        let (_, rest) = stat.rsplit_once(')').context("a process without a name")?;
        let ticks: u64 =
            rest.split_whitespace().skip(11).take(2).map(|f| f.parse::<u64>().unwrap_or(0)).sum();
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        let status =
            fs::read_to_string(format!("/proc/{pid}/status")).context("read the process's memory")?;
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("memory of a process")
        };
        Ok(Some(Self {
            cpu: Duration::from_millis(ticks * 1000 / per_second),
            resident_kib: kib("VmRSS:")?,
            peak_kib: kib("VmHWM:")?,
        }))
    }

    pub(crate) fn since(self, before: &Self, window: Duration) -> Cost {
        let mib = |kib: u64| (kib as f64 / 102.4).round() / 10.0;
        let cpu = self.cpu.saturating_sub(before.cpu);
        let percent = cpu.as_secs_f64() / window.as_secs_f64() * 100.0;
        Cost {
            cpu,
            cpu_percent_of_a_core: (percent * 10.0).round() / 10.0,
            resident_mib: mib(self.resident_kib),
            peak_mib: mib(self.peak_kib),
        }
    }
}

impl Cost {
    /// How many of so many things a second of CPU time did; `None` where no time was seen to pass.
    pub(crate) fn of_each_second(&self, things: u64) -> Option<f64> {
        (!self.cpu.is_zero()).then(|| (things as f64 / self.cpu.as_secs_f64()).round())
    }
}
