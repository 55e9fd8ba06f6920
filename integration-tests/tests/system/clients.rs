//! Clients that are not ours, with nothing but the published contract.

use std::path::Path;
use std::process::Command;

use horcrux_integration_tests::{Controller, node_js, succeeded, wait_until};
use serde_json::{Value, json};

fn here(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
}

fn with_a_node() -> (Controller, horcrux_integration_tests::Daemon) {
    let controller = Controller::start().unwrap();
    let agent = controller.joined("here").unwrap();
    wait_until("a sample", || {
        let node = controller.json(&["node", "get", "here"])?;
        anyhow::ensure!(node["last_sample_unix_ms"].is_i64(), "none yet");
        Ok(())
    })
    .unwrap();
    (controller, agent)
}

fn answer(mut command: Command) -> Value {
    let output =
        command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; integration-tests/all installs it"));
    succeeded(&output).unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn contains(list: &Value, item: &str) -> bool {
    list.as_array().is_some_and(|all| all.iter().any(|each| each == item))
}

#[test]
fn python_s_grpc_lists_nodes_and_watches_with_the_proto_files_alone() {
    let (controller, _agent) = with_a_node();
    let mut command = Command::new(here(".cache/python/bin/python"));
    command.args([&here("clients/python/client.py"), &here("../proto")]);
    command.arg(format!("localhost:{}", controller.public_port));
    command.args([controller.state("ca.pem"), "admin".into(), controller.path("password")]);
    let told = answer(command);
    assert_eq!(told["nodes"], json!(["nodes/here"]), "{told}");
    assert_eq!(told["without_token"], "UNAUTHENTICATED");
    assert!(contains(&told["services"], "horcrux.v1.WatchService"), "by reflection: {told}");
    assert_eq!(told["watched"][0], "hello");
    assert!(contains(&told["watched"], "snapshot") && contains(&told["watched"], "changes"), "{told}");
}

#[test]
fn a_stock_grpc_web_client_lists_nodes_and_watches_over_both_versions_of_http() {
    let (controller, _agent) = with_a_node();
    let mut command = Command::new(node_js());
    command.args([here("clients/web/client.mjs"), here(".cache/contract.binpb")]);
    command.args([format!("https://localhost:{}", controller.public_port), controller.state("ca.pem")]);
    command.args(["admin".into(), controller.path("password")]);
    let told = answer(command);
    assert_eq!(told["tokens_given"], false, "a browser's session is in its cookie");
    assert_eq!(told["without_csrf"], "PermissionDenied", "{told}");
    assert_eq!(told["other_origin"], "PermissionDenied", "{told}");
    assert_eq!(told["nodes"], json!({ "1.1": ["nodes/here"], "2": ["nodes/here"] }));
    assert_eq!(told["watched"][0], "hello");
    assert!(contains(&told["watched"], "snapshot") && contains(&told["watched"], "changes"), "{told}");
}
