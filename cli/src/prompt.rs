//! Asking a person. Never without one: a script is told which option to give.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use horcrux_transport::secret::Secret;

/// A secret from a file (`-`: standard input), or typed without being shown.
pub(crate) fn secret(what: &str, file: Option<&Path>, option: &str) -> anyhow::Result<Secret> {
    let text = match file {
        Some(path) if path.as_os_str() == "-" => std::io::read_to_string(std::io::stdin())?,
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?,
        None if std::io::stdin().is_terminal() => rpassword::prompt_password(format!("{what}: "))?,
        None => bail!("no terminal to ask for the {what} on: give {option}"),
    };
    Ok(text.trim_end_matches(['\n', '\r']).to_owned().into())
}

/// Whether the person agrees.
pub(crate) fn agree(question: &str, option: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("no terminal to ask on: give {option}");
    }
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
