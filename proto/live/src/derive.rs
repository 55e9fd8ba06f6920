//! Values that are computed from what agents measured: rates, usage, shares. The arithmetic is
//! [`horcrux_proto::rates`]; this says what is computed from what.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use horcrux_proto::catalogue::CATALOGUE;
use horcrux_proto::rates::{self, Point};
use horcrux_proto::v1::{Metric, Source};

use crate::object::{Facts, Object, Place, Reading};

/// What a guest's shares are measured against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host {
    pub cpus: f64,
    pub memory_bytes: f64,
}

static RATES: LazyLock<HashMap<Metric, Metric>> =
    LazyLock::new(|| CATALOGUE.iter().filter_map(|i| i.rate_of.map(|counter| (counter, i.metric))).collect());

/// All of a core's time is one of these. Guest time is in user and nice already.
const CPU_MODES: [Metric; 8] = [
    Metric::NodeCpuUserTime,
    Metric::NodeCpuNiceTime,
    Metric::NodeCpuSystemTime,
    Metric::NodeCpuIrqTime,
    Metric::NodeCpuSoftirqTime,
    Metric::NodeCpuStealTime,
    Metric::NodeCpuIdleTime,
    Metric::NodeCpuIowaitTime,
];
/// Times with their counts.
const READS: (Metric, Metric) = (Metric::NodeDiskReadTime, Metric::NodeDiskReads);
const WRITES: (Metric, Metric) = (Metric::NodeDiskWriteTime, Metric::NodeDiskWrites);
const STEAL: usize = 5;
const IDLE: usize = 6;
const IOWAIT: usize = 7;

struct Derived {
    metric: Metric,
    instance: Arc<str>,
    value: Option<f64>,
    source: Source,
}

/// What is derived from a metric, of the same instance.
pub fn from(metric: Metric) -> impl Iterator<Item = Metric> {
    #[allow(clippy::wildcard_enum_match_arm, reason = "most metrics derive nothing of their own")]
    let own: &[Metric] = match metric {
        Metric::NodeDiskBusyTime => &[Metric::NodeDiskUtilisation],
        Metric::NodeDiskQueueTime => &[Metric::NodeDiskQueueDepth],
        Metric::NodeDiskReadTime => &[Metric::NodeDiskReadAwait],
        Metric::NodeDiskWriteTime => &[Metric::NodeDiskWriteAwait, Metric::NodeDiskAwait],
        Metric::VmCpuTime => &[Metric::VmCpuUsage],
        Metric::ContainerCpuTime => &[Metric::ContainerCpuUsage],
        Metric::NodeCpuIdleTime => &[Metric::NodeCpuUsage, Metric::NodeCpuIowait, Metric::NodeCpuSteal],
        Metric::NodeMemoryAvailable => &[Metric::NodeMemoryUsed, Metric::NodeMemoryUsage],
        Metric::NodeSwapFree => &[Metric::NodeSwapUsed],
        Metric::NodeFilesystemAvailable => &[Metric::NodeFilesystemUsage],
        Metric::VmMemoryUsable => &[Metric::VmMemoryUsage],
        Metric::ContainerMemoryWorkingSet => &[Metric::ContainerMemoryUsage],
        _ => &[],
    };
    RATES.get(&metric).into_iter().chain(own).copied()
}

