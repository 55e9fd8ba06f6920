//! This node as a controller would show it: the model of `horcrux-live` with one node in it, fed with the very messages
//! that the link sends. So what is computed here is what is computed there, by the same code from the same numbers.

use std::path::Path;
use std::time::Duration;

use horcrux_live::feed::Sight;
use horcrux_live::fleet::{Applied, Enrolled, Fleet, LinkId, Patience};
use horcrux_live::{Live, Stopped, Writer};
use horcrux_proto::agent::v1::SampleBatch;
use horcrux_proto::name::{NodeName, PoolName, Resource};
use horcrux_transport::clock;

use crate::identity;
use crate::link::dictionary::{self, Dictionary};
use crate::link::off;
use crate::present::News;
use crate::sample::Cycle;

/// What this host's users see: everything that is on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Everything;

impl Sight for Everything {
    fn sees(&self, resource: &Resource) -> bool {
        match resource {
            Resource::Node(_) | Resource::Vm(_) | Resource::Container(..) => true,
            Resource::Root | Resource::Pool(_) => false,
        }
    }

    fn is_in(&self, _: &Resource, _: &std::collections::BTreeSet<PoolName>) -> bool {
        false
    }
}

/// Tells the model what the lanes read.
#[derive(Debug)]
pub struct Shown {
    node: NodeName,
    live: Live<Everything>,
    dictionary: Dictionary,
}

/// One reading, for the model.
#[derive(Debug)]
pub(super) struct Told {
    news: Vec<News>,
    batches: Vec<SampleBatch>,
}

/// There is one stream, and it doesn't end.
const LINK: LinkId = LinkId(1);
/// It may be silent for as long as it likes: which lane is stuck is told of its source.
const FOREVER: Patience = Patience { late_after: Duration::MAX, down_after: Duration::MAX };

impl Shown {
    /// A model of this node, and its owner.
    #[must_use]
    pub fn new(node: &Enrolled, name: NodeName) -> (Self, Live<Everything>, Writer<Everything>) {
        let mut fleet = Fleet::new(FOREVER);
        let (now, now_ms) = (clock::monotonic(), clock::unix_ms());
        fleet.enrolled(node, now, now_ms);
        fleet.is_here(&name, LINK, env!("CARGO_PKG_VERSION"), now, now_ms);
        let (live, writer) = horcrux_live::new(fleet);
        (Self { node: name, live: live.clone(), dictionary: Dictionary::default() }, live, writer)
    }

    /// What follows from a reading.
    pub(super) fn take(&mut self, lane: &'static str, cycle: &Cycle, news: Vec<News>) -> Told {
        let mut off: Vec<u32> = off(&cycle.found).flat_map(|vm| self.dictionary.forget(&vm)).collect();
        let parts = dictionary::parts(cycle);
        let mut batches = self.dictionary.encode(lane, cycle, &parts, 0, true).batches;
        if let Some(last) = batches.last_mut() {
            last.retired.append(&mut off);
        }
        Told { news, batches }
    }

    /// Waits for the model's owner, who waits for nobody.
    pub(super) async fn tell(&mut self, Told { news, batches }: Told) -> Result<(), Stopped> {
        self.tell_news(news).await?;
        for batch in batches {
            match self.live.samples(&self.node, LINK, Box::new(batch)).await? {
                Applied::Yes | Applied::Stale => {}
                Applied::Unknown => self.dictionary.untold(),
                Applied::TooMany => tracing::debug!("more series than are shown of one node"),
            }
        }
        Ok(())
    }

    pub(super) async fn tell_news(&self, news: Vec<News>) -> Result<(), Stopped> {
        if news.iter().all(|news| *news == News::default()) {
            return Ok(());
        }
        let node = self.node.clone();
        self.live
            .ask(move |fleet| {
                for News { inventory, events } in news {
                    if let Some(inventory) = inventory {
                        fleet.inventory(&node, &inventory);
                    }
                    for event in events {
                        fleet.event(&node, 0, &event);
                    }
                }
            })
            .await
    }
}

/// What is on record here of this node: what it enrolled as, or what the host is called.
#[must_use]
pub fn this_node(state_dir: &Path, root: &Path) -> (Enrolled, NodeName) {
    if let Ok(known) = identity::Enrolled::load(state_dir)
        && let Ok(name) = known.facts.node.trim_start_matches("nodes/").parse::<NodeName>()
    {
        let enrolled = Enrolled {
            name: name.to_string(),
            expires_ms: known.facts.certificate_expires_unix_ms,
            ..Enrolled::default()
        };
        return (enrolled, name);
    }
    let hostname = std::fs::read_to_string(root.join("proc/sys/kernel/hostname")).unwrap_or_default();
    let name = node_name(&hostname);
    (Enrolled { name: name.to_string(), ..Enrolled::default() }, name)
}

