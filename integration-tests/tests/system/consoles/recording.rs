//! What is recorded of a console, by which policy, and what becomes of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use horcrux_integration_tests::{Controller, wait_until};
use horcrux_proto::console::Notice;
use horcrux_proto::v1::{ConsoleKind, ConsoleMode};
use horcrux_transport::clock;
use serde_json::Value;

use super::scene::{GREETING, SCREEN, Scene, WEB, ended};

pub(super) fn set(scene: &Scene, subject: &str, scope: &str, more: &[&str]) {
    let set = ["recording", "policy", "set", subject, scope];
    scene.admin.done(&[&set[..], more].concat()).unwrap();
}

fn recordings(scene: &Scene) -> Vec<Value> {
    scene.admin.json(&["recording", "list"]).unwrap().as_array().unwrap().clone()
}

/// The newest one, once it has ended; and its id.
pub(super) fn over(scene: &Scene) -> (Value, String) {
    wait_until("the recording's end", || {
        let newest = recordings(scene).into_iter().next();
        let newest = newest.ok_or_else(|| anyhow::anyhow!("there is none"))?;
        anyhow::ensure!(newest["ended_unix_ms"].is_i64(), "{newest}");
        let id = newest["name"].as_str().unwrap().trim_start_matches("recordings/").to_owned();
        Ok((newest, id))
    })
    .unwrap()
}

pub(super) fn exported(scene: &Scene, id: &str, name: &str) -> Vec<u8> {
    let file = scene.controller.path(name);
    scene.admin.done(&["recording", "export", id, &file]).unwrap();
    fs::read(file).unwrap()
}

/// Types on the serial line, which answers with the same.
fn typed(scene: &Scene, text: &[u8]) {
    let viewer = scene.serial();
    viewer.bytes(text).unwrap();
    viewer.read_until(text).unwrap();
}

#[test]
fn a_serial_line_is_asciicast_with_its_times_and_what_is_typed_is_not_in_it_unless_that_is_wanted() {
    let scene = Scene::new();
    typed(&scene, b"nobody listens");
    assert!(recordings(&scene).is_empty(), "nothing is recorded by itself");

    set(&scene, &format!("vms/{WEB}"), "serial", &[]);
    let viewer = scene.caller().viewer().unwrap();
    viewer.text(&scene.ticket(ConsoleKind::Serial, ConsoleMode::Control)).unwrap();
    let told = |notice| match notice {
        Notice::Opened { recorded, .. } => Some(recorded),
        Notice::Waiting { .. }
        | Notice::Restarted { .. }
        | Notice::Viewers { .. }
        | Notice::Control { .. }
        | Notice::ChannelOpened => None,
    };
    assert!(viewer.notice("the console", told).unwrap(), "the banner");
    let open = scene.bob.json(&["console", "list"]).unwrap();
    assert_eq!(open[0]["recorded"], true, "{open}");
    scene.opened("the line", |_| true).say("caf\u{e9}\r\n".as_bytes()).unwrap();
    viewer.read_until("\u{e9}\r\n".as_bytes()).unwrap();
    let began = clock::monotonic();
    let pause = Duration::from_millis(300);
    wait_until("a moment", || {
        anyhow::ensure!(began.elapsed() > pause, "not yet");
        Ok(())
    })
    .unwrap();
    viewer.bytes(b"later").unwrap();
    viewer.read_until(b"later").unwrap();
    drop(viewer);

    let (listed, id) = over(&scene);
    assert_eq!(
        (&listed["kind"], &listed["keeps_input"], &listed["shed_bytes"]),
        (&"serial".into(), &false.into(), &0.into())
    );
    assert_eq!(listed["user"], "bob@local");
    let text = String::from_utf8(exported(&scene, &id, "first.cast")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&lines[0]["version"], &lines[0]["width"], &lines[0]["height"]),
        (&2.into(), &80.into(), &24.into())
    );
    let said: Vec<(f64, &str)> = lines[1..]
        .iter()
        .filter(|line| line[1] == "o")
        .map(|line| (line[0].as_f64().unwrap(), line[2].as_str().unwrap()))
        .collect();
    let text_said: String = said.iter().map(|(_, text)| *text).collect();
    assert!(text_said.ends_with("caf\u{e9}\r\nlater"), "{text_said:?}");
    let took = said.last().unwrap().0 - said[said.len() - 2].0;
    assert!((0.3..20.0).contains(&took), "{said:?}");
    assert!(lines[1..].iter().all(|line| line[1] != "i"), "{text}");
    // What vouches for it is on the audit log.
    let link = listed["last_link"].as_str().unwrap();
    assert_eq!(link.len(), 64);
    wait_until("the record of the console's end", || {
        let log = scene.admin.json(&["audit", "list"])?.to_string();
        anyhow::ensure!(log.contains(&format!("last link {link}")), "{log}");
        Ok(())
    })
    .unwrap();
    let file = scene.controller.state(&format!("recordings/{id}"));
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(file).unwrap().permissions()) & 0o777,
        0o600
    );

    // By the role, and with what is typed.
    set(&scene, &format!("vms/{WEB}"), "never", &[]);
    set(&scene, "roles/VmUser", "all", &["--keep-input"]);
    typed(&scene, b"secret");
    let (listed, id) = over(&scene);
    assert_eq!(listed["keeps_input"], true);
    let text = String::from_utf8(exported(&scene, &id, "second.cast")).unwrap();
    assert!(text.contains(",\"i\",\"secret\"]"), "{text}");
    let played = scene.admin.done(&["recording", "play", &id, "--speed", "100"]).unwrap();
    assert!(played.ends_with("secret"), "{played:?}");

    set(&scene, "roles/VmUser", "never", &[]);
    typed(&scene, b"nobody again");
    assert_eq!(recordings(&scene).len(), 2);
}

