//! A libvirt that doesn't let the agent look, and the command that mends it.
//!
//! Group `libvirt` is not what mends it: who is in it may do with VMs, and by them with the host, what root may.
//!
//! libvirt lets anybody look, unless an administrator has polkit or a socket's mode forbid it. The agent's package has a rule
//! for polkit, with a name that an administrator's can stand before. Whether it is there can't be seen, for only polkit may
//! look into that directory. So what is proposed is a rule that stands before all others.

use std::fs;

use horcrux_libvirt::virt::error::{Error, ErrorDomain, ErrorNumber};
use rustix::process::geteuid;

use super::raw::Access;
use super::session::Place;

/// Who refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// polkit, whom libvirtd asks.
    Policy,
    /// libvirtd, which can't ask polkit.
    NoPolkit,
    /// libvirtd, which wants to be shown who asks in another way: SASL.
    Proof,
    /// The kernel: the socket's mode keeps others out.
    Socket,
    /// ssh: it has no key that the other host takes, or doesn't know the other host.
    Ssh,
    /// TLS: one of both doesn't take the other's certificate.
    Certificate,
}

/// Both sort before what other packages and administrators have.
const LOOK_RULE: &str = "/etc/polkit-1/rules.d/00-horcrux-agent.rules";
const CHANGE_RULE: &str = "/etc/polkit-1/rules.d/00-horcrux-guest-agents.rules";

/// What to say of it, if it is one.
pub(super) fn told(error: &Error, why: &str, access: Access, place: &Place) -> Option<String> {
    let kind = of(error, place)?;
    let passwd = fs::read_to_string(place.root().join("etc/passwd")).unwrap_or_default();
    Some(text((kind, access), why, &user(&passwd, geteuid().as_raw()), place))
}

fn of(error: &Error, place: &Place) -> Option<Refusal> {
    use ErrorNumber::{AccessDenied, AuthCancelled, AuthFailed, AuthUnavailable, DbusService};
    let is = |numbers: &[ErrorNumber]| numbers.iter().any(|number| error.code().is(*number));
    let says = |part| error.message().contains(part);
    if place.is_by_ssh() && (says("Permission denied") || says("Host key verification failed")) {
        return Some(Refusal::Ssh);
    }
    if says("certificate") {
        return Some(Refusal::Certificate);
    }
    if is(&[DbusService]) || says("system bus connection") {
        return Some(Refusal::NoPolkit);
    }
    let by_polkit = error.domain().is(ErrorDomain::Polkit) || says("policy") || says("polkit");
    if by_polkit || is(&[AccessDenied, AuthCancelled, AuthUnavailable]) {
        return Some(Refusal::Policy);
    }
    if is(&[AuthFailed]) {
        return Some(Refusal::Proof);
    }
    (is(&[ErrorNumber::SystemError]) && says("Permission denied")).then_some(Refusal::Socket)
}

