//! What a guest sees in a browser that has nothing of anybody's, and how somebody lets one in.

use horcrux_integration_tests::Browser;
use serde_json::json;

use super::page::{line, shown, stage};
use super::scene::{Scene, WEB};

#[test]
fn somebody_shares_a_console_and_a_guest_without_an_account_uses_it_until_the_link_is_revoked() {
    let scene = Scene::new();
    let mut host = Browser::open(&scene.controller).unwrap();
    host.ask(&format!("console {WEB} vnc")).unwrap();
    stage(&mut host, "open");
    // With the keyboard alone.
    let made = host.ask("share serial control the vendor").unwrap();
    assert_eq!(made["kind"], "serial");
    assert!(made["said"][0].as_str().unwrap().contains("the vendor"), "{made}");
    assert_eq!(host.ask("violations").unwrap()["violations"], json!([]), "with the form");

    let mut guest = Browser::at_the_door(&scene.controller).unwrap();
    guest.ask(&format!("guest {}", made["link"].as_str().unwrap())).unwrap();
    let open = stage(&mut guest, "open");
    assert_eq!((open["vm"].as_str(), open["canType"].as_bool()), (Some("web1"), Some(true)), "{open}");
    assert!(open["guest"].as_str().unwrap().starts_with("You are a guest of admin@local until"), "{open}");
    // The secret is out of the address, which still opens the page in this browser.
    let address = guest.ask("address").unwrap()["address"].as_str().unwrap().to_owned();
    let id = address.strip_prefix("/guest#").unwrap();
    assert_eq!(id.len(), 12, "{address}");
    guest.ask("keys uname\\n").unwrap();
    scene.opened("what was typed", |opened| opened.told.ends_with(b"uname\r"));
    scene.opened("a line", |opened| opened.say(b"\r\nLinux web1\r\n").is_ok());
    line(&mut guest, "Linux web1");
    assert_eq!(guest.ask("violations").unwrap()["violations"], json!([]));
    guest.ask("renew").unwrap();
    stage(&mut guest, "open");
    assert_eq!(guest.ask("address").unwrap()["address"], address.as_str());
    assert_eq!(guest.ask("size 390 844").unwrap()["overflow"], 0);

    host.ask(&format!("revoke {id}")).unwrap();
    let over = stage(&mut guest, "ended");
    assert_eq!(over["ending"], "session", "{over}");
    let words = over["over"].as_str().unwrap();
    assert!(words.contains("The link has ended") && words.contains("taken back"), "{over}");
    assert!(!words.contains("Sign in"), "{over}");
    assert_eq!(
        guest.ask("problems").unwrap()["problems"],
        json!([]),
        "with the policy of the guest's document"
    );
    let held = shown(&mut host, "the host alone", |shown| shown["stage"] == "open");
    assert_eq!(held["ending"], "");
}
