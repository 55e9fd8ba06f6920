//! One host's agent instead of a controller: `--agent`. There is nobody to sign in to; the socket's group and mode say who
//! may ask.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use horcrux_transport::error::Chain;
use horcrux_transport::socket::{self, SocketError};
use tonic::transport::Channel;

use crate::args::Command;
use crate::args::guest::{ContainerCommand, VmCommand};
use crate::args::node::NodeCommand;
use crate::failure::Failure;

/// Where an agent on its own listens unless its settings say otherwise.
pub const USUAL: &str = "/run/horcrux/agent.sock";

/// What a session's `url` begins with.
const SCHEME: &str = "unix:";

/// How the agent's address is shown.
#[must_use]
pub fn url(path: &Path) -> String {
    format!("{SCHEME}{}", path.display())
}

/// Who answers at an address, for people.
#[must_use]
pub fn server(url: &str) -> &'static str {
    if url.starts_with(SCHEME) { "agent" } else { "controller" }
}

/// Joins `--agent PATH` to one argument: an option whose value may be left out takes none that stands apart, for the command
/// comes next. A path is what begins with `/` or `.`, as no command does.
pub fn joined(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut all: Vec<OsString> = Vec::new();
    let mut may_join = true;
    for arg in args {
        let is_path = arg.to_str().is_some_and(|text| text.starts_with(['/', '.']));
        match all.last_mut() {
            Some(last) if may_join && is_path && *last == "--agent" => {
                last.push("=");
                last.push(&arg);
            }
            Some(_) | None => {
                // After it everything is an argument as it stands.
                may_join &= arg != "--";
                all.push(arg);
            }
        }
    }
    all
}

/// Refuses what an agent has nothing to say to.
pub fn check(command: &Command) -> Result<(), Failure> {
    let refused = match command {
        Command::Node(NodeCommand::List | NodeCommand::Get { .. })
        | Command::Vm(VmCommand::List { .. } | VmCommand::Get { .. })
        | Command::Container(ContainerCommand::List { .. } | ContainerCommand::Get { .. })
        | Command::Watch(_)
        | Command::Top
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Version { controller: false } => return Ok(()),
        Command::Version { controller: true } => "version --controller",
        Command::Node(
            NodeCommand::Lock { .. }
            | NodeCommand::Unlock { .. }
            | NodeCommand::Remove { .. }
            | NodeCommand::JoinToken(_)
            | NodeCommand::Reenroll(_),
        ) => "node",
        Command::Vm(VmCommand::Console(_)) => "vm console",
        Command::Console(_) => "console",
        Command::Recording(_) => "recording",
        Command::Login(_) => "login",
        Command::Setup(_) => "setup",
        Command::Logout => "logout",
        Command::Whoami => "whoami",
        Command::Session(_) => "session",
        Command::Password(_) => "password",
        Command::Totp(_) => "totp",
        Command::Context(_) => "context",
        Command::Pool(_) => "pool",
        Command::Tag(_) => "tag",
        Command::User(_) => "user",
        Command::Group(_) => "group",
        Command::Role(_) => "role",
        Command::Grant(_) => "grant",
        Command::Auth(_) => "auth",
        Command::Token(_) => "token",
        Command::Audit(_) => "audit",
    };
    Err(Failure::Usage(format!(
        "an agent has nothing to do with this `{refused}` command: leave --agent out to ask a controller"
    )))
}

/// Connects, with the error that people see.
pub async fn channel(path: &Path, deadline: Duration) -> Result<Channel, Failure> {
    let user_agent = concat!("horcruxctl/", env!("CARGO_PKG_VERSION"));
    socket::channel(path, user_agent, deadline).await.map_err(|error| connecting(&error))
}

/// Of a connection that was not made.
#[must_use]
pub fn connecting(error: &SocketError) -> Failure {
    match error {
        SocketError::Connect { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
            Failure::Socket(refused(path))
        }
        SocketError::Connect { .. } | SocketError::Deadline { .. } | SocketError::Http { .. } => {
            Failure::NoAgent(Chain(error).to_string())
        }
    }
}

/// Whom the socket, or the directory on the way to it, lets through.
fn refused(path: &Path) -> String {
    let at = |path: &Path| fs::symlink_metadata(path).map(|there| (path.to_owned(), there));
    let found = at(path).or_else(|error| path.parent().map_or(Err(error), at));
    let Ok((at, there)) = found else { return format!("{} may not be opened by you", path.display()) };
    let whom = if there.mode() & 0o060 == 0 {
        format!("the user {}", named(Path::new("/etc/passwd"), there.uid()))
    } else {
        format!("root and the group {}", named(Path::new("/etc/group"), there.gid()))
    };
    format!("{} is for {whom} only", at.display())
}

/// What this host's file calls an id; the number where it doesn't.
fn named(file: &Path, id: u32) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let of = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id.to_string()).then(|| name.to_owned())
    };
    text.lines().find_map(of).unwrap_or_else(|| id.to_string())
}

/// As the option's value is read.
pub fn socket_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("the path of a socket".to_owned()) } else { Ok(PathBuf::from(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_after_the_option_is_its_value_and_a_command_is_not() {
        let joined = |line: &str| {
            let all = joined(line.split_whitespace().map(OsString::from));
            all.iter().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        for (given, expected) in [
            ("h --agent top", "h --agent top"),
            ("h --agent /run/a.sock node get", "h --agent=/run/a.sock node get"),
            ("h --agent ./a.sock top", "h --agent=./a.sock top"),
            ("h vm list --agent -o json", "h vm list --agent -o json"),
            ("h vm get --agent vms/x", "h vm get --agent vms/x"),
            ("h vm get -- --agent /x", "h vm get -- --agent /x"),
            ("h --agent=/a /b", "h --agent=/a /b"),
        ] {
            assert_eq!(joined(given), expected);
        }
    }

    #[test]
    fn an_id_goes_by_the_hosts_name_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("group");
        fs::write(&file, "root:x:0:\nhorcrux:x:977:alice\nbroken\n").unwrap();
        assert_eq!(named(&file, 977), "horcrux");
        assert_eq!(named(&file, 978), "978");
        assert_eq!(named(&dir.path().join("none"), 0), "0");
    }
}
