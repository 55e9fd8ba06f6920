//! What went wrong, what to do next, and the exit code: decided here for all commands.

use std::error::Error as _;

use horcrux_proto::authz::privilege_named;
use horcrux_transport::client::ConnectError;
use horcrux_transport::error::Chain;
use horcrux_transport::socket::SocketError;
use tonic::{Code, Status};

use crate::agent;
use crate::exit::Exit;
use crate::field;
use crate::view::shown;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command can't be run as it was given. The text says what to give instead.
    #[error("{0}")]
    Usage(String),
    #[error("not signed in to {url}{}", because(why))]
    NotSignedIn { url: String, why: String },
    #[error("sign-in to {url} was refused: {why}")]
    SignInRefused { url: String, why: String },
    #[error("{0}")]
    NotFound(String),
    #[error("permission denied: {0}")]
    Denied(String),
    /// First start: nobody has a role yet.
    #[error("{0}")]
    WrongSetupCode(String),
    #[error("the controller was not reached{}", because(.0))]
    Unreachable(String),
    #[error("the agent was not reached{}", because(.0))]
    NoAgent(String),
    /// Its socket lets others in.
    #[error("permission denied: {0}")]
    Socket(String),
    /// The controller was reached, and lacks something for a while: a realm, its audit log.
    #[error("{0}")]
    Unavailable(String),
    #[error("{}", UNTRUSTED.replace("{url}", .0))]
    Untrusted(String),
    /// The server refused or failed; its text is for people.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// What a refusal says is missing: `alice@local needs VmConfig on /vms`. Other refusals, of a wrong code for instance, have
/// nothing to look up.
#[derive(Debug, PartialEq, Eq)]
struct Lack<'a> {
    who: &'a str,
    privilege: &'a str,
    path: &'a str,
}

impl<'a> Lack<'a> {
    fn told(why: &'a str) -> Option<Self> {
        let (who, needed) = why.split_once(" needs ")?;
        let (privilege, path) = needed.split_once(" on ")?;
        let is_whole = privilege_named(privilege).is_some() && path.starts_with('/') && !path.contains(' ');
        is_whole.then_some(Self { who, privilege, path })
    }

    fn hint(&self) -> String {
        let Self { who, privilege, path } = self;
        let who = who.strip_prefix("token ").map_or_else(|| (*who).to_owned(), |id| format!("--token {id}"));
        // A selector holds what a shell would expand.
        let path = if path.contains('?') { format!("'{path}'") } else { (*path).to_owned() };
        format!("`horcruxctl auth why {who} {privilege} {path}` says why not; an administrator can grant it")
    }
}

/// Loud on purpose: this is how an intercepted connection looks.
const UNTRUSTED: &str = "\
THE CONTROLLER'S CERTIFICATE AUTHORITY IS NOT THE ONE THAT IS TRUSTED HERE.
{url} showed a certificate from another authority. Either the controller was set up anew,
or somebody is between you and it. Nothing was sent to it.";

