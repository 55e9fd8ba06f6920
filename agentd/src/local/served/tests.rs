//! The socket, asked as a client does.

use std::path::PathBuf;
use std::time::Duration;

use horcrux_live::fleet::Enrolled;
use horcrux_proto::authz::requirement;
use horcrux_proto::name::NodeName;
use horcrux_proto::v1::node_service_client::NodeServiceClient;
use horcrux_proto::v1::user_service_client::UserServiceClient;
use horcrux_proto::v1::vm_service_client::VmServiceClient;
use horcrux_proto::v1::watch_service_client::WatchServiceClient;
use horcrux_proto::v1::{
    GetRecentRequest, LockRequest, Metric, NodeFacts, NodeServiceGetRequest, NodeServiceListRequest, Source,
    UserServiceListRequest, VmServiceGetRequest, VmServiceListRequest, WatchRequest, watch_response::Message,
};
use horcrux_transport::socket;
use horcrux_transport::tasks::Tasks;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tonic::Code;
use tonic::transport::Channel;

use super::{AgentSocket, SERVED};
use crate::local::{Forward, Local, Shown};
use crate::sample::{Cycle, Found, Object, ObjectSample, Reading, Taken, Value};

const DEADLINE: Duration = Duration::from_secs(10);

/// A node's agent as far as its socket goes, and a client of it.
struct Agent {
    channel: Channel,
    lanes: mpsc::Sender<(&'static str, Cycle)>,
    tasks: Tasks,
    path: PathBuf,
    _dir: TempDir,
}

impl Agent {
    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("run/agent.sock");
        let name: NodeName = "web1".parse().unwrap();
        let enrolled = Enrolled { name: name.to_string(), ..Enrolled::default() };
        let (shown, live, writer) = Shown::new(&enrolled, name.clone());
        let socket = AgentSocket::bind(&path, name, live).unwrap();
        let (tap, _) = Local::tapped(Vec::new(), Forward::Nowhere);
        let tap = tap.showing(shown);
        let (lanes, cycles) = mpsc::channel(16);
        let mut tasks = Tasks::default();
        tasks.spawn("live", |stop| writer.run(stop));
        tasks.spawn("tap", |stop| tap.run(cycles, stop));
        tasks.spawn("agent-socket", |stop| socket.run(stop));
        let channel = socket::channel(&path, "test", DEADLINE).await.unwrap();
        Self { channel, lanes, tasks, path, _dir: dir }
    }

    async fn read(&self, second: u64, readings: Vec<Reading>) {
        let facts = NodeFacts { hostname: "web1".into(), ..NodeFacts::default() };
        let cycle = Cycle {
            taken: Taken {
                unix_ms: i64::try_from(second).unwrap() * 1000,
                boottime_ns: second * 1_000_000_000,
            },
            found: Found::Node(Box::new(facts)),
            events: Vec::new(),
            samples: vec![ObjectSample { object: Object::Node, readings }],
            sources: Vec::new(),
        };
        self.lanes.send(("node", cycle)).await.unwrap();
    }

    async fn stop(self) {
        drop(self.channel);
        self.tasks.run(async {}, DEADLINE).await.unwrap();
    }
}

fn load(value: f64) -> Reading {
    Reading {
        metric: Metric::NodeLoad1m,
        instance: "".into(),
        value: Value::Gauge(value),
        source: Source::Proc,
    }
}

#[test]
fn nothing_that_is_served_changes_anything() {
    for method in SERVED {
        let known = requirement(method).unwrap_or_else(|| panic!("{method} is not in the contract"));
        assert!(!known.mutation, "{method}");
    }
}

#[tokio::test]
async fn this_node_is_the_only_one() {
    let agent = Agent::start().await;
    let mut nodes = NodeServiceClient::new(agent.channel.clone());
    let list = nodes.list(NodeServiceListRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["nodes/web1"]);
    for (name, code) in [("web1", Code::Ok), ("nodes/web1", Code::Ok), ("web2", Code::NotFound)] {
        let got = nodes.get(NodeServiceGetRequest { name: name.into() }).await;
        assert_eq!(got.map_or_else(|status| status.code(), |_| Code::Ok), code, "{name}");
    }
    let mut vms = VmServiceClient::new(agent.channel.clone());
    let elsewhere = VmServiceListRequest { node: "nodes/web2".into(), ..VmServiceListRequest::default() };
    assert_eq!(vms.list(elsewhere).await.unwrap_err().code(), Code::NotFound);
    let none = vms.get(VmServiceGetRequest { name: "x".into() }).await.unwrap_err();
    assert_eq!((none.code(), none.message()), (Code::NotFound, "no VM \"x\" is on this node"));
    drop((nodes, vms));
    agent.stop().await;
}

