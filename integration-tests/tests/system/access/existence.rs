//! To who may not know of it, what exists looks as what doesn't; and a name that comes again comes without its grants.

use horcrux_integration_tests::{Caller, Wire};
use horcrux_proto::v1::auth_service_client::AuthServiceClient;
use horcrux_proto::v1::container_service_client::ContainerServiceClient;
use horcrux_proto::v1::grant_service_client::GrantServiceClient;
use horcrux_proto::v1::node_service_client::NodeServiceClient;
use horcrux_proto::v1::pool_service_client::PoolServiceClient;
use horcrux_proto::v1::token_service_client::TokenServiceClient;
use horcrux_proto::v1::user_service_client::UserServiceClient;
use horcrux_proto::v1::vm_service_client::VmServiceClient;
use horcrux_proto::v1::watch_service_client::WatchServiceClient;
use horcrux_proto::v1::{
    ContainerServiceGetRequest, CreateJoinTokenRequest, EndSessionRequest, GetRecentRequest,
    GrantServiceCreateRequest, GrantServiceDeleteRequest, ListSessionsRequest, LockRequest, Metric,
    NodeServiceDeleteRequest, NodeServiceGetRequest, PoolServiceDeleteRequest, PoolServiceUpdateRequest,
    TokenServiceListRequest, TokenServiceRevokeRequest, UpdateTagsRequest, UserServiceUpdateRequest,
    VmServiceGetRequest, VmServiceListRequest, WatchRequest, WhyRequest, grant_service_create_request,
    why_request,
};
use serde_json::json;
use tonic::{Response, Status};

use super::scene::{Scene, WEB, shown};

/// An answer without the name that was asked for.
fn nameless<T: std::fmt::Debug>(answer: Result<T, Status>, name: &str) -> String {
    let told = match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(status) => format!("{:?} {} {:?}", status.code(), status.message(), status.details()),
    };
    // Some of it by its last part alone.
    let bare = name.rsplit('/').next().unwrap_or(name);
    told.replace(name, "NAME").replace(bare, "NAME")
}

/// The same question about what is there and what isn't.
fn same<T, F>(caller: &Caller, what: &str, names: (&str, &str), ask: impl Fn(Wire, String) -> F)
where
    T: std::fmt::Debug,
    F: Future<Output = Result<Response<T>, Status>>,
{
    let told = |name: &str| nameless(caller.call(|wire| ask(wire, name.to_owned())), name);
    let (there, absent) = (told(names.0), told(names.1));
    assert_eq!(there, absent, "{what}");
    eprintln!("{what}: {there}");
}

const NO_VM: &str = "aaaaaaaa-0000-4000-8000-00000000ffff";

#[test]
fn what_exists_looks_as_what_does_not_to_who_has_no_rights() {
    let scene = Scene::new();
    scene.admin.done(&["tag", "add", "vms/web1", "qa"]).unwrap();
    let bob = &scene.bob.caller().unwrap();
    let (vm, no_vm) = (&*format!("vms/{WEB}"), &*format!("vms/{NO_VM}"));
    let (node, pool) = (("nodes/here", "nodes/gone"), ("pools/web", "pools/gone"));
    same(bob, "NodeService/Get", node, |w, name| async {
        NodeServiceClient::new(w).get(NodeServiceGetRequest { name }).await
    });
    same(bob, "NodeService/Delete", node, |w, name| async {
        NodeServiceClient::new(w).delete(NodeServiceDeleteRequest { name, ..Default::default() }).await
    });
    same(bob, "NodeService/Lock", node, |w, name| async {
        NodeServiceClient::new(w).lock(LockRequest { name, ..Default::default() }).await
    });
    for reenroll in [false, true] {
        same(bob, "NodeService/CreateJoinToken", ("here", "gone"), |w, node_name| async move {
            let request = CreateJoinTokenRequest { node_name, reenroll, ..Default::default() };
            NodeServiceClient::new(w).create_join_token(request).await
        });
    }
    for names in [(vm, no_vm), ("web1", "web9")] {
        same(bob, "VmService/Get", names, |w, name| async {
            VmServiceClient::new(w).get(VmServiceGetRequest { name }).await
        });
    }
    same(bob, "VmService/List", node, |w, node| async {
        VmServiceClient::new(w).list(VmServiceListRequest { node, ..Default::default() }).await
    });
    same(bob, "ContainerService/Get", ("here/a", "gone/a"), |w, name| async {
        ContainerServiceClient::new(w).get(ContainerServiceGetRequest { name }).await
    });
    for names in [node, (vm, no_vm), ("containers/here/a", "containers/gone/a")] {
        same(bob, "WatchService/GetRecent", names, |w, name| async {
            let metrics = vec![Metric::NodeCpuUsage.into()];
            WatchServiceClient::new(w).get_recent(GetRecentRequest { name, metrics, seconds: 0 }).await
        });
    }
    same(bob, "PoolService/Update", pool, |w, name| async {
        PoolServiceClient::new(w).update(PoolServiceUpdateRequest { name, ..Default::default() }).await
    });
    same(bob, "PoolService/Delete", pool, |w, name| async {
        PoolServiceClient::new(w).delete(PoolServiceDeleteRequest { name, ..Default::default() }).await
    });
    for names in [node, (vm, no_vm), ("vms/web1", "vms/web9")] {
        same(bob, "PoolService/UpdateTags", names, |w, name| async {
            let request = UpdateTagsRequest { name, add: vec!["qa".to_owned()], ..Default::default() };
            PoolServiceClient::new(w).update_tags(request).await
        });
        same(bob, "GrantService/Why", names, |w, name| async move {
            let subject = Some(why_request::Subject::User("bob@local".to_owned()));
            let request = WhyRequest { subject, privilege: 1, path: format!("/{name}") };
            GrantServiceClient::new(w).why(request).await
        });
    }
}

