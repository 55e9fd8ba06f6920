//! A session against a controller in this process: when tokens are renewed, how often, and what failures become.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod controller;

use std::time::Duration;

use horcruxctl::exit::Exit;
use horcruxctl::inventory;
use horcruxctl::tokens::{Credential, Tokens};

use self::controller::{DEADLINE, HOUR_MS, Scene};

fn kept(scene: &Scene) -> Tokens {
    scene.tokens.read().unwrap().unwrap().session().unwrap()
}

#[tokio::test]
async fn all_pages_are_followed_with_a_token_that_is_still_good() {
    let scene = Scene::new(HOUR_MS).await;
    let nodes = inventory::nodes(&scene.session(DEADLINE).await).await.unwrap();
    assert_eq!(nodes.0.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["nodes/a", "nodes/b"]);
    assert_eq!(scene.generation(), 0);
    drop(scene.tasks);
}

#[tokio::test]
async fn a_token_that_is_about_to_end_is_renewed_and_kept() {
    let scene = Scene::new(1000).await;
    inventory::nodes(&scene.session(DEADLINE).await).await.unwrap();
    assert_eq!(scene.generation(), 1);
    assert_eq!(kept(&scene).refresh.expose(), "refresh-1");
}

#[tokio::test]
async fn many_at_once_use_a_refresh_token_once() {
    let scene = Scene::new(0).await;
    let mut sessions = Vec::new();
    for _ in 0..8 {
        sessions.push(scene.session(DEADLINE).await);
    }
    let all = futures_util::future::join_all(sessions.iter().map(inventory::nodes)).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(scene.generation(), 1);
}

#[tokio::test]
async fn where_our_clock_is_behind_the_controllers_word_counts() {
    let scene = Scene::new(HOUR_MS).await;
    let stale = Tokens { access: "access-ended".to_owned().into(), ..kept(&scene) };
    scene.tokens.write(&Credential::Session(stale)).unwrap();
    inventory::nodes(&scene.session(DEADLINE).await).await.unwrap();
    assert_eq!(scene.generation(), 1);
}

#[tokio::test]
async fn a_session_that_is_over_is_forgotten_and_says_how_to_sign_in() {
    let scene = Scene::new(0).await;
    *scene.controller.0.generation.lock().unwrap() = 5;
    let failure = inventory::nodes(&scene.session(DEADLINE).await).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::NotSignedIn);
    assert!(failure.report().contains("horcruxctl login https://web1:8006"), "{}", failure.report());
    assert!(scene.tokens.read().unwrap().is_none());
}

#[tokio::test]
async fn what_the_controller_says_becomes_an_exit_code() {
    let scene = Scene::new(HOUR_MS).await;
    let session = scene.session(Duration::from_secs(1)).await;
    for (name, exit) in [("x", Exit::NotFound), ("secret", Exit::Denied), ("slow", Exit::Unreachable)] {
        assert_eq!(inventory::node(&session, name).await.unwrap_err().exit(), exit, "{name}");
    }
    let Scene { tasks, .. } = scene;
    drop(tasks);
}

#[tokio::test]
async fn an_api_token_is_sent_as_it_is_and_never_renewed() {
    let scene = Scene::new(0).await;
    let keep = |token: &str| scene.tokens.write(&Credential::ApiToken(token.to_owned().into())).unwrap();
    keep("hxt_good");
    inventory::nodes(&scene.session(DEADLINE).await).await.unwrap();
    keep("hxt_revoked");
    let failure = inventory::nodes(&scene.session(DEADLINE).await).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::NotSignedIn);
    assert_eq!(scene.generation(), 0);
    // It may be good again from another network: only its owner removes it.
    assert!(scene.tokens.read().unwrap().is_some());
}
