//! What people and other programs see. Tables are for people; JSON and YAML are made from the structs in here, whose
//! fields and order are stable.

pub mod audit;
pub mod console;
pub mod container;
pub mod context;
pub mod grant;
pub mod hardware;
pub mod known;
pub mod link;
pub mod node;
pub mod people;
pub mod pool;
pub mod quantity;
pub mod recording;
pub mod secret;
pub mod session;
pub mod table;
pub mod time;
pub mod token;
pub mod value;
pub mod vm;
pub mod whoami;
pub mod why;

use anyhow::Context as _;
use horcrux_proto::authz::{Privilege, privilege_name};
use serde::Serialize;

use crate::failure::Failure;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    Json,
    Yaml,
}

/// Something that has all three forms.
pub trait View: Serialize {
    /// For people; `now_ms` is what ages are counted from.
    fn table(&self, now_ms: i64) -> String;
}

impl Output {
    /// `view` in this form, with its final newline.
    pub fn render(self, view: &impl View, now_ms: i64) -> Result<String, Failure> {
        match self {
            Self::Table => Ok(view.table(now_ms)),
            Self::Json => {
                let text = serde_json::to_string_pretty(view).context("write JSON")?;
                Ok(text + "\n")
            }
            Self::Yaml => Ok(serde_yaml_ng::to_string(view).context("write YAML")?),
        }
    }
}

/// Text from guests, nodes and servers, made harmless for a terminal: what could steer it or turn the line's direction
/// is shown as an escape.
#[must_use]
pub fn shown(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if c.is_control() || is_invisible(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
        out
    })
}

/// Direction marks, joiners and separators that make a text look like another.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The word for an enum's value: `NODE_STATE_NEVER_SEEN` without `NODE_STATE_` is `never_seen`. What this program doesn't
/// know is `unknown`.
#[must_use]
pub fn word(name: &str, prefix: &str) -> String {
    let word = name.strip_prefix(prefix).unwrap_or(name);
    if word == "UNSPECIFIED" { "unknown".to_owned() } else { word.to_lowercase() }
}

/// `nodes/web1` is `web1` for people.
#[must_use]
pub fn bare(name: &str) -> &str {
    ["nodes/", "vms/", "containers/", "pools/", "consoles/", "recordings/", "links/"]
        .iter()
        .find_map(|p| name.strip_prefix(p))
        .unwrap_or(name)
}

/// A value, or `-`.
#[must_use]
pub fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".to_owned())
}

/// A text from elsewhere, or `-`.
#[must_use]
pub fn text_or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { shown(text) }
}

/// Texts from elsewhere with commas, or `-`.
#[must_use]
pub fn list_or_dash(texts: &[String]) -> String {
    text_or_dash(&texts.join(", "))
}

#[must_use]
pub fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

/// By name; one that this program doesn't know by its number.
#[must_use]
pub fn privileges(wire: &[i32]) -> Vec<String> {
    let name = |&number: &i32| {
        Privilege::try_from(number).map_or_else(|_| format!("privilege {number}"), privilege_name)
    };
    wire.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(shown("web\u{1b}[2J\u{9b}1"), "web\\u{1b}[2J\\u{9b}1");
        assert_eq!(shown("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(shown("Größe 1"), "Größe 1");
    }

    #[test]
    fn enum_values_are_told_as_words() {
        assert_eq!(word("NODE_STATE_NEVER_SEEN", "NODE_STATE_"), "never_seen");
        assert_eq!(word("NODE_STATE_UNSPECIFIED", "NODE_STATE_"), "unknown");
    }
}