#[tokio::test]
async fn what_only_a_controller_has_is_refused_and_says_where_it_is() {
    let agent = Agent::start().await;
    let refused = [
        NodeServiceClient::new(agent.channel.clone())
            .lock(LockRequest { name: "nodes/web1".into(), ..LockRequest::default() })
            .await
            .unwrap_err(),
        UserServiceClient::new(agent.channel.clone())
            .list(UserServiceListRequest::default())
            .await
            .unwrap_err(),
        WatchServiceClient::new(agent.channel.clone())
            .get_recent(GetRecentRequest::default())
            .await
            .unwrap_err(),
        WatchServiceClient::new(agent.channel.clone())
            .watch(WatchRequest { pools: vec!["pools/ci".into()], ..WatchRequest::default() })
            .await
            .unwrap_err(),
    ];
    for status in refused {
        assert_eq!(status.code(), Code::Unimplemented, "{status}");
        assert!(status.message().contains("agent") && status.message().contains("controller"), "{status}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_watcher_is_told_what_there_is_and_then_what_changes() {
    let agent = Agent::start().await;
    agent.read(1, vec![load(1.0)]).await;
    let mut watch = WatchServiceClient::new(agent.channel.clone());
    let mut stream = watch.watch(WatchRequest::default()).await.unwrap().into_inner();
    let mut next = async || stream.message().await.unwrap().unwrap().message.unwrap();
    assert!(matches!(next().await, Message::Hello(_)));
    let Message::Snapshot(snapshot) = next().await else { panic!("no snapshot") };
    assert_eq!((snapshot.entities.len(), snapshot.complete), (1, true));
    agent.read(2, vec![load(7.0)]).await;
    loop {
        let Message::Changes(changes) = next().await else { continue };
        let value = changes
            .frames
            .iter()
            .flat_map(|frame| &frame.columns)
            .find_map(|column| (column.metric() == Metric::NodeLoad1m).then(|| column.values.to_vec()));
        if value == Some(7.0_f32.to_le_bytes().to_vec()) {
            break;
        }
    }
    drop((stream, watch));
    agent.stop().await;
}

#[tokio::test]
async fn no_user_takes_all_places_of_watchers() {
    let agent = Agent::start().await;
    agent.read(1, vec![load(1.0)]).await;
    let mut held = Vec::new();
    let mut watch = WatchServiceClient::new(agent.channel.clone());
    // As many as a connection has streams.
    for _ in 0..16 {
        held.push(watch.watch(WatchRequest::default()).await.unwrap().into_inner());
    }
    let other = socket::channel(&agent.path, "test", DEADLINE).await.unwrap();
    let mut another = WatchServiceClient::new(other);
    let refused = another.watch(WatchRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, "too many watch this agent"));
    drop(held.pop());
    // The place is free when the agent has heard of it.
    let again = tokio::time::timeout(DEADLINE, async {
        while another.watch(WatchRequest::default()).await.is_err() {
            tokio::task::yield_now().await;
        }
    });
    again.await.unwrap();
    drop((held, watch, another));
    agent.stop().await;
}

#[tokio::test]
async fn a_watcher_that_does_not_read_holds_nobody_up_and_is_told_what_it_missed() {
    let agent = Agent::start().await;
    // Enough instances that a few ticks fill what the connection holds.
    let many = |value: f64| -> Vec<Reading> {
        (0..12000)
            .map(|number| Reading {
                metric: Metric::NodeDiskUtilisation,
                instance: format!("a-disk-with-a-long-name-{number}").into(),
                value: Value::Gauge(value),
                source: Source::Proc,
            })
            .collect()
    };
    agent.read(1, many(0.0)).await;
    let mut watch = WatchServiceClient::new(agent.channel.clone());
    let request = WatchRequest { instances: true, ..WatchRequest::default() };
    let mut slow = watch.watch(request).await.unwrap().into_inner();
    // More ticks than a ring holds; each reading is taken at once all the same.
    for second in 2..42 {
        let taken = agent.read(second, many(f64::from(u32::try_from(second).unwrap())));
        tokio::time::timeout(Duration::from_secs(5), taken).await.unwrap();
        tokio::time::sleep(horcrux_live::TICK).await;
    }
    let gap = loop {
        match slow.message().await.unwrap().unwrap().message.unwrap() {
            Message::Gap(gap) => break gap,
            Message::Hello(_) | Message::Snapshot(_) | Message::Changes(_) | Message::Heartbeat(_) => {}
        }
    };
    assert!(gap.missed_ticks > 0, "{gap:?}");
    assert!(matches!(slow.message().await.unwrap().unwrap().message.unwrap(), Message::Snapshot(_)));
    drop((slow, watch));
    agent.stop().await;
}
