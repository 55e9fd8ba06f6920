//! What the screen's tables hold: rows made from the fleet, sorted and filtered. Pure.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use horcrux_proto::v1::{Metric, NodeState};

use crate::fleet::{Fleet, Thing};
use crate::view::container::short_id;
use crate::view::quantity::{bytes, seconds};
use crate::view::vm::VmView;
use crate::view::{bare, shown, word};

/// A column's heading and width.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) width: u16,
    /// Where not all columns fit, those with the lowest rank stay.
    rank: u8,
}

/// One cell: how it is sorted and shown follows from what it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Percent(Option<f32>),
    Load(Option<f32>),
    Whole(Option<f32>),
    Rate(Option<f32>),
    Count(usize),
    Age(Option<Duration>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// The full name, which stays the same while rows move.
    pub(super) name: String,
    pub(super) cells: Vec<Value>,
    pub(super) freshness: Freshness,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    Fresh,
    /// No recent sample: the values are of the past.
    Stale,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Direction {
    #[default]
    Ascending,
    Descending,
}

pub(super) const NODES: &[Column] = &[
    column("NODE", 18, 0),
    column("STATE", 10, 1),
    column("CPU", 8, 1),
    column("MEMORY", 8, 1),
    column("LOAD1", 6, 2),
    column("LOAD5", 6, 5),
    column("LOAD15", 6, 6),
    column("READ/s", 10, 4),
    column("WRITE/s", 10, 4),
    column("RX/s", 10, 3),
    column("TX/s", 10, 3),
    column("VMS", 4, 2),
    column("CTS", 4, 2),
    column("AGE", 7, 1),
];

pub(super) const VMS: &[Column] = &[
    column("VM", 24, 0),
    column("STATE", 13, 1),
    column("CPU", 8, 1),
    column("MEMORY", 8, 1),
    column("READ/s", 10, 4),
    column("WRITE/s", 10, 4),
    column("RX/s", 10, 3),
    column("TX/s", 10, 3),
    column("AGE", 7, 1),
];

pub(super) const CONTAINERS: &[Column] = &[
    column("CONTAINER", 24, 0),
    column("RUNTIME", 11, 2),
    column("CPU", 8, 1),
    column("MEMORY", 8, 1),
    column("READ/s", 10, 4),
    column("WRITE/s", 10, 4),
    column("RX/s", 10, 3),
    column("TX/s", 10, 3),
    column("PIDS", 6, 2),
    column("AGE", 7, 1),
];

/// Three samples of the slowest usual cadence (5 s) have not come.
const STALE_AFTER: Duration = Duration::from_secs(15);

const fn column(title: &'static str, width: u16, rank: u8) -> Column {
    Column { title, width, rank }
}

/// The places of the columns that fit into `width`, each with a gap behind it.
pub(super) fn fitting(columns: &[Column], width: u16) -> Vec<usize> {
    let mut places: Vec<usize> = (0..columns.len()).collect();
    places.sort_by_key(|&at| columns[at].rank);
    let mut left = width;
    let mut fits: Vec<usize> = places
        .into_iter()
        .map_while(|at| {
            left = left.checked_sub(columns[at].width + 1)?;
            Some(at)
        })
        .collect();
    fits.sort_unstable();
    fits
}

pub(super) fn nodes(fleet: &Fleet, now: Instant) -> Vec<Row> {
    let vms = count(fleet.vms().map(|(vm, _)| vm.node.as_str()));
    let containers = count(fleet.containers().map(|(container, _)| container.node.as_str()));
    let row = |(node, thing): (&horcrux_proto::v1::Node, &Thing)| {
        let age = fleet.age(thing, node.clock_offset_ms.unwrap_or_default(), now);
        let name = node.name.as_str();
        Row {
            name: name.to_owned(),
            freshness: match node.state() {
                NodeState::Connected | NodeState::Here => freshness(age),
                NodeState::Unspecified | NodeState::NeverSeen | NodeState::Late | NodeState::Down => {
                    Freshness::Stale
                }
            },
            cells: vec![
                Value::Text(shown(bare(name))),
                Value::Text(word(node.state().as_str_name(), "NODE_STATE_")),
                Value::Percent(thing.value(Metric::NodeCpuUsage)),
                Value::Percent(thing.value(Metric::NodeMemoryUsage)),
                Value::Load(thing.value(Metric::NodeLoad1m)),
                Value::Load(thing.value(Metric::NodeLoad5m)),
                Value::Load(thing.value(Metric::NodeLoad15m)),
                Value::Rate(thing.value(Metric::NodeDiskReadRate)),
                Value::Rate(thing.value(Metric::NodeDiskWriteRate)),
                Value::Rate(thing.value(Metric::NodeNetworkRxRate)),
                Value::Rate(thing.value(Metric::NodeNetworkTxRate)),
                Value::Count(vms.get(name).copied().unwrap_or_default()),
                Value::Count(containers.get(name).copied().unwrap_or_default()),
                Value::Age(age),
            ],
        }
    };
    fleet.nodes().map(row).collect()
}

pub(super) fn vms(fleet: &Fleet, node: &str, now: Instant) -> Vec<Row> {
    let offset = fleet.clock_offsets().get(node).copied().unwrap_or_default();
    let here = fleet.vms().filter(|(vm, _)| vm.node == node);
    here.map(|(vm, thing)| {
        let facts = vm.facts.clone().unwrap_or_default();
        let age = fleet.age(thing, offset, now);
        // What QEMU says of its disks, or else what the cgroup counted.
        let either = |one, other| thing.value(one).or_else(|| thing.value(other));
        Row {
            name: vm.name.clone(),
            freshness: freshness(age),
            cells: vec![
                Value::Text(shown(&facts.display_name)),
                Value::Text(VmView::from(vm).state_in_words()),
                Value::Percent(thing.value(Metric::VmCpuUsage)),
                Value::Percent(thing.value(Metric::VmMemoryUsage)),
                Value::Rate(either(Metric::VmDiskReadRate, Metric::VmIoReadRate)),
                Value::Rate(either(Metric::VmDiskWriteRate, Metric::VmIoWriteRate)),
                Value::Rate(thing.value(Metric::VmNetworkRxRate)),
                Value::Rate(thing.value(Metric::VmNetworkTxRate)),
                Value::Age(age),
            ],
        }
    })
    .collect()
}

pub(super) fn containers(fleet: &Fleet, node: &str, now: Instant) -> Vec<Row> {
    let offset = fleet.clock_offsets().get(node).copied().unwrap_or_default();
    let here = fleet.containers().filter(|(container, _)| container.node == node);
    here.map(|(container, thing)| {
        let facts = container.facts.clone().unwrap_or_default();
        let age = fleet.age(thing, offset, now);
        Row {
            name: container.name.clone(),
            freshness: freshness(age),
            cells: vec![
                Value::Text(shown(facts.display_name.as_deref().unwrap_or_else(|| short_id(&facts.id)))),
                Value::Text(word(facts.runtime().as_str_name(), "CONTAINER_RUNTIME_")),
                Value::Percent(thing.value(Metric::ContainerCpuUsage)),
                Value::Percent(thing.value(Metric::ContainerMemoryUsage)),
                Value::Rate(thing.value(Metric::ContainerIoReadRate)),
                Value::Rate(thing.value(Metric::ContainerIoWriteRate)),
                Value::Rate(thing.value(Metric::ContainerNetworkRxRate)),
                Value::Rate(thing.value(Metric::ContainerNetworkTxRate)),
                Value::Whole(thing.value(Metric::ContainerPids)),
                Value::Age(age),
            ],
        }
    })
    .collect()
}

/// Those whose text cells hold `filter`, in the order of one column. What is absent comes last either way; rows that are
/// equal stay in the order of their names.
pub(super) fn arranged(mut rows: Vec<Row>, filter: &str, column: usize, direction: Direction) -> Vec<Row> {
    let filter = filter.to_lowercase();
    rows.retain(|row| filter.is_empty() || row.texts().any(|text| text.to_lowercase().contains(&filter)));
    rows.sort_by(|a, b| {
        let by = |row: &Row| row.cells.get(column).cloned();
        let (one, other) = (by(a), by(b));
        let by_presence = is_absent(one.as_ref()).cmp(&is_absent(other.as_ref()));
        let by_value = one.zip(other).map_or(Ordering::Equal, |(one, other)| one.compare(&other));
        let by_value = if direction == Direction::Descending { by_value.reverse() } else { by_value };
        by_presence.then(by_value).then_with(|| a.name.cmp(&b.name))
    });
    rows
}

impl Row {
    fn texts(&self) -> impl Iterator<Item = &str> {
        self.cells.iter().filter_map(|cell| match cell {
            Value::Text(text) => Some(text.as_str()),
            Value::Percent(_)
            | Value::Load(_)
            | Value::Whole(_)
            | Value::Rate(_)
            | Value::Count(_)
            | Value::Age(_) => None,
        })
    }
}

impl Value {
    /// What is worth looking at first.
    pub(super) fn natural(&self) -> Direction {
        match self {
            Self::Text(_) => Direction::Ascending,
            Self::Percent(_)
            | Self::Load(_)
            | Self::Whole(_)
            | Self::Rate(_)
            | Self::Count(_)
            | Self::Age(_) => Direction::Descending,
        }
    }

    pub(super) fn text(&self) -> String {
        let shown = match self {
            Self::Text(text) => return text.clone(),
            Self::Count(count) => return count.to_string(),
            Self::Percent(value) => value.map(|v| format!("{v:.1}%{:<2}", mark(v))),
            Self::Load(value) => {
                value.map(|v| if v >= 100.0 { format!("{v:.0}") } else { format!("{v:.2}") })
            }
            Self::Whole(value) => value.map(|v| format!("{v:.0}")),
            Self::Rate(value) => value.map(|v| bytes(f64::from(v))),
            Self::Age(value) => value.map(|age| seconds(age.as_secs_f64())),
        };
        shown.unwrap_or_else(|| "-".to_owned())
    }

    fn compare(&self, other: &Self) -> Ordering {
        let numbers = |one: &Option<f32>, other: &Option<f32>| {
            one.unwrap_or_default().total_cmp(&other.unwrap_or_default())
        };
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one.cmp(other),
            (Self::Count(one), Self::Count(other)) => one.cmp(other),
            (Self::Age(one), Self::Age(other)) => one.cmp(other),
            (Self::Percent(one), Self::Percent(other))
            | (Self::Load(one), Self::Load(other))
            | (Self::Whole(one), Self::Whole(other))
            | (Self::Rate(one), Self::Rate(other)) => numbers(one, other),
            // A column holds one kind of value.
            (_, _) => Ordering::Equal,
        }
    }
}