impl Failure {
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::NotSignedIn { .. } | Self::SignInRefused { .. } => Exit::NotSignedIn,
            Self::NotFound(_) => Exit::NotFound,
            Self::Denied(_) | Self::WrongSetupCode(_) | Self::Socket(_) => Exit::Denied,
            Self::Unreachable(_) | Self::NoAgent(_) => Exit::Unreachable,
            Self::Untrusted(_) => Exit::Untrusted,
            Self::Unavailable(_) | Self::Refused(_) | Self::Other(_) => Exit::Failed,
        }
    }

    /// What to do next, where there is something to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotSignedIn { url, .. } => Some(format!("run `horcruxctl login {url}`")),
            Self::Denied(why) => Lack::told(why).map(|lack| lack.hint()),
            Self::WrongSetupCode(_) => Some(
                "it is in the file setup-code of the controller's state directory, while no administrator exists"
                    .to_owned(),
            ),
            Self::Unreachable(why) if why.contains("not valid for name") => Some(
                "use a name that the controller's certificate has, or add this one to `names` in controld.toml"
                    .to_owned(),
            ),
            Self::Unreachable(_) => Some(
                "check that the controller runs, its address, and the way to it; --timeout waits longer"
                    .to_owned(),
            ),
            Self::NoAgent(_) => Some(
                "check that horcrux-agentd runs here, without a controller or with `agent_socket` set, and --agent=PATH"
                    .to_owned(),
            ),
            Self::Socket(_) => {
                Some("run it as one of these, or join the group (`usermod -aG GROUP USER`) and log in anew".to_owned())
            }
            Self::Unavailable(_) => {
                Some("try again later; if that doesn't help, the controller's log says why".to_owned())
            }
            Self::Untrusted(url) => Some(format!(
                "ask the controller's administrator for its fingerprint; if it has changed for a good reason, run \
                 `horcruxctl login {url} --fingerprint FINGERPRINT`"
            )),
            Self::SignInRefused { .. }
            | Self::Usage(_)
            | Self::NotFound(_)
            | Self::Refused(_)
            | Self::Other(_) => None,
        }
    }

    /// The error in one line, with its causes.
    #[must_use]
    pub fn text(&self) -> String {
        if let Self::Other(error) = self { Chain(error.as_ref()).to_string() } else { self.to_string() }
    }

    /// As printed on stderr.
    #[must_use]
    pub fn report(&self) -> String {
        let text = self.text();
        match self.hint() {
            Some(hint) => format!("error: {text}\nnext: {hint}"),
            None => format!("error: {text}"),
        }
    }

    /// Of a connection that was not made.
    #[must_use]
    pub fn connecting(error: &ConnectError) -> Self {
        match error {
            ConnectError::Target(_) => Self::Usage(error.to_string()),
            ConnectError::Untrusted { target } => Self::Untrusted(target.to_string()),
            ConnectError::NotUpgraded { target, status } => match status.as_u16() {
                401 => {
                    Self::NotSignedIn { url: target.to_string(), why: "the controller says so".to_owned() }
                }
                429 | 503 => Self::Unavailable(Chain(error).to_string()),
                _ => Self::Refused(Chain(error).to_string()),
            },
            ConnectError::Certificate(_) => Self::Refused(Chain(error).to_string()),
            ConnectError::Deadline { .. }
            | ConnectError::WebSocket { .. }
            | ConnectError::Unreachable { .. }
            | ConnectError::Tls { .. }
            | ConnectError::Http { .. } => Self::Unreachable(Chain(error).to_string()),
        }
    }

    /// Of an RPC to `url` that failed.
    #[must_use]
    pub fn answered(url: &str, status: &Status) -> Self {
        if let Some(error) = cause::<ConnectError>(status) {
            return Self::connecting(error);
        }
        if let Some(error) = cause::<SocketError>(status) {
            return agent::connecting(error);
        }
        let server = agent::server(url);
        let said = field::in_words(&shown(status.message()));
        match status.code() {
            Code::Unauthenticated => Self::NotSignedIn { url: url.to_owned(), why: said },
            Code::PermissionDenied => Self::Denied(said),
            Code::NotFound => Self::NotFound(said),
            // What broke on the way has a cause; what the controller says has none.
            Code::Unavailable if status.source().is_some() => Self::lost(url, said),
            Code::Unavailable => Self::Unavailable(said),
            Code::DeadlineExceeded => Self::lost(url, format!("{url} does not answer in time")),
            Code::Unimplemented => Self::Refused(format!(
                "the {server} does not know this request ({said}): compare `horcruxctl version --controller`"
            )),
            Code::Internal => Self::Refused(format!("the {server} failed ({said}): its log says why")),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::InvalidArgument
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::DataLoss => {
                Self::Refused(if said.is_empty() { format!("{:?}", status.code()) } else { said })
            }
        }
    }

    /// Of a connection to `url` that broke.
    #[must_use]
    pub fn lost(url: &str, why: String) -> Self {
        if agent::server(url) == "agent" { Self::NoAgent(why) } else { Self::Unreachable(why) }
    }

    /// Waiting can help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::NoAgent(_) | Self::Unavailable(_))
    }
}

