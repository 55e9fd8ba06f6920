//! How values are written on the command line.

use std::time::Duration;

use horcrux_proto::authz::{Privilege, privilege_name, privilege_named, privileges};
use horcrux_transport::client::Target;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// `ROLE@PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleOnPath {
    pub role: String,
    pub path: String,
}

/// Who gets a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    User(String),
    Group(String),
}

/// `SUBJECT=ROLE@PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub subject: Subject,
    pub on: RoleOnPath,
}

/// A moment that is past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    Ago(Duration),
    At { unix_ms: i64 },
}

/// More than anything here can mean; the audit log keeps a little more than a year by default.
const LONGEST: u64 = 10 * 366 * DAY;
const DAY: u64 = 86_400;

impl Since {
    #[must_use]
    pub fn unix_ms(self, now_ms: i64) -> i64 {
        match self {
            Self::Ago(age) => now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
            Self::At { unix_ms } => unix_ms,
        }
    }
}

pub(super) fn target(text: &str) -> Result<Target, String> {
    text.parse().map_err(|e: horcrux_transport::client::ConnectError| e.to_string())
}

/// `90s`, `30m`, `2h`, `1d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text} is not a time: write for instance 90s, 30m, 2h or 1d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => DAY,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds) {
        Some(0) => Err("must be more than nothing".to_owned()),
        Some(seconds) if seconds <= LONGEST => Ok(Duration::from_secs(seconds)),
        Some(_) | None => Err(wrong()),
    }
}

pub(super) fn join_token_ttl(text: &str) -> Result<Duration, String> {
    within(text, 60..=DAY, "a join token works for 1m to 24h")
}

pub(super) fn guest_link_ttl(text: &str) -> Result<Duration, String> {
    within(text, 60..=7 * DAY, "a guest link works for 1m to 7d")
}

pub(super) fn api_token_ttl(text: &str) -> Result<Duration, String> {
    within(text, 3600..=366 * DAY, "an API token lives for 1h to 366d")
}

fn within(text: &str, allowed: std::ops::RangeInclusive<u64>, otherwise: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    if allowed.contains(&ttl.as_secs()) { Ok(ttl) } else { Err(otherwise.to_owned()) }
}

/// `24h`, or `2026-08-04T12:00:00Z`.
pub(super) fn since(text: &str) -> Result<Since, String> {
    if let Ok(age) = duration(text) {
        return Ok(Since::Ago(age));
    }
    let at = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| format!("{text} is no moment: write for instance 24h, 7d or 2026-08-04T12:00:00Z"))?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000)
        .map(|unix_ms| Since::At { unix_ms })
        .map_err(|_| format!("{text} is too far away"))
}

/// `VmAudit`, in any case.
pub(super) fn privilege(text: &str) -> Result<Privilege, String> {
    privilege_named(text).ok_or_else(|| {
        let all: Vec<String> = privileges().map(privilege_name).collect();
        format!("there is no such privilege; there are {}", all.join(", "))
    })
}

/// The first `@` ends the role: a role's name has none, a path may.
pub(super) fn role_on_path(text: &str) -> Result<RoleOnPath, String> {
    match text.split_once('@') {
        Some((role, path)) if !role.is_empty() && !role.contains('/') && !path.is_empty() => {
            Ok(RoleOnPath { role: role.to_owned(), path: path.to_owned() })
        }
        Some(_) | None => Err("write ROLE@PATH, for instance VmUser@/pools/ci".to_owned()),
    }
}

/// The first `=` ends the subject: a path may hold another (`/vms?tag=qa`).
pub(super) fn wanted(text: &str) -> Result<Wanted, String> {
    let wrong = || "write SUBJECT=ROLE@PATH, for instance alice@corp=VmUser@/pools/ci or group:ops=Auditor@/";
    let (subject, on) = text.split_once('=').ok_or_else(wrong)?;
    Ok(Wanted { subject: subject_named(subject).ok_or_else(wrong)?, on: role_on_path(on)? })
}

/// `user:alice@local`, `group:ops`; a bare name is a user.
fn subject_named(text: &str) -> Option<Subject> {
    let (name, subject): (&str, fn(String) -> Subject) = match text.split_once(':') {
        Some(("group", name)) => (name, Subject::Group),
        Some(("user", name)) => (name, Subject::User),
        Some(_) => return None,
        None => (text, Subject::User),
    };
    (!name.is_empty()).then(|| subject(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["", "90", "s", "-1s", "1.5h", "0s", "99999999999999999999d", "999999d", "5ü"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(join_token_ttl("59s").is_err());
        assert!(join_token_ttl("25h").is_err());
        assert!(
            guest_link_ttl("59s").is_err() && guest_link_ttl("8d").is_err() && guest_link_ttl("7d").is_ok()
        );
        assert_eq!(api_token_ttl("30d"), Ok(Duration::from_secs(30 * DAY)));
        assert!(api_token_ttl("59m").is_err());
        assert!(api_token_ttl("367d").is_err());
    }

    #[test]
    fn a_past_moment_is_an_age_or_a_date() {
        assert_eq!(since("24h").unwrap().unix_ms(100_000_000), 100_000_000 - 86_400_000);
        assert_eq!(since("400d").unwrap().unix_ms(0), -400 * 86_400_000);
        assert_eq!(since("1970-01-02T01:00:00.5+01:00"), Ok(Since::At { unix_ms: 86_400_500 }));
        for wrong in ["", "yesterday", "2026-08-04", "2026-13-04T12:00:00Z"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_unknown_privilege_is_answered_with_all_that_exist() {
        assert_eq!(privilege("vmAUDIT"), Ok(Privilege::VmAudit));
        let said = privilege("VmFly").unwrap_err();
        assert!(said.contains("VmAllocate") && said.contains("AlertAudit"), "{said}");
    }

    fn on(role: &str, path: &str) -> RoleOnPath {
        RoleOnPath { role: role.to_owned(), path: path.to_owned() }
    }

    #[test]
    fn a_role_on_a_path() {
        assert_eq!(role_on_path("VmUser@/pools/ci"), Ok(on("VmUser", "/pools/ci")));
        assert_eq!(role_on_path("VmUser@/"), Ok(on("VmUser", "/")));
        assert_eq!(role_on_path("A@/containers/web1/a@b"), Ok(on("A", "/containers/web1/a@b")));
        for wrong in ["", "VmUser", "@/", "VmUser@", "/pools/ci@VmUser"] {
            assert!(role_on_path(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_grant_to_think_about_names_a_user_or_a_group() {
        let user = |name: &str| Subject::User(name.to_owned());
        let read = |text| wanted(text).map(|w| (w.subject, w.on));
        assert_eq!(read("alice@corp=VmUser@/vms"), Ok((user("alice@corp"), on("VmUser", "/vms"))));
        assert_eq!(read("user:alice=VmUser@/vms?tag=qa"), Ok((user("alice"), on("VmUser", "/vms?tag=qa"))));
        assert_eq!(read("group:ops=Auditor@/"), Ok((Subject::Group("ops".to_owned()), on("Auditor", "/"))));
        for wrong in ["", "=A@/", "alice", "alice=A", "group:=A@/", "token:x=A@/", "VmUser@/vms"] {
            assert!(wanted(wrong).is_err(), "{wrong}");
        }
    }
}
