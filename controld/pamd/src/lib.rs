//! What the controller and `horcrux-pamd` say to each other, and the controller's side of it.
//!
//! The controller has no privilege, so PAM tells it nothing about other people's passwords. `horcrux-pamd` runs with the
//! privilege and does one thing with it: it asks PAM whether a password is right and the account may be used. PAM's modules
//! are foreign code that runs in the asking process; they are in a process of their own for that reason too.
//!
//! Nothing of PAM is in this library, and nothing that isn't safe Rust.
#![forbid(unsafe_code)]

use std::fmt;

use zeroize::Zeroizing;

mod client;
pub mod wire;

pub use client::{AskError, ask};

/// Linux names end at 32 bytes; those of a directory, `name@domain`, don't.
pub const MAX_USER: usize = 256;
/// As much as PAM takes of an answer (`PAM_MAX_RESP_SIZE`).
pub const MAX_PASSWORD: usize = 512;
/// The longest text of an IPv6 address with a zone is 62 bytes.
pub const MAX_HOST: usize = 64;

/// One user, one password: may they come in?
#[derive(Debug)]
pub struct Request {
    pub user: String,
    pub password: Password,
    /// The address that the person comes from, for PAM's own log and rules, and for the bounds on requests. Empty when it
    /// isn't known.
    pub host: String,
    /// The controller knows that it is this user: by a session, or a device that they signed in with before. What strangers
    /// ask doesn't use up what is kept for them.
    pub known: bool,
}

/// Prints nothing and is wiped when dropped.
pub struct Password(Zeroizing<String>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The password is right and the account may be used.
    Accepted {
        /// The name that PAM knows the user by, which may be spelled otherwise than the one that was asked about.
        user: String,
    },
    /// Unknown user, wrong password, locked, expired, password to be changed: one answer, so that nobody learns which.
    Refused,
    /// Too many requests, for this user, from this host or in all. Later it may be answered.
    Busy,
    /// PAM can't be asked, or didn't answer in time. The log of `horcrux-pamd` says why.
    Failed,
}

impl Password {
    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_does_not_hold_the_password() {
        let password = Password::from("hunter2".to_owned());
        let request = Request { user: "alice".to_owned(), password, host: String::new(), known: false };
        assert!(!format!("{request:?}").contains("hunter2"));
    }
}
