//! Who people are, asked elsewhere: in an LDAP directory or at an OpenID provider. Knows nothing of sessions or stores.
//!
//! What comes from there is data: names are checked, texts bounded and rid of control characters, and nothing of it is
//! taken as an address, a filter or a name in a directory without being escaped or checked first. A person whose groups
//! can't all be known isn't signed in with some of them: what is missing may be the group that forbids.
#![forbid(unsafe_code)]

pub mod ldap;
pub mod oidc;
mod text;

use std::error::Error;

pub use text::is_disruptive;

/// A person as another system knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Names this person in the realm for good, whatever they are called. In a directory `entryUUID` or `objectGUID`,
    /// or the entry's own name where it has neither; at an OpenID provider `ISSUER SUBJECT`.
    pub subject: String,
    /// What people call the account: at most 256 bytes, without control characters and without a space at either end.
    /// A directory's own spelling, so that `ALICE` and `alice` are one.
    pub name: String,
    /// For people to read; at most 256 characters.
    pub display_name: String,
    /// By name, each once, in order; at most 1000 of at most 128 bytes.
    pub groups: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum RealmError {
    /// One text for all reasons: what it was is for the log alone.
    #[error("sign-in is refused")]
    Refused(#[source] Refusal),
    #[error("the realm can't be asked at the moment")]
    Unavailable(#[source] BoxError),
    /// It won't get better by itself.
    #[error("the realm is not set up right: {0}")]
    Misconfigured(String),
}

/// Why somebody was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the user name is not one")]
    BadName,
    #[error("the password is empty or too long")]
    BadPassword,
    #[error("unknown user")]
    UnknownUser,
    #[error("the name fits more than one entry")]
    Ambiguous,
    #[error("the directory refuses the password (result {0})")]
    Password(u32),
    #[error("the account is disabled or locked")]
    Disabled,
    #[error("the answer belongs to another sign-in")]
    State,
    #[error("the provider refuses: {0}")]
    Provider(String),
    #[error("the identity token is not valid")]
    Token(#[source] BoxError),
    #[error("user information is of somebody else")]
    OtherSubject,
}

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

impl RealmError {
    pub(crate) fn unavailable(cause: impl Into<BoxError>) -> Self {
        Self::Unavailable(cause.into())
    }
}
