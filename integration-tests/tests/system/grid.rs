//! Every RPC of the contract, by every kind of caller, on what is theirs, what isn't, what is in a pool of theirs, and what
//! doesn't exist. The answers are compared with a golden file that people have read; an RPC without a row fails.
//!
//! Changes are asked for with `validate_only`: all is checked, nothing is changed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use horcrux_agentd::identity::Enrolled;
use horcrux_integration_tests::rpc::{Rpc, methods, word};
use horcrux_integration_tests::{Controller, succeeded};
use horcrux_proto::agent::v1::agent_link_client::AgentLinkClient;
use horcrux_proto::agent::v1::{AttachRequest, Hello, Inventory, attach_request};
use horcrux_proto::v1::{ContainerFacts, NodeFacts, VmFacts};
use horcrux_transport::client::Connect;
use horcrux_transport::tls::Identity;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use serde_json::{Value, json};
use tonic::{Code, Status};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/access_grid.txt");
const POOLED: &str = "aaaaaaaa-0000-4000-8000-000000000001";
const OTHER: &str = "aaaaaaaa-0000-4000-8000-000000000002";
const NOWHERE: &str = "aaaaaaaa-0000-4000-8000-000000000009";
const PASSWORD: &str = "correct horse battery";

/// A node that says what it holds, and stays.
async fn attached(
    enrolled: &Enrolled,
) -> anyhow::Result<tonic::Streaming<horcrux_proto::agent::v1::AttachResponse>> {
    let vm = |uuid: &str, name: &str| VmFacts {
        uuid: uuid.into(),
        display_name: name.into(),
        ..VmFacts::default()
    };
    let container = |id: &str| ContainerFacts { id: id.into(), ..ContainerFacts::default() };
    let inventory = Inventory {
        complete: true,
        node: Some(NodeFacts { hostname: "n1".into(), ..NodeFacts::default() }),
        vms: vec![vm(POOLED, "pooled"), vm(OTHER, "other")],
        containers: vec![container("c1"), container("c2")],
        ..Inventory::default()
    };
    let say = |message| AttachRequest { message: Some(message) };
    let messages = tokio_stream::iter([
        say(attach_request::Message::Hello(Hello { epoch: 1, ..Hello::default() })),
        say(attach_request::Message::Inventory(inventory)),
    ]);
    // It goes on saying nothing: the stream stays open.
    let messages = tokio_stream::StreamExt::chain(messages, tokio_stream::pending());
    let channel = enrolled.connect(Duration::from_secs(10)).channel().await?;
    Ok(AgentLinkClient::new(channel).attach(messages).await?.into_inner())
}

/// To the agents' port, with a certificate that says the same as the node's and comes from another authority.
fn foreign(controller: &Controller, enrolled: &Enrolled) -> anyhow::Result<Connect> {
    let cluster = fs::read_to_string(controller.state("cluster"))?;
    let node = controller.json(&["node", "get", "n1"])?;
    let name = format!("spiffe://{}/node/{}", cluster.trim(), text(&node, &["id"]));
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = Issuer::new(params, KeyPair::generate()?);
    let (key, mut leaf) = (KeyPair::generate()?, CertificateParams::default());
    leaf.subject_alt_names = vec![SanType::URI(name.try_into()?)];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let der = leaf.signed_by(&key, &ca)?.der().to_vec();
    let identity = Identity::from_der(vec![der], key.serialize_der());
    Ok(Connect { identity: Some(Arc::new(identity)), ..enrolled.connect(Duration::from_secs(10)) })
}

enum Caller {
    Rpc(Rpc),
    /// Dials for each call: no connection lasts.
    Dials(Connect, Rpc),
}

impl Caller {
    /// The answer in a word.
    async fn told(&self, method: &str, request: &Value) -> String {
        let rpc = match self {
            Self::Rpc(rpc) => rpc.clone(),
            Self::Dials(connect, rpc) => match connect.channel().await {
                Ok(channel) => rpc.over(channel),
                Err(_) => return "no TLS".to_owned(),
            },
        };
        let answer = rpc.ask(method, request).await;
        match (self, &answer) {
            // The server says no after the client has done its part of the handshake.
            (Self::Dials(..), Err(status))
                if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) =>
            {
                "no TLS".to_owned()
            }
            (Self::Rpc(_) | Self::Dials(..), _) => told(&answer),
        }
    }
}

