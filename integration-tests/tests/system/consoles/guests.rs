//! Guests: who was given a link opens one console with it, as long as the link stands and its maker may, and does nothing
//! else.

use std::time::Instant;

use horcrux_integration_tests::{Guest, Person, wait_until};
use horcrux_proto::authz::{Caller as Who, requirement};
use horcrux_proto::console::Notice;
use horcrux_proto::v1::guest_link_service_client::GuestLinkServiceClient;
use horcrux_proto::v1::{
    ConsoleKind, ConsoleMode, GuestLinkServiceCreateRequest, GuestLinkServiceCreateResponse,
};
use horcrux_transport::clock;
use serde_json::Value;
use tonic::{Code, Status};

use super::scene::{OTHER, Scene, WEB, ended};
use super::tickets::{WRONG, holds_none_of};
use crate::contract::{GATE, curl_all};

const NO_LINK: &str = "the guest link is wrong, was taken back, or has expired";

/// Bob may let others in at `web1`, by one more grant. Returns its id.
fn shares(scene: &Scene) -> String {
    scene.admin.done(&["role", "create", "Sharer", "--privilege", "PermissionsModify,VmConsole"]).unwrap();
    scene.grant("Sharer", &format!("/vms/{WEB}"))
}

fn made(
    by: &Person,
    request: GuestLinkServiceCreateRequest,
) -> Result<GuestLinkServiceCreateResponse, Status> {
    by.caller().unwrap().call(|wire| async { GuestLinkServiceClient::new(wire).create(request).await })
}

fn asked(mode: ConsoleMode) -> GuestLinkServiceCreateRequest {
    GuestLinkServiceCreateRequest {
        vm: WEB.to_owned(),
        kind: ConsoleKind::Serial.into(),
        mode: mode.into(),
        comment: "the vendor".to_owned(),
        ..GuestLinkServiceCreateRequest::default()
    }
}

/// A guest of bob's, who has opened the link and is not at the console yet.
fn guest(scene: &Scene, mode: ConsoleMode) -> Guest {
    let mut guest = Guest::new(&scene.controller).unwrap();
    guest.open(&made(&scene.bob, asked(mode)).unwrap().url).unwrap();
    guest
}

/// When `act` is done: a command's own start is not what is measured.
fn done(act: impl FnOnce()) -> Instant {
    act();
    clock::monotonic()
}

#[test]
fn a_guest_types_and_reads_or_only_reads_and_is_shown_as_whose_guest() {
    let scene = Scene::new();
    shares(&scene);
    let link = made(&scene.bob, asked(ConsoleMode::Control)).unwrap();
    let (origin, secret) = link.url.split_once("/guest#").unwrap();
    assert_eq!((origin, secret.len()), (scene.controller.url().as_str(), 47));
    let mut guest = Guest::new(&scene.controller).unwrap();
    let console = guest.open(&link.url).unwrap();
    assert_eq!((console.vm_display_name.as_str(), console.maker.as_str()), ("web1", "bob@local"));
    assert_eq!(
        (console.comment.as_str(), console.kind(), console.recorded),
        ("the vendor", ConsoleKind::Serial, false)
    );
    assert_eq!(guest.get().unwrap(), console, "a page that is reloaded");
    let viewer = guest.at_console().unwrap();
    viewer.bytes(b"uptime\n").unwrap();
    assert_eq!(viewer.read_until(b"uptime\n").unwrap(), b"uptime\n");
    let name = format!("guest {} of bob@local", console.name.replace('/', " ").replace("links", "link"));
    let opened = scene.opened("what was typed", |opened| opened.told == b"uptime\n");
    assert_eq!((opened.order.vm_uuid.as_str(), opened.envelope.actor.as_str()), (WEB, name.as_str()));

    // Who looks too is told whose guest it is, and what for.
    let bob = scene.at(ConsoleKind::Serial, ConsoleMode::View);
    let seen = bob.notice("the guest", |notice| {
        let Notice::Viewers { viewers } = notice else { return None };
        viewers.into_iter().find(|viewer| !viewer.is_you)
    });
    let seen = seen.unwrap();
    assert_eq!((seen.user.as_str(), seen.guest.as_deref()), (name.as_str(), Some("the vendor")));
    let listed = scene.bob.json(&["console", "list"]).unwrap();
    let listed =
        listed.as_array().unwrap().iter().find(|console| console["user"] == name.as_str()).unwrap().clone();
    assert_eq!(
        (&listed["guest"]["maker"], &listed["guest"]["comment"]),
        (&"bob@local".into(), &"the vendor".into())
    );

    // The maker ends it as their own.
    let id = listed["name"].as_str().unwrap();
    let began = done(|| drop(scene.bob.done(&["console", "end", id, "--yes"]).unwrap()));
    ended("ended by the maker", &viewer, 4412, "bob@local ended it", began);
    drop(bob);

    let looks = self::guest(&scene, ConsoleMode::View);
    let viewer = looks.at_console().unwrap();
    viewer.bytes(b"reboot\n").unwrap();
    let console = scene.opened("the line", |opened| !opened.is_over);
    wait_until("the VM to say something", || console.say(b"login: ")).unwrap();
    assert_eq!(viewer.read_until(b"login: ").unwrap(), b"login: ");
    scene.opened("nothing typed", |opened| opened.told.is_empty());

    let told = audit(&scene);
    let of =
        |detail: &str| told.iter().filter(|row| row["detail"].as_str().unwrap().starts_with(detail)).count();
    for (detail, times) in
        [("make links/", 4), ("open links/", 2), ("console ticket:", 6), ("open consoles/", 3)]
    {
        assert_eq!(of(detail), times, "{detail}: {told:#?}");
    }
    let by_guest =
        told.iter().find(|row| row["detail"].as_str().unwrap().starts_with("open links/")).unwrap();
    assert!(by_guest["source"].as_str().unwrap().starts_with("127."), "{by_guest}");
}

