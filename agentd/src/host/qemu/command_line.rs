//! What a QEMU's command line tells of its VM. Whoever started the process wrote it: it is shown, never acted on.

use horcrux_proto::name::VmUuid;

/// As `/proc/PID/cmdline` has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::host) struct CommandLine {
    /// The file name of the program.
    pub(in crate::host) program: String,
    pub(super) uuid: Option<VmUuid>,
    pub(in crate::host) name: Option<String>,
    pub(in crate::host) vcpus: Option<u32>,
    pub(in crate::host) memory_bytes: Option<u64>,
    pub(super) started_by: StartedBy,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::host) enum StartedBy {
    /// The libvirt of the system: `qemu:///system` tells of it, or will.
    SystemLibvirt,
    /// Another libvirt, such as a user's own.
    OtherLibvirt,
    #[default]
    Other,
}

/// Where the system's libvirt has the files of its VMs, of which each QEMU gets at least a key.
const SYSTEM_FILES: &str = "/var/lib/libvirt/qemu/";
/// What names those files, wherever they are: of a VM, and of a QEMU that libvirt only asks what it can do.
const FILES: [&str; 2] = ["/libvirt/qemu/", "/.config/libvirt/"];
/// What a name may have at most here; the controller has a limit of its own.
const LONGEST_NAME: usize = 128;

impl CommandLine {
    /// `None`: it is no QEMU that runs a VM.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let mut arguments = line.split(|&byte| byte == 0);
        let program = String::from_utf8_lossy(arguments.next()?).into_owned();
        let program = program.rsplit('/').next()?.to_owned();
        if !is_qemu(&program) {
            return None;
        }
        let mut told = Self { program, ..Self::default() };
        let mut option = String::new();
        for argument in arguments {
            let argument = String::from_utf8_lossy(argument);
            told.started_by = told.started_by.max(marks(&argument));
            // QEMU takes both.
            match argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) {
                Some(name) if option.is_empty() => name.clone_into(&mut option),
                _ => told.take(&std::mem::take(&mut option), &argument),
            }
            if takes_nothing(&option) {
                option.clear();
            }
        }
        Some(told)
    }

    fn take(&mut self, option: &str, value: &str) {
        match option {
            "uuid" => self.uuid = value.parse().ok(),
            "name" => {
                let name = first(value, "guest").filter(|name| !name.is_empty());
                self.name = name.map(|name| name.chars().take(LONGEST_NAME).collect());
            }
            "smp" => self.vcpus = first(value, "cpus").and_then(|cpus| cpus.parse().ok()),
            "m" => self.memory_bytes = first(value, "size").and_then(size),
            _ => {}
        }
    }
}

/// Names that distributions give QEMU's system emulators. A shell that starts one names it in its arguments only.
fn is_qemu(program: &str) -> bool {
    let program = program.trim_start_matches('.');
    program.starts_with("qemu-system-") || program == "qemu-kvm"
}

/// The value of `key`, which is the first part's when that has no key.
fn first<'a>(value: &'a str, key: &str) -> Option<&'a str> {
    value.split(',').enumerate().find_map(|(at, part)| match part.split_once('=') {
        Some((name, value)) => (name == key).then_some(value),
        None => (at == 0).then_some(part),
    })
}

/// `512` is of MiB, as QEMU has it.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].chars().next().map(|unit| unit.to_ascii_uppercase()) {
        Some('B') => 0,
        Some('K') => 10,
        None | Some('M') => 20,
        Some('G') => 30,
        Some('T') => 40,
        Some(_) => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Options that people and libvirt give before others, and that have no value.
fn takes_nothing(option: &str) -> bool {
    const NONE: [&str; 10] = [
        "S",
        "nographic",
        "nodefaults",
        "no-user-config",
        "daemonize",
        "enable-kvm",
        "no-reboot",
        "no-shutdown",
        "snapshot",
        "full-screen",
    ];
    NONE.contains(&option)
}

