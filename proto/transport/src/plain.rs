//! The accept loop without TLS, for listeners that this host alone reaches: a UNIX socket, a loopback port.
//!
//! A connection is one HTTP/1.1 exchange and has one deadline for all of it, so whoever connects and reads or writes
//! slowly, or not at all, holds a place no longer than that. Where all places are taken, one who connects takes that of the
//! oldest that has asked nothing yet; while all have asked, it waits.

use std::convert::Infallible;
use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use crate::tasks::Stop;

/// Where this host's own programs connect.
#[derive(Debug)]
pub enum Listener {
    Unix(UnixListener, Bound),
    Tcp(TcpListener),
}

/// A socket's file; removed when dropped.
#[derive(Debug)]
pub struct Bound(PathBuf);

/// How long open exchanges may go on after the stop signal.
const DRAIN: Duration = Duration::from_secs(2);

impl Listener {
    /// A socket at `path`, with the permissions `mode`, in the place of one that nobody listens on any more.
    pub fn unix(path: &Path, mode: u32) -> io::Result<Self> {
        bound(path, mode).map(|(listener, file)| Self::Unix(listener, file))
    }
}

/// Who asks says all of it at once; one who doesn't holds a place that others need.
const HEADERS: Duration = Duration::from_secs(2);

/// See [`Listener::unix`].
pub(crate) fn bound(path: &Path, mode: u32) -> io::Result<(UnixListener, Bound)> {
    if let Ok(there) = fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there and no socket"));
        }
        if is_listened_on(path)? {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on it"));
        }
    }
    // Made elsewhere first: at no time it can be reached with other permissions.
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&partial)?;
    let bound = Bound(partial);
    fs::set_permissions(&bound.0, fs::Permissions::from_mode(mode))?;
    fs::rename(&bound.0, path)?;
    // What it was is not there any more, and what it is now is to be removed at the end.
    drop(bound);
    Ok((listener, Bound(path.to_owned())))
}

/// Whether somebody has it, though it may hang and take no connection.
fn is_listened_on(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let connected = net::connect(&socket, &SocketAddrUnix::new(path)?);
    Ok(matches!(connected, Ok(()) | Err(Errno::AGAIN)))
}

impl Drop for Bound {
    fn drop(&mut self) {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(path = %self.0.display(), %error, "socket not removed");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Serves at most `places` connections at a time, each for `deadline` at most, until `stop`.
pub async fn serve<S, F, B>(listener: Listener, places: usize, deadline: Duration, service: S, stop: Stop)
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let places = Arc::new(Semaphore::new(places));
    // Owns every connection; dropping it ends what outlives the drain.
    let mut connections = JoinSet::new();
    // Oldest first.
    let mut silent: Vec<Silent> = Vec::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                // Out of descriptors, most likely. Accepting again at once would spin.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        silent.retain(Silent::is_it_still);
        if places.available_permits() == 0 && !silent.is_empty() {
            silent.remove(0).task.abort();
        }
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = stop.cancelled() => break,
        };
        let (service, asked) = (service.clone(), Arc::new(AtomicBool::new(false)));
        let has_asked = Arc::clone(&asked);
        let service = move |request| {
            has_asked.store(true, Ordering::Relaxed);
            service(request)
        };
        let task = connections.spawn(async move {
            let _place = place;
            if tokio::time::timeout(deadline, exchange(stream, deadline, service)).await.is_err() {
                tracing::debug!(?deadline, "connection cut at its deadline");
            }
        });
        silent.push(Silent { task, asked });
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, ended).await.is_err() {
        tracing::debug!("connections cut at the end of the drain");
    }
}

/// A connection that may not have asked anything yet.
struct Silent {
    task: AbortHandle,
    asked: Arc<AtomicBool>,
}

impl Silent {
    fn is_it_still(&self) -> bool {
        !self.task.is_finished() && !self.asked.load(Ordering::Relaxed)
    }
}

/// Either kind of connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn accept(listener: &Listener) -> io::Result<Box<dyn Stream>> {
    match listener {
        Listener::Unix(listener, _) => Ok(Box::new(listener.accept().await?.0)),
        Listener::Tcp(listener) => Ok(Box::new(listener.accept().await?.0)),
    }
}

async fn exchange<S, F, B>(stream: Box<dyn Stream>, deadline: Duration, service: S)
where
    S: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS.min(deadline)).keep_alive(false);
    let service = hyper::service::service_fn(service);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::*;

    async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        Ok(Response::new(Full::new(Bytes::from_static(b"hello"))))
    }

    async fn ask(path: &Path) -> io::Result<String> {
        let mut stream = UnixStream::connect(path).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    fn serving(path: &Path, places: usize, deadline: Duration) -> crate::tasks::Tasks {
        let listener = Listener::unix(path, 0o660).unwrap();
        let mut tasks = crate::tasks::Tasks::default();
        tasks.spawn("plain", move |stop| async move {
            serve(listener, places, deadline, hello, stop).await;
            Ok::<_, Infallible>(())
        });
        tasks
    }

    #[tokio::test]
    async fn who_says_nothing_loses_its_place_to_who_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        // The deadline is far beyond what is waited for.
        let tasks = serving(&path, 2, Duration::from_secs(300));
        let mut silent = Vec::new();
        for _ in 0..40 {
            silent.push(UnixStream::connect(&path).await.unwrap());
        }
        let answer = tokio::time::timeout(Duration::from_secs(10), ask(&path)).await.unwrap().unwrap();
        assert!(answer.ends_with("hello"), "{answer}");
        drop(silent);
        tasks.run(async {}, Duration::from_secs(5)).await.unwrap();
    }

    #[tokio::test]
    async fn who_says_nothing_is_cut_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let tasks = serving(&path, 1, Duration::from_millis(300));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let mut silent = UnixStream::connect(&path).await.unwrap();
        let mut said = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), silent.read_to_end(&mut said)).await;
        assert_eq!((ended.unwrap().unwrap(), said), (0, Vec::new()));
        let answer = tokio::time::timeout(Duration::from_secs(10), ask(&path)).await.unwrap().unwrap();
        assert!(answer.ends_with("hello") && answer.contains("connection: close"), "{answer}");
        tasks.run(async {}, Duration::from_secs(5)).await.unwrap();
        assert!(!path.exists(), "its file goes with the listener");
    }

    #[tokio::test]
    async fn a_socket_that_is_listened_on_is_left_and_one_that_was_left_behind_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let _listener = Listener::unix(&path, 0o600).unwrap();
        let refused = Listener::unix(&path, 0o600).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        // One that hangs: what connects waits to be taken.
        let hangs = dir.path().join("hangs");
        let socket = net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        net::bind(&socket, &SocketAddrUnix::new(&hangs).unwrap()).unwrap();
        net::listen(&socket, 0).unwrap();
        let _waits = std::os::unix::net::UnixStream::connect(&hangs).unwrap();
        assert_eq!(Listener::unix(&hangs, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(Listener::unix(&file, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
