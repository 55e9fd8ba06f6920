//! What people and scripts see: tables for people; JSON and YAML with raw numbers, units in their names.

use anyhow::Context as _;
use horcrux_proto::catalogue::{self, Unit};
use horcrux_proto::v1::{
    Absence, Container, ContainerFacts, EventKind, MetricValue, Node, NodeState, Source, SourceState, Vm,
    VmFacts, VmState,
};
use serde::Serialize;

use crate::args::Output;

/// A node as printed.
#[derive(Debug, Serialize)]
pub(crate) struct NodeView {
    name: String,
    id: String,
    state: String,
    state_since_unix_ms: i64,
    last_sample_unix_ms: Option<i64>,
    clock_offset_ms: Option<i64>,
    agent_version: Option<String>,
    certificate_expires_unix_ms: i64,
    hostname: Option<String>,
    os: Option<String>,
    kernel: Option<String>,
    cpu_model: Option<String>,
    cpus: Option<u32>,
    memory_bytes: Option<u64>,
    cgroup_mode: Option<String>,
    sources: Vec<SourceView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<Vec<ValueView>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct SourceView {
    source: String,
    state: String,
    detail: String,
    skipped: u64,
}

/// A VM as printed.
#[derive(Debug, Serialize)]
pub(crate) struct VmView {
    name: String,
    display_name: String,
    node: String,
    state: String,
    vcpus: Option<u32>,
    memory_max_bytes: Option<u64>,
    last_sample_unix_ms: Option<i64>,
    absent: Vec<AbsenceView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<Vec<ValueView>>,
}

/// A container as printed.
#[derive(Debug, Serialize)]
pub(crate) struct ContainerView {
    name: String,
    id: String,
    display_name: Option<String>,
    name_unknown_reason: String,
    node: String,
    runtime: String,
    cgroup_path: String,
    last_sample_unix_ms: Option<i64>,
    absent: Vec<AbsenceView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<Vec<ValueView>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct AbsenceView {
    metric: String,
    reason: String,
}

/// One value as printed.
#[derive(Debug, Serialize)]
pub(crate) struct ValueView {
    metric: &'static str,
    instance: String,
    value: Option<f64>,
    unit: String,
    source: String,
    taken_unix_ms: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    absent_reason: String,
}

/// What a table needs.
pub(crate) trait Row {
    const HEADERS: &'static [&'static str];
    fn cells(&self) -> Vec<String>;
}

impl Row for NodeView {
    const HEADERS: &'static [&'static str] = &["NAME", "STATE", "CPUS", "MEMORY", "OS", "KERNEL", "AGENT"];

    fn cells(&self) -> Vec<String> {
        vec![
            short(&self.name).to_owned(),
            self.state.clone(),
            or_dash(self.cpus),
            self.memory_bytes.map_or_else(dash, |b| humanise(float(b), Unit::Bytes)),
            self.os.clone().unwrap_or_else(dash),
            self.kernel.clone().unwrap_or_else(dash),
            self.agent_version.clone().unwrap_or_else(dash),
        ]
    }
}

impl Row for VmView {
    const HEADERS: &'static [&'static str] = &["NAME", "NODE", "STATE", "VCPUS", "MEMORY", "UUID"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.display_name.clone(),
            short(&self.node).to_owned(),
            self.state.clone(),
            or_dash(self.vcpus),
            self.memory_max_bytes.map_or_else(dash, |b| humanise(float(b), Unit::Bytes)),
            short(&self.name).to_owned(),
        ]
    }
}

impl Row for ContainerView {
    const HEADERS: &'static [&'static str] = &["ID", "NAME", "NODE", "RUNTIME", "CGROUP"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.chars().take(12).collect(),
            self.display_name.clone().unwrap_or_else(dash),
            short(&self.node).to_owned(),
            self.runtime.clone(),
            self.cgroup_path.clone(),
        ]
    }
}

impl Row for ValueView {
    const HEADERS: &'static [&'static str] = &["METRIC", "INSTANCE", "VALUE", "SOURCE"];

    fn cells(&self) -> Vec<String> {
        let unit = catalogue::by_name(self.metric).map_or(Unit::Unspecified, |info| info.unit);
        let value = match self.value {
            Some(value) => humanise(value, unit),
            None => format!("- ({})", self.absent_reason),
        };
        vec![self.metric.to_owned(), self.instance.clone(), value, self.source.clone()]
    }
}

