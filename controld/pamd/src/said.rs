//! What PAM's return codes mean for the log. The one who asked isn't told.

use crate::sys::pam::No;

/// How far a transaction came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Start,
    Authenticate,
    Account,
    /// Both went well, and the user's name can't be had.
    Name,
}

/// A return code of Linux-PAM, `<security/_pam_types.h>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) i32);

impl Stage {
    /// What `code`, returned at this stage, comes to.
    pub(crate) fn done(self, code: i32) -> Result<(), No> {
        if Code(code) == Code::SUCCESS { Ok(()) } else { Err(No { stage: self, code: Code(code) }) }
    }
}

impl Code {
    pub(crate) const SUCCESS: Self = Self(0);

    /// Whether the fault is the host's rather than the user's.
    pub(crate) fn is_fault(self) -> bool {
        matches!(self.0, 1..=5 | 8 | 9 | 19 | 26 | 28)
    }
}

impl No {
    pub(crate) fn kind(self) -> &'static str {
        match (self.stage, self.code.0) {
            (_, 0) => "no name",
            (_, 1..=5 | 26 | 28) => "PAM or a module of it failed",
            // Of these two a stack may make whatever a module said: Debian's ends with pam_deny.
            (Stage::Account, 6 | 7) => "the account may not be used",
            (_, 6) => "not permitted",
            (_, 7) => "wrong password, unknown or locked",
            (_, 8) => "not enough privilege to ask",
            (_, 9) => "the account's source can't be reached",
            (_, 10) => "unknown user",
            (_, 11) => "too many tries",
            (_, 12) => "password has to be changed",
            (_, 13) => "account expired",
            (_, 14..=17) => "credentials",
            (_, 19) => "more was asked for than a password",
            (_, 27) => "password expired",
            _ => "another reason",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_success_is_success() {
        assert_eq!(Stage::Account.done(0), Ok(()));
        for code in (-1..=32).filter(|code| *code != 0) {
            assert_eq!(Stage::Account.done(code), Err(No { stage: Stage::Account, code: Code(code) }));
        }
    }
}
