//! SPICE: a console of many channels, each on a WebSocket of its own, of which nothing outlasts the console.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use horcrux_integration_tests::{Caller, Viewer, wait_until};
use horcrux_proto::console::Notice;
use horcrux_proto::v1::{ConsoleKind, ConsoleMode, VmFacts, VmState};
use horcrux_transport::clock;
use tonic::Code;

use super::scene::{OTHER, Scene, WEB, ended, facts, ticket};
use super::tickets::{WRONG, refused, walk};

/// Somebody at it, and what opens its channels.
struct At {
    viewer: Viewer,
    key: String,
    in_control: bool,
    caller: Caller,
}

impl At {
    fn of(caller: Caller) -> Self {
        Self::of_vm(caller, WEB)
    }

    fn of_vm(caller: Caller, vm: &str) -> Self {
        let ticket = ticket(&caller, vm, ConsoleKind::Spice, ConsoleMode::Control).unwrap().ticket;
        let viewer = caller.viewer().unwrap();
        viewer.text(&ticket).unwrap();
        let told = |notice| {
            let Notice::Opened { channel_key, in_control, .. } = notice else { return None };
            Some((channel_key?.expose().to_owned(), in_control))
        };
        let (key, in_control) = viewer.notice("the console", told).unwrap();
        Self { viewer, key, in_control, caller }
    }

    fn channel(&self) -> Viewer {
        let channel = self.caller.viewer().unwrap();
        channel.text(&self.key).unwrap();
        let opened = |notice| (notice == Notice::ChannelOpened).then_some(());
        channel.notice("the channel", opened).unwrap();
        channel
    }

    /// How a channel ends that doesn't open.
    fn not_opened(&self) -> (u16, String) {
        let channel = self.caller.viewer().unwrap();
        channel.text(&self.key).unwrap();
        let (_, code, words) = channel.end().unwrap();
        (code, words)
    }
}

fn says(channel: &Viewer, text: &[u8]) {
    channel.bytes(text).unwrap();
    channel.read_until(text).unwrap();
}

/// All that the node opened is over.
fn are_over(scene: &Scene) {
    wait_until("the node's side of all channels", || {
        let open = scene.node.consoles().opened().into_iter().filter(|opened| !opened.is_over).count();
        anyhow::ensure!(open == 0, "{open} are open");
        Ok(())
    })
    .unwrap();
}

#[test]
fn its_channels_are_one_console_and_end_with_the_first() {
    let scene = Scene::new();
    let at = At::of(scene.caller());
    assert!(at.in_control);
    let (main, display, inputs) = (at.channel(), at.channel(), at.channel());
    says(&main, b"main");
    says(&display, b"display");
    says(&inputs, b"in");
    let opened = scene.node.consoles().opened();
    let ids: Vec<&str> = opened.iter().map(|opened| opened.order.console_id.as_str()).collect();
    // One order for each, in which its console can be known again.
    assert!(ids.iter().all(|id| id[..28] == ids[0][..28]), "{ids:?}");
    assert_eq!(ids.iter().map(|id| &id[28..]).collect::<Vec<_>>(), ["0000", "0001", "0002"]);
    assert!(opened.iter().all(|opened| opened.envelope.actor == "bob@local" && opened.order.kind == 3));
    let listed = scene.bob.json(&["console", "list"]).unwrap();
    let listed = listed.as_array().unwrap();
    assert_eq!((listed.len(), &listed[0]["kind"]), (1, &"spice".into()), "{listed:?}");
    let bytes = ["to_viewer_bytes", "from_viewer_bytes"].map(|name| listed[0][name].as_u64());
    assert_eq!(bytes, [Some(13), Some(13)]);
    let name = listed[0]["name"].as_str().unwrap();
    assert_eq!(name.trim_start_matches("consoles/")[..28], ids[0][..28]);
    // A channel that ends is that channel's end.
    drop(inputs);
    wait_until("its end", || {
        anyhow::ensure!(scene.node.consoles().opened()[2].is_over, "it is open");
        Ok(())
    })
    .unwrap();
    scene.node.consoles().opened()[1].end().unwrap();
    assert_eq!(display.end().unwrap().1, 1000);
    says(&at.channel(), b"still");
    says(&main, b"there");
    // The first one's is the console's.
    drop(main);
    wait_until("the console's end", || {
        let listed = scene.bob.json(&["console", "list"])?;
        anyhow::ensure!(listed.as_array().is_some_and(Vec::is_empty), "{listed}");
        Ok(())
    })
    .unwrap();
    are_over(&scene);
    refused(&at.caller, &at.key);
}

