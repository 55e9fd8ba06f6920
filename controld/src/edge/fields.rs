//! Fields of requests, checked: what is wrong with one is told by its name.

use horcrux_proto::name::InvalidField;
use horcrux_transport::secret::Secret;
use tonic::Status;

use crate::access::name::{GroupName, RoleName, UserId, is_disruptive};
use crate::access::password::{MAX_BYTES, MIN_CHARS};

const MAX_TEXT: usize = 256;

pub(super) fn user_id(text: &str) -> Result<UserId, Status> {
    text.parse().map_err(|error: InvalidField| Status::invalid_argument(error.to_string()))
}

pub(super) fn group_name(text: &str) -> Result<GroupName, Status> {
    text.parse().map_err(|error: InvalidField| Status::invalid_argument(error.to_string()))
}

pub(super) fn role_name(text: &str) -> Result<RoleName, Status> {
    text.parse().map_err(|error: InvalidField| Status::invalid_argument(error.to_string()))
}

pub(super) fn local_group(text: &str) -> Result<GroupName, Status> {
    let group = group_name(text)?;
    match group.realm() {
        None => Ok(group),
        Some(_) => {
            Err(Status::failed_precondition(format!("groups: who is in {group} is said by its realm")))
        }
    }
}

/// Text that a person wrote for people.
pub(super) fn text(field: &str, text: String) -> Result<String, Status> {
    if text.len() > MAX_TEXT || text.contains(is_disruptive) {
        return Err(Status::invalid_argument(format!(
            "{field}: at most {MAX_TEXT} bytes, no control characters and none that can't be seen"
        )));
    }
    Ok(text)
}

pub(super) fn new_password(field: &str, password: String) -> Result<Secret, Status> {
    if password.chars().count() < MIN_CHARS {
        return Err(Status::invalid_argument(format!("{field}: at least {MIN_CHARS} characters")));
    }
    if password.len() > MAX_BYTES {
        return Err(Status::invalid_argument(format!("{field}: at most {MAX_BYTES} bytes")));
    }
    Ok(Secret::from(password))
}

pub(super) fn listed<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    all.into_iter().map(|one| one.to_string()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_for_people_holds_nothing_that_steers_or_hides() {
        for good in ["", "Ops, Zürich (2nd floor)", "山田 👩 é", &"x".repeat(256)] {
            assert_eq!(text("comment", good.to_owned()).unwrap(), good);
        }
        for bad in [
            '\u{1b}',
            '\n',
            '\u{85}',
            '\u{ad}',
            '\u{61c}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2064}',
            '\u{2066}',
            '\u{2069}',
            '\u{206f}',
            '\u{feff}',
            '\u{fff9}',
            '\u{e0041}',
        ] {
            let status = text("comment", format!("a{bad}b")).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{bad:?}");
            assert!(status.message().starts_with("comment: "), "{status}");
        }
        assert!(text("comment", "x".repeat(257)).is_err());
    }
}
