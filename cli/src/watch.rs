//! `horcruxctl watch`: one line per change. Lines are data and go to stdout; connections and gaps are talk.

use std::collections::BTreeMap;

use anyhow::Context as _;
use horcrux_proto::name::VmUuid;
use horcrux_proto::v1::{EventKind, Metric, Topic, WatchRequest, entity::Object};
use horcrux_transport::clock;
use horcrux_transport::signal;
use horcrux_transport::tasks::Tasks;
use serde::Serialize;

use crate::args::guest::{WatchArgs, WatchTopic};
use crate::failure::Failure;
use crate::feed::{self, Heard};
use crate::fleet::{Change, Fleet, Thing};
use crate::inventory::{node_resource, vm};
use crate::session::Session;
use crate::view::container::ContainerView;
use crate::view::node::NodeView;
use crate::view::quantity::{millis, with_unit};
use crate::view::time::utc_clock;
use crate::view::value::metric_name_with_unit;
use crate::view::vm::VmView;
use crate::view::{Output, bare, shown, word};
use crate::{App, Reader, write_out};

/// One change, for programs.
#[derive(Debug, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Line {
    /// It exists: said of all things at first and after each gap.
    Present {
        resource: String,
        object: ThingLine,
    },
    /// It is new, or is not what it was.
    Changed {
        resource: String,
        object: ThingLine,
    },
    Values {
        resource: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        display_name: Option<String>,
        /// By its node's clock.
        taken_unix_ms: Option<i64>,
        /// By name with unit; an instance follows in braces. A stream has them in single precision, which is seven digits;
        /// `get` has all.
        values: BTreeMap<String, f64>,
    },
    Gone {
        resource: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        display_name: Option<String>,
    },
    Event {
        at_unix_ms: i64,
        resource: String,
        /// While it is here.
        #[serde(skip_serializing_if = "Option::is_none")]
        display_name: Option<String>,
        kind: String,
        detail: String,
    },
    Gap {
        missed_ticks: u64,
        missed_events: u64,
    },
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ThingLine {
    Node(Box<NodeView>),
    Vm(VmView),
    Container(ContainerView),
}

/// What a line of a person's table shows of values, in this order.
const HEADLINES: &[(Metric, &str)] = &[
    (Metric::NodeCpuUsage, "cpu"),
    (Metric::NodeMemoryUsage, "memory"),
    (Metric::NodeLoad1m, "load"),
    (Metric::NodeDiskReadRate, "read"),
    (Metric::NodeDiskWriteRate, "write"),
    (Metric::NodeNetworkRxRate, "rx"),
    (Metric::NodeNetworkTxRate, "tx"),
    (Metric::VmCpuUsage, "cpu"),
    (Metric::VmMemoryUsage, "memory"),
    (Metric::VmDiskReadRate, "read"),
    (Metric::VmDiskWriteRate, "write"),
    (Metric::VmNetworkRxRate, "rx"),
    (Metric::VmNetworkTxRate, "tx"),
    (Metric::ContainerCpuUsage, "cpu"),
    (Metric::ContainerMemoryUsage, "memory"),
    (Metric::ContainerIoReadRate, "read"),
    (Metric::ContainerIoWriteRate, "write"),
    (Metric::ContainerNetworkRxRate, "rx"),
    (Metric::ContainerNetworkTxRate, "tx"),
    (Metric::ContainerPids, "pids"),
];

