//! Join tokens: once, pinned, and refused in so many words.

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::process::Command;

use horcrux_integration_tests::{Controller, program, succeeded};

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_join_token_works_once() {
    let controller = Controller::start().unwrap();
    let token = controller.join_token("first").unwrap();
    succeeded(&controller.enroll("first", &token).unwrap()).unwrap();
    let again = controller.enroll("second", &token).unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("expired or was used before"), "{}", said(&again));
    let nodes = controller.json(&["node", "list"]).unwrap();
    assert_eq!(nodes.as_array().unwrap().len(), 1, "{nodes}");
}

#[test]
fn a_token_cannot_take_the_name_of_an_enrolled_node() {
    let controller = Controller::start().unwrap();
    let (one, two) = (controller.join_token("web1").unwrap(), controller.join_token("web2").unwrap());
    let token = fs::read_to_string(&one).unwrap();
    succeeded(&controller.enroll("web1", &one).unwrap()).unwrap();
    let refused = Command::new(program("horcrux-controld").unwrap())
        .args([
            "join-token",
            "--name",
            "web1",
            "--token-file",
            &two,
            "--config",
            &controller.path("controld.toml"),
        ])
        .output()
        .unwrap();
    assert!(!refused.status.success() && said(&refused).contains("enrolled already"), "{}", said(&refused));
    // The secret is in no file of the controller.
    let secret = token.split('.').nth(1).unwrap();
    for file in ["control.db", "control.db-wal", "recent.db-wal"] {
        let bytes = fs::read(controller.state(file)).unwrap_or_default();
        assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "the secret is in {file}");
    }
    assert!(!controller.daemon.log().contains(secret));
}

#[test]
fn with_a_wrong_authority_not_a_byte_of_the_secret_is_sent() {
    let controller = Controller::start().unwrap();
    let token = fs::read_to_string(controller.join_token("web1").unwrap()).unwrap();
    let (head, _) = token.trim().rsplit_once('.').unwrap();
    let wrong = controller.path("wrong.token");
    fs::write(&wrong, format!("{head}.{}", "ab".repeat(32))).unwrap();
    let refused = controller.enroll("web1", &wrong).unwrap();
    assert!(said(&refused).contains("from another authority"), "{}", said(&refused));
    // And what goes over the wire before the check holds nothing of it either.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let mut child = Command::new(program("horcrux-agentd").unwrap())
        .args([
            "enroll",
            "--controller",
            &url,
            "--token-file",
            &wrong,
            "--config",
            &controller.path("web1.toml"),
        ])
        .spawn()
        .unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut bytes = vec![0; 4096];
    let length = stream.read(&mut bytes).unwrap();
    drop(stream);
    child.wait().unwrap();
    let secret = token.split('.').nth(1).unwrap().as_bytes();
    assert!(length > 0 && !bytes[..length].windows(secret.len()).any(|w| w == secret));
}

#[test]
fn a_deleted_node_is_shut_out_and_its_name_is_free_again() {
    let controller = Controller::start().unwrap();
    let agent = controller.joined("web1").unwrap();
    succeeded(&controller.ctl(&["node", "remove", "web1", "--yes"]).unwrap()).unwrap();
    assert_eq!(controller.ctl(&["node", "get", "web1"]).unwrap().status.code(), Some(4));
    horcrux_integration_tests::wait_until("the agent to be told", || {
        let log = agent.log();
        anyhow::ensure!(log.contains("no longer accepted"), "{log}");
        Ok(())
    })
    .unwrap();
    controller.join_token("web1").unwrap();
}
