//! Who loses some of what they had goes on with what is left, on the same stream.

use horcrux_integration_tests::Caller;
use horcrux_proto::v1::FollowRequest;
use horcrux_proto::v1::audit_service_client::AuditServiceClient;
use horcrux_transport::clock;
use tonic::{Code, Status};

use super::scene::{LIMIT, OTHER, Scene, WEB, end_of, gap, in_time, names, open, shown, watch};

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

/// Rows that the log holds before bob comes: more than lie on the way to a reader that doesn't read.
const BACKLOG: usize = 20_000;

/// Lets bob begin to read a long log and stop, revokes, and lets him read on: how many rows come, and how it ends.
async fn read_on_after(caller: Caller, revoke: impl FnOnce()) -> (usize, Status) {
    let mut client = AuditServiceClient::new(caller.wire().await.unwrap());
    let request = FollowRequest { after_sequence: 1, ..FollowRequest::default() };
    let mut stream = client.follow(request).await.unwrap().into_inner();
    stream.message().await.unwrap();
    revoke();
    let mut rows = 1;
    loop {
        match tokio::time::timeout(LIMIT, stream.message()).await.expect("an end") {
            Ok(message) => rows += usize::from(message.expect("a status").record.is_some()),
            Err(status) => return (rows, status),
        }
    }
}

#[test]
fn a_reader_that_stalls_does_not_find_the_rest_of_the_log_after_its_rights_are_gone() {
    let scene = Scene::new();
    let long = format!(
        "INSERT INTO audit SELECT n, 1, 'event', 'a', '', '', '', '', '', '', '', printf('%.500c', 'x'), 0, x'00'
         FROM (WITH RECURSIVE c(n) AS (VALUES(1000) UNION ALL SELECT n + 1 FROM c LIMIT {BACKLOG}) SELECT n FROM c)"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(scene.controller.alter_records(&long)).unwrap();
    let stalled = |revoke: &dyn Fn()| runtime.block_on(read_on_after(scene.bob.caller().unwrap(), revoke));
    let grant = scene.grant("Auditor", "/");
    let granted = stalled(&|| scene.revoke(&grant));
    scene.grant("Auditor", "/");
    let disabled = stalled(&|| {
        scene.admin.done(&["user", "disable", "bob", "--yes"]).unwrap();
    });
    for (why, (rows, status), code) in [
        ("grant removed", granted, Code::PermissionDenied),
        ("user disabled", disabled, Code::Unauthenticated),
    ] {
        eprintln!("{why}: {rows} rows came of {BACKLOG}");
        assert_eq!(status.code(), code, "{why}: {status}");
        assert!(rows < BACKLOG / 2, "{why}: {rows} rows came after it");
    }
}
