//! Users as people write them: a bare name is a local user's.

/// What stands after the `@` of the controller's own users.
const LOCAL: &str = "local";
/// Who else is on the audit log: the controller itself, and whoever it could not tell.
const NO_USERS: [&str; 2] = ["controller", "unknown"];

/// `alice` is `alice@local`. Names are the same in either case.
#[must_use]
pub fn identity(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    if text.contains('@') { text } else { format!("{text}@{LOCAL}") }
}

/// Who is meant on the audit log, where nodes and the controller act too.
#[must_use]
pub fn actor(text: &str) -> String {
    if text.is_empty() || text.contains('/') || NO_USERS.contains(&text) {
        text.to_owned()
    } else {
        identity(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_a_local_user() {
        assert_eq!(identity("alice"), "alice@local");
        assert_eq!(identity("Alice@corp"), "alice@corp");
        assert_eq!(identity("alice@corp.example@ad"), "alice@corp.example@ad");
    }

    #[test]
    fn others_than_users_act_too() {
        for other in ["controller", "unknown", "nodes/web1", ""] {
            assert_eq!(actor(other), other);
        }
        assert_eq!(actor("alice"), "alice@local");
    }
}