/// What there is to ask about.
struct World {
    callers: Vec<(&'static str, Caller)>,
    /// Ids that differ from run to run, by what they stand for.
    ids: BTreeMap<&'static str, String>,
}

fn text<'a>(value: &'a Value, at: &[&str]) -> &'a str {
    at.iter().fold(value, |value, key| &value[*key]).as_str().unwrap()
}

async fn world(controller: &Controller, nobody: &Rpc) -> anyhow::Result<World> {
    let admin = nobody.signed_in("admin", PASSWORD).await?;
    let mut ids = BTreeMap::new();
    admin.must("/horcrux.v1.GrantService/CreateRole", json!({"name": "Keeper", "privileges": ["PRIVILEGE_SYS_AUDIT", "PRIVILEGE_NODE_ENROLL", "PRIVILEGE_USER_MODIFY"]})).await?;
    for pool in ["p1", "p2"] {
        admin.must("/horcrux.v1.PoolService/Create", json!({"name": pool})).await?;
    }
    let members = json!({"name": "p1", "addMembers": [format!("vms/{POOLED}"), "containers/n1/c1"]});
    admin.must("/horcrux.v1.PoolService/Update", members).await?;
    admin
        .must("/horcrux.v1.PoolService/UpdateTags", json!({"name": format!("vms/{OTHER}"), "add": ["qa"]}))
        .await?;
    admin.must("/horcrux.v1.UserService/CreateGroup", json!({"name": "ops"})).await?;

    let people = [
        ("Administrator", "Administrator", "/"),
        ("VmAdmin", "VmAdmin", "/"),
        ("VmUser", "VmUser", "/"),
        ("StorageAdm", "StorageAdmin", "/"),
        ("Auditor", "Auditor", "/"),
        ("Keeper", "Keeper", "/"),
        ("pool user", "VmUser", "/pools/p1"),
        ("nothing", "", ""),
        ("disabled", "Administrator", "/"),
        ("expired", "Administrator", "/"),
    ];
    let mut callers = vec![("anonymous", nobody.clone())];
    for (number, (label, role, path)) in people.into_iter().enumerate() {
        let user = format!("u{number}");
        admin.must("/horcrux.v1.UserService/Create", json!({"user": user, "password": PASSWORD})).await?;
        if !role.is_empty() {
            let grant = json!({"user": user, "role": role, "path": path});
            admin.must("/horcrux.v1.GrantService/Create", grant).await?;
        }
        callers.push((label, nobody.signed_in(&user, PASSWORD).await?));
    }
    admin.must("/horcrux.v1.UserService/Update", json!({"user": "u8", "disabled": true})).await?;
    let sessions = admin.must("/horcrux.v1.AuthService/ListSessions", json!({"user": "u9"})).await?;
    let gone = text(&sessions["sessions"][0], &["id"]);
    admin.must("/horcrux.v1.AuthService/EndSession", json!({"sessionId": gone})).await?;

    let of = |caller: &str| callers.iter().find(|(label, _)| *label == caller).unwrap().1.clone();
    let owner = of("Administrator");
    let token = |request: Value| owner.must("/horcrux.v1.TokenService/Create", request);
    let full = token(json!({"full": true})).await?;
    let limited = token(json!({"grants": [{"role": "VmUser", "path": "/pools/p1"}]})).await?;
    ids.insert("token", text(&full, &["token", "id"]).to_owned());
    callers.push(("full token", nobody.with(text(&full, &["secret"]))));
    callers.push(("ltd token", nobody.with(text(&limited, &["secret"]))));

    let link = json!({"vm": POOLED, "kind": "CONSOLE_KIND_SERIAL"});
    let link = owner.must("/horcrux.v1.GuestLinkService/Create", link).await?;
    ids.insert("link", text(&link, &["link", "name"]).to_owned());
    let grant = json!({"user": "u6", "role": "Auditor", "path": "/pools/p1"});
    let grant = admin.must("/horcrux.v1.GrantService/Create", grant).await?;
    ids.insert("grant", text(&grant, &["grant", "id"]).to_owned());
    let session = admin.must("/horcrux.v1.AuthService/WhoAmI", json!({})).await?;
    ids.insert("session", text(&session, &["session", "id"]).to_owned());

    let enrolled = Enrolled::load(Path::new(&controller.path("agent-n1")))?;
    callers.push(("agent cert", Rpc::on(enrolled.connect(Duration::from_secs(10)).channel().await?)));
    let foreign = foreign(controller, &enrolled)?;
    let mut callers: Vec<_> = callers.into_iter().map(|(label, rpc)| (label, Caller::Rpc(rpc))).collect();
    callers.push(("foreign cert", Caller::Dials(foreign, nobody.clone())));
    Ok(World { callers, ids })
}

