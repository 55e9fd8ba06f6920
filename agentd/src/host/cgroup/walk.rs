//! The directories of one hierarchy, kept from cycle to cycle.
//!
//! A directory is listed again only when its link count or inode changed or a known child is gone; otherwise it costs
//! one `stat`. That is sound: cgroupfs counts subdirectories in `st_nlink` (Linux, fs/kernfs/inode.c,
//! `kernfs_refresh_inode`), so a set of children that changed without its size changing has lost a known child. Times
//! would not do: kernfs doesn't move a directory's `st_mtime` when children come and go. Where a filesystem counts no
//! subdirectories (a link count of 1), every directory is listed every time.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use horcrux_proto::name::ContainerId;
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, statx};

use super::identity::{Identity, holds_pods, identity};

/// Far deeper than containers in containers in pods; bounds the recursion.
const MAX_DEPTH: usize = 64;
/// Children for which a directory is kept open.
const MANY: usize = 16;
/// Links of a directory without subdirectories.
const NO_CHILDREN: u64 = 2;

#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    top: Dir,
}

/// A directory that is a container's.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) identity: Identity,
    /// Below the hierarchy's root, with a leading slash.
    pub(super) path: String,
    /// Changes when the directory is another of the same name.
    pub(super) inode: u64,
    /// No group is below it.
    pub(super) is_leaf: bool,
}

impl Found {
    /// Whether the two are one directory, whatever is below it.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.inode == other.inode && self.path == other.path
    }
}

#[derive(Debug)]
struct Dir {
    name: String,
    inode: u64,
    links: u64,
    in_pod: bool,
    /// The id of the container that this is in, or is.
    within: Option<ContainerId>,
    container: Option<(Identity, String)>,
    children: Vec<Dir>,
    /// Kept where there are many children, to look each of them up by its name alone.
    handle: Option<OwnedFd>,
}

/// Whether a group or one below it has processes. What can't be read is not called empty.
pub(super) fn has_processes(dir: &Path, depth: usize) -> bool {
    match fs::read(dir.join("cgroup.procs")) {
        Ok(list) if list.is_empty() => {}
        Ok(_) | Err(_) => return true,
    }
    let Ok(entries) = fs::read_dir(dir) else { return true };
    let mut below = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    depth >= MAX_DEPTH || below.any(|entry| has_processes(&entry.path(), depth + 1))
}

impl Tree {
    pub(super) fn new(root: &Path) -> Self {
        let top = Dir {
            name: String::new(),
            inode: 0,
            links: 0,
            in_pod: false,
            within: None,
            container: None,
            children: Vec::new(),
            handle: None,
        };
        Self { root: root.to_path_buf(), top }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Brings the tree up to date, and says whether a directory came or went. Fails only when the hierarchy itself can't be
    /// read.
    pub(super) fn refresh(&mut self) -> io::Result<bool> {
        let mut path = self.root.clone();
        self.top.refresh(&mut path, "", 0)
    }

    pub(super) fn containers(&self) -> Vec<Found> {
        let mut found = Vec::new();
        self.top.collect(&mut found);
        found
    }
}

impl Dir {
    fn child(&self, name: String, path: &str) -> Self {
        let in_pod = self.in_pod || holds_pods(&name);
        let mut container = identity(&self.name, &name, self.in_pod);
        if let (Some(identity), Some(outer)) = (&mut container, &self.within) {
            // Names are unique within their container only; ids are everywhere.
            if identity.name.is_some() {
                identity.id = ContainerId::near(&format!("{}:{}", outer.as_str(), identity.id.as_str()));
            }
        }
        let within = container.as_ref().map(|identity| identity.id.clone()).or_else(|| self.within.clone());
        let container = container.map(|identity| (identity, format!("{path}/{name}")));
        Self { name, inode: 0, links: 0, in_pod, within, container, children: Vec::new(), handle: None }
    }

    fn refresh(&mut self, full: &mut PathBuf, path: &str, depth: usize) -> io::Result<bool> {
        let now = fs::symlink_metadata(&*full)?;
        let mut changed = now.ino() != self.inode;
        let mut list = changed || now.nlink() != self.links || now.nlink() < NO_CHILDREN;
        if changed {
            self.handle = None;
        }
        (self.inode, self.links) = (now.ino(), now.nlink());
        if now.nlink() == NO_CHILDREN {
            changed |= !self.children.is_empty();
            self.children.clear();
            return Ok(changed);
        }
        if depth == MAX_DEPTH {
            return Ok(changed);
        }
        let known = self.children.len();
        if known < MANY {
            self.handle = None;
        } else if self.handle.is_none() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            // Without it each of them is looked up by its whole path.
            self.handle = rustix::fs::open(&*full, flags, Mode::empty()).ok();
        }
        let Self { children, handle, .. } = self;
        children.retain_mut(|child| {
            let stepped = child.step(handle.as_ref(), full, path, depth);
            changed |= stepped.is_none_or(|changed| changed);
            stepped.is_some()
        });
        list |= self.children.len() < known;
        if list {
            changed |= self.list(full, path, depth)?;
        }
        Ok(changed)
    }

