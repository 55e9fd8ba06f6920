//! `/proc/PID/mountinfo` (format: Linux, Documentation/filesystems/proc.rst, 3.5).

use crate::host::read::Malformed;

/// One mount, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount<'a> {
    /// `major:minor` of the filesystem.
    pub(crate) device: &'a str,
    /// What part of the filesystem is mounted.
    pub(crate) root: String,
    pub(crate) point: String,
    pub(crate) filesystem: &'a str,
    /// What is mounted, as its type names it: a block device, a server's directory.
    pub(crate) source: String,
    /// Options of the filesystem, not of the mount: where cgroup v1 names its controllers.
    pub(crate) options: &'a str,
    /// The mount is, or the whole filesystem.
    pub(crate) read_only: bool,
}

/// Mounts in the order in which they were made: of two at one point, the later hides the earlier.
pub(crate) fn mounts(text: &str) -> Result<Vec<Mount<'_>>, Malformed> {
    text.lines().map(mount).collect()
}

fn mount(line: &str) -> Result<Mount<'_>, Malformed> {
    let cut = Malformed("a mount lacks fields");
    let (before, after) = line.split_once(" - ").ok_or(cut)?;
    let mut before = before.split(' ').skip(2);
    let (device, root, point) = (before.next(), before.next(), before.next());
    let of_mount = before.next().ok_or(cut)?;
    let mut after = after.split(' ');
    let (filesystem, source, options) = (after.next(), after.next(), after.next());
    match (device, root, point, filesystem, source, options) {
        (Some(device), Some(root), Some(point), Some(filesystem), Some(source), Some(options)) => Ok(Mount {
            device,
            root: unescaped(root),
            point: unescaped(point),
            filesystem,
            source: unescaped(source),
            options,
            read_only: [of_mount, options].iter().any(|all| all.split(',').any(|option| option == "ro")),
        }),
        _ => Err(cut),
    }
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescaped(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = |digit: u8| (b'0'..=b'7').contains(&digit).then(|| digit - b'0');
        let code = match (byte, tail) {
            (b'\\', [a @ b'0'..=b'3', b, c, ..]) => {
                octal(*a).zip(octal(*b)).zip(octal(*c)).map(|((a, b), c)| a * 64 + b * 8 + c)
            }
            _ => None,
        };
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HYBRID: &str = include_str!("../../testdata/proc/hybrid/self/mountinfo");

    #[test]
    fn a_real_list_is_read() {
        let mounts = mounts(HYBRID).unwrap();
        let root = mounts.iter().find(|mount| mount.point == "/").unwrap();
        assert_eq!((root.device, root.filesystem), ("254:0", "ext4"));
        assert!(root.source.starts_with("/dev/"), "{}", root.source);
        let pids = mounts.iter().find(|mount| mount.point == "/sys/fs/cgroup/pids").unwrap();
        assert_eq!(pids.options, "rw,pids");
    }

    #[test]
    fn optional_fields_are_skipped_and_escapes_undone() {
        let line = "36 35 98:0 /a\\134b /mnt/with\\040space rw,noatime shared:1 master:2 - nfs4 h:/x rw\n";
        let mounts = mounts(line).unwrap();
        assert_eq!((mounts[0].root.as_str(), mounts[0].point.as_str()), ("/a\\b", "/mnt/with space"));
    }

    #[test]
    fn a_mount_or_a_whole_filesystem_is_read_only() {
        for (of_mount, of_filesystem, read_only) in
            [("rw,noatime", "rw", false), ("ro,noatime", "rw", true), ("rw", "ro,errors=remount-ro", true)]
        {
            let line = format!("36 35 98:0 / /mnt {of_mount} - ext4 /dev/sda {of_filesystem}\n");
            assert_eq!(mounts(&line).unwrap()[0].read_only, read_only, "{line}");
        }
        assert!(!mounts("36 35 98:0 / /mnt rw - ext4 /dev/sda rw,errors=remount-ro\n").unwrap()[0].read_only);
    }

    #[test]
    fn a_line_cut_short_is_refused() {
        assert!(mounts("36 35 98:0 / /mnt rw - ext4 /dev/sda\n").is_err());
        assert!(mounts("36 35 98:0 / /mnt rw\n").is_err());
    }

    proptest! {
        #[test]
        fn mounts_never_panics(text in "([0-9]{1,2} |/|\\\\[0-9]{0,4}| - |[a-z]| |\\n|.){0,60}") {
            let _mounts = mounts(&text);
        }
    }
}