/// For those who don't see colours.
pub(super) fn mark(percent: f32) -> &'static str {
    match percent {
        p if p >= 90.0 => "!!",
        p if p >= 75.0 => "!",
        p if p >= 50.0 => "~",
        _ => "",
    }
}

fn is_absent(value: Option<&Value>) -> bool {
    matches!(
        value,
        None | Some(
            Value::Percent(None)
                | Value::Load(None)
                | Value::Whole(None)
                | Value::Rate(None)
                | Value::Age(None)
        )
    )
}

fn freshness(age: Option<Duration>) -> Freshness {
    if age.is_some_and(|age| age < STALE_AFTER) { Freshness::Fresh } else { Freshness::Stale }
}

fn count<'a>(names: impl Iterator<Item = &'a str>) -> HashMap<&'a str, usize> {
    names.fold(HashMap::new(), |mut counts, name| {
        *counts.entry(name).or_default() += 1;
        counts
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, cpu: Option<f32>) -> Row {
        Row {
            name: format!("nodes/{name}"),
            cells: vec![Value::Text(name.to_owned()), Value::Percent(cpu)],
            freshness: Freshness::Fresh,
        }
    }

    fn names(rows: &[Row]) -> Vec<&str> {
        rows.iter().map(|r| bare(&r.name)).collect()
    }

    #[test]
    fn absent_values_come_last_in_both_directions() {
        let rows = vec![row("a", None), row("b", Some(5.0)), row("c", Some(90.0)), row("d", Some(5.0))];
        let ascending = arranged(rows.clone(), "", 1, Direction::Ascending);
        assert_eq!(names(&ascending), ["b", "d", "c", "a"]);
        let descending = arranged(rows, "", 1, Direction::Descending);
        assert_eq!(names(&descending), ["c", "b", "d", "a"]);
    }

    #[test]
    fn a_filter_looks_at_texts_without_regard_to_case() {
        let rows = vec![row("Web1", None), row("db1", None)];
        assert_eq!(names(&arranged(rows, "wEB", 0, Direction::Ascending)), ["Web1"]);
    }

    #[test]
    fn a_narrow_screen_keeps_what_matters_most() {
        let titles =
            |width| fitting(NODES, width).into_iter().map(|at| NODES[at].title).collect::<Vec<_>>().join(" ");
        assert_eq!(
            titles(132),
            "NODE STATE CPU MEMORY LOAD1 LOAD5 LOAD15 READ/s WRITE/s RX/s TX/s VMS CTS AGE"
        );
        assert_eq!(titles(80), "NODE STATE CPU MEMORY LOAD1 VMS CTS AGE");
        assert_eq!(titles(20), "NODE");
        assert_eq!(titles(5), "");
    }

    #[test]
    fn high_usage_is_marked_with_more_than_a_colour() {
        let text = |percent| Value::Percent(Some(percent)).text();
        assert_eq!(
            [text(49.9), text(50.0), text(75.0), text(90.0)],
            ["49.9%  ", "50.0%~ ", "75.0%! ", "90.0%!!"]
        );
        assert_eq!(Value::Percent(None).text(), "-");
    }
}