pub async fn run(app: &App, args: &WatchArgs) -> Result<(), Failure> {
    if app.output == Output::Yaml {
        return Err(Failure::Usage("watch prints lines: choose -o table or -o json".to_owned()));
    }
    let session = app.session().await?;
    let request = request(&session, args).await?;
    let stopped = signal::terminate().context("wait for signals")?;
    tokio::pin!(stopped);
    let mut tasks = Tasks::default();
    let url = session.url.clone();
    let mut feed = feed::start(&mut tasks, session, request);
    let mut fleet = Fleet::default();
    let mut connected = false;
    loop {
        let heard = tokio::select! {
            heard = feed.recv() => heard,
            () = &mut stopped => return Ok(()),
        };
        match heard {
            Some(Heard::Message(message)) => {
                if !connected {
                    app.say(&format!("connected to {url}"));
                    connected = true;
                }
                let changes = fleet.apply(*message, clock::monotonic());
                let lines = changes.iter().flat_map(|change| lines(&fleet, change));
                if print(app, lines)? == Reader::Left {
                    return Ok(());
                }
            }
            Some(Heard::Lost { why, retry_in }) => {
                connected = false;
                let wait = millis(i64::try_from(retry_in.as_millis()).unwrap_or(i64::MAX));
                app.say(&format!("connection lost: {why}; trying again in {wait}"));
            }
            Some(Heard::Ended(failure)) => return Err(failure),
            None => return Err(Failure::Unreachable("the stream ended".to_owned())),
        }
    }
}

/// What to ask for. VMs that go by a name are looked up first.
async fn request(session: &Session, args: &WatchArgs) -> Result<WatchRequest, Failure> {
    let mut vms = Vec::new();
    for name in &args.vm {
        let short = bare(name);
        let full = if short.parse::<VmUuid>().is_ok() {
            format!("vms/{}", short.to_lowercase())
        } else {
            vm(session, name).await?.vm.name
        };
        vms.push(full);
    }
    Ok(WatchRequest {
        topics: topics(&args.topics).into_iter().map(i32::from).collect(),
        nodes: args.node.iter().map(|name| node_resource(name)).collect(),
        vms,
        pools: Vec::new(),
        instances: false,
    })
}

/// Empty, in the contract: all of them.
fn topics(asked: &[WatchTopic]) -> Vec<Topic> {
    if asked.contains(&WatchTopic::All) {
        return Vec::new();
    }
    asked.iter().filter_map(|&topic| one_topic(topic)).collect()
}

fn one_topic(topic: WatchTopic) -> Option<Topic> {
    match topic {
        WatchTopic::Nodes => Some(Topic::NodeMetrics),
        WatchTopic::Vms => Some(Topic::VmMetrics),
        WatchTopic::Containers => Some(Topic::ContainerMetrics),
        WatchTopic::Status => Some(Topic::Status),
        WatchTopic::Events => Some(Topic::Events),
        WatchTopic::All => None,
    }
}

/// What is to be said of a change.
pub fn lines(fleet: &Fleet, change: &Change) -> Vec<Line> {
    match change {
        Change::Hello => Vec::new(),
        Change::Ready => fleet
            .things()
            .flat_map(|(_, thing)| {
                let values = (thing.values().next().is_some()).then(|| values(thing));
                [Some(Line::Present { resource: thing.name().to_owned(), object: thing.into() }), values]
                    .into_iter()
                    .flatten()
            })
            .collect(),
        Change::Thing(slot) => fleet
            .thing(*slot)
            .map(|thing| Line::Changed { resource: thing.name().to_owned(), object: thing.into() })
            .into_iter()
            .collect(),
        Change::Values(slot) => fleet.thing(*slot).map(values).into_iter().collect(),
        Change::Gone(thing) => {
            vec![Line::Gone { resource: thing.name().to_owned(), display_name: display_name(thing) }]
        }
        Change::Event(event) => vec![Line::Event {
            at_unix_ms: event.at_unix_ms,
            resource: event.resource.clone(),
            display_name: fleet
                .things()
                .find_map(|(_, thing)| (thing.name() == event.resource).then(|| display_name(thing)))
                .flatten(),
            kind: event_word(event.kind()),
            detail: event.detail.clone(),
        }],
        Change::Gap { ticks, events } => vec![Line::Gap { missed_ticks: *ticks, missed_events: *events }],
    }
}

impl From<&Thing> for ThingLine {
    fn from(thing: &Thing) -> Self {
        match &thing.object {
            Object::Node(node) => Self::Node(Box::new(NodeView::from(node))),
            Object::Vm(vm) => Self::Vm(VmView::from(vm)),
            Object::Container(container) => Self::Container(ContainerView::from(container)),
        }
    }
}

