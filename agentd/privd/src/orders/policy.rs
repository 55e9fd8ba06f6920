//! What this node lets a controller do. Where the file doesn't say so without doubt, it is nothing.

use horcrux_envelope::Operation;
use horcrux_privd::settings::{Mode, POLICY};
use serde::Deserialize;

use super::trusted::{Trusted, Untrusted};

const OPERATIONS: [&str; 2] = ["console-open", "console-close"];

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) mode: Mode,
    /// Why it is no more than that, where the file isn't why.
    pub(crate) reason: Option<String>,
    allow_vms: Vec<String>,
    deny_ops: Vec<String>,
    pub(crate) libvirt_uri: String,
}

/// What an operation is on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vm<'a> {
    pub(crate) uuid: &'a str,
    /// None: libvirt doesn't tell.
    pub(crate) name: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mode: Mode,
    #[serde(default)]
    allow_vms: Vec<String>,
    #[serde(default)]
    deny_ops: Vec<String>,
    /// No operation is destructive so far.
    destructive_per_minute: Option<u32>,
    libvirt_uri: Option<String>,
}

impl Policy {
    /// As it is now.
    pub(crate) fn read(files: &Trusted) -> Self {
        match files.read(POLICY) {
            Ok(text) => Self::parse(&text).unwrap_or_else(|why| {
                Self::observe(format!("{POLICY} is not understood, so it is as if it said observe: {why}"))
            }),
            Err(Untrusted::Missing) => Self::observe(format!("there is no {POLICY}, so nothing is allowed")),
            Err(why) => Self::observe(format!("{POLICY} doesn't count, so nothing is allowed: {why}")),
        }
    }