    /// Brings a child up to date, `within` its parent if that is kept open. `None`: it is gone. A directory can go away
    /// between being listed and being read: it is then in nobody's list.
    fn step(
        &mut self,
        within: Option<&OwnedFd>,
        full: &mut PathBuf,
        path: &str,
        depth: usize,
    ) -> Option<bool> {
        let is_leaf = self.children.is_empty() && self.links == NO_CHILDREN && self.inode != 0;
        if is_leaf && let Some(parent) = within {
            // The common case where there are many, without looking up the whole path.
            let wanted = StatxFlags::INO | StatxFlags::NLINK;
            let now = statx(parent, self.name.as_str(), AtFlags::SYMLINK_NOFOLLOW, wanted).ok()?;
            if now.stx_ino == self.inode && u64::from(now.stx_nlink) == NO_CHILDREN {
                return Some(false);
            }
        }
        full.push(&self.name);
        let changed = self.refresh(full, &format!("{path}/{}", self.name), depth + 1);
        full.pop();
        changed.ok()
    }

    /// Lists the children anew, and says whether one came or went.
    fn list(&mut self, full: &mut PathBuf, path: &str, depth: usize) -> io::Result<bool> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&*full)? {
            let entry = entry?;
            // A name that isn't UTF-8 is no runtime's.
            if let (true, Ok(name)) = (entry.file_type()?.is_dir(), entry.file_name().into_string()) {
                names.push(name);
            }
        }
        names.sort_unstable();
        let known = self.children.len();
        self.children.retain(|child| names.binary_search(&child.name).is_ok());
        let mut changed = self.children.len() < known;
        for name in names {
            if let Err(at) = self.children.binary_search_by(|child| child.name.cmp(&name)) {
                let mut child = self.child(name, path);
                if child.step(None, full, path, depth).is_some() {
                    self.children.insert(at, child);
                    changed = true;
                }
            }
        }
        Ok(changed)
    }

    fn collect(&self, found: &mut Vec<Found>) {
        if let Some((identity, path)) = &self.container {
            let is_leaf = self.children.is_empty();
            found.push(Found { identity: identity.clone(), path: path.clone(), inode: self.inode, is_leaf });
        }
        for child in &self.children {
            child.collect(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f2a9c0d1e4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1";

    fn paths(tree: &mut Tree) -> Vec<String> {
        tree.refresh().unwrap();
        tree.containers().into_iter().map(|found| found.path).collect()
    }

    #[test]
    fn containers_come_and_go_between_cycles() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = Tree::new(dir.path());
        assert_eq!(paths(&mut tree), [""; 0]);
        fs::create_dir_all(dir.path().join("lxc/a")).unwrap();
        assert_eq!(paths(&mut tree), ["/lxc/a"]);
        fs::create_dir_all(dir.path().join("lxc/b")).unwrap();
        assert_eq!(paths(&mut tree), ["/lxc/a", "/lxc/b"]);
        fs::remove_dir(dir.path().join("lxc/a")).unwrap();
        assert_eq!(paths(&mut tree), ["/lxc/b"]);
    }

    #[test]
    fn one_gone_and_one_new_are_seen_although_the_count_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("lxc/a")).unwrap();
        let mut tree = Tree::new(dir.path());
        assert_eq!(paths(&mut tree), ["/lxc/a"]);
        fs::remove_dir(dir.path().join("lxc/a")).unwrap();
        fs::create_dir(dir.path().join("lxc/b")).unwrap();
        assert_eq!(paths(&mut tree), ["/lxc/b"]);
    }

    #[test]
    fn changes_are_told_once_also_among_many() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..2 * MANY {
            fs::create_dir_all(dir.path().join(format!("lxc/c{number}"))).unwrap();
        }
        let mut tree = Tree::new(dir.path());
        assert!(tree.refresh().unwrap());
        assert!(!tree.refresh().unwrap());
        assert!(tree.top.children[0].handle.is_some());
        fs::remove_dir(dir.path().join("lxc/c7")).unwrap();
        fs::create_dir(dir.path().join("lxc/new")).unwrap();
        assert!(tree.refresh().unwrap());
        assert!(!tree.refresh().unwrap());
        assert!(paths(&mut tree).contains(&"/lxc/new".to_owned()));
        fs::create_dir(dir.path().join("lxc/c8/inner")).unwrap();
        assert!(tree.refresh().unwrap(), "within one that had none");
        fs::rename(dir.path().join("lxc/c9"), dir.path().join("aside")).unwrap();
        fs::create_dir(dir.path().join("lxc/c9")).unwrap();
        assert!(tree.refresh().unwrap(), "another of the same name");
        fs::remove_dir_all(dir.path().join("lxc")).unwrap();
        assert!(tree.refresh().unwrap());
        assert_eq!(tree.containers().len(), 0);
    }

    #[test]
    fn another_directory_of_the_same_name_is_another_container() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("lxc/a")).unwrap();
        let mut tree = Tree::new(dir.path());
        tree.refresh().unwrap();
        let before = tree.containers();
        fs::rename(dir.path().join("lxc/a"), dir.path().join("old")).unwrap();
        fs::create_dir(dir.path().join("lxc/a")).unwrap();
        tree.refresh().unwrap();
        let after = tree.containers();
        assert_eq!(before[0].path, after[0].path);
        assert_ne!(before[0].inode, after[0].inode);
    }

    #[test]
    fn a_container_in_a_container_is_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(format!("hxn1/docker/{ID}/lxc.payload.in/docker/{ID}"))).unwrap();
        let mut tree = Tree::new(dir.path());
        tree.refresh().unwrap();
        let ids: Vec<String> =
            tree.containers().into_iter().map(|found| found.identity.id.as_str().to_owned()).collect();
        assert_eq!(ids, [ID.to_owned(), format!("{ID}:in"), ID.to_owned()]);
    }

    #[test]
    fn a_hierarchy_that_is_gone_is_an_error() {
        assert!(Tree::new(Path::new("/nonexistent")).refresh().is_err());
    }
}
