//! A ticket opens one console, once, soon, for its own session, of the VM as it was. Whatever is wrong is answered alike.

use std::process::Stdio;

use horcrux_integration_tests::{Viewer, wait_until};
use horcrux_proto::v1::console_service_client::ConsoleServiceClient;
use horcrux_proto::v1::{
    ConsoleKind, ConsoleMode, ConsoleServiceCreateTicketRequest, ConsoleServiceEndRequest,
    ConsoleServiceListRequest,
};
use horcrux_transport::clock;
use tonic::Code;

use super::scene::{OTHER, Scene, WEB, asked, facts, ticket};

pub(crate) const WRONG: (u16, &str) = (4400, "the ticket is wrong, was used, or has expired");

/// What a caller hears who comes with this.
fn heard(caller: &horcrux_integration_tests::Caller, ticket: &str) -> (u16, String) {
    let viewer = caller.viewer().unwrap();
    viewer.text(ticket).unwrap();
    let (_, code, reason) = viewer.end().unwrap();
    (code, reason)
}

pub(super) fn refused(caller: &horcrux_integration_tests::Caller, ticket: &str) {
    let (code, reason) = heard(caller, ticket);
    assert_eq!((code, reason.as_str()), WRONG);
}

#[test]
fn a_ticket_opens_a_console_and_is_used_up_for_good() {
    let mut scene = Scene::new();
    let ticket = scene.ticket(ConsoleKind::Serial, ConsoleMode::Control);
    let viewer = scene.caller().at_console(&ticket).unwrap();
    viewer.bytes(b"uptime\n").unwrap();
    assert_eq!(viewer.read_until(b"uptime\n").unwrap(), b"uptime\n");
    let opened = scene.opened("what was typed", |opened| opened.told == b"uptime\n");
    assert_eq!((opened.order.vm_uuid.as_str(), opened.envelope.actor.as_str()), (WEB, "bob@local"));
    refused(&scene.caller(), &ticket);
    drop(viewer);
    scene.opened("its end", |opened| opened.is_over);
    refused(&scene.caller(), &ticket);
    // One that nobody has used is good for a restarted controller; one that was isn't.
    let unused = scene.ticket(ConsoleKind::Serial, ConsoleMode::Control);
    scene.restart();
    refused(&scene.caller(), &ticket);
    scene.caller().at_console(&unused).unwrap();
}

#[test]
fn of_a_hundred_who_come_with_one_ticket_one_is_let_in() {
    let scene = Scene::new();
    let (caller, ticket) = (scene.caller(), scene.ticket(ConsoleKind::Serial, ConsoleMode::Control));
    // From ten sides: who comes first must not have waited for more than a ticket's five seconds when the last is there.
    let ten = || (0..10).map(|_| caller.viewer().unwrap()).collect::<Vec<_>>();
    let viewers: Vec<_> = std::thread::scope(|scope| {
        let sides: Vec<_> = (0..10).map(|_| scope.spawn(ten)).collect();
        sides.into_iter().flat_map(|side| side.join().unwrap()).collect()
    });
    for viewer in &viewers {
        viewer.text(&ticket).unwrap();
    }
    let console = scene.opened("the console", |opened| !opened.is_over);
    // All but one hear the same; that one hears the VM.
    wait_until("the one", || console.say(b"you\n")).unwrap();
    let mut let_in = 0;
    for viewer in &viewers {
        match viewer.read_until(b"you\n") {
            Ok(_) => let_in += 1,
            Err(error) => assert!(error.to_string().contains("4400"), "{error}"),
        }
    }
    assert_eq!(let_in, 1);
    assert_eq!(scene.node.consoles().opened().len(), 1);
}

#[test]
fn each_binding_that_is_broken_refuses_the_ticket_and_burns_it() {
    let scene = Scene::new();
    let (mode, kind) = (ConsoleMode::Control, ConsoleKind::Serial);
    let caller = scene.caller();
    // Another user, and bob himself by another session or an API token.
    let other = scene.bob.elsewhere("other-home");
    other.sign_in().unwrap();
    let made = scene.bob.json(&["token", "create", "--comment", "ci", "--full"]).unwrap();
    let others = [
        scene.admin.caller().unwrap(),
        other.caller().unwrap(),
        scene.bob.caller_with(made["secret"].as_str()),
    ];
    for another in &others {
        let ticket = scene.ticket(kind, mode);
        refused(another, &ticket);
        refused(&caller, &ticket);
    }
    // The VM was started again.
    let ticket = scene.ticket(kind, mode);
    scene.node.tells(facts(WEB, "web1", 2000)).unwrap();
    wait_until("the other start", || {
        let vm = scene.controller.json(&["vm", "get", WEB])?;
        anyhow::ensure!(vm["started_unix_ms"] == 2000, "{vm}");
        Ok(())
    })
    .unwrap();
    refused(&caller, &ticket);
    // The right was lost, and given again: the ticket that was shown in between is used up.
    let granted = scene.admin.json(&["grant", "list", "--user", "bob"]).unwrap();
    let ticket = scene.ticket(kind, mode);
    scene.admin.done(&["grant", "delete", granted[0]["id"].as_str().unwrap(), "--yes"]).unwrap();
    refused(&caller, &ticket);
    scene.grant("VmUser", &format!("/vms/{WEB}"));
    refused(&caller, &ticket);
    // It has expired.
    let short = ConsoleServiceCreateTicketRequest {
        vm: WEB.to_owned(),
        kind: kind.into(),
        ttl_seconds: 1,
        ..ConsoleServiceCreateTicketRequest::default()
    };
    let short = asked(&caller, short).unwrap();
    wait_until("its end", || {
        anyhow::ensure!(clock::unix_ms() > short.expires_unix_ms, "not yet");
        Ok(())
    })
    .unwrap();
    refused(&caller, &short.ticket);
    // It says what it was bound to by nothing in it: what is no ticket is the same.
    let good = scene.ticket(kind, mode);
    let last = if good.ends_with('A') { "B" } else { "A" };
    for wrong in
        ["", "hxc_", &format!("{good}="), &format!(" {good}"), &format!("{}{last}", &good[..good.len() - 1])]
    {
        refused(&caller, wrong);
    }
    assert!(scene.node.consoles().opened().is_empty());
    caller.at_console(&good).unwrap();
}

