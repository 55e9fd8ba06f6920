//! A directory's people.

use std::time::Duration;

use horcrux_integration_tests::{Browser, Controller};
use horcrux_proto::v1::SignInRequest;
use horcrux_proto::v1::auth_service_client::AuthServiceClient;
use horcrux_test_parts::{Slapd, Tls};
use horcrux_transport::client::{Target, Trust, connect};
use horcrux_transport::clock;
use tonic::{Code, Status};

use super::{
    FAILED, Secrets, corp, entered, let_see, nodes, pictures, refused, said, sees, sees_live_data, whoami,
};

/// What the controller answers to a name and a password, said by no client of ours.
fn answered(controller: &Controller, user: &str, realm: &str, password: &str) -> Result<(), Status> {
    let target = Target { host: "127.0.0.1".to_owned(), port: controller.public_port };
    let trust = Trust::Pinned(controller.fingerprint().unwrap().trim().parse().unwrap());
    let (username, realm, password) = (user.to_owned(), realm.to_owned(), password.to_owned());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let channel = connect(&target, &trust, Duration::from_secs(30)).await.unwrap();
        let request = SignInRequest { username, password, realm, device: None };
        AuthServiceClient::new(channel).sign_in(request).await.map(drop)
    })
}

#[test]
fn a_directorys_groups_give_what_their_roles_allow_until_it_takes_them_away() {
    let mut slapd = Slapd::start(Tls::Newest).unwrap();
    let secrets = Secrets::new();
    let controller = Controller::start_with(&corp(&slapd, &secrets, &slapd.ldaps(), "")).unwrap();
    let _agent = controller.joined("here").unwrap();
    let alice = controller.client("alice").unwrap();
    entered(alice.login("alice@corp", "alice-pw"));
    assert_eq!(whoami(&alice)["groups"], serde_json::json!([]), "nobody made that group here yet");
    assert_eq!(nodes(&alice), [""; 0]);

    let_see(&controller, "admins@corp");
    assert_eq!(nodes(&alice), [""; 0], "who is in a group is asked at a sign-in");
    entered(alice.login("alice@corp", "alice-pw"));
    let me = whoami(&alice);
    assert_eq!((&me["user"], &me["groups"][0]), (&"alice@corp".into(), &"admins@corp".into()), "{me}");
    assert_eq!(me["roles"], serde_json::json!(["Auditor"]));
    assert_eq!(nodes(&alice), ["nodes/here"]);
    let bob = controller.client("bob").unwrap();
    entered(bob.login("bob@corp", "bob-pw"));
    assert_eq!(whoami(&bob)["groups"], serde_json::json!([]));
    assert_eq!(nodes(&bob), [""; 0]);

    slapd
        .change(
            "dn: cn=admins,ou=groups,dc=test\nchangetype: modify\ndelete: member\n\
             member: uid=alice,ou=people,dc=test\n",
        )
        .unwrap();
    let again = controller.client("again").unwrap();
    entered(again.login("alice@corp", "alice-pw"));
    assert_eq!(whoami(&again)["groups"], serde_json::json!([]));
    assert_eq!(nodes(&again), [""; 0]);
    assert_eq!(nodes(&alice), [""; 0], "nor in the session from before");

    // Nobody here did it, and it is on record.
    let rows = controller.json(&["audit", "list", "--resource", "users/alice@corp"]).unwrap();
    let told: Vec<&str> =
        rows.as_array().unwrap().iter().rev().map(|row| row["detail"].as_str().unwrap()).collect();
    let groups = "groups, by the realm: joined";
    let expected = [
        "first sign-in",
        &format!("{groups}: admins@corp; left: "),
        &format!("{groups}: ; left: admins@corp"),
    ];
    assert_eq!(told, expected);
    let row = &rows[0];
    assert_eq!((&row["actor"], &row["source"]), (&"alice@corp".into(), &"127.0.0.1".into()), "{row}");
}

