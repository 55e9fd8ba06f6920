//! Errors as people read them.

use std::error::Error;
use std::fmt::{self, Write as _};

/// An error with all its causes, each once, separated by `: `. For logs and for the CLI. Parts of it may come from the
/// other end of a connection: what could steer a terminal is shown escaped.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        write!(f, "{}", Plain(&last))?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some libraries print their cause themselves.
            if !last.ends_with(&text) {
                write!(f, ": {}", Plain(&text))?;
            }
            last = text;
            next = cause.source();
        }
        Ok(())
    }
}

struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\n' => f.write_char(c),
            c if c.is_control() => write!(f, "{}", c.escape_unicode()),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_ref().map(|cause| cause.as_ref() as &dyn Error)
        }
    }

    #[test]
    fn each_cause_is_told_once() {
        let io = Layer("no such file", None);
        let wrapped = Layer("read x: no such file", Some(Box::new(io)));
        let top = Layer("start", Some(Box::new(wrapped)));
        assert_eq!(Chain(&top).to_string(), "start: read x: no such file");
    }

    #[test]
    fn what_a_peer_said_steers_no_terminal() {
        let told = Chain(&Layer("refused: \u{1b}[2J\u{9b}1m", None)).to_string();
        assert_eq!(told, "refused: \\u{1b}[2J\\u{9b}1m");
    }
}
