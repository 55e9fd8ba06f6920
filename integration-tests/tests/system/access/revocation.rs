//! Who loses a right loses what it showed, on streams that are open too, within five seconds. The times are printed.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Instant;

use horcrux_integration_tests::{succeeded, wait_until};
use horcrux_transport::clock;
use tonic::Code;

use super::scene::{Open, Scene, end_of, in_time, open, watch};

/// Both streams end with `code` in time once `act` is begun.
fn both_end(open: &Open, code: Code, why: &str, act: impl FnOnce()) {
    let began = clock::monotonic();
    act();
    both_ended(open, code, why, began);
}

fn both_ended(open: &Open, code: Code, why: &str, began: Instant) {
    for (stream, ended) in [("watch", open.watch.end()), ("audit follow", open.follow.end())] {
        let (at, status) = ended.unwrap();
        assert_eq!(status.code(), code, "{why}: {stream}: {status}");
        in_time(&format!("{why}: {stream} ended"), began, at);
    }
}

#[test]
fn a_logout_ends_the_sessions_streams() {
    let scene = Scene::new();
    scene.grant("Auditor", "/");
    let open = open(&scene.bob.caller().unwrap());
    both_end(&open, Code::Unauthenticated, "logout", || {
        scene.bob.done(&["logout"]).unwrap();
    });
}

#[test]
fn disabling_a_user_ends_their_streams_of_sessions_and_of_tokens() {
    let scene = Scene::new();
    scene.grant("Auditor", "/");
    let made = scene.bob.json(&["token", "create", "--comment", "ci", "--full"]).unwrap();
    let by_session = open(&scene.bob.caller().unwrap());
    let by_token = open(&scene.bob.caller_with(made["secret"].as_str()));
    let began = clock::monotonic();
    both_end(&by_session, Code::Unauthenticated, "user disabled, session", || {
        scene.admin.done(&["user", "disable", "bob", "--yes"]).unwrap();
    });
    both_ended(&by_token, Code::Unauthenticated, "user disabled, token", began);
    // And nothing opens them again.
    for caller in [scene.bob.caller().unwrap(), scene.bob.caller_with(made["secret"].as_str())] {
        assert_eq!(watch(&caller).end().unwrap().1.code(), Code::Unauthenticated);
    }
}

#[test]
fn a_session_that_an_administrator_ends_takes_its_streams_along_and_no_others() {
    let scene = Scene::new();
    scene.grant("Auditor", "/");
    let ended = open(&scene.bob.caller().unwrap());
    let sessions = scene.admin.json(&["session", "list", "--user", "bob@local"]).unwrap();
    let id = sessions[0]["id"].as_str().unwrap();
    let other = scene.bob.elsewhere("config-bob-2");
    other.sign_in().unwrap();
    let kept = open(&other.caller().unwrap());
    both_end(&ended, Code::Unauthenticated, "session ended by an administrator", || {
        scene.admin.done(&["session", "end", id, "--yes"]).unwrap();
    });
    kept.watch.until("something after that", Some).unwrap();
    kept.follow.until("something after that", Some).unwrap();
}

#[test]
fn an_api_tokens_streams_end_when_it_is_revoked() {
    let scene = Scene::new();
    scene.grant("Auditor", "/");
    let made = scene.bob.json(&["token", "create", "--comment", "ci", "--grant", "Auditor@/"]).unwrap();
    let open = open(&scene.bob.caller_with(made["secret"].as_str()));
    both_end(&open, Code::Unauthenticated, "token revoked", || {
        scene.bob.done(&["token", "revoke", made["id"].as_str().unwrap(), "--yes"]).unwrap();
    });
}

#[test]
fn what_a_group_gave_goes_with_the_membership() {
    let scene = Scene::new();
    scene.admin.done(&["group", "create", "auditors"]).unwrap();
    scene.admin.done(&["group", "add", "auditors", "bob"]).unwrap();
    scene.granted(&["--group", "auditors", "--role", "Auditor", "--path", "/"]);
    let open = open(&scene.bob.caller().unwrap());
    both_end(&open, Code::PermissionDenied, "taken out of the group", || {
        scene.admin.done(&["group", "remove", "auditors", "bob"]).unwrap();
    });
}

#[test]
fn a_grant_that_ends_ends_what_it_gave() {
    let scene = Scene::new();
    let until = ["grant", "create", "--user", "bob", "--role", "Auditor", "--path", "/", "--not-after", "4s"];
    let grant = scene.admin.json(&until).unwrap();
    let open = open(&scene.bob.caller().unwrap());
    both_ended(&open, Code::PermissionDenied, "the grant's end", end_of(&grant));
}

#[test]
fn a_new_password_and_a_deleted_user_end_streams() {
    let scene = Scene::new();
    scene.grant("Auditor", "/");
    let before = open(&scene.bob.caller().unwrap());
    both_end(&before, Code::Unauthenticated, "new password", || {
        let password = scene.bob.password_file();
        scene.admin.done(&["user", "set-password", "bob", "--password-file", &password]).unwrap();
    });
    scene.bob.sign_in().unwrap();
    let again = open(&scene.bob.caller().unwrap());
    both_end(&again, Code::Unauthenticated, "user deleted", || {
        scene.admin.done(&["user", "delete", "bob", "--yes"]).unwrap();
    });
}

#[test]
fn the_command_line_client_says_why_its_stream_ended() {
    let scene = Scene::new();
    let grant = scene.grant("Auditor", "/");
    let commands: [&[&str]; 2] =
        [&["-o", "json", "watch", "status"], &["-o", "json", "audit", "list", "--follow"]];
    let children = commands.map(|args| {
        let mut command = scene.bob.command(args).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
        assert!(first.starts_with('{'), "{args:?}: {first}");
        child
    });
    let began = clock::monotonic();
    scene.revoke(&grant);
    for (mut child, args) in children.into_iter().zip(commands) {
        wait_until("the client's end", || child.try_wait()?.ok_or_else(|| anyhow::anyhow!("it runs")))
            .unwrap();
        in_time(&format!("{args:?} ended"), began, clock::monotonic());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(5), "{args:?}: {said}");
        assert!(succeeded(&output).is_err() && said.contains("permission denied"), "{args:?}: {said}");
    }
}