fn audit(scene: &Scene) -> Vec<Value> {
    scene.admin.json(&["audit", "list", "--limit", "200"]).unwrap().as_array().unwrap().clone()
}

#[test]
fn a_link_that_is_taken_back_or_opened_elsewhere_ends_the_console_and_one_that_expires_does_too() {
    let scene = Scene::new();
    shares(&scene);
    let guest = guest(&scene, ConsoleMode::Control);
    let viewer = guest.at_console().unwrap();
    let newer = guest.clone();
    let began = clock::monotonic();
    let at_it = newer.at_console().unwrap();
    ended("opened elsewhere", &viewer, 4411, "the guest link was opened elsewhere", began);
    // Another link is another guest's.
    let other = self::guest(&scene, ConsoleMode::View);
    let stays = other.at_console().unwrap();
    let began = done(|| drop(scene.bob.done(&["console", "link", "revoke", &guest.link, "--yes"]).unwrap()));
    ended("revoked", &at_it, 4401, "the guest link was taken back", began);
    assert_eq!(guest.ticket().unwrap_err().code(), Code::Unauthenticated);
    let console = scene.opened("the line", |opened| !opened.is_over);
    wait_until("the other guest to be there", || console.say(b"there\n")).unwrap();
    stays.read_until(b"there\n").unwrap();

    let short = GuestLinkServiceCreateRequest { ttl_seconds: 59, ..asked(ConsoleMode::View) };
    assert_eq!(made(&scene.bob, short).unwrap_err().code(), Code::InvalidArgument);
    // A minute is the shortest: the store is told that they are almost over. Two, half of what lies between two looks at
    // all links apart: one of them would end a second late, were it only looked at.
    let another = self::guest(&scene, ConsoleMode::View);
    let expires = [(&other, 1000), (&another, 2500)].map(|(guest, ms)| ends_in(&scene, &guest.link, ms));
    let viewers = [&other, &another].map(|guest| guest.at_console().unwrap());
    for (viewer, expires) in viewers.iter().zip(expires) {
        ended("expired", viewer, 4401, "the guest link has expired", expires);
    }
    assert_eq!(other.get().unwrap_err().message(), NO_LINK);
}

/// Makes a link end then, as the store has it. Returns when.
fn ends_in(scene: &Scene, link: &str, ms: i64) -> Instant {
    let file = scene.controller.state("control.db");
    let at = clock::unix_ms() + ms;
    let update = format!("UPDATE guest_links SET expires_ms = {at} WHERE id = '{link}'");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use sqlx::Connection as _;
        let mut store = sqlx::SqliteConnection::connect(&format!("sqlite:{file}")).await.unwrap();
        let done = sqlx::query(sqlx::AssertSqlSafe(update)).execute(&mut store).await.unwrap();
        assert_eq!(done.rows_affected(), 1);
    });
    clock::monotonic() + std::time::Duration::from_millis(u64::try_from(at - clock::unix_ms()).unwrap())
}

