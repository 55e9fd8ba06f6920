//! Each part killed in turn: the others say so and recover by themselves.

use horcrux_integration_tests::{Controller, value, wait_until};

#[test]
fn a_killed_agent_is_late_then_down_and_comes_back() {
    let controller = Controller::start().unwrap();
    let mut agent = controller.joined("here").unwrap();
    wait_until("a sample", || {
        let node = controller.json(&["node", "get", "here"])?;
        anyhow::ensure!(node["last_sample_unix_ms"].is_i64(), "none yet");
        Ok(())
    })
    .unwrap();
    agent.kill().unwrap();
    controller.wait_for_state("here", "late").unwrap();
    let down = controller.wait_for_state("here", "down").unwrap();
    assert!(down["last_sample_unix_ms"].is_i64(), "what was known stays, with its time");
    let _agent = controller.agent("here").unwrap();
    controller.wait_for_state("here", "connected").unwrap();
}

#[test]
fn a_killed_controller_comes_back_knowing_what_it_knew() {
    let mut controller = Controller::start().unwrap();
    let mut agent = controller.joined("here").unwrap();
    let before = wait_until("a stored sample", || {
        let node = controller.json(&["node", "get", "here"])?;
        anyhow::ensure!(value(&node, "node_cpu_usage").is_some(), "no CPU usage yet");
        Ok(node)
    })
    .unwrap();
    // Half a second later at the latest what was seen is committed; the acknowledgement is what says so to the agent.
    wait_until("newer samples", || {
        let node = controller.json(&["node", "get", "here"])?;
        let newer =
            node["last_sample_unix_ms"].as_i64() > before["last_sample_unix_ms"].as_i64().map(|t| t + 2000);
        anyhow::ensure!(newer, "none yet");
        Ok(())
    })
    .unwrap();
    controller.daemon.kill().unwrap();
    agent.kill().unwrap();
    controller.restart().unwrap();
    let restored = controller.json(&["node", "get", "here"]).unwrap();
    assert!(value(&restored, "node_memory_total").is_some(), "a restart isn't blank: {restored}");
    assert!(restored["last_sample_unix_ms"].as_i64() >= before["last_sample_unix_ms"].as_i64());
    let _agent = controller.agent("here").unwrap();
    controller.wait_for_state("here", "connected").unwrap();
}

#[test]
fn an_agent_finds_a_restarted_controller_by_itself() {
    let mut controller = Controller::start().unwrap();
    let _agent = controller.joined("here").unwrap();
    controller.daemon.kill().unwrap();
    controller.restart().unwrap();
    controller.wait_for_state("here", "connected").unwrap();
}

#[test]
fn both_daemons_stop_when_told_to() {
    let controller = Controller::start().unwrap();
    let agent = controller.joined("here").unwrap();
    assert_eq!(agent.stop().unwrap(), Some(0));
    assert_eq!(controller.daemon.stop().unwrap(), Some(0));
}
