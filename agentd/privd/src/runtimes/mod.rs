//! Everything that is asked of the host: which runtimes it has, and what they say of their containers.
//!
//! All are asked at once, each on a thread of its own and with a deadline of its own, so that one that hangs costs its own
//! containers' names. What they say is untrusted text: it is bounded, and what doesn't parse is told as a failure.

mod bounds;
mod bundles;
mod docker;
mod http;
mod lxd;
mod names;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use horcrux_privd::v1::{Container, ContainersAnswer, Outcome, Runtime, RuntimeAnswer};
use rustix::fs::{Mode, OFlags};

use self::http::{GetError, Owner};

/// Users with a Podman of their own that are asked; far beyond what a host has.
const MOST_USERS: usize = 64;
/// The longest file that is read, and the longest answer of a runtime.
const MOST_BYTES: usize = 8 << 20;
/// Entries of a directory that are looked at.
const MOST_ENTRIES: usize = 20_000;

/// Where the runtimes of this host have what they have.
#[derive(Debug)]
pub(crate) struct Host {
    root: PathBuf,
}

/// One runtime, and how it is asked.
struct Place {
    runtime: Runtime,
    /// Whose it is, where it is a user's own.
    user_id: Option<u32>,
    ask: Box<dyn Fn() -> Said + Send + Sync>,
}

/// What a runtime says, or why it says nothing.
type Said = Result<Vec<Container>, Silence>;

/// Why a runtime says nothing.
#[derive(Debug, thiserror::Error)]
enum Silence {
    #[error("{} does not exist", .0.display())]
    Absent(PathBuf),
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("ask at {}", path.display())]
    Get {
        path: PathBuf,
        #[source]
        source: GetError,
    },
    #[error("its answer is not what was asked for")]
    Json(#[source] serde_json::Error),
    #[error("start a thread")]
    Thread(#[source] io::Error),
    #[error("its thread ended")]
    Ended,
}

impl Host {
    /// `root` is `/`, or a tree that looks like one.
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Asks all. Takes as long as the slowest, which has a deadline.
    pub(crate) fn containers(&self) -> ContainersAnswer {
        let places = self.places();
        let told = thread::scope(|scope| {
            let asking: Vec<_> = places
                .iter()
                .map(|place| {
                    let named = thread::Builder::new().name("runtime".to_owned());
                    named.spawn_scoped(scope, || (place.ask)()).map_err(Silence::Thread)
                })
                .collect();
            // Collected first, so that all run before one is waited for.
            let answer = |asked: Result<thread::ScopedJoinHandle<'_, _>, _>| {
                asked.and_then(|thread| thread.join().unwrap_or(Err(Silence::Ended)))
            };
            asking.into_iter().map(answer).collect::<Vec<_>>()
        });
        let runtimes = places.iter().zip(told).map(|(place, told)| place.answer(told)).collect();
        bounds::fitting(ContainersAnswer { runtimes })
    }

    fn places(&self) -> Vec<Place> {
        let at = |path: &str| self.root.join(path);
        let docker = |runtime, user_id: Option<u32>, socket: PathBuf| {
            let owner = user_id.map_or(Owner::Host, Owner::User);
            Place::new(runtime, user_id, move || docker::containers(&socket, owner))
        };
        let lxd = |runtime, sockets: &[&str]| {
            let sockets: Vec<PathBuf> = sockets.iter().map(|socket| at(socket)).collect();
            Place::new(runtime, None, move || lxd::containers(&sockets))
        };
        let mut places = vec![
            docker(Runtime::Docker, None, at("run/docker.sock")),
            docker(Runtime::Podman, None, at("run/podman/podman.sock")),
            lxd(Runtime::Lxd, &["var/lib/lxd/unix.socket", "var/snap/lxd/common/lxd/unix.socket"]),
            lxd(Runtime::Incus, &["var/lib/incus/unix.socket"]),
        ];
        let (lxc, groups) = (at("var/lib/lxc"), at("sys/fs/cgroup"));
        places.push(Place::new(Runtime::Lxc, None, move || names::lxc(&lxc, &groups)));
        let files = |runtime, dir: &str, read: fn(&Path) -> Said| {
            let dir = at(dir);
            Place::new(runtime, None, move || read(&dir))
        };
        let tasks = "run/containerd/io.containerd.runtime.v2.task";
        places.extend([
            files(Runtime::Nspawn, "run/systemd/machines", names::machines),
            files(Runtime::Containerd, tasks, bundles::containerd),
            files(Runtime::Crio, "run/containers/storage/overlay-containers", bundles::crio),
        ]);
        for user_id in self.users() {
            let socket = at(&format!("run/user/{user_id}/podman/podman.sock"));
            places.push(docker(Runtime::Podman, Some(user_id), socket));
        }
        places
    }

    /// Users who have a runtime directory, for a Podman of their own.
    fn users(&self) -> Vec<u32> {
        // A host without the directory has nobody signed in, and none that can't be read is worth more than that.
        let entries = std::fs::read_dir(self.root.join("run/user")).into_iter().flatten().flatten();
        let mut users: Vec<u32> = entries
            .take(MOST_ENTRIES)
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|&user_id| user_id != 0)
            .collect();
        users.sort_unstable();
        users.truncate(MOST_USERS);
        users
    }
}

