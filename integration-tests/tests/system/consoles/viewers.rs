//! Several who look at one VM: whose keys reach it, and what each is told of the others.

use horcrux_integration_tests::{Caller, Viewer, wait_until};
use horcrux_proto::console::Notice;
use horcrux_proto::v1::{ConsoleKind, ConsoleMode};
use horcrux_transport::websocket::Heard;

use super::scene::{GREETING, Scene, WEB, ticket};

/// RFC 6143: a key goes down, and up.
const KEY_DOWN: [u8; 8] = [4, 1, 0, 0, 0, 0, 0, 0x61];
const KEY_UP: [u8; 8] = [4, 0, 0, 0, 0, 0, 0, 0x61];
const POINTER: [u8; 6] = [5, 1, 0, 9, 0, 9];
/// The whole screen, of 64 by 48 pixels.
const UPDATE: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 64, 0, 48];

fn greeting() -> Vec<u8> {
    GREETING.concat()
}

/// Whether a viewer is told that it has control, or has lost it.
fn control(viewer: &Viewer, wanted: bool) {
    let told = |notice| if let Notice::Control { in_control, .. } = notice { Some(in_control) } else { None };
    assert_eq!(viewer.notice("who has control", told).unwrap(), wanted);
}

#[test]
fn who_only_looks_reaches_the_vm_with_no_key_and_no_pointer() {
    let scene = Scene::new();
    let viewer = scene.screen(ConsoleMode::View);
    for message in [&KEY_DOWN[..], &POINTER, &UPDATE, &KEY_UP, &UPDATE] {
        viewer.bytes(message).unwrap();
    }
    let wanted = [greeting(), UPDATE.to_vec(), UPDATE.to_vec()].concat();
    scene.opened("two updates", |opened| opened.told.len() >= wanted.len() && opened.told == wanted);
    // Nor does asking for it help.
    viewer.text(r#"{"ask":"takeControl"}"#).unwrap();
    viewer.bytes(&KEY_DOWN).unwrap();
    viewer.bytes(&UPDATE).unwrap();
    let wanted = [wanted, UPDATE.to_vec()].concat();
    scene.opened("a third", |opened| opened.told == wanted);
    // Of a serial line, nothing at all gets through.
    let line = scene.at(ConsoleKind::Serial, ConsoleMode::View);
    line.bytes(b"reboot\n").unwrap();
    let console = scene.opened("the line", |opened| opened.told.is_empty());
    console.say(b"still up\n").unwrap();
    line.read_until(b"still up\n").unwrap();
    scene.opened("nothing", |opened| opened.told.is_empty());
}

#[test]
fn control_is_one_viewer_s_is_taken_and_given_and_lets_go_of_keys() {
    let scene = Scene::new();
    let first = scene.screen(ConsoleMode::Control);
    let opened = scene.opened("the first", |opened| opened.told == greeting());
    let second = scene.screen(ConsoleMode::Control);
    second.bytes(&KEY_DOWN).unwrap();
    first.bytes(&KEY_DOWN).unwrap();
    let told = |id: &str| {
        let all = scene.node.consoles().opened();
        all.into_iter().find(|opened| opened.order.console_id == id).unwrap().told
    };
    let reaches = |id: &str, wanted: &[&[u8]]| {
        let wanted = [greeting(), wanted.concat()].concat();
        wait_until("what the VM is told", || {
            anyhow::ensure!(told(id) == wanted, "{:?}", told(id));
            Ok(())
        })
        .unwrap();
    };
    let (of_first, of_second) =
        (opened.order.console_id, scene.opened("the second", |_| true).order.console_id);
    reaches(&of_first, &[&KEY_DOWN]);
    second.text(r#"{"ask":"takeControl"}"#).unwrap();
    control(&first, false);
    control(&second, true);
    // The key that the first holds is let go of.
    reaches(&of_first, &[&KEY_DOWN, &KEY_UP]);
    first.bytes(&KEY_DOWN).unwrap();
    second.bytes(&KEY_DOWN).unwrap();
    reaches(&of_second, &[&KEY_DOWN]);
    second.text(&format!(r#"{{"ask":"giveControl","to":"consoles/{of_first}"}}"#)).unwrap();
    control(&first, true);
    control(&second, false);
    reaches(&of_second, &[&KEY_DOWN, &KEY_UP]);
    first.bytes(&KEY_DOWN).unwrap();
    reaches(&of_first, &[&KEY_DOWN, &KEY_UP, &KEY_DOWN]);
    // Who has it and leaves, leaves it to who is there.
    drop(first);
    control(&second, true);
}

#[test]
fn a_serial_line_is_one_for_all_who_look_at_it() {
    let scene = Scene::new();
    let first = scene.serial();
    first.bytes(b"login: bob\n").unwrap();
    first.read_until(b"bob\n").unwrap();
    let second = scene.serial();
    // It is shown what was said before it came.
    second.read_until(b"login: bob\n").unwrap();
    let console = scene.opened("the one line", |opened| !opened.is_over);
    assert_eq!(scene.node.consoles().opened().len(), 1);
    console.say(b"hello\n").unwrap();
    first.read_until(b"hello\n").unwrap();
    second.read_until(b"hello\n").unwrap();
    second.bytes(b"not in control").unwrap();
    // Before the first leaves: after that it would have control.
    wait_until("what it types to come", || {
        let all = scene.bob.json(&["console", "list"])?;
        anyhow::ensure!(all[1]["from_viewer_bytes"] == 14, "{all}");
        Ok(())
    })
    .unwrap();
    drop(first);
    control(&second, true);
    second.bytes(b"in control").unwrap();
    scene.opened("what the second types", |opened| opened.told == b"login: bob\nin control");
    assert_eq!(scene.node.consoles().closed(), [""; 0], "the second still looks at it");
    drop(second);
    scene.opened("its end", |opened| opened.is_over);
    is_ordered_closed(&scene, &console.order.console_id);
}

#[test]
fn who_leaves_a_screen_has_its_node_ordered_to_close_it() {
    let scene = Scene::new();
    drop(scene.screen(ConsoleMode::View));
    is_ordered_closed(&scene, &scene.opened("the screen", |_| true).order.console_id);
}

fn is_ordered_closed(scene: &Scene, id: &String) {
    wait_until("the order to close it", || {
        let closed = scene.node.consoles().closed();
        anyhow::ensure!(closed.contains(id), "{closed:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn what_is_no_part_of_rfb_ends_the_console() {
    let scene = Scene::new();
    let viewer = scene.screen(ConsoleMode::Control);
    viewer.bytes(&[99]).unwrap();
    let (_, code, words) = viewer.end().unwrap();
    assert_eq!(code, 4422, "{words}");
    scene.opened("nothing of it", |opened| opened.is_over && opened.told == greeting());
}

#[test]
fn nobody_has_more_consoles_than_there_may_be_and_those_that_are_open_stay() {
    let scene = Scene::new();
    let carol = scene.controller.person("carol").unwrap();
    let grant = ["grant", "create", "--yes", "--user", "carol", "--role", "VmUser", "--path", "/vms"];
    scene.admin.json(&grant).unwrap();
    let callers = [scene.caller(), scene.admin.caller().unwrap(), carol.caller().unwrap()];
    let made = |caller: &Caller| ticket(caller, WEB, ConsoleKind::Vnc, ConsoleMode::View).unwrap().ticket;
    let full = |caller: &Caller, who: &str| {
        let more = caller.viewer().unwrap();
        more.text(&made(caller)).unwrap();
        let (_, code, words) = more.end().unwrap();
        assert_eq!((code, words), (4429, format!("{who} consoles open already")));
    };
    // One user leaves places to others.
    let mut open: Vec<Viewer> = Vec::new();
    for caller in &callers[..2] {
        open.extend((0..8).map(|_| caller.at_console(&made(caller)).unwrap()));
        full(caller, "of this VM you have 8");
    }
    full(&callers[2], "this VM has 16");
    assert_eq!(scene.admin.json(&["console", "list"]).unwrap().as_array().unwrap().len(), 16);
    for viewer in &open {
        viewer.bytes(GREETING[0]).unwrap();
        viewer.read_until(&[1, 1]).unwrap();
    }
}

#[test]
fn a_node_is_ordered_to_open_only_so_many_in_a_minute_and_to_close_them_all() {
    let scene = Scene::new();
    let turned_away = (0..200).find_map(|_| {
        let viewer = scene.caller().viewer().unwrap();
        viewer.text(&scene.ticket(ConsoleKind::Vnc, ConsoleMode::View)).unwrap();
        match viewer.next("the console").unwrap().1 {
            Heard::Closed { code, reason } => Some((code, reason)),
            Heard::Text(_) | Heard::Bytes(_) => None,
        }
    });
    assert_eq!(turned_away, Some((4429, "nodes/here: too many orders in a minute".to_owned())));
    let opened = scene.node.consoles().opened();
    assert_eq!(opened.len(), 110);
    opened.iter().for_each(|opened| is_ordered_closed(&scene, &opened.order.console_id));
}
