//! Asking a person, and reading secrets that are not typed. Secrets come from a terminal without echo, a file or
//! standard input; never from the command line or the environment, which other processes can read.

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use horcrux_transport::secret::Secret;

use crate::failure::Failure;
use crate::hidden;

/// Longer than any secret, so that a wrong file is not read whole.
const MAX_SECRET_BYTES: u64 = 4096;

/// Someone can be asked.
#[must_use]
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// A secret from `file` (`-`: standard input), or typed without echo. `instead` is the option that would have helped
/// where nobody can be asked.
pub fn secret(what: &str, file: Option<&Path>, instead: &str) -> Result<Secret, Failure> {
    match file {
        Some(path) if path == Path::new("-") => {
            Ok(first_line(io::stdin().lock()).context("read standard input")?)
        }
        Some(path) => {
            let doing = || format!("read the {what} from {}", path.display());
            let opened = fs::File::open(path).with_context(doing)?;
            Ok(first_line(opened).with_context(doing)?)
        }
        None if is_interactive() => {
            let typed = hidden::ask(io::stdin(), io::stderr(), &format!("{what}: "));
            Ok(typed.with_context(|| format!("ask for the {what}"))?)
        }
        None => Err(cannot_ask(what, instead)),
    }
}

/// A secret that is new. Typed twice, because nobody can see what was typed.
pub fn new_password(what: &str, file: Option<&Path>, instead: &str) -> Result<Secret, Failure> {
    let first = secret(what, file, instead)?;
    if file.is_none() {
        let second = secret(&format!("{what} again"), None, instead)?;
        if first.expose() != second.expose() {
            return Err(Failure::Usage("the two passwords differ".to_owned()));
        }
    }
    Ok(first)
}

/// The text of a file, or of standard input (`-`), that is no secret and at most `limit` bytes long.
pub fn text(path: &Path, limit: u64) -> Result<String, Failure> {
    let read = |source: &mut dyn io::Read| -> anyhow::Result<String> {
        let mut text = String::new();
        source.take(limit + 1).read_to_string(&mut text)?;
        anyhow::ensure!(text.len() as u64 <= limit, "it is longer than {limit} bytes");
        Ok(text)
    };
    if path == Path::new("-") {
        return Ok(read(&mut io::stdin().lock()).context("read standard input")?);
    }
    let doing = || format!("read {}", path.display());
    let mut opened = fs::File::open(path).with_context(doing)?;
    Ok(read(&mut opened).with_context(doing)?)
}

/// Refuses to read several secrets from standard input: it holds one.
pub fn one_from_stdin(files: &[Option<&Path>]) -> Result<(), Failure> {
    if files.iter().filter(|&&file| file == Some(Path::new("-"))).count() > 1 {
        return Err(Failure::Usage("standard input holds one secret: pass the other as a file".to_owned()));
    }
    Ok(())
}

/// A line that may be seen.
pub fn line(what: &str, instead: &str) -> Result<String, Failure> {
    if !is_interactive() {
        return Err(cannot_ask(what, instead));
    }
    ask(&format!("{what}: "))
}

/// A line that may be seen; `usual` when nothing is typed.
pub fn line_or(what: &str, usual: &str) -> Result<String, Failure> {
    let typed = ask(&format!("{what} [{usual}]: "))?;
    Ok(if typed.is_empty() { usual.to_owned() } else { typed })
}

/// Yes or no; no when anything else is typed.
pub fn agrees(question: &str, instead: &str) -> Result<bool, Failure> {
    if !is_interactive() {
        return Err(cannot_ask("your consent", instead));
    }
    let answer = ask(&format!("{question} [yes/no] "))?;
    Ok(matches!(answer.to_lowercase().as_str(), "y" | "yes"))
}

fn cannot_ask(what: &str, instead: &str) -> Failure {
    Failure::Usage(format!("{what} is needed and standard input is not a terminal: pass {instead}"))
}

fn ask(prompt: &str) -> Result<String, Failure> {
    let mut stderr = io::stderr();
    let mut answer = String::new();
    let asked = write!(stderr, "{prompt}").and_then(|()| stderr.flush());
    asked.and_then(|()| io::stdin().lock().read_line(&mut answer)).context("ask on the terminal")?;
    Ok(answer.trim().to_owned())
}

fn first_line(source: impl io::Read) -> anyhow::Result<Secret> {
    let mut text = String::new();
    source.take(MAX_SECRET_BYTES).read_to_string(&mut text)?;
    let line = text.lines().next().unwrap_or_default().to_owned();
    // The whole text may hold more than the line; it is wiped like the line.
    drop(Secret::from(text));
    anyhow::ensure!(!line.is_empty(), "it is empty");
    Ok(Secret::from(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_the_first_line_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        fs::write(&path, "pass word \r\nsecond\n").unwrap();
        assert_eq!(secret("password", Some(&path), "").unwrap().expose(), "pass word ");
        fs::write(&path, "\n").unwrap();
        assert!(secret("password", Some(&path), "").is_err());
    }

    #[test]
    fn where_nobody_can_be_asked_the_error_says_what_to_pass() {
        if is_interactive() {
            return;
        }
        let failure = secret("password", None, "--password-file F").unwrap_err();
        assert!(failure.to_string().contains("pass --password-file F"));
        assert_eq!(failure.exit(), crate::exit::Exit::Usage);
        assert!(agrees("Delete?", "--yes").is_err());
    }
}