#[test]
fn whatever_a_sign_in_is_refused_for_it_is_refused_alike() {
    let slapd = Slapd::start(Tls::Newest).unwrap();
    let secrets = Secrets::new();
    let controller = Controller::start_with(&corp(&slapd, &secrets, &slapd.ldaps(), "")).unwrap();
    let (alice, other) = (controller.client("alice").unwrap(), controller.client("other").unwrap());
    entered(alice.login("alice@corp", "alice-pw"));
    controller.json(&["user", "disable", "alice@corp", "--yes"]).unwrap();
    for (user, password) in [
        ("bob@corp", "wrong"),
        ("nobody@corp", "nobody-pw"),
        ("alice@corp", "alice-pw"),
        ("alice@corp", "wrong"),
        ("disabled@corp", "disabled-pw"),
        ("locked@corp", "locked-pw"),
        ("twin@corp", "twin-pw"),
        ("alice@elsewhere", "alice-pw"),
        ("nobody@local", "nobody-pw"),
        ("admin@local", "wrong"),
        ("*@corp", "alice-pw"),
    ] {
        println!("{user} with {password}");
        refused(&controller, other.login(user, password));
    }
    // Nor does the time tell: none comes before it could be any of them.
    for (user, password) in
        [("bob", "wrong"), ("nobody", "nobody-pw"), ("alice", "alice-pw"), ("disabled", "disabled-pw")]
    {
        let began = clock::monotonic();
        answered(&controller, user, "corp", password).unwrap_err();
        let took = began.elapsed();
        assert!(took.as_secs() >= 2, "{user}: {took:?}");
    }
    controller.json(&["user", "enable", "alice@corp"]).unwrap();
    entered(alice.login("alice@corp", "alice-pw"));

    // A directory would take it for a visitor without a name, and let that in.
    for realm in ["corp", "local"] {
        let status = answered(&controller, "bob", realm, "").unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{realm}: {status}");
        assert_eq!(status.message(), "the user name or the password is wrong");
    }
    answered(&controller, "bob", "corp", "bob-pw").unwrap();
    let (code, text) = said(&other.login("bob@corp", "").unwrap());
    assert_eq!(code, Some(FAILED), "{text}");
}

#[test]
fn a_directory_is_asked_over_starttls() {
    let slapd = Slapd::start(Tls::Newest).unwrap();
    let secrets = Secrets::new();
    let settings = corp(&slapd, &secrets, &slapd.ldap(), "start_tls = true");
    let controller = Controller::start_with(&settings).unwrap();
    let alice = controller.client("alice").unwrap();
    entered(alice.login("alice@corp", "alice-pw"));
    assert_eq!(whoami(&alice)["user"], "alice@corp");
    refused(&controller, alice.login("alice@corp", "bob-pw"));
}

#[test]
fn a_directory_that_is_down_is_said_to_be_and_local_users_sign_in() {
    let mut slapd = Slapd::start(Tls::Newest).unwrap();
    let secrets = Secrets::new();
    let controller = Controller::start_with(&corp(&slapd, &secrets, &slapd.ldaps(), "")).unwrap();
    slapd.stop();
    let alice = controller.client("alice").unwrap();
    let (code, text) = said(&alice.login("alice@corp", "alice-pw").unwrap());
    assert_eq!(code, Some(FAILED), "{text}");
    assert!(text.starts_with("error: the realm corp can't be reached now\n"), "{text}");
    entered(controller.client("local").unwrap().login("admin", "correct horse battery"));
    slapd.run().unwrap();
    entered(alice.login("alice@corp", "alice-pw"));
}

#[test]
fn a_person_of_the_directory_signs_in_from_a_browser_by_choosing_the_realm() {
    let slapd = Slapd::start(Tls::Newest).unwrap();
    let secrets = Secrets::new();
    let controller = Controller::start_with(&corp(&slapd, &secrets, &slapd.ldaps(), "")).unwrap();
    let _agent = controller.joined("here").unwrap();
    let_see(&controller, "admins@corp");
    let mut browser = Browser::at_the_door(&controller).unwrap();
    pictures(&mut browser, "sign-in");
    let password = secrets.put("alice", "alice-pw");
    // The local realm comes first, and has no alice.
    browser.ask(&format!("password local alice {password}")).unwrap();
    sees(&mut browser, "a refusal", |page| {
        page["trouble"].as_str().unwrap().contains("he user name or the password is wrong")
    });
    browser.ask(&format!("password corp alice {password}")).unwrap();
    sees_live_data(&mut browser, "alice@corp");
    assert_eq!(browser.row("nodes/here").unwrap()["resource"], "nodes/here");

    browser.ask("leave").unwrap();
    let password = secrets.put("bob", "bob-pw");
    // The realm that was chosen last is still chosen.
    browser.ask(&format!("password - bob {password}")).unwrap();
    sees(&mut browser, "that nothing is granted", |page| {
        page["user"].as_str().unwrap().ends_with(" bob@corp")
            && page["heading"].as_str().unwrap().contains("Nothing is granted to you yet")
    });
    pictures(&mut browser, "nothing-granted");
}