fn values(thing: &Thing) -> Line {
    let named = thing.values().map(|(metric, instance, value)| {
        let name = metric_name_with_unit(metric);
        (if instance.is_empty() { name } else { format!("{name}{{{instance}}}") }, value.into())
    });
    Line::Values {
        resource: thing.name().to_owned(),
        display_name: display_name(thing),
        taken_unix_ms: thing.sampled_unix_ms,
        values: named.collect(),
    }
}

/// What people call it, where that isn't its resource name.
fn display_name(thing: &Thing) -> Option<String> {
    let name = match &thing.object {
        Object::Node(_) => None,
        Object::Vm(vm) => vm.facts.as_ref().map(|facts| facts.display_name.clone()),
        Object::Container(container) => container.facts.as_ref().and_then(|facts| facts.display_name.clone()),
    };
    name.filter(|name| !name.is_empty())
}

/// Of an id, as much as tells it from others that a person has before them.
const SHORT_ID: usize = 12;

/// As people know it: `vm web1 (aaaaaaaa-000)`, `node a`.
fn known_as(resource: &str, display_name: Option<&str>) -> String {
    let mut parts = resource.rsplit('/');
    let id = parts.next().unwrap_or_default();
    match (parts.next(), display_name) {
        (Some("nodes"), _) => format!("node {}", shown(id)),
        (Some(kind), Some(name)) => {
            let short: String = id.chars().take(SHORT_ID).collect();
            format!("{} {} ({})", shown(kind.trim_end_matches('s')), shown(name), shown(&short))
        }
        (_, _) => shown(resource),
    }
}

fn event_word(kind: EventKind) -> String {
    word(kind.as_str_name(), "EVENT_KIND_")
}

impl ThingLine {
    fn text(&self) -> String {
        match self {
            Self::Node(node) => format!("node {} {}", shown(bare(&node.name)), node.state),
            Self::Vm(vm) => {
                let at = shown(bare(&vm.node));
                let (name, state) = (shown(&vm.display_name), vm.state_in_words());
                format!("vm {name} {state} on {at} ({})", shown(bare(&vm.name)))
            }
            Self::Container(container) => {
                let name = container.display_name.as_deref().unwrap_or("(unnamed)");
                format!("container {} {} ({})", shown(name), container.runtime, shown(bare(&container.name)))
            }
        }
    }
}

impl Line {
    /// For people. `None`: said on stderr, or nothing that they would look at.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Present { object, .. } => Some(format!("present   {}", object.text())),
            Self::Changed { object, .. } => Some(format!("changed   {}", object.text())),
            Self::Gone { resource, display_name } => {
                Some(format!("gone      {}", known_as(resource, display_name.as_deref())))
            }
            Self::Event { at_unix_ms, resource, display_name, kind, detail } => {
                let (at, who) = (utc_clock(*at_unix_ms), known_as(resource, display_name.as_deref()));
                Some(format!("event     {at} {kind} {who} {}", shown(detail)).trim_end().to_owned())
            }
            Self::Values { resource, display_name, values, .. } => {
                let parts: Vec<String> = HEADLINES
                    .iter()
                    .filter_map(|(metric, label)| {
                        let value = values.get(&metric_name_with_unit((*metric).into()))?;
                        let unit = horcrux_proto::catalogue::info(*metric)?.unit;
                        Some(format!("{label} {}", with_unit(*value, unit)))
                    })
                    .collect();
                let text = if parts.is_empty() { "no values".to_owned() } else { parts.join("  ") };
                Some(format!("values    {}  {text}", known_as(resource, display_name.as_deref())))
            }
            Self::Gap { .. } => None,
        }
    }
}

/// Nothing is missed where the controller begins anew because rights have changed.
fn gap_in_words(missed_ticks: u64, missed_events: u64) -> String {
    if missed_ticks == 0 && missed_events == 0 {
        return "what you may see has changed; a new snapshot follows".to_owned();
    }
    format!(
        "gap: this reader fell behind and missed {missed_ticks} updates and {missed_events} events; a new snapshot \
         follows"
    )
}

