//! What a network device is, from `/sys/class/net`.

use std::fs;
use std::path::Path;

use horcrux_proto::v1::{LinkState, NetworkDevice, NetworkDeviceKind as Kind};

use crate::host::read::read_text;

const BITS_PER_MEGABIT: u64 = 1_000_000;
/// Of `tun_flags` (linux/if_tun.h, `IFF_TAP`): frames come out of it, not packets.
const TAP: u32 = 0x2;

/// Looks a device up. One that is gone meanwhile, or that sysfs doesn't have, is of no kind.
pub(super) fn device(class: &Path, name: &str) -> NetworkDevice {
    let dir = class.join(name);
    let text = |file: &str| read_text(&dir.join(file)).ok().map(|text| text.trim().to_owned());
    let kind = kind(&dir, name);
    let state = text("operstate").map_or(LinkState::Unspecified, |text| state(&text));
    NetworkDevice {
        name: name.to_owned(),
        kind: kind.into(),
        state: state.into(),
        master: target(&dir.join("master")),
        parent: (kind == Kind::Vlan).then(|| parent(&dir)).flatten(),
        // Asked of its driver, which a tap or one end of a pair answers with a number that means nothing.
        speed_bits_per_second: has_link(kind).then(|| text("speed")).flatten().and_then(|text| speed(&text)),
        mac: text("address").filter(|mac| kind != Kind::Loopback && !mac.is_empty()),
        mtu_bytes: text("mtu").and_then(|mtu| mtu.parse().ok()),
    }
}

/// Whether it stands for a cable, or for something that has some.
pub(super) fn has_link(kind: Kind) -> bool {
    match kind {
        Kind::Physical | Kind::Bridge | Kind::Bond | Kind::Vlan => true,
        Kind::Unspecified | Kind::Tap | Kind::Loopback | Kind::Virtual => false,
    }
}

/// 1 or 0; None while it is switched off, when the kernel doesn't tell.
pub(super) fn carrier(class: &Path, name: &str) -> Option<f64> {
    match read_text(&class.join(name).join("carrier")).ok()?.trim() {
        "1" => Some(1.0),
        "0" => Some(0.0),
        _ => None,
    }
}

fn kind(dir: &Path, name: &str) -> Kind {
    if !dir.is_dir() {
        return Kind::Unspecified;
    }
    if dir.join("device").exists() {
        return Kind::Physical;
    }
    if name == "lo" {
        return Kind::Loopback;
    }
    if dir.join("bridge").is_dir() {
        return Kind::Bridge;
    }
    if dir.join("bonding").is_dir() {
        return Kind::Bond;
    }
    if let Ok(flags) = read_text(&dir.join("tun_flags")) {
        let flags = flags.trim().trim_start_matches("0x");
        let is_tap = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & TAP != 0);
        return if is_tap { Kind::Tap } else { Kind::Virtual };
    }
    let uevent = read_text(&dir.join("uevent")).unwrap_or_default();
    if uevent.lines().any(|line| line == "DEVTYPE=vlan") { Kind::Vlan } else { Kind::Virtual }
}

fn state(text: &str) -> LinkState {
    match text {
        "up" => LinkState::Up,
        "down" => LinkState::Down,
        "lowerlayerdown" => LinkState::LowerLayerDown,
        "dormant" => LinkState::Dormant,
        "testing" => LinkState::Testing,
        "notpresent" => LinkState::NotPresent,
        "unknown" => LinkState::Unknown,
        _ => LinkState::Unspecified,
    }
}

/// sysfs has megabits; -1, and on some drivers the same in 32 bits, is for a link that is down or has no speed.
fn speed(text: &str) -> Option<u64> {
    let megabits: u64 = text.parse().ok()?;
    (megabits > 0 && megabits < u64::from(u32::MAX)).then(|| megabits.saturating_mul(BITS_PER_MEGABIT))
}

/// The name of the device that a link leads to.
fn target(link: &Path) -> Option<String> {
    Some(fs::read_link(link).ok()?.file_name()?.to_str()?.to_owned())
}

/// `lower_eth0`.
fn parent(dir: &Path) -> Option<String> {
    let mut names =
        fs::read_dir(dir).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.find_map(|name| name.strip_prefix("lower_").map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    fn put(class: &Path, name: &str, dirs: &[&str], files: &[(&str, &str)]) {
        let dir = class.join(name);
        fs::create_dir(&dir).unwrap();
        for inner in dirs {
            fs::create_dir(dir.join(inner)).unwrap();
        }
        for (file, text) in files {
            fs::write(dir.join(file), format!("{text}\n")).unwrap();
        }
    }

    #[test]
    fn kinds_and_their_places_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let class = dir.path();
        let up = ("operstate", "up");
        put(
            class,
            "eth0",
            &["device"],
            &[up, ("speed", "10000"), ("address", "52:54:00:00:00:01"), ("mtu", "9000")],
        );
        put(class, "br0", &["bridge"], &[up, ("speed", "-1")]);
        put(class, "bond0", &["bonding"], &[up, ("speed", "4294967295")]);
        put(class, "eth0.7", &["lower_eth0"], &[("uevent", "DEVTYPE=vlan\nINTERFACE=eth0.7")]);
        put(class, "vnet0", &[], &[("operstate", "unknown"), ("tun_flags", "0x5002"), ("speed", "10000")]);
        put(class, "tun0", &[], &[("tun_flags", "0x1001")]);
        put(class, "lo", &[], &[("address", "00:00:00:00:00:00")]);
        put(class, "veth1", &[], &[("uevent", "INTERFACE=veth1"), ("operstate", "new word")]);
        symlink("../br0", class.join("vnet0/master")).unwrap();
        let is = |name: &str, kind: Kind, state: LinkState| {
            let device = device(class, name);
            assert_eq!((device.kind(), device.state()), (kind, state), "{name}");
            device
        };
        let eth0 = is("eth0", Kind::Physical, LinkState::Up);
        assert_eq!(eth0.speed_bits_per_second, Some(10_000_000_000));
        assert_eq!((eth0.mac.as_deref(), eth0.mtu_bytes), (Some("52:54:00:00:00:01"), Some(9000)));
        assert_eq!(is("br0", Kind::Bridge, LinkState::Up).speed_bits_per_second, None);
        assert_eq!(is("bond0", Kind::Bond, LinkState::Up).speed_bits_per_second, None);
        assert_eq!(is("eth0.7", Kind::Vlan, LinkState::Unspecified).parent.as_deref(), Some("eth0"));
        let tap = is("vnet0", Kind::Tap, LinkState::Unknown);
        assert_eq!((tap.master.as_deref(), tap.speed_bits_per_second), (Some("br0"), None));
        is("tun0", Kind::Virtual, LinkState::Unspecified);
        assert_eq!(is("lo", Kind::Loopback, LinkState::Unspecified).mac, None);
        is("veth1", Kind::Virtual, LinkState::Unspecified);
        is("gone", Kind::Unspecified, LinkState::Unspecified);
    }

    proptest! {
        #[test]
        fn speed_never_panics(text in "[-0-9]{0,22}") {
            prop_assert!(speed(&text).is_none_or(|bits| bits >= BITS_PER_MEGABIT));
        }
    }
}
