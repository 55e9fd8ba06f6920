//! The field that an error names, in the words of the command line. The controller names it as the contract does; people
//! never see the contract.

/// What a field was asked as: the prompt, or the option. Those that are not here are called alike.
const WORDS: &[(&str, &str)] = &[
    ("add", "TAG"),
    ("add_members", "what to add"),
    ("challenge_id", "sign-in"),
    ("checkpoints", "--checkpoint"),
    ("comment", "--comment"),
    ("display_name", "--display-name"),
    ("flow_id", "sign-in"),
    ("grant_id", "ID"),
    ("grants", "--grant"),
    ("groups", "--group"),
    ("networks", "--network"),
    ("new_password", "new password"),
    ("node_name", "node"),
    ("not_after_unix_ms", "--not-after"),
    ("old_password", "old password"),
    ("privileges", "--privilege"),
    ("reason", "--reason"),
    ("remove", "--remove"),
    ("remove_members", "what to remove"),
    ("session_id", "ID"),
    ("setup_code", "setup code"),
    ("since_unix_ms", "--since"),
    ("subject", "--user or --group"),
    ("token_id", "ID"),
    ("ttl_seconds", "how long it lasts"),
    ("username", "user"),
];

/// `old_password: this is wrong` as `old password: this is wrong`; a text that names no field stays.
#[must_use]
pub fn in_words(said: &str) -> String {
    let Some((named, rest)) = said.split_once(": ") else { return said.to_owned() };
    let fields: Vec<&str> = named.split(", ").collect();
    if fields.iter().any(|field| !is_field(field)) {
        return said.to_owned();
    }
    let words: Vec<String> = fields.into_iter().map(word).collect();
    format!("{}: {rest}", words.join(", "))
}

/// As the contract writes names.
fn is_field(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn word(field: &str) -> String {
    let known = WORDS.iter().find(|(name, _)| *name == field);
    known.map_or_else(|| field.replace('_', " "), |(_, word)| (*word).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_called_as_it_was_asked_for() {
        for (said, words) in [
            ("old_password: this is not your password", "old password: this is not your password"),
            ("request_id: at most 128 bytes", "request id: at most 128 bytes"),
            ("not_after_unix_ms: it is past", "--not-after: it is past"),
            ("add_members, remove_members: at most 1000", "what to add, what to remove: at most 1000"),
            ("path: expected /, /nodes/NODE", "path: expected /, /nodes/NODE"),
        ] {
            assert_eq!(in_words(said), words);
        }
    }

    #[test]
    fn what_names_no_field_stays_as_it_is() {
        for said in [
            "",
            "the role Op does not exist",
            "2 VMs fit \"web\": vms/1, vms/2",
            "too many failures: wait 8 seconds",
            "Old_password: x",
        ] {
            assert_eq!(in_words(said), said);
        }
    }
}
