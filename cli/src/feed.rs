//! A watch stream that comes back. When it breaks, the reader is told why and when the next attempt is; only what waiting
//! cannot mend ends it.

use std::time::Duration;

use horcrux_proto::v1::watch_service_client::WatchServiceClient;
use horcrux_proto::v1::{WatchRequest, WatchResponse};
use horcrux_transport::backoff::{Backoff, draw};
use horcrux_transport::tasks::{Stop, Tasks};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use crate::failure::Failure;
use crate::session::{MESSAGE_LIMIT, Session};

/// What a reader is told.
#[derive(Debug)]
pub(crate) enum Heard {
    Message(Box<WatchResponse>),
    /// The stream broke, or was not made. It is tried again.
    Lost {
        why: String,
        retry_in: Duration,
    },
    /// It will not come back. Nothing follows.
    Ended(Failure),
}

/// Messages that wait for a slow reader. The rest waits in the connection and then at the controller, which tells of the
/// gap.
const WAITING: usize = 16;
/// The contract says that something arrives at least every 5 s: three of those are silence.
const SILENCE: Duration = Duration::from_secs(15);
pub(crate) const FIRST_RETRY: Duration = Duration::from_millis(500);
pub(crate) const MAX_RETRY: Duration = Duration::from_secs(10);

/// Starts following; ends when `tasks` stop or the receiver is dropped.
pub(crate) fn start(tasks: &mut Tasks, session: Session, request: WatchRequest) -> mpsc::Receiver<Heard> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tasks.spawn("watch", |stop| follow(session, request, sender, stop));
    receiver
}

async fn follow(
    session: Session,
    request: WatchRequest,
    sender: mpsc::Sender<Heard>,
    stop: Stop,
) -> Result<(), std::convert::Infallible> {
    let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
    loop {
        let broken = tokio::select! {
            broken = once(&session, &request, &sender, &mut backoff) => broken,
            () = stop.cancelled() => return Ok(()),
            () = sender.closed() => return Ok(()),
        };
        let Some(failure) = broken else { return Ok(()) };
        if !failure.is_passing() {
            // A reader that left doesn't need it.
            drop(sender.send(Heard::Ended(failure)).await);
            return Ok(());
        }
        let retry_in = backoff.failed(draw());
        if sender.send(Heard::Lost { why: failure.to_string(), retry_in }).await.is_err() {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(retry_in) => {}
            () = stop.cancelled() => return Ok(()),
            () = sender.closed() => return Ok(()),
        }
    }
}

/// Follows one stream to its end; `None` when the reader left.
async fn once(
    session: &Session,
    request: &WatchRequest,
    sender: &mpsc::Sender<Heard>,
    backoff: &mut Backoff,
) -> Option<Failure> {
    let open = |wire| {
        let request = request.clone();
        async move { WatchServiceClient::new(wire).max_decoding_message_size(MESSAGE_LIMIT).watch(request).await }
    };
    let mut stream = match session.call(open).await {
        Ok(stream) => stream,
        Err(failure) => return Some(failure),
    };
    loop {
        match next(&mut stream).await {
            Ok(message) => {
                backoff.succeeded();
                if sender.send(Heard::Message(Box::new(message))).await.is_err() {
                    return None;
                }
            }
            Err(status) => return Some(ended(&session.url, &status)),
        }
    }
}

/// The next message of any stream that says something at least every five seconds.
pub(crate) async fn next<T>(stream: &mut Streaming<T>) -> Result<T, Status> {
    match tokio::time::timeout(SILENCE, stream.message()).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(Status::unavailable("the server ended the stream")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::unavailable(format!("nothing was heard for {} s", SILENCE.as_secs()))),
    }
}

/// A stream that began can end in ways that a request can't: with a broken connection under any of these codes.
pub(crate) fn ended(url: &str, status: &Status) -> Failure {
    match status.code() {
        Code::Unknown | Code::Internal | Code::Cancelled | Code::Aborted | Code::ResourceExhausted => {
            Failure::lost(url, format!("the stream broke: {}", crate::view::shown(status.message())))
        }
        Code::Ok
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => Failure::answered(url, status),
    }
}
