//! A container's processes that are killed for its memory are told at once, and not when the containers are due.
//!
//! ```text
//!  kernel ── memory.events is modified ──► inotify ──► thread "container-ooms" ── more were killed ──► rings the lane
//! ```
//!
//! Cgroup v2 only. v1 tells whoever writes to `cgroup.event_control`, which takes more rights than an agent has; there, and
//! where no watch can be had, a kill is told with the containers' next reading.
//!
//! The kernel modifies the file also when a container merely reaches its limit, up to a hundred times a second
//! (kernel/cgroup/cgroup.c, `CGROUP_FILE_NOTIFY_MIN_INTV`). So the lane isn't rung before the count has grown.

use std::collections::{HashMap, HashSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use crate::collect::Bell;
use crate::host::read::{ReadError, read_text};

use super::parse::keyed;

/// Files are read no more often than this, however often they are modified. A lane that is rung reads all containers.
const REST: Duration = Duration::from_millis(500);
/// An event of a watched file has no name: it takes 16 bytes.
const BUFFER: usize = 4096;

/// Rings when a container's processes were killed.
#[derive(Debug)]
pub(super) struct Ooms {
    watches: Option<Arc<Watches>>,
}

/// As long as this lives, its container is watched.
#[derive(Debug)]
pub(super) struct Watch {
    number: i32,
    watches: Arc<Watches>,
}

#[derive(Debug)]
struct Watches {
    inotify: OwnedFd,
    /// Its end ends the thread.
    sentinel: i32,
    /// By the watch's number.
    files: Mutex<HashMap<i32, Watched>>,
}

#[derive(Debug)]
struct Watched {
    file: PathBuf,
    kills: Option<u64>,
}

impl Ooms {
    pub(super) fn new(bell: Bell) -> Self {
        let watches = match start(bell) {
            Ok(watches) => Some(watches),
            Err(error) => {
                tracing::info!(%error, "kills for memory are told with the containers' next reading");
                None
            }
        };
        Self { watches }
    }

    /// Watches the container whose group this is; `None` where it can't be.
    pub(super) fn watch(&self, group: &Path) -> Option<Watch> {
        let watches = self.watches.as_ref()?;
        let file = group.join("memory.events");
        // What comes meanwhile is looked at when it is in the list.
        let mut files = watches.files();
        let number = inotify::add_watch(&watches.inotify, &file, WatchFlags::MODIFY).ok()?;
        let kills = killed(&file).ok().flatten();
        files.insert(number, Watched { file, kills });
        Some(Watch { number, watches: Arc::clone(watches) })
    }
}

impl Drop for Ooms {
    fn drop(&mut self) {
        if let Some(watches) = &self.watches {
            end(&watches.inotify, watches.sentinel);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watches.files().remove(&self.number);
        // The kernel would keep what is watched after it was removed.
        end(&self.watches.inotify, self.number);
    }
}

impl Watches {
    /// Whether more were killed, of those that these watches are of.
    fn have_grown(&self, touched: &HashSet<i32>) -> bool {
        let mut grown = false;
        for (_, watched) in self.files().iter_mut().filter(|(number, _)| touched.contains(number)) {
            // One whose file can't be read is gone, or will be read with the rest.
            if let Ok(Some(now)) = killed(&watched.file) {
                grown |= watched.kills.replace(now).is_some_and(|before| now > before);
            }
        }
        grown
    }

    fn files(&self) -> MutexGuard<'_, HashMap<i32, Watched>> {
        // Whole after any panic: each change is one step.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end(inotify: &OwnedFd, watch: i32) {
    if let Err(error) = inotify::remove_watch(inotify, watch) {
        tracing::debug!(%error, "a watch had ended already");
    }
}

fn start(bell: Bell) -> io::Result<Arc<Watches>> {
    let inotify = inotify::init(CreateFlags::CLOEXEC)?;
    // Nothing ever happens to it.
    let sentinel = inotify::add_watch(&inotify, "/", WatchFlags::DELETE_SELF)?;
    let watches = Arc::new(Watches { inotify, sentinel, files: Mutex::default() });
    let seen = Arc::clone(&watches);
    thread::Builder::new().name("container-ooms".to_owned()).spawn(move || run(&seen, &bell))?;
    Ok(watches)
}

fn run(watches: &Watches, bell: &Bell) {
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut reader = Reader::new(&watches.inotify, &mut buffer);
    // Nobody sends: a rest is a wait for it.
    let (_keep, never) = channel::<()>();
    let mut touched = HashSet::new();
    loop {
        match reader.next() {
            Ok(event) if event.wd() == watches.sentinel => return,
            Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                touched.extend(watches.files().keys());
            }
            Ok(event) => {
                touched.insert(event.wd());
            }
            Err(Errno::INTR) => continue,
            Err(error) => {
                tracing::error!(%error, "kills for memory are told with the containers' next reading");
                return;
            }
        }
        if !reader.is_buffer_empty() {
            continue;
        }
        if watches.have_grown(&touched) {
            bell.ring();
        }
        touched.clear();
        if never.recv_timeout(REST).is_ok() {
            return;
        }
    }
}

fn killed(file: &Path) -> Result<Option<u64>, ReadError> {
    let text = read_text(file)?;
    let counted = keyed(&text, ["oom_kill"]);
    counted
        .map(|[kills]| kills)
        .map_err(|malformed| ReadError::Malformed { path: file.into(), what: malformed.0 })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn of(kills: u64, reached: u64) -> String {
        format!("low 0\nhigh 0\nmax {reached}\noom 0\noom_kill {kills}\n")
    }

    #[test]
    fn only_a_count_that_grew_rings_and_only_of_what_was_touched() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.events");
        fs::write(&file, of(2, 0)).unwrap();
        let ooms = Ooms::new(Bell::default());
        let watch = ooms.watch(dir.path()).unwrap();
        let watches = Arc::clone(&watch.watches);
        let touched = HashSet::from([watch.number]);
        assert!(!watches.have_grown(&touched), "what was killed before nobody watched");
        fs::write(&file, of(2, 900)).unwrap();
        assert!(!watches.have_grown(&touched), "its limit was merely reached");
        fs::write(&file, of(3, 900)).unwrap();
        assert!(!watches.have_grown(&HashSet::new()));
        assert!(watches.have_grown(&touched));
        assert!(!watches.have_grown(&touched));
        drop(watch);
        assert!(watches.files().is_empty());
    }

    #[test]
    fn a_group_without_the_file_is_not_watched() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Ooms::new(Bell::default()).watch(dir.path()).is_none());
    }
}
