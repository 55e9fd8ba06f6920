//! Groups that look like a container's and have no process: what a runtime or a kernel in a hurry left behind, or what a
//! runtime has just made and puts a process into in a moment. They are looked at each time, so that must be cheap.

use std::collections::HashMap;
use std::path::Path;

use crate::host::read::{Buffer, Keep, KeptFile, Shape};

use super::walk::{Found, has_processes};

/// Lists of processes that stay open at most.
const MOST_KEPT: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Vacant {
    /// By inode, the group's own list of processes.
    known: HashMap<u64, Kept>,
    /// How many there were at the look under way, and at the one before.
    now: usize,
    before: usize,
    looks: u64,
}

#[derive(Debug)]
struct Kept {
    list: KeptFile,
    looked: u64,
}

impl Vacant {
    /// Whether a group has no process. `dir` is where it is.
    pub(super) fn is_vacant(&mut self, found: &Found, dir: &Path, buffer: &mut Buffer) -> bool {
        let is_known_empty = found.is_leaf
            && self.known.get_mut(&found.inode).is_some_and(|kept| {
                kept.looked = self.looks;
                kept.list.parse(buffer, |text| Ok(text.is_empty())).unwrap_or(false)
            });
        if is_known_empty {
            self.now += 1;
            return true;
        }
        let vacant = !has_processes(dir, 0);
        if vacant && found.is_leaf && self.known.len() < MOST_KEPT {
            let list = KeptFile::new(dir.join("cgroup.procs"), Shape::Records, Keep::Open);
            self.known.insert(found.inode, Kept { list, looked: self.looks });
        } else {
            self.known.remove(&found.inode);
        }
        self.now += usize::from(vacant);
        vacant
    }

    /// Whether the last look found none.
    pub(super) fn is_empty(&self) -> bool {
        self.before == 0
    }

    /// Ends a look: what was not asked for is gone, or a container.
    pub(super) fn settle(&mut self) {
        let looks = self.looks;
        self.known.retain(|_, kept| kept.looked == looks);
        self.looks += 1;
        self.before = std::mem::take(&mut self.now);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::walk::Tree;
    use super::*;

    #[test]
    fn a_vacant_group_is_a_container_once_it_or_one_below_has_a_process() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("lxc.payload.web");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("cgroup.procs"), "").unwrap();
        let (mut tree, mut vacant, mut buffer) =
            (Tree::new(root.path()), Vacant::default(), Buffer::default());
        let mut look = |vacant: &mut Vacant| {
            tree.refresh().unwrap();
            let found = tree.containers().remove(0);
            let is_vacant = vacant.is_vacant(&found, &dir, &mut buffer);
            vacant.settle();
            is_vacant
        };
        assert!(look(&mut vacant) && look(&mut vacant) && look(&mut vacant));
        assert_eq!((vacant.known.len(), vacant.is_empty()), (1, false), "its list stays open");
        fs::create_dir(dir.join("inner")).unwrap();
        fs::write(dir.join("inner/cgroup.procs"), "7\n").unwrap();
        assert!(!look(&mut vacant) && vacant.is_empty(), "one below has a process");
        assert_eq!(vacant.known.len(), 0);
        fs::remove_dir_all(dir.join("inner")).unwrap();
        assert!(look(&mut vacant) && look(&mut vacant));
        fs::write(dir.join("cgroup.procs"), "8\n").unwrap();
        assert!(!look(&mut vacant));
        vacant.settle();
        assert_eq!(vacant.known.len(), 0, "nobody asked for it");
    }
}
