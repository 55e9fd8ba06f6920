//! What is recorded, as it is replayed in a real browser.

use std::fs;
use std::time::Duration;

use horcrux_integration_tests::{Browser, wait_until};
use horcrux_proto::v1::{ConsoleKind, ConsoleMode};
use horcrux_transport::clock;
use serde_json::{Value, json};

use super::recording::{exported, over, set};
use super::scene::{GREETING, SCREEN, Scene, WEB, facts};

/// Long enough for a slider to tell two events apart.
const APART: Duration = Duration::from_millis(400);

fn a_moment() {
    let began = clock::monotonic();
    wait_until("a moment", || {
        anyhow::ensure!(began.elapsed() > APART, "not yet");
        Ok(())
    })
    .unwrap();
}

/// Waits until the recording's page is as `look` wants it.
fn replayed(browser: &mut Browser, what: &str, look: impl Fn(&Value) -> bool) -> Value {
    wait_until(what, || {
        let seen = browser.ask("replayed")?;
        anyhow::ensure!(look(&seen), "{seen}");
        Ok(seen)
    })
    .unwrap()
}

fn open(browser: &mut Browser, id: &str, verdict: &str) -> Value {
    browser.ask(&format!("replay {id}")).unwrap();
    replayed(browser, verdict, |seen| seen["verdict"] == verdict)
}

fn lines(browser: &mut Browser, expected: &[&str]) {
    wait_until("the terminal's lines", || {
        let seen = browser.ask("lines")?;
        anyhow::ensure!(seen["lines"] == json!(expected), "{seen}");
        Ok(())
    })
    .unwrap();
}

fn colour(browser: &mut Browser, at: &str, expected: &str) {
    wait_until(expected, || {
        let seen = browser.ask(&format!("colour {at}"))?;
        anyhow::ensure!(seen["colour"] == expected, "{at}: {seen}");
        Ok(())
    })
    .unwrap();
}

/// Milliseconds of the first event of a serial line that has this in it.
fn said_at(cast: &[u8], what: &str) -> f64 {
    let text = String::from_utf8_lossy(cast);
    let line = text.lines().find(|line| line.contains(what)).unwrap();
    serde_json::from_str::<Value>(line).unwrap()[0].as_f64().unwrap() * 1000.0
}

/// What bob saw of a line: something, a clear screen and something else, which he had typed; and what a hostile VM adds.
fn line(scene: &Scene) -> (String, Vec<u8>) {
    let viewer = scene.serial();
    let opened = scene.opened("the line", |_| true);
    opened.say(b"first line\r\n").unwrap();
    viewer.read_until(b"first line\r\n").unwrap();
    a_moment();
    opened.say(b"\x1b]0;not the title\x07\x1b]52;c;ZXZpbA==\x07\x1b]8;;https://evil.example/\x07link\x1b]8;;\x07").unwrap();
    opened.say(b"\x1b[2J\x1b[Hsecond line").unwrap();
    viewer.read_until(b"second line").unwrap();
    a_moment();
    viewer.bytes(b"ls\r").unwrap();
    viewer.read_until(b"ls\r").unwrap();
    drop(viewer);
    let (_, id) = over(scene);
    let cast = exported(scene, &id, &format!("{id}.cast"));
    (id, cast)
}

