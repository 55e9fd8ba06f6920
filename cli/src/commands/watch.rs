//! Following changes as lines.

use std::time::Duration;

use horcrux_proto::catalogue;
use horcrux_proto::v1::watch_service_client::WatchServiceClient;
use horcrux_proto::v1::{Metric, Topic as Wire, WatchRequest, entity};
use horcrux_transport::backoff::{Backoff, draw};
use serde_json::{Map, Value, json};
use tonic::Code;

use super::print;
use crate::args::{Output, Topic, Watch};
use crate::contexts::Home;
use crate::fleet::{Fleet, Row};
use crate::session::signed;
use crate::view::{self, humanise};

const FIRST_RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// What a table line shows of each kind of object.
const NODE: [Metric; 5] = [
    Metric::NodeCpuUsage,
    Metric::NodeMemoryUsage,
    Metric::NodeLoad1m,
    Metric::NodeNetworkRxRate,
    Metric::NodeNetworkTxRate,
];
const VM: [Metric; 4] =
    [Metric::VmCpuUsage, Metric::VmMemoryResident, Metric::VmNetworkRxRate, Metric::VmNetworkTxRate];
const CONTAINER: [Metric; 3] =
    [Metric::ContainerCpuUsage, Metric::ContainerMemoryWorkingSet, Metric::ContainerPids];

/// Follows until interrupted, connecting again when the stream breaks.
pub(super) async fn watch(
    home: &Home,
    context: Option<&str>,
    output: Output,
    watch: Watch,
) -> anyhow::Result<()> {
    let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let mut told = false;
        let ended = tokio::select! {
            ended = follow(home, context, output, &watch, &mut told) => ended,
            _ = &mut interrupted => return Ok(()),
        };
        if told {
            backoff.succeeded();
        }
        let Err(error) = ended else { return Ok(()) };
        let status = error.downcast_ref::<tonic::Status>().map(tonic::Status::code);
        // Before the first message a failure is the user's to see; after it, the stream is taken up again.
        let lasting = matches!(status, Some(Code::Unauthenticated | Code::PermissionDenied | Code::NotFound));
        if !told || lasting {
            return Err(error);
        }
        let wait = backoff.failed(draw());
        eprintln!("horcruxctl: the stream broke ({error:#}); trying again in {} ms", wait.as_millis());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = &mut interrupted => return Ok(()),
        }
    }
}

async fn follow(
    home: &Home,
    context: Option<&str>,
    output: Output,
    watch: &Watch,
    told: &mut bool,
) -> anyhow::Result<()> {
    let (_, channel, bearer) = signed(home, context).await?;
    let topics = watch.topics.iter().map(|topic| i32::from(wire(*topic))).collect();
    let request = WatchRequest { topics, nodes: watch.node.clone(), ..WatchRequest::default() };
    let mut stream = WatchServiceClient::with_interceptor(channel, bearer).watch(request).await?.into_inner();
    let mut fleet = Fleet::default();
    while let Some(message) = stream.message().await? {
        *told = true;
        let change = fleet.apply(message);
        if let Some((ticks, events)) = change.gap {
            eprintln!("horcruxctl: fell behind: {ticks} updates and {events} events were missed");
        }
        for event in change.events {
            let kind = view::event_kind(event.kind());
            match output {
                Output::Table => {
                    print(&format!("{kind}  {}  {}\n", event.resource, printable(&event.detail)))?;
                }
                Output::Json | Output::Yaml => line(&json!({
                    "at_unix_ms": event.at_unix_ms, "event": kind, "resource": event.resource,
                    "detail": event.detail,
                }))?,
            }
        }
        for row in change.touched.iter().filter_map(|slot| fleet.row(*slot)) {
            match output {
                Output::Table => print(&format!("{}\n", table_line(row)))?,
                Output::Json | Output::Yaml => line(&json_line(row))?,
            }
        }
    }
    anyhow::bail!("the controller closed the stream")
}

fn wire(topic: Topic) -> Wire {
    match topic {
        Topic::Nodes => Wire::NodeMetrics,
        Topic::Vms => Wire::VmMetrics,
        Topic::Containers => Wire::ContainerMetrics,
        Topic::Status => Wire::Status,
        Topic::Events => Wire::Events,
    }
}

fn line(value: &Value) -> anyhow::Result<()> {
    print(&format!("{value}\n"))
}

fn resource(row: &Row) -> (&str, String, &[Metric]) {
    match &row.object {
        entity::Object::Node(node) => {
            let state = node.state().as_str_name().trim_start_matches("NODE_STATE_").to_lowercase();
            (&node.name, state, &NODE)
        }
        entity::Object::Vm(vm) => {
            let name = vm.facts.as_ref().map(|f| printable(&f.display_name)).unwrap_or_default();
            (&vm.name, name, &VM)
        }
        entity::Object::Container(container) => {
            let name = container.facts.as_ref().and_then(|f| f.display_name.as_deref());
            (&container.name, name.map(printable).unwrap_or_default(), &CONTAINER)
        }
    }
}

fn table_line(row: &Row) -> String {
    let (name, about, metrics) = resource(row);
    let mut text = format!("{name}  {about}");
    for metric in metrics {
        let Some(info) = catalogue::info(*metric) else { continue };
        let value = row.value(*metric).map_or_else(|| "-".to_owned(), |value| humanise(value, info.unit));
        let short = info.name.split_once('_').map_or(info.name, |(_, rest)| rest);
        text.push_str(&format!("  {short} {value}"));
    }
    text
}

fn json_line(row: &Row) -> Value {
    let (name, about, _) = resource(row);
    let values: Map<String, Value> = row
        .values
        .iter()
        .filter_map(|((metric, instance), value)| {
            let info = catalogue::info(Metric::try_from(*metric).ok()?)?;
            let key =
                if instance.is_empty() { info.name.to_owned() } else { format!("{}/{instance}", info.name) };
            Some((key, json!(value)))
        })
        .collect();
    json!({ "resource": name, "about": about, "taken_unix_ms": row.taken_unix_ms, "values": values })
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
