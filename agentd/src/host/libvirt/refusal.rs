//! A libvirt that doesn't let the agent look, and the command that mends it.
//!
//! Group `libvirt` is not what mends it: who is in it may do with VMs, and by them with the host, what root may.

use std::fs;
use std::path::Path;

use rustix::process::geteuid;
use virt::error::{Error, ErrorDomain, ErrorNumber};

/// Who refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// libvirtd, by polkit or another way to find out who asks.
    Policy,
    /// The kernel: the socket's mode keeps others out.
    Socket,
}

/// Where the agent's package has its rule, and where administrators have theirs.
const RULES: [&str; 2] =
    ["usr/share/polkit-1/rules.d/60-horcrux-agent.rules", "etc/polkit-1/rules.d/60-horcrux-agent.rules"];

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
pub(super) fn told(kind: Refusal, why: &str, root: &Path) -> String {
    let user = user(&fs::read_to_string(root.join("etc/passwd")).unwrap_or_default(), geteuid().as_raw());
    let has_rule = RULES.iter().any(|rule| root.join(rule).exists());
    text(kind, why, &user, has_rule)
}

fn text(kind: Refusal, why: &str, user: &str, has_rule: bool) -> String {
    let mend = match (kind, has_rule) {
        (Refusal::Policy, true) => {
            "polkit has a rule that allows it, and does not follow it; `apt-get install polkitd` where it is \
             missing, otherwise `systemctl restart polkit`"
                .to_owned()
        }
        (Refusal::Policy, false) => format!(
            "allow it to look: `echo 'polkit.addRule(function (a, s) {{ if (a.id == \"org.libvirt.unix.monitor\" && \
             s.user == \"{user}\") return \"yes\"; }});' > /{}`",
            RULES[1]
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
        let without = text(Refusal::Policy, DENIED, "horcrux-agent", false);
        assert!(
            without.starts_with("libvirt refuses user horcrux-agent: connect: authentication unavailable")
        );
        for part in ["org.libvirt.unix.monitor", "s.user == \"horcrux-agent\"", "> /etc/polkit-1/rules.d/"] {
            assert!(without.contains(part), "{part} is missing in: {without}");
        }
        let with = text(Refusal::Policy, DENIED, "horcrux-agent", true);
        assert!(with.contains("systemctl restart polkit") && !with.contains("echo"), "{with}");
        let socket = text(Refusal::Socket, "connect: Permission denied", "horcrux-agent", true);
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
            let told = text(kind, DENIED, "horcrux-agent", has_rule);
            assert!(!told.contains("usermod") && !told.contains("group"), "{told}");
        }
    }

    #[test]
    fn a_user_is_known_by_name_or_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nhorcrux-agent:x:998:998::/:/usr/sbin/nologin\n";
        assert_eq!(user(passwd, 998), "horcrux-agent");
        assert_eq!(user(passwd, 7), "with id 7");
        assert_eq!(user("", 7), "with id 7");
    }
}