/// `own` is the agent's user here.
fn text((kind, access): (Refusal, Access), why: &str, own: &str, place: &Place) -> String {
    let (user, there) = match place.remote() {
        Some((user, host)) => (user.unwrap_or(own), format!(" on {host}")),
        None => (own, String::new()),
    };
    let (what, action, rule, socket) = match access {
        Access::Look => ("look", "org.libvirt.unix.monitor", LOOK_RULE, "auth_unix_ro"),
        // As good as root on the VMs: whoever reads this may want to leave it.
        Access::Change => (
            "change VMs, as asking guest agents needs, or set ask_guest_agents = false",
            "org.libvirt.unix.manage",
            CHANGE_RULE,
            "auth_unix_rw",
        ),
    };
    let mend = match kind {
        Refusal::Policy => format!(
            "allow it to {what}{there}: `echo 'polkit.addRule(function (a, s) {{ if (a.id == \"{action}\" && s.user == \
             \"{user}\") return \"yes\"; }});' > {rule}`"
        ),
        Refusal::NoPolkit => {
            format!("libvirt asks polkit who may look, and it is not there{there}: `apt-get install polkitd`")
        }
        Refusal::Proof => format!(
            "libvirt wants a password, and the agent has none: {socket} = \"polkit\" in /etc/libvirt/libvirtd.conf \
             or virtqemud.conf{there}, then `systemctl restart libvirtd`"
        ),
        Refusal::Socket if access == Access::Change => format!(
            "allow it to {what}{there}: auth_unix_rw = \"polkit\" and with it unix_sock_rw_perms = \"0777\" in \
             /etc/libvirt/libvirtd.conf or virtqemud.conf"
        ),
        Refusal::Socket => format!(
            "open its read-only socket{there}: SocketMode=0666 by `systemctl edit libvirtd-ro.socket`, then `systemctl \
             restart libvirtd-ro.socket`; where systemd doesn't make it, unix_sock_ro_perms = \"0777\" in \
             /etc/libvirt/libvirtd.conf"
        ),
        Refusal::Ssh => {
            let host = place.remote().map_or("", |(_, host)| host);
            let to = if user == own { host.to_owned() } else { format!("{user}@{host}") };
            format!("`sudo -u {own} ssh {to} true` must end well and ask nothing")
        }
        Refusal::Certificate => format!(
            "both sides must have a certificate of one authority, and that{there} the name that the address has: \
             cacert.pem, clientcert.pem and clientkey.pem here, in the address's pkipath or /etc/pki"
        ),
    };
    format!("libvirt{there} refuses user {user}: {why}; {mend}")
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
    use std::path::Path;

    use super::*;

    const DENIED: &str = "connect: authentication failed: access denied by policy";
    const ALL: [Refusal; 6] = [
        Refusal::Policy,
        Refusal::NoPolkit,
        Refusal::Proof,
        Refusal::Socket,
        Refusal::Ssh,
        Refusal::Certificate,
    ];

    fn at(kind: Refusal, uri: &str) -> String {
        text((kind, Access::Look), DENIED, "horcrux-agent", &Place::new(uri, Path::new("/")))
    }

    fn to_change(kind: Refusal) -> String {
        text((kind, Access::Change), DENIED, "horcrux-agent", &Place::new("qemu:///system", Path::new("/")))
    }

    #[test]
    fn a_refusal_says_who_is_refused_and_the_command_that_mends_it() {
        let policy = at(Refusal::Policy, "qemu:///system");
        assert!(policy.starts_with("libvirt refuses user horcrux-agent: connect: authentication failed"));
        for part in ["org.libvirt.unix.monitor", "s.user == \"horcrux-agent\"", "> /etc/polkit-1/rules.d/00-"]
        {
            assert!(policy.contains(part), "{part} is missing in: {policy}");
        }
        assert!(at(Refusal::NoPolkit, "qemu:///system").contains("apt-get install polkitd"));
        assert!(at(Refusal::Socket, "qemu:///system").contains("unix_sock_ro_perms"));
        assert!(at(Refusal::Proof, "lxc:///").contains("auth_unix_ro"));
    }

    #[test]
    fn what_mends_a_refusal_of_another_host_names_that_host_and_the_user_there() {
        let policy = at(Refusal::Policy, "qemu+ssh://look@b/system");
        assert!(policy.starts_with("libvirt on b refuses user look: "), "{policy}");
        assert!(policy.contains("look on b: `echo") && policy.contains("s.user == \"look\""), "{policy}");
        let by_ssh = at(Refusal::Ssh, "qemu+ssh://look@b/system");
        assert!(
            by_ssh.ends_with("; `sudo -u horcrux-agent ssh look@b true` must end well and ask nothing"),
            "{by_ssh}"
        );
        assert!(at(Refusal::Ssh, "qemu+ssh://b/system").contains("ssh b true"));
        assert!(at(Refusal::Certificate, "qemu+tls://b/system").contains("pkipath"));
    }

    #[test]
    fn a_group_that_is_as_good_as_root_is_not_proposed() {
        for kind in ALL {
            for told in [at(kind, "qemu:///system"), to_change(kind)] {
                assert!(!told.contains("usermod") && !told.contains("group"), "{told}");
            }
        }
    }

    #[test]
    fn one_that_may_look_is_told_how_it_may_change_and_that_it_need_not() {
        let policy = to_change(Refusal::Policy);
        for part in ["org.libvirt.unix.manage", "ask_guest_agents = false", CHANGE_RULE] {
            assert!(policy.contains(part), "{part} is missing in: {policy}");
        }
        let socket = to_change(Refusal::Socket);
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
