//! A watcher's stream that carries its own work: what is due to the watcher is computed while its connection has room for
//! it, and both end together. There is no task to own, and a connection that takes nothing costs nothing.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use horcrux_transport::socket::Place;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;

pub(super) type Work = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// See above.
pub(super) struct Followed {
    /// Fills `messages`; `None` once it has ended.
    work: Option<Work>,
    messages: mpsc::Receiver<Result<Bytes, Status>>,
    ended: Option<Status>,
    _place: Place,
}

impl Followed {
    pub(super) fn new(work: Work, messages: mpsc::Receiver<Result<Bytes, Status>>, place: Place) -> Self {
        Self { work: Some(work), messages, ended: None, _place: place }
    }
}

impl Stream for Followed {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // What is there goes first: it makes room for the work to go on.
        if let Poll::Ready(Some(message)) = self.messages.poll_recv(context) {
            return Poll::Ready(Some(message));
        }
        if let Some(work) = self.work.as_mut()
            && let Poll::Ready(outcome) = work.as_mut().poll(context)
        {
            // With it goes the last sender: the queue ends once it is empty.
            self.work = None;
            self.ended = outcome.err();
        }
        match self.messages.poll_recv(context) {
            Poll::Ready(Some(message)) => Poll::Ready(Some(message)),
            Poll::Ready(None) => Poll::Ready(self.ended.take().map(Err)),
            Poll::Pending => Poll::Pending,
        }
    }
}
