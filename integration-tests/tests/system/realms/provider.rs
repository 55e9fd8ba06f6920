//! People whom an OpenID provider vouches for.

use std::process::Output;

use horcrux_integration_tests::{Browser, Client, Controller};
use horcrux_test_parts::{Claims, Provider, agree, free_port};

use super::{NOT_SIGNED_IN, Secrets, entered, let_see, nodes, said, sees, sees_live_data, whoami};

/// A provider, and a controller that has it as the realm `sso`. The provider must know where browsers come back to, so the
/// controller's port is chosen first.
fn with_provider(secrets: &Secrets, claims: Claims) -> (Provider, Controller) {
    let port = free_port().unwrap();
    let provider = Provider::start(&format!("https://127.0.0.1:{port}/oidc/sso"), claims).unwrap();
    let (id, secret) = Provider::CLIENT;
    let (issuer, authorities) = (&provider.issuer, provider.authorities());
    let secret = secrets.put("client-secret", secret);
    let settings = format!(
        "[realm.sso]\nkind = \"oidc\"\ntitle = \"Single sign-on\"\nissuer = {issuer:?}\nca_file = {authorities:?}\n\
         client_id = {id:?}\nclient_secret_file = {secret:?}\nscopes = [\"openid\", \"profile\", \"groups\"]\n\
         groups_claim = \"groups\"\n"
    );
    let controller = Controller::start_on(port, &settings).unwrap();
    (provider, controller)
}

/// By the device flow; `user` is who opens the address and agrees.
fn login(client: &Client, provider: &Provider, user: &str) -> anyhow::Result<Output> {
    client.login_at_provider("sso", |address| {
        let authorities = provider.authorities();
        tokio::runtime::Runtime::new()?.block_on(agree(address, &authorities, user)).map(drop)
    })
}

#[test]
fn a_person_signs_in_with_a_device_code_and_brings_their_groups() {
    let secrets = Secrets::new();
    let (provider, controller) = with_provider(&secrets, Claims::Userinfo);
    let _agent = controller.joined("here").unwrap();
    let_see(&controller, "admins@sso");
    let (alice, bob) = (controller.client("alice").unwrap(), controller.client("bob").unwrap());
    entered(login(&alice, &provider, "alice"));
    let me = whoami(&alice);
    assert_eq!((&me["user"], &me["groups"]), (&"alice@sso".into(), &serde_json::json!(["admins@sso"])));
    assert_eq!(nodes(&alice), ["nodes/here"]);
    entered(login(&bob, &provider, "bob"));
    assert_eq!(whoami(&bob)["groups"], serde_json::json!([]));
    assert_eq!(nodes(&bob), [""; 0]);
}

#[test]
fn another_person_of_the_same_name_does_not_become_the_first() {
    let secrets = Secrets::new();
    let (provider, controller) = with_provider(&secrets, Claims::Token);
    let (alice, other) = (controller.client("alice").unwrap(), controller.client("other").unwrap());
    entered(login(&alice, &provider, "alice"));
    let (code, text) = said(&login(&other, &provider, "alice-too").unwrap());
    assert_eq!(code, Some(NOT_SIGNED_IN), "{text}");
    assert!(text.contains("the provider confirmed who you are, but"), "nobody typed a password: {text}");
    assert_eq!(said(&other.ctl(&["whoami"]).unwrap()).0, Some(NOT_SIGNED_IN));
    let log = controller.daemon.log();
    assert!(log.contains("the name belongs to another person of the realm"), "{log}");
    // The first is still who they were, and a disabled one is out.
    entered(login(&alice, &provider, "alice"));
    assert_eq!(whoami(&alice)["user"], "alice@sso");
    controller.json(&["user", "disable", "alice@sso", "--yes"]).unwrap();
    let (code, text) = said(&login(&alice, &provider, "alice").unwrap());
    assert_eq!(code, Some(NOT_SIGNED_IN), "{text}");
}

#[test]
fn a_browser_goes_to_the_provider_and_comes_back_signed_in() {
    let secrets = Secrets::new();
    let (_provider, controller) = with_provider(&secrets, Claims::Token);
    let _agent = controller.joined("here").unwrap();
    let_see(&controller, "admins@sso");
    let mut browser = Browser::at_the_door(&controller).unwrap();
    browser.ask("provider sso alice").unwrap();
    sees_live_data(&mut browser, "alice@sso");
    assert_eq!(browser.ask("look").unwrap()["path"], "/", "what the provider said has left the address");
    assert_eq!(browser.row("nodes/here").unwrap()["resource"], "nodes/here");
    browser.ask("reload").unwrap();
    sees_live_data(&mut browser, "alice@sso");
}

#[test]
fn a_browser_that_comes_back_with_another_state_is_refused() {
    let secrets = Secrets::new();
    let (_provider, controller) = with_provider(&secrets, Claims::Token);
    let mut browser = Browser::at_the_door(&controller).unwrap();
    browser.ask("provider sso alice wrong").unwrap();
    let page = sees(&mut browser, "a refusal", |page| page["trouble"] != "");
    let trouble = page["trouble"].as_str().unwrap();
    assert!(trouble.contains("he provider did not confirm who you are"), "{trouble}");
    assert_eq!((&page["path"], &page["user"]), (&"/".into(), &"".into()), "{page}");
    let log = controller.daemon.log();
    assert!(log.contains("the answer belongs to another sign-in"), "{log}");
    let users = controller.json(&["user", "list"]).unwrap();
    assert!(!users.to_string().contains("alice@sso"), "{users}");
}
