//! A line that is typed without being seen.
//!
//! Echo goes off before the prompt is printed: who sees the prompt may paste at once, and whatever the terminal got before
//! would stand on the screen. The terminal goes on editing the line by itself. Only Ctrl-C is not left to it: the signal
//! would end the process with echo off. It ends the line instead, and the signal is sent once echo is back.

use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;

use horcrux_transport::secret::Secret;
use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

/// What a terminal hands over as one line at most.
const LONGEST_LINE: usize = 4096;

/// Restores the terminal when it is dropped.
struct Hidden<T: AsFd> {
    terminal: T,
    before: Termios,
}

impl<T: AsFd> Hidden<T> {
    fn begin(terminal: T) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ISIG);
        hidden.local_modes.insert(LocalModes::ICANON);
        hidden.special_codes[SpecialCodeIndex::VEOL] = before.special_codes[SpecialCodeIndex::VINTR];
        tcsetattr(&terminal, OptionalActions::Now, &hidden)?;
        Ok(Self { terminal, before })
    }

    /// Ctrl-C, or what this terminal has in its place. Zero: it has none.
    fn interrupt(&self) -> Option<u8> {
        Some(self.before.special_codes[SpecialCodeIndex::VINTR]).filter(|&code| code != 0)
    }
}

impl<T: AsFd> Drop for Hidden<T> {
    fn drop(&mut self) {
        // Nothing is left to try where this fails.
        tcsetattr(&self.terminal, OptionalActions::Now, &self.before).ok();
    }
}

/// Asks on `terminal`, with the prompt on `out`. Ctrl-C ends the process as it would anywhere else.
pub(crate) fn ask(terminal: impl AsFd, out: impl Write, prompt: &str) -> io::Result<Secret> {
    let typed = line(terminal, out, prompt);
    if typed.as_ref().is_err_and(|error| error.kind() == ErrorKind::Interrupted) {
        kill_process(getpid(), Signal::INT)?;
    }
    typed
}

/// [`ErrorKind::Interrupted`] is Ctrl-C.
fn line(terminal: impl AsFd, mut out: impl Write, prompt: &str) -> io::Result<Secret> {
    let hidden = Hidden::begin(terminal)?;
    write!(out, "{prompt}")?;
    out.flush()?;
    let mut typed = vec![0; LONGEST_LINE];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(&hidden.terminal, &mut typed))?;
    typed.truncate(length);
    // The end of the line was not shown either.
    writeln!(out)?;
    if typed.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    if typed.last().copied() == hidden.interrupt() {
        return Err(ErrorKind::Interrupted.into());
    }
    let text = Secret::from(String::from_utf8(typed).map_err(|_| invalid("it is not UTF-8"))?);
    let line = text.expose().trim_end_matches(['\n', '\r']);
    if line.chars().any(char::is_control) {
        return Err(invalid("it holds keys that are no characters"));
    }
    Ok(Secret::from(line.to_owned()))
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

    use super::*;

    /// Types when it sees the prompt.
    struct Typist<'a> {
        keyboard: &'a OwnedFd,
        types: &'a [u8],
        saw: Vec<u8>,
    }

    impl Write for Typist<'_> {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.saw.extend(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            rustix::io::write(self.keyboard, self.types)?;
            Ok(())
        }
    }

    fn terminal() -> (OwnedFd, OwnedFd) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let keyboard = openpt(flags).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let terminal = ioctl_tiocgptpeer(&keyboard, flags).unwrap();
        (keyboard, terminal)
    }

    fn typed(types: &[u8]) -> Result<String, ErrorKind> {
        let (keyboard, terminal) = terminal();
        let before = tcgetattr(&terminal).unwrap();
        assert!(before.local_modes.contains(LocalModes::ECHO));
        let mut typist = Typist { keyboard: &keyboard, types, saw: Vec::new() };
        let asked = line(&terminal, &mut typist, "password: ");
        assert_eq!(typist.saw, b"password: \n");
        let after = tcgetattr(&terminal).unwrap();
        assert_eq!(after.local_modes, before.local_modes, "echo is back");
        let code = |modes: &Termios| modes.special_codes[SpecialCodeIndex::VEOL];
        assert_eq!(code(&after), code(&before));
        // What was echoed would come first.
        rustix::io::write(&terminal, b".").unwrap();
        let mut screen = [0; 64];
        let length = rustix::io::read(&keyboard, &mut screen).unwrap();
        assert_eq!(screen[..length], *b".", "nothing of it was seen");
        asked.map(|text| text.expose().to_owned()).map_err(|error| error.kind())
    }

    #[test]
    fn what_is_pasted_right_after_the_prompt_is_not_seen() {
        assert_eq!(typed(b"pass word\n").as_deref(), Ok("pass word"));
        assert_eq!(typed(b"p\xc3\xa4ss\r").as_deref(), Ok("päss"));
        assert_eq!(typed(b"\n").as_deref(), Ok(""));
    }

    #[test]
    fn the_terminal_edits_the_line() {
        assert_eq!(typed(b"pasx\x7fs\n").as_deref(), Ok("pass"));
        assert_eq!(typed(b"wrong\x15right\n").as_deref(), Ok("right"));
    }

    #[test]
    fn ctrl_c_and_the_end_give_no_secret_and_bring_echo_back() {
        assert_eq!(typed(b"half\x03"), Err(ErrorKind::Interrupted));
        assert_eq!(typed(b"\x03"), Err(ErrorKind::Interrupted));
        assert_eq!(typed(b"\x04"), Err(ErrorKind::UnexpectedEof));
        assert_eq!(typed(b"a\x1b[Db\n"), Err(ErrorKind::InvalidData));
    }
}
