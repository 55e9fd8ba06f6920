//! Who loses a right loses what it showed, on streams that are open too, within five seconds. The times are printed.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use horcrux_integration_tests::{Caller, Controller, Heard, Person, PlayedNode, succeeded, wait_until};
use horcrux_proto::v1::audit_service_client::AuditServiceClient;
use horcrux_proto::v1::entity::Object;
use horcrux_proto::v1::watch_response::Message;
use horcrux_proto::v1::watch_service_client::WatchServiceClient;
use horcrux_proto::v1::{FollowRequest, FollowResponse, Snapshot, WatchRequest, WatchResponse};
use horcrux_transport::clock;
use tonic::Code;

/// From the moment that somebody asks for it, the client's own start included.
const LIMIT: Duration = Duration::from_secs(5);

const WEB: &str = "aaaaaaaa-0000-4000-8000-000000000001";
const OTHER: &str = "aaaaaaaa-0000-4000-8000-000000000002";

/// A controller with a node `here`, its VMs `web1` (in the pool `web`) and `other1`, and bob, who holds nothing yet.
struct Scene {
    bob: Person,
    admin: Person,
    _node: PlayedNode,
    // Dropped last: the others talk to it.
    _controller: Controller,
}

/// What bob has open.
struct Open {
    watch: Heard<WatchResponse>,
    follow: Heard<FollowResponse>,
}

impl Scene {
    fn new() -> Self {
        let controller = Controller::start().unwrap();
        let node = controller.play("here", &[(WEB, "web1"), (OTHER, "other1")]).unwrap();
        let (admin, bob) = (controller.administrator().unwrap(), controller.person("bob").unwrap());
        admin.done(&["pool", "create", "web"]).unwrap();
        admin.done(&["pool", "add", "web", "vms/web1"]).unwrap();
        Self { bob, admin, _node: node, _controller: controller }
    }

    /// Gives bob a role; says under which id.
    fn grant(&self, role: &str, path: &str) -> String {
        self.granted(&["--user", "bob", "--role", role, "--path", path])
    }

    fn granted(&self, what: &[&str]) -> String {
        let made = self.admin.json(&[&["grant", "create"], what].concat()).unwrap();
        made["id"].as_str().unwrap().to_owned()
    }

    fn revoke(&self, grant: &str) {
        self.admin.done(&["grant", "delete", grant, "--yes"]).unwrap();
    }
}

fn watch(caller: &Caller) -> Heard<WatchResponse> {
    let open = |wire| async { WatchServiceClient::new(wire).watch(WatchRequest::default()).await };
    caller.stream(open).unwrap()
}

fn follow(caller: &Caller) -> Heard<FollowResponse> {
    let open = |wire| async { AuditServiceClient::new(wire).follow(FollowRequest::default()).await };
    caller.stream(open).unwrap()
}

/// Both streams, with what the first snapshot shows.
fn open(caller: &Caller) -> Open {
    let open = Open { watch: watch(caller), follow: follow(caller) };
    assert_eq!(shown(&open.watch), names(&["nodes/here", WEB, OTHER]));
    open.follow.until("the log's first word", Some).unwrap();
    open
}

fn names(all: &[&str]) -> BTreeSet<String> {
    let full = |name: &&str| if name.contains('/') { (*name).to_owned() } else { format!("vms/{name}") };
    all.iter().map(full).collect()
}

