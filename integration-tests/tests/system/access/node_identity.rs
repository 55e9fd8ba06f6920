//! A node's certificate: locked out and let in, copied and found out, lost and given again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use horcrux_agentd::identity::{Change, Enrolled, NewKey};
use horcrux_integration_tests::{Controller, PlayedNode};
use horcrux_proto::agent::v1::enrollment_client::EnrollmentClient;
use horcrux_proto::agent::v1::{Certificate, RenewRequest};
use horcrux_transport::clock;
use serde_json::Value;
use tonic::{Code, Status};

use super::scene::in_time;

const DEADLINE: Duration = Duration::from_secs(10);

/// Asks for a certificate with the identity in `state`, for a new key.
fn renew(state: &Path, key: &NewKey, generation: u64) -> Result<Certificate, Status> {
    let enrolled = Enrolled::load(state).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let channel = enrolled.connect(DEADLINE).channel().await.unwrap();
        let request = RenewRequest { csr: key.request.clone().into(), generation };
        let answer = EnrollmentClient::new(channel).renew(request).await?;
        Ok(answer.into_inner().certificate.expect("a certificate"))
    })
}

fn state(controller: &Controller) -> std::path::PathBuf {
    controller.path("agent-web1").into()
}

/// Another place with the same identity. What is kept there beside it stays where it is.
fn copied_identity(controller: &Controller) -> PathBuf {
    let copy = PathBuf::from(controller.path("copy"));
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(state(controller)).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            fs::copy(file.path(), copy.join(file.file_name())).unwrap();
        }
    }
    copy
}

fn is_shut_out(controller: &Controller) {
    let (_, status) = PlayedNode::attach(&state(controller), &[]).unwrap().end().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains("locked"), "{status}");
}

fn on_record(controller: &Controller, detail: &str) -> Value {
    let rows = controller.json(&["audit", "list", "--resource", "nodes/web1"]).unwrap();
    let found = |row: &&Value| row["detail"].as_str().is_some_and(|text| text.starts_with(detail));
    rows.as_array().unwrap().iter().find(found).unwrap_or_else(|| panic!("{detail} in {rows}")).clone()
}

#[test]
fn a_locked_node_is_off_in_seconds_and_stays_off_until_it_is_unlocked() {
    let mut controller = Controller::start().unwrap();
    let node = controller.play("web1", &[]).unwrap();
    let began = clock::monotonic();
    controller
        .administrator()
        .unwrap()
        .done(&["node", "lock", "web1", "--yes", "--reason", "stolen"])
        .unwrap();
    let (at, _) = node.end().unwrap();
    in_time("node locked: its stream ended", began, at);
    is_shut_out(&controller);
    in_time("node locked: a new stream was refused", began, clock::monotonic());
    // Nor does it get another certificate.
    let refused = renew(&state(&controller), &NewKey::generate().unwrap(), 1).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    controller.daemon.kill().unwrap();
    controller.restart().unwrap();
    is_shut_out(&controller);
    assert_eq!(controller.json(&["node", "get", "web1"]).unwrap()["locked_reason"], "stolen");
    assert_eq!(on_record(&controller, "lock: stolen")["actor"], "admin@local");
    controller.administrator().unwrap().done(&["node", "unlock", "web1"]).unwrap();
    let _node = PlayedNode::attach(&state(&controller), &[]).unwrap();
    let seen = controller.wait_for_state("web1", "connected").unwrap();
    assert_eq!(seen["locked_reason"], Value::Null);
}

#[test]
fn a_real_agent_that_was_locked_out_comes_back_by_itself() {
    let controller = Controller::start().unwrap();
    let _agent = controller.joined("web1").unwrap();
    controller.administrator().unwrap().done(&["node", "lock", "web1", "--yes"]).unwrap();
    controller.wait_for_state("web1", "down").unwrap();
    controller.administrator().unwrap().done(&["node", "unlock", "web1"]).unwrap();
    controller.wait_for_state("web1", "connected").unwrap();
}

