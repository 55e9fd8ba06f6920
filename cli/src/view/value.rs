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
    let own = values.iter().filter(|v| v.instance.is_empty());
    for value in own.chain(values.iter().filter(|v| !v.instance.is_empty())) {
        let counted = value.kind == Kind::Counter && value.value.is_some();
        table.row(vec![
            value.metric.clone(),
            shown(&value.instance),
            value.value.map_or_else(|| "-".to_owned(), |v| with_unit(v, value.unit)),
            if value.taken_unix_ms.is_some() { value.source.clone() } else { String::new() },
            value.taken_unix_ms.map(|at| ago(at, now_ms)).unwrap_or_default(),
            if counted { "total".to_owned() } else { shown(&value.absent_reason) },
        ]);
    }
    format!("\n{}", table.text())
}
