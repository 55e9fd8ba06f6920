//! One request to a web server that isn't ours, and its answer.
//!
//! Few requests are made this way, a handful per sign-in, so each has a connection of its own: nothing is pooled, kept
//! alive or retried. Redirects are answers like others: following one would carry a secret to whomever the server
//! names. No proxy is taken from the environment.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::tls::{self, ClientConfig};

/// Calls servers that `config` trusts.
#[derive(Clone)]
pub struct Https {
    config: Arc<ClientConfig>,
    /// For all of one request, from the name's look-up to the last byte.
    deadline: Duration,
    body_bytes: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    #[error("{0} is not an https address")]
    Address(Uri),
    #[error("{host} does not answer within {deadline:?}")]
    Deadline { host: String, deadline: Duration },
    #[error("reach {host}")]
    Unreachable {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("agree on TLS with {host}")]
    Tls {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("speak HTTP with {host}")]
    Http {
        host: String,
        #[source]
        source: hyper::Error,
    },
    #[error("the answer of {host} is longer than {limit} bytes")]
    TooLong { host: String, limit: usize },
    #[error("read the answer of {host}")]
    Body {
        host: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl fmt::Debug for Https {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Https").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl Https {
    #[must_use]
    pub fn new(config: &ClientConfig, deadline: Duration, body_bytes: usize) -> Self {
        let mut config = config.clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { config: Arc::new(config), deadline, body_bytes }
    }

    /// Sends `request`, whose address is a whole `https://` one.
    pub async fn call(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, HttpsError> {
        let uri = request.uri().clone();
        let host = match (uri.scheme_str(), uri.host()) {
            (Some("https"), Some(host)) if !host.is_empty() => host.to_owned(),
            _ => return Err(HttpsError::Address(uri)),
        };
        let answered = tokio::time::timeout(self.deadline, self.exchange(&uri, &host, request));
        answered.await.unwrap_or(Err(HttpsError::Deadline { host, deadline: self.deadline }))
    }

    async fn exchange(
        &self,
        uri: &Uri,
        host: &str,
        request: Request<Vec<u8>>,
    ) -> Result<Response<Vec<u8>>, HttpsError> {
        let told = || host.to_owned();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((address, uri.port_u16().unwrap_or(443)))
            .await
            .map_err(|source| HttpsError::Unreachable { host: told(), source })?;
        let tls = tls::secure(&self.config, address, tcp)
            .await
            .map_err(|source| HttpsError::Tls { host: told(), source })?;
        let http = |source| HttpsError::Http { host: told(), source };
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.map_err(http)?;
        let answer = async {
            let answer = sender.send_request(origin_form(uri, request)?).await.map_err(http)?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, self.body_bytes).collect().await;
            let body = body.map_err(|source| match source.downcast::<LengthLimitError>() {
                Ok(_) => HttpsError::TooLong { host: told(), limit: self.body_bytes },
                Err(source) => HttpsError::Body { host: told(), source },
            })?;
            Ok(Response::from_parts(head, body.to_bytes().to_vec()))
        };
        driven(connection, answer).await
    }
}

/// `work`, while `connection` moves its bytes. A connection may end before `work` has read what came over it.
async fn driven<T>(connection: impl Future, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => done,
        _ = connection => work.await,
    }
}

/// As a server expects it: the path alone, with the host in a header.
fn origin_form(uri: &Uri, request: Request<Vec<u8>>) -> Result<Request<Full<Bytes>>, HttpsError> {
    let wrong = || HttpsError::Address(uri.clone());
    let authority = uri.authority().filter(|a| !a.as_str().contains('@')).ok_or_else(wrong)?;
    let (mut head, body) = request.into_parts();
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| wrong())?;
    head.headers.insert(header::HOST, host);
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    head.uri = path.parse().map_err(|_| wrong())?;
    Ok(Request::from_parts(head, Full::new(Bytes::from(body))))
}
