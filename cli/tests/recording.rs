//! Recordings as the program plays and exports them: a controller behind TLS, and a terminal or pipes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod controller;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};

use tokio::process::Command;

use self::controller::recordings::CAST;
use self::controller::secure::Secure;
use horcrux_test_parts::Terminal;

fn program(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_horcruxctl"));
    command.args(args).env_clear().env("XDG_CONFIG_HOME", dir).kill_on_drop(true);
    command
}

async fn done(scene: &Secure, args: &[&str]) -> Output {
    program(scene.dir.path(), args).stdin(Stdio::null()).output().await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_recording_plays_in_a_terminal_that_is_given_back_when_it_is_left() {
    let scene = Secure::start().await;
    for (keys, speed) in [(&b"q"[..], "1"), (b"\x03", "2")] {
        let terminal = Terminal::open();
        let before = terminal.modes();
        let play = ["recording", "play", "a", "--speed", speed];
        let mut child = terminal.run(program(scene.dir.path(), &play));
        let screen = &mut terminal.screen();
        screen.shows("the serial line of shop, as alice@local saw it").await;
        screen.shows("login: ").await;
        screen.shows("welcome").await;
        // One key holds it, another lets it go on.
        terminal.types(b" ");
        screen.shows("[paused: any key goes on]").await;
        terminal.types(b" ");
        terminal.types(keys);
        screen.shows("left before its end: not checked").await;
        assert_eq!(child.wait().await.unwrap().code(), Some(1));
        assert_eq!(terminal.modes(), before);
    }
}

#[tokio::test]
async fn a_vm_has_a_terminal_answer_nothing_and_hides_no_verdict() {
    let scene = Secure::start().await;
    for (id, verdict, code) in
        [("c", "end of the recording", 0), ("d", "not intact: what is there is not what was recorded", 1)]
    {
        let terminal = Terminal::open();
        let mut child = terminal.run(program(scene.dir.path(), &["recording", "play", id]));
        let screen = &mut terminal.screen();
        screen.shows("one\x1b[?25l\x1b[8mtwo\x1b[!p").await;
        screen.shows("\x1b[0m").await;
        screen.shows("\x1b[?25h").await;
        screen.shows(verdict).await;
        assert_eq!(child.wait().await.unwrap().code(), Some(code), "{id}");
    }
}

#[tokio::test]
async fn what_is_exported_is_what_came_and_one_that_was_changed_is_an_error() {
    let scene = Secure::start().await;
    let file = |name: &str| scene.dir.path().join(name).to_str().unwrap().to_owned();
    let export = done(&scene, &["recording", "export", "a", &file("a.cast")]).await;
    assert!(export.status.success() && said(&export).contains("it is what was recorded"), "{export:?}");
    assert_eq!(fs::read_to_string(file("a.cast")).unwrap(), CAST);
    assert_eq!(fs::metadata(file("a.cast")).unwrap().permissions().mode() & 0o777, 0o600);
    let again = done(&scene, &["recording", "export", "a", &file("a.cast")]).await;
    assert!(!again.status.success() && said(&again).contains("exists"), "{again:?}");
    let changed = done(&scene, &["recording", "export", "b", &file("b.cast")]).await;
    let words = "not intact: what is there is not what was recorded; from byte 50 on";
    assert!(!changed.status.success() && said(&changed).contains(words), "{changed:?}");
}

#[tokio::test]
async fn a_policy_is_set_once_and_only_asked_about_in_a_dry_run() {
    let scene = Secure::start().await;
    let set = ["recording", "policy", "set", "/pools/web", "all"];
    let dry = done(&scene, &[&set[..], &["--dry-run"]].concat()).await;
    assert_eq!(said(&dry), "would set the recording policy of /pools/web\n");
    assert!(done(&scene, &[&set[..], &["--keep-input"]].concat()).await.status.success());
    // A bare name is a VM's.
    assert!(done(&scene, &["recording", "policy", "set", "web1", "all"]).await.status.success());
    let asked = scene.controller.0.changes.lock().unwrap().clone();
    let all = "record pools/web RECORDING_SCOPE_ALL";
    let vm = "record vms/web1 RECORDING_SCOPE_ALL false".to_owned();
    assert_eq!(asked, [format!("would {all} false"), format!("{all} true"), vm]);
    for wrong in [["recording", "play", "a", "--speed", "0"], ["recording", "policy", "set", "x", "some"]] {
        assert_eq!(done(&scene, &wrong).await.status.code(), Some(2), "{wrong:?}");
    }
}