impl Place {
    fn new(runtime: Runtime, user_id: Option<u32>, ask: impl Fn() -> Said + Send + Sync + 'static) -> Self {
        Self { runtime, user_id, ask: Box::new(ask) }
    }

    fn answer(&self, told: Said) -> RuntimeAnswer {
        let of = RuntimeAnswer {
            runtime: self.runtime.into(),
            user_id: self.user_id,
            outcome: Outcome::Answered.into(),
            ..RuntimeAnswer::default()
        };
        match told {
            Ok(containers) => RuntimeAnswer {
                containers: containers.into_iter().filter_map(bounds::bounded).collect(),
                ..of
            },
            Err(silence) => {
                let outcome = if silence.is_absent() { Outcome::Absent } else { Outcome::Failing };
                let reason = bounds::text(&format!("{:#}", anyhow::Error::new(silence)), bounds::MOST_REASON);
                RuntimeAnswer { outcome: outcome.into(), reason, ..of }
            }
        }
    }
}

impl Silence {
    /// As it is where nothing is wrong.
    fn is_absent(&self) -> bool {
        match self {
            Self::Absent(_) => true,
            Self::Read { .. } | Self::Get { .. } | Self::Json(_) | Self::Thread(_) | Self::Ended => false,
        }
    }
}

/// What a GET gave. A socket that isn't there is a runtime that isn't.
fn got(socket: &Path, body: Result<Vec<u8>, GetError>) -> Result<Vec<u8>, Silence> {
    body.map_err(|source| {
        let path = socket.to_owned();
        if source.is_no_socket() { Silence::Absent(path) } else { Silence::Get { path, source } }
    })
}

/// The names of what is in a directory.
fn entries(dir: &Path) -> Result<Vec<String>, Silence> {
    let failed = |source: io::Error| {
        let path = dir.to_owned();
        if source.kind() == io::ErrorKind::NotFound {
            Silence::Absent(path)
        } else {
            Silence::Read { path, source }
        }
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)?.take(MOST_ENTRIES) {
        // One that isn't text can't be the name of a container.
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// A file's content. None where there is no such file: what it was of has gone.
fn content(path: &Path) -> Result<Option<Vec<u8>>, Silence> {
    use std::io::Read as _;
    let failed = |source: io::Error| Silence::Read { path: path.to_owned(), source };
    // Whoever put another kind of file there, such as a FIFO, must not have all wait for it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()).map(File::from).map_err(io::Error::from) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
    }
    let mut bytes = Vec::new();
    let most = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX);
    file.take(most).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests;
