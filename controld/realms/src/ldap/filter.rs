//! Search filters. What is typed or comes from the directory is only ever the value in one, escaped as RFC 4515 wants.

use ldap3::{ldap_escape, parse_filter};

/// `(attribute=value)`, and `also` where there is more to ask.
pub(super) fn equals(attribute: &str, value: &str, also: Option<&str>) -> String {
    let value = ldap_escape(value);
    match also {
        Some(also) => format!("(&({attribute}={value}){also})"),
        None => format!("({attribute}={value})"),
    }
}

/// Whether `text` is one whole filter.
pub(super) fn is_filter(text: &str) -> bool {
    text.starts_with('(') && text.ends_with(')') && parse_filter(text).is_ok()
}

/// Whether `text` is the name of an attribute, or one with a matching rule such as
/// `member:1.2.840.113556.1.4.1941:`, with which Active Directory looks through nested groups.
pub(super) fn is_attribute(text: &str) -> bool {
    let plain = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let rule = |oid: &str| !oid.is_empty() && oid.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match text.split_once(':') {
        None => plain(text),
        Some((name, rest)) => plain(name) && rest.strip_suffix(':').is_some_and(rule),
    }
}

#[cfg(test)]
mod tests {
    use ldap3::asn1::{ASNTag as _, PL, StructureTag, Tag};
    use proptest::prelude::*;

    use super::*;

    /// A filter as it goes over the wire, with the values in it taken out.
    fn shape(filter: &str) -> (String, Vec<Vec<u8>>) {
        fn walk(tag: &StructureTag, shape: &mut String, values: &mut Vec<Vec<u8>>) {
            shape.push_str(&format!("{:?}{}", tag.class, tag.id));
            match &tag.payload {
                PL::P(value) => values.push(value.clone()),
                PL::C(inner) => {
                    shape.push('(');
                    inner.iter().for_each(|each| walk(each, shape, values));
                    shape.push(')');
                }
            }
        }
        let parsed: Tag = parse_filter(filter).unwrap_or_else(|()| panic!("{filter}"));
        let (mut shape, mut values) = (String::new(), Vec::new());
        walk(&parsed.into_structure(), &mut shape, &mut values);
        (shape, values)
    }

    fn is_inert(name: &str) {
        for also in [None, Some("(objectClass=person)")] {
            let (plain, mut expected) = shape(&equals("uid", "alice", also));
            expected[1] = name.as_bytes().to_vec();
            assert_eq!(shape(&equals("uid", name, also)), (plain, expected), "{name:?}");
        }
    }

    #[test]
    fn names_that_look_like_filters_are_values() {
        for name in ["*", "*)(uid=alice", "alice)(|(uid=*", "\\2a", "a\\", ")", "(", "\0", "é)\u{0}(", ""] {
            is_inert(name);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn no_name_changes_the_shape_of_a_filter(name in any::<String>()) {
            is_inert(&name);
        }

        #[test]
        fn nor_does_one_made_of_what_has_a_meaning_in_filters(name in r"[()*\\&|!=~<>:\x00 a-z]{0,24}") {
            is_inert(&name);
        }
    }

    #[test]
    fn settings_are_whole_filters_and_attributes() {
        assert!(is_filter("(&(objectClass=user)(!(userAccountControl:1.2.840.113556.1.4.803:=2)))"));
        for wrong in ["", "objectClass=user", "(a=b)(c=d)", "(a=b", "(a=b))"] {
            assert!(!is_filter(wrong), "{wrong}");
        }
        assert!(is_attribute("sAMAccountName") && is_attribute("member:1.2.840.113556.1.4.1941:"));
        for wrong in ["", "uid)", "uid=*", "9a", "member:", "member::", "member:x:", "member:1.2"] {
            assert!(!is_attribute(wrong), "{wrong}");
        }
    }
}
