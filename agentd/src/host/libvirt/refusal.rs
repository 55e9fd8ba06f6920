//! A libvirt that doesn't let the agent look, and the command that mends it.
//!
//! Group `libvirt` is not what mends it: who is in it may do with VMs, and by them with the host, what root may.

use std::fs;
use std::path::Path;

use rustix::process::geteuid;
use virt::error::{Error, ErrorDomain, ErrorNumber};

use super::raw::Access;

/// Who refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// libvirtd, by polkit or another way to find out who asks.
    Policy,
    /// The kernel: the socket's mode keeps others out.
    Socket,
}

/// Where the agent's package has its rule, and where administrators have theirs. The package has none that lets it change.
const LOOK_RULES: [&str; 2] =
    ["usr/share/polkit-1/rules.d/60-horcrux-agent.rules", "etc/polkit-1/rules.d/60-horcrux-agent.rules"];
const CHANGE_RULES: [&str; 1] = ["etc/polkit-1/rules.d/61-horcrux-guest-agents.rules"];

pub(super) fn of(error: &Error) -> Option<Refusal> {
    use ErrorNumber::{AccessDenied, AuthCancelled, AuthFailed, AuthUnavailable};
    let by_policy = [AccessDenied, AuthCancelled, AuthFailed, AuthUnavailable];
    if error.domain().is(ErrorDomain::Polkit) || by_policy.into_iter().any(|number| error.code().is(number)) {
        return Some(Refusal::Policy);
    }
    let by_kernel =
        error.code().is(ErrorNumber::SystemError) && error.message().contains("Permission denied");
    by_kernel.then_some(Refusal::Socket)
}

/// What to say of it. `root` is where /etc and /usr are found.
pub(super) fn told(kind: Refusal, access: Access, why: &str, root: &Path) -> String {
    let user = user(&fs::read_to_string(root.join("etc/passwd")).unwrap_or_default(), geteuid().as_raw());
    let has_rule = rules(access).iter().any(|rule| root.join(rule).exists());
    text(kind, access, why, &user, has_rule)
}

fn rules(access: Access) -> &'static [&'static str] {
    match access {
        Access::Look => &LOOK_RULES,
        Access::Change => &CHANGE_RULES,
    }
}

fn text(kind: Refusal, access: Access, why: &str, user: &str, has_rule: bool) -> String {
    let (what, action) = match access {
        Access::Look => ("look", "org.libvirt.unix.monitor"),
        // As good as root on the VMs: whoever reads this may want to leave it.
        Access::Change => (
            "change VMs, as asking guest agents needs, or set ask_guest_agents = false",
            "org.libvirt.unix.manage",
        ),
    };
    let file = rules(access).last().copied().unwrap_or_default();
    let mend = match (kind, has_rule) {
        (Refusal::Policy, true) => {
            "polkit has a rule that allows it, and does not follow it; `apt-get install polkitd` where it is \
             missing, otherwise `systemctl restart polkit`"
                .to_owned()
        }
        (Refusal::Policy, false) => format!(
            "allow it to {what}: `echo 'polkit.addRule(function (a, s) {{ if (a.id == \"{action}\" && s.user == \
             \"{user}\") return \"yes\"; }});' > /{file}`"
        ),
        (Refusal::Socket, true | false) if access == Access::Change => format!(
            "allow it to {what}: auth_unix_rw = \"polkit\" and with it unix_sock_rw_perms = \"0777\" in \
             /etc/libvirt/libvirtd.conf or virtqemud.conf"
        ),
        (Refusal::Socket, true | false) => {
            "open its read-only socket: unix_sock_ro_perms = \"0777\" in /etc/libvirt/libvirtd.conf or virtqemud.conf, \
             or SocketMode=0666 by `systemctl edit libvirtd-ro.socket`"
                .to_owned()
        }
    };
    format!("libvirt refuses user {user}: {why}; {mend}")
}

/// The name of a user, or the number where it has none.
fn user(passwd: &str, uid: u32) -> String {
    let mut names = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then_some(name)
    });
    names.next().map_or_else(|| format!("with id {uid}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENIED: &str = "connect: authentication unavailable: no polkit agent available";

    #[test]
    fn a_refusal_says_who_is_refused_and_the_command_that_mends_it() {
        let without = text(Refusal::Policy, Access::Look, DENIED, "horcrux-agent", false);
        assert!(
            without.starts_with("libvirt refuses user horcrux-agent: connect: authentication unavailable")
        );
        for part in ["org.libvirt.unix.monitor", "s.user == \"horcrux-agent\"", "> /etc/polkit-1/rules.d/"] {
            assert!(without.contains(part), "{part} is missing in: {without}");
        }
        let with = text(Refusal::Policy, Access::Look, DENIED, "horcrux-agent", true);
        assert!(with.contains("systemctl restart polkit") && !with.contains("echo"), "{with}");
        let socket = text(Refusal::Socket, Access::Look, "connect: Permission denied", "horcrux-agent", true);
        assert!(socket.contains("unix_sock_ro_perms"), "{socket}");
    }

    #[test]
    fn a_group_that_is_as_good_as_root_is_not_proposed() {
        for (kind, has_rule) in [
            (Refusal::Policy, true),
            (Refusal::Policy, false),
            (Refusal::Socket, true),
            (Refusal::Socket, false),
        ] {
            for access in [Access::Look, Access::Change] {
                let told = text(kind, access, DENIED, "horcrux-agent", has_rule);
                assert!(!told.contains("usermod") && !told.contains("group"), "{told}");
            }
        }
    }

    #[test]
    fn one_that_may_look_is_told_how_it_may_change_and_that_it_need_not() {
        let told = text(Refusal::Policy, Access::Change, DENIED, "horcrux-agent", false);
        for part in ["org.libvirt.unix.manage", "ask_guest_agents = false", CHANGE_RULES[0]] {
            assert!(told.contains(part), "{part} is missing in: {told}");
        }
        let socket = text(Refusal::Socket, Access::Change, DENIED, "horcrux-agent", false);
        assert!(socket.contains("auth_unix_rw") && !socket.contains("ro_perms"), "{socket}");
    }

    #[test]
    fn a_user_is_known_by_name_or_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nhorcrux-agent:x:998:998::/:/usr/sbin/nologin\n";
        assert_eq!(user(passwd, 998), "horcrux-agent");
        assert_eq!(user(passwd, 7), "with id 7");
        assert_eq!(user("", 7), "with id 7");
    }
}
