//! Exit codes. 0 and 2 (usage) are clap's; the rest tells a script what to do next.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed |
//! | 2 | wrong usage |
//! | 3 | not signed in |
//! | 4 | not found |
//! | 5 | not allowed |
//! | 6 | the controller can't be reached |
//! | 7 | the controller is not the one that was trusted |

use std::process::ExitCode;

use horcrux_transport::client::ConnectError;
use tonic::{Code, Status};

/// The text that `--help` ends with.
pub(crate) const HELP: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not signed in, 4 not found, \
    5 not allowed, 6 controller not reachable, 7 controller not the one that was trusted";

/// The caller has no session.
#[derive(Debug, thiserror::Error)]
#[error("not signed in to {url}: run `horcruxctl login {url}`")]
pub(crate) struct NotSignedIn {
    pub(crate) url: String,
}

/// Tells an error on standard error and says how to exit.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let mut text = String::new();
    for cause in error.chain() {
        let part = match cause.downcast_ref::<Status>() {
            Some(status) => status.message().to_owned(),
            None => cause.to_string(),
        };
        if !part.is_empty() && !text.ends_with(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        if cause.is::<Status>() {
            break;
        }
    }
    eprintln!("horcruxctl: {text}");
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<NotSignedIn>() {
            return 3;
        }
        if let Some(status) = cause.downcast_ref::<Status>() {
            return of_status(status.code());
        }
        if let Some(connect) = cause.downcast_ref::<ConnectError>() {
            return match connect {
                ConnectError::Untrusted { .. } => 7,
                ConnectError::Target(_) => 2,
                ConnectError::Deadline { .. }
                | ConnectError::Unreachable { .. }
                | ConnectError::Tls { .. }
                | ConnectError::Certificate(_)
                | ConnectError::Http { .. } => 6,
            };
        }
    }
    1
}

#[allow(clippy::wildcard_enum_match_arm, reason = "every other code is a plain failure")]
fn of_status(code: Code) -> u8 {
    match code {
        Code::Unauthenticated => 3,
        Code::NotFound => 4,
        Code::PermissionDenied => 5,
        Code::Unavailable => 6,
        Code::InvalidArgument => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_code_is_that_of_the_innermost_cause_that_has_one() {
        let error = Err::<(), _>(Status::not_found("no such node")).context("get a node").unwrap_err();
        assert_eq!(code(&error), 4);
        let error = anyhow::Error::new(NotSignedIn { url: "https://x".into() }).context("list");
        assert_eq!(code(&error), 3);
        assert_eq!(code(&anyhow::anyhow!("x")), 1);
    }
}