#[test]
fn a_serial_line_is_played_and_going_back_shows_what_was_there() {
    let scene = Scene::new();
    set(&scene, &format!("vms/{WEB}"), "serial", &["--keep-input"]);
    let (id, cast) = line(&scene);
    let mut browser = Browser::open(&scene.controller).unwrap();
    let list = browser.ask("recordings").unwrap();
    assert_eq!((&list["linked"], &list["rows"][0]["id"]), (&json!(true), &json!(id)), "{list}");
    let cells = &list["rows"][0]["cells"];
    assert_eq!(
        (&cells[0], &cells[1], &cells[2]),
        (&json!("web1"), &json!("Serial line"), &json!("bob@local"))
    );
    assert_eq!((&list["rows"][0]["end"], &cells[7]), (&json!("ended"), &json!("kept")), "{list}");
    assert_eq!(browser.ask("flaws").unwrap()["violations"], json!([]), "of the list");
    browser.ask("put-away").unwrap();

    let seen = open(&mut browser, &id, "intact");
    assert_eq!((&seen["heading"], &seen["warnings"]), (&json!("web1"), &json!({})), "{seen}");
    assert_eq!(seen["title"], "web1 · serial line · recording · Horcrux");
    // It plays by itself, and stops where it ends.
    let seen = replayed(&mut browser, "the end", |seen| seen["playing"] == false);
    let whole = said_at(&cast, "\"o\",\"ls");
    assert!((seen["at"].as_f64().unwrap() - whole).abs() < 2.0, "{seen}: {whole}");
    lines(&mut browser, &["second linels"]);

    let second = said_at(&cast, "second line");
    browser.ask(&format!("seek {}", second - 50.0)).unwrap();
    lines(&mut browser, &["first line"]);
    browser.ask(&format!("seek {}", second + 50.0)).unwrap();
    lines(&mut browser, &["second line"]);
    // By keys alone.
    browser.ask("tap Home").unwrap();
    replayed(&mut browser, "the beginning", |seen| seen["at"] == 0);
    lines(&mut browser, &[]);
    browser.ask("tap End").unwrap();
    lines(&mut browser, &["second linels"]);
    browser.ask("tap >").unwrap();
    browser.ask("tap >").unwrap();
    browser.ask("tap <").unwrap();
    replayed(&mut browser, "the speed", |seen| seen["speed"] == "2");
    browser.ask("tap Space").unwrap();
    replayed(&mut browser, "it begins again, and ends", |seen| seen["playing"] == false && seen["at"] != 0);
    lines(&mut browser, &["second linels"]);

    browser.ask("press-on typed").unwrap();
    replayed(&mut browser, "what was typed", |seen| seen["typed"] == "ls⏎");
    browser.ask(&format!("seek {second}")).unwrap();
    replayed(&mut browser, "nothing yet", |seen| seen["typed"] == "Nothing was typed yet.");
    assert_eq!(browser.ask("flaws").unwrap()["violations"], json!([]), "of the player");
    let after = browser.ask("replayed").unwrap();
    assert_eq!(after["title"], "web1 · serial line · recording · Horcrux", "the VM's word doesn't count");
    assert_eq!(browser.ask("read").unwrap()["problems"], json!([]));
}

/// A picture of 64 by 48 pixels in one colour, raw.
fn filled(pixel: [u8; 4]) -> Vec<u8> {
    let head = [0, 0, 0, 1, 0, 0, 0, 0, 0, 64, 0, 48, 0, 0, 0, 0];
    [&head[..], &pixel.repeat(64 * 48)].concat()
}

/// What noVNC and `--screenshot` want: red first in memory.
const RED_FIRST: [u8; 20] = [0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 0, 8, 16, 0, 0, 0];
/// Sixteen bits a pixel.
const FEW_COLOURS: [u8; 20] = [0, 0, 0, 0, 16, 16, 0, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0];

/// What bob saw of a screen, with these wishes: two pictures.
fn screen(scene: &Scene, wish: &[u8], pictures: [[u8; 4]; 2]) -> String {
    let viewer = scene.screen(ConsoleMode::Control);
    if !wish.is_empty() {
        viewer.bytes(wish).unwrap();
        scene.opened("the wish", |opened| opened.told.ends_with(wish));
    }
    for picture in pictures.map(filled) {
        scene.opened("the screen", |_| true).say(&picture).unwrap();
        viewer.read_until(&picture[16..]).unwrap();
        a_moment();
    }
    drop(viewer);
    over(scene).1
}

/// When the first and the second picture came, in milliseconds.
fn pictures_at(file: &[u8]) -> Vec<u64> {
    let header = file.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let (mut rest, mut times) = (&file[header..], Vec::new());
    while !rest.is_empty() {
        let length = usize::try_from(u32::from_be_bytes(rest[9..13].try_into().unwrap())).unwrap();
        if rest[0] == b'S' && length > 10_000 {
            times.push(u64::from_be_bytes(rest[1..9].try_into().unwrap()) / 1000);
        }
        rest = &rest[13 + length..];
    }
    times
}

