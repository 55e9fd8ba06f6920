//! A Prometheus and OpenMetrics exporter.
//!
//! It serves what the lanes read last, so a scrape reads nothing of the host and stalls on nothing. On a UNIX socket or a
//! loopback port whoever can connect may ask; on any other address it is HTTPS and a bearer token, and the settings
//! allow nothing less.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use horcrux_transport::error::Chain;
use horcrux_transport::files::read_private;
use horcrux_transport::plain::{self, Listener};
use horcrux_transport::secret::Secret;
use horcrux_transport::server::{self, Incoming, Limits};
use horcrux_transport::tasks::Stop;
use horcrux_transport::tls::{self, Identity, ServerConfig, TlsError};
use http::Request;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::{self, Listen, Secured};
use crate::local::Local;

mod answer;
mod facts;
mod mounts;
mod names;
mod negotiate;
mod own;
mod render;
mod text;

use self::answer::{Answering, AskedBy, DEADLINE};
pub use self::names::families;
pub use self::render::Renderer;
pub use self::text::Format;

/// Several Prometheus servers and a person; each scrape has one.
const CONNECTIONS: usize = 16;
const LIMITS: Limits = Limits {
    connections: CONNECTIONS,
    connections_per_source: CONNECTIONS / 2,
    handshakes_per_source: CONNECTIONS / 4,
    // A scraper asks one thing at a time.
    streams_per_connection: 2,
};
/// Who may connect to the socket: its owner and its group.
const SOCKET_MODE: u32 = 0o660;
/// How soon a new certificate or token is taken.
const LOOK: Duration = Duration::from_secs(60);
/// What can be guessed is no token.
const SHORTEST_TOKEN: usize = 16;

/// The exporter, bound and ready to serve.
#[derive(Debug)]
pub struct Exporter {
    answering: Arc<Answering>,
    port: Port,
}

#[derive(Debug)]
enum Port {
    Plain(Listener),
    Secured(TcpListener, Credentials),
}

/// What an open port shows and asks for, as its files had it last.
#[derive(Debug)]
struct Credentials {
    files: Secured,
    tls: watch::Sender<Arc<ServerConfig>>,
    token: watch::Sender<Secret>,
}

#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    #[error("make the directory of {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("listen on {}", path.display())]
    Socket {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("listen on {address}")]
    Address {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("read the exporter's certificate and key")]
    Certificate(#[source] TlsError),
    #[error("read the exporter's token from {}", path.display())]
    Token {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Exporter {
    /// Takes its address; `root` is where /proc is found.
    pub fn bind(settings: &config::Exporter, local: Arc<Local>, root: &Path) -> Result<Self, ExporterError> {
        let (port, asked_by) = match (&settings.listen, &settings.secured) {
            (Listen::Unix(path), _) => {
                let failed = |source| ExporterError::Socket { path: path.clone(), source };
                if let Some(dir) = path.parent() {
                    std::fs::create_dir_all(dir)
                        .map_err(|source| ExporterError::Directory { path: path.clone(), source })?;
                }
                (Port::Plain(Listener::unix(path, SOCKET_MODE).map_err(failed)?), AskedBy::Anyone)
            }
            (Listen::Tcp(address), None) => {
                (Port::Plain(Listener::Tcp(listener(*address)?)), AskedBy::ThisHost)
            }
            (Listen::Tcp(address), Some(files)) => {
                let (credentials, token) = Credentials::read(files)?;
                (Port::Secured(listener(*address)?, credentials), AskedBy::Token(token))
            }
        };
        tracing::info!(listen = %settings.listen, "exporter");
        Ok(Self { answering: Arc::new(Answering::new(local, Renderer::new(root), asked_by)), port })
    }

    /// Whether what the settings name can be read: all that can be known without taking the address.
    pub fn check(settings: &config::Exporter) -> Result<(), ExporterError> {
        settings.secured.as_ref().map_or(Ok(()), |files| Credentials::read(files).map(|_| ()))
    }

    /// Serves until `stop`.
    pub async fn run(self, stop: Stop) -> Result<(), Infallible> {
        let answering = self.answering;
        match self.port {
            Port::Plain(listener) => {
                let service = move |request: Request<Incoming>| Arc::clone(&answering).answer(request);
                plain::serve(listener, CONNECTIONS, DEADLINE, service, stop).await;
            }
            Port::Secured(listener, credentials) => {
                let service = move |request: Request<Incoming>| Arc::clone(&answering).answer(request);
                let serving = server::serve(listener, credentials.tls.subscribe(), LIMITS, service, stop);
                tokio::pin!(serving);
                let mut look = tokio::time::interval(LOOK);
                loop {
                    tokio::select! {
                        () = &mut serving => break,
                        _ = look.tick() => credentials.renew(),
                    }
                }
            }
        }
        Ok(())
    }
}

impl Credentials {
    fn read(files: &Secured) -> Result<(Self, watch::Receiver<Secret>), ExporterError> {
        let (token, asked_for) = watch::channel(token(&files.token_file)?);
        let (tls, _) = watch::channel(certificate(files)?);
        Ok((Self { files: files.clone(), tls, token }, asked_for))
    }

    /// Takes what the files hold now; what they held before stays where they can't be read.
    fn renew(&self) {
        match certificate(&self.files).and_then(|tls| Ok((tls, token(&self.files.token_file)?))) {
            Ok((tls, token)) => {
                self.tls.send_replace(tls);
                self.token.send_replace(token);
            }
            Err(error) => tracing::warn!(error = %Chain(&error), "exporter keeps its certificate and token"),
        }
    }
}

fn listener(address: SocketAddr) -> Result<TcpListener, ExporterError> {
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    bound.map_err(|source| ExporterError::Address { address, source })
}

fn certificate(files: &Secured) -> Result<Arc<ServerConfig>, ExporterError> {
    let identity = Identity::from_files(&files.certificate, &files.key);
    identity.and_then(|identity| tls::single_server(&identity)).map_err(ExporterError::Certificate)
}

fn token(path: &Path) -> Result<Secret, ExporterError> {
    let failed = |source| ExporterError::Token { path: path.to_owned(), source };
    let invalid = |why: String| failed(io::Error::new(io::ErrorKind::InvalidData, why));
    let text = String::from_utf8(read_private(path).map_err(failed)?);
    let text = text.map_err(|_| invalid("it is no text".to_owned()))?;
    let token = text.trim();
    if token.len() < SHORTEST_TOKEN || token.contains(char::is_whitespace) {
        return Err(invalid(format!("a token is one word of {SHORTEST_TOKEN} characters or more")));
    }
    Ok(Secret::from(token.to_owned()))
}

#[cfg(test)]
mod tests;
