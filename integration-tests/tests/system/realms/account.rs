//! One's own account, in a browser.

use horcrux_integration_tests::{Browser, Controller};

use super::{NOT_SIGNED_IN, entered, pictures, said, whoami};

#[test]
fn a_session_is_ended_from_the_account_page_and_its_client_is_out() {
    let controller = Controller::start().unwrap();
    let elsewhere = controller.client("elsewhere").unwrap();
    entered(elsewhere.login("admin", "correct horse battery"));
    let session = whoami(&elsewhere)["session"].as_str().unwrap().to_owned();
    let mut browser = Browser::open(&controller).unwrap();
    browser.ask("account").unwrap();
    let listed = browser.ask("sessions").unwrap();
    let listed = listed["sessions"].as_array().unwrap();
    assert_eq!(listed.len(), 3, "the first sign-in, the one elsewhere and this one: {listed:?}");
    let current: Vec<bool> = listed.iter().map(|one| one["current"].as_bool().unwrap()).collect();
    assert_eq!(current, [true, false, false]);
    let theirs = listed.iter().find(|one| one["id"] == session.as_str()).unwrap();
    let text = theirs["text"].as_str().unwrap();
    assert!(text.contains("horcruxctl") && text.contains("from 127.0.0.1"), "{text}");
    pictures(&mut browser, "account");

    let left = browser.ask(&format!("end {session}")).unwrap();
    assert_eq!(left["sessions"].as_array().unwrap().len(), 2, "{left}");
    let (code, text) = said(&elsewhere.ctl(&["whoami"]).unwrap());
    assert_eq!(code, Some(NOT_SIGNED_IN), "{text}");
    let (code, text) = said(&controller.ctl(&["whoami"]).unwrap());
    assert_eq!(code, Some(0), "{text}");
}