/// The node is locked, by the controller, because of a copy: whichever stream was open ends.
fn is_found_out(controller: &Controller, open: &PlayedNode) {
    open.end().unwrap();
    is_shut_out(controller);
    let seen = controller.json(&["node", "get", "web1"]).unwrap();
    assert!(seen["locked_reason"].as_str().is_some_and(|why| why.contains("copied")), "{seen}");
    assert_eq!(on_record(controller, "lock: ")["actor"], "controller");
}

#[test]
fn a_copied_certificate_that_a_newer_one_has_replaced_locks_the_node() {
    let controller = Controller::start().unwrap();
    let node = controller.play("web1", &[]).unwrap();
    // Whoever has the copy renews it, and uses what they get.
    let copy = copied_identity(&controller);
    let key = NewKey::generate().unwrap();
    let certificate = renew(&copy, &key, 1).unwrap();
    let renewed = Enrolled::load(&copy).unwrap().renewed(key, &certificate).unwrap();
    Change::begin(&copy).unwrap().keep(&renewed).unwrap();
    let thief = PlayedNode::attach(&copy, &[]).unwrap();
    // One stream at a time: the node finds its own ended, and dials again with what was replaced.
    node.end().unwrap();
    is_shut_out(&controller);
    is_found_out(&controller, &thief);
    let (_, status) = PlayedNode::attach(&copy, &[]).unwrap().end().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied, "nor is the thief let in: {status}");
}

#[test]
fn two_agents_with_one_identity_are_told() {
    let controller = Controller::start().unwrap();
    let _agent = controller.joined("web1").unwrap();
    // An agent's epoch is when it was started; a played one's is long ago.
    let copy = PlayedNode::attach(&copied_identity(&controller), &[]).unwrap();
    let (_, status) = copy.end().unwrap();
    assert_eq!(status.message(), "another stream of this node took this one's place");
    let log = controller.daemon.log();
    assert_eq!(log.matches("two agents use this node's identity").count(), 1, "{log}");
}

#[test]
fn a_renewal_is_on_record() {
    let controller = Controller::start().unwrap();
    let _node = controller.play("web1", &[]).unwrap();
    renew(&state(&controller), &NewKey::generate().unwrap(), 1).unwrap();
    let row = on_record(&controller, "renew: generation 2");
    assert_eq!((&row["kind"], &row["outcome"]), (&"outcome".into(), &"ok".into()), "{row}");
    assert_eq!((&row["actor"], &row["source"]), (&"nodes/web1".into(), &"127.0.0.1".into()), "{row}");
    assert_eq!(row["rpc"], "/horcrux.agent.v1.Enrollment/Renew");
}

#[test]
fn a_renewal_under_another_generation_locks_the_node() {
    let controller = Controller::start().unwrap();
    let node = controller.play("web1", &[]).unwrap();
    let refused = renew(&state(&controller), &NewKey::generate().unwrap(), 7).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    is_found_out(&controller, &node);
}

#[test]
fn a_node_is_given_a_token_to_come_back_with() {
    let controller = Controller::start().unwrap();
    let _node = controller.play("web1", &[]).unwrap();
    let admin = controller.administrator().unwrap();
    let file = controller.path("again.token");
    // A token for a new node doesn't do it, and one for a node that never was is refused.
    assert_eq!(
        admin.ctl(&["node", "join-token", "web1", "--token-file", &file]).unwrap().status.code(),
        Some(1)
    );
    assert_eq!(
        admin.ctl(&["node", "reenroll", "web9", "--token-file", &file]).unwrap().status.code(),
        Some(4)
    );
    admin.done(&["node", "reenroll", "web1", "--token-file", &file]).unwrap();
    let token = fs::read_to_string(&file).unwrap();
    assert!(token.starts_with("hxj_") && token.trim().ends_with(controller.fingerprint().unwrap().trim()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let dir = controller.path("tokens");
    admin.done(&["node", "reenroll", "--all", "--token-dir", &dir]).unwrap();
    assert!(fs::read_to_string(format!("{dir}/web1.token")).unwrap().starts_with("hxj_"));
    assert_eq!(on_record(&controller, "join token to enroll again")["actor"], "admin@local");
}