pub(crate) fn node(node: Node, values: Option<Vec<MetricValue>>) -> NodeView {
    let state = lower(node.state().as_str_name(), NodeState::Unspecified.as_str_name());
    let facts = node.facts;
    let sources = facts.iter().flat_map(|f| &f.sources).map(|s| SourceView {
        source: lower(s.source().as_str_name(), Source::Unspecified.as_str_name()),
        state: lower(s.state().as_str_name(), SourceState::Unspecified.as_str_name()),
        detail: s.detail.clone(),
        skipped: s.skipped,
    });
    NodeView {
        name: node.name,
        id: node.id,
        state,
        state_since_unix_ms: node.state_since_unix_ms,
        last_sample_unix_ms: node.last_sample_unix_ms,
        clock_offset_ms: node.clock_offset_ms,
        agent_version: node.agent_version,
        certificate_expires_unix_ms: node.certificate_expires_unix_ms,
        sources: sources.collect(),
        hostname: facts.as_ref().map(|f| f.hostname.clone()),
        os: facts.as_ref().and_then(|f| f.os.clone()),
        kernel: facts.as_ref().map(|f| f.kernel.clone()),
        cpu_model: facts.as_ref().and_then(|f| f.cpu_model.clone()),
        cpus: facts.as_ref().map(|f| f.cpus),
        memory_bytes: facts.as_ref().map(|f| f.memory_bytes),
        cgroup_mode: facts.as_ref().map(|f| lower(f.cgroup_mode().as_str_name(), "CGROUP_MODE_UNSPECIFIED")),
        values: values.map(|values| values.into_iter().filter_map(value).collect()),
    }
}

pub(crate) fn vm(vm: Vm, values: Option<Vec<MetricValue>>) -> VmView {
    let facts: VmFacts = vm.facts.unwrap_or_default();
    VmView {
        name: vm.name,
        node: vm.node,
        state: lower(facts.state().as_str_name(), VmState::Unspecified.as_str_name()),
        vcpus: facts.vcpus,
        memory_max_bytes: facts.memory_max_bytes,
        last_sample_unix_ms: vm.last_sample_unix_ms,
        absent: absences(&facts.absences),
        display_name: facts.display_name,
        values: values.map(|values| values.into_iter().filter_map(value).collect()),
    }
}

pub(crate) fn container(container: Container, values: Option<Vec<MetricValue>>) -> ContainerView {
    let facts: ContainerFacts = container.facts.unwrap_or_default();
    ContainerView {
        name: container.name,
        node: container.node,
        runtime: lower(facts.runtime().as_str_name(), "CONTAINER_RUNTIME_UNSPECIFIED"),
        absent: absences(&facts.absences),
        id: facts.id,
        display_name: facts.display_name,
        name_unknown_reason: facts.name_unknown_reason,
        cgroup_path: facts.cgroup_path,
        last_sample_unix_ms: container.last_sample_unix_ms,
        values: values.map(|values| values.into_iter().filter_map(value).collect()),
    }
}

impl NodeView {
    pub(crate) fn values(&self) -> &[ValueView] {
        self.values.as_deref().unwrap_or_default()
    }

    pub(crate) fn troubles(&self) -> impl Iterator<Item = String> {
        let troubled = self.sources.iter().filter(|s| s.state != "ok");
        troubled.map(|s| format!("{}: {} ({})", s.source, s.state, s.detail))
    }
}

impl VmView {
    pub(crate) fn values(&self) -> &[ValueView] {
        self.values.as_deref().unwrap_or_default()
    }
}

impl ContainerView {
    pub(crate) fn values(&self) -> &[ValueView] {
        self.values.as_deref().unwrap_or_default()
    }
}

/// A list in the form that was asked for.
pub(crate) fn list<T: Row + Serialize>(rows: &[T], output: Output) -> anyhow::Result<String> {
    match output {
        Output::Table => Ok(table(rows)),
        Output::Json | Output::Yaml => data(&rows, output),
    }
}

/// JSON or YAML.
pub(crate) fn data<T: Serialize>(value: &T, output: Output) -> anyhow::Result<String> {
    match output {
        Output::Yaml => serde_yaml_ng::to_string(value).context("print YAML"),
        Output::Json | Output::Table => {
            serde_json::to_string_pretty(value).map(|text| text + "\n").context("print JSON")
        }
    }
}