#[test]
fn a_screen_is_what_the_server_said_from_its_greeting_on_and_how_the_viewer_wanted_it() {
    let scene = Scene::new();
    scene.admin.done(&["pool", "create", "seen"]).unwrap();
    scene.admin.done(&["pool", "add", "seen", &format!("vms/{WEB}")]).unwrap();
    set(&scene, "pools/seen", "all", &[]);
    let key = [4, 1, 0, 0, 0, 0, 0, b'k'];
    let wish = [2, 0, 0, 1, 0, 0, 0, 0];
    let look = |more: &[&[u8]]| {
        let viewer = scene.screen(ConsoleMode::Control);
        for part in more {
            viewer.bytes(part).unwrap();
        }
        scene.opened("all of it to be told", |opened| opened.told.ends_with(&key));
        drop(viewer);
        let (listed, id) = over(&scene);
        assert_eq!(listed["kind"], "vnc");
        records(&exported(&scene, &id, &id))
    };
    let bytes = |all: &[(u8, Vec<u8>)], letter: u8| {
        all.iter().filter(|(of, _)| *of == letter).flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<u8>>()
    };
    let all = look(&[&wish, &key]);
    assert!(bytes(&all, b'S').starts_with(b"RFB 003.008\n\x01\x01"), "{all:?}");
    assert!(bytes(&all, b'S').ends_with(SCREEN), "{all:?}");
    assert_eq!(bytes(&all, b'W'), [GREETING[0], &wish].concat());
    assert_eq!(bytes(&all, b'C'), b"", "no key");
    assert!(all.iter().any(|(letter, _)| *letter == b'H'));

    set(&scene, "pools/seen", "all", &["--keep-input"]);
    let all = look(&[&wish, &key]);
    assert!(bytes(&all, b'C').ends_with(&key), "{all:?}");
}

/// The records of a screen's recording: their letters and bytes.
fn records(file: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let header = file.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let (mut rest, mut all, mut last) = (&file[header..], Vec::new(), 0);
    while !rest.is_empty() {
        let micros = u64::from_be_bytes(rest[1..9].try_into().unwrap());
        assert!(micros >= last, "time goes on");
        last = micros;
        let length = usize::try_from(u32::from_be_bytes(rest[9..13].try_into().unwrap())).unwrap();
        all.push((rest[0], rest[13..13 + length].to_vec()));
        rest = &rest[13 + length..];
    }
    all
}

#[test]
fn a_changed_byte_a_cut_end_and_a_missing_file_are_found() {
    let scene = Scene::new();
    set(&scene, &format!("vms/{WEB}"), "serial", &[]);
    typed(&scene, b"what was said");
    let (_, id) = over(&scene);
    let whole = exported(&scene, &id, "whole.cast");
    let file = scene.controller.state(&format!("recordings/{id}"));
    let refused = |name: &str, words: &str| {
        let file = scene.controller.path(name);
        let output = scene.admin.ctl(&["recording", "export", &id, &file]).unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(words), "{name}: {told}");
    };
    let mut changed = whole.clone();
    let at = whole.windows(4).position(|part| part == b"said").unwrap();
    changed[at] = b'p';
    fs::write(&file, &changed).unwrap();
    refused("changed.cast", "not intact: what is there is not what was recorded");
    fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    refused("cut.cast", "not intact");
    // Cut to nothing.
    fs::write(&file, b"").unwrap();
    refused("empty.cast", "not intact: it doesn't end as was noted");
    // Another one in its place, with a row that says so: the audit log knows better.
    typed(&scene, b"what somebody wishes");
    let (_, other) = over(&scene);
    fs::copy(scene.controller.state(&format!("recordings/{other}")), &file).unwrap();
    let sql = format!(
        "UPDATE recordings SET last_link = (SELECT last_link FROM recordings WHERE id = '{other}') WHERE id = '{id}'"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(scene.controller.alter_records(&sql)).unwrap();
    refused("other.cast", "not intact: the audit log has another last link");
    fs::remove_file(&file).unwrap();
    refused("gone.cast", "can't be read");
}

