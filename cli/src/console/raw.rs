//! This terminal, handed to somebody else: every key comes as it is typed, and nothing is printed but what is written.

use std::io::{self, Stdin, stdin};
use std::panic;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// The terminal is as it was before when this is dropped, and before a panic is told.
pub(super) struct Raw {
    terminal: Stdin,
    before: Termios,
}

impl Raw {
    /// Of the terminal that keys are read from.
    pub(super) fn start() -> io::Result<Self> {
        let terminal = stdin();
        let before = tcgetattr(&terminal)?;
        let (modes, inner) = (before.clone(), panic::take_hook());
        panic::set_hook(Box::new(move |panic| {
            restore(&stdin(), &modes);
            inner(panic);
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
fn restore(terminal: &Stdin, before: &Termios) {
    // Nothing is left to try where this fails.
    tcsetattr(terminal, OptionalActions::Flush, before).ok();
}