#[test]
fn a_guest_loses_the_console_with_what_the_maker_loses() {
    let scene = Scene::new();
    let grant = shares(&scene);
    let lose = |role: &str, privileges: &str| {
        done(|| drop(scene.admin.done(&["role", "update", role, "--privilege", privileges]).unwrap()))
    };
    let guest = guest(&scene, ConsoleMode::Control);
    // What VmUser holds is not to stand in for what is lost.
    let granted = scene.admin.json(&["grant", "list", "--user", "bob"]).unwrap();
    let user = granted.as_array().unwrap().iter().find(|grant| grant["role"] == "VmUser").unwrap();
    scene.admin.done(&["grant", "delete", user["id"].as_str().unwrap(), "--yes"]).unwrap();
    for lost in ["VmConsole", "PermissionsModify"] {
        let viewer = guest.at_console().unwrap();
        let began = lose("Sharer", if lost == "VmConsole" { "PermissionsModify" } else { "VmConsole" });
        ended(
            &format!("the maker lost {lost}"),
            &viewer,
            4403,
            "whoever made the guest link may no longer",
            began,
        );
        let refused = guest.ticket().unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        let refused = Guest::new(&scene.controller).unwrap().open("hxg_none").unwrap_err();
        assert_eq!(refused.message(), NO_LINK);
        lose("Sharer", "PermissionsModify,VmConsole");
    }
    let viewer = guest.at_console().unwrap();
    let began = done(|| drop(scene.admin.done(&["grant", "delete", &grant, "--yes"]).unwrap()));
    ended("the maker's grant was deleted", &viewer, 4403, "whoever made the guest link", began);
    scene.grant("Sharer", &format!("/vms/{WEB}"));
    let viewer = guest.at_console().unwrap();
    let began = done(|| drop(scene.admin.done(&["user", "disable", "bob", "--yes"]).unwrap()));
    ended("the maker was disabled", &viewer, 4401, "ended with the account", began);
    assert_eq!(guest.get().unwrap_err().code(), Code::Unauthenticated);
}

#[test]
fn a_guest_is_recorded_as_their_maker_would_be_and_is_told() {
    let scene = Scene::new();
    shares(&scene);
    scene.admin.done(&["recording", "policy", "set", "roles/Sharer", "serial"]).unwrap();
    let guest = guest(&scene, ConsoleMode::View);
    assert!(guest.get().unwrap().recorded);
    let viewer = guest.viewer().unwrap();
    viewer.text(&guest.ticket().unwrap()).unwrap();
    let opened = |notice| if let Notice::Opened { recorded, .. } = notice { Some(recorded) } else { None };
    assert!(viewer.notice("the console", opened).unwrap());
    drop(viewer);
    let kept = wait_until("the recording", || {
        let kept = scene.admin.json(&["recording", "list"])?;
        anyhow::ensure!(kept[0]["ended_unix_ms"].is_i64(), "{kept}");
        Ok(kept)
    });
    let user = kept.unwrap()[0]["user"].as_str().unwrap().to_owned();
    assert_eq!(user, format!("guest link {} of bob@local", guest.link));
}

#[test]
fn what_an_api_token_made_goes_with_it() {
    let scene = Scene::new();
    shares(&scene);
    let token = scene.bob.json(&["token", "create", "--comment", "desk", "--full"]).unwrap();
    let caller = scene.bob.caller_with(token["secret"].as_str());
    let request = asked(ConsoleMode::Control);
    let link = caller.call(|wire| async { GuestLinkServiceClient::new(wire).create(request).await }).unwrap();
    let mut guest = Guest::new(&scene.controller).unwrap();
    guest.open(&link.url).unwrap();
    let viewer = guest.at_console().unwrap();
    let id = token["id"].as_str().unwrap();
    let began = done(|| drop(scene.bob.done(&["token", "revoke", id, "--yes"]).unwrap()));
    let (at, code, words) = viewer.end().unwrap();
    assert!(matches!(code, 4401 | 4403), "{code} {words}");
    assert!(at.saturating_duration_since(began) < std::time::Duration::from_secs(1));
    assert_eq!(guest.get().unwrap_err().message(), NO_LINK);
}

