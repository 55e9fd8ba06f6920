//! `auth why` and `auth what-if` say what is so, and what would be.

use horcrux_integration_tests::wait_until;
use serde_json::{Value, json};

use super::scene::{OTHER, Scene, WEB};

fn why(scene: &Scene, privilege: &str, path: &str) -> Value {
    scene.admin.json(&["auth", "why", "bob", privilege, path]).unwrap()
}

/// Whether it is allowed, by what bob sees for himself too, and the paths of the grants that decided.
fn decided(scene: &Scene, name: &str) -> (bool, Vec<String>) {
    let told = why(scene, "VmAudit", &format!("/vms/{name}"));
    let allowed = told["allowed"].as_bool().unwrap();
    assert_eq!(scene.bob.ctl(&["vm", "get", name]).unwrap().status.success(), allowed, "{told}");
    let grants = told["grants"].as_array().unwrap();
    (allowed, grants.iter().map(|grant| grant["path"].as_str().unwrap().to_owned()).collect())
}

fn effects(told: &Value) -> Vec<(&str, &str)> {
    let text = |step: &'_ Value, key: &str| step[key].as_str().unwrap().to_owned().leak() as &str;
    told["steps"].as_array().unwrap().iter().map(|step| (text(step, "path"), text(step, "effect"))).collect()
}

fn by(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

#[test]
fn why_names_the_pool_the_tag_the_group_the_denial_and_the_end() {
    let scene = Scene::new();
    assert_eq!(decided(&scene, "web1"), (false, vec![]));
    scene.grant("VmUser", "/pools/web");
    assert_eq!(decided(&scene, "web1"), (true, by(&["/pools/web"])));
    assert_eq!(decided(&scene, "other1"), (false, vec![]));
    assert_eq!(why(&scene, "VmConfig", "/vms/web1")["allowed"], false, "no VmUser holds this");
    // By tag.
    scene.admin.done(&["tag", "add", "vms/other1", "qa"]).unwrap();
    scene.grant("VmUser", "/vms?tag=qa");
    assert_eq!(decided(&scene, "other1"), (true, by(&["/vms?tag=qa"])));
    scene.admin.done(&["tag", "remove", "vms/other1", "qa"]).unwrap();
    assert_eq!(decided(&scene, "other1"), (false, vec![]));
    // By group; an own entry stands in a group's place.
    scene.admin.done(&["group", "create", "ops"]).unwrap();
    scene.admin.done(&["group", "add", "ops", "bob"]).unwrap();
    scene.granted(&["--group", "ops", "--role", "VmUser", "--path", "/vms"]);
    assert_eq!(decided(&scene, "other1"), (true, by(&["/vms"])));
    let told = why(&scene, "VmAudit", "/vms/other1");
    assert_eq!(told["steps"][0]["subject"], "group ops", "{told}");
    let own = scene.grant("StorageAdmin", "/vms");
    assert!(!decided(&scene, "other1").0);
    let told = why(&scene, "VmAudit", "/vms/other1");
    assert!(effects(&told).contains(&("/vms", "overridden")), "{told}");
    assert!(effects(&told).contains(&("/vms", "lacks")), "{told}");
    scene.revoke(&own);
    // A denial is sticky, though the pool allows.
    let deny = scene.grant("NoAccess", "/vms");
    assert_eq!(decided(&scene, "web1"), (false, by(&["/vms"])));
    assert!(effects(&why(&scene, "VmAudit", "/vms/web1")).contains(&("/vms", "denies")));
    scene.revoke(&deny);
    assert!(decided(&scene, "web1").0);
}

#[test]
fn why_tells_of_a_grant_that_has_ended_or_does_not_reach_below() {
    let scene = Scene::new();
    scene.granted(&["--user", "bob", "--role", "VmUser", "--path", "/vms", "--no-propagate"]);
    scene.granted(&["--user", "bob", "--role", "Auditor", "--path", "/", "--not-after", "2s"]);
    let told = wait_until("the grant's end", || {
        let told = why(&scene, "VmAudit", "/vms/web1");
        anyhow::ensure!(effects(&told).contains(&("/", "expired")), "{told}");
        Ok(told)
    })
    .unwrap();
    assert_eq!(told["allowed"], false);
    assert!(effects(&told).contains(&("/vms", "not_propagated")), "{told}");
    assert_eq!(decided(&scene, "web1"), (false, vec![]));
}

/// What bob would gain and lose on one resource.
fn change<'a>(told: &'a Value, resource: &str) -> Option<(&'a Value, &'a Value)> {
    let is_bobs = |change: &&Value| change["principal"] == "bob@local" && change["resource"] == resource;
    told["changes"].as_array()?.iter().find(is_bobs).map(|change| (&change["gained"], &change["lost"]))
}

#[test]
fn what_if_tells_who_would_gain_and_lose_what_and_changes_nothing() {
    let scene = Scene::new();
    let (web, other) = (format!("/vms/{WEB}"), format!("/vms/{OTHER}"));
    let user = json!(["VmAudit", "ContainerAudit", "VmPowerMgmt", "VmConsole"]);
    let what_if = |args: &[&str]| scene.admin.json(&[&["auth", "what-if"], args].concat()).unwrap();
    let sorted = |list: &Value| {
        let mut names: Vec<String> =
            list.as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let told = what_if(&["--grant", "bob=VmUser@/pools/web"]);
    let (gained, lost) = change(&told, &web).unwrap();
    assert_eq!((sorted(gained), lost), (sorted(&user), &json!([])), "{told}");
    assert_eq!(change(&told, &other), None);
    assert_eq!(decided(&scene, "web1"), (false, vec![]), "nothing changed");
    // As it was told, so it comes.
    let grant = scene.grant("VmUser", "/pools/web");
    assert!(decided(&scene, "web1").0);
    let told = what_if(&["--remove", &grant]);
    let (gained, lost) = change(&told, &web).unwrap();
    assert_eq!((gained, sorted(lost)), (&json!([]), sorted(&user)), "{told}");
    let told = what_if(&["--grant", "bob=NoAccess@/vms", "--grant", "bob=VmUser@/vms?tag=qa"]);
    let (gained, lost) = change(&told, &web).unwrap();
    assert_eq!(
        (gained, sorted(lost)),
        (&json!([]), sorted(&user)),
        "a denial takes what a pool gives: {told}"
    );
    // By a tag and a group.
    scene.admin.done(&["tag", "add", "vms/other1", "qa"]).unwrap();
    scene.admin.done(&["group", "create", "ops"]).unwrap();
    scene.admin.done(&["group", "add", "ops", "bob"]).unwrap();
    let told = what_if(&["--grant", "group:ops=Auditor@/vms?tag=qa"]);
    assert!(change(&told, &other).unwrap().0.as_array().unwrap().contains(&json!("VmAudit")), "{told}");
    assert_eq!(change(&told, &web), None);
    // What is there already changes nothing.
    assert_eq!(what_if(&["--grant", "bob=VmUser@/pools/web"])["changes"], json!([]));
    assert_eq!(scene.bob.ctl(&["auth", "what-if", "--remove", &grant]).unwrap().status.code(), Some(5));
    assert_eq!(scene.bob.ctl(&["auth", "why", "admin", "VmAudit", "/"]).unwrap().status.code(), Some(5));
    assert_eq!(
        scene.bob.json(&["auth", "why", "bob", "VmAudit", &web]).unwrap()["allowed"],
        true,
        "one's own"
    );
}
