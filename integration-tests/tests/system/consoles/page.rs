//! What a person sees of a console in a real browser, on the controller's own page.

use horcrux_integration_tests::{Browser, Manner, wait_until};
use serde_json::{Value, json};

use super::scene::{Scene, WEB};

/// Waits until the console's tab is as `look` wants it.
pub(crate) fn shown(browser: &mut Browser, what: &str, look: impl Fn(&Value) -> bool) -> Value {
    wait_until(what, || {
        let shown = browser.ask("shown")?;
        anyhow::ensure!(look(&shown), "{shown}");
        Ok(shown)
    })
    .unwrap()
}

pub(crate) fn stage(browser: &mut Browser, stage: &str) -> Value {
    shown(browser, stage, |shown| shown["stage"] == stage)
}

pub(crate) fn line(browser: &mut Browser, text: &str) {
    wait_until(text, || {
        let seen = browser.ask("terminal")?;
        let has = seen["lines"].as_array().is_some_and(|lines| lines.iter().any(|line| line == text));
        anyhow::ensure!(has, "{seen}");
        Ok(())
    })
    .unwrap();
}

/// The administrator ends the one console that is open.
fn end(scene: &Scene) {
    let all = scene.admin.json(&["console", "list"]).unwrap();
    let name = all[0]["name"].as_str().unwrap().trim_start_matches("consoles/").to_owned();
    scene.admin.done(&["console", "end", &name, "--yes"]).unwrap();
}

#[test]
fn a_vms_row_leads_to_its_console_and_what_is_typed_there_reaches_it() {
    let scene = Scene::new();
    let mut browser = Browser::open(&scene.controller).unwrap();
    let row = format!("vms/{WEB}");
    wait_until("the VM on the page", || browser.row(&row).map(drop)).unwrap();
    assert_eq!(browser.ask("audit").unwrap()["violations"], json!([]), "with links to consoles");
    let at = browser.ask(&format!("sit {WEB}")).unwrap();
    assert_eq!(at["path"], format!("/vms/{WEB}/console"));
    let screen = stage(&mut browser, "open");
    assert_eq!((screen["vm"].as_str(), screen["node"].as_str()), (Some("web1"), Some("on here")), "{screen}");
    browser.ask("rise").unwrap();

    browser.ask(&format!("console {WEB} serial")).unwrap();
    stage(&mut browser, "open");
    browser.ask("keys uname -a\\n").unwrap();
    scene.opened("what was typed", |opened| opened.told.ends_with(b"uname -a\r"));
    scene.opened("a line", |opened| opened.say(b"\r\nLinux web1\r\n").is_ok());
    line(&mut browser, "Linux web1");
    assert_eq!(browser.ask("violations").unwrap()["violations"], json!([]));
    assert_eq!(
        browser.ask("read").unwrap()["problems"],
        json!([]),
        "with the policy of the console's document"
    );
}

#[test]
fn a_console_says_why_it_ended_and_comes_back_where_it_may() {
    let mut scene = Scene::new();
    let mut browser = Browser::open(&scene.controller).unwrap();
    browser.ask(&format!("console {WEB} serial")).unwrap();
    stage(&mut browser, "open");

    end(&scene);
    let over = stage(&mut browser, "ended");
    assert_eq!(
        (over["ending"].as_str(), over["focus"].as_str()),
        (Some("ended"), Some("Try again")),
        "{over}"
    );
    browser.ask("press Enter").unwrap();
    stage(&mut browser, "open");

    scene.node_behaves(Manner::Forbids);
    end(&scene);
    stage(&mut browser, "ended");
    scene.opened("the VM's side to be over", |opened| opened.is_over);
    browser.ask("again").unwrap();
    let refused = shown(&mut browser, "a refusal", |shown| shown["ending"] == "refused");
    assert!(refused["over"].as_str().unwrap().contains("observe"), "{refused}");
    scene.node_behaves(Manner::Obeys);
    browser.ask("again").unwrap();
    stage(&mut browser, "open");

    scene.restart();
    scene.opened("it to be opened anew", |_| true);
    stage(&mut browser, "open");
    browser.ask("keys after\\n").unwrap();
    scene.opened("what was typed after the restart", |opened| opened.told.ends_with(b"after\r"));
}

#[test]
fn whose_session_is_over_signs_in_and_comes_back_to_the_console() {
    let scene = Scene::new();
    let mut browser = Browser::open(&scene.controller).unwrap();
    browser.ask(&format!("console {WEB} serial")).unwrap();
    stage(&mut browser, "open");
    browser.ask("leave").unwrap();
    let over = stage(&mut browser, "ended");
    assert_eq!(
        (over["ending"].as_str(), over["focus"].as_str()),
        (Some("session"), Some("Sign in")),
        "{over}"
    );
    browser.ask(&format!("back admin {}", scene.controller.path("password"))).unwrap();
    let back = stage(&mut browser, "open");
    assert!(back["title"].as_str().unwrap().contains("serial line"), "{back}");
}
