//! What a guest agent's answers mean. It may say anything: what is kept of it is bounded.

use horcrux_proto::v1::{GuestFacts, GuestFilesystem, GuestInterface};

use crate::host::libvirt::params::Params;
use crate::host::libvirt::raw::GuestInfo;

/// Users, interfaces, filesystems or addresses that a guest is believed to have.
const MOST: u64 = 64;
const LONGEST: usize = 256;

/// Keys are those of `virDomainGetGuestInfo`.
pub(super) fn take_in(params: &Params, info: GuestInfo, facts: &mut GuestFacts) {
    let text = |key: &str| params.text(key).map(|text| text.chars().take(LONGEST).collect::<String>());
    let count = |key: &str| params.number(key).unwrap_or(0).min(MOST);
    for (key, what) in [("user.count", "users"), ("if.count", "interfaces"), ("fs.count", "filesystems")] {
        if let Some(all) = params.number(key).filter(|all| *all > MOST) {
            facts.unknown.push(format!("{what}: the first {MOST} of {all} are kept"));
        }
    }
    match info {
        GuestInfo::Os => {
            facts.os = text("os.pretty-name").or_else(|| text("os.name"));
            facts.kernel = text("os.kernel-release");
        }
        GuestInfo::Hostname => facts.hostname = text("hostname"),
        GuestInfo::Users => {
            facts.users =
                (0..count("user.count")).filter_map(|at| text(&format!("user.{at}.name"))).collect();
        }
        GuestInfo::Interfaces => {
            let interface = |at: u64| GuestInterface {
                name: text(&format!("if.{at}.name")).unwrap_or_default(),
                mac: text(&format!("if.{at}.hwaddr")),
                addresses: (0..count(&format!("if.{at}.addr.count")))
                    .filter_map(|of| {
                        let address = text(&format!("if.{at}.addr.{of}.addr"))?;
                        let prefix = params.number(&format!("if.{at}.addr.{of}.prefix"));
                        Some(prefix.map_or_else(|| address.clone(), |prefix| format!("{address}/{prefix}")))
                    })
                    .collect(),
            };
            facts.interfaces = (0..count("if.count")).map(interface).collect();
        }
        GuestInfo::Filesystems => {
            let filesystem = |at: u64| GuestFilesystem {
                mountpoint: text(&format!("fs.{at}.mountpoint")).unwrap_or_default(),
                kind: text(&format!("fs.{at}.fstype")).unwrap_or_default(),
                size_bytes: params.number(&format!("fs.{at}.total-bytes")),
                used_bytes: params.number(&format!("fs.{at}.used-bytes")),
            };
            facts.filesystems = (0..count("fs.count")).map(filesystem).collect();
        }
        GuestInfo::Load => {
            facts.load_1m = params.fraction("load.1m");
            facts.load_5m = params.fraction("load.5m");
            facts.load_15m = params.fraction("load.15m");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::libvirt::guest::ASKED;
    use crate::host::libvirt::params::Param;

    #[test]
    fn what_an_agent_says_is_bounded_and_taken_for_what_it_is() {
        let text = |key: &str, value: &str| (key.to_owned(), Param::Text(value.to_owned()));
        let number = |key: &str, value| (key.to_owned(), Param::Unsigned(value));
        let params = Params::new(vec![
            text("os.pretty-name", &"x".repeat(10_000)),
            number("user.count", u64::MAX),
            text("user.0.name", "ada"),
            number("if.count", 1),
            text("if.0.name", "eth0"),
            number("if.0.addr.count", 1),
            text("if.0.addr.0.addr", "192.0.2.7"),
            number("if.0.addr.0.prefix", 24),
            number("fs.count", 1),
            text("fs.0.mountpoint", "/"),
            number("fs.0.used-bytes", 7),
            ("load.1m".to_owned(), Param::Fraction(0.5)),
        ]);
        let mut facts = GuestFacts::default();
        for (info, _) in ASKED {
            take_in(&params, info, &mut facts);
        }
        assert_eq!(facts.os.map(|os| os.len()), Some(LONGEST));
        assert_eq!(facts.users, ["ada"]);
        assert!(facts.unknown[0].starts_with("users: the first 64 of "), "{:?}", facts.unknown);
        assert_eq!(facts.interfaces[0].addresses, ["192.0.2.7/24"]);
        assert_eq!((facts.filesystems[0].used_bytes, facts.filesystems[0].size_bytes), (Some(7), None));
        assert_eq!((facts.load_1m, facts.load_5m), (Some(0.5), None));
    }
}
