//! What a provider that is wrong, hostile or broken can't bring about.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod fake;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use horcrux_realms::oidc::{DevicePoll, Oidc, Started};
use horcrux_realms::{Person, RealmError, Refusal};
use horcrux_transport::error::Chain;
use http::StatusCode;
use serde_json::{Value, json};

use self::fake::{Fake, Key, SECRET, unsigned};

/// Any time: it is always passed in.
const AT: u64 = 1_800_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(AT + seconds)
}

/// All that a good token holds.
fn claims(fake: &Fake, started: &Started) -> Value {
    json!({
        "iss": fake.issuer, "sub": "1234", "aud": "horcrux", "iat": AT, "exp": AT + 300,
        "nonce": started.nonce.expose(), "preferred_username": "alice", "groups": ["staff"],
    })
}

async fn finish(oidc: &Oidc, started: Started, now: SystemTime) -> Result<Person, RealmError> {
    let state = started.state.clone();
    oidc.finish(started, "code", state.expose(), now).await
}

#[track_caller]
fn not_believed(outcome: Result<Person, RealmError>, what: &str) -> String {
    match outcome {
        Err(RealmError::Refused(why @ Refusal::Token(_))) => Chain(&why).to_string(),
        other => panic!("{what}: {other:?}"),
    }
}

#[track_caller]
fn unavailable(outcome: Result<impl std::fmt::Debug, RealmError>) -> String {
    match outcome {
        Err(error @ RealmError::Unavailable(_)) => Chain(&error).to_string(),
        other => panic!("not unavailable: {other:?}"),
    }
}

#[tokio::test]
async fn only_a_token_of_this_provider_for_us_and_this_sign_in_is_believed() {
    let (fake, key) = (Fake::start().await, Key::new("one"));
    fake.says("/keys", &json!({ "keys": [{ "kty": "what else" }, key.published()] }));
    let oidc = Oidc::new(fake.settings()).unwrap();

    let started = oidc.start(at(0)).await.unwrap();
    fake.gives(&key.sign(&claims(&fake, &started)));
    let person = finish(&oidc, started, at(0)).await.unwrap();
    assert_eq!(person.subject, format!("{} 1234", fake.issuer));
    assert_eq!((person.name.as_str(), person.groups), ("alice", vec!["staff".to_owned()]));

    for (claim, value) in [
        ("iss", json!("https://other.example")),
        ("aud", json!("somebody else")),
        ("aud", json!(["horcrux", "somebody else"])),
        ("exp", json!(AT - 60)),
        ("nonce", json!("another")),
        ("nonce", Value::Null),
        ("sub", Value::Null),
    ] {
        let started = oidc.start(at(0)).await.unwrap();
        let mut wrong = claims(&fake, &started);
        wrong[claim] = value;
        fake.gives(&key.sign(&wrong));
        not_believed(finish(&oidc, started, at(0)).await, claim);
    }

    let started = oidc.start(at(0)).await.unwrap();
    fake.gives(&Key::new("one").sign(&claims(&fake, &started)));
    let why = not_believed(finish(&oidc, started, at(0)).await, "another key of the same name");
    assert!(why.contains("Signature verification failed"), "{why}");

    let started = oidc.start(at(0)).await.unwrap();
    fake.gives(&format!("{}.", unsigned(&json!({ "alg": "none" }), &claims(&fake, &started))));
    not_believed(finish(&oidc, started, at(0)).await, "unsigned");

    let started = oidc.start(at(0)).await.unwrap();
    let text = unsigned(&json!({ "alg": "HS256" }), &claims(&fake, &started));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), text.as_bytes());
    fake.gives(&format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag)));
    let why = not_believed(finish(&oidc, started, at(0)).await, "signed with the client's secret");
    assert!(why.contains("Disallowed signature algorithm"), "{why}");

    let started = oidc.start(at(0)).await.unwrap();
    let good = key.sign(&claims(&fake, &started));
    let (head, signature) = good.rsplit_once('.').unwrap();
    let mut other = claims(&fake, &started);
    other["sub"] = json!("5678");
    let changed = unsigned(&json!({ "alg": "ES256", "kid": "one", "typ": "JWT" }), &other);
    assert_ne!(changed, head);
    fake.gives(&format!("{changed}.{signature}"));
    not_believed(finish(&oidc, started, at(0)).await, "changed after it was signed");

    let started = oidc.start(at(0)).await.unwrap();
    fake.gives("not a token");
    not_believed(finish(&oidc, started, at(0)).await, "no token");
}

