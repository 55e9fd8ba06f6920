//! Consoles as the program opens them: a controller behind TLS, a terminal or pipes, and the test at the VM's end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]

mod controller;

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use horcrux_proto::console::{Ask, CloseCode, MAX_MESSAGE, Notice, Viewer};
use horcrux_test_parts::Terminal;
use horcrux_transport::files;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use self::controller::consoles::TICKET;
use self::controller::secure::{Secure, Socket, opened};

/// A user with nothing of its own.
const NOBODY: u32 = 65534;
/// Of one step; the machine may have much to do.
const SOON: Duration = Duration::from_secs(15);

async fn soon<T>(what: &str, step: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, step).await.unwrap_or_else(|_| panic!("{what}: nothing in time"))
}

fn program(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_horcruxctl"));
    command.args(args).env_clear().env("XDG_CONFIG_HOME", dir).kill_on_drop(true);
    command
}

fn piped(dir: &Path, args: &[&str]) -> Child {
    let mut command = program(dir, args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The exit code, what it printed and what it said.
async fn ended(child: Child) -> (i32, String, String) {
    let output = soon("the program ends", child.wait_with_output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The next WebSocket, with its ticket taken and its console opened.
async fn console(scene: &mut Secure) -> Socket {
    let (_, mut socket) = soon("a WebSocket", scene.visitor()).await;
    assert_eq!(soon("the ticket", socket.next()).await.unwrap().unwrap(), Message::text(TICKET));
    tell(&mut socket, &opened(true, false)).await;
    socket
}

async fn tell(socket: &mut Socket, notice: &Notice) {
    socket.send(Message::text(serde_json::to_string(notice).unwrap())).await.unwrap();
}

async fn say(socket: &mut Socket, bytes: &[u8]) {
    socket.send(Message::binary(bytes.to_vec())).await.unwrap();
}

async fn close(socket: &mut Socket, code: u16, reason: &str) {
    let frame = CloseFrame { code: code.into(), reason: reason.into() };
    socket.close(Some(frame)).await.unwrap();
}

/// What comes next to the VM, at least `length` bytes of it.
async fn typed(socket: &mut Socket, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < length {
        let message = soon("keys", socket.next()).await.unwrap().unwrap();
        let Message::Binary(bytes) = message else { panic!("{message:?}") };
        all.extend(bytes);
    }
    all
}

/// The viewer leaves by itself, having sent nothing more.
async fn left(socket: &mut Socket) {
    let message = soon("the viewer leaves", socket.next()).await.unwrap().unwrap();
    let Message::Close(Some(frame)) = message else { panic!("{message:?}") };
    assert_eq!(u16::from(frame.code), 1000);
}

#[tokio::test]
async fn the_ticket_is_the_first_message_and_stands_nowhere_else() {
    let mut scene = Secure::start().await;
    let child = piped(scene.dir.path(), &["vm", "console", "shop"]);
    let (head, mut socket) = soon("a WebSocket", scene.visitor()).await;
    assert_eq!(head.uri.path_and_query().unwrap(), "/console/v1");
    assert_eq!(head.headers["authorization"], "Bearer access-0");
    assert_eq!(head.headers["sec-websocket-protocol"], "hx.console.v1");
    assert!(head.headers.get("origin").is_none() && head.headers.get("cookie").is_none());
    assert!(!format!("{head:?}").contains(TICKET));
    assert_eq!(soon("the ticket", socket.next()).await.unwrap().unwrap(), Message::text(TICKET));
    tell(&mut socket, &opened(true, true)).await;
    close(&mut socket, 1000, "").await;
    assert_eq!(ended(child).await, (0, String::new(), "this console is recorded\n".to_owned()));
    let asked = scene.controller.0.changes.lock().unwrap().clone();
    assert_eq!(asked, ["ticket shop CONSOLE_KIND_SERIAL CONSOLE_MODE_CONTROL"]);
}

#[tokio::test]
async fn a_pipe_is_typed_and_what_the_vm_says_is_data() {
    let mut scene = Secure::start().await;
    let log = scene.dir.path().join("log");
    let args = ["vm", "console", "shop", "--log", log.to_str().unwrap()];
    for _ in 0..2 {
        let mut child = piped(scene.dir.path(), &args);
        let mut socket = console(&mut scene).await;
        child.stdin.take().unwrap().write_all(b"uname\n").await.unwrap();
        assert_eq!(typed(&mut socket, 6).await, b"uname\n");
        // Its end is not the console's.
        say(&mut socket, b"Linux\xff\r\n").await;
        tell(&mut socket, &Notice::Waiting { why: "the VM is being moved".to_owned() }).await;
        close(&mut socket, 1000, "").await;
        let output = soon("the program ends", child.wait_with_output()).await.unwrap();
        assert_eq!(output.stdout, b"Linux\xff\r\n");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "waiting: the VM is being moved\n");
        assert_eq!(output.status.code(), Some(0));
    }
    assert_eq!(fs::read(&log).unwrap(), b"Linux\xff\r\nLinux\xff\r\n");
    assert_eq!(fs::metadata(&log).unwrap().mode() & 0o777, 0o600);
    fs::set_permissions(&log, fs::Permissions::from_mode(0o640)).unwrap();
    let (code, _, said) = ended(piped(scene.dir.path(), &args)).await;
    assert_eq!(code, 1);
    assert!(said.contains("chmod 600"), "{said}");
}

#[tokio::test]
async fn a_terminal_is_handed_over_and_given_back() {
    let mut scene = Secure::start().await;
    let terminal = Terminal::open();
    let before = terminal.modes();
    let mut child = terminal.run(program(scene.dir.path(), &["vm", "console", "shop"]));
    let mut socket = console(&mut scene).await;
    let screen = &mut terminal.screen();
    screen.shows("the serial line of shop on web1: Ctrl-] leaves").await;
    terminal.is_raw().await;
    // What elsewhere interrupts, suspends or ends the line is a key like others.
    terminal.types(b"a\x03\x1a\x04\r");
    assert_eq!(typed(&mut socket, 5).await, b"a\x03\x1a\x04\r");
    say(&mut socket, b"login: ").await;
    screen.shows("login: ").await;
    let me = Viewer {
        console: "consoles/a".to_owned(),
        user: "alice@local".to_owned(),
        in_control: true,
        may_control: true,
        is_you: true,
        guest: None,
    };
    let bob = Viewer { user: "bob@local".to_owned(), is_you: false, in_control: false, ..me.clone() };
    tell(&mut socket, &Notice::Viewers { viewers: vec![me, bob] }).await;
    screen.shows("\r\n[looking too: bob@local]\r\n").await;
    // A window of another size is no key.
    terminal.resize();
    terminal.types(b"x\x1dy");
    assert_eq!(typed(&mut socket, 1).await, b"x");
    left(&mut socket).await;
    assert_eq!(soon("the program ends", child.wait()).await.unwrap().code(), Some(0));
    assert_eq!(terminal.modes(), before);
}

#[tokio::test]
async fn a_terminal_is_given_back_however_it_ends() {
    let mut scene = Secure::start().await;
    for signal in [Some(Signal::TERM), Some(Signal::HUP), Some(Signal::INT), None] {
        let terminal = Terminal::open();
        let before = terminal.modes();
        let mut child = terminal.run(program(scene.dir.path(), &["vm", "console", "shop"]));
        let mut socket = console(&mut scene).await;
        terminal.is_raw().await;
        let code = match signal {
            Some(signal) => {
                signalled(&child, signal);
                left(&mut socket).await;
                0
            }
            None => {
                // As when the controller's host loses its power.
                drop(socket);
                6
            }
        };
        let status = soon("the program ends", child.wait()).await.unwrap();
        assert_eq!(status.code(), Some(code), "{signal:?}");
        assert_eq!(terminal.modes(), before, "{signal:?}");
    }
}

#[tokio::test]
async fn who_waits_to_be_let_in_can_give_up() {
    let mut scene = Secure::start().await;
    for more in [&[][..], &["--vnc"]] {
        let mut child = piped(scene.dir.path(), &[&["vm", "console", "shop"], more].concat());
        let (_, mut socket) = soon("a WebSocket", scene.visitor()).await;
        assert_eq!(soon("the ticket", socket.next()).await.unwrap().unwrap(), Message::text(TICKET));
        signalled(&child, Signal::INT);
        let status = soon("the program ends", child.wait()).await.unwrap();
        assert_eq!(status.signal(), Some(Signal::INT.as_raw()), "{status}");
    }
}

fn signalled(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[tokio::test]
async fn who_only_looks_sends_nothing() {
    let mut scene = Secure::start().await;
    let terminal = Terminal::open();
    let mut child = terminal.run(program(scene.dir.path(), &["vm", "console", "shop", "--view"]));
    let mut socket = console(&mut scene).await;
    terminal.is_raw().await;
    terminal.types(b"rm -rf /\r");
    terminal.types(b"\x03");
    left(&mut socket).await;
    assert_eq!(soon("the program ends", child.wait()).await.unwrap().code(), Some(0));
    let asked = scene.controller.0.changes.lock().unwrap().clone();
    assert_eq!(asked, ["ticket shop CONSOLE_KIND_SERIAL CONSOLE_MODE_VIEW"]);
}

#[tokio::test]
async fn control_is_taken_where_that_is_asked_for() {
    let mut scene = Secure::start().await;
    let child = piped(scene.dir.path(), &["vm", "console", "node1/shop", "--take"]);
    let (_, mut socket) = soon("a WebSocket", scene.visitor()).await;
    assert_eq!(soon("the ticket", socket.next()).await.unwrap().unwrap(), Message::text(TICKET));
    tell(&mut socket, &opened(false, false)).await;
    let asked = soon("the asking", socket.next()).await.unwrap().unwrap().into_text().unwrap();
    assert_eq!(serde_json::from_str::<Ask>(&asked).unwrap(), Ask::TakeControl);
    tell(&mut socket, &Notice::Control { in_control: true, by: "alice@local".to_owned() }).await;
    close(&mut socket, 1000, "").await;
    assert_eq!(ended(child).await.2, "your keys reach the VM\n");
    let asked = scene.controller.0.changes.lock().unwrap().clone();
    let vm = controller::guests::SHOP;
    assert_eq!(asked, [format!("ticket vms/{vm} CONSOLE_KIND_SERIAL CONSOLE_MODE_CONTROL")]);
}

#[tokio::test]
async fn each_end_has_its_words_and_its_exit_code() {
    let mut scene = Secure::start().await;
    for (code, exit, says) in [
        (CloseCode::Ticket, 1, "ticket"),
        (CloseCode::Session, 3, "next: run `horcruxctl login"),
        (CloseCode::Right, 5, "permission denied"),
        (CloseCode::Gone, 4, "the VM is off"),
        (CloseCode::Ended, 1, "somebody ended"),
        (CloseCode::Restart, 1, "the controller restarts"),
    ] {
        let child = piped(scene.dir.path(), &["vm", "console", "shop"]);
        let mut socket = console(&mut scene).await;
        close(&mut socket, code.number(), "").await;
        let (ended_with, _, said) = ended(child).await;
        assert_eq!(ended_with, exit, "{said}");
        assert!(said.contains(says), "{said}");
    }
    let child = piped(scene.dir.path(), &["vm", "console", "shop"]);
    let (_, mut socket) = soon("a WebSocket", scene.visitor()).await;
    close(&mut socket, CloseCode::Refused.number(), "web1's policy allows no consoles").await;
    let (code, _, said) = ended(child).await;
    assert_eq!((code, said.as_str()), (1, "error: web1's policy allows no consoles\n"));
    let child = piped(scene.dir.path(), &["vm", "console", "vault"]);
    let (code, _, said) = ended(child).await;
    assert_eq!(code, 5);
    assert!(said.contains("horcruxctl auth why alice@local VmConsole /vms/vault"), "{said}");
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_it() {
    let mut scene = Secure::start().await;
    let child = piped(scene.dir.path(), &["vm", "console", "shop"]);
    let mut socket = console(&mut scene).await;
    say(&mut socket, &vec![b'x'; MAX_MESSAGE]).await;
    say(&mut socket, &vec![b'y'; MAX_MESSAGE + 1]).await;
    let (code, printed, said) = ended(child).await;
    assert_eq!((code, printed.len()), (6, MAX_MESSAGE), "{said}");
    assert!(printed.bytes().all(|byte| byte == b'x'));
}

/// A display's side of RFB up to its pixels, for a viewer that only looks.
async fn greet(socket: &mut Socket, width: u16, height: u16) {
    say(socket, b"RFB 003.008\n").await;
    assert_eq!(typed(socket, 12).await, b"RFB 003.008\n");
    say(socket, &[2, 19, 1]).await;
    assert_eq!(typed(socket, 1).await, [1]);
    say(socket, &[0; 4]).await;
    assert_eq!(typed(socket, 1).await, [1], "others stay where they are");
    let mut init = [width.to_be_bytes(), height.to_be_bytes()].concat();
    init.extend([0; 16]);
    init.extend([0, 0, 0, 4]);
    init.extend(b"QEMU");
    // Cut where no message ends.
    let (first, rest) = init.split_at(7);
    say(socket, first).await;
    say(socket, rest).await;
}

#[tokio::test]
async fn a_screenshot_is_what_the_screen_shows() {
    let mut scene = Secure::start().await;
    let path = scene.dir.path().join("out.png");
    let child = piped(scene.dir.path(), &["vm", "console", "shop", "--screenshot", path.to_str().unwrap()]);
    let mut socket = console(&mut scene).await;
    greet(&mut socket, 2, 2).await;
    let asked = typed(&mut socket, 20 + 8 + 10).await;
    assert_eq!(asked[20..28], [2, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(asked[28..], [3, 0, 0, 0, 0, 0, 0, 2, 0, 2]);
    // A bell, a clipboard, and half of the picture.
    say(&mut socket, &[2, 3, 0, 0, 0, 0, 0, 0, 2, 65, 66]).await;
    let mut half = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0];
    half.extend([1, 2, 3, 0, 4, 5, 6, 0]);
    say(&mut socket, &half).await;
    assert_eq!(typed(&mut socket, 10).await, [3, 1, 0, 0, 0, 0, 0, 2, 0, 2]);
    half[6..8].copy_from_slice(&[0, 1]);
    half.truncate(16);
    half.extend([7, 8, 9, 0, 10, 11, 12, 0]);
    half[6] = 0;
    say(&mut socket, &half).await;
    left(&mut socket).await;
    assert_eq!(ended(child).await, (0, String::new(), String::new()));
    let mut reader =
        png::Decoder::new(io::BufReader::new(fs::File::open(&path).unwrap())).read_info().unwrap();
    let mut colours = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut colours).unwrap();
    assert_eq!(colours, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let asked = scene.controller.0.changes.lock().unwrap().clone();
    assert_eq!(asked, ["ticket shop CONSOLE_KIND_VNC CONSOLE_MODE_VIEW"]);
}

#[tokio::test]
async fn a_display_that_lies_makes_no_picture() {
    let mut scene = Secure::start().await;
    let path = scene.dir.path().join("out.png");
    let args = ["vm", "console", "shop", "--screenshot", path.to_str().unwrap()];
    let child = piped(scene.dir.path(), &args);
    let mut socket = console(&mut scene).await;
    greet(&mut socket, 65535, 65535).await;
    let (code, _, said) = ended(child).await;
    assert_eq!(code, 1);
    assert!(said.contains("65535 by 65535"), "{said}");
    for lie in [
        // Outside of the screen, an encoding that was not asked for, no message at all.
        &[0, 0, 0, 1, 0, 1, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0][..],
        &[0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 2, 0, 0, 0, 16],
        &[77],
        &[3, 0, 0, 0, 255, 255, 255, 255],
    ] {
        let child = piped(scene.dir.path(), &args);
        let mut socket = console(&mut scene).await;
        greet(&mut socket, 2, 2).await;
        say(&mut socket, lie).await;
        let (code, _, said) = ended(child).await;
        assert_eq!(code, 1, "{said}");
        assert!(!path.exists());
    }
}

/// The address that a viewer is to connect to.
async fn address(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = soon("an address", lines.next_line()).await.unwrap().unwrap();
    line.strip_prefix("connect a VNC viewer of this host to ").unwrap_or_else(|| panic!("{line}")).to_owned()
}

async fn reads(viewer: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    soon("the VM's bytes", viewer.read_exact(&mut bytes)).await.unwrap();
    bytes
}

async fn is_closed(viewer: &mut TcpStream) {
    let read = soon("an end", viewer.read(&mut [0])).await;
    assert!(read.is_err() || read.is_ok_and(|length| length == 0));
}

/// Another user of this host is no viewer. Only root can be one.
fn refused_to_nobody(scene: &Secure, address: &str) {
    if !geteuid().is_root() {
        return;
    }
    let theirs = scene.dir.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
    fs::set_permissions(scene.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let address = address.to_owned();
    let read = std::thread::spawn(move || {
        files::act_as_owner(&theirs).unwrap();
        let mut viewer = std::net::TcpStream::connect(address).unwrap();
        viewer.set_read_timeout(Some(SOON)).unwrap();
        io::Read::read(&mut viewer, &mut [0; 12])
    });
    assert_eq!(read.join().unwrap().unwrap(), 0);
}

#[tokio::test]
async fn one_viewer_at_a_time_is_at_the_screen() {
    let mut scene = Secure::start().await;
    let mut child = piped(scene.dir.path(), &["vm", "console", "shop", "--vnc", "--listen", "127.0.0.1:0"]);
    let mut socket = console(&mut scene).await;
    say(&mut socket, b"RFB 003.008\n").await;
    let address = address(&mut child).await;
    refused_to_nobody(&scene, &address);
    let mut viewer = TcpStream::connect(&address).await.unwrap();
    assert_eq!(reads(&mut viewer, 12).await, b"RFB 003.008\n");
    let mut other = TcpStream::connect(&address).await.unwrap();
    is_closed(&mut other).await;
    let large = vec![7; 200_000];
    viewer.write_all(&large).await.unwrap();
    assert_eq!(typed(&mut socket, large.len()).await, large);
    say(&mut socket, b"picture").await;
    assert_eq!(reads(&mut viewer, 7).await, b"picture");
    // It goes on elsewhere: the next viewer begins anew, on the same console.
    tell(&mut socket, &Notice::Restarted { node: "nodes/web2".to_owned() }).await;
    say(&mut socket, b"RFB 003.003\n").await;
    is_closed(&mut viewer).await;
    let mut viewer = TcpStream::connect(&address).await.unwrap();
    assert_eq!(reads(&mut viewer, 12).await, b"RFB 003.003\n");
    drop(viewer);
    left(&mut socket).await;
    assert_eq!(soon("the program ends", child.wait()).await.unwrap().code(), Some(0));
    assert!(TcpStream::connect(&address).await.is_err());
}

#[tokio::test]
async fn the_screens_end_is_the_viewers() {
    let mut scene = Secure::start().await;
    let mut child = piped(scene.dir.path(), &["vm", "console", "shop", "--vnc"]);
    let mut socket = console(&mut scene).await;
    let mut viewer = TcpStream::connect(address(&mut child).await).await.unwrap();
    say(&mut socket, b"RFB 003.008\n").await;
    assert_eq!(reads(&mut viewer, 12).await, b"RFB 003.008\n");
    close(&mut socket, CloseCode::Right.number(), "").await;
    is_closed(&mut viewer).await;
    assert_eq!(soon("the program ends", child.wait()).await.unwrap().code(), Some(5));
}

#[tokio::test]
async fn consoles_are_listed_and_ended() {
    let scene = Secure::start().await;
    let child = piped(scene.dir.path(), &["console", "list", "--vm", "shop", "-o", "json"]);
    let (code, listed, said) = ended(child).await;
    assert_eq!((code, said.as_str()), (0, ""));
    assert!(listed.contains("\"name\": \"consoles/a\""), "{listed}");
    assert!(listed.contains(controller::guests::SHOP), "{listed}");
    let (code, _, said) = ended(piped(scene.dir.path(), &["console", "end", "a", "-y"])).await;
    assert_eq!((code, said.as_str()), (0, "ended the console a\n"));
    let (code, _, said) = ended(piped(scene.dir.path(), &["console", "end", "a", "--dry-run"])).await;
    assert_eq!((code, said.as_str()), (0, "would end the console a\n"));
    let asked = scene.controller.0.changes.lock().unwrap().clone();
    assert_eq!(asked, ["end a", "would end a"]);
}
