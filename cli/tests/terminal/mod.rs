//! A terminal with a person at it.
#![allow(dead_code, reason = "each test program uses its part")]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

pub(crate) struct Terminal {
    /// The person's end.
    person: OwnedFd,
    /// The programs'.
    programs: OwnedFd,
}

/// What the terminal shows, in order.
pub(crate) struct Screen {
    file: tokio::fs::File,
    shown: String,
}

const SOON: Duration = Duration::from_secs(20);
/// How often a state that tells nobody of its changes is looked at.
const LOOK: Duration = Duration::from_millis(5);

impl Terminal {
    pub(crate) fn open() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let person = openpt(flags).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let programs = ioctl_tiocgptpeer(&person, flags).unwrap();
        Self { person, programs }
    }

    pub(crate) fn run(&self, mut command: Command) -> Child {
        let end = || Stdio::from(self.programs.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap()
    }

    pub(crate) fn types(&self, keys: &[u8]) {
        assert_eq!(rustix::io::write(&self.person, keys).unwrap(), keys.len());
    }

    pub(crate) fn resize(&self) {
        tcsetwinsize(&self.person, Winsize { ws_row: 50, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    }

    pub(crate) fn screen(&self) -> Screen {
        let file = tokio::fs::File::from_std(File::from(self.person.try_clone().unwrap()));
        Screen { file, shown: String::new() }
    }

    /// All that a program may change.
    pub(crate) fn modes(&self) -> String {
        format!("{:?}", tcgetattr(&self.programs).unwrap())
    }

    /// Waits until keys come as they are typed.
    pub(crate) async fn is_raw(&self) {
        let raw = async {
            while tcgetattr(&self.programs).unwrap().local_modes.contains(LocalModes::ICANON) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(SOON, raw).await.expect("a raw terminal");
    }
}

impl Screen {
    /// Waits until `text` was shown, behind what was waited for before.
    pub(crate) async fn shows(&mut self, text: &str) {
        let read = async {
            loop {
                if let Some(at) = self.shown.find(text) {
                    self.shown.drain(..at + text.len());
                    return;
                }
                let mut bytes = [0; 1024];
                let length = self.file.read(&mut bytes).await.unwrap();
                self.shown.push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        };
        let shown = tokio::time::timeout(SOON, read).await;
        assert!(shown.is_ok(), "{text:?} is not in {:?}", self.shown);
    }
}
