//! The command line, by noun.

pub mod access;
pub mod audit;
pub mod change;
pub mod console;
pub mod guest;
pub mod node;
pub mod pool;
pub mod recording;
pub mod sign_in;
pub mod token;
pub mod value;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use self::access::{AuthCommand, GrantCommand, GroupCommand, RoleCommand, UserCommand};
use self::audit::AuditCommand;
use self::console::ConsoleCommand;
use self::guest::{ContainerCommand, VmCommand, WatchArgs};
use self::node::NodeCommand;
use self::pool::{PoolCommand, TagCommand};
use self::recording::RecordingCommand;
use self::sign_in::{ContextCommand, LoginArgs, PasswordArgs, SessionCommand, SetupArgs, TotpCommand};
use self::token::TokenCommand;
use self::value::duration;

use crate::agent;
use crate::contexts::ContextName;
use crate::exit;
use crate::view::Output;

/// See and manage the nodes, virtual machines and containers of a Horcrux controller.
#[derive(Debug, Parser)]
#[command(name = "horcruxctl", version, after_help = exit::HELP, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Apart from a command's own options in its help.
const GLOBAL: &str = "Global options";

#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Which controller: a name from `context list` instead of the current one.
    #[arg(long, global = true, value_name = "NAME", help_heading = GLOBAL)]
    pub context: Option<ContextName>,
    /// Ask this host's agent instead of a controller, with no sign-in. PATH is its socket and begins with `/` or `.`;
    /// without it /run/horcrux/agent.sock.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = agent::USUAL,
        value_parser = agent::socket_path,
        conflicts_with = "context",
        help_heading = GLOBAL
    )]
    pub agent: Option<PathBuf>,
    /// The form of the output.
    #[arg(short, long, global = true, help_heading = GLOBAL, value_enum, default_value_t = Output::Table, hide_possible_values = false)]
    pub output: Output,
    /// How long the controller or the agent may take to answer, for instance 5s or 1m.
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = duration, help_heading = GLOBAL)]
    pub timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign in to a controller and make it the current one.
    Login(LoginArgs),
    /// Make an administrator with a setup code, as on a new controller, then sign in.
    Setup(SetupArgs),
    /// End the session.
    Logout,
    /// Show who is signed in, and what they may do.
    Whoami,
    /// Live sessions.
    #[command(subcommand)]
    Session(SessionCommand),
    /// Change your own password. Your other sessions end.
    Password(PasswordArgs),
    /// Your own second factor: codes from an authenticator.
    #[command(subcommand)]
    Totp(TotpCommand),
    /// The controllers that are known here.
    #[command(subcommand)]
    Context(ContextCommand),
    /// Hypervisors and container hosts.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Virtual machines.
    #[command(subcommand)]
    Vm(VmCommand),
    /// Open consoles of virtual machines; `vm console` opens one.
    #[command(subcommand)]
    Console(ConsoleCommand),
    /// Recordings of consoles.
    #[command(subcommand)]
    Recording(RecordingCommand),
    /// Containers.
    #[command(subcommand)]
    Container(ContainerCommand),
    /// Resource pools: nodes, VMs and containers that grants can name together.
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Tags of nodes, VMs and containers.
    #[command(subcommand)]
    Tag(TagCommand),
    /// People.
    #[command(subcommand)]
    User(UserCommand),
    /// Groups of people.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Roles: sets of privileges.
    #[command(subcommand)]
    Role(RoleCommand),
    /// Grants: who has which role where.
    #[command(subcommand)]
    Grant(GrantCommand),
    /// Explain who may do what.
    #[command(subcommand)]
    Auth(AuthCommand),
    /// API tokens, for programs that act for you.
    #[command(subcommand)]
    Token(TokenCommand),
    /// The audit log: what was done and refused.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Print changes as they come, until Ctrl-C.
    Watch(WatchArgs),
    /// Show live usage of nodes, VMs and containers, full-screen.
    ///
    /// CPU and memory of a VM are shares of what it was given, of a container shares of its limits, or of the node
    /// where it has none. `?` shows the keys.
    Top,
    /// Print a completion script for a shell.
    Completions { shell: Shell },
    /// Write the manual's pages into a directory, for packages.
    #[command(hide = true)]
    Man { directory: PathBuf },
    /// Print the version.
    Version {
        /// Ask the controller for its version too.
        #[arg(long)]
        controller: bool,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::access::Asked;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_may_come_last() {
        let cli = Cli::try_parse_from([
            "horcruxctl",
            "vm",
            "list",
            "--node",
            "web1",
            "-o",
            "json",
            "--context",
            "lab",
        ]);
        let cli = cli.unwrap();
        assert_eq!(cli.global.output, Output::Json);
        assert_eq!(cli.global.context.unwrap().as_str(), "lab");
    }

    #[test]
    fn a_password_has_no_place_on_the_command_line() {
        for wrong in [
            vec!["login", "https://web1", "--password", "x"],
            vec!["login", "http://web1"],
            vec!["login", "https://web1", "--fingerprint", "00"],
            vec!["login", "https://web1", "--ca-file", "a.pem", "--fingerprint", &"ab".repeat(32)],
            vec!["context", "use", "../x"],
        ] {
            let args = std::iter::once("horcruxctl").chain(wrong.iter().copied());
            assert!(Cli::try_parse_from(args).is_err(), "{wrong:?}");
        }
    }

    fn parsed(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
    }

    #[test]
    fn why_asks_about_a_user_or_a_token() {
        let question = |line| {
            let Command::Auth(AuthCommand::Why(args)) = parsed(line).unwrap() else { panic!("{line}") };
            args.question().map(|q| (format!("{:?}", q.subject), q.privilege, q.path.to_owned()))
        };
        let console = horcrux_proto::authz::Privilege::VmConsole;
        let path = "/vms/web1".to_owned();
        let user = format!("{:?}", Asked::User("alice"));
        assert_eq!(question("h auth why alice vmconsole /vms/web1"), Ok((user, console, path.clone())));
        let token = format!("{:?}", Asked::Token("3f"));
        assert_eq!(question("h auth why --token 3f VmConsole /vms/web1"), Ok((token, console, path)));
        assert!(question("h auth why alice VmFly /vms/web1").unwrap_err().contains("VmConsole"));
        for wrong in
            ["h auth why alice VmConsole", "h auth why --token 3f alice VmConsole /", "h auth what-if"]
        {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_excludes_or_needs_each_other() {
        for right in [
            "h grant create --user alice --role VmUser --path / --not-after 8h",
            "h grant create --user alice --role VmUser --path / -y",
            "h user disable alice --yes",
            "h node lock web1 -y --reason stolen",
            "h token create --comment ci --grant VmUser@/pools/ci --grant Auditor@/ --no-propagate",
            "h role create Op --privilege vmaudit,VmConsole --privilege SysAudit",
            "h node reenroll --all --token-dir t",
            "h node reenroll web1 --token-file t",
            "h auth what-if --remove 3 --grant group:ops=Auditor@/",
            "h auth what-if --no-propagate --grant ops=Auditor@/",
            "h login https://web1 --oidc --realm corp --second-factor-file -",
            "h vm console web1 --log f",
            "h vm console web1 --vnc --listen 127.0.0.1:5900",
            "h vm console web1 --vnc --listen [::1]:0 --view",
            "h vm console web1 --spice --listen 127.0.0.1:5900 --take",
            "h vm console web1 --spice --file f",
            "h console end 3f -y",
            "h console link create web1 --serial --view --expires 7d --comment x",
            "h console link create web1 --vnc",
        ] {
            parsed(right).unwrap();
        }
        for wrong in [
            "h grant create --role VmUser --path /",
            "h grant create --user alice --group ops --role VmUser --path /",
            "h pool add ci -y vms/web1",
            "h grant list --user alice --group ops",
            "h token create --comment ci",
            "h token create --comment ci --full --grant VmUser@/",
            "h token create --comment ci --full --no-propagate",
            "h token create --comment ci --full --expires 367d",
            "h auth what-if --no-propagate",
            "h auth what-if --no-propagate --remove 3",
            "h session list --user alice --all",
            "h role create Op",
            "h role create Op --privilege VmFly",
            "h group add ops",
            "h node delete web1",
            "h node join-token",
            "h node reenroll",
            "h node reenroll --all",
            "h node reenroll web1 --all --token-dir t",
            "h node reenroll web1 --token-dir t",
            "h login https://web1 --oidc --user alice",
            "h vm console web1 --vnc --log f",
            "h vm console web1 --listen 127.0.0.1:0",
            "h vm console web1 --vnc --listen 0.0.0.0:5900",
            "h vm console web1 --vnc --listen 5900",
            "h vm console web1 --vnc --screenshot f",
            "h vm console web1 --view --take",
            "h vm console web1 --spice --vnc",
            "h vm console web1 --spice --log f",
            "h vm console web1 --spice --screenshot f",
            "h vm console web1 --vnc --file f",
            "h console link create web1",
            "h console link create web1 --vnc --serial",
            "h console link create web1 --vnc --expires 8d",
            "h login https://web1 --api-token-file f --user alice",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
