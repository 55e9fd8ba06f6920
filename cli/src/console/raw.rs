//! A terminal, handed to somebody else: every key comes as it is typed, and nothing is printed but what is written.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// The terminal is as it was before when this is dropped, and before a panic is told.
pub(crate) struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    pub(crate) fn start(terminal: impl AsFd) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let before = tcgetattr(&terminal)?;
        let (again, modes, told) = (terminal.try_clone()?, before.clone(), panic::take_hook());
        panic::set_hook(Box::new(move |panic| {
            restore(&again, &modes);
            told(panic);
        }));
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore(&self.terminal, &self.before);
    }
}

/// What was typed for the VM and not read yet is no command for the shell: it is thrown away.
fn restore(terminal: &OwnedFd, before: &Termios) {
    // Nothing is left to try where this fails.
    tcsetattr(terminal, OptionalActions::Flush, before).ok();
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::thread;

    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::LocalModes;

    use super::*;

    #[test]
    fn a_panic_is_told_on_a_terminal_that_was_given_back() {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let keyboard = openpt(flags).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let terminal = ioctl_tiocgptpeer(&keyboard, flags).unwrap();
        let echoes = |terminal: &OwnedFd| tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ECHO);
        let (seen, looks) = (Arc::new(Mutex::new(None)), terminal.try_clone().unwrap());
        let sees = Arc::clone(&seen);
        panic::set_hook(Box::new(move |_| *sees.lock().unwrap() = Some(echoes(&looks))));
        let raw = Raw::start(&terminal).unwrap();
        assert!(!echoes(&terminal));
        thread::spawn(|| panic!("of another thread, which unwinds nothing here")).join().unwrap_err();
        drop(panic::take_hook());
        assert_eq!(*seen.lock().unwrap(), Some(true));
        drop(raw);
        assert!(echoes(&terminal));
    }
}
