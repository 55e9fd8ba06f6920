//! What is meant by a path, and what is told before something is changed, against a controller in this process.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod controller;

use clap::Parser as _;
use horcrux_proto::v1::{HeldPrivileges, Privilege};
use horcruxctl::args::access::{AuthCommand, GrantCommand, GrantCreateArgs};
use horcruxctl::args::{Cli, Command};
use horcruxctl::consequence::{Going, grants_that_go};
use horcruxctl::exit::Exit;
use horcruxctl::failure::Failure;
use horcruxctl::people::somebody_else;
use horcruxctl::place::{Known, on_object, on_objects, on_path};
use horcruxctl::{grants, prompt};

use self::controller::guests::{SHOP, WORKER};
use self::controller::{DEADLINE, HOUR_MS, Scene};

fn parsed(line: &str) -> Command {
    Cli::try_parse_from(line.split_whitespace()).unwrap().command
}

/// alice may read grants.
fn auditor(scene: &Scene) {
    let privileges = vec![Privilege::SysAudit.into()];
    let held = HeldPrivileges { path: "/".into(), privileges, propagate: true };
    scene.controller.0.held.lock().unwrap().push(held);
}

#[tokio::test]
async fn a_path_is_understood_as_people_write_it() {
    let scene = Scene::new(HOUR_MS).await;
    let session = scene.session(DEADLINE).await;
    let (shop, worker) = (format!("/vms/{SHOP}"), format!("/containers/node1/{WORKER}"));
    for (written, meant, known) in [
        ("/vms/shop", shop.as_str(), Known::Yes),
        ("/vms/node1/shop", &shop, Known::Yes),
        (&shop, &shop, Known::Yes),
        ("/containers/node1/worker", &worker, Known::Yes),
        ("/containers/node1/3f2a", &worker, Known::Yes),
        ("/containers/worker", &worker, Known::Yes),
        ("/containers/node1/gone", "/containers/node1/gone", Known::No),
        ("/containers/node9", "/containers/node9", Known::No),
        ("/nodes/node9", "/nodes/node9", Known::No),
        ("/pools/ci", "/pools/ci", Known::Yes),
        ("/pools/cd", "/pools/cd", Known::No),
        ("/vms?tag=qa", "/vms?tag=qa", Known::Yes),
        ("/", "/", Known::Yes),
    ] {
        let place = on_path(&session, written).await.unwrap();
        assert_eq!((place.path.as_str(), place.known), (meant, known), "{written}");
        assert_eq!(place.note().is_some(), known == Known::No);
    }
    let new = "/vms/aaaaaaaa-0000-4000-8000-000000000099";
    assert_eq!(on_path(&session, new).await.unwrap().known, Known::No);
    let unknown = on_path(&session, "/vms/nowhere").await.unwrap_err();
    assert_eq!(unknown.exit(), Exit::NotFound, "a name that nothing has can't be granted on");
    let twins = on_path(&session, "/containers/node1/twin").await.unwrap_err();
    assert!(twins.to_string().contains("2 containers fit"), "{twins}");
}

#[tokio::test]
async fn members_and_tagged_objects_are_named_as_guests_are() {
    let scene = Scene::new(HOUR_MS).await;
    let session = scene.session(DEADLINE).await;
    let worker = format!("containers/node1/{WORKER}");
    let texts = ["containers/worker", "/containers/3f2a", "vms/shop", "nodes/web1", "containers/node1/gone"]
        .map(str::to_owned);
    let all = on_objects(&session, &texts).await.unwrap();
    assert_eq!(all, [worker.as_str(), &worker, "vms/shop", "nodes/web1", "containers/node1/gone"]);
    assert_eq!(on_object(&session, "containers/gone").await.unwrap_err().exit(), Exit::NotFound);
    for wrong in ["worker", "pools/ci", "containers/", "vms/"] {
        let failure = on_object(&session, wrong).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage, "{wrong}");
        assert!(failure.to_string().contains("containers/NODE/ID"));
    }
}

#[tokio::test]
async fn why_is_asked_about_what_is_meant_and_says_where_nothing_is() {
    let scene = Scene::new(HOUR_MS).await;
    let session = scene.session(DEADLINE).await;
    let ask = |path: &str| horcrux_proto::v1::WhyRequest { path: path.to_owned(), ..Default::default() };
    let told = grants::why(&session, ask("/containers/node1/worker")).await.unwrap();
    assert_eq!((told.path, told.known), (format!("/containers/node1/{WORKER}"), true));
    let told = grants::why(&session, ask("/nodes/node9")).await.unwrap();
    assert!(!told.known);
}

