//! The last hour, replayed through the same model that serves the present: a value of the past is computed as it was
//! then. Also how a restarted controller gets its last known state back.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use horcrux_proto::agent::v1::{Inventory, SampleBatch, Series};
use horcrux_proto::name::{NodeName, Resource};
use horcrux_proto::v1::{Metric, RecentSeries};

use super::fleet::{Fleet, LinkId, Patience};
use crate::store::nodes::NodeRow;
use crate::store::recent::Past;

/// A pause longer than this many usual steps is a gap.
const GAP_STEPS: i64 = 3;

/// Applies a node's past to a model that knows the node, oldest first; `each` sees the model after each batch, with the
/// batch's time. Returns the model to having no stream.
pub fn replay(
    fleet: &mut Fleet,
    node: &NodeName,
    inventory: Option<&Inventory>,
    past: Past,
    now: (Instant, i64),
    mut each: impl FnMut(&Fleet, i64),
) {
    // Declared again on each stream: an id stands for the same all through its epoch.
    let mut declared: HashMap<i64, BTreeMap<u32, Series>> = HashMap::new();
    for (epoch, series) in past.series {
        declared.entry(epoch).or_default().insert(series.id, series);
    }
    if let Some(inventory) = inventory {
        fleet.inventory(node, inventory);
    }
    let mut current: Option<(i64, LinkId)> = None;
    for (epoch, mut batch) in past.batches {
        let link = match current {
            Some((of, link)) if of == epoch => link,
            _ => {
                let link = LinkId(u64::MAX - current.map_or(0, |(_, l)| u64::MAX - l.0 + 1));
                fleet.replays(node, link, now.0);
                let all = declared.remove(&epoch).unwrap_or_default().into_values().collect();
                fleet.samples(node, link, &SampleBatch { declared: all, ..SampleBatch::default() });
                current = Some((epoch, link));
                link
            }
        };
        // Ids are never used twice in an epoch, and all of them are declared: nothing needs to be retired here.
        (batch.declared, batch.retired) = (Vec::new(), Vec::new());
        let taken = batch.taken_unix_ms;
        fleet.samples(node, link, &batch);
        each(fleet, taken);
    }
    if let Some((_, link)) = current {
        fleet.detached(node, link, now.1);
    }
}

/// The course of some metrics of one object.
#[must_use]
pub fn course(
    node: (&NodeName, &NodeRow),
    inventory: Option<&Inventory>,
    past: Past,
    resource: &Resource,
    metrics: &[Metric],
    now: (Instant, i64),
) -> Vec<RecentSeries> {
    let patience = Patience { late_after: Duration::MAX, down_after: Duration::MAX };
    let mut fleet = Fleet::new(patience);
    fleet.enrolled(&node.1.into(), now.0, now.1);
    let mut courses: Vec<BTreeMap<i64, f32>> = metrics.iter().map(|_| BTreeMap::new()).collect();
    replay(&mut fleet, node.0, inventory, past, now, |fleet, taken| {
        let Some(object) = fleet.find(resource) else { return };
        for (course, &metric) in courses.iter_mut().zip(metrics) {
            // Only what this batch brought.
            let Some(found) = object.find_whole(metric).filter(|s| s.taken_ms == taken) else { continue };
            let value = object.whole_gauge(found.metric).unwrap_or(f64::NAN);
            course.insert(taken, narrow(value));
        }
    });
    let series = metrics.iter().zip(courses).map(|(&metric, course)| {
        let (unix_ms, values): (Vec<i64>, Vec<f32>) = course.into_iter().unzip();
        RecentSeries { metric: metric.into(), gap_ms: gap_ms(&unix_ms), unix_ms, values }
    });
    series.collect()
}

fn gap_ms(times: &[i64]) -> u32 {
    let mut steps: Vec<i64> = times.windows(2).map(|w| w[1].saturating_sub(w[0])).collect();
    steps.sort_unstable();
    let usual = steps.get(steps.len() / 2).copied().unwrap_or(0);
    u32::try_from(usual.saturating_mul(GAP_STEPS)).unwrap_or(u32::MAX)
}

#[allow(clippy::cast_possible_truncation, reason = "the contract states single precision")]
fn narrow(value: f64) -> f32 {
    value as f32
}
