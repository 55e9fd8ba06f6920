//! gRPC over a UNIX socket, both ends of it. There is no TLS: the file's owner, group and mode say who may connect, and the
//! kernel says who did.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::plain::{self, Bound};
use crate::server::{DRAIN, Ended, converse};
use crate::tasks::Stop;

/// A socket that is listened on; its file goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    _file: Bound,
}

/// So that no user of this host takes what the others need.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections: Share,
    pub streams_per_connection: u32,
}

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    pub all: usize,
    pub per_user: usize,
}

/// Who is at the other end. Put into every request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPeer {
    pub uid: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("connect to {}", path.display())]
    Connect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} does not answer within {deadline:?}", path.display())]
    Deadline { path: PathBuf, deadline: Duration },
    #[error("speak HTTP/2 at {}", path.display())]
    Http {
        path: PathBuf,
        #[source]
        source: tonic::transport::Error,
    },
}

/// Places that the users of this host share.
#[derive(Debug)]
pub struct Places {
    share: Share,
    /// How many each user has.
    taken: Mutex<HashMap<u32, usize>>,
}

/// One of them; given back when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Socket {
    /// A socket at `path`, with the permissions `mode`, in the place of one that nobody listens on any more.
    pub fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        let (listener, file) = plain::bound(path, mode)?;
        Ok(Self { listener, _file: file })
    }

    /// Serves until `stop`, then drains.
    pub async fn serve<S, F, B>(self, limits: Limits, service: S, stop: Stop)
    where
        S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let graceful = GracefulShutdown::new();
        let places = Arc::new(Places::new(limits.connections));
        // Owns every connection; dropping it ends what outlives the drain.
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = stop.cancelled() => break,
            };
            let peer = accepted.and_then(|(stream, _)| {
                let uid = stream.peer_cred()?.uid();
                Ok((stream, LocalPeer { uid }))
            });
            let (stream, peer) = match peer {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely. Accepting again at once would spin.
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(place) = places.enter(peer.uid) else {
                tracing::debug!(uid = peer.uid, "connection refused: too many are open");
                continue;
            };
            tracing::debug!(uid = peer.uid, "connection");
            let (service, watcher) = (service.clone(), graceful.watcher());
            connections.spawn(async move {
                let _place = place;
                let streams = limits.streams_per_connection;
                match converse(TokioIo::new(stream), peer, streams, service, watcher).await {
                    Ok(()) => {}
                    Err(Ended::Silent) => tracing::debug!(uid = peer.uid, "nothing was asked"),
                    Err(Ended::Failed(error)) => tracing::debug!(uid = peer.uid, error, "connection ended"),
                }
            });
        }
        if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
            tracing::debug!(still_open = connections.len(), "connections cut at the end of the drain");
        }
    }
}

impl Places {
    #[must_use]
    pub fn new(share: Share) -> Self {
        Self { share, taken: Mutex::default() }
    }

    /// A place for this user, if there is one.
    #[must_use]
    pub fn enter(self: &Arc<Self>, uid: u32) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (total, here): (usize, usize) = (taken.values().sum(), taken.get(&uid).copied().unwrap_or(0));
        if total >= self.share.all || here >= self.share.per_user {
            return None;
        }
        taken.insert(uid, here + 1);
        Some(Place { places: Arc::clone(self), uid })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = taken.get_mut(&self.uid) {
            *here -= 1;
            if *here == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

/// Connects now; a channel that breaks later connects again by itself when it is next used.
pub async fn channel(
    path: &Path,
    user_agent: &'static str,
    deadline: Duration,
) -> Result<Channel, SocketError> {
    let first = connected(path, deadline).await?;
    let first = Arc::new(Mutex::new(Some(first)));
    let at = path.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let ready = first.lock().ok().and_then(|mut first| first.take());
        let path = at.clone();
        async move {
            match ready {
                Some(stream) => Ok(TokioIo::new(stream)),
                None => connected(&path, deadline).await.map(TokioIo::new),
            }
        }
    });
    let failed = |source| SocketError::Http { path: path.to_owned(), source };
    // Nobody looks this host up: the connector knows the way.
    let endpoint = Endpoint::from_static("http://agent").user_agent(user_agent).map_err(failed)?;
    endpoint.connect_with_connector(connector).await.map_err(failed)
}

async fn connected(path: &Path, deadline: Duration) -> Result<UnixStream, SocketError> {
    let path = || path.to_owned();
    match tokio::time::timeout(deadline, UnixStream::connect(path())).await {
        Ok(connected) => connected.map_err(|source| SocketError::Connect { path: path(), source }),
        Err(_) => Err(SocketError::Deadline { path: path(), deadline }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_that_holds_its_share_is_refused_and_others_are_not() {
        let places = Arc::new(Places::new(Share { all: 3, per_user: 2 }));
        let first = places.enter(7);
        let _second = places.enter(7).unwrap();
        assert!(places.enter(7).is_none(), "its share is two");
        let _third = places.enter(0).unwrap();
        assert!(places.enter(0).is_none(), "three in all");
        drop(first);
        assert!(places.enter(0).is_some());
    }

    #[tokio::test]
    async fn nobody_listening_is_told_with_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let error = channel(&path, "test", Duration::from_secs(5)).await.unwrap_err();
        assert!(error.to_string().ends_with("agent.sock"), "{error}");
        assert!(
            matches!(error, SocketError::Connect { source, .. } if source.kind() == io::ErrorKind::NotFound)
        );
    }
}