#[test]
fn a_ticket_is_given_to_who_may_and_for_what_can_be_opened() {
    let scene = Scene::new();
    let caller = scene.caller();
    let code =
        |vm: &str| ticket(&caller, vm, ConsoleKind::Vnc, ConsoleMode::View).map(drop).unwrap_err().code();
    // Not bob's to see, and not there, are the same.
    assert_eq!(code(OTHER), Code::NotFound);
    assert_eq!(code("aaaaaaaa-0000-4000-8000-000000000009"), Code::NotFound);
    scene.grant("Auditor", "/");
    assert_eq!(code(OTHER), Code::PermissionDenied);
    assert!(ticket(&caller, "web1", ConsoleKind::Vnc, ConsoleMode::View).is_ok());
    let most = ConsoleServiceCreateTicketRequest {
        vm: WEB.to_owned(),
        kind: ConsoleKind::Vnc.into(),
        ttl_seconds: 301,
        ..ConsoleServiceCreateTicketRequest::default()
    };
    assert_eq!(asked(&caller, most).unwrap_err().code(), Code::InvalidArgument);
    scene
        .node
        .tells(horcrux_proto::v1::VmFacts {
            state: horcrux_proto::v1::VmState::ShutOff.into(),
            ..facts(WEB, "web1", 1000)
        })
        .unwrap();
    wait_until("it to be off", || {
        let refused = ticket(&caller, WEB, ConsoleKind::Vnc, ConsoleMode::View).err();
        let refused = refused.ok_or_else(|| anyhow::anyhow!("it runs"))?;
        anyhow::ensure!(refused.message().contains("shut off: start it first"), "{refused}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn before_the_upgrade_the_exact_origin_or_a_bearer_token_is_needed() {
    let scene = Scene::new();
    let url = scene.controller.url();
    let port = url.rsplit(':').next().unwrap();
    let signed_in = scene.bob.tokens().unwrap();
    let bearer = format!("Authorization: Bearer {}", signed_in["access_token"].as_str().unwrap());
    let status = |headers: &[&str]| {
        let mut command = scene.controller.command("curl".as_ref());
        command.args(["--silent", "--insecure", "--http1.1", "--max-time", "3", "--output", "/dev/null"]);
        command.args([
            "--write-out",
            "%{http_code}",
            "-H",
            "Connection: Upgrade",
            "-H",
            "Upgrade: websocket",
        ]);
        command.args([
            "-H",
            "Sec-WebSocket-Version: 13",
            "-H",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ]);
        command.args(["-H", "Sec-WebSocket-Protocol: hx.console.v1"]);
        for header in headers {
            command.args(["-H", header]);
        }
        let output = command.arg(format!("{url}/console/v1")).stdin(Stdio::null()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(status(&[&bearer]), "101");
    assert_eq!(status(&[&bearer, &format!("Origin: {url}")]), "101");
    assert_eq!(status(&[]), "403", "no Origin, and no token");
    assert_eq!(status(&[&format!("Origin: {url}")]), "401", "nobody is signed in");
    let host = url.trim_start_matches("https://").rsplit_once(':').unwrap().0;
    let foreign = [
        "null".to_owned(),
        String::new(),
        "https://evil.example".to_owned(),
        format!("https://{host}"),
        format!("https://{host}:1"),
        format!("http://{host}:{port}"),
        format!("https://{host}:{port}.evil.example"),
        format!("https://evil{host}:{port}"),
        format!("https://other.{host}:{port}"),
        format!("https://{host}:{port}/"),
        format!("https://{host}:{port}@evil.example"),
        format!("HTTPS://{host}:{port}"),
        format!("wss://{host}:{port}"),
    ];
    for origin in foreign {
        // curl leaves a header without a value out where it ends in a colon.
        let origin = if origin.is_empty() { "Origin;".to_owned() } else { format!("Origin: {origin}") };
        assert_eq!(status(&[&bearer, &origin]), "403", "{origin}");
    }
    let twice = format!("Origin: {url}");
    assert_eq!(status(&[&bearer, &twice, "Origin: https://evil.example"]), "403");
    let site = "Sec-Fetch-Site: same-site";
    assert_eq!(status(&[&bearer, &twice, site]), "403");
}

#[test]
fn what_holds_when_the_ticket_comes_counts_and_not_what_held_at_the_upgrade() {
    let scene = Scene::new();
    let begun =
        || (scene.caller().viewer().unwrap(), scene.ticket(ConsoleKind::Serial, ConsoleMode::Control));
    let is_wrong = |viewer: &Viewer, ticket: &str| {
        viewer.text(ticket).unwrap();
        let (_, code, reason) = viewer.end().unwrap();
        assert_eq!((code, reason.as_str()), WRONG);
    };
    let (viewer, ticket) = begun();
    scene.bob.done(&["logout"]).unwrap();
    is_wrong(&viewer, &ticket);
    scene.bob.sign_in().unwrap();
    let (viewer, ticket) = begun();
    let granted = scene.admin.json(&["grant", "list", "--user", "bob"]).unwrap();
    scene.admin.done(&["grant", "delete", granted[0]["id"].as_str().unwrap(), "--yes"]).unwrap();
    is_wrong(&viewer, &ticket);
    assert_eq!(scene.node.consoles().opened().len(), 0);
    scene.grant("VmUser", &format!("/vms/{WEB}"));
    // And whether it must be recorded.
    let (viewer, ticket) = begun();
    scene.admin.done(&["recording", "policy", "set", &format!("vms/{WEB}"), "serial"]).unwrap();
    let _viewer = viewer.with(&ticket).unwrap();
    assert_eq!(scene.bob.json(&["console", "list"]).unwrap()[0]["recorded"], true);
}

#[test]
fn a_token_has_no_more_of_its_owners_consoles_than_its_own_grants_give() {
    let scene = Scene::new();
    scene.admin.done(&["pool", "create", "empty"]).unwrap();
    scene.grant("VmUser", "/pools/empty");
    let create = ["token", "create", "--comment", "ci", "--grant", "VmUser@/pools/empty"];
    let made = scene.bob.json(&create).unwrap();
    let token = scene.bob.caller_with(made["secret"].as_str());
    let viewer = scene.serial();
    let list = |wire| async move {
        ConsoleServiceClient::new(wire).list(ConsoleServiceListRequest::default()).await
    };
    assert_eq!(token.call(list).unwrap().consoles.len(), 0);
    let name = scene.caller().call(list).unwrap().consoles[0].name.clone();
    let end = |wire| async move {
        let request = ConsoleServiceEndRequest { name, ..ConsoleServiceEndRequest::default() };
        ConsoleServiceClient::new(wire).end(request).await
    };
    assert_eq!(token.call(end).unwrap_err().code(), Code::NotFound);
    viewer.bytes(b"on\n").unwrap();
    viewer.read_until(b"on\n").unwrap();
}

#[test]
fn no_ticket_is_in_a_log_a_record_or_the_database() {
    let mut scene = Scene::new();
    let tickets: Vec<String> =
        (0..4).map(|_| scene.ticket(ConsoleKind::Serial, ConsoleMode::Control)).collect();
    let viewer = scene.caller().at_console(&tickets[0]).unwrap();
    refused(&scene.caller(), &tickets[0]);
    refused(&scene.admin.caller().unwrap(), &tickets[1]);
    // One who says it later, where only asks are heard.
    viewer.text(&tickets[2]).unwrap();
    assert_eq!(viewer.end().unwrap().1, 4422);
    let secrets: Vec<String> =
        tickets.iter().map(|ticket| ticket.trim_start_matches("hxc_").to_owned()).collect();
    holds_none_of(&mut scene, &secrets);
}

/// Ends the controller, and looks for these in all that it has written.
pub(crate) fn holds_none_of(scene: &mut Scene, secrets: &[String]) {
    let told = scene.controller.ctl(&["audit", "list", "-o", "json"]).unwrap();
    let log = scene.controller.daemon.log();
    assert!(log.contains("console opened"), "{log}");
    let mut said = vec![("the audit log".to_owned(), told.stdout), ("the log".to_owned(), log.into_bytes())];
    scene.controller.daemon.kill().unwrap();
    let state = scene.controller.state("");
    for entry in walk(std::path::Path::new(&state)) {
        said.push((entry.display().to_string(), std::fs::read(&entry).unwrap()));
    }
    assert!(said.iter().any(|(_, bytes)| !bytes.is_empty()));
    for (place, bytes) in &said {
        for secret in secrets.iter().map(String::as_bytes) {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{place} has a secret");
        }
    }
}

pub(super) fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}
