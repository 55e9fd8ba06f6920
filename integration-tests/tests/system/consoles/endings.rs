//! Whoever loses what let them in loses the console within a second, and hears why. The times are printed.

use std::time::Instant;

use horcrux_integration_tests::{Manner, Viewer, wait_until};
use horcrux_proto::console::Notice;
use horcrux_proto::v1::{ConsoleKind, ConsoleMode, VmFacts, VmState};
use horcrux_transport::clock;

use rustix::process::{Signal, kill_process};

use super::scene::{Scene, WEB, ended, facts, ticket};

/// When `act` is done: a command's own start is not what is measured.
fn done(act: impl FnOnce()) -> Instant {
    act();
    clock::monotonic()
}

fn is_over(scene: &Scene) {
    scene.opened("the VM's side to be over", |opened| opened.is_over);
}

#[test]
fn a_logout_a_session_that_is_ended_and_a_token_that_is_revoked_end_their_consoles_and_no_others() {
    let scene = Scene::new();
    let other = scene.bob.elsewhere("other-home");
    other.sign_in().unwrap();
    let stays = other
        .caller()
        .unwrap()
        .at_console(
            &ticket(&other.caller().unwrap(), WEB, ConsoleKind::Vnc, ConsoleMode::View).unwrap().ticket,
        )
        .unwrap();

    let viewer = scene.serial();
    let began = done(|| drop(scene.bob.done(&["logout"]).unwrap()));
    ended("logout", &viewer, 4401, "the session is over", began);

    scene.bob.sign_in().unwrap();
    let viewer = scene.serial();
    let all = scene.bob.json(&["session", "list"]).unwrap();
    let own = all.as_array().unwrap().iter().find(|session| session["current"] == true).unwrap();
    let id = own["id"].as_str().unwrap().to_owned();
    let began = done(|| drop(scene.admin.done(&["session", "end", &id, "--yes"]).unwrap()));
    ended("session ended", &viewer, 4401, "the session is over", began);

    scene.bob.sign_in().unwrap();
    let made = scene.bob.json(&["token", "create", "--comment", "ci", "--full"]).unwrap();
    let caller = scene.bob.caller_with(made["secret"].as_str());
    let mine = ticket(&caller, WEB, ConsoleKind::Serial, ConsoleMode::Control).unwrap().ticket;
    let viewer = caller.at_console(&mine).unwrap();
    let token = made["id"].as_str().unwrap().to_owned();
    let began = done(|| drop(scene.bob.done(&["token", "revoke", &token, "--yes"]).unwrap()));
    ended("token revoked", &viewer, 4401, "the session is over", began);

    // The other's is still open: it is told of who came.
    let _new = scene.at(ConsoleKind::Vnc, ConsoleMode::View);
    stays
        .notice("another viewer", |notice| {
            matches!(notice, Notice::Viewers { viewers } if viewers.len() == 2).then_some(())
        })
        .unwrap();
}

#[test]
fn a_user_who_is_disabled_and_a_right_that_is_lost_end_it() {
    let scene = Scene::new();
    let viewer = scene.serial();
    let granted = scene.admin.json(&["grant", "list", "--user", "bob"]).unwrap();
    let grant = granted[0]["id"].as_str().unwrap().to_owned();
    let began = done(|| drop(scene.admin.done(&["grant", "delete", &grant, "--yes"]).unwrap()));
    ended("right lost", &viewer, 4403, "may not open", began);
    is_over(&scene);

    scene.grant("VmUser", &format!("/vms/{WEB}"));
    let viewer = scene.screen(ConsoleMode::Control);
    let began = done(|| drop(scene.admin.done(&["user", "disable", "bob", "--yes"]).unwrap()));
    ended("user disabled", &viewer, 4401, "the session is over", began);
    // What the viewer was thrown out of, the node is made to close, whatever its agent does.
    let id = scene.opened("the screen's end", |opened| opened.is_over).order.console_id;
    wait_until("the order to close it", || {
        anyhow::ensure!(scene.node.consoles().closed().contains(&id), "not yet");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_locked_node_a_vm_that_is_off_and_somebody_who_may_end_it_do() {
    let scene = Scene::new();
    let viewer = scene.serial();
    let id = scene.bob.json(&["console", "list"]).unwrap()[0]["name"].as_str().unwrap().to_owned();
    assert!(scene.admin.json(&["console", "list", "--vm", "web1"]).unwrap()[0]["user"] == "bob@local");
    let began = done(|| drop(scene.admin.done(&["console", "end", &id, "--yes"]).unwrap()));
    ended("ended", &viewer, 4412, "admin@local ended it", began);
    assert_eq!(scene.bob.json(&["console", "list"]).unwrap().as_array().unwrap().len(), 0);

    // Off: its line ends, and so it is told.
    let viewer = scene.serial();
    scene.node.tells(VmFacts { state: VmState::ShutOff.into(), ..facts(WEB, "web1", 1000) }).unwrap();
    scene.opened("the line", |opened| !opened.is_over).end().unwrap();
    let (_, code, words) = viewer.end().unwrap();
    assert_eq!((code, words.as_str()), (4404, "the VM is shut off"));
    scene.node.tells(facts(WEB, "web1", 1000)).unwrap();

    let viewer = wait_for_console(&scene);
    let began =
        done(|| drop(scene.admin.done(&["node", "lock", "here", "--reason", "stolen", "--yes"]).unwrap()));
    ended("node locked", &viewer, 4410, "locked", began);
}

fn wait_for_console(scene: &Scene) -> Viewer {
    wait_until("the VM to run", || {
        let made = ticket(&scene.caller(), WEB, ConsoleKind::Serial, ConsoleMode::Control)?;
        scene.caller().at_console(&made.ticket)
    })
    .unwrap()
}

#[test]
fn a_node_that_says_a_silent_node_s_vm_is_there_gets_no_console_of_it() {
    let mut scene = Scene::new();
    let viewer = scene.serial();
    let there = scene.controller.play_with("there", Vec::new()).unwrap();
    drop(std::mem::replace(&mut scene.node, there));
    scene.controller.wait_for_state("here", "down").unwrap();
    scene.node.tells(facts(WEB, "web1", 1000)).unwrap();
    let (_, code, words) = viewer.end().unwrap();
    let told = "nodes/there says that it runs there, nodes/here didn't give it up";
    assert_eq!((code, words.as_str()), (4409, told));
    assert_eq!(scene.node.consoles().opened().len(), 0);
}

#[test]
fn what_a_node_refuses_or_does_not_bring_is_told_as_what_it_is() {
    let scene = Scene::new();
    let tried = |manner| {
        scene.node_behaves(manner);
        let viewer = scene.caller().viewer().unwrap();
        viewer.text(&scene.ticket(ConsoleKind::Vnc, ConsoleMode::Control)).unwrap();
        let (_, code, words) = viewer.end().unwrap();
        (code, words)
    };
    let (code, words) = tried(Manner::Forbids);
    assert_eq!((code, words.as_str()), (4413, "nodes/here: its policy forbids it: its mode is observe"));
    let (code, words) = tried(Manner::BringsNothing);
    assert_eq!((code, words.as_str()), (4500, "nodes/here did not bring what it opened"));
}

#[test]
fn a_controller_that_stops_says_so() {
    let scene = Scene::new();
    let viewer = scene.serial();
    kill_process(scene.controller.daemon.pid().unwrap(), Signal::TERM).unwrap();
    let (_, code, words) = viewer.end().unwrap();
    assert_eq!((code, words.as_str()), (1012, "the controller is stopping"));
}
