//! RPCs of the public API, called directly: what the command line client would not send, and streams that are timed.

use std::future::Future;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use horcrux_transport::client::{Trust, connect};
use horcrux_transport::clock;
use tokio::runtime::Runtime;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::PATIENCE;

/// What the generated clients run on.
pub type Wire = InterceptedService<Channel, Bearer>;

/// Puts a token into each request.
#[derive(Clone, Debug)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

/// A client of one controller, with an access token or an API token, or with none.
#[derive(Clone, Debug)]
pub struct Caller {
    pub(crate) url: String,
    pub(crate) fingerprint: String,
    pub(crate) token: Option<String>,
}

/// A stream that is read on a thread of its own, so that it is known when each message came.
#[derive(Debug)]
pub struct Heard<T>(Receiver<(Instant, Result<T, Status>)>);

const DEADLINE: Duration = Duration::from_secs(10);
/// More messages than any test leaves unread.
const UNREAD: usize = 10_000;

impl Caller {
    /// One RPC.
    pub fn call<T, F>(&self, rpc: impl FnOnce(Wire) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let runtime = runtime().map_err(|error| Status::unavailable(error.to_string()))?;
        runtime.block_on(async {
            let answer = tokio::time::timeout(DEADLINE, rpc(self.wire().await?)).await;
            answer.map_err(|_| Status::deadline_exceeded("no answer"))?.map(Response::into_inner)
        })
    }

    /// Opens a stream; a refusal is its end.
    pub fn stream<T, F>(&self, rpc: impl FnOnce(Wire) -> F + Send + 'static) -> anyhow::Result<Heard<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<Response<Streaming<T>>, Status>>,
    {
        let (put, heard) = sync_channel(UNREAD);
        let caller = self.clone();
        let runtime = runtime()?;
        let read = move || {
            runtime.block_on(async {
                let ended = async {
                    let mut stream = rpc(caller.wire().await?).await?.into_inner();
                    while let Some(message) = stream.message().await? {
                        if put.send((clock::monotonic(), Ok(message))).is_err() {
                            break;
                        }
                    }
                    Ok::<_, Status>(())
                };
                let ended = ended.await.err().unwrap_or_else(|| Status::ok("the stream ended"));
                // A test that is over doesn't hear it.
                drop(put.send((clock::monotonic(), Err(ended))));
            });
        };
        thread::Builder::new().name("stream".to_owned()).spawn(read)?;
        Ok(Heard(heard))
    }

    /// Connects.
    pub async fn wire(&self) -> Result<Wire, Status> {
        let wrong = |error: &dyn std::fmt::Display| Status::unavailable(error.to_string());
        let target = self.url.parse().map_err(|error| wrong(&error))?;
        let pin = self.fingerprint.parse().map_err(|error| wrong(&error))?;
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}").parse());
        let bearer = bearer.transpose().map_err(|error| wrong(&error))?;
        let channel = connect(&target, &Trust::Pinned(pin), DEADLINE).await;
        Ok(InterceptedService::new(channel.map_err(|error| wrong(&error))?, Bearer(bearer)))
    }
}

impl<T> Heard<T> {
    /// The first message of which `pick` takes something, and when it came. The stream's end before it is an error.
    pub fn until<U>(&self, what: &str, mut pick: impl FnMut(T) -> Option<U>) -> anyhow::Result<(Instant, U)> {
        let give_up = clock::monotonic() + PATIENCE;
        loop {
            match self.next(what, give_up)? {
                (at, Ok(message)) => {
                    if let Some(found) = pick(message) {
                        return Ok((at, found));
                    }
                }
                (_, Err(status)) => bail!("{what}: the stream ended first: {status}"),
            }
        }
    }

    /// How and when the stream ends.
    pub fn end(&self) -> anyhow::Result<(Instant, Status)> {
        let give_up = clock::monotonic() + PATIENCE;
        loop {
            if let (at, Err(status)) = self.next("the stream's end", give_up)? {
                return Ok((at, status));
            }
        }
    }

    fn next(&self, what: &str, give_up: Instant) -> anyhow::Result<(Instant, Result<T, Status>)> {
        let left = give_up.saturating_duration_since(clock::monotonic());
        self.0.recv_timeout(left).with_context(|| format!("waited {PATIENCE:?} for {what}"))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

pub(crate) fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
