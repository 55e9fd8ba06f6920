//! What a directory tells of a person, and the names in it.

use ldap3::SearchEntry;

/// What is read of a person's entry. Active Directory and OpenLDAP tell different ones of these.
pub(super) const UUID: &str = "entryUUID";
pub(super) const GUID: &str = "objectGUID";
pub(super) const CONTROL: &str = "userAccountControl";
pub(super) const LOCKED: &str = "pwdAccountLockedTime";
pub(super) const MEMBER_OF: &str = "memberOf";
pub(super) const DISPLAY_NAME: &str = "displayName";
pub(super) const COMMON_NAME: &str = "cn";

/// ADS_UF_ACCOUNTDISABLE.
const ACCOUNT_DISABLED: u32 = 0x2;

/// Attribute names are the same in any case, and a server may spell them in its own.
pub(super) fn values<'a>(entry: &'a SearchEntry, attribute: &str) -> &'a [String] {
    let found = entry.attrs.iter().find(|(name, _)| name.eq_ignore_ascii_case(attribute));
    found.map_or(&[], |(_, values)| values)
}

fn bytes(entry: &SearchEntry, attribute: &str) -> Option<Vec<u8>> {
    let binary = entry.bin_attrs.iter().find(|(name, _)| name.eq_ignore_ascii_case(attribute));
    let binary = binary.and_then(|(_, values)| values.first()).cloned();
    // Sixteen bytes may happen to be text.
    binary.or_else(|| values(entry, attribute).first().map(|text| text.as_bytes().to_vec()))
}

/// What names the person for good.
pub(super) fn subject(entry: &SearchEntry) -> String {
    if let Some(uuid) = values(entry, UUID).first() {
        return uuid.to_ascii_lowercase();
    }
    bytes(entry, GUID).and_then(|raw| guid(&raw)).unwrap_or_else(|| entry.dn.clone())
}

/// As Windows writes it: the first three parts have their lowest byte first.
fn guid(raw: &[u8]) -> Option<String> {
    let b: &[u8; 16] = raw.try_into().ok()?;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Some(format!(
        "{}-{}-{}-{}-{}",
        hex(&[b[3], b[2], b[1], b[0]]),
        hex(&[b[5], b[4]]),
        hex(&[b[7], b[6]]),
        hex(&b[8..10]),
        hex(&b[10..])
    ))
}

/// Whether the directory says that nobody may use this account. Read after the password was right: a server that keeps
/// locks takes a lapsed one away by then.
pub(super) fn is_disabled(entry: &SearchEntry) -> bool {
    let disabled = values(entry, CONTROL)
        .iter()
        // One that can't be read is taken for the worst.
        .any(|flags| flags.parse::<u32>().map_or(true, |flags| flags & ACCOUNT_DISABLED != 0));
    disabled || !values(entry, LOCKED).is_empty()
}

/// The directory's own spelling of what was typed.
pub(super) fn name(entry: &SearchEntry, attribute: &str, typed: &str) -> Option<String> {
    let all = values(entry, attribute);
    let same = |value: &&String| value.to_lowercase() == typed.to_lowercase();
    all.iter().find(same).or_else(|| all.first()).cloned()
}

/// A distinguished name (RFC 4514): pairs of attribute and value, all in lower case but for the first value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dn {
    /// The first value, as it is spelled.
    pub(super) first: String,
    pairs: Vec<(String, String)>,
}

impl Dn {
    /// `None` where it isn't one, has no parts, or has parts of several pairs or in hex: no directory names groups so.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut pairs = Vec::new();
        let mut first = None;
        let mut rest = text.chars().peekable();
        loop {
            let mut attribute = String::new();
            loop {
                match rest.next()? {
                    '=' => break,
                    c if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ' ') => attribute.push(c),
                    _ => return None,
                }
            }
            if attribute.trim().is_empty() {
                return None;
            }
            let value = value(&mut rest)?;
            first.get_or_insert_with(|| value.clone());
            pairs.push((attribute.trim().to_ascii_lowercase(), value.to_lowercase()));
            match rest.next() {
                None => return Some(Self { first: first?, pairs }),
                Some(',') => {}
                Some(_) => return None,
            }
        }
    }

    /// Whether the first pair is of `attribute` and the name lies below `base`.
    pub(super) fn is_named_below(&self, attribute: &str, base: Option<&Self>) -> bool {
        let named = self.pairs.first().is_some_and(|(name, _)| name.eq_ignore_ascii_case(attribute));
        named
            && base
                .is_none_or(|base| self.pairs.len() > base.pairs.len() && self.pairs.ends_with(&base.pairs))
    }
}