fn marks(argument: &str) -> StartedBy {
    if !FILES.iter().any(|files| argument.contains(files)) {
        return StartedBy::Other;
    }
    // A disk may lie where libvirt's files do; a key and a socket of a monitor don't by chance.
    let is_libvirt_s = argument.contains("master-key.aes")
        || argument.contains("/monitor.sock")
        || argument.contains("/qmp.monitor");
    match (is_libvirt_s, argument.contains(SYSTEM_FILES)) {
        (true, true) => StartedBy::SystemLibvirt,
        (true, false) => StartedBy::OtherLibvirt,
        (false, _) => StartedBy::Other,
    }
}

impl StartedBy {
    fn max(self, other: Self) -> Self {
        match (self, other) {
            (Self::SystemLibvirt, _) | (_, Self::SystemLibvirt) => Self::SystemLibvirt,
            (Self::OtherLibvirt, _) | (_, Self::OtherLibvirt) => Self::OtherLibvirt,
            (Self::Other, Self::Other) => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UUID: &str = "aaaaaaaa-0000-4000-8000-000000000001";

    fn parse(line: &str) -> Option<CommandLine> {
        CommandLine::parse(line.replace(' ', "\0").as_bytes())
    }

    #[test]
    fn what_a_person_typed_is_understood() {
        let told = parse(&format!(
            "/usr/bin/qemu-system-x86_64 -S -enable-kvm -m 2G,slots=4 --smp 4,sockets=2 -name web,process=x -uuid {UUID} -hda d"
        ))
        .unwrap();
        assert_eq!(told.program, "qemu-system-x86_64");
        assert_eq!((told.uuid, told.vcpus), (Some(UUID.parse().unwrap()), Some(4)));
        assert_eq!((told.name.as_deref(), told.memory_bytes), (Some("web"), Some(2 << 30)));
        assert_eq!(told.started_by, StartedBy::Other);
        let sparse = parse("qemu-kvm -m size=512 -smp sockets=2,cpus=3").unwrap();
        assert_eq!((sparse.memory_bytes, sparse.vcpus), (Some(512 << 20), Some(3)));
        assert_eq!((sparse.uuid, sparse.name), (None, None));
    }

    #[test]
    fn what_is_no_qemu_is_none() {
        for line in ["", "bash -c qemu-system-x86_64", "qemu-img convert", "/usr/bin/qemu-ga -d"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn what_libvirt_started_is_told_by_its_files() {
        let of = |files: &str| {
            let line = format!(
                "/usr/bin/qemu-system-x86_64 -name guest=web,debug-threads=on -S -object \
                 {{\"qom-type\":\"secret\",\"id\":\"masterKey0\",\"file\":\"{files}domain-1-web/master-key.aes\"}}"
            );
            let told = parse(&line).unwrap();
            assert_eq!(told.name.as_deref(), Some("web"));
            told.started_by
        };
        assert_eq!(of("/var/lib/libvirt/qemu/"), StartedBy::SystemLibvirt);
        assert_eq!(of("/home/ada/.config/libvirt/qemu/lib/"), StartedBy::OtherLibvirt);
        let probe = "qemu-system-x86_64 -S -machine none -qmp unix:/var/lib/libvirt/qemu/qmp-Ab/qmp.monitor,server=on";
        assert_eq!(parse(probe).unwrap().started_by, StartedBy::SystemLibvirt);
        let disk = "qemu-system-x86_64 -hda /var/lib/libvirt/qemu/images/web.qcow2";
        assert_eq!(parse(disk).unwrap().started_by, StartedBy::Other);
    }

    proptest! {
        #[test]
        fn any_command_line_is_taken(rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let line = [b"qemu-system-x86_64\0-m\0".as_slice(), &rest].concat();
            prop_assert!(CommandLine::parse(&line).is_some());
        }
    }
}