pub(crate) fn table<T: Row>(rows: &[T]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
    let mut widths: Vec<usize> = T::HEADERS.iter().map(|h| h.chars().count()).collect();
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let headers: Vec<String> = T::HEADERS.iter().map(|h| (*h).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&headers).chain(&cells) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // What a guest is called must not move the cursor.
            let clean: String = cell.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
            line.push_str(&format!("{clean:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A number as people read it.
pub(crate) fn humanise(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => scaled(value, ""),
        Unit::BytesPerSecond => scaled(value, "/s"),
        Unit::Percent => format!("{value:.1} %"),
        Unit::Nanoseconds => format!("{:.3} s", value / 1e9),
        Unit::Seconds => format!("{value:.0} s"),
        Unit::PerSecond => format!("{value:.1} /s"),
        Unit::Count | Unit::Unspecified if value.fract() == 0.0 => format!("{value:.0}"),
        Unit::Count | Unit::Unspecified => format!("{value:.2}"),
    }
}

/// `node_connected` of an event's kind.
pub(crate) fn event_kind(kind: EventKind) -> String {
    lower(kind.as_str_name(), EventKind::Unspecified.as_str_name())
}

fn scaled(value: f64, per: &str) -> String {
    let mut scaled = value;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if scaled.abs() < 1024.0 {
            let digits = if unit == "B" { 0 } else { 1 };
            return format!("{scaled:.digits$} {unit}{per}");
        }
        scaled /= 1024.0;
    }
    format!("{scaled:.1} PiB{per}")
}

fn value(value: MetricValue) -> Option<ValueView> {
    let info = catalogue::info(value.metric())?;
    let source = lower(value.source().as_str_name(), Source::Unspecified.as_str_name());
    Some(ValueView {
        metric: info.name,
        unit: info.unit.as_str_name().trim_start_matches("UNIT_").to_lowercase(),
        source,
        instance: value.instance,
        value: value.value,
        taken_unix_ms: value.taken_unix_ms,
        absent_reason: value.absent_reason,
    })
}

fn absences(absences: &[Absence]) -> Vec<AbsenceView> {
    let name = |a: &Absence| catalogue::info(a.metric()).map_or("unknown", |info| info.name).to_owned();
    absences.iter().map(|a| AbsenceView { metric: name(a), reason: a.reason.clone() }).collect()
}

/// `NODE_STATE_CONNECTED` as `connected`, given the enum's `NODE_STATE_UNSPECIFIED`.
fn lower(name: &str, unspecified: &str) -> String {
    let prefix = unspecified.trim_end_matches("UNSPECIFIED");
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

fn short(name: &str) -> &str {
    name.split_once('/').map_or(name, |(_, rest)| rest)
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(dash, |value| value.to_string())
}

fn dash() -> String {
    "-".to_owned()
}

fn float(value: u64) -> f64 {
    horcrux_proto::rates::float(value)
}

#[cfg(test)]
mod tests {
    use horcrux_proto::v1::NodeFacts;

    use super::*;

    fn web1() -> NodeView {
        let facts = NodeFacts {
            hostname: "web1".into(),
            os: Some("Debian GNU/Linux 12 (bookworm)".into()),
            kernel: "6.1.0".into(),
            cpus: 8,
            memory_bytes: 16 << 30,
            ..NodeFacts::default()
        };
        let state = NodeState::Connected.into();
        node(Node { name: "nodes/web1".into(), state, facts: Some(facts), ..Node::default() }, None)
    }

    #[test]
    fn a_table_is_aligned_and_has_dashes_for_what_is_unknown() {
        let bare = node(
            Node { name: "nodes/b".into(), state: NodeState::NeverSeen.into(), ..Node::default() },
            None,
        );
        let expected = "\
NAME  STATE       CPUS  MEMORY    OS                              KERNEL  AGENT
web1  connected   8     16.0 GiB  Debian GNU/Linux 12 (bookworm)  6.1.0   -
b     never_seen  -     -         -                               -       -
";
        assert_eq!(table(&[web1(), bare]), expected);
    }

    #[test]
    fn json_has_raw_numbers() {
        let text = list(&[web1()], Output::Json).unwrap();
        assert!(text.contains("\"memory_bytes\": 17179869184"), "{text}");
    }

    #[test]
    fn text_from_a_guest_cannot_move_the_cursor() {
        let facts = VmFacts { display_name: "a\u{1b}[2Jb".into(), ..VmFacts::default() };
        let view = vm(Vm { facts: Some(facts), ..Vm::default() }, None);
        assert!(!table(&[view]).contains('\u{1b}'));
    }

    #[test]
    fn numbers_are_humanised_by_their_unit() {
        assert_eq!(humanise(1536.0, Unit::Bytes), "1.5 KiB");
        assert_eq!(humanise(12.34, Unit::Percent), "12.3 %");
        assert_eq!(humanise(3.0, Unit::Count), "3");
        assert_eq!(humanise(0.25, Unit::Count), "0.25");
    }
}
