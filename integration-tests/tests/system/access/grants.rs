//! Making grants: what is not accepted, and what is said of it.

use horcrux_integration_tests::{Person, wait_until};
use horcrux_proto::v1::grant_service_client::GrantServiceClient;
use horcrux_proto::v1::{Grant, GrantServiceCreateRequest, grant_service_create_request};
use tonic::Status;

use super::scene::Scene;

/// The exit code and what was said of a grant that isn't made.
fn refused(person: &Person, what: &[&str]) -> (Option<i32>, String) {
    let output = person.ctl(&[&["grant", "create"], what].concat()).unwrap();
    assert!(!output.status.success(), "{what:?}");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn count(scene: &Scene) -> usize {
    scene.admin.json(&["grant", "list", "--user", "bob"]).unwrap().as_array().unwrap().len()
}

#[test]
fn what_is_granted_already_is_not_granted_again() {
    let scene = Scene::new();
    let on_web = ["--user", "bob", "--role", "VmUser", "--path", "/pools/web"];
    let id = scene.granted(&on_web);
    let (code, said) = refused(&scene.admin, &on_web);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&id) && said.contains("already") && !said.contains("another end"), "{said}");
    let (_, said) = refused(&scene.admin, &[&on_web[..], &["--not-after", "1h"]].concat());
    assert!(
        said.contains(&format!("another end: remove it and grant again (`horcruxctl grant delete {id}`)"))
    );
    // Not below is less, another role and another path are other things.
    scene.granted(&[&on_web[..], &["--no-propagate"]].concat());
    scene.grant("Auditor", "/pools/web");
    scene.grant("VmUser", "/pools");
    assert_eq!(count(&scene), 4);
    // What has ended is none.
    let short = ["--user", "bob", "--role", "VmUser", "--path", "/nodes"];
    scene.granted(&[&short[..], &["--not-after", "2s"]].concat());
    refused(&scene.admin, &short);
    wait_until("the end of a grant", || scene.admin.json(&[&["grant", "create"], &short[..]].concat()))
        .unwrap();
}

#[test]
fn a_repeated_request_gets_the_grant_that_it_made() {
    let scene = Scene::new();
    let request = GrantServiceCreateRequest {
        subject: Some(grant_service_create_request::Subject::User("bob@local".to_owned())),
        role: "VmUser".to_owned(),
        path: "/pools/web".to_owned(),
        request_id: "the-same".to_owned(),
        ..GrantServiceCreateRequest::default()
    };
    let create = || -> Result<Grant, Status> {
        let request = request.clone();
        let call = |wire| async { GrantServiceClient::new(wire).create(request).await };
        let answer = scene.admin.caller().unwrap().call(call)?;
        Ok(answer.grant.unwrap_or_default())
    };
    let made = create().unwrap();
    assert_eq!(create().unwrap(), made);
    assert_eq!(count(&scene), 1);
}

#[test]
fn a_grant_names_a_pool_and_a_role_that_exist() {
    let scene = Scene::new();
    let grant =
        |role: &str, path: &str| refused(&scene.admin, &["--user", "bob", "--role", role, "--path", path]);
    let (code, said) = grant("VmUser", "/pools/nope");
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("path: the pool nope does not exist: make it first"), "{said}");
    scene.admin.done(&["role", "create", "Keeper", "--privilege", "SysAudit"]).unwrap();
    let (code, said) = grant("VmUsr", "/pools/web");
    assert_eq!(code, Some(4), "{said}");
    for role in ["Administrator", "Auditor", "NoAccess", "StorageAdmin", "VmAdmin", "VmUser", "Keeper"] {
        assert!(said.contains(role), "{role}: {said}");
    }
    assert_eq!(count(&scene), 0);
    // What is about to come may be prepared for.
    for path in ["/nodes/later", "/vms/aaaaaaaa-0000-4000-8000-00000000ffff", "/containers/later/c1"] {
        scene.grant("VmUser", path);
    }
}
