//! Users, groups, roles and grants.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use horcrux_proto::authz::Privilege;

use super::change::{ChangeArgs, RemovalArgs};
use super::value::{Wanted, duration, privilege, wanted};

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// List all users.
    List,
    /// Make a local user, or prepare one of another realm before their first sign-in.
    #[command(after_help = "\
Examples:
  horcruxctl user create alice --display-name 'Alice Doe' --group ops
  horcruxctl user create bob@corp --group ops")]
    Create(UserCreateArgs),
    /// Keep a user out, and end their sessions.
    Disable {
        #[command(flatten)]
        user: UserArg,
        #[command(flatten)]
        removal: RemovalArgs,
    },
    /// Let a disabled user in again.
    Enable {
        #[command(flatten)]
        user: UserArg,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Give a local user another password, and end their sessions. Your own: `horcruxctl password`.
    SetPassword {
        #[command(flatten)]
        user: UserArg,
        #[command(flatten)]
        password: NewPasswordArgs,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Forget a user's second factor, when it is lost or locked. Your own: `horcruxctl totp remove`.
    ResetSecondFactor {
        #[command(flatten)]
        user: UserArg,
        #[command(flatten)]
        removal: RemovalArgs,
    },
    /// Delete a user with their sessions, tokens, memberships and grants.
    Delete {
        #[command(flatten)]
        user: UserArg,
        #[command(flatten)]
        removal: RemovalArgs,
    },
}

#[derive(Debug, Args)]
pub struct UserArg {
    /// NAME@REALM; without a realm, local.
    #[arg(value_name = "USER")]
    pub user: String,
}

#[derive(Debug, Args)]
pub struct NewPasswordArgs {
    /// Read the password from a file, or from standard input when F is `-`. Asked for, twice, when not given.
    #[arg(long, value_name = "F")]
    pub password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct UserCreateArgs {
    #[command(flatten)]
    pub user: UserArg,
    /// For people.
    #[arg(long, value_name = "TEXT")]
    pub display_name: Option<String>,
    /// A group to be in. May be given several times.
    #[arg(long = "group", value_name = "G")]
    pub groups: Vec<String>,
    /// Local users only: read the password from a file, or from standard input when F is `-`. Asked for, twice, when not
    /// given.
    #[arg(long, value_name = "F")]
    pub password_file: Option<PathBuf>,
    #[command(flatten)]
    pub change: ChangeArgs,
}

#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List all groups and who is in them.
    List,
    /// Make a group. NAME@REALM stands for the group of that name in a realm, whose members the realm knows.
    Create {
        name: String,
        /// For people.
        #[arg(long, value_name = "TEXT")]
        comment: Option<String>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Put users into a group.
    #[command(after_help = "Example:\n  horcruxctl group add ops alice@local bob@corp")]
    Add(MembershipArgs),
    /// Take users out of a group.
    Remove(MembershipArgs),
    /// Delete a group and its grants. Its members stay.
    Delete {
        name: String,
        #[command(flatten)]
        removal: RemovalArgs,
    },
}

#[derive(Debug, Args)]
pub struct MembershipArgs {
    /// The group.
    pub name: String,
    /// NAME@REALM; without a realm, local.
    #[arg(value_name = "USER", required = true)]
    pub users: Vec<String>,
    #[command(flatten)]
    pub change: ChangeArgs,
}

#[derive(Debug, Subcommand)]
pub enum RoleCommand {
    /// List all roles and what they hold.
    List,
    /// Make a role.
    #[command(after_help = "\
Examples:
  horcruxctl role create Operator --privilege VmPowerMgmt --privilege VmAudit
  horcruxctl role create Operator --privilege VmPowerMgmt,VmAudit")]
    Create(RoleArgs),
    /// Replace what a role holds. Built-in roles can't be changed.
    Update(RoleArgs),
    /// Delete a role that no grant names.
    Delete {
        name: String,
        #[command(flatten)]
        removal: RemovalArgs,
    },
}

#[derive(Debug, Args)]
pub struct RoleArgs {
    /// 2 to 64 letters and digits, starting with a letter.
    pub name: String,
    /// What it holds. May be given several times, or as a list with commas.
    #[arg(long = "privilege", value_name = "P", required = true, value_delimiter = ',', value_parser = privilege)]
    pub privileges: Vec<Privilege>,
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// After the help of what takes a path.
const PATHS: &str = "\
Paths:
  /                                     everything
  /nodes/NODE  /vms/UUID  /containers/NODE/ID  /storage/NODE/POOL  /networks/NODE/NET
  /nodes  /vms  /containers ...         all of a kind
  /pools/POOL                           the members of a resource pool
  /access                               users, groups, roles and grants
  /vms?tag=TAG                          what has a tag; nodes and containers likewise
VMs and containers may be given by name, containers by the start of their id: /vms/web1, /containers/NODE/worker.

Examples:
  horcruxctl grant create --user alice@corp --role VmUser --path /pools/ci
  horcruxctl grant create --group ops --role Administrator --path / --not-after 8h
  horcruxctl grant create --group guests --role NoAccess --path '/vms?tag=secret'";

#[derive(Debug, Subcommand)]
pub enum GrantCommand {
    /// List grants: all when nothing else is said.
    List(GrantListArgs),
    /// Give a user or a group a role on a path.
    ///
    /// A grant on a deeper path replaces what is granted above it, so it can take away: who gains and who loses what is
    /// shown, and you are asked first where anybody loses something.
    #[command(after_help = PATHS)]
    Create(GrantCreateArgs),
    /// Delete a grant. Shows who loses and who gains what, and asks first.
    Delete {
        /// From `grant list`.
        id: String,
        #[command(flatten)]
        removal: RemovalArgs,
    },
}

#[derive(Debug, Args)]
pub struct GrantListArgs {
    #[command(flatten)]
    pub subject: GrantListSubject,
    /// Only those on this path.
    #[arg(long, value_name = "P")]
    pub path: Option<String>,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct GrantListSubject {
    /// Only those of this user.
    #[arg(long, value_name = "USER@REALM")]
    pub user: Option<String>,
    /// Only those of this group.
    #[arg(long, value_name = "G")]
    pub group: Option<String>,
    /// Only those of this API token.
    #[arg(long, value_name = "ID")]
    pub token: Option<String>,
}

#[derive(Debug, Args)]
pub struct GrantCreateArgs {
    #[command(flatten)]
    pub subject: GrantSubject,
    /// What may be done; `role list` shows all.
    #[arg(long, value_name = "R")]
    pub role: String,
    /// Where.
    #[arg(long, value_name = "P")]
    pub path: String,
    /// Only on the path itself, not below it.
    #[arg(long)]
    pub no_propagate: bool,
    /// It ends after this time, for instance 8h or 30d. Otherwise it doesn't.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub not_after: Option<Duration>,
    #[command(flatten)]
    pub removal: RemovalArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct GrantSubject {
    /// To this user.
    #[arg(long, value_name = "USER@REALM")]
    pub user: Option<String>,
    /// To the members of this group.
    #[arg(long, value_name = "G")]
    pub group: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum AuthCommand {
    /// Say whether somebody has a privilege on a path, and which grants and rules decide that.
    #[command(
        override_usage = "horcruxctl auth why [OPTIONS] <USER> <PRIVILEGE> <PATH>\n       horcruxctl auth why [OPTIONS] --token <ID> <PRIVILEGE> <PATH>",
        after_help = "\
Examples:
  horcruxctl auth why alice@corp VmConsole /vms/web1
  horcruxctl auth why --token 3f2a VmPowerMgmt /pools/ci"
    )]
    Why(WhyArgs),
    /// Say who would gain and lose what, if grants were made and removed. Nothing changes.
    #[command(after_help = "\
SUBJECT is user:NAME@REALM or group:NAME; a bare name is a user.

Examples:
  horcruxctl auth what-if --grant alice@corp=VmUser@/pools/ci
  horcruxctl auth what-if --grant group:ops=Auditor@/ --remove 17")]
    WhatIf(WhatIfArgs),
}

/// With `--token` the first word is missing, so the words move up by one: [`WhyArgs::question`] puts them in their places.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// NAME@REALM; without a realm, local. Left out with --token.
    #[arg(value_name = "USER")]
    first: String,
    /// For instance VmConsole; an unknown one is answered with all that there are.
    #[arg(value_name = "PRIVILEGE")]
    second: String,
    /// The path of a grant. VMs and containers by name too: /vms/NAME, /containers/NODE/NAME or the start of an id.
    #[arg(value_name = "PATH", required_unless_present = "token", conflicts_with = "token")]
    third: Option<String>,
    /// Ask about an API token instead of a user.
    #[arg(long, value_name = "ID")]
    token: Option<String>,
}

/// What [`WhyArgs`] ask.
#[derive(Debug, PartialEq, Eq)]
pub struct Question<'a> {
    pub subject: Asked<'a>,
    pub privilege: Privilege,
    pub path: &'a str,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    User(&'a str),
    Token(&'a str),
}

impl WhyArgs {
    /// The error is for people.
    pub fn question(&self) -> Result<Question<'_>, String> {
        let (subject, named, path) = match (&self.token, &self.third) {
            (Some(id), _) => (Asked::Token(id), &self.first, &self.second),
            (None, Some(path)) => (Asked::User(&self.first), &self.second, path),
            (None, None) => return Err("pass USER PRIVILEGE PATH".to_owned()),
        };
        let privilege = privilege(named).map_err(|why| format!("{named}: {why}"))?;
        Ok(Question { subject, privilege, path })
    }
}

#[derive(Debug, Args)]
pub struct WhatIfArgs {
    #[command(flatten)]
    pub change: WouldChange,
    /// The --grant ones would hold on their paths only, not below.
    #[arg(long, requires = "grants")]
    pub no_propagate: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct WouldChange {
    /// A grant that would be made. May be given several times.
    #[arg(long = "grant", value_name = "SUBJECT=ROLE@PATH", value_parser = wanted)]
    pub grants: Vec<Wanted>,
    /// A grant that would be deleted, by its id. May be given several times.
    #[arg(long = "remove", value_name = "ID")]
    pub removed: Vec<String>,
}