/// Requests for a method: what each is about, and the request. `None`: the contract has grown.
fn rows(method: &str, ids: &BTreeMap<&str, String>) -> Option<Vec<(&'static str, Value)>> {
    let short = method.trim_start_matches("/horcrux.");
    let vm = |uuid: &str| json!({"name": format!("vms/{uuid}")});
    let valid = |mut request: Value| {
        request["validateOnly"] = json!(true);
        request
    };
    let on_path = |make: &dyn Fn(&str) -> Value| {
        vec![
            ("all", make("/")),
            ("a VM in the pool", make(&format!("/vms/{POOLED}"))),
            ("another VM", make(&format!("/vms/{OTHER}"))),
            ("no VM", make(&format!("/vms/{NOWHERE}"))),
            ("the pool", make("/pools/p1")),
            ("a selector", make("/vms?tag=qa")),
            ("people", make("/access")),
        ]
    };
    let of_objects = |make: &dyn Fn(String) -> Value| {
        vec![
            ("a node", make("nodes/n1".into())),
            ("no node", make("nodes/n9".into())),
            ("a VM in the pool", make(format!("vms/{POOLED}"))),
            ("another VM", make(format!("vms/{OTHER}"))),
            ("no VM", make(format!("vms/{NOWHERE}"))),
            ("a container in the pool", make("containers/n1/c1".into())),
            ("another container", make("containers/n1/c2".into())),
            ("no container", make("containers/n1/c9".into())),
        ]
    };
    let once = |request: Value| Some(vec![("", request)]);
    let pools = |make: &dyn Fn(&str) -> Value| {
        Some(vec![("the pool", make("p1")), ("another pool", make("p2")), ("no pool", make("p9"))])
    };
    let users = |make: &dyn Fn(&str) -> Value| {
        Some(vec![("a user", make("u7")), ("an administrator", make("u0")), ("no user", make("u99"))])
    };
    match short {
        "v1.AuthService/CompleteSetup" => {
            once(json!({"setupCode": "x", "username": "x", "password": PASSWORD}))
        }
        "v1.AuthService/SignIn" => once(json!({"username": "nobody", "password": "wrong"})),
        "v1.AuthService/AnswerChallenge" => once(json!({"challengeId": "x", "code": "000000"})),
        "v1.AuthService/StartOidc" => once(json!({"realm": "none"})),
        "v1.AuthService/FinishOidc" => once(json!({"flowId": "x"})),
        "v1.AuthService/Refresh" => once(json!({"refreshToken": "x"})),
        "v1.AuthService/ListRealms"
        | "v1.AuthService/WhoAmI"
        | "v1.AuthService/SignOut"
        | "v1.UserService/List"
        | "v1.UserService/ListGroups"
        | "v1.GrantService/List"
        | "v1.GrantService/ListRoles"
        | "v1.PoolService/List"
        | "v1.PoolService/ListTags"
        | "v1.SystemService/GetVersion"
        | "v1.SystemService/GetHealth"
        | "v1.NodeService/List"
        | "v1.AuditService/Follow"
        | "v1.AuditService/Verify" => once(json!({})),
        "v1.AuditService/List" => once(json!({"pageSize": 1})),
        "v1.AuthService/ListSessions" | "v1.TokenService/List" => {
            Some(vec![("own", json!({})), ("a user's", json!({"user": "u6"})), ("all", json!({"user": "*"}))])
        }
        "v1.AuthService/EndSession" => Some(vec![
            ("another's", valid(json!({"sessionId": ids["session"]}))),
            ("none", valid(json!({"sessionId": "000000000000"}))),
        ]),
        "v1.AuthService/ChangePassword" => once(json!({"oldPassword": PASSWORD, "newPassword": "short"})),
        "v1.AuthService/StartTotp" => once(json!({"password": "wrong"})),
        "v1.AuthService/ConfirmTotp" | "v1.AuthService/RemoveTotp" => once(json!({"code": "000000"})),
        "v1.UserService/Create" => {
            once(valid(json!({"user": "new", "password": PASSWORD, "groups": ["ops"]})))
        }
        "v1.UserService/Update" => {
            let mut rows = users(&|user| valid(json!({"user": user, "displayName": "x"})))?;
            // Of who calls in the first column and by the full token.
            rows.push(("an administrator's password", valid(json!({"user": "u0", "password": PASSWORD}))));
            rows.push(("another's", valid(json!({"user": "u9", "password": PASSWORD}))));
            rows.push(("a user's password", valid(json!({"user": "u7", "password": PASSWORD}))));
            rows.push(("enable an administrator", valid(json!({"user": "u8", "disabled": false}))));
            Some(rows)
        }
        "v1.UserService/Delete" => users(&|user| valid(json!({"user": user}))),
        "v1.UserService/CreateGroup" => once(valid(json!({"name": "new"}))),
        "v1.UserService/UpdateGroup" | "v1.UserService/DeleteGroup" => Some(vec![
            ("a group", valid(json!({"name": "ops"}))),
            ("no group", valid(json!({"name": "none"}))),
        ]),
        "v1.GrantService/Create" => {
            Some(on_path(&|path| valid(json!({"user": "u7", "role": "VmUser", "path": path}))))
        }
        "v1.GrantService/Delete" => Some(vec![
            ("on the pool", valid(json!({"grantId": ids["grant"]}))),
            ("none", valid(json!({"grantId": "000000000000"}))),
        ]),
        "v1.GrantService/CreateRole" => {
            once(valid(json!({"name": "New", "privileges": ["PRIVILEGE_VM_CONSOLE"]})))
        }
        "v1.GrantService/UpdateRole" => Some(vec![
            (
                "to hold more",
                valid(
                    json!({"name": "Keeper", "privileges": ["PRIVILEGE_VM_CONSOLE", "PRIVILEGE_SYS_AUDIT"]}),
                ),
            ),
            ("none", valid(json!({"name": "None", "privileges": ["PRIVILEGE_SYS_AUDIT"]}))),
        ]),
        "v1.GrantService/DeleteRole" => {
            Some(vec![("in use", valid(json!({"name": "Keeper"}))), ("none", valid(json!({"name": "None"})))])
        }
        "v1.GrantService/Why" => {
            let mut rows =
                on_path(&|path| json!({"user": "u6", "privilege": "PRIVILEGE_VM_AUDIT", "path": path}));
            rows.push(("oneself", json!({"privilege": "PRIVILEGE_VM_AUDIT", "path": "/"})));
            Some(rows)
        }
        "v1.GrantService/WhatIf" => once(json!({"add": [{"user": "u7", "role": "VmUser", "path": "/"}]})),
        "v1.PoolService/Create" => once(valid(json!({"name": "new"}))),
        "v1.PoolService/Update" => {
            let mut rows = pools(&|pool| valid(json!({"name": pool, "comment": "x"})))?;
            rows.extend(of_objects(&|name| valid(json!({"name": "p2", "addMembers": [name]}))));
            Some(rows)
        }
        "v1.PoolService/Delete" => pools(&|pool| valid(json!({"name": pool}))),
        "v1.PoolService/UpdateTags" => Some(of_objects(&|name| valid(json!({"name": name, "add": ["new"]})))),
        "v1.TokenService/Create" => Some(vec![
            ("full", valid(json!({"full": true}))),
            ("on the pool", valid(json!({"grants": [{"role": "VmUser", "path": "/pools/p1"}]}))),
        ]),
        "v1.TokenService/Revoke" => Some(vec![
            ("an administrator's", valid(json!({"tokenId": ids["token"]}))),
            ("none", valid(json!({"tokenId": "000000000000"}))),
        ]),
        "v1.NodeService/Get" | "v1.NodeService/Delete" | "v1.NodeService/Lock" | "v1.NodeService/Unlock" => {
            let request = |name: &str| {
                if short.ends_with("Get") { json!({"name": name}) } else { valid(json!({"name": name})) }
            };
            Some(vec![("a node", request("n1")), ("no node", request("n9"))])
        }
        "v1.NodeService/CreateJoinToken" => Some(vec![
            ("a new node", valid(json!({"nodeName": "n2"}))),
            ("a node that exists", valid(json!({"nodeName": "n1"}))),
            ("again", valid(json!({"nodeName": "n1", "reenroll": true}))),
        ]),
        "v1.VmService/List" | "v1.ContainerService/List" => Some(vec![
            ("all", json!({})),
            ("on a node", json!({"node": "nodes/n1"})),
            ("on no node", json!({"node": "nodes/n9"})),
        ]),
        "v1.VmService/Get" => Some(vec![
            ("in the pool", vm(POOLED)),
            ("another", vm(OTHER)),
            ("none", vm(NOWHERE)),
            ("another by its name", json!({"name": "other"})),
            ("none by its name", json!({"name": "none"})),
        ]),
        "v1.ConsoleService/CreateTicket" => {
            let ticket = |vm: &str| valid(json!({"vm": vm, "kind": "CONSOLE_KIND_SERIAL"}));
            Some(vec![
                ("in the pool", ticket(POOLED)),
                ("another", ticket(OTHER)),
                ("none", ticket(NOWHERE)),
                ("another by its name", ticket("other")),
            ])
        }
        "v1.ConsoleService/List" => Some(vec![
            ("all", json!({})),
            ("in the pool", json!({"vm": POOLED})),
            ("another", json!({"vm": OTHER})),
            ("none", json!({"vm": NOWHERE})),
        ]),
        "v1.ConsoleService/End" => once(valid(json!({"name": "consoles/00000000000000000000000000000000"}))),
        "v1.GuestLinkService/Create" => {
            let link = |vm: &str| valid(json!({"vm": vm, "kind": "CONSOLE_KIND_SERIAL"}));
            Some(vec![
                ("in the pool", link(POOLED)),
                ("another", link(OTHER)),
                ("none", link(NOWHERE)),
                ("another by its name", link("other")),
            ])
        }
        "v1.GuestLinkService/List" => Some(vec![
            ("all", json!({})),
            ("in the pool", json!({"vm": POOLED})),
            ("another", json!({"vm": OTHER})),
            ("none", json!({"vm": NOWHERE})),
        ]),
        "v1.GuestLinkService/Revoke" => Some(vec![
            ("an administrator's", valid(json!({"name": ids["link"]}))),
            ("none", valid(json!({"name": "links/000000000000"}))),
        ]),
        "v1.GuestLinkService/Open" => once(json!({"secret": "hxg_x"})),
        "v1.GuestLinkService/Get" => once(json!({})),
        "v1.GuestLinkService/CreateTicket" => once(valid(json!({}))),
        "v1.ContainerService/Get" => Some(vec![
            ("in the pool", json!({"name": "n1/c1"})),
            ("another", json!({"name": "n1/c2"})),
            ("none", json!({"name": "n1/c9"})),
        ]),
        "v1.WatchService/Watch" => Some(vec![
            ("all", json!({})),
            ("the pool", json!({"pools": ["pools/p1"]})),
            ("no pool", json!({"pools": ["pools/p9"]})),
            ("a node", json!({"nodes": ["nodes/n1"]})),
            ("no node", json!({"nodes": ["nodes/n9"]})),
        ]),
        "v1.WatchService/GetRecent" => {
            Some(of_objects(&|name| json!({"name": name, "metrics": ["METRIC_VM_CPU_USAGE"]})))
        }
        "v1.RecordingService/List" => {
            let of = |vm: &str| json!({"vm": format!("vms/{vm}")});
            Some(vec![("all", json!({})), ("another VM's", of(OTHER)), ("no VM's", of(NOWHERE))])
        }
        "v1.RecordingService/Read" => Some(vec![("none", json!({"name": "recordings/x"}))]),
        "v1.RecordingService/ListPolicies" => once(json!({})),
        "v1.RecordingService/SetPolicy" => {
            let of = |subject: &str| {
                let policy = json!({"subject": subject, "scope": "RECORDING_SCOPE_ALL"});
                valid(json!({ "policy": policy }))
            };
            Some(vec![
                ("a VM", of(&format!("vms/{POOLED}"))),
                ("no VM", of(&format!("vms/{NOWHERE}"))),
                ("the pool", of("pools/p1")),
                ("a role", of("roles/VmUser")),
                ("no role", of("roles/None")),
            ])
        }
        "agent.v1.Enrollment/Enroll" => once(json!({"tokenId": "x", "tokenSecret": "x"})),
        "agent.v1.Enrollment/Renew" => once(json!({"csr": "AAAA"})),
        "agent.v1.AgentLink/Attach" | "agent.v1.ConsoleLink/Carry" => once(json!({})),
        _ => None,
    }
}

