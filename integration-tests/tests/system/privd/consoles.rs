//! Consoles of a real QEMU under a real libvirtd.

use horcrux_integration_tests::lab::{Lab, Work};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;

/// How soon a console has to be dead.
const SOON: Duration = Duration::from_secs(3);
/// A VM that works runs for longer than that in a second, one that waits doesn't.
const WORKS: Duration = Duration::from_millis(300);

struct Scene {
    orders: Orders,
    vm: String,
    privd: Daemon,
    // Outside of the node too: the file system is one.
    dir: TempDir,
    lab: Lab,
}

impl Scene {
    fn start() -> Self {
        let lab = Lab::up(1).unwrap();
        lab.start_libvirtd(1).unwrap();
        let vm = lab.vm(1, "web1", 1, Work::Console).unwrap();
        let (dir, orders) = (tempfile::tempdir().unwrap(), Orders::new());
        for (name, text) in [
            ("controller.toml", orders.controller().to_file().unwrap()),
            ("policy.toml", starting_policy(Mode::Console)),
        ] {
            let file = dir.path().join(name);
            fs::write(&file, text).unwrap();
            let to = format!("/etc/horcrux/privd/{name}");
            lab.exec(1, &["install", "-D", "-m", "644", file.to_str().unwrap(), &to]).unwrap();
        }
        lab.exec(1, &["mkdir", "-p", "/run/horcrux"]).unwrap();
        let privd = Self::privd(&lab, dir.path());
        let scene = Self { orders, vm, privd, dir, lab };
        answers(&scene.socket());
        scene
    }

    fn privd(lab: &Lab, dir: &Path) -> Daemon {
        let mut command = lab.command(1, &program("horcrux-privd").unwrap());
        command.arg("--socket").arg(dir.join("socket")).args(["--allow-uid", "0"]);
        Daemon::start(command, &dir.join("privd.log")).unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn order(&mut self, kind: ConsoleKind) -> Envelope {
        self.orders.open(&self.vm.clone(), kind)
    }

    fn open(&mut self, kind: ConsoleKind) -> OpenedConsole {
        let order = self.order(kind);
        self.orders.opened(&self.socket(), &order)
    }

    /// How long the VM has run on a processor.
    fn ran(&self) -> Duration {
        let told =
            self.lab.exec(1, &["virsh", "-q", "-c", "qemu:///system", "domstats", "--cpu-total", "web1"]);
        let told = told.unwrap();
        let time = told.lines().find_map(|line| line.trim().strip_prefix("cpu.time=")).unwrap();
        Duration::from_nanos(time.parse().unwrap())
    }

    /// Returns once the VM works no more, with how long it had run by then.
    fn waits(&self) -> Duration {
        let mut before = self.ran();
        wait_until("the VM to wait", || {
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            poll(&mut [], Some(&second))?;
            let now = self.ran();
            let ran = now - std::mem::replace(&mut before, now);
            anyhow::ensure!(ran < WORKS, "it ran for {ran:?} in a second");
            Ok(now)
        })
        .unwrap()
    }

    fn hold(&self, is: bool) {
        let verb = if is { "touch" } else { "rm" };
        self.lab.exec(1, &[verb, "/run/horcrux/hold"]).unwrap();
    }
}

/// What comes next, once it holds `wanted`.
fn hear(stream: &OwnedFd, wanted: &str) -> String {
    let until = clock::monotonic() + LONG;
    let mut heard = Vec::new();
    loop {
        let text = || String::from_utf8_lossy(&heard).into_owned();
        assert!(clock::monotonic() < until, "{:?} has no {wanted:?}", text());
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&second)).unwrap();
        let mut some = [0; 4096];
        match rustix::net::recv(stream, &mut some[..], rustix::net::RecvFlags::DONTWAIT) {
            Ok((_, 0)) => panic!("it ended after {:?}", text()),
            Ok((_, count)) => {
                // What is wanted may have begun before.
                let from = heard.len().saturating_sub(wanted.len());
                heard.extend_from_slice(&some[..count]);
                if String::from_utf8_lossy(&heard[from..]).contains(wanted) {
                    return String::from_utf8_lossy(&heard).into_owned();
                }
            }
            Err(rustix::io::Errno::AGAIN) => {}
            Err(errno) => panic!("{errno} after {:?}", text()),
        }
    }
}

fn say(stream: &OwnedFd, text: &str) {
    assert_eq!(rustix::io::write(stream, text.as_bytes()), Ok(text.len()));
}

/// That every copy of a console's socket is dead soon, one that a hostile agent made as well.
fn dies(copy: &OwnedFd) {
    let since = clock::monotonic();
    wait_until("the end of a console", || {
        anyhow::ensure!(is_dead(copy), "it is alive");
        Ok(())
    })
    .unwrap();
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    assert_eq!(rustix::net::send(copy, b"x", rustix::net::SendFlags::NOSIGNAL), Err(rustix::io::Errno::PIPE));
}

fn copy(console: &OpenedConsole) -> OwnedFd {
    console.stream.try_clone().unwrap()
}

