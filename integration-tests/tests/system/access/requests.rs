//! Requests that come more than once: their ids say which are the same.

use horcrux_integration_tests::rpc::Rpc;
use serde_json::{Value, json};
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
    let mut all = tokio::task::JoinSet::new();
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
