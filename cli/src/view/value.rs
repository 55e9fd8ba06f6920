//! Metric values, with their units from the catalogue.

use horcrux_proto::catalogue;
use horcrux_proto::v1::{Absence, Kind, Metric, MetricValue, Source, Unit};
use serde::Serialize;

use super::quantity::{suffix, with_unit};
use super::table::Table;
use super::time::ago;
use super::{shown, word};

/// One value, or why there is none.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValueView {
    /// As in the catalogue.
    pub metric: String,
    /// Empty: the object as a whole.
    pub instance: String,
    /// Null: there is none.
    pub value: Option<f64>,
    /// `bytes`, `bytes_per_second`, `nanoseconds`, `seconds`, `percent`, `count`, `per_second`.
    #[serde(rename = "unit")]
    unit_name: String,
    /// Empty when there is a value.
    pub absent_reason: String,
    pub source: String,
    /// Null: never.
    pub taken_unix_ms: Option<i64>,
    #[serde(skip)]
    number: Metric,
    #[serde(skip)]
    unit: Unit,
    #[serde(skip)]
    kind: Kind,
}

/// A value that a VM or a container should have and doesn't.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AbsenceView {
    pub metric: String,
    pub instance: String,
    pub reason: String,
}

/// A metric's name in the catalogue. One that this program doesn't know goes by its number.
#[must_use]
pub fn metric_name(number: i32) -> String {
    let known = Metric::try_from(number).ok().and_then(catalogue::info);
    known.map_or_else(|| format!("metric_{number}"), |info| info.name.to_owned())
}

/// With its unit, for where there is no place beside it: `node_memory_used_bytes`.
#[must_use]
pub fn metric_name_with_unit(number: i32) -> String {
    let unit = Metric::try_from(number).ok().and_then(catalogue::info).map(|info| info.unit);
    metric_name(number) + unit.map(suffix).unwrap_or_default()
}

impl From<&MetricValue> for ValueView {
    fn from(wire: &MetricValue) -> Self {
        let info = catalogue::info(wire.metric());
        let value = wire.value.filter(|v| v.is_finite());
        let absent = if value.is_none() { wire.absent_reason.clone() } else { String::new() };
        Self {
            metric: metric_name(wire.metric),
            instance: wire.instance.clone(),
            value,
            absent_reason: absent,
            source: source(wire.source()),
            taken_unix_ms: (wire.taken_unix_ms > 0).then_some(wire.taken_unix_ms),
            unit_name: word(info.map_or(Unit::Unspecified, |i| i.unit).as_str_name(), "UNIT_"),
            number: wire.metric(),
            unit: info.map_or(Unit::Unspecified, |i| i.unit),
            kind: info.map_or(Kind::Unspecified, |i| i.kind),
        }
    }
}

impl From<&Absence> for AbsenceView {
    fn from(wire: &Absence) -> Self {
        Self {
            metric: metric_name(wire.metric),
            instance: wire.instance.clone(),
            reason: wire.reason.clone(),
        }
    }
}

#[must_use]
pub fn source(source: Source) -> String {
    word(source.as_str_name(), "SOURCE_")
}

/// All values, the object's own before those of its parts.
#[must_use]
pub fn table(values: &[ValueView], now_ms: i64) -> String {
    if values.is_empty() {
        return "\nno values\n".to_owned();
    }
    let mut table = Table::new(&["METRIC", "INSTANCE", ">VALUE", "SOURCE", "TAKEN", "NOTE"]);
    let mut sorted: Vec<&ValueView> = values.iter().collect();
    sorted.sort_by(|a, b| a.place().cmp(&b.place()));
    for value in sorted {
        table.row(vec![
            value.metric.clone(),
            shown(&value.instance),
            value.value.map_or_else(|| "-".to_owned(), |v| with_unit(v, value.unit)),
            if value.taken_unix_ms.is_some() { value.source.clone() } else { String::new() },
            value.taken_unix_ms.map(|at| ago(at, now_ms)).unwrap_or_default(),
            value.note(values),
        ]);
    }
    format!("\n{}", table.text())
}

impl ValueView {
    /// By name, so that a person finds it; the object's own first, and core 10 after core 9.
    fn place(&self) -> (bool, &str, Option<u64>, &str) {
        (!self.instance.is_empty(), &self.metric, self.instance.parse().ok(), &self.instance)
    }

    fn note(&self, all: &[Self]) -> String {
        match (self.value, self.kind) {
            (None, _) => shown(&self.absent_reason),
            (Some(_), Kind::Counter) => "total".to_owned(),
            (Some(_), Kind::Gauge | Kind::Unspecified) if self.instance.is_empty() => {
                of_what(self.number, all)
            }
            (Some(_), Kind::Gauge | Kind::Unspecified) => String::new(),
        }
    }
}

/// What 100 % is, where other programs mean something else by it: Docker counts one core.
fn of_what(metric: Metric, all: &[ValueView]) -> String {
    let limit = |limit| {
        let found = all.iter().find(|one| one.number == limit && one.instance.is_empty());
        found.and_then(|one| Some(with_unit(one.value?, one.unit)))
    };
    let limits = [
        (Metric::ContainerCpuUsage, Metric::ContainerCpuLimit, " cores", "of all the node's cores"),
        (Metric::ContainerMemoryUsage, Metric::ContainerMemoryLimit, "", "of the node's memory"),
    ];
    if let Some((_, of, unit, whole)) = limits.into_iter().find(|(of, ..)| *of == metric) {
        return limit(of).map_or_else(|| whole.to_owned(), |limit| format!("of its limit of {limit}{unit}"));
    }
    let whole = [
        (Metric::NodeCpuUsage, "of all its cores"),
        (Metric::NodeMemoryUsage, "of all its memory"),
        (Metric::VmCpuUsage, "of what its vCPUs could use"),
        (Metric::VmMemoryUsage, "of the memory it has now"),
    ];
    let found = whole.iter().find(|(of, _)| *of == metric);
    found.map_or_else(String::new, |(_, note)| (*note).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_sorted_for_people_and_usage_says_of_what() {
        let value = |metric: Metric, instance: &str| {
            ValueView::from(&MetricValue {
                metric: metric.into(),
                instance: instance.to_owned(),
                value: Some(1.0),
                ..MetricValue::default()
            })
        };
        let values = [
            value(Metric::NodeNetworkRxBytes, "eth0"),
            value(Metric::NodeCpuUserTime, "10"),
            value(Metric::NodeCpuUserTime, "9"),
            value(Metric::NodeMemoryUsed, ""),
            value(Metric::NodeCpuUsage, ""),
            value(Metric::ContainerCpuUsage, ""),
        ];
        let text = table(&values, 0);
        let first = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        let told: Vec<String> = text.trim().lines().skip(1).map(first).collect();
        let expected = [
            "container_cpu_usage 1.0",
            "node_cpu_usage 1.0",
            "node_memory_used 1",
            "node_cpu_user_time 9",
            "node_cpu_user_time 10",
            "node_network_rx_bytes eth0",
        ];
        assert_eq!(told, expected, "{text}");
        assert!(text.contains("of all the node's cores"), "{text}");
        let limited = [value(Metric::ContainerCpuUsage, ""), value(Metric::ContainerCpuLimit, "")];
        let text = table(&limited, 0);
        assert!(text.contains("of its limit of 1 cores"), "{text}");
    }
}
