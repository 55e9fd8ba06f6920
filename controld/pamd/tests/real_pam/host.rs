//! A `horcrux-pamd` in a mount namespace with accounts and PAM services of its own: see `namespace.sh`.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use horcrux_pamd::{Answer, AskError, Password, Request};
use rustix::event::{Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, listen, socket};
use rustix::process::{Pid, Signal, kill_process};

/// Of every account that has one; `namespace.sh` has its hash.
pub(crate) const PASSWORD: &str = "a-long-good-passphrase";

/// Longer than the program takes for any answer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(40);

pub(crate) struct Host {
    dir: tempfile::TempDir,
    program: Child,
}

impl Host {
    /// A program that makes its own socket.
    pub(crate) fn start(service: &str, arguments: &[&str]) -> Self {
        Self::start_with("", service, arguments)
    }

    /// The same with these capabilities only, as setpriv(1) writes them, and a shadow file of mode 0; with "" with all.
    pub(crate) fn start_with(capabilities: &str, service: &str, arguments: &[&str]) -> Self {
        let dir = prepared();
        let socket = dir.path().join("socket");
        let mut command = command(dir.path(), service, arguments);
        command.env("CAPABILITIES", capabilities);
        command.arg("--socket").arg(&socket);
        let host = Self { program: command.spawn().unwrap(), dir };
        host.wait_until("it listens", || host.log().contains("listening"));
        host
    }

    /// A program that is passed its socket, as systemd does it.
    pub(crate) fn activated(service: &str, arguments: &[&str]) -> Self {
        let dir = prepared();
        let listener = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(dir.path().join("socket")).unwrap()).unwrap();
        listen(&listener, 8).unwrap();
        Self::passed(dir, listener, service, arguments)
    }

    /// A program that is passed a socket of `ListenStream=`.
    pub(crate) fn activated_wrongly(service: &str, arguments: &[&str]) -> Self {
        let dir = prepared();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        Self::passed(dir, listener.into(), service, arguments)
    }

    fn passed(dir: tempfile::TempDir, listener: OwnedFd, service: &str, arguments: &[&str]) -> Self {
        let mut command = command(dir.path(), service, arguments);
        command.env("ACTIVATED", "yes").stdin(listener);
        Self { program: command.spawn().unwrap(), dir }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    pub(crate) fn ask(&self, user: &str, password: &str) -> Result<Answer, AskError> {
        self.put(&request(user, password, "192.0.2.1"))
    }

    pub(crate) fn put(&self, request: &Request) -> Result<Answer, AskError> {
        horcrux_pamd::ask(&self.socket(), request, DEADLINE)
    }

    /// All that it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// How often the program's memory holds `text`. A thread that ends takes its signal stack out of the memory, so what
    /// was mapped may be gone when it is read: then it is looked at again.
    pub(crate) fn in_memory(&self, text: &str) -> usize {
        let until = now() + DEADLINE;
        loop {
            match self.search(text) {
                Ok(count) => return count,
                Err(error) => assert!(now() < until, "its memory can't be read: {error}"),
            }
            pause();
        }
    }

    fn search(&self, text: &str) -> io::Result<usize> {
        let process = PathBuf::from(format!("/proc/{}", self.program.id()));
        let memory = File::open(process.join("mem"))?;
        let maps = std::fs::read_to_string(process.join("maps"))?;
        let written = maps.lines().filter(|line| line.contains(" rw"));
        let ranges = written.filter_map(|line| {
            let (from, to) = line.split(' ').next()?.split_once('-')?;
            let from = u64::from_str_radix(from, 16).ok()?;
            Some((from, u64::from_str_radix(to, 16).ok()? - from))
        });
        let found = ranges.map(|(from, length)| {
            let mut bytes = vec![0; usize::try_from(length).unwrap()];
            let read = memory.read_at(&mut bytes, from)?;
            let bytes = &bytes[..read];
            let begins = |at: &usize| bytes[*at] == text.as_bytes()[0];
            Ok((0..read).filter(begins).filter(|at| bytes[*at..].starts_with(text.as_bytes())).count())
        });
        found.sum()
    }

    /// Returns when `count` conversations hang.
    pub(crate) fn until_hanging(&self, count: usize) {
        let hanging = || std::fs::read_dir(self.dir.path().join("hanging")).unwrap().count();
        self.wait_until(&format!("{count} hang"), || hanging() >= count);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.program), signal).unwrap();
    }

    /// How it ended, which it does by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let until = now() + DEADLINE;
        loop {
            match self.program.try_wait().unwrap() {
                Some(status) => return status,
                None if now() < until => pause(),
                None => panic!("it runs on:\n{}", self.log()),
            }
        }
    }

    fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
        let until = now() + DEADLINE;
        while !condition() {
            assert!(now() < until, "not within {DEADLINE:?}: {what}\n{}", self.log());
            pause();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to kill, and what it was is known already.
        self.program.kill().and_then(|()| self.program.wait().map(drop)).unwrap();
    }
}

pub(crate) fn request(user: &str, password: &str, host: &str) -> Request {
    Request {
        user: user.to_owned(),
        password: Password::from(password.to_owned()),
        host: host.to_owned(),
        known: false,
    }
}

/// A connection that has said nothing yet.
pub(crate) fn connected(path: &Path) -> OwnedFd {
    let connection = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    connect(&connection, &SocketAddrUnix::new(path).unwrap()).unwrap();
    connection
}

#[allow(clippy::disallowed_methods, reason = "the tests measure how long answers take")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

fn prepared() -> tempfile::TempDir {
    assert!(rustix::process::geteuid().is_root(), "a mount namespace takes root");
    let dir = tempfile::tempdir().unwrap();
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::copy(crate_dir.join("../../deploy/pam/horcrux"), dir.path().join("horcrux")).unwrap();
    // The linker that Rust needs. libpam is named by its file, because only its headers' package has the short name.
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"]).arg(dir.path().join("module.so"));
    cc.arg(crate_dir.join("tests/real_pam/module.c")).arg("-l:libpam.so.0");
    assert!(cc.status().unwrap().success());
    dir
}

fn command(dir: &Path, service: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_pam/namespace.sh")).arg(dir);
    command.arg(env!("CARGO_BIN_EXE_horcrux-pamd")).args(["--service", service]).args(arguments);
    command.stdin(Stdio::null()).stderr(File::create(dir.join("log")).unwrap());
    command.env("HORCRUX_LOG", "trace");
    command
}

fn pause() {
    let soon = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    poll(&mut [], Some(&soon)).unwrap();
}