#[test]
fn whose_what_is_looks_as_nobodys_to_who_has_no_rights() {
    let scene = Scene::new();
    let bob = &scene.bob.caller().unwrap();
    let id = |args: &[&str]| scene.admin.json(args).unwrap()[0]["id"].as_str().unwrap().to_owned();
    scene.admin.done(&["token", "create", "--comment", "x", "--full"]).unwrap();
    let (grant, session, token) = (id(&["grant", "list"]), id(&["session", "list"]), id(&["token", "list"]));
    same(bob, "GrantService/Delete", (&grant, "0123456789ab"), |w, grant_id| async {
        GrantServiceClient::new(w).delete(GrantServiceDeleteRequest { grant_id, ..Default::default() }).await
    });
    same(bob, "AuthService/EndSession", (&session, "0123456789ab"), |w, session_id| async {
        AuthServiceClient::new(w).end_session(EndSessionRequest { session_id, ..Default::default() }).await
    });
    same(bob, "TokenService/Revoke", (&token, "0123456789ab"), |w, token_id| async {
        TokenServiceClient::new(w).revoke(TokenServiceRevokeRequest { token_id, ..Default::default() }).await
    });
    same(bob, "GrantService/Why of a token", (&token, "0123456789ab"), |w, id| async {
        let subject = Some(why_request::Subject::Token(id));
        GrantServiceClient::new(w).why(WhyRequest { subject, privilege: 1, path: "/".to_owned() }).await
    });
    let users = ("admin@local", "nobody@local");
    same(bob, "AuthService/ListSessions", users, |w, user| async {
        AuthServiceClient::new(w).list_sessions(ListSessionsRequest { user }).await
    });
    same(bob, "TokenService/List", users, |w, user| async {
        TokenServiceClient::new(w).list(TokenServiceListRequest { user }).await
    });
    same(bob, "UserService/Update", users, |w, user| async {
        UserServiceClient::new(w).update(UserServiceUpdateRequest { user, ..Default::default() }).await
    });
    same(bob, "GrantService/Create", users, |w, user| async {
        let subject = Some(grant_service_create_request::Subject::User(user));
        let (role, path) = ("VmUser".to_owned(), "/".to_owned());
        let request = GrantServiceCreateRequest { subject, role, path, ..Default::default() };
        GrantServiceClient::new(w).create(request).await
    });
    same(bob, "GrantService/Why", users, |w, user| async {
        let subject = Some(why_request::Subject::User(user));
        GrantServiceClient::new(w).why(WhyRequest { subject, privilege: 1, path: "/".to_owned() }).await
    });
}

#[test]
fn who_may_grant_on_one_vm_learns_of_nobody() {
    let scene = Scene::new();
    for args in [
        &["role", "create", "Granter", "--privilege", "PermissionsModify,VmAudit"][..],
        &["role", "create", "Viewer", "--privilege", "SysAudit"],
        &["group", "create", "ops"],
        &["group", "create", "own"],
        &["group", "add", "own", "bob"],
    ] {
        scene.admin.done(args).unwrap();
    }
    let on = format!("/vms/{WEB}");
    scene.grant("Granter", &on);
    let bob = &scene.bob.caller().unwrap();
    let create = |wire: Wire, subject: grant_service_create_request::Subject| {
        let (role, path, subject) = ("Granter".to_owned(), on.clone(), Some(subject));
        let no_propagate = true;
        let request = GrantServiceCreateRequest { subject, role, path, no_propagate, ..Default::default() };
        async move { GrantServiceClient::new(wire).create(request).await }
    };
    use grant_service_create_request::Subject::{Group, User};
    same(bob, "GrantService/Create for a user", ("admin@local", "nobody@local"), |w, user| {
        create(w, User(user))
    });
    same(bob, "GrantService/Create for a group", ("ops", "gone"), |w, group| create(w, Group(group)));
    let refused = bob.call(|w| create(w, User("admin@local".to_owned()))).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("user: ") && refused.message().contains("SysAudit"), "{refused}");
    // Whom he knows of he may name, and everybody once he may see them.
    for subject in [User("bob@local".to_owned()), Group("own".to_owned())] {
        bob.call(|w| create(w, subject)).unwrap();
    }
    scene.grant("Viewer", "/access");
    bob.call(|w| create(w, User("admin@local".to_owned()))).unwrap();
    let refused = bob.call(|w| create(w, User("nobody@local".to_owned()))).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound, "{refused}");
}

