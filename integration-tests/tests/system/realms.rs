//! Signing in through real parts, from the command line and from a browser, at a real controller.

mod account;
mod directory;
mod factor;
mod provider;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use horcrux_integration_tests::{Browser, Client, Controller, Pam, wait_until};
use horcrux_test_parts::Slapd;
use horcrux_transport::clock;
use serde_json::Value;

/// Exit codes of the command line client.
const FAILED: i32 = 1;
const NOT_SIGNED_IN: i32 = 3;

/// What settings name and a controller reads: gone with the test.
struct Secrets(tempfile::TempDir);

impl Secrets {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, text: &str) -> String {
        let file = self.0.path().join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        file.display().to_string()
    }
}

/// A directory as the realm `corp`, with `more` said of it.
fn corp(slapd: &Slapd, secrets: &Secrets, url: &str, more: &str) -> String {
    let password = secrets.put("bind", "service-pw\n");
    let authorities = slapd.authorities();
    format!(
        "[realm.corp]\nkind = \"ldap\"\ntitle = \"Company directory\"\nurls = [{url:?}]\nca_file = {authorities:?}\n\
         bind_dn = \"cn=service,dc=test\"\nbind_password_file = {password:?}\nuser_base = \"ou=people,dc=test\"\n\
         group_base = \"ou=groups,dc=test\"\n{more}\n"
    )
}

/// The code and what was said.
fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[track_caller]
fn entered(output: anyhow::Result<Output>) {
    let (code, text) = said(&output.unwrap());
    assert_eq!(code, Some(0), "{text}");
}

/// What everybody hears who is refused.
#[track_caller]
fn refused(controller: &Controller, output: anyhow::Result<Output>) {
    let url = controller.url();
    let all = format!("error: sign-in to {url} was refused: the user name or the password is wrong\n");
    assert_eq!(said(&output.unwrap()), (Some(NOT_SIGNED_IN), all));
}

fn nodes(client: &Client) -> Vec<String> {
    let list = client.json(&["node", "list"]).unwrap();
    list.as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap().to_owned()).collect()
}

fn whoami(client: &Client) -> Value {
    client.json(&["whoami"]).unwrap()
}

/// Makes a group that stands for a realm's, whose members see everything.
fn let_see(controller: &Controller, group: &str) {
    controller.json(&["group", "create", group]).unwrap();
    controller.json(&["grant", "create", "--group", group, "--role", "Auditor", "--path", "/"]).unwrap();
}

/// Waits until the page is as `is` says.
#[track_caller]
fn sees(browser: &mut Browser, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait_until(what, || {
        let seen = browser.ask("look")?;
        anyhow::ensure!(is(&seen), "{seen}");
        Ok(seen)
    })
    .unwrap()
}

#[track_caller]
fn sees_live_data(browser: &mut Browser, user: &str) {
    sees(browser, &format!("live data for {user}"), |page| {
        page["connection"] == "live" && page["user"].as_str().unwrap().ends_with(&format!(" {user}"))
    });
}

/// In light and dark, on a wide screen and a phone: pictures to look at, and what can be checked without eyes.
fn pictures(browser: &mut Browser, name: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/screenshots");
    fs::create_dir_all(&dir).unwrap();
    let looks = [
        ("phone", 360, 800, "light"),
        ("phone-dark", 360, 800, "dark"),
        ("dark", 1440, 900, "dark"),
        ("wide", 1440, 900, "light"),
    ];
    for (look, width, height, scheme) in looks {
        let file = dir.join(format!("{name}-{look}.png"));
        let taken = browser.ask(&format!("screenshot {} {width} {height} {scheme}", file.display())).unwrap();
        assert!(taken["overflow"].as_i64() <= Some(0), "{name} is wider than {width}: {taken}");
        let found = browser.ask("audit").unwrap();
        assert_eq!(found["violations"], serde_json::json!([]), "{name}, {look}");
    }
}

#[test]
fn pam_lets_a_good_user_in_and_all_others_hear_the_same() {
    let pam = Pam::start().unwrap();
    let settings = format!("[realm.host]\nkind = \"pam\"\nsocket = {:?}\n", pam.socket());
    let controller = Controller::start_with(&settings).unwrap();
    let good = controller.client("good").unwrap();
    entered(good.login("hxgood@host", Pam::PASSWORD));
    assert_eq!(whoami(&good)["user"], "hxgood@host");
    assert_eq!(nodes(&good), [""; 0], "who was given nothing sees nothing");

    let other = controller.client("other").unwrap();
    let turned_away = |user: &str, password: &str| {
        let began = clock::monotonic();
        refused(&controller, other.login(user, password));
        let took = began.elapsed();
        assert!(took.as_secs() >= 4, "{user}: {took:?}");
    };
    turned_away("hxgood@host", "a wrong password");
    for user in ["hxexpired@host", "hxlocked@host", "hxmustchange@host", "hxnobody@host"] {
        turned_away(user, Pam::PASSWORD);
    }
    controller.json(&["user", "disable", "hxgood@host", "--yes"]).unwrap();
    turned_away("hxgood@host", Pam::PASSWORD);
    let (code, _) = said(&good.ctl(&["whoami"]).unwrap());
    assert_eq!(code, Some(NOT_SIGNED_IN), "the session from before is over");
    let log = pam.daemon.log();
    assert!(log.contains("account expired"), "{log}");

    drop(pam);
    let (code, text) = said(&other.login("hxgood2@host", Pam::PASSWORD).unwrap());
    assert_eq!(code, Some(FAILED), "{text}");
    assert!(text.contains("the realm host can't be reached now"), "{text}");
}
