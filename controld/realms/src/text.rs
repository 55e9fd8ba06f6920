//! Names and texts from elsewhere, checked and bounded.

use std::collections::BTreeSet;

use crate::RealmError;

/// RFC 4519 lets a directory's `uid` have 256 characters.
pub(crate) const NAME_BYTES: usize = 256;
const DISPLAY_CHARS: usize = 256;
/// A token of Active Directory holds 1,015 groups at most: nobody sane is in more.
pub(crate) const GROUPS: usize = 1_000;
const GROUP_BYTES: usize = 128;

/// Whether `name` may be an account's.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES && name.trim() == name && !name.chars().any(char::is_control)
}

/// For people to read.
pub(crate) fn display(text: &str) -> String {
    text.chars().filter(|c| !is_disruptive(*c)).take(DISPLAY_CHARS).collect::<String>().trim().to_owned()
}

/// Whether it steers what shows it, or can't be seen: one name would look as another. Unicode's categories Cc, Cf, Zl and
/// Zp, as of version 16.
#[must_use]
pub fn is_disruptive(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{600}'..='\u{605}'
                | '\u{61c}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{890}'..='\u{891}'
                | '\u{8e2}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{110bd}'
                | '\u{110cd}'
                | '\u{13430}'..='\u{1343f}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0001}'..='\u{e007f}'
        )
}

/// Each once, in order. One that is too long or holds control characters can't be named by a grant here, and is left
/// out; too many are an error, since what would be left out might forbid something.
pub(crate) fn groups(found: impl IntoIterator<Item = String>) -> Result<Vec<String>, RealmError> {
    let usable = |name: &String| is_name(name) && name.len() <= GROUP_BYTES;
    let mut names = BTreeSet::new();
    for name in found.into_iter().filter(usable) {
        names.insert(name);
        if names.len() > GROUPS {
            return Err(too_many_groups());
        }
    }
    Ok(names.into_iter().collect())
}

pub(crate) fn too_many_groups() -> RealmError {
    RealmError::Misconfigured(format!("it names more than {GROUPS} groups of one person"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_no_control_characters_and_no_space_at_its_ends() {
        assert!(is_name("alice") && is_name("Ålice van Dyk") && is_name(&"a".repeat(256)));
        for bad in ["", " alice", "alice ", "al\0ice", "al\nice", &"a".repeat(257)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn text_for_people_is_bounded_and_does_not_steer_a_terminal() {
        assert_eq!(display("Al\u{1b}[31mice\u{202e}\n"), "Al[31mice");
        assert_eq!(display("A\u{200b}l\u{ad}i\u{2060}\u{2028}c\u{feff}\u{e0041}\u{61c}e"), "Alice");
        assert_eq!(display("Zoë Müller 山田 👩"), "Zoë Müller 山田 👩");
        assert_eq!(display(&"é".repeat(300)).chars().count(), 256);
    }

    #[test]
    fn groups_are_each_once_and_not_cut_off() {
        let names = |n: usize| (0..n).map(|i| format!("g{i}"));
        assert_eq!(groups(["b".into(), "a".into(), "b".into()]).unwrap(), ["a", "b"]);
        assert_eq!(groups(["x".repeat(129), "a\nb".into(), "ok".into()]).unwrap(), ["ok"]);
        assert_eq!(groups(names(1000).chain(names(1000))).unwrap().len(), 1000);
        assert!(matches!(groups(names(1001)), Err(RealmError::Misconfigured(_))));
    }
}