#[test]
fn a_pool_looks_as_none_to_who_may_not_grant_on_it() {
    let scene = Scene::new();
    let bob = &scene.bob.caller().unwrap();
    same(bob, "GrantService/Create on a pool", ("/pools/web", "/pools/gone"), |w, path| async {
        let subject = Some(grant_service_create_request::Subject::User("bob@local".to_owned()));
        let role = "VmUser".to_owned();
        GrantServiceClient::new(w)
            .create(GrantServiceCreateRequest { subject, role, path, ..Default::default() })
            .await
    });
}

#[test]
fn a_watch_filter_says_nothing_of_what_is_not_the_watchers() {
    let scene = Scene::new();
    let bob = scene.bob.caller().unwrap();
    let open = |request: WatchRequest| {
        bob.stream(|wire| async { WatchServiceClient::new(wire).watch(request).await }).unwrap()
    };
    let vms = |uuid: &str| WatchRequest { vms: vec![format!("vms/{uuid}")], ..WatchRequest::default() };
    let nodes = |name: &str| WatchRequest { nodes: vec![format!("nodes/{name}")], ..WatchRequest::default() };
    for request in [vms(WEB), vms(NO_VM), nodes("here"), nodes("gone")] {
        assert!(shown(&open(request.clone())).is_empty(), "{request:?}");
    }
    let pools = |name: &str| {
        let request = WatchRequest { pools: vec![format!("pools/{name}")], ..WatchRequest::default() };
        nameless(Err::<(), _>(open(request).end().unwrap().1), name)
    };
    assert_eq!(pools("web"), pools("gone"));
    assert!(pools("web").starts_with("NotFound"), "{}", pools("web"));
}

#[test]
fn a_name_that_comes_again_has_no_grants() {
    let scene = Scene::new();
    let admin = &scene.admin;
    let password = scene.bob.password_file();
    admin.done(&["group", "create", "ops"]).unwrap();
    admin.done(&["group", "add", "ops", "bob"]).unwrap();
    admin.done(&["tag", "add", "nodes/here", "qa"]).unwrap();
    admin.done(&["pool", "add", "web", "nodes/here"]).unwrap();
    scene.grant("Auditor", "/nodes/here");
    scene.grant("VmUser", "/containers/here");
    scene.grant("VmUser", "/pools/web");
    scene.granted(&["--group", "ops", "--role", "Auditor", "--path", "/"]);
    let grants = |args: &[&str]| admin.json(&[&["grant", "list"], args].concat()).unwrap();
    let on = |path| grants(&["--path", path]);
    for (delete, again, gone) in [
        (
            &["pool", "delete", "web", "--yes"][..],
            &["pool", "create", "web"][..],
            &["--path", "/pools/web"][..],
        ),
        (&["group", "delete", "ops", "--yes"], &["group", "create", "ops"], &["--group", "ops"]),
    ] {
        assert_ne!(grants(gone), json!([]), "{gone:?}");
        admin.done(delete).unwrap();
        admin.done(again).unwrap();
        assert_eq!(grants(gone), json!([]), "{gone:?}");
    }
    assert_eq!(admin.json(&["pool", "list"]).unwrap()[0]["members"], json!([]));
    assert_eq!(admin.json(&["group", "list"]).unwrap()[0]["members"], json!([]));
    admin.done(&["node", "remove", "here", "--yes"]).unwrap();
    let _again = scene.controller.play("here", &[]).err();
    for path in ["/nodes/here", "/containers/here"] {
        assert_eq!(on(path), json!([]), "{path}");
    }
    assert_eq!(admin.json(&["tag", "list"]).unwrap(), json!([]));
    scene.grant("VmUser", "/pools/web");
    scene.bob.done(&["token", "create", "--comment", "x", "--full"]).unwrap();
    admin.done(&["user", "delete", "bob", "--yes"]).unwrap();
    admin.done(&["user", "create", "bob", "--password-file", &password]).unwrap();
    assert_eq!(grants(&["--user", "bob"]), json!([]));
    assert_eq!(admin.json(&["token", "list", "--user", "bob@local"]).unwrap(), json!([]));
    scene.bob.sign_in().unwrap();
    assert_eq!(scene.bob.json(&["vm", "list"]).unwrap(), json!([]));
}