#[test]
fn a_screen_is_played_in_the_colours_that_it_had_and_said_to_be_none_where_it_can_not() {
    let scene = Scene::new();
    set(&scene, &format!("vms/{WEB}"), "all", &[]);
    let mut browser = Browser::open(&scene.controller).unwrap();
    // Without a wish it is as QEMU has it: blue first.
    for (name, wish, pictures) in [
        ("as noVNC", &RED_FIRST[..], [[200, 30, 10, 0], [20, 40, 220, 0]]),
        ("as QEMU", &[][..], [[10, 30, 200, 0], [220, 40, 20, 0]]),
    ] {
        let id = screen(&scene, wish, pictures);
        let times = pictures_at(&exported(&scene, &id, &format!("{id}.rfb")));
        open(&mut browser, &id, "intact");
        replayed(&mut browser, "the end", |seen| seen["playing"] == false && seen["at"] != 0);
        colour(&mut browser, "3 3", "20 40 220");
        browser.ask(&format!("seek {}", times[0] + 100)).unwrap();
        colour(&mut browser, "60 40", "200 30 10");
        // Black, and no picture that wasn't there.
        browser.ask("tap Home").unwrap();
        colour(&mut browser, "3 3", "");
        browser.ask("tap End").unwrap();
        colour(&mut browser, "60 40", "20 40 220");
        let seen = browser.ask("replayed").unwrap();
        assert_eq!(seen["warnings"], json!({}), "{name}");
        browser.ask("put-away").unwrap();
    }
    assert_eq!(browser.ask("read").unwrap()["problems"], json!([]));
    let id = screen(&scene, &FEW_COLOURS, [[200, 30, 10, 0], [20, 40, 220, 0]]);
    open(&mut browser, &id, "intact");
    let seen = replayed(&mut browser, "why not", |seen| seen["warnings"]["trouble"].is_string());
    let words = seen["warnings"]["trouble"].as_str().unwrap();
    assert!(words.contains("16 bits") && words.contains(&format!("recording export {id}")), "{words}");
    colour(&mut browser, "3 3", "");
}

#[test]
fn a_screen_that_began_anew_has_a_mark_and_the_picture_of_each_conversation() {
    let scene = Scene::new();
    set(&scene, &format!("vms/{WEB}"), "all", &[]);
    let viewer = scene.screen(ConsoleMode::Control);
    let picture = filled([10, 30, 200, 0]);
    let opened = scene.opened("the screen", |_| true);
    opened.say(&picture).unwrap();
    viewer.read_until(&picture[16..]).unwrap();
    // The VM was started again: its screen begins anew.
    scene.node.tells(facts(WEB, "web1", 2000)).unwrap();
    opened.end().unwrap();
    wait_until("the second screen", || {
        anyhow::ensure!(scene.node.consoles().opened().len() == 2, "there is one");
        Ok(())
    })
    .unwrap();
    viewer.read_until(b"RFB 003.008\n").unwrap();
    GREETING.iter().for_each(|part| viewer.bytes(part).unwrap());
    viewer.read_until(SCREEN).unwrap();
    let picture = filled([220, 40, 20, 0]);
    scene.opened("the second screen", |_| true).say(&picture).unwrap();
    viewer.read_until(&picture[16..]).unwrap();
    drop(viewer);
    let (_, id) = over(&scene);
    let times = pictures_at(&exported(&scene, &id, "anew.rfb"));
    let mut browser = Browser::open(&scene.controller).unwrap();
    let seen = open(&mut browser, &id, "intact");
    assert_eq!(seen["marks"][0]["kind"], "anew", "{seen}");
    assert!(seen["marks"][0]["title"].as_str().unwrap().ends_with("the screen was opened anew"), "{seen}");
    replayed(&mut browser, "the end", |seen| seen["playing"] == false && seen["at"] != 0);
    colour(&mut browser, "3 3", "20 40 220");
    browser.ask(&format!("seek {}", times[0] + 1)).unwrap();
    colour(&mut browser, "3 3", "200 30 10");
    browser.ask("tap End").unwrap();
    colour(&mut browser, "3 3", "20 40 220");
}