#[test]
fn a_recording_is_for_those_with_sys_audit_and_reading_it_is_on_the_audit_log() {
    let scene = Scene::new();
    set(&scene, &format!("vms/{WEB}"), "serial", &[]);
    typed(&scene, b"for few");
    let (_, id) = over(&scene);
    let file = scene.controller.path("stolen.cast");
    for asks in [
        vec!["recording", "list"],
        vec!["recording", "export", &id, &file],
        vec!["recording", "play", &id],
        vec!["recording", "policy", "list"],
        vec!["recording", "policy", "set", "roles/VmUser", "never"],
    ] {
        let output = scene.bob.ctl(&asks).unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains("needs Sys"), "{asks:?}: {told}");
    }
    assert!(!Path::new(&file).exists());
    scene.grant("Auditor", "/");
    scene.bob.done(&["recording", "export", &id, &file]).unwrap();
    let log = scene.admin.json(&["audit", "list"]).unwrap().to_string();
    assert!(log.contains(&format!("read recordings/{id} of bob@local")), "{log}");
    let output = scene.bob.ctl(&["recording", "policy", "list"]).unwrap();
    assert!(!output.status.success());
}

#[test]
fn a_console_that_must_be_recorded_and_cannot_be_is_not_opened() {
    let scene = Scene::new();
    set(&scene, &format!("vms/{WEB}"), "serial", &[]);
    // Where the directory was, nothing can be made.
    let directory = scene.controller.state("recordings");
    fs::remove_dir(&directory).unwrap();
    fs::write(&directory, "").unwrap();
    let viewer = scene.caller().viewer().unwrap();
    let ticket = scene.ticket(ConsoleKind::Serial, ConsoleMode::Control);
    let began = clock::monotonic();
    viewer.text(&ticket).unwrap();
    ended("not recorded", &viewer, 4500, "it must be recorded, and can't be", began);
    assert!(scene.node.consoles().opened().is_empty(), "the node was not asked");
    assert!(recordings(&scene).is_empty());
    // What needs no recording is opened.
    drop(scene.screen(ConsoleMode::Control));
}

#[test]
fn the_oldest_recordings_make_room_for_the_next() {
    let scene = Scene::on(Controller::start_with("recording_quota = \"4MiB\"\n").unwrap());
    set(&scene, &format!("vms/{WEB}"), "serial", &[]);
    let much = vec![b'x'; 48 << 10];
    let mut ids = Vec::new();
    for _ in 0..3 {
        let viewer = scene.serial();
        for _ in 0..10 {
            viewer.bytes(&much).unwrap();
            let mut left = much.len();
            while left > 0 {
                left -= viewer.read_until(b"x").unwrap().len();
            }
        }
        drop(viewer);
        let (listed, id) = over(&scene);
        assert_eq!(listed["shed_bytes"], 0);
        ids.push(id);
    }
    let kept: Vec<String> =
        recordings(&scene).iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
    assert!(!kept.contains(&format!("recordings/{}", ids[0])), "{kept:?}");
    assert!(kept.contains(&format!("recordings/{}", ids[2])), "{kept:?}");
    assert!(!Path::new(&scene.controller.state(&format!("recordings/{}", ids[0]))).exists());
}

#[test]
fn a_pool_and_a_role_that_are_deleted_take_their_policies_with_them() {
    let scene = Scene::new();
    scene.admin.done(&["pool", "create", "seen"]).unwrap();
    scene.admin.done(&["role", "create", "Watcher", "--privilege", "VmConsole"]).unwrap();
    for subject in ["pools/seen", "roles/Watcher", "roles/VmUser"] {
        set(&scene, subject, "all", &[]);
    }
    scene.admin.done(&["pool", "delete", "seen", "--yes"]).unwrap();
    scene.admin.done(&["role", "delete", "Watcher", "--yes"]).unwrap();
    let left = scene.admin.json(&["recording", "policy", "list"]).unwrap();
    assert_eq!((left.as_array().unwrap().len(), &left[0]["subject"]), (1, &"roles/VmUser".into()), "{left}");
}
