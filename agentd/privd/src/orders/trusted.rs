//! Files that count because root alone can have written them.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use horcrux_privd::settings::DIRECTORY;
use rustix::fs::{FileType, Mode, OFlags, fstat, open, openat};
use rustix::process::Uid;

/// The longest such file: thousands of patterns.
const MOST_BYTES: usize = 256 << 10;

/// The directory that they are in.
#[derive(Debug)]
pub(crate) struct Trusted {
    root: PathBuf,
    /// Root, but in tests.
    owner: Uid,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Untrusted {
    #[error("there is none")]
    Missing,
    #[error("open {name}: {source}")]
    Open { name: String, source: io::Error },
    #[error("{0} is not of the kind that it should be")]
    Kind(String),
    #[error("{0} is not root's")]
    Owner(String),
    #[error("others than root may write to {0}")]
    Writable(String),
    #[error("{0} is longer than it may be, or not text")]
    Text(String),
}

impl Trusted {
    pub(crate) fn new(root: &Path, owner: Uid) -> Self {
        Self { root: root.to_owned(), owner }
    }

    /// Nothing on the way to it is followed that could lead elsewhere, and nobody else could have put it there.
    pub(crate) fn read(&self, file: &str) -> Result<String, Untrusted> {
        let [first, others @ ..] = DIRECTORY;
        let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let start = open(self.root.join(first), directory, Mode::empty());
        let mut at: OwnedFd = start.map_err(|errno| failed(first, errno.into()))?;
        for name in others {
            let next = openat(&at, name, directory | OFlags::NOFOLLOW, Mode::empty());
            at = next.map_err(|errno| failed(name, errno.into()))?;
            self.check(&at, name, FileType::Directory)?;
        }
        // Whoever put a FIFO there must not have all wait for it.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = openat(&at, file, flags, Mode::empty()).map_err(|errno| failed(file, errno.into()))?;
        self.check(&opened, file, FileType::RegularFile)?;
        let mut bytes = Vec::new();
        let most = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX);
        let read = File::from(opened).take(most).read_to_end(&mut bytes);
        read.map_err(|source| failed(file, source))?;
        let whole = Some(bytes).filter(|bytes| bytes.len() < MOST_BYTES);
        whole.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| Untrusted::Text(file.to_owned()))
    }

    fn check(&self, opened: impl AsFd, name: &str, kind: FileType) -> Result<(), Untrusted> {
        let about = fstat(opened).map_err(|errno| failed(name, errno.into()))?;
        if FileType::from_raw_mode(about.st_mode) != kind {
            return Err(Untrusted::Kind(name.to_owned()));
        }
        if about.st_uid != self.owner.as_raw() {
            return Err(Untrusted::Owner(name.to_owned()));
        }
        if Mode::from_raw_mode(about.st_mode).intersects(Mode::WGRP | Mode::WOTH) {
            return Err(Untrusted::Writable(name.to_owned()));
        }
        Ok(())
    }
}

fn failed(name: &str, source: io::Error) -> Untrusted {
    if source.kind() == io::ErrorKind::NotFound {
        Untrusted::Missing
    } else {
        Untrusted::Open { name: name.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir_all, rename, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use rustix::process::geteuid;

    use super::*;

    fn host() -> (tempfile::TempDir, PathBuf, Trusted) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("etc/horcrux/privd");
        create_dir_all(&dir).unwrap();
        let trusted = Trusted::new(root.path(), geteuid());
        (root, dir, trusted)
    }

    fn mode(path: &Path, mode: u32) {
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_the_owner_alone_can_write_is_read() {
        let (root, dir, trusted) = host();
        assert!(matches!(trusted.read("a"), Err(Untrusted::Missing)));
        write(dir.join("a"), "text").unwrap();
        assert_eq!(trusted.read("a").unwrap(), "text");
        let another = Trusted::new(root.path(), Uid::from_raw(geteuid().as_raw() + 1));
        assert!(matches!(another.read("a"), Err(Untrusted::Owner(what)) if what == "horcrux"));
        for wrong in [0o664, 0o646] {
            mode(&dir.join("a"), wrong);
            assert!(matches!(trusted.read("a"), Err(Untrusted::Writable(_))), "{wrong:o}");
        }
        mode(&dir.join("a"), 0o644);
        mode(&dir, 0o775);
        assert!(matches!(trusted.read("a"), Err(Untrusted::Writable(what)) if what == "privd"));
    }

    #[test]
    fn nothing_is_followed_and_nothing_waited_for() {
        let (_root, dir, trusted) = host();
        write(dir.join("a"), "text").unwrap();
        symlink("a", dir.join("link")).unwrap();
        assert!(matches!(trusted.read("link"), Err(Untrusted::Open { .. })));
        rustix::fs::mknodat(rustix::fs::CWD, dir.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(matches!(trusted.read("fifo"), Err(Untrusted::Kind(_))));
        write(dir.join("long"), vec![b'x'; MOST_BYTES]).unwrap();
        assert!(matches!(trusted.read("long"), Err(Untrusted::Text(_))));
        let aside = dir.with_file_name("aside");
        rename(&dir, &aside).unwrap();
        symlink("aside", &dir).unwrap();
        assert!(matches!(trusted.read("a"), Err(Untrusted::Open { .. })));
    }
}
