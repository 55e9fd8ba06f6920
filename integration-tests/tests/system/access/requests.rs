//! Requests that come more than once: their ids say which are the same.

use std::time::Duration;

use horcrux_integration_tests::rpc::Rpc;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::sign_in::{PASSWORD, sign_in, with_controller};

#[test]
fn a_request_id_stands_for_the_whole_request() {
    with_controller(|rpc| async move {
        let admin = rpc.signed_in("alice", PASSWORD).await.unwrap();
        let user = "/horcrux.v1.UserService/Create";
        let bob = json!({"user": "bob", "password": PASSWORD, "requestId": "1"});
        admin.ask(user, &bob).await.unwrap();
        admin.ask(user, &bob).await.unwrap();
        let update = "/horcrux.v1.UserService/Update";
        let change = |password: &str| json!({"user": "bob", "password": password, "requestId": "2"});
        admin.ask(update, &change("another horse battery")).await.unwrap();
        admin.ask(update, &change("another horse battery")).await.unwrap();
        let other = admin.ask(update, &change("a third horse battery")).await.unwrap_err();
        assert_eq!(other.code(), Code::AlreadyExists, "{other}");
        sign_in(&rpc, "bob", "another horse battery", None).await.unwrap();
    });
}

/// Twenty of the same request at once.
async fn twenty(admin: &Rpc, rpc: &str, request: &Value) -> Vec<Result<Value, Status>> {
    let mut all = JoinSet::new();
    for _ in 0..20 {
        let (admin, rpc, request) = (admin.clone(), format!("/horcrux.v1.{rpc}"), request.clone());
        all.spawn(async move { admin.ask(&rpc, &request).await });
    }
    all.join_all().await
}

#[test]
fn of_the_same_request_many_times_at_once_one_is_carried_out() {
    with_controller(|rpc| async move {
        let admin = rpc.signed_in("alice", PASSWORD).await.unwrap();
        let role = json!({"name": "Keeper", "privileges": ["PRIVILEGE_SYS_AUDIT"]});
        let all = [
            ("UserService/Create", json!({"user": "bob", "password": PASSWORD})),
            ("UserService/CreateGroup", json!({"name": "ops"})),
            ("GrantService/CreateRole", role.clone()),
            ("GrantService/UpdateRole", role),
            ("PoolService/Create", json!({"name": "pools/web"})),
            ("GrantService/Create", json!({"user": "bob", "role": "Auditor", "path": "/pools/web"})),
            ("PoolService/Delete", json!({"name": "pools/web"})),
            ("GrantService/DeleteRole", json!({"name": "Keeper"})),
            ("UserService/DeleteGroup", json!({"name": "ops"})),
            ("UserService/Delete", json!({"user": "bob"})),
        ];
        for (number, (rpc, mut request)) in all.into_iter().enumerate() {
            request["requestId"] = json!(number.to_string());
            let answers = twenty(&admin, rpc, &request).await;
            for status in answers.iter().filter_map(|answer| answer.as_ref().err()) {
                assert_eq!(status.code(), Code::Aborted, "{rpc}: {status}");
            }
            assert!(answers.iter().any(Result::is_ok), "{rpc}");
            let again = admin.ask(&format!("/horcrux.v1.{rpc}"), &request).await;
            again.unwrap_or_else(|status| panic!("{rpc}, repeated: {status}"));
        }
        let log = json!({"resource": "roles/Keeper"});
        let log = admin.ask("/horcrux.v1.AuditService/List", &log).await.unwrap();
        let intents: Vec<&Value> =
            log["records"].as_array().unwrap().iter().filter(|r| r["kind"] == "AUDIT_KIND_INTENT").collect();
        assert_eq!(intents.len(), 3, "made, changed and deleted once each: {log}");
    });
}

#[test]
fn of_two_who_make_the_same_name_at_once_one_is_told() {
    with_controller(|rpc| async move {
        let admin = rpc.signed_in("alice", PASSWORD).await.unwrap();
        for (rpc, request) in [
            ("UserService/CreateGroup", json!({"name": "ops"})),
            ("GrantService/CreateRole", json!({"name": "Keeper", "privileges": ["PRIVILEGE_SYS_AUDIT"]})),
            ("PoolService/Create", json!({"name": "pools/web"})),
        ] {
            let answers = twenty(&admin, rpc, &request).await;
            let codes = answers.iter().map(|answer| answer.as_ref().err().map(Status::code));
            let (made, told): (Vec<_>, Vec<_>) = codes.partition(Option::is_none);
            assert_eq!(made.len(), 1, "{rpc}: {answers:?}");
            assert!(told.iter().all(|code| *code == Some(Code::AlreadyExists)), "{rpc}: {told:?}");
        }
    });
}

/// Longer than what still counts as having come at once.
const HELD: Duration = Duration::from_millis(300);

#[test]
fn a_request_that_was_held_back_is_decided_by_what_holds_when_it_comes() {
    with_controller(|rpc| async move {
        let admin = rpc.signed_in("alice", PASSWORD).await.unwrap();
        let ask = async |method: &str, request: Value| {
            admin.must(&format!("/horcrux.v1.{method}"), request).await.unwrap()
        };
        let bob = json!({"user": "bob", "role": "Administrator", "path": "/"});
        ask("UserService/Create", json!({"user": "bob", "password": PASSWORD})).await;
        for (code, lost) in [(Code::PermissionDenied, "the grant"), (Code::Unauthenticated, "the account")] {
            let grant = ask("GrantService/Create", bob.clone()).await["grant"]["id"].clone();
            let caller = rpc.signed_in("bob", PASSWORD).await.unwrap();
            let (release, released) = oneshot::channel();
            let (mut held, late) = (JoinSet::new(), caller.clone());
            held.spawn(async move {
                let eve = json!({"user": "eve", "password": PASSWORD});
                late.ask_late("/horcrux.v1.UserService/Create", &eve, released).await
            });
            tokio::time::sleep(HELD).await;
            // On the same connection, and later than the head of the other.
            caller.ask("/horcrux.v1.AuthService/WhoAmI", &json!({})).await.unwrap();
            if lost == "the grant" {
                ask("GrantService/Delete", json!({"grantId": grant})).await;
            } else {
                ask("UserService/Update", json!({"user": "bob", "disabled": true})).await;
            }
            release.send(()).unwrap();
            let status = held.join_next().await.unwrap().unwrap().unwrap_err();
            assert_eq!(status.code(), code, "without {lost}: {status}");
        }
        let users = ask("UserService/List", json!({})).await.to_string();
        assert!(users.contains("bob@local") && !users.contains("eve"), "{users}");
    });
}
