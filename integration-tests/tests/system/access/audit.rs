//! What was done and refused is on record, once, in order, and can't be quietly edited.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use anyhow::ensure;
use horcrux_integration_tests::{Controller, Person, program, succeeded, wait_until};
use horcrux_proto::v1::auth_service_client::AuthServiceClient;
use horcrux_proto::v1::user_service_client::UserServiceClient;
use horcrux_proto::v1::{CreateGroupRequest, RefreshRequest, WhoAmIRequest};
use serde_json::Value;
use tonic::Code;

fn rows(person: &Person, args: &[&str]) -> Vec<Value> {
    let listed = person.json(&[&["audit", "list", "--limit", "100000"], args].concat()).unwrap();
    listed.as_array().unwrap().clone()
}

/// The client's exit code, and what `audit verify` says.
fn verified(person: &Person, args: &[&str]) -> (Option<i32>, Value) {
    let output = person.ctl(&[&["-o", "json", "audit", "verify"], args].concat()).unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

fn alter(controller: &Controller, sql: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(controller.alter_records(sql)).unwrap();
}

/// Changes things in several threads at once until the controller is killed in the middle of it.
fn killed_in_a_change(controller: &mut Controller, round: usize) {
    let caller = controller.administrator().unwrap().caller().unwrap();
    let (made, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for worker in 0..4 {
            let (caller, made, over) = (&caller, &made, &over);
            scope.spawn(move || {
                for number in 0.. {
                    let name = format!("g{round}-{worker}-{number}");
                    let request = CreateGroupRequest { name, ..CreateGroupRequest::default() };
                    let create = |wire| async { UserServiceClient::new(wire).create_group(request).await };
                    if over.load(Ordering::Relaxed) || caller.call(create).is_err() {
                        return;
                    }
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let busy = wait_until("changes", || {
            ensure!(made.load(Ordering::Relaxed) >= 8, "{made:?} were made");
            Ok(())
        });
        let killed = busy.and_then(|()| controller.daemon.kill());
        over.store(true, Ordering::Relaxed);
        killed.unwrap();
    });
}

#[test]
fn an_intent_has_one_outcome_though_the_controller_is_killed_in_between() {
    let mut controller = Controller::start().unwrap();
    let admin = controller.administrator().unwrap();
    let unknown = |row: &Value| row["outcome"].as_str().is_some_and(|text| text.starts_with("unknown"));
    let mut rounds = 0;
    while !rows(&admin, &[]).iter().any(unknown) {
        assert!(rounds < 20, "twenty kills came between no intent and its outcome");
        killed_in_a_change(&mut controller, rounds);
        controller.restart().unwrap();
        rounds += 1;
    }
    let all = rows(&admin, &[]);
    let mut outcomes: BTreeMap<u64, usize> = BTreeMap::new();
    for row in all.iter().filter(|row| row["kind"] == "outcome") {
        *outcomes.entry(row["intent"].as_u64().unwrap()).or_default() += 1;
    }
    let intents: Vec<u64> = all
        .iter()
        .filter(|row| row["kind"] == "intent")
        .map(|row| row["sequence"].as_u64().unwrap())
        .collect();
    let lost = all.iter().filter(|row| unknown(row)).count();
    eprintln!("{rounds} kills, {} changes, {lost} of unknown outcome", intents.len());
    assert!(intents.len() >= 8, "{all:?}");
    for intent in &intents {
        assert_eq!(outcomes.get(intent), Some(&1), "outcomes of row {intent}");
    }
    assert_eq!(outcomes.len(), intents.len(), "no outcome without an intent");
    let (code, verdict) = verified(&admin, &[]);
    assert_eq!((code, &verdict["intact"]), (Some(0), &Value::Bool(true)), "{verdict}");
    assert_eq!(verdict["rows"].as_u64(), Some(all.len() as u64));
}

/// What a killed controller left behind, to be put back.
fn kept(controller: &Controller) -> Vec<(String, Vec<u8>)> {
    let files = ["control.db", "control.db-wal"].map(|name| controller.state(name));
    files.into_iter().filter_map(|file| fs::read(&file).ok().map(|bytes| (file, bytes))).collect()
}

#[test]
fn a_row_that_was_edited_removed_moved_or_cut_off_is_found() {
    let mut controller = Controller::start().unwrap();
    let admin = controller.administrator().unwrap();
    // At its start the controller notes where its log is.
    controller.daemon.kill().unwrap();
    controller.restart().unwrap();
    let noted =
        wait_until("the noted head", || Ok(fs::read_to_string(controller.state("audit-head"))?)).unwrap();
    for number in 0..5 {
        admin.done(&["group", "create", &format!("g{number}")]).unwrap();
    }
    let (_, verdict) = verified(&admin, &[]);
    let head = verdict["head"].as_str().unwrap().to_owned();
    let last = verdict["rows"].as_u64().unwrap();
    let noted: u64 = noted.split_once(':').unwrap().0.parse().unwrap();
    assert!(1 < noted && noted + 2 < last, "{noted} of {last}");
    controller.daemon.kill().unwrap();
    let files = kept(&controller);
    let swap =
        "UPDATE audit SET sequence = -4 WHERE sequence = 4; UPDATE audit SET sequence = 4 WHERE sequence = 5;
         UPDATE audit SET sequence = 5 WHERE sequence = -4";
    let cut = format!("DELETE FROM audit WHERE sequence > {}", last - 2);
    let (checkpoint, cut_deep) = (vec!["--checkpoint", &head], "DELETE FROM audit WHERE sequence > 2");
    let cases: [(&str, &str, Vec<&str>, Option<u64>); 7] = [
        ("as it was", "", checkpoint.clone(), None),
        ("edited", "UPDATE audit SET actor = 'nobody@local' WHERE sequence = 4", vec![], Some(4)),
        (
            "its hash edited too",
            "UPDATE audit SET detail = 'x', hash = randomblob(32) WHERE sequence = 4",
            vec![],
            Some(4),
        ),
        ("removed", "DELETE FROM audit WHERE sequence = 4", vec![], Some(5)),
        ("moved", swap, vec![], Some(4)),
        ("cut off at the end", &cut, checkpoint, Some(last - 1)),
        ("cut off before what the controller noted itself", cut_deep, vec![], Some(3)),
    ];
    for (how, sql, args, broken_at) in cases {
        for (file, bytes) in &files {
            fs::write(file, bytes).unwrap();
        }
        alter(&controller, sql);
        controller.restart().unwrap();
        let (code, verdict) = verified(&admin, &args);
        eprintln!("{how}: {verdict}");
        assert_eq!(verdict["broken_at"].as_u64(), broken_at, "{how}: {verdict}");
        assert_eq!(code, Some(i32::from(broken_at.is_some())), "{how}");
        controller.daemon.kill().unwrap();
    }
    // A restart doesn't make it good.
    controller.restart().unwrap();
    assert_eq!(verified(&admin, &[]).0, Some(1));
}

#[test]
fn what_cannot_be_put_on_record_is_not_done() {
    let controller = Controller::start().unwrap();
    let admin = controller.administrator().unwrap();
    let token = controller.join_token("web1").unwrap();
    alter(
        &controller,
        "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'disk full'); END",
    );
    let refused = admin.ctl(&["group", "create", "ops"]).unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("the audit log can't be written"), "{said}");
    assert!(!controller.enroll("web1", &token).unwrap().status.success());
    assert!(admin.elsewhere("config-2").sign_in().is_err(), "a sign-in that is not on record");
    alter(&controller, "DROP TRIGGER full");
    assert_eq!(admin.json(&["group", "list"]).unwrap(), serde_json::json!([]));
    assert_eq!(admin.json(&["node", "list"]).unwrap(), serde_json::json!([]));
    admin.done(&["group", "create", "ops"]).unwrap();
    // Nor was the token used up: an agent with another key may have it.
    fs::remove_dir_all(controller.path("agent-web1")).unwrap();
    succeeded(&controller.enroll("web1", &token).unwrap()).unwrap();
    assert_eq!(verified(&admin, &[]).0, Some(0));
}

#[test]
fn what_was_done_and_what_was_refused_is_found_by_who_and_what_and_when() {
    let controller = Controller::start().unwrap();
    let (admin, bob) = (controller.administrator().unwrap(), controller.person("bob").unwrap());
    admin.done(&["pool", "create", "web"]).unwrap();
    admin.done(&["grant", "create", "--user", "bob", "--role", "VmUser", "--path", "/pools/web"]).unwrap();
    assert_eq!(bob.ctl(&["pool", "delete", "web", "--yes"]).unwrap().status.code(), Some(5));
    assert_eq!(bob.ctl(&["user", "list"]).unwrap().status.code(), Some(5));
    let denial = wait_until("the denial", || {
        let rows = rows(&admin, &["--user", "bob@local", "--resource", "pools/web", "--since", "1h"]);
        rows.into_iter().find(|row| row["kind"] == "denial").ok_or_else(|| anyhow::anyhow!("none"))
    })
    .unwrap();
    assert_eq!(denial["rpc"], "/horcrux.v1.PoolService/Delete");
    assert_eq!((&denial["decision"], &denial["outcome"]), (&"PoolAllocate".into(), &"denied".into()));
    let sessions = admin.json(&["session", "list", "--user", "bob@local"]).unwrap();
    assert_eq!((&denial["session"], &denial["source"]), (&sessions[0]["id"], &"127.0.0.1".into()));
    // All of one pool: what was made, granted and refused.
    let of_pool = rows(&admin, &["--resource", "pools/web"]);
    let rpcs: Vec<&str> = of_pool.iter().map(|row| row["rpc"].as_str().unwrap()).collect();
    for rpc in ["PoolService/Create", "GrantService/Create", "PoolService/Delete"] {
        assert!(rpcs.iter().any(|found| found.ends_with(rpc)), "{rpc} is not among {rpcs:?}");
    }
    let made = of_pool.iter().find(|row| row["kind"] == "intent").unwrap();
    assert_eq!(made["actor"], "admin@local");
    assert!(made["decision"].as_str().unwrap().contains("Administrator@/"), "what allowed it: {made}");
    assert_eq!(rows(&admin, &["--resource", "pools/we"]), Vec::<Value>::new(), "a name is not its beginning");
    for pattern in ["pool_", "%", "pools/w_b"] {
        assert_eq!(rows(&admin, &["--resource", pattern]), Vec::<Value>::new(), "{pattern}");
    }
    assert!(rows(&admin, &["--since", "2100-01-01T00:00:00Z"]).is_empty());
    let own = rows(&admin, &["--user", "bob@local"]);
    assert!(
        own.iter().all(|row| row["actor"] == "bob@local") && own.iter().any(|row| row["kind"] == "event")
    );
}

#[test]
fn a_wrong_password_is_on_record_without_what_was_typed() {
    let controller = Controller::start().unwrap();
    let (admin, bob) = (controller.administrator().unwrap(), controller.person("bob").unwrap());
    let wrong = controller.path("wrong");
    fs::write(&wrong, "not the password of bob\n").unwrap();
    for user in ["bob", "my-password-in-the-wrong-field"] {
        let args = ["login", &controller.url(), "--user", user, "--password-file", &wrong];
        assert_eq!(bob.ctl(&args).unwrap().status.code(), Some(3), "{user}");
    }
    let failed: Vec<Value> = rows(&admin, &[])
        .into_iter()
        .filter(|row| {
            row["rpc"].as_str().is_some_and(|rpc| rpc.ends_with("SignIn")) && row["outcome"] != "ok"
        })
        .collect();
    let actors: Vec<&str> = failed.iter().map(|row| row["actor"].as_str().unwrap()).collect();
    assert_eq!(actors, ["unknown", "bob@local"], "{failed:?}");
    assert_eq!(failed[0]["outcome"], failed[1]["outcome"], "who is unknown looks as who is known");
    let all = format!("{:?}", rows(&admin, &[]));
    assert!(!all.contains("my-password") && !all.contains("not the password"));
}

#[test]
fn a_code_from_the_controllers_host_brings_an_administrator_back_once() {
    let mut controller = Controller::start().unwrap();
    let admin = controller.administrator().unwrap();
    let token = admin.json(&["token", "create", "--comment", "x", "--full"]).unwrap();
    let with_token = admin.caller_with(token["secret"].as_str());
    let who_am_i =
        || with_token.call(|w| async { AuthServiceClient::new(w).who_am_i(WhoAmIRequest {}).await });
    who_am_i().unwrap();
    // A group of theirs must not keep them out.
    admin.done(&["group", "create", "dark"]).unwrap();
    admin.done(&["group", "add", "dark", "admin"]).unwrap();
    // The last administrator can't be disabled as long as the controller is asked.
    assert!(!admin.ctl(&["user", "disable", "admin", "--yes"]).unwrap().status.success());
    controller.daemon.kill().unwrap();
    alter(
        &controller,
        "UPDATE users SET disabled = 1; INSERT INTO grants (id, subject_kind, subject, role, path, propagate, \
         created_ms, created_by) VALUES ('dark', 'group', 'dark', 'NoAccess', '/access', 1, 0, '')",
    );
    controller.restart().unwrap();
    assert_eq!(admin.ctl(&["user", "list"]).unwrap().status.code(), Some(3));
    let code = controller.path("code");
    let made = Command::new(program("horcrux-controld").unwrap())
        .args(["recover-admin", "--code-file", &code, "--config", &controller.path("controld.toml")])
        .output()
        .unwrap();
    succeeded(&made).unwrap();
    let setup = |person: &Person, user: &str| {
        let fingerprint = controller.fingerprint().unwrap();
        let (url, password) = (controller.url(), person.password_file());
        let args = ["setup", &url, "--user", user, "--code-file", &code, "--password-file", &password];
        person.ctl(&[&args[..], &["--fingerprint", fingerprint.trim()]].concat()).unwrap()
    };
    let back = admin.elsewhere("config-2");
    succeeded(&setup(&back, "admin")).unwrap();
    assert_eq!(back.json(&["whoami"]).unwrap()["roles"], serde_json::json!(["Administrator"]));
    back.done(&["group", "create", "ops"]).unwrap();
    let again = setup(&admin.elsewhere("config-3"), "eve");
    assert_eq!(again.status.code(), Some(5), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(back.json(&["user", "list"]).unwrap().as_array().unwrap().len(), 1, "no eve");
    let made = rows(&back, &["--user", "controller"]);
    for rpc in ["recover-admin", "/horcrux.v1.AuthService/CompleteSetup"] {
        assert!(made.iter().any(|row| row["rpc"] == rpc), "{rpc}: {made:?}");
    }
    let intent = made.iter().find(|row| row["kind"] == "intent").unwrap();
    assert!(intent["detail"].as_str().unwrap().contains("API tokens"), "{intent}");
    assert_eq!(who_am_i().unwrap_err().code(), Code::Unauthenticated, "who had the account may have made it");
    assert_eq!(verified(&back, &[]).0, Some(0));
}

#[test]
fn a_refresh_token_that_is_used_twice_is_on_record_with_the_session_that_it_ended() {
    let controller = Controller::start().unwrap();
    let (admin, bob) = (controller.administrator().unwrap(), controller.person("bob").unwrap());
    let sessions = admin.json(&["session", "list", "--user", "bob@local"]).unwrap();
    let refresh_token = bob.tokens().unwrap()["refresh_token"].as_str().unwrap().to_owned();
    let refresh = || {
        let request = RefreshRequest { refresh_token: refresh_token.clone() };
        bob.caller_with(None).call(|wire| async { AuthServiceClient::new(wire).refresh(request).await })
    };
    refresh().unwrap();
    assert_eq!(refresh().unwrap_err().code(), Code::Unauthenticated);
    // It is over: nothing is left to be ended.
    assert_eq!(refresh().unwrap_err().code(), Code::Unauthenticated);
    let id = sessions[0]["id"].as_str().unwrap();
    let of_session = rows(&admin, &["--resource", &format!("sessions/{id}")]);
    assert_eq!(of_session.len(), 1, "{of_session:?}");
    let row = &of_session[0];
    assert_eq!((&row["actor"], &row["kind"]), (&"bob@local".into(), &"event".into()), "{row}");
    assert_eq!((&row["session"], &row["source"]), (&id.into(), &"127.0.0.1".into()), "{row}");
    assert_eq!(row["rpc"], "/horcrux.v1.AuthService/Refresh");
    assert!(row["outcome"].as_str().unwrap().contains("used twice"), "{row}");
}
