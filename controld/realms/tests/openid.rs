//! Sign-in at a real OpenID provider, the npm package `oidc-provider`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use horcrux_realms::oidc::{DevicePoll, Oidc, Settings, Started};
use horcrux_realms::{Person, RealmError, Refusal};
use horcrux_test_parts::{Claims, Provider, agree};
use horcrux_transport::clock;
use horcrux_transport::secret::Secret;

const BACK: &str = "https://controller.example:8006/oidc/corp";

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(clock::unix_ms().cast_unsigned())
}

fn settings(provider: &Provider) -> Settings {
    Settings {
        issuer: provider.issuer.clone(),
        client_id: Provider::CLIENT.0.to_owned(),
        client_secret: Some(Secret::from(Provider::CLIENT.1.to_owned())),
        scopes: vec!["profile".to_owned(), "groups".to_owned()],
        authorities: Some(provider.authorities()),
        name_claim: "preferred_username".to_owned(),
        groups_claim: Some("groups".to_owned()),
        redirect_url: BACK.to_owned(),
        timeout: Duration::from_secs(20),
    }
}

fn public(provider: &Provider) -> Settings {
    Settings { client_id: Provider::PUBLIC_CLIENT.to_owned(), client_secret: None, ..settings(provider) }
}

/// The code and the state that the browser brings back.
async fn come_back(provider: &Provider, started: &Started, user: &str) -> (String, String) {
    let back = agree(&started.url, &provider.authorities(), user).await.unwrap();
    assert!(back.as_str().starts_with(BACK), "{back}");
    let value = |name: &str| back.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
    (value("code"), value("state"))
}

/// As a server needs it: work that may go on on another thread.
fn movable<T: Send>(work: T) -> T {
    work
}

fn is_alice(person: &Person, provider: &Provider) {
    assert_eq!(person.subject, format!("{} alice", provider.issuer));
    assert_eq!((person.name.as_str(), person.display_name.as_str()), ("alice", "alice of the tests"));
    assert_eq!(person.groups, ["admins", "staff"]);
}

#[track_caller]
fn refused(outcome: Result<Person, RealmError>) -> Refusal {
    match outcome {
        Err(RealmError::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_browser_signs_in_with_a_code() {
    for claims in [Claims::Token, Claims::Userinfo] {
        let provider = Provider::start(BACK, claims).unwrap();
        for settings in [settings(&provider), public(&provider)] {
            let oidc = Oidc::new(settings).unwrap();
            oidc.check(now()).await.unwrap();
            let started = oidc.start(now()).await.unwrap();
            assert!(started.url.contains("code_challenge_method=S256"), "{}", started.url);
            let (code, state) = come_back(&provider, &started, "alice").await;
            is_alice(&movable(oidc.finish(started, &code, &state, now())).await.unwrap(), &provider);
        }
    }
}

#[tokio::test]
async fn what_another_sign_in_brought_back_is_refused() {
    let provider = Provider::start(BACK, Claims::Token).unwrap();
    let oidc = Oidc::new(settings(&provider)).unwrap();
    let secret = || Secret::from("x".repeat(43));

    let started = oidc.start(now()).await.unwrap();
    let (code, state) = come_back(&provider, &started, "alice").await;
    assert!(matches!(refused(oidc.finish(started, &code, &state[1..], now()).await), Refusal::State));
    let started = oidc.start(now()).await.unwrap();
    assert!(matches!(refused(oidc.finish(started, &code, &state, now()).await), Refusal::State));

    let started = oidc.start(now()).await.unwrap();
    let (code, state) = come_back(&provider, &started, "alice").await;
    let other_verifier = Started { verifier: secret(), ..started };
    assert!(matches!(refused(oidc.finish(other_verifier, &code, &state, now()).await), Refusal::Provider(_)));

    let started = oidc.start(now()).await.unwrap();
    let (code, state) = come_back(&provider, &started, "alice").await;
    let other_nonce = Started { nonce: secret(), ..started };
    assert!(matches!(refused(oidc.finish(other_nonce, &code, &state, now()).await), Refusal::Token(_)));

    let started = oidc.start(now()).await.unwrap();
    let again = Started {
        url: started.url.clone(),
        state: started.state.clone(),
        nonce: started.nonce.clone(),
        verifier: started.verifier.clone(),
    };
    let (code, state) = come_back(&provider, &started, "alice").await;
    is_alice(&oidc.finish(started, &code, &state, now()).await.unwrap(), &provider);
    assert!(matches!(refused(oidc.finish(again, &code, &state, now()).await), Refusal::Provider(_)));

    let wrong_secret = Some(Secret::from("wrong".to_owned()));
    let wrong_secret = Oidc::new(Settings { client_secret: wrong_secret, ..settings(&provider) }).unwrap();
    let started = wrong_secret.start(now()).await.unwrap();
    let (code, state) = come_back(&provider, &started, "alice").await;
    let outcome = wrong_secret.finish(started, &code, &state, now()).await;
    assert!(matches!(outcome, Err(RealmError::Misconfigured(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_device_signs_in_once_a_person_has_agreed_elsewhere() {
    let provider = Provider::start(BACK, Claims::Token).unwrap();
    for settings in [settings(&provider), public(&provider)] {
        let oidc = Oidc::new(settings).unwrap();
        let mut at = now();
        let mut started = movable(oidc.start_device(at)).await.unwrap();
        assert!(!started.user_code.is_empty() && started.expires > at);
        at += started.interval;
        assert!(matches!(oidc.poll_device(&mut started, at).await.unwrap(), DevicePoll::Pending));
        agree(&started.url, &provider.authorities(), "alice").await.unwrap();
        assert!(matches!(oidc.poll_device(&mut started, at).await.unwrap(), DevicePoll::Pending), "too soon");
        at += started.interval;
        match movable(oidc.poll_device(&mut started, at)).await.unwrap() {
            DevicePoll::Done(person) => is_alice(&person, &provider),
            DevicePoll::Pending => panic!("still pending"),
        }
        at += started.interval;
        let again = oidc.poll_device(&mut started, at).await;
        assert!(matches!(again, Err(RealmError::Refused(_))), "{again:?}");
    }
}

#[tokio::test]
async fn a_provider_that_does_not_prove_itself_is_not_asked() {
    let (provider, other) = (Provider::start(BACK, Claims::Token).unwrap(), tempfile::tempdir().unwrap());
    let authorities = Some(horcrux_test_parts::Authority::make(other.path()).unwrap().ca());
    let oidc = Oidc::new(Settings { authorities, ..settings(&provider) }).unwrap();
    assert!(matches!(oidc.start(now()).await, Err(RealmError::Unavailable(_))));
    let plain = provider.issuer.replace("https", "http");
    let plain = Oidc::new(Settings { issuer: plain, ..settings(&provider) });
    assert!(matches!(plain, Err(RealmError::Misconfigured(_))));
}
