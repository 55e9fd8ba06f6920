//! Signing in and changing things against a controller in this process.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod controller;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Mutex;
use std::time::Duration;

use clap::Parser as _;
use horcrux_proto::v1::AuditRecord;
use horcrux_transport::backoff::Backoff;
use horcruxctl::args::audit::{AuditCommand, AuditListArgs};
use horcruxctl::args::change::{ChangeArgs, RemovalArgs};
use horcruxctl::args::sign_in::SessionCommand;
use horcruxctl::args::token::{TokenCommand, TokenCreateArgs};
use horcruxctl::args::{Cli, Command};
use horcruxctl::change::{Deed, Run};
use horcruxctl::contexts::Contexts;
use horcruxctl::exit::Exit;
use horcruxctl::failure::Failure;
use horcruxctl::sign_in::with_password;
use horcruxctl::tokens::Credential;
use horcruxctl::view::{Output, View};
use horcruxctl::{Reader, account, api_tokens, audit, login, nodes, oidc};

use self::controller::guests::{SHOP, WORKER};
use self::controller::{DEADLINE, HOUR_MS, Scene, URL};

fn parsed(line: &str) -> Command {
    Cli::try_parse_from(line.split_whitespace()).unwrap().command
}

fn json(view: &impl View) -> String {
    Output::Json.render(view, 0).unwrap()
}

#[tokio::test]
async fn a_password_alone_opens_a_session_where_nothing_else_is_asked_for() {
    let scene = Scene::new(HOUR_MS).await;
    let (app, door) = (scene.app(), scene.door().await);
    let right = "right".to_owned().into();
    let signed_in = with_password(&app, &door, ("alice", ""), &right, None).await.unwrap();
    assert_eq!(signed_in.user, "alice@local");
    assert!(signed_in.recovery_codes.is_none());
    let wrong = "wrong".to_owned().into();
    let refused = with_password(&app, &door, ("alice", ""), &wrong, None).await.unwrap_err();
    assert!(matches!(&refused, Failure::SignInRefused { url, .. } if url == URL), "{refused}");
    assert_eq!(refused.exit(), Exit::NotSignedIn);
}

#[tokio::test]
async fn a_second_factor_comes_from_a_file() {
    let scene = Scene::new(HOUR_MS).await;
    let (app, door) = (scene.app(), scene.door().await);
    let right = "right".to_owned().into();
    let code = scene.file("code", "123456\n");
    let signed_in = with_password(&app, &door, ("strict", ""), &right, Some(&code)).await.unwrap();
    assert_eq!(signed_in.user, "strict@local");
    let code = scene.file("code", "000000\n");
    let refused = with_password(&app, &door, ("strict", ""), &right, Some(&code)).await.unwrap_err();
    assert!(matches!(&refused, Failure::SignInRefused { why, .. } if why == "wrong code"), "{refused}");
}

#[tokio::test]
async fn a_second_factor_that_is_new_comes_with_recovery_codes() {
    let scene = Scene::new(HOUR_MS).await;
    let (app, door) = (scene.app(), scene.door().await);
    let code = scene.file("code", "123456\n");
    let right = "right".to_owned().into();
    let signed_in = with_password(&app, &door, ("new", ""), &right, Some(&code)).await.unwrap();
    assert!(!format!("{signed_in:?}").contains("aaaa"), "a secret in Debug");
    let codes = json(&signed_in.recovery_codes.unwrap());
    assert!(codes.contains("aaaa-1") && codes.contains("bbbb-2"), "{codes}");
}

#[tokio::test]
async fn a_provider_is_asked_until_the_person_has_agreed() {
    let scene = Scene::new(HOUR_MS).await;
    *scene.controller.0.providers.lock().unwrap() = vec!["corp"];
    let signed_in = oidc::with_provider(&scene.app(), &scene.door().await, None, None).await.unwrap();
    assert_eq!(signed_in.user, "carol@local");
    // Pending, and an answer that did not come.
    assert_eq!(*scene.controller.0.polls.lock().unwrap(), 3);
}

#[tokio::test]
async fn a_provider_may_refuse_or_leave_the_second_factor_to_us() {
    let scene = Scene::new(HOUR_MS).await;
    let (app, door) = (scene.app(), scene.door().await);
    let refused = oidc::with_provider(&app, &door, Some("other"), None).await.unwrap_err();
    assert!(matches!(refused, Failure::SignInRefused { .. }), "{refused}");
    let code = scene.file("code", "123456\n");
    let signed_in = oidc::with_provider(&app, &door, Some("strict"), Some(&code)).await.unwrap();
    assert_eq!(signed_in.user, "strict@local");
}

#[tokio::test]
async fn where_there_are_several_providers_the_error_lists_them() {
    let scene = Scene::new(HOUR_MS).await;
    let (app, door) = (scene.app(), scene.door().await);
    *scene.controller.0.providers.lock().unwrap() = vec!["corp", "lab"];
    let failure = oidc::with_provider(&app, &door, None, None).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Usage);
    assert_eq!(failure.to_string(), "choose an OpenID realm with --realm: corp (CORP), lab (LAB)");
    scene.controller.0.providers.lock().unwrap().clear();
    let failure = oidc::with_provider(&app, &door, None, None).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Usage);
}