#[test]
fn a_guests_cookie_opens_no_other_rpc_and_a_session_none_of_a_guests() {
    let scene = Scene::new();
    shares(&scene);
    let guest = guest(&scene, ConsoleMode::Control);
    let all = horcrux_integration_tests::rpc::methods().into_iter().map(|(name, _)| name);
    let links = ["/horcrux.agent.v1.AgentLink/", "/horcrux.agent.v1.ConsoleLink/"];
    let closed: Vec<String> = all
        .filter(|name| !links.iter().any(|link| name.starts_with(link)))
        .filter(|name| !matches!(requirement(name).unwrap().caller, Who::Anyone | Who::Guest))
        .collect();
    assert!(closed.len() > 50, "{}", closed.len());
    let mut headers = guest.header_lines();
    headers.push("Content-Type: application/grpc-web+proto".to_owned());
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    for version in ["--http2", "--http1.1"] {
        let answers = curl_all(&scene.controller, version, &headers, &closed);
        assert_eq!(answers.len(), closed.len());
        for (path, (status, message)) in closed.iter().zip(&answers) {
            let by_gate = GATE.iter().any(|told| message.starts_with(told));
            assert!(by_gate && status == "16", "{version} {path}: {status} {message}");
        }
    }
    // The contract has two methods for guests.
    let open: Vec<&str> = horcrux_proto::authz::REQUIREMENTS
        .iter()
        .filter(|known| known.caller == Who::Guest)
        .map(|known| known.method)
        .collect();
    assert_eq!(open, ["/horcrux.v1.GuestLinkService/Get", "/horcrux.v1.GuestLinkService/CreateTicket"]);
    // Each is the guest's alone: of a foreign page, of another link, or with a cookie that is not the link's, nobody's.
    let wrong = |change: &dyn Fn(&mut Guest)| {
        let mut guest = guest.clone();
        change(&mut guest);
        assert!(guest.viewer().is_err());
        (guest.get().unwrap_err().code(), guest.ticket().unwrap_err().code())
    };
    for origin in ["https://evil.example", "null", &scene.controller.url().replace("https", "http")] {
        let foreign = wrong(&|guest| origin.clone_into(&mut guest.origin));
        assert_eq!(foreign, (Code::PermissionDenied, Code::PermissionDenied), "{origin}");
    }
    let other = self::guest(&scene, ConsoleMode::View);
    let unknown = (Code::Unauthenticated, Code::Unauthenticated);
    assert_eq!(wrong(&|guest| guest.link.clone_from(&other.link)), unknown);
    assert_eq!(wrong(&|guest| guest.link.clear()), unknown);
    assert_eq!(wrong(&|guest| guest.cookies.clear()), unknown);
    assert_eq!(
        wrong(&|guest| {
            let name = format!("__Host-hx-link-{}", guest.link);
            guest.cookies.insert(name, other.cookies.values().next().unwrap().clone());
        }),
        unknown
    );
    // A ticket is its own guest's and of its own link.
    let viewer = other.viewer().unwrap();
    viewer.text(&guest.ticket().unwrap()).unwrap();
    let (_, code, words) = viewer.end().unwrap();
    assert_eq!((code, words.as_str()), WRONG);
    // And a user's isn't a guest's.
    let viewer = guest.viewer().unwrap();
    viewer.text(&scene.ticket(ConsoleKind::Serial, ConsoleMode::Control)).unwrap();
    assert_eq!(viewer.end().unwrap().1, WRONG.0);
    let viewer = scene.caller().viewer().unwrap();
    viewer.text(&guest.ticket().unwrap()).unwrap();
    assert_eq!(viewer.end().unwrap().1, WRONG.0);
}