fn print(app: &App, lines: impl Iterator<Item = Line>) -> Result<Reader, Failure> {
    let mut text = String::new();
    for line in lines {
        if let Line::Gap { missed_ticks, missed_events } = line {
            app.say(&gap_in_words(missed_ticks, missed_events));
        }
        match app.output {
            Output::Json => text.push_str(&serde_json::to_string(&line).context("write JSON")?),
            Output::Table | Output::Yaml => match line.text() {
                Some(line) => text.push_str(&line),
                None => continue,
            },
        }
        text.push('\n');
    }
    write_out(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing() -> Thing {
        let vm =
            horcrux_proto::v1::Vm { name: "vms/u".into(), node: "nodes/web1".into(), ..Default::default() };
        let mut fleet = Fleet::default();
        let entity = horcrux_proto::v1::Entity { slot: 1, object: Some(Object::Vm(vm)) };
        let snapshot =
            horcrux_proto::v1::Snapshot { entities: vec![entity], complete: true, ..Default::default() };
        let message = horcrux_proto::v1::watch_response::Message::Snapshot(snapshot);
        let message = horcrux_proto::v1::WatchResponse { message: Some(message) };
        fleet.apply(message, clock::monotonic());
        fleet.thing(1).unwrap().clone()
    }

    #[test]
    fn a_line_for_programs_names_its_change_and_kind_first() {
        let thing = thing();
        let line = Line::Present { resource: thing.name().to_owned(), object: ThingLine::from(&thing) };
        let text = serde_json::to_string(&line).unwrap();
        assert!(
            text.starts_with(
                r#"{"change":"present","resource":"vms/u","object":{"kind":"vm","name":"vms/u""#
            ),
            "{text}"
        );
        let values = BTreeMap::from([("vm_cpu_usage_percent".to_owned(), 12.5)]);
        let resource = "vms/u".to_owned();
        let line = Line::Values { resource, display_name: None, taken_unix_ms: Some(1), values };
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            r#"{"change":"values","resource":"vms/u","taken_unix_ms":1,"values":{"vm_cpu_usage_percent":12.5}}"#
        );
        assert_eq!(line.text().unwrap(), "values    vms/u  cpu 12.5 %");
    }

    #[test]
    fn an_events_text_cannot_steer_the_terminal() {
        let line = Line::Event {
            at_unix_ms: 0,
            resource: "vms/u".into(),
            display_name: None,
            kind: "vm-gone".into(),
            detail: "x\u{1b}[2J".into(),
        };
        assert_eq!(line.text().unwrap(), "event     00:00:00Z vm-gone vms/u x\\u{1b}[2J");
    }

    #[test]
    fn people_are_told_of_things_by_their_names() {
        let uuid = "vms/aaaaaaaa-0000-4000-8000-000000000001";
        assert_eq!(known_as(uuid, Some("web1")), "vm web1 (aaaaaaaa-000)");
        assert_eq!(known_as(uuid, None), uuid);
        assert_eq!(known_as("nodes/a", None), "node a");
        assert_eq!(known_as("nodes/a/containers/web", Some("w\u{1b}b")), "container w\\u{1b}b (web)");
    }

    #[test]
    fn a_gap_in_which_nothing_was_missed_is_a_change_of_rights() {
        assert!(gap_in_words(0, 0).starts_with("what you may see has changed"));
        assert!(gap_in_words(3, 0).contains("missed 3 updates and 0 events"));
        assert!(gap_in_words(0, 1).contains("missed 0 updates and 1 events"));
    }

    #[test]
    fn all_means_every_topic() {
        assert!(topics(&[WatchTopic::Nodes, WatchTopic::All]).is_empty());
        assert_eq!(topics(&[WatchTopic::Nodes, WatchTopic::Events]), [Topic::NodeMetrics, Topic::Events]);
    }
}