#[test]
fn a_vm_s_screen_and_its_serial_line_are_at_the_other_end_and_nothing_listens_for_them() {
    let mut scene = Scene::start();
    let screen = scene.open(ConsoleKind::Vnc);
    assert_eq!(hear(&screen.stream, "\n"), "RFB 003.008\n");
    say(&screen.stream, "RFB 003.008\n");
    // One kind of authentication: none, since nobody but privd can have this socket.
    assert_eq!(hear(&screen.stream, "\u{1}\u{1}"), "\u{1}\u{1}");
    // Another looks on.
    let second = scene.open(ConsoleKind::Vnc);
    hear(&second.stream, "RFB 003.008\n");

    let serial = scene.open(ConsoleKind::Serial);
    say(&serial.stream, "\n");
    hear(&serial.stream, "login:");
    say(&serial.stream, "root\n");
    hear(&serial.stream, "Password:");
    say(&serial.stream, "horcrux\n");
    hear(&serial.stream, "#");
    say(&serial.stream, "expr 6 '*' 7\n");
    hear(&serial.stream, "\n42\r\n");
    // One who doesn't listen has the VM wait: of more than all buffers on the way hold, nothing is lost.
    say(&serial.stream, "seq 1 200000; echo at''end\n");
    let waits = scene.waits();
    let all = hear(&serial.stream, "atend\r\n");
    let numbers = all.lines().filter_map(|line| line.trim().parse::<u64>().ok());
    assert_eq!(numbers.sum::<u64>(), 200_000 * 200_001 / 2);
    let ran = scene.ran() - waits;
    assert!(ran > WORKS, "it had said all before anybody listened: {ran:?}");

    let listening = scene.lab.exec(1, &["ss", "-Htln"]).unwrap();
    assert!(!listening.contains(":59"), "{listening}");
    // Somebody else takes the serial line: the one who had it is told.
    let taken = scene.open(ConsoleKind::Serial);
    dies(&copy(&serial));
    say(&taken.stream, "\n");
    hear(&taken.stream, "#");

    let order = scene.order(ConsoleKind::Spice);
    let answer = scene.orders.answer(&scene.socket(), &order);
    assert!(
        answer.status() == OrderStatus::Failed && answer.reason.contains("no display for spice"),
        "{answer:?}"
    );
    let order = scene.orders.open("aaaaaaaa-0000-4000-8000-0000000000ff", ConsoleKind::Vnc);
    let answer = scene.orders.answer(&scene.socket(), &order);
    assert!(answer.status() == OrderStatus::Failed && answer.reason.contains("find the VM"), "{answer:?}");
}

#[test]
fn every_end_of_a_console_reaches_every_copy_of_its_socket() {
    let mut scene = Scene::start();
    for kind in [ConsoleKind::Vnc, ConsoleKind::Serial] {
        // Ordered.
        let order = scene.order(kind);
        let console = scene.orders.opened(&scene.socket(), &order);
        let kept = copy(&console);
        assert!(!is_dead(&kept) && !is_dead(&console.lease));
        let close = scene.orders.close(console_id(&order));
        assert_eq!(scene.orders.answer(&scene.socket(), &close).status(), OrderStatus::Done);
        dies(&kept);
        dies(&console.lease);

        // The agent's connection.
        let OpenedConsole { stream, lease } = scene.open(kind);
        drop(lease);
        dies(&stream);

        // Its time.
        let mut order = scene.order(kind);
        if let Some(envelope::Operation::ConsoleOpen(open)) = &mut order.operation {
            open.until_unix_ms = clock::unix_ms() + 2000;
        }
        let console = scene.orders.opened(&scene.socket(), &order);
        assert!(!is_dead(&console.stream));
        dies(&console.stream);

        // A hold.
        let console = scene.open(kind);
        scene.hold(true);
        dies(&console.stream);
        let order = scene.order(kind);
        assert_eq!(scene.orders.answer(&scene.socket(), &order).status(), OrderStatus::Forbidden);
        scene.hold(false);

        // privd itself, without a word.
        let console = scene.open(kind);
        scene.lab.exec(1, &["pkill", "-9", "-o", "-x", "horcrux-privd"]).unwrap();
        dies(&console.stream);
        scene.privd = Scene::privd(&scene.lab, scene.dir.path());
        answers(&scene.socket());
    }
    // The VM.
    let (screen, serial) = (scene.open(ConsoleKind::Vnc), scene.open(ConsoleKind::Serial));
    scene.lab.exec(1, &["virsh", "-q", "-c", "qemu:///system", "destroy", "web1"]).unwrap();
    for console in [screen, serial] {
        dies(&console.stream);
        dies(&console.lease);
    }
    wait_until("that no process is left of them", || {
        // pgrep has a status of its own for none.
        let left = scene.lab.exec(1, &["sh", "-c", "pgrep -c -x horcrux-hand || true"])?;
        anyhow::ensure!(left.trim() == "0", "{left}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_vm_that_hangs_costs_its_own_order_alone() {
    let mut scene = Scene::start();
    scene.lab.vm(1, "web2", 2, Work::Console).unwrap();
    let pid = scene.lab.exec(1, &["cat", "/run/libvirt/qemu/web1.pid"]).unwrap();
    scene.lab.exec(1, &["kill", "-STOP", pid.trim()]).unwrap();
    let (socket, order) = (scene.socket(), scene.order(ConsoleKind::Vnc));
    let signed = scene.orders.signer.sign(&order);
    let Submitted::Accepted(hangs) = horcrux_privd::submit(&socket, &signed.encode_to_vec(), LONG).unwrap()
    else {
        panic!("it is not accepted")
    };
    let since = clock::monotonic();
    let other = scene.orders.open("aaaaaaaa-0000-4000-8000-000000000002", ConsoleKind::Vnc);
    let other = scene.orders.opened(&socket, &other);
    hear(&other.stream, "RFB 003.008\n");
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    let answer = hangs.wait(LONG).unwrap().answer;
    assert!(
        answer.status() == OrderStatus::Failed && answer.reason.contains("did not answer within"),
        "{answer:?}"
    );
    scene.lab.exec(1, &["kill", "-CONT", pid.trim()]).unwrap();
}
