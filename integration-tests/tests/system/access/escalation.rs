//! Nobody hands out what they lack, by whichever way: it is refused, on record, and changes nothing.

use std::fs;

use horcrux_integration_tests::wait_until;
use horcrux_proto::v1::UserServiceUpdateRequest;
use horcrux_proto::v1::user_service_client::UserServiceClient;
use serde_json::Value;
use tonic::Code;

use super::scene::{OTHER, Scene, WEB};

/// All that bob could have changed.
fn state(scene: &Scene) -> Vec<Value> {
    let of = |noun: &str| scene.admin.json(&[noun, "list"]).unwrap();
    let mut all: Vec<Value> = ["grant", "group", "role", "pool", "tag", "token"].map(of).to_vec();
    let users = scene.admin.json(&["user", "list"]).unwrap();
    let lasting = |user: &Value| (user["user"].clone(), user["disabled"].clone(), user["groups"].clone());
    all.extend(users.as_array().unwrap().iter().map(|user| serde_json::to_value(lasting(user)).unwrap()));
    all
}

fn denials(scene: &Scene) -> usize {
    let rows = scene.admin.json(&["audit", "list", "--user", "bob@local"]).unwrap();
    rows.as_array().unwrap().iter().filter(|row| row["kind"] == "denial").count()
}

/// Bob rules the pool `web` and keeps the accounts, may not get into the pool `dark`, and wants more.
fn with_a_climber() -> Scene {
    let scene = Scene::new();
    let admin = &scene.admin;
    let password = admin.password_file();
    for args in [
        &["role", "create", "PoolBoss", "--privilege", "PermissionsModify,PoolAllocate,VmAudit"][..],
        &["role", "create", "PeopleBoss", "--privilege", "UserModify,PermissionsModify,SysAudit"],
        &["pool", "create", "dark"],
        &["pool", "add", "dark", "vms/other1"],
        &["group", "create", "strong"],
        &["group", "create", "empty"],
        &["user", "create", "carol", "--password-file", &password],
        &["grant", "create", "--group", "strong", "--role", "Administrator", "--path", "/"],
        &["grant", "create", "--user", "carol", "--role", "Administrator", "--path", "/"],
        &["user", "disable", "carol", "--yes"],
        &["grant", "create", "--user", "bob", "--role", "VmUser", "--path", "/vms?tag=qa"],
    ] {
        admin.done(args).unwrap();
    }
    scene.grant("PoolBoss", "/pools");
    scene.grant("PeopleBoss", "/access");
    scene
}

#[test]
fn no_way_up_is_open_to_who_rules_a_pool_and_keeps_the_accounts() {
    let scene = with_a_climber();
    let deny = scene.grant("NoAccess", "/pools/dark");
    let password = scene.controller.path("new.password");
    fs::write(&password, "what bob would like it to be\n").unwrap();
    let (web, other) = (format!("vms/{WEB}"), format!("vms/{OTHER}"));
    let on_other = format!("/{other}");
    let ways: [(&str, &[&str]); 16] = [
        (
            "a stronger role where he rules",
            &["grant", "create", "--user", "bob", "--role", "Administrator", "--path", "/pools/web"],
        ),
        (
            "his own role where he doesn't",
            &["grant", "create", "--user", "bob", "--role", "PoolBoss", "--path", "/"],
        ),
        (
            "a grant on what he can't see",
            &["grant", "create", "--user", "bob", "--role", "VmUser", "--path", &on_other],
        ),
        ("a stronger group", &["group", "add", "strong", "bob"]),
        (
            "somebody new in a stronger group",
            &["user", "create", "eve", "--group", "strong", "--password-file", &password],
        ),
        (
            "a grant for whoever will be in a group",
            &["grant", "create", "--group", "empty", "--role", "VmAdmin", "--path", "/pools/web"],
        ),
        ("an administrator's password", &["user", "set-password", "admin", "--password-file", &password]),
        ("an administrator's second factor", &["user", "reset-second-factor", "admin", "--yes"]),
        ("a disabled administrator", &["user", "enable", "carol"]),
        ("a VM into his pool, to see it", &["pool", "add", "web", &other]),
        ("his VM into another pool", &["pool", "add", "dark", &web]),
        ("a tag that a grant of his selects", &["tag", "add", &web, "qa"]),
        ("that tag on what he can't see", &["tag", "add", &other, "qa"]),
        (
            "more in a role that he holds",
            &[
                "role",
                "update",
                "PoolBoss",
                "--privilege",
                "PermissionsModify,PoolAllocate,VmAudit,VmConsole",
            ],
        ),
        ("what is denied to him", &["grant", "delete", &deny, "--yes"]),
        (
            "a grant beside what is denied to him",
            &["grant", "create", "--user", "bob", "--role", "PoolBoss", "--path", "/pools/dark"],
        ),
    ];
    let before = state(&scene);
    for (way, args) in ways {
        let refused = denials(&scene);
        let output = scene.bob.ctl(args).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(4 | 5)), "{way}: {:?} {said}", output.status);
        assert_eq!(state(&scene), before, "{way} changed something");
        wait_until(&format!("the denial of {way}"), || {
            let now = denials(&scene);
            anyhow::ensure!(now > refused, "{now} are on record");
            Ok(())
        })
        .unwrap();
    }
    // What he may do, he still may.
    scene.admin.done(&["user", "create", "dave", "--password-file", &password]).unwrap();
    for args in [
        &["grant", "create", "--user", "dave", "--role", "PoolBoss", "--path", "/pools/web"][..],
        &["user", "set-password", "dave", "--password-file", &password],
        &["pool", "create", "mine"],
    ] {
        scene.bob.done(args).unwrap();
    }
}

#[test]
fn ones_own_password_and_second_factor_are_changed_by_who_can_show_them() {
    let scene = Scene::new();
    let file = scene.controller.path("new.password");
    fs::write(&file, "whoever sat down at an open session\n").unwrap();
    for (args, instead) in [
        (&["user", "set-password", "admin", "--password-file", &file][..], "horcruxctl password"),
        (&["user", "reset-second-factor", "admin", "--yes"], "horcruxctl totp remove"),
    ] {
        let output = scene.admin.ctl(args).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(instead), "{said}");
    }
    // Nor by another client than ours.
    let own = |change: UserServiceUpdateRequest| {
        let request = UserServiceUpdateRequest { user: "admin@local".to_owned(), ..change };
        let call = |wire| async { UserServiceClient::new(wire).update(request).await };
        scene.admin.caller().unwrap().call(call).unwrap_err().code()
    };
    let password = Some("whoever sat down here".to_owned());
    let changes = [
        UserServiceUpdateRequest { password, ..UserServiceUpdateRequest::default() },
        UserServiceUpdateRequest { reset_second_factor: true, ..UserServiceUpdateRequest::default() },
    ];
    assert_eq!(changes.map(own), [Code::FailedPrecondition; 2]);
    scene.admin.elsewhere("config-2").sign_in().unwrap();
    // A token is no other person.
    let made = scene.admin.json(&["token", "create", "--comment", "x", "--full"]).unwrap();
    let token = scene.admin.caller_with(made["secret"].as_str());
    let request = UserServiceUpdateRequest {
        user: "admin@local".to_owned(),
        reset_second_factor: true,
        ..UserServiceUpdateRequest::default()
    };
    let refused =
        token.call(|wire| async { UserServiceClient::new(wire).update(request).await }).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    // Others' are what it is for.
    for args in [
        &["user", "set-password", "bob", "--password-file", &file][..],
        &["user", "reset-second-factor", "bob", "--yes"],
    ] {
        scene.admin.done(args).unwrap();
    }
}