#[tokio::test]
async fn new_keys_are_asked_for_once_a_minute() {
    let (fake, old, new) = (Fake::start().await, Key::new("old"), Key::new("new"));
    fake.says("/keys", &json!({ "keys": [old.published()] }));
    let oidc = Oidc::new(fake.settings()).unwrap();
    let sign_in = async |key: &Key, seconds: u64| {
        let started = oidc.start(at(seconds)).await.unwrap();
        fake.gives(&key.sign(&claims(&fake, &started)));
        finish(&oidc, started, at(seconds)).await
    };
    sign_in(&old, 0).await.unwrap();
    fake.says("/keys", &json!({ "keys": [new.published()] }));
    not_believed(sign_in(&new, 10).await, "asked a moment ago");
    not_believed(sign_in(&new, 20).await, "asked a moment ago");
    assert_eq!(fake.times_asked("/keys"), 1);
    sign_in(&new, 61).await.unwrap();
    sign_in(&new, 62).await.unwrap();
    not_believed(sign_in(&old, 63).await, "withdrawn");
    assert_eq!(fake.times_asked("/keys"), 2);
    assert_eq!(fake.times_asked("/.well-known/openid-configuration"), 1);
}

#[tokio::test]
async fn user_information_is_of_the_same_person_or_the_sign_in_fails() {
    let (fake, key) = (Fake::start().await, Key::new("one"));
    fake.says("/keys", &json!({ "keys": [key.published()] }));
    let oidc = Oidc::new(fake.settings()).unwrap();
    let sign_in = async || {
        let started = oidc.start(at(0)).await.unwrap();
        let mut bare = claims(&fake, &started);
        bare.as_object_mut().unwrap().remove("groups");
        fake.gives(&key.sign(&bare));
        finish(&oidc, started, at(0)).await
    };
    fake.says("/userinfo", &json!({ "sub": "1234", "groups": ["admins"], "preferred_username": "mallory" }));
    let person = sign_in().await.unwrap();
    assert_eq!(
        (person.name.as_str(), person.groups),
        ("alice", vec!["admins".to_owned()]),
        "what was signed goes first"
    );
    for other in [json!({ "sub": "5678", "groups": ["admins"] }), json!({ "groups": ["admins"] })] {
        fake.says("/userinfo", &other);
        assert!(matches!(sign_in().await, Err(RealmError::Refused(Refusal::OtherSubject))));
    }
    fake.answers("/userinfo", StatusCode::INTERNAL_SERVER_ERROR, "");
    unavailable(sign_in().await);
    fake.says("/userinfo", &json!({ "sub": "1234", "groups": [["admins"]] }));
    assert!(matches!(sign_in().await, Err(RealmError::Misconfigured(_))));
}

#[tokio::test]
async fn names_from_a_provider_are_checked() {
    let (fake, key) = (Fake::start().await, Key::new("one"));
    fake.says("/keys", &json!({ "keys": [key.published()] }));
    let oidc = Oidc::new(fake.settings()).unwrap();
    let long = "a".repeat(300);
    for (claim, value) in [
        ("preferred_username", "al\nice"),
        ("preferred_username", long.as_str()),
        ("preferred_username", ""),
        ("sub", ""),
        ("sub", "1\u{0}2"),
        ("sub", long.as_str()),
    ] {
        let started = oidc.start(at(0)).await.unwrap();
        let mut wrong = claims(&fake, &started);
        wrong[claim] = json!(value);
        fake.gives(&key.sign(&wrong));
        let outcome = finish(&oidc, started, at(0)).await;
        assert!(
            matches!(outcome, Err(RealmError::Refused(Refusal::BadName))),
            "{claim} {value:?}: {outcome:?}"
        );
    }
    let started = oidc.start(at(0)).await.unwrap();
    let mut odd = claims(&fake, &started);
    odd["name"] = json!(format!("\u{1b}]0;Alice\u{7}{long}"));
    odd["groups"] = json!(["a\nb", "x".repeat(200), "ok"]);
    fake.gives(&key.sign(&odd));
    let person = finish(&oidc, started, at(0)).await.unwrap();
    assert_eq!(person.display_name.chars().count(), 256);
    assert!(!person.display_name.contains(char::is_control));
    assert_eq!(person.groups, ["ok"]);
}

