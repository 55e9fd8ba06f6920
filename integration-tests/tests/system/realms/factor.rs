//! The second factor, from its making to its use.

use horcrux_integration_tests::{Authenticator, Browser, Controller};
use horcrux_test_parts::{Slapd, Tls};

use super::{NOT_SIGNED_IN, Secrets, corp, entered, let_see, pictures, said, sees, sees_live_data, whoami};

const PASSWORD: &str = "correct horse battery";

#[test]
fn a_second_factor_that_was_set_up_is_asked_for_everywhere_and_each_code_works_once() {
    let mut controller = Controller::start().unwrap();
    let admin = controller.client("admin").unwrap();
    let mut authenticator = None;
    let recovery = admin.set_up_factor(PASSWORD, |secret| {
        let mut made = Authenticator::new(secret)?;
        let code = made.code()?;
        authenticator = Some(made);
        Ok(code)
    });
    let (recovery, mut authenticator) = (recovery.unwrap(), authenticator.unwrap());
    assert_eq!(recovery.len(), 10);
    assert_eq!(whoami(&admin)["second_factor"], true);

    let other = controller.client("other").unwrap();
    let (code, text) = said(&other.login("admin", PASSWORD).unwrap());
    assert_ne!(code, Some(0), "{text}");
    assert!(text.contains("--second-factor-file"), "{text}");
    let used = authenticator.code().unwrap();
    entered(other.login_with_code("admin", PASSWORD, &used));

    let refused = format!(
        "error: sign-in to {} was refused: the code is wrong, or was used before\n",
        controller.url()
    );
    let replayed = other.login_with_code("admin", PASSWORD, &used).unwrap();
    assert_eq!(said(&replayed), (Some(NOT_SIGNED_IN), refused.clone()));
    controller.daemon.kill().unwrap();
    controller.restart().unwrap();
    let replayed = other.login_with_code("admin", PASSWORD, &used).unwrap();
    assert_eq!(said(&replayed), (Some(NOT_SIGNED_IN), refused.clone()), "after a restart");

    entered(other.login_with_code("admin", PASSWORD, &recovery[0]));
    let again = other.login_with_code("admin", PASSWORD, &recovery[0]).unwrap();
    assert_eq!(said(&again), (Some(NOT_SIGNED_IN), refused), "a recovery code works once");

    let secrets = Secrets::new();
    let password = secrets.put("admin", PASSWORD);
    let mut browser = Browser::at_the_door(&controller).unwrap();
    browser.ask(&format!("password - admin {password}")).unwrap();
    let page = sees(&mut browser, "that a code is asked for", |page| page["heading"] == "Second factor");
    assert_eq!(page["key"], "", "what there is is not shown again");
    pictures(&mut browser, "second-factor");
    browser.ask(&format!("code {used}")).unwrap();
    sees(&mut browser, "a refusal", |page| {
        page["trouble"].as_str().unwrap().contains("he code is wrong, or was used before")
    });
    browser.ask(&format!("code {}", authenticator.code().unwrap())).unwrap();
    sees_live_data(&mut browser, "admin@local");
}

#[test]
fn a_realm_that_requires_a_second_factor_has_the_browser_set_one_up() {
    let slapd = Slapd::start(Tls::Newest).unwrap();
    let secrets = Secrets::new();
    let settings = corp(&slapd, &secrets, &slapd.ldaps(), "second_factor = \"required\"");
    let controller = Controller::start_with(&settings).unwrap();
    let_see(&controller, "admins@corp");
    let password = secrets.put("alice", "alice-pw");
    let mut browser = Browser::at_the_door(&controller).unwrap();
    browser.ask(&format!("password corp alice {password}")).unwrap();
    let page = sees(&mut browser, "the key", |page| page["key"] != "");
    assert_eq!(page["heading"], "Set up a second factor");
    assert!(page["qr"].as_u64() > Some(1000), "too little for a code: {page}");
    pictures(&mut browser, "set-up-factor");
    let mut authenticator = Authenticator::new(page["key"].as_str().unwrap()).unwrap();
    let first = authenticator.code().unwrap();
    browser.ask(&format!("code {first}")).unwrap();
    let page = sees(&mut browser, "recovery codes", |page| page["recovery"][0].is_string());
    let codes: Vec<String> = serde_json::from_value(page["recovery"].clone()).unwrap();
    assert_eq!(codes.len(), 10, "{codes:?}");
    pictures(&mut browser, "recovery-codes");
    browser.ask("kept").unwrap();
    sees_live_data(&mut browser, "alice@corp");

    browser.ask("leave").unwrap();
    browser.ask(&format!("password corp alice {password}")).unwrap();
    sees(&mut browser, "that a code is asked for", |page| {
        page["heading"] == "Second factor" && page["key"] == ""
    });
    browser.ask(&format!("code {}", authenticator.code().unwrap())).unwrap();
    sees_live_data(&mut browser, "alice@corp");
    assert_eq!(browser.ask("look").unwrap()["recovery"], serde_json::json!([]), "they are shown once");

    let alice = controller.client("alice").unwrap();
    entered(alice.login_with_code("alice@corp", "alice-pw", &codes[0]));
    // The local realm requires none.
    entered(controller.client("local").unwrap().login("admin", PASSWORD));
}
