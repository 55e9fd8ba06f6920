//! API tokens: never more than their grants, their owner, their network and their time allow.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use horcrux_integration_tests::Person;
use horcrux_proto::v1::auth_service_client::AuthServiceClient;
use horcrux_proto::v1::token_service_client::TokenServiceClient;
use horcrux_proto::v1::{TokenServiceCreateRequest, WhoAmIRequest};
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::scene::{Scene, WEB};

/// A program that acts with a token of bob's, and the token.
fn program(scene: &Scene, what: &[&str]) -> (Person, Value) {
    let file = scene.controller.path("ci.token");
    let create = ["token", "create", "--comment", "ci", "--token-file", &file];
    let made = scene.bob.json(&[&create[..], what].concat()).unwrap();
    assert_eq!(made["secret"], Value::Null, "it is in the file alone");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let ci = scene.bob.elsewhere("config-ci");
    let fingerprint = scene.controller.fingerprint().unwrap();
    let login =
        ["login", &scene.controller.url(), "--api-token-file", &file, "--fingerprint", fingerprint.trim()];
    ci.done(&login).unwrap();
    (ci, made)
}

fn who_am_i(scene: &Scene, token: &str) -> Result<String, Status> {
    let ask = |wire| async { AuthServiceClient::new(wire).who_am_i(WhoAmIRequest {}).await };
    scene.bob.caller_with(Some(token)).call(ask).map(|answer| answer.user)
}

fn exit(person: &Person, args: &[&str]) -> Option<i32> {
    person.ctl(args).unwrap().status.code()
}

#[test]
fn a_token_does_what_its_grants_and_its_owner_allow_at_that_moment() {
    let scene = Scene::new();
    let (all, web) = (scene.grant("Auditor", "/"), scene.grant("VmUser", "/pools/web"));
    let (ci, made) = program(&scene, &["--grant", "VmUser@/pools/web"]);
    let id = made["id"].as_str().unwrap();
    let seen = ci.json(&["vm", "list"]).unwrap();
    assert_eq!(seen.as_array().unwrap().len(), 1, "its owner sees two: {seen}");
    assert_eq!(ci.json(&["node", "list"]).unwrap(), json!([]));
    assert_eq!(exit(&ci, &["user", "list"]), Some(5));
    // More than its owner has, a token isn't given.
    assert_eq!(
        exit(&scene.bob, &["token", "create", "--comment", "x", "--grant", "Administrator@/"]),
        Some(5)
    );
    // What is for persons, a token can't do for its owner either.
    assert_eq!(exit(&ci, &["token", "create", "--comment", "more", "--full"]), Some(5));
    let password = ci.password_file();
    let change = ["password", "--old-password-file", &password, "--new-password-file", &password];
    assert_eq!(exit(&ci, &change), Some(5));
    // Nor look around among its owner's sessions and tokens.
    assert_eq!(exit(&ci, &["session", "list"]), Some(5));
    assert_eq!(exit(&ci, &["token", "list"]), Some(5));
    let why = |privilege| {
        ci.json(&["auth", "why", "--token", id, privilege, "/vms/web1"]).unwrap()["allowed"].clone()
    };
    assert_eq!(why("VmConsole"), true);
    scene.revoke(&web);
    assert_eq!(why("VmConsole"), false, "its owner lost it");
    assert_eq!(why("VmAudit"), true, "and still has this");
    scene.revoke(&all);
    assert_eq!(exit(&ci, &["vm", "get", WEB]), Some(4));
    assert_eq!(ci.json(&["vm", "list"]).unwrap(), json!([]));
}

#[test]
fn a_token_is_refused_from_elsewhere_after_its_end_when_revoked_and_when_mistyped() {
    let scene = Scene::new();
    let secret = |what: &[&str]| {
        let made =
            scene.bob.json(&[&["token", "create", "--comment", "x", "--full"], what].concat()).unwrap();
        let text = |key: &str| made[key].as_str().unwrap().to_owned();
        (text("id"), text("secret"))
    };
    let refused = |token: &str| who_am_i(&scene, token).unwrap_err();
    let (_, elsewhere) = secret(&["--network", "192.0.2.0/24"]);
    assert_eq!(refused(&elsewhere).code(), Code::PermissionDenied);
    let (_, here) = secret(&["--network", "127.0.0.0/8"]);
    assert_eq!(who_am_i(&scene, &here).unwrap(), "bob@local");
    let wrong = refused("hxt_0");
    assert_eq!(wrong.code(), Code::Unauthenticated);
    // All that is wrong looks the same: a typo in the secret, in the checksum and in the id.
    for at in [here.len() / 2, here.len() - 1, 5] {
        let mut typo = here.clone();
        let other = if &typo[at..=at] == "a" { "b" } else { "a" };
        typo.replace_range(at..=at, other);
        assert_eq!(refused(&typo).message(), wrong.message(), "a typo at {at}");
    }
    let (id, revoked) = secret(&[]);
    assert_eq!(who_am_i(&scene, &revoked).unwrap(), "bob@local");
    scene.bob.done(&["token", "revoke", &id, "--yes"]).unwrap();
    assert_eq!(refused(&revoked).message(), wrong.message());
    let (id, ended) = secret(&["--expires", "1h"]);
    assert_eq!(who_am_i(&scene, &ended).unwrap(), "bob@local");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let past = format!("UPDATE api_tokens SET expires_ms = 1 WHERE id = '{id}'");
    runtime.block_on(scene.controller.alter_records(&past)).unwrap();
    assert_eq!(refused(&ended).message(), wrong.message());
    assert_eq!(
        exit(&scene.bob, &["token", "create", "--comment", "x", "--full", "--expires", "59m"]),
        Some(2)
    );
}

#[test]
fn a_tokens_use_is_on_record_and_its_secret_shown_once() {
    let scene = Scene::new();
    let (ci, made) = program(&scene, &["--full"]);
    assert_eq!(made["last_used_unix_ms"], Value::Null);
    ci.json(&["whoami"]).unwrap();
    let listed = scene.bob.json(&["token", "list"]).unwrap();
    assert_eq!(listed[0]["last_used_from"], "127.0.0.1", "{listed}");
    assert!(listed[0]["last_used_unix_ms"].as_i64() >= made["created_unix_ms"].as_i64(), "{listed}");
    let secret = fs::read_to_string(scene.controller.path("ci.token")).unwrap();
    assert!(!listed.to_string().contains(secret.trim().rsplit('_').next().unwrap()));
    let request = TokenServiceCreateRequest {
        comment: "once".to_owned(),
        full: true,
        request_id: "the-same".to_owned(),
        ..TokenServiceCreateRequest::default()
    };
    let create = || {
        let request = request.clone();
        let call = |wire| async { TokenServiceClient::new(wire).create(request).await };
        scene.bob.caller().unwrap().call(call)
    };
    assert!(create().unwrap().secret.starts_with("hxt_"));
    let again = create().unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    assert!(again.message().contains("shown then"), "{again}");
    assert_eq!(scene.bob.json(&["token", "list"]).unwrap().as_array().unwrap().len(), 2, "and made once");
}
