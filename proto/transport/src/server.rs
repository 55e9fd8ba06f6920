//! The accept loop: TLS, HTTP/2 and HTTP/1.1, with every limit stated.
//!
//! The TLS configuration is read for each connection, so a changed certificate serves the next one and disturbs none.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Body;
pub use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::ahead::ReadAhead;
use crate::clock;
use crate::source::Source;
use crate::tasks::Stop;
use crate::tls::{PeerCertificate, WRITTEN_AT_ONCE, peer_certificate};

/// Who is at the other end. Put into every request's extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// Checked against the CA; on the agents' port only.
    pub certificate: Option<PeerCertificate>,
}

/// Why each is there: so that no client, by malice or mistake, takes what the others need.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections: usize,
    pub connections_per_source: usize,
    /// Connections of one source that have not finished their handshake: they cost a peer nothing to open.
    pub handshakes_per_source: usize,
    pub streams_per_connection: u32,
}

/// A TLS handshake takes two round trips; a peer that needs longer than this isn't going to finish.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// HTTP/1 request headers, and the first request of a connection of either version.
const HEADERS: Duration = Duration::from_secs(15);
/// Probing of idle HTTP/2 connections: a peer that vanished is noticed in 15 s.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(5);
/// Larger than any header list of ours by a factor of ten.
const HEADER_LIST_BYTES: u32 = 16 << 10;
/// What a client may have in flight towards us: of a console, half of what there may be on the whole way, and eight times as
/// much per connection.
const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// What a client sends at once of one stream, in one write: four of a console's longest messages with their headers.
const FRAME: u32 = 257 << 10;
/// Streams that a client may reset before we have looked at them (rapid reset).
const PENDING_RESETS: usize = 20;
/// Refusals of connections are told this often at most, with their number.
const TELL_REFUSED: Duration = Duration::from_secs(10);
/// How long open requests may go on after the stop signal.
pub(crate) const DRAIN: Duration = Duration::from_secs(3);

/// The current configuration; sending a new one changes it for connections to come.
pub type TlsSource = watch::Receiver<Arc<ServerConfig>>;

/// Serves until `stop`, then drains.
pub async fn serve<S, F, B>(listener: TcpListener, tls: TlsSource, limits: Limits, service: S, stop: Stop)
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let graceful = GracefulShutdown::new();
    let open = Arc::new(Open { limits, per_source: Mutex::default() });
    let mut refused = Refused::default();
    // Owns every connection; dropping it ends what outlives the drain.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        let (tcp, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely. Accepting again at once would spin.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = open.enter(Source::of(address.ip())) else {
            refused.count(address, clock::monotonic());
            continue;
        };
        let config = tls.borrow().clone();
        let (service, watcher) = (service.clone(), graceful.watcher());
        connections.spawn(async move {
            let mut place = place;
            let Some((stream, peer)) = handshake(tcp, address, config).await else { return };
            place.shook_hands();
            let streams = limits.streams_per_connection;
            match converse(TokioIo::new(stream), peer, streams, service, watcher).await {
                Ok(()) => {}
                Err(Ended::Silent) => tracing::debug!(%address, "nothing was asked"),
                Err(Ended::Failed(error)) => tracing::debug!(%address, error, "connection ended"),
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::debug!(still_open = connections.len(), "connections cut at the end of the drain");
    }
}

/// How a connection ended before its time.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Nothing was asked.
    Silent,
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

/// Serves one connection; each request's extensions hold `peer`.
pub(crate) async fn converse<I, P, S, F, B>(
    io: I,
    peer: P,
    streams: u32,
    service: S,
    watcher: Watcher,
) -> Result<(), Ended>
where
    I: Read + Write + Unpin + Send + 'static,
    P: Clone + Send + Sync + 'static,
    S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let asked = Arc::new(Notify::new());
    let ask = Arc::clone(&asked);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        ask.notify_one();
        request.extensions_mut().insert(peer.clone());
        service(request)
    });
    let builder = http(streams);
    let connection = builder.serve_connection_with_upgrades(io, service).into_owned();
    let connection = watcher.watch(connection);
    tokio::pin!(connection);
    let first = tokio::select! {
        ended = &mut connection => Some(ended),
        () = asked.notified() => None,
        () = tokio::time::sleep(HEADERS) => return Err(Ended::Silent),
    };
    let ended = match first {
        Some(ended) => ended,
        None => connection.await,
    };
    ended.map_err(Ended::Failed)
}