    fn observe(reason: String) -> Self {
        let reason = Some(reason);
        Self {
            mode: Mode::Observe,
            reason,
            allow_vms: Vec::new(),
            deny_ops: Vec::new(),
            libvirt_uri: String::new(),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        if let Some(unknown) = file.deny_ops.iter().find(|op| !OPERATIONS.contains(&op.as_str())) {
            return Err(format!("deny_ops: there is no operation {unknown:?}"));
        }
        if file.allow_vms.iter().any(String::is_empty) {
            return Err("allow_vms: a pattern is empty".to_owned());
        }
        if file.destructive_per_minute.is_some_and(|most| most > 1000) {
            return Err("destructive_per_minute: it is 0 to 1000".to_owned());
        }
        let libvirt_uri = file.libvirt_uri.unwrap_or_else(|| "qemu:///system".to_owned());
        // Others run a program, or speak over a network that privd doesn't have.
        if libvirt_uri.split_once(":///").is_none_or(|(scheme, _)| scheme.contains('+')) {
            return Err("libvirt_uri: only one of this host, such as qemu:///system".to_owned());
        }
        let File { mode, allow_vms, deny_ops, .. } = file;
        Ok(Self { mode, reason: None, allow_vms, deny_ops, libvirt_uri })
    }

    /// Why it is forbidden, if it is, whatever VM it is on.
    pub(crate) fn forbids(&self, operation: &Operation) -> Option<String> {
        let name = operation.name();
        if self.deny_ops.iter().any(|denied| denied == name) {
            return Some(format!("this node's deny_ops has {name}"));
        }
        let needed = match operation {
            Operation::ConsoleOpen(_) => Mode::Console,
            // Takes a right away.
            Operation::ConsoleClose(_) => Mode::Observe,
        };
        let why = self.reason.as_deref().unwrap_or("its policy says so");
        (self.mode < needed)
            .then(|| format!("{name} needs mode {needed}, this node's is {}: {why}", self.mode))
    }

    pub(crate) fn forbids_vm(&self, vm: Vm<'_>) -> Option<String> {
        let fits =
            |pattern: &String| matches(pattern, vm.uuid) || vm.name.is_some_and(|n| matches(pattern, n));
        let is_allowed = self.allow_vms.iter().any(fits);
        let name = vm.name.map_or_else(|| vm.uuid.to_owned(), |name| format!("{name:?}"));
        (!is_allowed).then(|| format!("this node's allow_vms doesn't have VM {name}"))
    }
}

/// `*` stands for any characters, `?` for one.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and up to where it has eaten: that is as far as one ever has to go back.
    let mut star = None;
    while let Some(letter) = text.get(t) {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(wanted) if *wanted == '?' || wanted == letter => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, eaten)) => {
                    star = Some((at, eaten + 1));
                    (p, t) = (at + 1, eaten + 1);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use horcrux_envelope::{ConsoleId, ConsoleKind, ConsoleOpen};
    use horcrux_privd::settings::starting_policy;
    use proptest::prelude::*;
    use rustix::process::geteuid;

    use super::*;

    const ID: [u8; 16] = [7; 16];

    fn close() -> Operation {
        Operation::ConsoleClose(ConsoleId::from_bytes(ID))
    }

    fn open() -> Operation {
        Operation::ConsoleOpen(ConsoleOpen {
            console: ConsoleId::from_bytes(ID),
            vm: uuid::Uuid::from_bytes(ID),
            kind: ConsoleKind::Vnc,
            rendezvous: horcrux_envelope::Rendezvous::from_bytes([1; 32]),
            until_unix_ms: 1,
        })
    }

    #[test]
    fn what_a_host_starts_with_says_what_it_was_told_to() {
        for mode in [Mode::Observe, Mode::Console, Mode::Operate, Mode::Manage] {
            let policy = Policy::parse(&starting_policy(mode)).unwrap();
            assert_eq!((policy.mode, policy.libvirt_uri.as_str()), (mode, "qemu:///system"));
            assert_eq!(policy.forbids(&open()).is_none(), mode > Mode::Observe);
            assert!(policy.forbids(&close()).is_none(), "a console is closed in any mode");
            assert_eq!(policy.forbids_vm(Vm { uuid: "u", name: None }), None);
        }
    }

    #[test]
    fn what_is_missing_or_wrong_allows_nothing_and_says_why() {
        let root = tempfile::tempdir().unwrap();
        let policy = Policy::read(&Trusted::new(root.path(), geteuid()));
        assert!(policy.forbids(&open()).unwrap().contains("there is no policy.toml"));
        let dir = root.path().join("etc/horcrux/privd");
        std::fs::create_dir_all(&dir).unwrap();
        for wrong in [
            "",
            "mode = \"Console\"",
            "mode = \"all\"",
            "mode = \"manage\"\nallow_vm = []",
            "mode = \"manage\"\ndeny_ops = [\"reboot\"]",
            "mode = \"manage\"\nallow_vms = [\"\"]",
            "mode = \"manage\"\nallow_vms = \"*\"",
            "mode = \"manage\"\ndestructive_per_minute = -1",
            "mode = \"manage\"\nlibvirt_uri = \"qemu+ssh:///system\"",
            "mode = \"manage\"\nlibvirt_uri = \"qemu://other/system\"",
        ] {
            std::fs::write(dir.join(POLICY), wrong).unwrap();
            let policy = Policy::read(&Trusted::new(root.path(), geteuid()));
            assert_eq!(policy.mode, Mode::Observe, "{wrong}");
            assert!(policy.reason.as_deref().unwrap().contains("not understood"), "{policy:?}");
            assert!(
                policy.forbids(&open()).is_some()
                    && policy.forbids_vm(Vm { uuid: "u", name: None }).is_some()
            );
        }
    }

    #[test]
    fn vms_are_allowed_by_name_or_uuid_and_no_others() {
        let of = |vms: &str| Policy::parse(&format!("mode = \"console\"\n{vms}")).unwrap();
        let web = Vm { uuid: "9a3c", name: Some("web-1") };
        assert!(of("").forbids_vm(web).unwrap().contains("allow_vms doesn't have VM \"web-1\""));
        assert!(of("allow_vms = [\"db-*\", \"web-?\"]").forbids_vm(web).is_none());
        assert!(of("allow_vms = [\"9a*\"]").forbids_vm(web).is_none());
        assert!(of("allow_vms = [\"web-?\"]").forbids_vm(Vm { name: None, ..web }).is_some());
        assert!(of("deny_ops = [\"console-close\"]").forbids(&close()).is_some());
    }

    #[test]
    fn a_pattern_is_matched_as_a_whole() {
        for (pattern, text, is) in [
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("a*a", "a", false),
            ("?", "", false),
            ("web", "web1", false),
            ("*.*", "a.b", true),
            ("[a]", "a", false),
            ("é?", "éa", true),
        ] {
            assert_eq!(matches(pattern, text), is, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_policy_or_refused(text in ".{0,200}", more in "[a-z_]{1,9} = [\"\\[\\]a-z*, 0-9]{0,20}") {
            drop(Policy::parse(&text));
            drop(Policy::parse(&format!("mode = \"console\"\n{more}")));
        }

        #[test]
        fn a_pattern_matches_as_the_plain_definition_does(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            fn plain(pattern: &[u8], text: &[u8]) -> bool {
                match (pattern, text) {
                    ([], _) => text.is_empty(),
                    ([b'*', rest @ ..], _) => (0..=text.len()).any(|eaten| plain(rest, &text[eaten..])),
                    ([b'?', rest @ ..], [_, after @ ..]) => plain(rest, after),
                    ([a, rest @ ..], [b, after @ ..]) => a == b && plain(rest, after),
                    (_, []) => false,
                }
            }
            prop_assert_eq!(matches(&pattern, &text), plain(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
