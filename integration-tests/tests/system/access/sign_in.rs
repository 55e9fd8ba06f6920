//! Who guesses passwords is slowed down, and keeps nobody out; which names there are, nobody learns by it.

use std::fs;
use std::future::Future;
use std::os::unix::fs::MetadataExt as _;

use horcrux_integration_tests::rpc::Rpc;
use horcrux_integration_tests::{Browser, Controller, wait_until};
use horcrux_transport::clock;
use serde_json::{Value, json};
use tonic::{Code, Status};

const SIGN_IN: &str = "/horcrux.v1.AuthService/SignIn";
pub(super) const PASSWORD: &str = "correct horse battery";

/// Drives one test. Alice is an administrator.
pub(super) fn with_controller<F: Future<Output = ()>>(test: impl FnOnce(Rpc) -> F) {
    let controller = Controller::start().unwrap();
    let admin = controller.administrator().unwrap();
    let password = fs::read_to_string(admin.password_file()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let rpc = Rpc::to(&controller).await.unwrap();
        let admin = rpc.signed_in(&admin.name, password.trim()).await.unwrap();
        let alice = json!({"user": "alice", "password": PASSWORD});
        admin.ask("/horcrux.v1.UserService/Create", &alice).await.unwrap();
        let grant = json!({"user": "alice", "role": "Administrator", "path": "/"});
        admin.ask("/horcrux.v1.GrantService/Create", &grant).await.unwrap();
        test(rpc).await;
    });
}

pub(super) async fn sign_in(
    rpc: &Rpc,
    name: &str,
    password: &str,
    device: Option<&str>,
) -> Result<Value, Status> {
    let mut request = json!({"username": name, "password": password});
    if let Some(device) = device {
        request["device"] = device.into();
    }
    rpc.ask(SIGN_IN, &request).await
}

/// Wrong passwords until one isn't heard: how many were, and what they were told.
async fn guess(rpc: &Rpc, name: &str) -> (usize, String) {
    let mut told = String::new();
    for heard in 0..50 {
        let status = sign_in(rpc, name, "wrong horse battery", None).await.unwrap_err();
        if status.code() == Code::ResourceExhausted {
            return (heard, told);
        }
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        status.message().clone_into(&mut told);
    }
    panic!("50 guesses were heard");
}

#[test]
fn who_guesses_at_the_same_address_keeps_nobody_out_of_their_own_device() {
    with_controller(|rpc| async move {
        let first = sign_in(&rpc, "alice", PASSWORD, None).await.unwrap();
        let device = first["tokens"]["device"].as_str().unwrap();
        let user = json!({"user": "bob", "password": PASSWORD});
        let admin = rpc.with(first["tokens"]["accessToken"].as_str().unwrap());
        admin.ask("/horcrux.v1.UserService/Create", &user).await.unwrap();

        // A device that isn't alice's helps nobody with her name.
        let bob = sign_in(&rpc, "bob", PASSWORD, None).await.unwrap();
        let others = bob["tokens"]["device"].as_str().unwrap();
        let (heard, _) = guess(&rpc, "alice").await;
        assert!(heard > 0);
        for other in [None, Some(others), Some("made-up")] {
            let status = sign_in(&rpc, "alice", PASSWORD, other).await.unwrap_err();
            assert_eq!(status.code(), Code::ResourceExhausted, "{other:?}: {status}");
        }

        let began = clock::monotonic();
        let in_ = sign_in(&rpc, "alice", PASSWORD, Some(device)).await.unwrap();
        assert!(in_["tokens"]["accessToken"].is_string());
        eprintln!("after {heard} guesses from the same address: in, in {:?}", began.elapsed());
        assert_ne!(in_["tokens"]["device"].as_str(), Some(device), "and known from today on");
    });
}

#[test]
fn who_holds_a_challenge_or_a_refresh_token_is_heard_whatever_others_make_up() {
    with_controller(|rpc| async move {
        let first = sign_in(&rpc, "alice", PASSWORD, None).await.unwrap();
        let refresh = "/horcrux.v1.AuthService/Refresh";
        let answer = "/horcrux.v1.AuthService/AnswerChallenge";
        for (method, made_up) in [
            (refresh, json!({"refreshToken": "hxr_made-up"})),
            (answer, json!({"challengeId": "hxm_made-up", "code": "123456"})),
        ] {
            let mut slowed = false;
            for _ in 0..200 {
                let status = rpc.ask(method, &made_up).await.unwrap_err();
                slowed |= status.code() == Code::ResourceExhausted;
            }
            assert!(slowed, "{method}");
        }
        let mine = json!({"refreshToken": first["tokens"]["refreshToken"]});
        let renewed = rpc.ask(refresh, &mine).await.unwrap();
        assert!(renewed["tokens"]["accessToken"].is_string());
    });
}

#[test]
fn a_browser_and_a_client_are_known_again_by_what_they_keep() {
    let controller = Controller::start().unwrap();
    let bob = controller.person("bob").unwrap();
    let mut browser = Browser::at_the_door(&controller).unwrap();
    let sign_in = format!("password - bob {}", bob.password_file());
    let enter = |browser: &mut Browser, what: &str| {
        browser.ask(&sign_in).unwrap();
        wait_until(what, || {
            let page = browser.ask("look")?;
            anyhow::ensure!(page["user"].as_str().is_some_and(|user| user.ends_with(" bob@local")), "{page}");
            Ok(())
        })
        .unwrap();
        browser.ask("leave").unwrap();
    };
    enter(&mut browser, "the first sign-in");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { guess(&Rpc::to(&controller).await.unwrap(), "bob").await });

    enter(&mut browser, "the sign-in of a browser that is known");
    bob.sign_in().unwrap();
    let device = bob.home().join("horcrux/devices");
    let kept: Vec<_> = fs::read_dir(&device).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(fs::metadata(&kept[0]).unwrap().mode() & 0o777, 0o600);
    fs::remove_file(&kept[0]).unwrap();
    let refused = format!("{:#}", bob.sign_in().unwrap_err());
    assert!(refused.contains("too many attempts"), "as from any device: {refused}");
}

#[test]
fn a_name_that_exists_is_heard_as_often_and_told_the_same_as_one_that_does_not() {
    with_controller(|rpc| async move {
        // Alice has signed in from this very address.
        sign_in(&rpc, "alice", PASSWORD, None).await.unwrap();
        for name in ["alice", "nobody"] {
            let began = tokio::time::Instant::now();
            let (heard, told) = guess(&rpc, name).await;
            // Six at once and then one in ten seconds: on a busy machine the guesses themselves take so long.
            let meanwhile = usize::try_from(began.elapsed().as_secs() / 10).unwrap();
            assert!((6..=6 + meanwhile).contains(&heard), "{name}: {heard}, {meanwhile} of them meanwhile");
            assert_eq!(told, "the user name or the password is wrong");
        }
    });
}