#[tokio::test]
async fn an_api_token_is_kept_once_the_controller_knows_it() {
    let scene = Scene::new(HOUR_MS).await;
    let (app, door) = (scene.app(), scene.door().await);
    for (token, exit) in [("access-0", Exit::Usage), ("hxt_bad", Exit::NotSignedIn)] {
        let file = scene.file("token", token);
        let failure = login::use_api_token(&app, &door, &file).await.unwrap_err();
        assert_eq!(failure.exit(), exit, "{failure}");
        assert!(!failure.report().contains(token));
    }
    let file = scene.file("token", "hxt_good\n");
    login::use_api_token(&app, &door, &file).await.unwrap();
    let kept = scene.tokens.read().unwrap().unwrap();
    assert!(matches!(kept, Credential::ApiToken(token) if token.expose() == "hxt_good"));
    let contexts = Contexts::read(&app.home).unwrap();
    assert_eq!(contexts.chosen(None).unwrap().1.user.as_deref(), Some("alice@local"));
}

#[tokio::test]
async fn a_second_factor_counts_once_its_first_code_was_right() {
    let scene = Scene::new(HOUR_MS).await;
    let (app, session) = (scene.app(), scene.session(DEADLINE).await);
    let file = |name: &str, text: &str| Some(scene.file(name, text));
    for (password, code, says) in
        [("wrong", "123456", "wrong password"), ("right", "000000", "code: wrong"), ("right", "123456", "")]
    {
        let (password, code) = (file("password", password), file("code", code));
        let set_up = app.set_up_totp(&session, password.as_deref(), code.as_deref()).await;
        let said = set_up.err().map(|failure| failure.to_string()).unwrap_or_default();
        assert!(said.contains(says) && said.is_empty() == says.is_empty(), "{said}");
    }
    assert_eq!(scene.changes(), ["totp"]);
}

#[tokio::test]
async fn sessions_are_ones_own_anothers_or_everyones() {
    let scene = Scene::new(HOUR_MS).await;
    let session = scene.session(DEADLINE).await;
    for (line, user) in [("", "@local"), ("--user bob", "bob@local"), ("--all", "*@local")] {
        let Command::Session(SessionCommand::List(owner)) = parsed(&format!("h session list {line}")) else {
            panic!("{line}")
        };
        assert_eq!(account::sessions(&session, &owner).await.unwrap().0[0].user, user);
    }
}

fn token_args(line: &str) -> TokenCreateArgs {
    let Command::Token(TokenCommand::Create(args)) = parsed(line) else { panic!("{line}") };
    args
}

#[tokio::test]
async fn a_new_api_token_needs_a_fresh_code_and_goes_to_its_file() {
    let scene = Scene::new(HOUR_MS).await;
    let session = scene.session(DEADLINE).await;
    let code = scene.file("code", "123456\n");
    let secret = scene.dir.path().join("secret");
    let line = format!(
        "h token create --comment ci --expires 30d --grant VmUser@/pools/ci --token-file {} --second-factor-file {}",
        secret.display(),
        code.display()
    );
    assert!(api_tokens::create(&session, &token_args(&format!("{line} --dry-run"))).await.unwrap().is_none());
    assert!(!secret.exists());
    let view = api_tokens::create(&session, &token_args(&line)).await.unwrap().unwrap();
    assert!(!json(&view).contains("hxt_"), "the secret is in the file");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "hxt_a1b2_x\n");
    assert_eq!(fs::metadata(&secret).unwrap().mode() & 0o777, 0o600);
    let done = "token ci for 2592000 s: VmUser@/pools/ci";
    assert_eq!(scene.changes(), [format!("would {done}"), done.to_owned()]);
    // A file that is there stops it before a secret exists.
    assert!(api_tokens::create(&session, &token_args(&line)).await.is_err());
    assert_eq!(scene.changes().len(), 2);
    scene.file("code", "000000\n");
    fs::remove_file(&secret).unwrap();
    assert!(api_tokens::create(&session, &token_args(&line)).await.is_err());
    assert!(!secret.exists(), "no empty file stays");
}

#[tokio::test]
async fn every_node_gets_its_token_file_and_one_that_fails_is_named() {
    let scene = Scene::new(HOUR_MS).await;
    let session = scene.session(DEADLINE).await;
    let dir = scene.dir.path().join("join");
    let would = nodes::reenroll_all(&session, &dir, 600, Run::Check).await.unwrap();
    assert!(!dir.exists());
    assert_eq!(would.talk(Run::Check), "would make tokens for 1 of 2 nodes\n  a: a is locked");
    let made = nodes::reenroll_all(&session, &dir, 600, Run::Change).await.unwrap();
    assert_eq!(scene.changes(), ["would reenroll b for 600 s", "reenroll b for 600 s"]);
    assert!(made.talk(Run::Change).contains("enroll --again"));
    assert_eq!(fs::read_to_string(dir.join("b.token")).unwrap(), "hxj_b\n");
    assert!(!dir.join("a.token").exists());
    let mode = |path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(dir.clone()), mode(dir.join("b.token"))), (0o700, 0o600));
    let problems: Vec<_> = made.0.iter().map(|node| (node.node.as_str(), node.problem.as_deref())).collect();
    assert_eq!(problems, [("a", Some("a is locked")), ("b", None)]);
}

