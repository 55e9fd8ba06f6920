//! A real guest whose display is SPICE, in the clients that people have.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use horcrux_integration_tests::lab::{Lab, Work};
use horcrux_integration_tests::{Client, Controller, Daemon, Place, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use super::real::{Scene, set_mode};

/// For what was typed to come out of the serial line; it is typed again then, for a client may not have listened yet.
const TYPED_WITHIN: Duration = Duration::from_secs(3);

/// Ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A screen on which programs can be shown that nobody looks at.
struct Display {
    number: String,
    _server: Running,
}

impl Display {
    fn start() -> Self {
        let mut command = Command::new("Xvfb");
        command.args(["-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = command.spawn().unwrap();
        let mut number = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut number).unwrap();
        Self { number: format!(":{}", number.trim()), _server: Running(server) }
    }

    fn xdotool(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new("xdotool").args(arguments).env("DISPLAY", &self.number).output()?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// The guest's screen, as a SPICE client sees it: its width, its height and its colours.
fn picture(controller: &Controller, lab: &Lab) -> anyhow::Result<(usize, usize, Vec<u8>)> {
    let file = controller.path("web1.vv");
    let _left = fs::remove_file(&file);
    let mut command = controller.client("picture")?.command(&["vm", "console", "web1", "--spice"])?;
    command.args(["--file", &file]).stderr(Stdio::null());
    let mut console = Running(command.spawn()?);
    let written = wait_until("the file", || {
        if let Some(status) = console.0.try_wait()? {
            anyhow::bail!("horcruxctl: {status}");
        }
        let written = fs::read_to_string(&file)?;
        anyhow::ensure!(written.ends_with("autoshare=0\n"), "{written}");
        Ok(written)
    })?;
    let port = written.lines().find_map(|line| line.strip_prefix("port=")).unwrap_or_default();
    let shot = controller.path("shot.ppm");
    let mut command = lab.network().command(Path::new("timeout"));
    command.args(["20", "spicy-screenshot", "--uri", &format!("spice://127.0.0.1:{port}")]);
    let output = command.args(["--out-file", &shot]).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{}: {said}", output.status);
    // It ends with its client.
    let ended = wait_until("its end", || console.0.try_wait()?.ok_or_else(|| anyhow::anyhow!("it runs")))?;
    anyhow::ensure!(ended.success() && !Path::new(&file).exists(), "{ended}");
    let bytes = fs::read(&shot)?;
    let mut parts = bytes.splitn(4, |&byte| byte == b'\n');
    let head: Vec<&str> = parts.by_ref().take(3).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    let size = head.get(1).and_then(|size| size.split_once(' '));
    let (width, height) = size.ok_or_else(|| anyhow::anyhow!("no picture: {head:?}"))?;
    Ok((width.parse()?, height.parse()?, parts.next().unwrap_or_default().to_vec()))
}

/// The same, once the guest's shell is on it.
fn shell(controller: &Controller, lab: &Lab) -> Vec<u8> {
    wait_until("the guest's shell", || {
        let (width, height, colours) = picture(controller, lab)?;
        let lit = colours.chunks_exact(3).filter(|pixel| pixel.iter().any(|&c| c > 100)).count();
        anyhow::ensure!((width, height) == (720, 400) && lit > 2000, "{width} {height} {lit}");
        Ok(colours)
    })
    .unwrap()
}

/// remote-viewer, as `horcruxctl` starts it, once it shows the guest; and its window.
fn remote_viewer(controller: &Controller, client: &Client, display: &Display) -> (Running, String) {
    let home = controller.path("viewer-home");
    fs::create_dir(&home).unwrap();
    let mut command = client.command(&["vm", "console", "web1", "--spice"]).unwrap();
    command.env("DISPLAY", &display.number).env("HOME", &home).env_remove("WAYLAND_DISPLAY");
    command.env_remove("XDG_RUNTIME_DIR").stderr(Stdio::piped());
    let mut console = Running(command.spawn().unwrap());
    let window = wait_until("remote-viewer's window", || {
        if let Some(status) = console.0.try_wait()? {
            let mut said = String::new();
            console.0.stderr.take().map(|mut from| from.read_to_string(&mut said)).transpose()?;
            anyhow::bail!("{status}: {said}");
        }
        let found = display.xdotool(&["search", "--onlyvisible", "--name", "web1 on node1"])?;
        Ok(found.lines().next().unwrap_or_default().to_owned())
    })
    .unwrap();
    wait_until("its channels", || {
        let listed = controller.json(&["console", "list"])?;
        anyhow::ensure!(listed.as_array().is_some_and(|all| all.len() == 1), "{listed}");
        anyhow::ensure!(
            listed[0]["to_viewer_bytes"].as_u64().is_some_and(|bytes| bytes > 10_000),
            "{listed}"
        );
        Ok(())
    })
    .unwrap();
    (console, window)
}

#[test]
fn a_spice_client_shows_the_guest_and_its_keys_reach_it_and_nothing_listens() {
    let scene = Scene::of(Work::Spice);
    let before = scene.listeners();
    scene.controller.administrator().unwrap().elsewhere("client-picture").sign_in().unwrap();
    let picture = shell(&scene.controller, &scene.lab);

    let display = Display::start();
    let client = scene.controller.client("picture").unwrap();
    let (mut console, window) = remote_viewer(&scene.controller, &client, &display);
    // The screen is a socket pair's, and no port is.
    assert_eq!(scene.listeners(), before);
    assert!(!before.contains("qemu"), "{before}");
    // What is typed there comes out of the serial line.
    let mut line = client.command(&["vm", "console", "web1"]).unwrap();
    let mut line = Running(line.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    wait_until("the line", || {
        let listed = scene.controller.json(&["console", "list"])?;
        anyhow::ensure!(listed.as_array().is_some_and(|all| all.len() == 2), "{listed}");
        Ok(())
    })
    .unwrap();
    display.xdotool(&["windowfocus", &window]).unwrap();
    display.xdotool(&["mousemove", "--window", &window, "300", "200", "click", "1"]).unwrap();
    let said = BufReader::new(line.0.stdout.take().unwrap());
    let (put, lines) = sync_channel(1000);
    // Until the line ends, or nobody wants to hear more.
    let read = move || said.lines().map_while(Result::ok).try_for_each(|line| put.send(line));
    std::thread::spawn(read);
    wait_until("what was typed", || {
        display.xdotool(&["type", "--delay", "60", "echo a$((6*7))b >/dev/ttyS0"])?;
        display.xdotool(&["key", "Return"])?;
        let mut all = Vec::new();
        while let Ok(line) = lines.recv_timeout(TYPED_WITHIN) {
            if line.contains("a42b") {
                return Ok(());
            }
            all.push(line);
        }
        anyhow::bail!("the line said {all:?}")
    })
    .unwrap();
    let pid = Pid::from_raw(console.0.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let ended = wait_until("its end", || console.0.try_wait()?.ok_or_else(|| anyhow::anyhow!("it runs")));
    assert!(ended.unwrap().success());
    wait_until("remote-viewer's end", || {
        anyhow::ensure!(display.xdotool(&["search", "--name", "web1 on node1"]).is_err(), "it is there");
        Ok(())
    })
    .unwrap();
    assert_ne!(shell(&scene.controller, &scene.lab), picture, "the screen shows what was typed");

    // It has no other display, and says which it has.
    let shot = scene.controller.path("none.png");
    let refused = client.ctl(&["vm", "console", "web1", "--screenshot", &shot]).unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("no display for vnc, but for spice"), "{said}");
}

#[test]
fn a_console_ends_when_its_vm_moves_and_is_opened_again_where_it_is() {
    let lab = Lab::up(2).unwrap();
    for node in [1, 2] {
        lab.start_libvirtd(node).unwrap();
    }
    lab.disk(2, "web1").unwrap();
    lab.vm(1, "web1", 1, Work::Spice).unwrap();
    let controller = Controller::start_at(Place::Lab(lab.network())).unwrap();
    let _running: Vec<(Daemon, Daemon)> = [1, 2]
        .map(|node| {
            let privd = lab.start_privd(node).unwrap();
            (lab.join(&controller, node).unwrap(), privd)
        })
        .into();
    for node in [1, 2] {
        set_mode(&lab, &controller, node, "console");
    }
    controller.administrator().unwrap().elsewhere("client-picture").sign_in().unwrap();
    shell(&controller, &lab);
    let client = controller.client("picture").unwrap();
    let display = Display::start();
    let (mut console, _) = remote_viewer(&controller, &client, &display);
    let migrate = ["virsh", "-q", "-c", "qemu:///system", "migrate", "--live", "--p2p", "--unsafe"];
    lab.exec(1, &[&migrate[..], &["--persistent", "web1", "qemu+tcp://10.77.0.2/system"]].concat()).unwrap();
    let ended =
        wait_until("its end", || console.0.try_wait()?.ok_or_else(|| anyhow::anyhow!("it runs"))).unwrap();
    let mut said = String::new();
    console.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!ended.success(), "{said}");
    let moved = "the VM was moved to nodes/node2, and SPICE begins anew there: open its console again";
    assert!(said.contains(moved), "{said}");
    shell(&controller, &lab);
}