#[tokio::test]
async fn answers_are_bounded_and_redirects_not_followed() {
    let fake = Fake::start().await;
    let oidc = Oidc::new(fake.settings()).unwrap();
    let started = oidc.start(at(0)).await.unwrap();
    fake.told().location = Some(format!("{}/elsewhere", fake.issuer));
    for status in [StatusCode::FOUND, StatusCode::TEMPORARY_REDIRECT, StatusCode::INTERNAL_SERVER_ERROR] {
        fake.answers("/token", status, "");
        let started = Started { nonce: started.nonce.clone(), ..oidc.start(at(0)).await.unwrap() };
        unavailable(finish(&oidc, started, at(0)).await);
    }
    assert_eq!(fake.times_asked("/elsewhere"), 0);
    assert_eq!(fake.times_asked("/token"), 3);

    fake.answers("/token", StatusCode::OK, &" ".repeat((1 << 20) + 1));
    let why = unavailable(finish(&oidc, started, at(0)).await);
    assert!(why.contains("longer than 1048576 bytes"), "{why}");

    for (error, is_ours) in [("invalid_grant", false), ("access_denied", false), ("invalid_client", true)] {
        fake.answers("/token", StatusCode::BAD_REQUEST, &json!({ "error": error }).to_string());
        let started = oidc.start(at(0)).await.unwrap();
        let outcome = finish(&oidc, started, at(0)).await;
        let as_expected = match &outcome {
            Err(RealmError::Misconfigured(_)) => is_ours,
            Err(RealmError::Refused(Refusal::Provider(_))) => !is_ours,
            _ => false,
        };
        assert!(as_expected, "{error}: {outcome:?}");
    }
}

#[tokio::test]
async fn what_a_provider_says_of_itself_is_checked_and_remembered() {
    let fake = Fake::start().await;
    for (member, value) in [
        ("issuer", json!("https://other.example")),
        ("issuer", json!(format!("{}/", fake.issuer))),
        ("token_endpoint", json!("http://other.example/token")),
        ("authorization_endpoint", json!("javascript:alert(1)")),
        ("jwks_uri", json!("https://user:pw@other.example/keys")),
    ] {
        let mut wrong = fake.metadata();
        wrong[member] = value;
        fake.says("/.well-known/openid-configuration", &wrong);
        let outcome = Oidc::new(fake.settings()).unwrap().start(at(0)).await;
        assert!(matches!(outcome, Err(RealmError::Misconfigured(_))), "{member}: {outcome:?}");
    }
    let oidc = Oidc::new(fake.settings()).unwrap();
    fake.answers("/.well-known/openid-configuration", StatusCode::BAD_GATEWAY, "");
    unavailable(oidc.start(at(0)).await);
    fake.says("/.well-known/openid-configuration", &fake.metadata());
    oidc.start(at(1)).await.unwrap();
    // An hour later it is asked again, and what was known serves while it doesn't answer.
    fake.answers("/.well-known/openid-configuration", StatusCode::BAD_GATEWAY, "");
    oidc.start(at(3599)).await.unwrap();
    let asked = fake.times_asked("/.well-known/openid-configuration");
    oidc.start(at(3602)).await.unwrap();
    assert_eq!(fake.times_asked("/.well-known/openid-configuration"), asked + 1);
}

#[tokio::test]
async fn a_device_asks_no_faster_than_the_provider_wants() {
    let fake = Fake::start().await;
    let oidc = Oidc::new(fake.settings()).unwrap();
    let device = json!({
        "device_code": "d", "user_code": "ABCD-EFGH", "expires_in": 99_999,
        "verification_uri": format!("{}/activate", fake.issuer), "interval": 3,
    });
    fake.says("/device", &device);
    let mut started = oidc.start_device(at(0)).await.unwrap();
    assert_eq!((started.interval, started.expires), (Duration::from_secs(3), at(1800)));
    let refused =
        |error: &str| fake.answers("/token", StatusCode::BAD_REQUEST, &json!({ "error": error }).to_string());
    refused("slow_down");
    let mut asked = Vec::new();
    for second in 0..=30 {
        let outcome = oidc.poll_device(&mut started, at(second)).await.unwrap();
        assert!(matches!(outcome, DevicePoll::Pending));
        if fake.times_asked("/token") > asked.len() {
            asked.push(second);
        }
        if asked.len() == 2 {
            refused("authorization_pending");
        }
    }
    assert_eq!(asked, [3, 11, 24], "every 3 s, then 8, then 13");
    for error in ["access_denied", "expired_token"] {
        refused(error);
        let outcome = oidc.poll_device(&mut started, at(100)).await;
        started = oidc.start_device(at(0)).await.unwrap();
        assert!(matches!(outcome, Err(RealmError::Refused(_))), "{outcome:?}");
    }
    let mut plain = device;
    plain["verification_uri"] = json!("javascript:alert(1)");
    fake.says("/device", &plain);
    assert!(matches!(oidc.start_device(at(0)).await, Err(RealmError::Misconfigured(_))));
}