/// What the next snapshot shows, read to its end.
fn shown(watch: &Heard<WatchResponse>) -> BTreeSet<String> {
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
fn gap(watch: &Heard<WatchResponse>) -> Instant {
    let gap = |message: WatchResponse| matches!(message.message, Some(Message::Gap(_))).then_some(());
    watch.until("a gap", gap).unwrap().0
}

fn in_time(what: &str, began: Instant, ended: Instant) {
    let took = ended.saturating_duration_since(began);
    eprintln!("{what}: {} ms", took.as_millis());
    assert!(took < LIMIT, "{what} took {took:?}");
}

/// Both streams end with `code` in time once `act` is begun.
fn both_end(open: &Open, code: Code, why: &str, act: impl FnOnce()) {
    let began = clock::monotonic();
    act();
    both_ended(open, code, why, began);
}

fn both_ended(open: &Open, code: Code, why: &str, began: Instant) {
    for (stream, ended) in [("watch", open.watch.end()), ("audit follow", open.follow.end())] {
        let (at, status) = ended.unwrap();
        assert_eq!(status.code(), code, "{why}: {stream}: {status}");
        in_time(&format!("{why}: {stream} ended"), began, at);
    }
}

#[test]
fn a_logout_ends_the_sessions_streams() {
    let scene = Scene::new();
    scene.grant("Auditor", "/");
    let open = open(&scene.bob.caller().unwrap());
    both_end(&open, Code::Unauthenticated, "logout", || {
        scene.bob.done(&["logout"]).unwrap();
    });
}

#[test]
fn disabling_a_user_ends_their_streams_of_sessions_and_of_tokens() {
    let scene = Scene::new();
    scene.grant("Auditor", "/");
    let made = scene.bob.json(&["token", "create", "--comment", "ci", "--full"]).unwrap();
    let by_session = open(&scene.bob.caller().unwrap());
    let by_token = open(&scene.bob.caller_with(made["secret"].as_str()));
    let began = clock::monotonic();
    both_end(&by_session, Code::Unauthenticated, "user disabled, session", || {
        scene.admin.done(&["user", "disable", "bob"]).unwrap();
    });
    both_ended(&by_token, Code::Unauthenticated, "user disabled, token", began);
    // And nothing opens them again.
    for caller in [scene.bob.caller().unwrap(), scene.bob.caller_with(made["secret"].as_str())] {
        assert_eq!(watch(&caller).end().unwrap().1.code(), Code::Unauthenticated);
    }
}

#[test]
fn a_session_that_an_administrator_ends_takes_its_streams_along_and_no_others() {
    let scene = Scene::new();
    scene.grant("Auditor", "/");
    let ended = open(&scene.bob.caller().unwrap());
    let sessions = scene.admin.json(&["session", "list", "--user", "bob@local"]).unwrap();
    let id = sessions[0]["id"].as_str().unwrap();
    let other = scene.bob.elsewhere("config-bob-2");
    other.sign_in().unwrap();
    let kept = open(&other.caller().unwrap());
    both_end(&ended, Code::Unauthenticated, "session ended by an administrator", || {
        scene.admin.done(&["session", "end", id, "--yes"]).unwrap();
    });
    kept.watch.until("something after that", Some).unwrap();
    kept.follow.until("something after that", Some).unwrap();
}

#[test]
fn an_api_tokens_streams_end_when_it_is_revoked() {
    let scene = Scene::new();
    scene.grant("Auditor", "/");
    let made = scene.bob.json(&["token", "create", "--comment", "ci", "--grant", "Auditor@/"]).unwrap();
    let open = open(&scene.bob.caller_with(made["secret"].as_str()));
    both_end(&open, Code::Unauthenticated, "token revoked", || {
        scene.bob.done(&["token", "revoke", made["id"].as_str().unwrap(), "--yes"]).unwrap();
    });
}

#[test]
fn without_the_last_grant_a_stream_is_refused_and_with_another_it_shows_what_is_left() {
    let scene = Scene::new();
    let (all, web) = (scene.grant("Auditor", "/"), scene.grant("VmUser", "/pools/web"));
    let open = open(&scene.bob.caller().unwrap());
    let began = clock::monotonic();
    scene.revoke(&all);
    in_time("grant removed, another left: gap", began, gap(&open.watch));
    assert_eq!(shown(&open.watch), names(&[WEB]), "and nothing else");
    let (at, status) = open.follow.end().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    in_time("grant removed: audit follow ended", began, at);
    let began = clock::monotonic();
    scene.revoke(&web);
    let (at, status) = open.watch.end().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    in_time("last grant removed: watch ended", began, at);
}

#[test]
fn what_a_group_gave_goes_with_the_membership() {
    let scene = Scene::new();
    scene.admin.done(&["group", "create", "auditors"]).unwrap();
    scene.admin.done(&["group", "add", "auditors", "bob"]).unwrap();
    scene.granted(&["--group", "auditors", "--role", "Auditor", "--path", "/"]);
    let open = open(&scene.bob.caller().unwrap());
    both_end(&open, Code::PermissionDenied, "taken out of the group", || {
        scene.admin.done(&["group", "remove", "auditors", "bob"]).unwrap();
    });
}

#[test]
fn what_a_pool_or_a_tag_let_see_goes_with_it() {
    let scene = Scene::new();
    scene.grant("VmUser", "/pools/web");
    scene.grant("VmUser", "/vms?tag=qa");
    let watch = watch(&scene.bob.caller().unwrap());
    assert_eq!(shown(&watch), names(&[WEB]));
    for (args, left) in [
        (["tag", "add", "vms/other1", "qa"], names(&[WEB, OTHER])),
        (["pool", "remove", "web", "vms/web1"], names(&[OTHER])),
        (["tag", "remove", "vms/other1", "qa"], names(&[])),
    ] {
        let began = clock::monotonic();
        scene.admin.done(&args).unwrap();
        in_time(&format!("{args:?}: gap"), began, gap(&watch));
        assert_eq!(shown(&watch), left, "{args:?}");
    }
}

#[test]
fn a_role_that_holds_less_shows_less() {
    let scene = Scene::new();
    scene.admin.done(&["role", "create", "Looker", "--privilege", "VmAudit,SysAudit"]).unwrap();
    scene.grant("Looker", "/");
    let open = open(&scene.bob.caller().unwrap());
    let began = clock::monotonic();
    scene.admin.done(&["role", "update", "Looker", "--privilege", "VmAudit"]).unwrap();
    in_time("role changed: gap", began, gap(&open.watch));
    assert_eq!(shown(&open.watch), names(&[WEB, OTHER]), "without the node");
    let (at, status) = open.follow.end().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    in_time("role changed: audit follow ended", began, at);
}

/// When a grant ends, by the clock that streams are timed with.
fn end_of(grant: &serde_json::Value) -> Instant {
    let left = grant["not_after_unix_ms"].as_i64().unwrap() - clock::unix_ms();
    clock::monotonic() + Duration::from_millis(u64::try_from(left).unwrap_or_default())
}

#[test]
fn a_grant_that_ends_ends_what_it_gave() {
    let scene = Scene::new();
    let until = ["grant", "create", "--user", "bob", "--role", "Auditor", "--path", "/", "--not-after", "4s"];
    let grant = scene.admin.json(&until).unwrap();
    let open = open(&scene.bob.caller().unwrap());
    both_ended(&open, Code::PermissionDenied, "the grant's end", end_of(&grant));
}

#[test]
fn a_grant_for_a_moment_does_not_outlive_it_on_an_open_stream() {
    let scene = Scene::new();
    scene.grant("VmUser", "/pools/web");
    let watch = watch(&scene.bob.caller().unwrap());
    assert_eq!(shown(&watch), names(&[WEB]));
    // At several moments between two looks of the controller at what has ended.
    for _ in 0..4 {
        let args =
            ["grant", "create", "--user", "bob", "--role", "Auditor", "--path", "/", "--not-after", "1s"];
        let grant = scene.admin.json(&args).unwrap();
        gap(&watch);
        assert_eq!(shown(&watch), names(&["nodes/here", WEB, OTHER]));
        in_time("the end of a grant for a second: gap", end_of(&grant), gap(&watch));
        assert_eq!(shown(&watch), names(&[WEB]));
    }
}

#[test]
fn a_new_password_and_a_deleted_user_end_streams() {
    let scene = Scene::new();
    scene.grant("Auditor", "/");
    let before = open(&scene.bob.caller().unwrap());
    both_end(&before, Code::Unauthenticated, "new password", || {
        let password = scene.bob.password_file();
        scene.admin.done(&["user", "set-password", "bob", "--password-file", &password]).unwrap();
    });
    scene.bob.sign_in().unwrap();
    let again = open(&scene.bob.caller().unwrap());
    both_end(&again, Code::Unauthenticated, "user deleted", || {
        scene.admin.done(&["user", "delete", "bob", "--yes"]).unwrap();
    });
}

#[test]
fn the_command_line_client_says_why_its_stream_ended() {
    let scene = Scene::new();
    let grant = scene.grant("Auditor", "/");
    let commands: [&[&str]; 2] =
        [&["-o", "json", "watch", "status"], &["-o", "json", "audit", "list", "--follow"]];
    let children = commands.map(|args| {
        let mut command = scene.bob.command(args).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
        assert!(first.starts_with('{'), "{args:?}: {first}");
        child
    });
    let began = clock::monotonic();
    scene.revoke(&grant);
    for (mut child, args) in children.into_iter().zip(commands) {
        wait_until("the client's end", || child.try_wait()?.ok_or_else(|| anyhow::anyhow!("it runs")))
            .unwrap();
        in_time(&format!("{args:?} ended"), began, clock::monotonic());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(5), "{args:?}: {said}");
        assert!(succeeded(&output).is_err() && said.contains("permission denied"), "{args:?}: {said}");
    }
}