fn because(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {why}") }
}

/// A channel that connects again hides why it can't behind an `Unavailable`.
fn cause<E: std::error::Error + 'static>(status: &Status) -> Option<&E> {
    let mut next = status.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_exit_code() {
        let exit = |code| Failure::answered("https://web1:8006", &Status::new(code, "x")).exit();
        assert_eq!(exit(Code::Unauthenticated), Exit::NotSignedIn);
        assert_eq!(exit(Code::NotFound), Exit::NotFound);
        assert_eq!(exit(Code::PermissionDenied), Exit::Denied);
        assert_eq!(exit(Code::Unavailable), Exit::Failed, "it was reached, and said so");
        assert_eq!(exit(Code::DeadlineExceeded), Exit::Unreachable);
        assert_eq!(exit(Code::InvalidArgument), Exit::Failed);
    }

    #[test]
    fn what_the_controller_lacks_is_told_apart_from_a_controller_that_is_not_there() {
        let url = "https://web1:8006";
        let said = Failure::answered(url, &Status::unavailable("the realm corp can't be reached now"));
        assert_eq!(said.text(), "the realm corp can't be reached now");
        assert!(said.is_passing());
        let mut lost = Status::unavailable("reset");
        lost.set_source(std::sync::Arc::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
        assert_eq!(Failure::answered(url, &lost).exit(), Exit::Unreachable);
    }

    #[test]
    fn a_missing_session_says_which_command_makes_one() {
        let failure = Failure::NotSignedIn { url: "https://web1:8006".into(), why: String::new() };
        assert_eq!(
            failure.report(),
            "error: not signed in to https://web1:8006\nnext: run `horcruxctl login https://web1:8006`"
        );
    }

    #[test]
    fn another_authority_is_told_apart_from_a_dead_controller() {
        let target = horcrux_transport::client::Target { host: "web1".into(), port: 8006 };
        let failure = Failure::connecting(&ConnectError::Untrusted { target });
        assert_eq!(failure.exit(), Exit::Untrusted);
        assert!(failure.report().contains("NOT THE ONE THAT IS TRUSTED"));
        assert!(failure.report().contains("https://web1:8006"));
    }

    #[test]
    fn a_lack_says_how_to_find_out_why_and_other_refusals_say_nothing_more() {
        let hint =
            |said: &str| Failure::answered("https://web1:8006", &Status::permission_denied(said)).hint();
        let why = |asked: &str| {
            Some(format!("`horcruxctl auth why {asked}` says why not; an administrator can grant it"))
        };
        assert_eq!(hint("bob@local needs VmConfig on /vms"), why("bob@local VmConfig /vms"));
        assert_eq!(hint("token 3f needs VmAudit on /vms?tag=qa"), why("--token 3f VmAudit '/vms?tag=qa'"));
        for other in ["old_password: this is not your password", "he needs rest on Sunday", "wrong code", ""]
        {
            assert_eq!(hint(other), None, "{other}");
        }
    }

    #[test]
    fn a_field_is_called_as_the_command_asked_for_it() {
        let said = |message: &str| {
            let status = Status::invalid_argument(message);
            Failure::answered("https://web1:8006", &status).to_string()
        };
        assert_eq!(said("new_password: at least 10 characters"), "new password: at least 10 characters");
        assert_eq!(said("not_after_unix_ms: it is past"), "--not-after: it is past");
        assert_eq!(said("passwords differ"), "passwords differ");
    }

    #[test]
    fn a_servers_text_cannot_steer_the_terminal() {
        let failure = Failure::answered("https://web1:8006", &Status::not_found("\u{1b}]0;x\u{7}"));
        assert!(!failure.report().contains('\u{1b}'));
    }
}