#[tokio::test]
async fn what_cannot_be_taken_back_is_checked_before_anyone_is_asked() {
    let scene = Scene::new(HOUR_MS).await;
    let app = scene.app();
    let asked = Mutex::new(Vec::new());
    let deed = Deed::new("delete", "deleted", "x");
    let request = |run, id: String| {
        asked.lock().unwrap().push((run, id));
        async { Ok(()) }
    };
    let args = |yes, dry_run| RemovalArgs { yes, change: ChangeArgs { dry_run } };
    app.remove(args(true, false), "?", &deed, request).await.unwrap();
    app.remove(args(false, true), "?", &deed, request).await.unwrap();
    app.remove(args(true, true), "?", &deed, request).await.unwrap();
    let calls = std::mem::take(&mut *asked.lock().unwrap());
    assert_eq!(calls.iter().map(|call| call.0).collect::<Vec<_>>(), [Run::Change, Run::Check, Run::Check]);
    let mut ids: Vec<_> = calls.iter().map(|call| call.1.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    if horcruxctl::prompt::is_interactive() {
        return;
    }
    let failure = app.remove(args(false, false), "?", &deed, request).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Usage);
    let runs: Vec<_> = asked.lock().unwrap().iter().map(|call| call.0).collect();
    assert_eq!(runs, [Run::Check], "nothing was done");
}

fn list_args(line: &str) -> AuditListArgs {
    let Command::Audit(AuditCommand::List(args)) = parsed(line) else { panic!("{line}") };
    args
}

fn rows(scene: &Scene, count: u64) {
    *scene.controller.0.rows.lock().unwrap() =
        (1..=count).map(|sequence| AuditRecord { sequence, ..AuditRecord::default() }).collect();
}

#[tokio::test]
async fn the_newest_rows_come_first_up_to_the_limit() {
    let scene = Scene::new(HOUR_MS).await;
    rows(&scene, 5);
    let session = scene.session(DEADLINE).await;
    let numbers = async |line: &str| {
        let listed = audit::list(&session, &list_args(line), 0).await.unwrap();
        listed.iter().map(|row| row.sequence).collect::<Vec<_>>()
    };
    assert_eq!(numbers("h audit list").await, [5, 4, 3, 2, 1]);
    assert_eq!(numbers("h audit list --limit 2 --since 1h").await, [5, 4]);
    assert!(numbers("h audit list --limit 0").await.is_empty());
}

#[tokio::test]
async fn the_log_is_asked_for_ids_where_names_are_known() {
    let scene = Scene::new(HOUR_MS).await;
    let session = scene.session(DEADLINE).await;
    let meant = async |text: &str| audit::on_log(&session, Some(text.to_owned())).await.unwrap().unwrap();
    assert_eq!(meant("vms/shop").await, format!("/vms/{SHOP}"));
    assert_eq!(meant("containers/3f2a").await, format!("/containers/node1/{WORKER}"));
    assert_eq!(meant("vms/gone").await, "vms/gone");
    assert_eq!(meant("users/bob@local").await, "/users/bob@local");
    assert_eq!(audit::on_log(&session, None).await.unwrap(), None);
}

#[tokio::test]
async fn following_loses_no_row_and_shows_none_twice() {
    let scene = Scene::new(HOUR_MS).await;
    rows(&scene, 2);
    let session = scene.session(DEADLINE).await;
    let args = list_args("h audit list --follow");
    let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
    let mut last = 0;
    let mut seen = Vec::new();
    let mut print = |records: &[AuditRecord]| {
        seen.extend(records.iter().map(|row| (row.sequence, row.actor.clone())));
        Ok(Reader::Listens)
    };
    // The stream ends, which is a broken connection; it goes on after the last row.
    for _ in 0..2 {
        let broken = audit::follow_once(&session, &args, &mut last, &mut backoff, &mut print).await;
        assert!(broken.unwrap_err().is_passing());
    }
    assert_eq!(last, 4);
    let told = |number: u64, text: &str| (number, text.to_owned());
    assert_eq!(seen, [told(1, ""), told(2, ""), told(3, "after 0"), told(4, "after 3")]);
    let mut left = |_: &[AuditRecord]| Ok(Reader::Left);
    audit::follow_once(&session, &args, &mut last, &mut backoff, &mut left).await.unwrap();
}

#[tokio::test]
async fn a_log_that_is_not_whole_has_a_problem() {
    let scene = Scene::new(HOUR_MS).await;
    let session = scene.session(DEADLINE).await;
    assert_eq!(audit::verify(&session, vec![]).await.unwrap().problem(), None);
    let view = audit::verify(&session, vec!["row 3 was edited".into()]).await.unwrap();
    assert_eq!(view.problem().as_deref(), Some("row 3 was edited"));
}