#[test]
fn wrong_links_are_answered_alike_and_slowed_down() {
    let scene = Scene::new();
    shares(&scene);
    let good = made(&scene.bob, asked(ConsoleMode::View)).unwrap();
    let secret = good.url.split_once('#').unwrap().1;
    let gone = made(&scene.bob, asked(ConsoleMode::View)).unwrap();
    let id = gone.link.as_ref().unwrap().name.trim_start_matches("links/").to_owned();
    scene.bob.done(&["console", "link", "revoke", &id, "--yes"]).unwrap();
    let ticket = scene.ticket(ConsoleKind::Serial, ConsoleMode::Control);
    let last = if secret.ends_with('A') { "B" } else { "A" };
    let mut guest = Guest::new(&scene.controller).unwrap();
    for wrong in [
        "",
        "hxg_",
        &gone.url,
        &ticket,
        &format!("{secret}="),
        &format!(" {secret}"),
        &format!("{}{last}", &secret[..secret.len() - 1]),
        &secret.replace("hxg_", "hxc_"),
        "hxg_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ] {
        let refused = guest.open(wrong).unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::NotFound, NO_LINK), "{wrong}");
    }
    assert!(guest.cookies.is_empty());
    let slow = (0..100).find_map(|_| {
        let refused = guest.open("hxg_").unwrap_err();
        (refused.code() == Code::ResourceExhausted).then_some(refused)
    });
    assert!(slow.is_some(), "nobody slows down who guesses");
    // Whoever has a good one isn't kept out by that.
    guest.open(&good.url).unwrap();
}

#[test]
fn who_may_not_give_rights_there_makes_no_link_and_who_may_sees_and_revokes_all() {
    let scene = Scene::new();
    let refused = made(&scene.bob, asked(ConsoleMode::View)).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("PermissionsModify"), "{refused}");
    shares(&scene);
    let elsewhere = GuestLinkServiceCreateRequest { vm: OTHER.to_owned(), ..asked(ConsoleMode::View) };
    assert_eq!(made(&scene.bob, elsewhere).unwrap_err().code(), Code::NotFound);
    for wrong in [
        GuestLinkServiceCreateRequest { kind: ConsoleKind::Spice.into(), ..asked(ConsoleMode::View) },
        GuestLinkServiceCreateRequest { ttl_seconds: 604_801, ..asked(ConsoleMode::View) },
        GuestLinkServiceCreateRequest { comment: "a\nb".to_owned(), ..asked(ConsoleMode::View) },
    ] {
        assert_eq!(made(&scene.bob, wrong).unwrap_err().code(), Code::InvalidArgument);
    }
    let link = made(&scene.bob, asked(ConsoleMode::View)).unwrap().link.unwrap();
    let hour = link.expires_unix_ms - link.created_unix_ms;
    assert_eq!(hour, 3_600_000);
    let carol = scene.controller.person("carol").unwrap();
    assert_eq!(carol.json(&["console", "link", "list"]).unwrap(), serde_json::json!([]));
    let id = link.name.trim_start_matches("links/");
    assert!(!carol.ctl(&["console", "link", "revoke", id, "--yes"]).unwrap().status.success());
    let all = scene.admin.json(&["console", "link", "list"]).unwrap();
    assert_eq!((&all[0]["name"], &all[0]["maker"]), (&link.name.clone().into(), &"bob@local".into()));
    scene.admin.done(&["console", "link", "revoke", id, "--yes"]).unwrap();
    assert_eq!(scene.bob.json(&["console", "link", "list"]).unwrap(), serde_json::json!([]));
}

#[test]
fn a_link_outlives_a_restart_and_its_secret_is_in_no_log_record_or_database() {
    let mut scene = Scene::new();
    shares(&scene);
    let link = made(&scene.bob, asked(ConsoleMode::Control)).unwrap();
    let mut guest = Guest::new(&scene.controller).unwrap();
    guest.open(&link.url).unwrap();
    let cookie = guest.cookies.values().next().unwrap().clone();
    let ticket = guest.ticket().unwrap();
    scene.restart();
    guest.get().unwrap();
    let viewer = guest.at_console().unwrap();
    viewer.bytes(b"after\n").unwrap();
    viewer.read_until(b"after\n").unwrap();
    guest.open(&link.url).unwrap();
    guest.open(&format!("{}x", link.url)).unwrap_err();
    drop(viewer);
    let secret = link.url.split_once('#').unwrap().1.trim_start_matches("hxg_").to_owned();
    holds_none_of(&mut scene, &[secret, cookie, ticket.trim_start_matches("hxc_").to_owned()]);
}
