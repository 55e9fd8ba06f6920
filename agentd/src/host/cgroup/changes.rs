//! Has the containers read when one of them came or went, instead of when they are due.
//!
//! A second list of them is kept for it: a look costs one `stat` of each directory (see [`super::walk`]), little beside a
//! reading. inotify would tell at once, for a watch on each directory, of which a user has few.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use horcrux_proto::v1::Source;

use crate::collect::Bell;
use crate::host::read::Buffer;
use crate::sample::{Cycle, Found, Lane, Taken};

use super::hierarchy::Hierarchies;
use super::lane::{source, trees};
use super::vacant::Vacant;
use super::walk::Tree;

/// A container is to be seen two seconds after it began: half of that is for reading and telling.
pub const CHANGES_EVERY: Duration = Duration::from_secs(1);
/// Where no hierarchy is mounted, one is looked for again.
const SLOW_EVERY: u64 = 10;

/// Looks for containers that came or went.
#[derive(Debug)]
pub struct ContainerChanges {
    root: PathBuf,
    source: Source,
    trees: Vec<Tree>,
    /// Path and inode of those that had processes.
    known: HashSet<(String, u64)>,
    vacant: Vacant,
    /// Changes so far, for who reads the containers, and what has them read.
    changes: Arc<AtomicU64>,
    containers: Bell,
    buffer: Buffer,
    looks: u64,
}

impl ContainerChanges {
    pub(super) fn new(root: &Path, changes: Arc<AtomicU64>, containers: Bell) -> Self {
        let hierarchies = Hierarchies::find(root);
        Self {
            root: root.to_path_buf(),
            source: source(&hierarchies),
            trees: trees(&hierarchies),
            known: HashSet::new(),
            vacant: Vacant::default(),
            changes,
            containers,
            buffer: Buffer::default(),
            looks: 0,
        }
    }

    /// Whether other containers are there than at the look before.
    fn look(&mut self) -> bool {
        let mut moved = false;
        for tree in &mut self.trees {
            // The lane that reads them finds it too, and says so.
            let Ok(changed) = tree.refresh() else { return true };
            moved |= changed;
        }
        if !moved && self.vacant.is_empty() {
            return false;
        }
        let mut there = HashSet::with_capacity(self.known.len());
        for tree in &self.trees {
            for found in tree.containers() {
                let dir = tree.root().join(found.path.trim_start_matches('/'));
                let key = (found.path.clone(), found.inode);
                // A runtime makes the group before it puts a process there.
                if self.known.contains(&key) || !self.vacant.is_vacant(&found, &dir, &mut self.buffer) {
                    there.insert(key);
                }
            }
        }
        self.vacant.settle();
        let changed = there != self.known;
        self.known = there;
        changed
    }
}

impl Lane for ContainerChanges {
    fn name(&self) -> &'static str {
        "container-changes"
    }

    fn source(&self) -> Source {
        self.source
    }

    fn read(&mut self, taken: Taken) -> Cycle {
        if self.trees.is_empty() && self.looks.is_multiple_of(SLOW_EVERY) {
            let hierarchies = Hierarchies::find(&self.root);
            self.trees = trees(&hierarchies);
        }
        self.looks += 1;
        if self.look() {
            // Before it is rung: a reading under way then doesn't take it for seen.
            self.changes.fetch_add(1, Ordering::Relaxed);
            self.containers.ring();
        }
        Cycle { taken, found: Found::Nothing, samples: Vec::new(), sources: Vec::new(), events: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_change_is_a_container_that_has_processes_or_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("sys/fs/cgroup");
        let group = base.join("lxc.payload.web");
        fs::create_dir_all(base.join("system.slice")).unwrap();
        fs::write(base.join("cgroup.controllers"), "cpu\n").unwrap();
        let mut changes = ContainerChanges::new(dir.path(), Arc::default(), Bell::default());
        assert!(!changes.look(), "there is none");
        fs::create_dir(&group).unwrap();
        fs::write(group.join("cgroup.procs"), "").unwrap();
        assert!(!changes.look(), "nothing runs in it yet");
        fs::write(group.join("cgroup.procs"), "12\n").unwrap();
        assert!(changes.look());
        assert!(!changes.look(), "it is the same");
        fs::create_dir(base.join("other.slice")).unwrap();
        assert!(!changes.look(), "it is none");
        fs::remove_dir_all(&group).unwrap();
        assert!(changes.look());
        assert!(!changes.look());
    }

    #[test]
    fn hierarchies_that_are_mounted_later_are_looked_into() {
        let dir = tempfile::tempdir().unwrap();
        let mut changes = ContainerChanges::new(dir.path(), Arc::default(), Bell::default());
        let taken = Taken { unix_ms: 0, boottime_ns: 0 };
        changes.read(taken);
        let group = dir.path().join("sys/fs/cgroup/lxc.payload.web");
        fs::create_dir_all(&group).unwrap();
        fs::write(dir.path().join("sys/fs/cgroup/cgroup.controllers"), "cpu\n").unwrap();
        fs::write(group.join("cgroup.procs"), "12\n").unwrap();
        for _ in 0..SLOW_EVERY {
            changes.read(taken);
        }
        assert_eq!(changes.known.len(), 1);
    }
}