/// An answer in a word, with how many things were told where a list was.
fn told(answer: &Result<Value, Status>) -> String {
    let answer = match answer {
        Err(status) => return word(status.code()).to_owned(),
        Ok(answer) => answer,
    };
    let count = match answer {
        Value::Array(messages) => {
            let entities = messages.iter().filter_map(|m| m["snapshot"]["entities"].as_array());
            messages
                .iter()
                .any(|m| m.get("snapshot").is_some())
                .then(|| entities.map(Vec::len).sum::<usize>())
        }
        Value::Object(fields) => fields.values().find_map(|field| field.as_array().map(Vec::len)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    };
    count.map_or_else(|| "ok".to_owned(), |count| format!("ok:{count}"))
}

/// What anyone may call before a sign-in is slowed down by address: two callers say enough.
fn is_asked(method: &str, caller: &str) -> bool {
    let anyone = horcrux_proto::authz::requirement(method)
        .is_some_and(|r| r.caller == horcrux_proto::authz::Caller::Anyone);
    !anyone || matches!(caller, "anonymous" | "agent cert" | "foreign cert")
}

#[test]
fn every_rpc_answers_every_caller_as_agreed() {
    let controller = Controller::start().unwrap();
    let token = controller.join_token("n1").unwrap();
    succeeded(&controller.enroll("n1", &token).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let grid = runtime.block_on(async {
        let enrolled = Enrolled::load(Path::new(&controller.path("agent-n1"))).unwrap();
        let _attached = attached(&enrolled).await.unwrap();
        controller.wait_for_state("n1", "connected").unwrap();
        horcrux_integration_tests::wait_until("the guests", || {
            let vms = controller.json(&["vm", "list"])?;
            anyhow::ensure!(vms.as_array().is_some_and(|vms| vms.len() == 2), "{vms}");
            Ok(())
        })
        .unwrap();
        let nobody = Rpc::to(&controller).await.unwrap();
        let World { callers, ids } = world(&controller, &nobody).await.unwrap();
        let mut grid = String::from("method, what it is asked about");
        for (label, _) in &callers {
            write!(grid, " | {label}").unwrap();
        }
        grid.push('\n');
        // It ends the sessions of those who call it.
        let (last, rest): (Vec<_>, Vec<_>) =
            methods().into_iter().partition(|(name, _)| name.ends_with("/SignOut"));
        for (method, _) in rest.into_iter().chain(last) {
            let rows =
                rows(&method, &ids).unwrap_or_else(|| panic!("{method} has no row: say who may call it"));
            for (about, request) in rows {
                let mut line = format!(
                    "{}{}{about}",
                    method.trim_start_matches("/horcrux."),
                    if about.is_empty() { "" } else { ", " }
                );
                for (label, caller) in &callers {
                    let cell = if is_asked(&method, label) {
                        caller.told(&method, &request).await
                    } else {
                        "·".to_owned()
                    };
                    write!(line, " | {cell}").unwrap();
                }
                grid.push_str(&line);
                grid.push('\n');
            }
        }
        grid
    });
    assert!(!grid.contains("INTERNAL") && !grid.contains("OTHER"), "{grid}");
    let found = controller.path("grid.txt");
    fs::write(&found, &grid).unwrap();
    if let Ok(keep) = std::env::var("HORCRUX_GRID") {
        fs::copy(&found, keep).unwrap();
    }
    let agreed = fs::read_to_string(GOLDEN).unwrap_or_default();
    let differ: Vec<_> = grid.lines().filter(|line| !agreed.lines().any(|known| known == *line)).collect();
    let gone: Vec<_> = agreed.lines().filter(|line| !grid.lines().any(|now| now == *line)).collect();
    assert!(
        grid == agreed,
        "if the change is meant, run this test with HORCRUX_GRID={GOLDEN}\nnow:\n{}\nagreed:\n{}",
        differ.join("\n"),
        gone.join("\n")
    );
}
