//! What such programs have on their command lines alike.

use std::ffi::CString;
use std::io;
use std::time::Duration;

use clap::Args;
use rustix::process::Uid;

use crate::accounts;

/// Who may ask. At least one.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Allowed {
    /// A user id that may ask; others are dropped unanswered. May be repeated
    #[arg(long, value_name = "UID", value_parser = clap::value_parser!(u32).range(..i64::from(u32::MAX)))]
    allow_uid: Vec<u32>,
    /// A user that may ask, by name. May be repeated
    #[arg(long, value_name = "NAME")]
    allow_user: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum UnknownUser {
    #[error("there is no user {0}")]
    None(String),
    #[error("look up user {name}")]
    LookUp {
        name: String,
        #[source]
        source: io::Error,
    },
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a number and s, m or h")]
pub struct InvalidDuration;

impl Allowed {
    pub fn uids(self) -> Result<Vec<Uid>, UnknownUser> {
        let mut uids: Vec<Uid> = self.allow_uid.into_iter().map(Uid::from_raw).collect();
        for name in self.allow_user {
            let found = CString::new(name.as_str()).map_err(io::Error::from).and_then(|c| accounts::uid(&c));
            match found {
                Ok(Some(uid)) => uids.push(uid),
                Ok(None) => return Err(UnknownUser::None(name)),
                Err(source) => return Err(UnknownUser::LookUp { name, source }),
            }
        }
        Ok(uids)
    }
}

/// A whole number with its unit: `90s`, `5m`, `1h`.
pub fn duration(text: &str) -> Result<Duration, InvalidDuration> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let found = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
    let (count, seconds) = found.ok_or(InvalidDuration)?;
    let count: u32 = count.parse().ok().filter(|&count| count > 0).ok_or(InvalidDuration)?;
    Ok(Duration::from_secs(u64::from(count) * seconds))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        allowed: Allowed,
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for text in ["5", "0s", "-1m", "m", "", "5d"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn somebody_has_to_be_allowed() {
        assert!(Cli::try_parse_from(["x"]).is_err());
        assert!(Cli::try_parse_from(["x", "--allow-uid", "4294967295"]).is_err());
        let both = Cli::try_parse_from(["x", "--allow-uid", "7", "--allow-user", "root"]).unwrap();
        assert_eq!(both.allowed.uids().unwrap(), [Uid::from_raw(7), Uid::ROOT]);
        let nobody = Cli::try_parse_from(["x", "--allow-user", "nobody-has-this-name"]).unwrap();
        assert!(matches!(nobody.allowed.uids(), Err(UnknownUser::None(_))));
    }
}