/// Up to the comma that ends it, unescaped.
fn value(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut bytes = Vec::new();
    // Spaces at the end are no part of it, unless escaped.
    let mut kept = 0;
    while let Some(&c) = rest.peek() {
        if c == ',' {
            break;
        }
        rest.next();
        match c {
            '\\' => {
                let escaped = rest.next()?;
                match (escaped.to_digit(16), rest.peek().and_then(|c| c.to_digit(16))) {
                    (Some(high), Some(low)) => {
                        rest.next();
                        bytes.push(u8::try_from(high * 16 + low).ok()?);
                    }
                    _ => bytes.extend(escaped.encode_utf8(&mut [0; 4]).bytes()),
                }
                kept = bytes.len();
            }
            '+' | '"' | ';' | '<' | '>' | '\0' => return None,
            '#' if bytes.is_empty() => return None,
            ' ' if bytes.is_empty() => {}
            ' ' => bytes.push(b' '),
            c => {
                bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
                kept = bytes.len();
            }
        }
    }
    bytes.truncate(kept);
    String::from_utf8(bytes).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use ldap3::dn_escape;
    use proptest::prelude::*;

    use super::*;

    fn entry(attributes: &[(&str, &str)]) -> SearchEntry {
        let mut attrs: HashMap<String, Vec<String>> = HashMap::new();
        for (name, value) in attributes {
            attrs.entry((*name).to_owned()).or_default().push((*value).to_owned());
        }
        SearchEntry { dn: "uid=alice,dc=x".to_owned(), attrs, bin_attrs: HashMap::new() }
    }

    #[test]
    fn a_person_is_named_by_what_does_not_change() {
        assert_eq!(subject(&entry(&[("entryuuid", "ABCD-01")])), "abcd-01");
        assert_eq!(subject(&entry(&[])), "uid=alice,dc=x");
        let mut windows = entry(&[]);
        let raw = vec![
            0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
        ];
        windows.bin_attrs.insert("objectGUID".to_owned(), vec![raw]);
        assert_eq!(subject(&windows), "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(
            subject(&entry(&[("objectGUID", "sixteen letters.")])),
            "74786973-6565-206e-6c65-74746572732e"
        );
    }

    #[test]
    fn disabled_and_locked_accounts_are_seen() {
        assert!(!is_disabled(&entry(&[])) && !is_disabled(&entry(&[("userAccountControl", "512")])));
        assert!(is_disabled(&entry(&[("useraccountcontrol", "514")])));
        assert!(is_disabled(&entry(&[("userAccountControl", "?")])));
        assert!(is_disabled(&entry(&[("pwdAccountLockedTime", "000001010000Z")])));
    }

    #[test]
    fn a_name_is_spelled_as_in_the_directory() {
        let two = entry(&[("uid", "al"), ("uid", "Alice")]);
        assert_eq!(name(&two, "UID", "ALICE").unwrap(), "Alice");
        assert_eq!(name(&two, "uid", "other").unwrap(), "al");
        assert_eq!(name(&two, "mail", "other"), None);
    }

    #[test]
    fn a_group_is_known_by_where_it_lies() {
        let base = Dn::parse("OU=Groups, DC=corp,DC=example").unwrap();
        let group = Dn::parse(r"CN=Ops\, west \2b east,ou=groups,dc=corp,dc=example").unwrap();
        assert_eq!(group.first, "Ops, west + east");
        assert!(group.is_named_below("cn", Some(&base)) && !group.is_named_below("ou", Some(&base)));
        let elsewhere = Dn::parse(r"cn=admins,ou=x,ou=groups\,dc=corp,dc=example").unwrap();
        assert!(!elsewhere.is_named_below("cn", Some(&base)) && elsewhere.is_named_below("cn", None));
        assert!(!base.is_named_below("ou", Some(&base)));
        for wrong in
            ["", "cn", "cn=", "cn=a+sn=b,dc=x", "cn=#04", "cn=a,", "cn=\"a\"", "c(n=a", "cn=a\\", "=a"]
        {
            assert_eq!(Dn::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn any_value_is_found_again_in_a_name_where_it_is_escaped(
            value in r#"[ a-z#+,;<>="\\\x00éß]{0,8}[a-zé=,\\]"#,
        ) {
            let parsed = Dn::parse(&format!("cn={},ou=groups,dc=x", dn_escape(value.as_str())));
            let parsed = parsed.unwrap_or_else(|| panic!("{value:?}"));
            prop_assert_eq!(&parsed.first, &value);
            prop_assert!(parsed.is_named_below("cn", Dn::parse("ou=groups,dc=x").as_ref()));
        }

        #[test]
        fn no_text_makes_it_stumble(text in any::<String>()) {
            Dn::parse(&text);
        }
    }
}