/// A host's name as a node's; `localhost` where nothing of it fits.
fn node_name(hostname: &str) -> NodeName {
    let first = hostname.trim().split('.').next().unwrap_or_default().to_lowercase();
    let fits = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let label: String = first.chars().map(fits).take(LONGEST_LABEL).collect();
    let usual = || "localhost".parse().expect("localhost is a node name");
    label.trim_matches('-').parse().unwrap_or_else(|_| usual())
}

/// Of a host's name, and of a node's.
const LONGEST_LABEL: usize = 63;

#[cfg(test)]
mod tests {
    use horcrux_proto::v1::{Metric, MetricValue, NodeFacts, NodeState, Source, VmFacts, VmState, entity};
    use horcrux_transport::tasks::Tasks;

    use super::*;
    use crate::local::{Forward, Local};
    use crate::sample::{Found, Object, ObjectSample, Reading, Taken, Value};

    const UUID: &str = "00000000-0000-0000-0000-000000000001";
    const S: u64 = 1_000_000_000;

    fn cycle(at: u64, found: Found, object: Object, readings: &[(Metric, Value)]) -> Cycle {
        let reading = |&(metric, value)| Reading { metric, instance: "".into(), value, source: Source::Proc };
        let readings: Vec<Reading> = readings.iter().map(reading).collect();
        let samples = if readings.is_empty() { vec![] } else { vec![ObjectSample { object, readings }] };
        Cycle {
            taken: Taken { unix_ms: i64::try_from(at).unwrap() * 1000, boottime_ns: at * S },
            found,
            events: Vec::new(),
            samples,
            sources: Vec::new(),
        }
    }

    fn vm(state: VmState) -> Found {
        Found::Vms(vec![VmFacts {
            uuid: UUID.into(),
            vcpus: Some(2),
            state: state.into(),
            ..VmFacts::default()
        }])
    }

    fn value(values: &[MetricValue], metric: Metric) -> Option<f64> {
        values.iter().find(|value| value.metric() == metric).and_then(|value| value.value)
    }

    #[test]
    fn a_node_is_called_as_its_host_as_far_as_that_is_a_name() {
        for (host, node) in [
            ("web1\n", "web1"),
            ("Web_1.example.org", "web-1"),
            ("-", "localhost"),
            ("", "localhost"),
            (&"x".repeat(70), &"x".repeat(63)),
        ] {
            assert_eq!(node_name(host).as_str(), node, "{host:?}");
        }
    }

    #[tokio::test]
    async fn what_the_lanes_read_is_shown_with_what_is_computed_from_it() {
        let name: NodeName = "web1".parse().unwrap();
        let enrolled = Enrolled { name: name.to_string(), ..Enrolled::default() };
        let (shown, live, writer) = Shown::new(&enrolled, name.clone());
        let (tap, _local) = Local::tapped(Vec::new(), Forward::Nowhere);
        let mut tap = tap.showing(shown);
        let mut tasks = Tasks::default();
        tasks.spawn("live", |stop| writer.run(stop));
        let facts = NodeFacts { cpus: 4, hostname: "web1".into(), ..NodeFacts::default() };
        let uuid = Object::Vm(UUID.parse().unwrap());
        for at in 1..=2 {
            let load = [(Metric::NodeLoad1m, Value::Gauge(1.5))];
            tap.take("node", cycle(at, Found::Node(Box::new(facts.clone())), Object::Node, &load)).await;
            let time = [(Metric::VmCpuTime, Value::Counter(at * S))];
            tap.take("vms", cycle(at, vm(VmState::Running), uuid.clone(), &time)).await;
        }
        let whole = |resource: Resource| live.ask(move |fleet| horcrux_live::select::whole(fleet, &resource));
        let (entity, values) = whole(Resource::Node(name.clone())).await.unwrap().unwrap();
        let entity::Object::Node(node) = entity else { panic!("{entity:?}") };
        assert_eq!(node.state(), NodeState::Here, "there is no controller that it could be connected to");
        assert_eq!(node.facts.unwrap().cpus, 4);
        assert_eq!(node.agent_version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(node.clock_offset_ms, None, "there is no other clock");
        assert_eq!(value(&values, Metric::NodeLoad1m), Some(1.5));
        let vm_name = Resource::Vm(UUID.parse().unwrap());
        let (_, values) = whole(vm_name.clone()).await.unwrap().unwrap();
        assert_eq!(value(&values, Metric::VmCpuUsage), Some(50.0), "one of two vCPUs");
        tap.take("vms", cycle(3, vm(VmState::ShutOff), uuid.clone(), &[])).await;
        let (_, values) = whole(vm_name.clone()).await.unwrap().unwrap();
        assert_eq!(values, [], "of a VM that is off nothing holds any more");
        tap.take("vms", cycle(4, Found::Vms(Vec::new()), uuid, &[])).await;
        assert_eq!(whole(vm_name).await.unwrap(), None);
        tasks.run(async {}, Duration::from_secs(5)).await.unwrap();
    }
}
