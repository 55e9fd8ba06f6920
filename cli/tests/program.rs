//! The program as scripts see it: exit codes, and what goes where.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn horcruxctl(home: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_horcruxctl"))
        .args(args)
        .env_clear()
        .env("XDG_CONFIG_HOME", home)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn ended(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A port where nobody listens.
fn closed_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn help_and_version_are_data() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["--help"][..], &["--version"], &["version"], &["completions", "zsh"]] {
        let output = horcruxctl(dir.path(), args);
        assert_eq!(ended(&output), (0, String::new()), "{args:?}");
        assert!(!output.stdout.is_empty());
    }
    assert!(String::from_utf8_lossy(&horcruxctl(dir.path(), &["--help"]).stdout).contains("Exit codes:"));
}

#[test]
fn wrong_use_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&[][..], &["nodes"], &["node", "get"], &["-o", "xml", "node", "list"]] {
        let (code, talk) = ended(&horcruxctl(dir.path(), args));
        assert_eq!(code, 2, "{args:?}: {talk}");
    }
}

#[test]
fn what_is_asked_wrongly_needs_no_controller() {
    let dir = tempfile::tempdir().unwrap();
    for (args, says) in [
        (&["auth", "why", "alice", "VmFly", "/"][..], "VmConsole"),
        (&["role", "create", "Op", "--privilege", "VmFly"], "VmConsole"),
        (&["audit", "list", "--follow", "-o", "yaml"], "-o json"),
        (&["audit", "verify", "--checkpoint", "17"], "SEQUENCE:HASH"),
        (&["login", "https://web1", "--password-file", "-", "--second-factor-file", "-"], "one secret"),
    ] {
        let (code, talk) = ended(&horcruxctl(dir.path(), args));
        assert_eq!(code, 2, "{args:?}: {talk}");
        assert!(talk.contains(says), "{args:?}: {talk}");
    }
}

#[test]
fn without_a_session_every_command_says_how_to_get_one() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["node", "list"][..],
        &["vm", "get", "x"],
        &["vm", "console", "x"],
        &["console", "list"],
        &["watch"],
        &["whoami"],
        &["user", "list"],
        &["audit", "list"],
    ] {
        let output = horcruxctl(dir.path(), args);
        let (code, talk) = ended(&output);
        assert_eq!(code, 3, "{args:?}: {talk}");
        assert!(talk.contains("next: run `horcruxctl login"), "{talk}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_controller_that_is_not_there_ends_with_6() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("https://127.0.0.1:{}", closed_port());
    let pin = "ab".repeat(32);
    let (code, talk) = ended(&horcruxctl(dir.path(), &["login", &url, "--fingerprint", &pin, "--user", "a"]));
    assert_eq!(code, 6, "{talk}");
    assert!(talk.contains(&url), "{talk}");
    assert!(!dir.path().join("horcrux/contexts.toml").exists(), "nothing is kept");
}

#[test]
fn a_context_that_does_not_exist_ends_with_4_and_a_broken_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (code, talk) = ended(&horcruxctl(dir.path(), &["--context", "lab", "node", "list"]));
    assert_eq!(code, 4, "{talk}");
    fs::create_dir(dir.path().join("horcrux")).unwrap();
    fs::write(dir.path().join("horcrux/contexts.toml"), "colour = \"red\"\n").unwrap();
    let (code, talk) = ended(&horcruxctl(dir.path(), &["context", "list"]));
    assert_eq!(code, 2, "{talk}");
    assert!(talk.contains("contexts.toml") && talk.contains("colour"), "{talk}");
}

#[test]
fn top_needs_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let (code, talk) = ended(&horcruxctl(dir.path(), &["top"]));
    assert_eq!(code, 2, "{talk}");
    assert!(talk.contains("horcruxctl watch"), "{talk}");
}