#[test]
fn a_key_is_good_for_its_own_credential_while_its_console_is_open() {
    let scene = Scene::new();
    let at = At::of(scene.caller());
    let other = scene.bob.elsewhere("other-home");
    other.sign_in().unwrap();
    let made = scene.bob.json(&["token", "create", "--comment", "ci", "--full"]).unwrap();
    let others = [
        scene.admin.caller().unwrap(),
        other.caller().unwrap(),
        scene.bob.caller_with(made["secret"].as_str()),
    ];
    for another in &others {
        refused(another, &at.key);
    }
    // Nor what is no key, or a ticket's.
    let letters = at.key.trim_start_matches("hxj_");
    for wrong in [format!("hxc_{letters}"), format!("{}=", at.key), format!("hxj_{}", &letters[1..])] {
        refused(&at.caller, &wrong);
    }
    assert!(scene.node.consoles().opened().is_empty());
    // It wasn't used up by those who tried it.
    let main = at.channel();
    says(&main, b"mine");
    let more: Vec<Viewer> = (1..32).map(|_| at.channel()).collect();
    let (code, words) = at.not_opened();
    assert_eq!((code, words.as_str()), (4429, "this console has 32 channels and consoles open already"));
    drop(more);
    wait_until("room", || {
        let open = scene.node.consoles().opened().iter().filter(|opened| !opened.is_over).count();
        anyhow::ensure!(open == 1, "{open} are open");
        Ok(())
    })
    .unwrap();
    says(&at.channel(), b"again");
    drop(at.viewer);
    are_over(&scene);
    wait_until("the key to be refused", || {
        let channel = at.caller.viewer()?;
        channel.text(&at.key)?;
        let (_, code, words) = channel.end()?;
        anyhow::ensure!((code, words.as_str()) == WRONG, "{code} {words}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_node_has_as_many_channels_and_consoles_as_it_opens() {
    let scene = Scene::new();
    let sides = [At::of(scene.caller()), At::of_vm(scene.admin.caller().unwrap(), OTHER)];
    let mut channels: Vec<Viewer> = sides.iter().flat_map(|at| (0..32).map(|_| at.channel())).collect();
    let refused = || {
        let viewer = scene.caller().viewer().unwrap();
        viewer.text(&scene.ticket(ConsoleKind::Serial, ConsoleMode::Control)).unwrap();
        let (_, code, words) = viewer.end().unwrap();
        (code, words)
    };
    assert_eq!(refused(), (4429, "this node has 64 consoles open already".to_owned()));
    drop(channels.pop());
    let serial = wait_until("room", || {
        scene.caller().at_console(&scene.ticket(ConsoleKind::Serial, ConsoleMode::Control))
    });
    let _serial = serial.unwrap();
    assert_eq!(sides[1].not_opened().0, 4429);
}

#[test]
fn whatever_ends_it_ends_its_channels_within_a_second() {
    let scene = Scene::new();
    let end = |what: &str, code: u16, words: &str, act: &dyn Fn()| {
        let at = wait_until("the console", || {
            ticket(&scene.caller(), WEB, ConsoleKind::Spice, ConsoleMode::Control)?;
            Ok(At::of(scene.caller()))
        })
        .unwrap();
        let channels: Vec<Viewer> = (0..4).map(|_| at.channel()).collect();
        act();
        let began = clock::monotonic();
        for viewer in channels.iter().chain([&at.viewer]) {
            ended(what, viewer, code, words, began);
        }
    };
    end("ended", 4412, "admin@local ended it", &|| {
        let id = scene.bob.json(&["console", "list"]).unwrap()[0]["name"].as_str().unwrap().to_owned();
        scene.admin.done(&["console", "end", &id, "--yes"]).unwrap();
    });
    are_over(&scene);
    // What somebody is thrown out of, the node is made to close, each channel of it.
    wait_until("the orders to close them", || {
        let closed = scene.node.consoles().closed();
        let opened = scene.node.consoles().opened();
        let all = opened.iter().all(|opened| closed.contains(&opened.order.console_id));
        anyhow::ensure!(all && opened.len() == 4, "{closed:?}");
        Ok(())
    })
    .unwrap();
    end("logout", 4401, "the session is over", &|| drop(scene.bob.done(&["logout"]).unwrap()));
    scene.bob.sign_in().unwrap();
    end("right lost", 4403, "may not open", &|| {
        let granted = scene.admin.json(&["grant", "list", "--user", "bob"]).unwrap();
        scene.admin.done(&["grant", "delete", granted[0]["id"].as_str().unwrap(), "--yes"]).unwrap();
    });
    scene.grant("VmUser", &format!("/vms/{WEB}"));
    end("node locked", 4410, "locked", &|| {
        drop(scene.admin.done(&["node", "lock", "here", "--reason", "stolen", "--yes"]).unwrap());
    });
}

#[test]
fn a_vm_that_is_off_or_was_started_again_is_told_as_such() {
    let scene = Scene::new();
    let told = |act: &dyn Fn()| {
        let at = At::of(scene.caller());
        let (main, _display) = (at.channel(), at.channel());
        act();
        let opened = scene.node.consoles().opened();
        opened[opened.len() - 2].end().unwrap();
        assert_eq!(main.end().unwrap().1, 1000);
        let (_, code, words) = at.viewer.end().unwrap();
        are_over(&scene);
        (code, words)
    };
    let off = told(&|| {
        scene.node.tells(VmFacts { state: VmState::ShutOff.into(), ..facts(WEB, "web1", 1000) }).unwrap();
    });
    assert_eq!(off, (4404, "the VM is shut off".to_owned()));
    scene.node.tells(facts(WEB, "web1", 1000)).unwrap();
    wait_until("the VM to run", || {
        ticket(&scene.caller(), WEB, ConsoleKind::Spice, ConsoleMode::Control)?;
        Ok(())
    })
    .unwrap();
    let again = told(&|| scene.node.tells(facts(WEB, "web1", 2000)).unwrap());
    assert_eq!(again, (4404, "the VM was started again: open its console again".to_owned()));
}

#[test]
fn a_vm_serves_one_at_a_time_and_who_comes_later_takes_it_or_waits() {
    let scene = Scene::new();
    let first = At::of(scene.caller());
    let main = first.channel();
    let second = At::of(scene.admin.caller().unwrap());
    assert!(first.in_control && !second.in_control);
    let (code, words) = second.not_opened();
    assert_eq!((code, words.as_str()), (4411, "somebody else has this VM's SPICE: take control first"));
    // Who has it is told.
    let has_it = |notice| {
        let Notice::Viewers { viewers } = notice else { return None };
        viewers.into_iter().find(|viewer| viewer.in_control).map(|viewer| viewer.user)
    };
    assert_eq!(second.viewer.notice("who has it", has_it).unwrap(), "bob@local");
    let listed = || scene.admin.json(&["console", "list"]).unwrap();
    assert!(listed()[0]["in_control"] == true && listed()[1]["in_control"] == false, "{}", listed());
    let began = clock::monotonic();
    second.viewer.text(r#"{"ask":"takeControl"}"#).unwrap();
    for viewer in [&main, &first.viewer] {
        ended("taken", viewer, 4411, "admin@local took it", began);
    }
    let taken = |notice| matches!(notice, Notice::Control { in_control: true, .. }).then_some(());
    second.viewer.notice("control", taken).unwrap();
    let mine = second.channel();
    says(&mine, b"now");
    refused(&first.caller, &first.key);
    assert_eq!(listed().as_array().unwrap().len(), 1);
}

#[test]
fn it_can_not_be_only_looked_at_nor_be_opened_where_it_must_be_recorded() {
    let scene = Scene::new();
    let status = ticket(&scene.caller(), WEB, ConsoleKind::Spice, ConsoleMode::View).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("use VNC for that"), "{status}");
    scene.admin.done(&["recording", "policy", "set", &format!("vms/{WEB}"), "all"]).unwrap();
    let viewer = scene.caller().viewer().unwrap();
    viewer.text(&scene.ticket(ConsoleKind::Spice, ConsoleMode::Control)).unwrap();
    let (_, code, words) = viewer.end().unwrap();
    let wanted = "it must be recorded, and SPICE can't be: open its screen with VNC";
    assert_eq!((code, words.as_str()), (4500, wanted));
    // A serial line's policy isn't about screens.
    scene.admin.done(&["recording", "policy", "set", &format!("vms/{WEB}"), "serial"]).unwrap();
    says(&At::of(scene.caller()).channel(), b"unrecorded");
}

#[test]
fn no_key_is_in_a_log_a_record_or_the_database() {
    let mut scene = Scene::new();
    let at = At::of(scene.caller());
    let main = at.channel();
    refused(&scene.admin.caller().unwrap(), &at.key);
    // One who says it later, where only bytes are heard.
    main.text(&at.key).unwrap();
    assert_eq!(main.end().unwrap().1, 4422);
    let told = scene.controller.ctl(&["audit", "list", "-o", "json"]).unwrap();
    let log = scene.controller.daemon.log();
    assert!(log.contains("console closed"), "{log}");
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("key to a console's channels: another session came with it"), "{told}");
    let mut said =
        vec![("the audit log".to_owned(), told.into_bytes()), ("the log".to_owned(), log.into_bytes())];
    scene.controller.daemon.kill().unwrap();
    for entry in walk(std::path::Path::new(&scene.controller.state(""))) {
        said.push((entry.display().to_string(), std::fs::read(&entry).unwrap()));
    }
    let secret = at.key.trim_start_matches("hxj_").as_bytes();
    for (place, bytes) in &said {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{place} has the key");
    }
}

/// `horcruxctl vm console web1 --spice`, once it waits for a client; and its file.
fn waits(scene: &Scene, more: &[&str]) -> (Child, String, String) {
    let file = scene.controller.path("web1.vv");
    let args = ["vm", "console", "web1", "--spice", "--file", &file];
    let mut command = scene.bob.command(&[&args, more].concat()).unwrap();
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let written = wait_until("the file", || {
        if let Some(status) = child.try_wait()? {
            let mut said = String::new();
            child.stderr.take().map(|mut from| from.read_to_string(&mut said)).transpose()?;
            anyhow::bail!("{status}: {said}");
        }
        let written = std::fs::read_to_string(&file)?;
        anyhow::ensure!(written.ends_with("autoshare=0\n"), "{written}");
        Ok(written)
    })
    .unwrap();
    (child, file, written)
}

#[test]
fn the_client_has_a_port_on_which_each_connection_is_a_channel() {
    use std::os::unix::fs::PermissionsExt as _;

    let scene = Scene::new();
    let (mut child, file, written) = waits(&scene, &[]);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(written.contains("[virt-viewer]\ntype=spice\nhost=127.0.0.1\n"), "{written}");
    assert!(written.contains("\ntitle=web1 on here\n") && !written.contains("hxj_"), "{written}");
    let port = written.lines().find_map(|line| line.strip_prefix("port=")).unwrap().to_owned();
    let connect = || {
        let stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    };
    let mut channels: Vec<TcpStream> = (0..5).map(|_| connect()).collect();
    for (number, channel) in channels.iter_mut().enumerate() {
        let sent = vec![u8::try_from(number).unwrap(); 300_000];
        let mut heard = vec![0; sent.len()];
        let mut back = channel.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| back.write_all(&sent).unwrap());
            channel.read_exact(&mut heard).unwrap();
        });
        assert!(heard == sent, "channel {number}");
    }
    let listed = scene.bob.json(&["console", "list"]).unwrap();
    assert_eq!(listed[0]["from_viewer_bytes"], 1_500_000, "{listed}");
    // No key stands where another user of the host sees it.
    let command_line = std::fs::read_to_string(format!("/proc/{}/cmdline", child.id())).unwrap();
    assert!(!command_line.contains("hx"), "{command_line}");
    drop(channels.pop());
    drop(channels.remove(0));
    let status =
        wait_until("its end", || child.try_wait()?.ok_or_else(|| anyhow::anyhow!("it runs"))).unwrap();
    assert!(status.success(), "{status}");
    assert!(!std::path::Path::new(&file).exists());
    assert!(channels.iter_mut().all(|channel| channel.read(&mut [0]).is_ok_and(|length| length == 0)));
    are_over(&scene);
}

#[test]
fn who_finds_somebody_at_it_is_told_who_and_can_take_it() {
    let scene = Scene::new();
    let (mut child, file, _) = waits(&scene, &[]);
    let refused = scene.admin.ctl(&["vm", "console", "web1", "--spice"]).unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("bob@local is at this VM with SPICE"), "{said}");
    assert!(child.try_wait().unwrap().is_none() && std::path::Path::new(&file).exists());
    let theirs = scene.controller.path("admin.vv");
    let args = ["vm", "console", "web1", "--spice", "--take", "--file", &theirs];
    let mut taking = scene.admin.command(&args).unwrap().stderr(Stdio::null()).spawn().unwrap();
    let status =
        wait_until("its end", || child.try_wait()?.ok_or_else(|| anyhow::anyhow!("it runs"))).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("admin@local took it"), "{said}");
    wait_until("the other's file", || Ok(std::fs::read(&theirs).map(drop)?)).unwrap();
    taking.kill().unwrap();
    taking.wait().unwrap();
}
