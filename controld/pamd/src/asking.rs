//! One request put to PAM, and what came of it in the log.

use std::ffi::CString;
use std::path::Path;

use horcrux_local::accounts;
use horcrux_pamd::{Answer, MAX_USER, Request};
use zeroize::Zeroizing;

use crate::said::Stage;
use crate::sys::pam::{No, Pam, Question};

/// Where Linux-PAM looks for a service's file; the later ones are the vendor's.
const SERVICE_DIRS: [&str; 3] = ["/etc/pam.d", "/usr/lib/pam.d", "/usr/share/pam.d"];

/// PAM, and the service under whose rules it is asked.
#[derive(Debug)]
pub(crate) struct Asking {
    /// None where there is no libpam.
    pam: Option<Pam>,
    service: String,
}

/// Why a request isn't put to PAM. It is answered as a wrong password is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unaskable {
    /// Modules may let in whoever has none, whatever is typed.
    EmptyPassword,
    /// A module would see only what is before the NUL.
    Password,
    /// It may become part of a path, an argument or a line of a log.
    Name,
    Host,
}

impl Asking {
    pub(crate) fn new(pam: Option<Pam>, service: String) -> Self {
        Self { pam, service }
    }

    /// Blocks, for seconds or, with a module that hangs, for good.
    pub(crate) fn ask(&self, request: &Request) -> Answer {
        let Some(pam) = &self.pam else {
            tracing::error!("PAM can't be asked: there is no libpam");
            return Answer::Failed;
        };
        // For a service without a file PAM takes the rules of `other`, which may let in whom nobody meant to.
        if !SERVICE_DIRS.iter().any(|dir| Path::new(dir).join(&self.service).is_file()) {
            tracing::error!(service = self.service, "PAM can't be asked: there is no file for the service");
            return Answer::Failed;
        }
        let Some(question) = self.question(request) else { return Answer::Refused };
        match pam.check(&question) {
            Ok(user) => accepted(request, &user),
            Err(no) => refused(request, no),
        }
    }

    /// None if a text has a NUL in it, which [`unaskable`] has seen before.
    fn question(&self, request: &Request) -> Option<Question> {
        Some(Question {
            service: CString::new(self.service.as_str()).ok()?,
            user: CString::new(request.user.as_str()).ok()?,
            host: CString::new(request.host.as_str()).ok()?,
            password: Zeroizing::new(request.password.expose().as_bytes().to_vec()),
        })
    }
}

fn accepted(request: &Request, user: &CString) -> Answer {
    match user.to_str() {
        Ok(name) if nameable(name) => {
            tracing::info!(user = name, host = request.host, "accepted");
            Answer::Accepted { user: name.to_owned() }
        }
        Ok(_) | Err(_) => {
            tracing::warn!(user = request.user, found = ?user, "refused: PAM's name for the user can't be one");
            Answer::Refused
        }
    }
}

fn refused(request: &Request, no: No) -> Answer {
    let user = if is_known(&request.user) { request.user.as_str() } else { "(unknown)" };
    let (stage, code, kind) = (no.stage, no.code.0, no.kind());
    if no.code.is_fault() {
        tracing::warn!(user, host = request.host, ?stage, code, kind, "refused");
    } else {
        tracing::info!(user, host = request.host, ?stage, code, kind, "refused");
    }
    match stage {
        // Nothing of the user's has been looked at.
        Stage::Start => Answer::Failed,
        Stage::Authenticate | Stage::Account | Stage::Name => Answer::Refused,
    }
}

/// Whether the name is one of the host's accounts, and may be logged: another may be a password, typed into the wrong
/// field. PAM's codes don't tell, because a stack may make one of all.
fn is_known(user: &str) -> bool {
    CString::new(user).is_ok_and(|name| matches!(accounts::uid(&name), Ok(Some(_))))
}

/// Why `request` must not reach a module, if so.
pub(crate) fn unaskable(request: &Request) -> Result<(), Unaskable> {
    if request.password.expose().is_empty() {
        Err(Unaskable::EmptyPassword)
    } else if request.password.expose().contains('\0') {
        Err(Unaskable::Password)
    } else if !nameable(&request.user) {
        Err(Unaskable::Name)
    } else if !request.host.chars().all(|c| c.is_ascii_graphic()) {
        Err(Unaskable::Host)
    } else {
        Ok(())
    }
}

/// Whether a user may be called so. Other accounts than the host's have blanks, `@` and `\` in their names.
fn nameable(name: &str) -> bool {
    // A module may make a file of the name, or an argument; `+` and `-` begin the old NIS entries of /etc/passwd.
    !name.is_empty()
        && name.len() <= MAX_USER
        && !name.starts_with(['-', '+'])
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c == '/' || c.is_control())
}

#[cfg(test)]
mod tests {
    use horcrux_pamd::Password;

    use super::*;

    fn request(user: &str, password: &str, host: &str) -> Request {
        Request {
            user: user.to_owned(),
            password: Password::from(password.to_owned()),
            host: host.to_owned(),
            known: false,
        }
    }

    #[test]
    fn names_that_a_module_could_take_for_something_else_are_refused() {
        for name in
            ["", "-alice", "+", "+alice", ".", "..", "a/b", "../alice", "al\nice", "al\0ice", "\u{85}alice"]
        {
            assert_eq!(unaskable(&request(name, "p", "")), Err(Unaskable::Name), "{name:?}");
        }
        assert_eq!(unaskable(&request(&"a".repeat(MAX_USER + 1), "p", "")), Err(Unaskable::Name));
    }

    #[test]
    fn names_of_people_and_directories_are_asked_about() {
        for name in ["alice", "alice-b", "a.b", "alice@example.org", "EXAMPLE\\alice", "jane doe", "żółw"]
        {
            assert_eq!(unaskable(&request(name, "p", "2001:db8::1%eth0")), Ok(()), "{name:?}");
        }
        assert_eq!(unaskable(&request(&"a".repeat(MAX_USER), "p", "")), Ok(()));
    }

    #[test]
    fn a_password_that_pam_would_not_see_whole_is_refused() {
        assert_eq!(unaskable(&request("alice", "", "")), Err(Unaskable::EmptyPassword));
        assert_eq!(unaskable(&request("alice", "right\0wrong", "")), Err(Unaskable::Password));
        assert_eq!(unaskable(&request("alice", "p", "host\nname")), Err(Unaskable::Host));
    }

    #[test]
    fn without_libpam_or_a_service_file_the_answer_says_so() {
        let asked = request("alice", "p", "");
        assert_eq!(Asking::new(None, "login".to_owned()).ask(&asked), Answer::Failed);
        let service = "horcrux-no-such-service".to_owned();
        assert_eq!(Asking::new(Pam::load().ok(), service).ask(&asked), Answer::Failed);
    }

    #[test]
    fn a_failure_before_the_user_is_looked_at_is_not_a_refusal() {
        let at = |stage| refused(&request("alice", "p", ""), No { stage, code: crate::said::Code(4) });
        assert_eq!(at(Stage::Start), Answer::Failed);
        assert_eq!(at(Stage::Authenticate), Answer::Refused);
        assert_eq!(at(Stage::Account), Answer::Refused);
    }
}