#[tokio::test]
async fn what_if_is_asked_about_what_is_meant() {
    let scene = Scene::new(HOUR_MS).await;
    let session = scene.session(DEADLINE).await;
    let Command::Auth(AuthCommand::WhatIf(args)) =
        parsed("h auth what-if --grant bob=VmUser@/vms/shop --grant bob=VmUser@/nodes/node9")
    else {
        panic!("what-if")
    };
    let notes = std::cell::RefCell::new(Vec::new());
    let say = |note: &str| notes.borrow_mut().push(note.to_owned());
    let request = grants::what_if_request(&session, &args, say).await.unwrap();
    let paths: Vec<_> = request.add.iter().map(|add| add.path.as_str()).collect();
    assert_eq!(paths, [format!("/vms/{SHOP}").as_str(), "/nodes/node9"]);
    assert!(matches!(notes.borrow().as_slice(), [note] if note.contains("nothing is known at /nodes/node9")));
}

fn grant_args(line: &str) -> GrantCreateArgs {
    let line = format!("h grant create --user bob --path /vms/shop {line}");
    let Command::Grant(GrantCommand::Create(args)) = parsed(&line) else { panic!("{line}") };
    args
}

#[tokio::test]
async fn a_grant_that_takes_away_needs_consent_and_one_that_gives_does_not() {
    let scene = Scene::new(HOUR_MS).await;
    let (app, session) = (scene.app(), scene.session(DEADLINE).await);
    auditor(&scene);
    let gives = format!("grant VmUser on /vms/{SHOP}");
    let takes = format!("grant NoAccess on /vms/{SHOP}");
    let would = |what: &str| format!("would {what}");
    let asked = || "asked what if".to_owned();
    app.give(&session, &grant_args("--role VmUser")).await.unwrap();
    app.give(&session, &grant_args("--role NoAccess --dry-run")).await.unwrap();
    app.give(&session, &grant_args("--role NoAccess -y")).await.unwrap();
    let done = [would(&gives), asked(), gives, would(&takes), asked(), takes.clone()];
    assert_eq!(scene.changes(), done);
    if prompt::is_interactive() {
        return;
    }
    let failure = app.give(&session, &grant_args("--role NoAccess")).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Usage, "{failure}");
    assert_eq!(scene.changes()[done.len()..], [would(&takes), asked()], "nothing was done");
}

#[tokio::test]
async fn who_may_not_read_grants_is_not_refused_for_asking() {
    let scene = Scene::new(HOUR_MS).await;
    let (app, session) = (scene.app(), scene.session(DEADLINE).await);
    app.give(&session, &grant_args("--role NoAccess")).await.unwrap();
    assert_eq!(scene.changes().len(), 2, "checked and made: {:?}", scene.changes());
    let told = grants_that_go(&session, &Going::User("bob@local"), 0).await.unwrap();
    assert!(told.contains("SysAudit on /access"), "{told}");
}

#[tokio::test]
async fn what_is_deleted_takes_its_grants_along() {
    let scene = Scene::new(HOUR_MS).await;
    let session = scene.session(DEADLINE).await;
    auditor(&scene);
    for (going, heading, paths) in [
        (Going::User("bob@local"), "2 grants go with it:", &["/vms", "/nodes/web1"][..]),
        (Going::Group("ops"), "a grant goes with it:", &["/pools/ci"]),
        (Going::Pool("ci"), "a grant goes with it:", &["/pools/ci"]),
        (Going::Node("web1"), "a grant goes with it:", &["/nodes/web1"]),
        (Going::Group("web"), "no grant goes with it", &[]),
    ] {
        let told = grants_that_go(&session, &going, 0).await.unwrap();
        assert!(told.starts_with(heading), "{told}");
        let listed = told.lines().skip(2).count();
        assert!(listed == paths.len() && paths.iter().all(|path| told.contains(path)), "{told}");
    }
}

#[tokio::test]
async fn ones_own_account_is_not_for_an_administrator_to_reset() {
    let scene = Scene::new(HOUR_MS).await;
    let session = scene.session(DEADLINE).await;
    for own in ["alice", "Alice@local"] {
        let failure = somebody_else(&session, own, "`horcruxctl password` does").await.unwrap_err();
        assert!(
            matches!(&failure, Failure::Usage(said) if said.contains("horcruxctl password")),
            "{failure}"
        );
    }
    somebody_else(&session, "bob", "").await.unwrap();
    somebody_else(&session, "alice@corp", "").await.unwrap();
}