async fn handshake(
    tcp: TcpStream,
    address: SocketAddr,
    config: Arc<ServerConfig>,
) -> Option<(tokio_rustls::server::TlsStream<ReadAhead<TcpStream>>, Peer)> {
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%address, %error, "connection lost before its handshake");
        return None;
    }
    match tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(ReadAhead::new(tcp))).await {
        Ok(Ok(mut stream)) => {
            stream.get_mut().1.set_buffer_limit(Some(WRITTEN_AT_ONCE));
            let certificate =
                stream.get_ref().1.peer_certificates().and_then(|c| c.first()).and_then(peer_certificate);
            Some((stream, Peer { address, certificate }))
        }
        Ok(Err(error)) => {
            tracing::info!(%address, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::info!(%address, "TLS handshake took too long");
            None
        }
    }
}

fn http(streams: u32) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_ANSWER)
        .max_concurrent_streams(streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADER_LIST_BYTES)
        .max_pending_accept_reset_streams(PENDING_RESETS);
    builder
}

#[derive(Debug)]
struct Open {
    limits: Limits,
    per_source: Mutex<HashMap<Source, Held>>,
}

/// Connections of one source.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    open: usize,
    /// Of those, without a handshake yet.
    shaking: usize,
}

/// A connection's place among those allowed; gives it back when dropped.
struct Place {
    open: Arc<Open>,
    source: Source,
    shaking: bool,
}

/// Refusals that were not told yet.
#[derive(Debug, Default)]
struct Refused {
    told: Option<Instant>,
    since: u64,
}

impl Refused {
    fn count(&mut self, address: SocketAddr, now: Instant) {
        self.since += 1;
        if self.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_REFUSED) {
            tracing::warn!(%address, refused = self.since, "connections refused: too many are open");
            (self.told, self.since) = (Some(now), 0);
        }
    }
}

impl Open {
    fn enter(self: &Arc<Self>, source: Source) -> Option<Place> {
        let mut counts = self.per_source.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = counts.values().map(|held| held.open).sum();
        let here = counts.get(&source).copied().unwrap_or_default();
        let limits = &self.limits;
        if total >= limits.connections
            || here.open >= limits.connections_per_source
            || here.shaking >= limits.handshakes_per_source
        {
            return None;
        }
        counts.insert(source, Held { open: here.open + 1, shaking: here.shaking + 1 });
        Some(Place { open: Arc::clone(self), source, shaking: true })
    }
}

impl Place {
    fn shook_hands(&mut self) {
        let mut counts = self.open.per_source.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = counts.get_mut(&self.source) {
            held.shaking = held.shaking.saturating_sub(usize::from(self.shaking));
        }
        self.shaking = false;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shook_hands();
        let mut counts = self.open.per_source.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = counts.get_mut(&self.source) {
            held.open -= 1;
            if held.open == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Source {
        Source::of(address.parse().unwrap())
    }

    #[test]
    fn a_network_of_ipv6_shares_its_places() {
        let limits = Limits {
            connections: 9,
            connections_per_source: 2,
            handshakes_per_source: 9,
            streams_per_connection: 1,
        };
        let open = Arc::new(Open { limits, per_source: Mutex::default() });
        let _held = [open.enter(at("2001:db8::1")).unwrap(), open.enter(at("2001:db8::2")).unwrap()];
        assert!(open.enter(at("2001:db8::3")).is_none(), "one machine may have any address of these");
        assert!(open.enter(at("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn an_address_that_holds_its_share_is_refused_until_it_lets_go() {
        let limits = Limits {
            connections: 3,
            connections_per_source: 2,
            handshakes_per_source: 2,
            streams_per_connection: 1,
        };
        let open = Arc::new(Open { limits, per_source: Mutex::default() });
        let (a, b) = (at("127.0.0.1"), at("127.0.0.2"));
        let first = open.enter(a);
        let _second = open.enter(a);
        assert!(open.enter(a).is_none(), "its share is two");
        let _third = open.enter(b);
        assert!(open.enter(b).is_none(), "three in all");
        drop(first);
        assert!(open.enter(b).is_some());
    }

    #[test]
    fn who_leaves_handshakes_open_gets_no_further_ones() {
        let limits = Limits {
            connections: 9,
            connections_per_source: 9,
            handshakes_per_source: 1,
            streams_per_connection: 1,
        };
        let open = Arc::new(Open { limits, per_source: Mutex::default() });
        let (a, b) = (at("127.0.0.1"), at("127.0.0.2"));
        let mut first = open.enter(a).unwrap();
        assert!(open.enter(a).is_none());
        assert!(open.enter(b).is_some(), "another address has a share of its own");
        first.shook_hands();
        assert!(open.enter(a).is_some());
    }
}