/// Brings what is derived up to date with the series at `updated`, which one batch set.
pub fn update(object: &mut Object, updated: impl Iterator<Item = Place>, host: Host, taken_ms: i64) {
    let mut derived = Vec::new();
    for at in updated {
        let Some(series) = object.series_at(at) else { continue };
        let mut put = |metric, value| {
            derived.push(Derived { metric, instance: series.instance.clone(), value, source: series.source });
        };
        if let Reading::Counter { last, before } = series.reading {
            if let Some(&rate) = RATES.get(&series.metric) {
                put(rate, before.and_then(|before| rates::per_second(before, last)));
            }
            let share = |width| before.and_then(|before| rates::percent_of_time(before, last, width));
            #[allow(clippy::wildcard_enum_match_arm, reason = "most metrics derive nothing of their own")]
            match series.metric {
                Metric::NodeDiskBusyTime => put(Metric::NodeDiskUtilisation, share(1.0)),
                Metric::NodeDiskQueueTime => {
                    // Time in flight of all requests, per time.
                    put(Metric::NodeDiskQueueDepth, share(1.0).map(|percent| percent / 100.0));
                }
                Metric::NodeDiskReadTime => {
                    put(Metric::NodeDiskReadAwait, per_operation(object, &series.instance, &[READS]));
                }
                Metric::NodeDiskWriteTime => {
                    put(Metric::NodeDiskWriteAwait, per_operation(object, &series.instance, &[WRITES]));
                    put(Metric::NodeDiskAwait, per_operation(object, &series.instance, &[READS, WRITES]));
                }
                Metric::VmCpuTime => put(Metric::VmCpuUsage, vcpus(object).and_then(share)),
                Metric::ContainerCpuTime => {
                    let limit = object.whole_gauge(Metric::ContainerCpuLimit);
                    put(Metric::ContainerCpuUsage, share(limit.unwrap_or(host.cpus)));
                }
                Metric::NodeCpuIdleTime => {
                    let times = cpu_shares(object, &series.instance);
                    put(Metric::NodeCpuUsage, times.map(|t| 100.0 - t[IDLE] - t[IOWAIT]));
                    put(Metric::NodeCpuIowait, times.map(|t| t[IOWAIT]));
                    put(Metric::NodeCpuSteal, times.map(|t| t[STEAL]));
                }
                _ => {}
            }
        }
        let gauge = |metric| object.gauge(metric, &series.instance);
        #[allow(clippy::wildcard_enum_match_arm, reason = "most metrics derive nothing of their own")]
        match series.metric {
            Metric::NodeMemoryAvailable => {
                let (total, available) = (gauge(Metric::NodeMemoryTotal), gauge(Metric::NodeMemoryAvailable));
                let used = total.zip(available).map(|(total, available)| total - available);
                put(Metric::NodeMemoryUsed, used);
                put(Metric::NodeMemoryUsage, used.zip(total).and_then(|(u, t)| rates::percent(u, t)));
            }
            Metric::NodeSwapFree => {
                let used = gauge(Metric::NodeSwapTotal).zip(gauge(Metric::NodeSwapFree)).map(|(t, f)| t - f);
                put(Metric::NodeSwapUsed, used);
            }
            Metric::NodeFilesystemAvailable => {
                let used = gauge(Metric::NodeFilesystemSize).zip(gauge(Metric::NodeFilesystemFree));
                let used = used.map(|(size, free)| size - free);
                let both = used.zip(gauge(Metric::NodeFilesystemAvailable));
                put(
                    Metric::NodeFilesystemUsage,
                    both.and_then(|(used, available)| rates::percent(used, used + available)),
                );
            }
            Metric::VmMemoryUsable => {
                let both = gauge(Metric::VmMemoryAvailable).zip(gauge(Metric::VmMemoryUsable));
                put(
                    Metric::VmMemoryUsage,
                    both.and_then(|(seen, usable)| rates::percent(seen - usable, seen)),
                );
            }
            Metric::ContainerMemoryWorkingSet => {
                let limit = gauge(Metric::ContainerMemoryLimit).unwrap_or(host.memory_bytes);
                let set = gauge(Metric::ContainerMemoryWorkingSet);
                put(Metric::ContainerMemoryUsage, set.and_then(|set| rates::percent(set, limit)));
            }
            _ => {}
        }
    }
    for Derived { metric, instance, value, source } in derived {
        object.set_derived(metric, &instance, value, source, taken_ms);
    }
}

/// Whether it is an average over operations, of which there may have been none.
#[must_use]
pub fn is_per_operation(metric: Metric) -> bool {
    matches!(metric, Metric::NodeDiskAwait | Metric::NodeDiskReadAwait | Metric::NodeDiskWriteAwait)
}

/// By how much the times grew for each by which the counts did.
fn per_operation(object: &Object, instance: &Arc<str>, of: &[(Metric, Metric)]) -> Option<f64> {
    let grown = |metric| match object.find(metric, instance)?.reading {
        Reading::Counter { last, before: Some(before) } => last.count.checked_sub(before.count),
        Reading::Counter { before: None, .. } | Reading::Gauge(_) | Reading::Nothing => None,
    };
    let (mut time, mut operations) = (0_u64, 0_u64);
    for &(times, counts) in of {
        time = time.saturating_add(grown(times)?);
        operations = operations.saturating_add(grown(counts)?);
    }
    rates::per_one(time, operations)
}

fn vcpus(object: &Object) -> Option<f64> {
    object.whole_gauge(Metric::VmVcpus).or_else(|| match &object.facts {
        Facts::Vm(vm) => vm.facts.as_ref()?.vcpus.map(f64::from),
        Facts::Node(_) | Facts::Container(_) => None,
    })
}

/// What part of a core's time (or of all cores', for the instance "") went to each mode since the reading before.
fn cpu_shares(object: &Object, instance: &Arc<str>) -> Option<[f64; CPU_MODES.len()]> {
    let (mut earlier, mut later) = ([0; CPU_MODES.len()], [0; CPU_MODES.len()]);
    for (at, mode) in CPU_MODES.into_iter().enumerate() {
        let Reading::Counter { last, before: Some(before) } = object.find(mode, instance)?.reading else {
            return None;
        };
        (earlier[at], later[at]) = (count(before), count(last));
    }
    // The kernel's idle and iowait of one core can step back a little: such a pair of readings says nothing.
    let grown = rates::grown(&earlier, &later)?;
    let total: u64 = grown.iter().sum();
    let mut shares = [0.0; CPU_MODES.len()];
    for (share, grown) in shares.iter_mut().zip(grown) {
        *share = rates::percent(rates::float(grown), rates::float(total))?;
    }
    Some(shares)
}

fn count(point: Point) -> u64 {
    point.count
}
