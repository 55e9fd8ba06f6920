//! What tests of access begin with: a node with two VMs, a pool, and bob.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use horcrux_integration_tests::{Caller, Controller, Heard, Person, PlayedNode};
use horcrux_proto::v1::audit_service_client::AuditServiceClient;
use horcrux_proto::v1::entity::Object;
use horcrux_proto::v1::watch_response::Message;
use horcrux_proto::v1::watch_service_client::WatchServiceClient;
use horcrux_proto::v1::{FollowRequest, FollowResponse, Snapshot, WatchRequest, WatchResponse};
use horcrux_transport::clock;

/// From the moment that somebody asks for it, the client's own start included.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

pub(crate) const WEB: &str = "aaaaaaaa-0000-4000-8000-000000000001";
pub(crate) const OTHER: &str = "aaaaaaaa-0000-4000-8000-000000000002";

/// A controller with a node `here`, its VMs `web1` (in the pool `web`) and `other1`, and bob, who holds nothing yet.
pub(crate) struct Scene {
    pub(crate) bob: Person,
    pub(crate) admin: Person,
    _node: PlayedNode,
    // Dropped last: the others talk to it.
    pub(crate) controller: Controller,
}

/// What bob has open.
pub(crate) struct Open {
    pub(crate) watch: Heard<WatchResponse>,
    pub(crate) follow: Heard<FollowResponse>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let controller = Controller::start().unwrap();
        let node = controller.play("here", &[(WEB, "web1"), (OTHER, "other1")]).unwrap();
        let (admin, bob) = (controller.administrator().unwrap(), controller.person("bob").unwrap());
        admin.done(&["pool", "create", "web"]).unwrap();
        admin.done(&["pool", "add", "web", "vms/web1"]).unwrap();
        Self { bob, admin, _node: node, controller }
    }

    /// Gives bob a role; says under which id.
    pub(crate) fn grant(&self, role: &str, path: &str) -> String {
        self.granted(&["--user", "bob", "--role", role, "--path", path])
    }

    pub(crate) fn granted(&self, what: &[&str]) -> String {
        let made = self.admin.json(&[&["grant", "create", "--yes"], what].concat()).unwrap();
        made["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn revoke(&self, grant: &str) {
        self.admin.done(&["grant", "delete", grant, "--yes"]).unwrap();
    }
}

pub(crate) fn watch(caller: &Caller) -> Heard<WatchResponse> {
    let open = |wire| async { WatchServiceClient::new(wire).watch(WatchRequest::default()).await };
    caller.stream(open).unwrap()
}

pub(crate) fn follow(caller: &Caller) -> Heard<FollowResponse> {
    let open = |wire| async { AuditServiceClient::new(wire).follow(FollowRequest::default()).await };
    caller.stream(open).unwrap()
}

/// Both streams, with what the first snapshot shows.
pub(crate) fn open(caller: &Caller) -> Open {
    let open = Open { watch: watch(caller), follow: follow(caller) };
    assert_eq!(shown(&open.watch), names(&["nodes/here", WEB, OTHER]));
    open.follow.until("the log's first word", Some).unwrap();
    open
}

pub(crate) fn names(all: &[&str]) -> BTreeSet<String> {
    let full = |name: &&str| if name.contains('/') { (*name).to_owned() } else { format!("vms/{name}") };
    all.iter().map(full).collect()
}

/// What the next snapshot shows, read to its end.
pub(crate) fn shown(watch: &Heard<WatchResponse>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let piece = |message: WatchResponse| match message.message {
        Some(Message::Snapshot(Snapshot { entities, complete, .. })) => {
            seen.extend(entities.into_iter().filter_map(|entity| match entity.object? {
                Object::Node(node) => Some(node.name),
                Object::Vm(vm) => Some(vm.name),
                Object::Container(container) => Some(container.name),
            }));
            complete.then_some(())
        }
        _ => None,
    };
    watch.until("a snapshot", piece).unwrap();
    seen
}

/// When a gap says that a new snapshot replaces all that was shown.
pub(crate) fn gap(watch: &Heard<WatchResponse>) -> Instant {
    let gap = |message: WatchResponse| matches!(message.message, Some(Message::Gap(_))).then_some(());
    watch.until("a gap", gap).unwrap().0
}

pub(crate) fn in_time(what: &str, began: Instant, ended: Instant) {
    let took = ended.saturating_duration_since(began);
    eprintln!("{what}: {} ms", took.as_millis());
    assert!(took < LIMIT, "{what} took {took:?}");
}

/// When a grant ends, by the clock that streams are timed with.
pub(crate) fn end_of(grant: &serde_json::Value) -> Instant {
    let left = grant["not_after_unix_ms"].as_i64().unwrap() - clock::unix_ms();
    clock::monotonic() + Duration::from_millis(u64::try_from(left).unwrap_or_default())
}