#[test]
fn a_changed_recording_is_played_as_far_as_it_fits_and_one_that_goes_on_up_to_now() {
    let scene = Scene::new();
    set(&scene, &format!("vms/{WEB}"), "serial", &[]);
    let viewer = scene.at(ConsoleKind::Serial, ConsoleMode::Control);
    // More than a link covers, and then what somebody changes.
    let much = [vec![b'.'; 70 << 10], b"\x1b[2J\x1b[Hgood".to_vec()].concat();
    for part in much.chunks(32 << 10) {
        scene.opened("the line", |_| true).say(part).unwrap();
    }
    viewer.read_until(b"good").unwrap();
    a_moment();
    let mut browser = Browser::open(&scene.controller).unwrap();
    let list = browser.ask("recordings").unwrap();
    assert_eq!(list["rows"][0]["end"], "going", "{list}");
    let id = list["rows"][0]["id"].as_str().unwrap().to_owned();
    browser.ask("put-away").unwrap();
    let before = open(&mut browser, &id, "going");
    scene.opened("the line", |_| true).say(b"\r\nwhat was said").unwrap();
    viewer.read_until(b"what was said").unwrap();
    wait_until("more of it", || {
        browser.ask("press-on get-more")?;
        let seen = replayed(&mut browser, "read again", |seen| seen["verdict"] == "going");
        anyhow::ensure!(seen["events"].as_u64() > before["events"].as_u64(), "{seen}");
        Ok(())
    })
    .unwrap();
    browser.ask("tap End").unwrap();
    lines(&mut browser, &["good", "what was said"]);
    browser.ask("put-away").unwrap();
    drop(viewer);
    over(&scene);

    // What the network loses is told, and read again when that is asked for.
    browser.ask(&format!("replay-cut {id} 66500")).unwrap();
    let cut = replayed(&mut browser, "what broke off", |seen| seen["course"] == "cut");
    assert_eq!((&cut["verdict"], cut["events"].as_u64() > Some(0)), (&json!("unknown"), true), "{cut}");
    assert!(cut["warnings"]["cut"].as_str().unwrap().contains("broke off after 64.0 KiB"), "{cut}");
    browser.ask("press-on read-again").unwrap();
    replayed(&mut browser, "all of it", |seen| seen["verdict"] == "intact" && seen["warnings"] == json!({}));
    browser.ask("put-away").unwrap();

    let file = scene.controller.state(&format!("recordings/{id}"));
    let whole = fs::read(&file).unwrap();
    let mut changed = whole.clone();
    let at = whole.windows(4).position(|part| part == b"said").unwrap();
    changed[at] = b'p';
    fs::write(&file, &changed).unwrap();
    let seen = open(&mut browser, &id, "broken");
    let words = seen["warnings"]["broken"].as_str().unwrap();
    assert!(
        words.contains("not intact") && words.contains("What is there is not what was recorded"),
        "{words}"
    );
    assert!(words.contains("as far as it fits"), "{words}");
    browser.ask("tap End").unwrap();
    let seen = browser.ask("lines").unwrap().to_string();
    assert!(!seen.contains("what was"), "nothing vouches for that: {seen}");
}

#[test]
fn whoever_may_not_see_recordings_is_told_so_and_finds_no_link_to_them() {
    let scene = Scene::new();
    set(&scene, &format!("vms/{WEB}"), "serial", &[]);
    let (id, _) = line(&scene);
    let mut browser = Browser::at_the_door(&scene.controller).unwrap();
    browser.ask(&format!("replay {id}")).unwrap();
    replayed(&mut browser, "the door", |seen| seen["refusal"] == "session");
    browser.ask("put-away").unwrap();
    browser.ask(&format!("password - bob {}", scene.bob.password_file())).unwrap();
    wait_until("bob on the page", || {
        let seen = browser.ask("look")?;
        anyhow::ensure!(seen["user"].as_str().is_some_and(|user| user.contains("bob")), "{seen}");
        Ok(())
    })
    .unwrap();
    let list = browser.ask("recordings").unwrap();
    assert_eq!((&list["linked"], &list["refusal"]), (&json!(false), &json!("right")), "{list}");
    browser.ask("put-away").unwrap();
    browser.ask(&format!("replay {id}")).unwrap();
    let seen = replayed(&mut browser, "a refusal", |seen| seen["refusal"] == "right");
    assert!(seen["over"].as_str().unwrap().contains("SysAudit"), "{seen}");
}
