//! One stream: how it is dialled, and what is put on it.

use std::time::Duration;

use horcrux_proto::agent::v1::agent_link_client::AgentLinkClient;
use horcrux_proto::agent::v1::{AttachRequest, AttachResponse, Hello, Inventory, attach_request};
use horcrux_proto::packed::Last;
use horcrux_transport::clock;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::filling::Filling;
use super::{CONNECT, LinkError};
use crate::identity::Enrolled;
use crate::present::PIECE_BYTES;

/// Messages between the link and the connection. When it is full the connection is slower than the readings: the newest
/// follows from the spool, so that what is sent at once is never older than this queue.
const OUTGOING: usize = 64;

/// One attached stream.
pub(super) struct Stream {
    pub(super) outgoing: mpsc::Sender<AttachRequest>,
    /// What the controller knows of each series from this stream.
    pub(super) last: Last,
    pub(super) incoming: Streaming<AttachResponse>,
    pub(super) channel: Channel,
    /// Whom the controller knows this stream as.
    pub(super) shown: Enrolled,
    /// The inventory could not be queued: the whole is owed.
    pub(super) owes_whole: bool,
    pub(super) filling: Filling,
    /// Within which time to dial again when it ends, as the controller wishes.
    pub(super) spread: Duration,
}

impl Stream {
    /// Queues a message; `false` when the queue is full.
    pub(super) fn offer(&self, message: attach_request::Message) -> bool {
        self.outgoing.try_send(AttachRequest { message: Some(message) }).is_ok()
    }

    /// Queues all pieces or none.
    pub(super) fn offer_all(&self, pieces: Vec<Inventory>) -> bool {
        let Ok(places) = self.outgoing.try_reserve_many(pieces.len()) else { return false };
        for (place, piece) in places.zip(pieces) {
            place.send(AttachRequest { message: Some(attach_request::Message::Inventory(piece)) });
        }
        true
    }

    /// Whether there is room for what is not urgent.
    pub(super) fn has_room_beside(&self) -> bool {
        self.outgoing.capacity() > OUTGOING / 2
    }

    pub(super) fn tell(&mut self, inventory: Inventory) {
        if !self.owes_whole {
            // The whole comes in pieces; so much news at once does as well.
            self.owes_whole = inventory.encoded_len() > PIECE_BYTES
                || !self.offer(attach_request::Message::Inventory(inventory));
        }
    }
}

pub(super) async fn attach(enrolled: Enrolled, hello: Hello) -> Result<Stream, LinkError> {
    let has_ended = enrolled.has_ended(clock::unix_ms());
    // A clock may be wrong: the controller is asked all the same. One that takes the certificate says so in its answer;
    // one that doesn't ends the connection without a word.
    dial(enrolled, hello).await.map_err(|error| {
        let is_silent = matches!(error, LinkError::Connect(_) | LinkError::Ended(_));
        if has_ended && is_silent { LinkError::Expired(Box::new(error)) } else { error }
    })
}

async fn dial(enrolled: Enrolled, hello: Hello) -> Result<Stream, LinkError> {
    let channel = enrolled.connect(CONNECT).channel().await.map_err(LinkError::Connect)?;
    let (outgoing, messages) = mpsc::channel(OUTGOING);
    let first = AttachRequest { message: Some(attach_request::Message::Hello(hello)) };
    outgoing.try_send(first).map_err(|_| LinkError::Closed)?;
    let mut client = AgentLinkClient::new(channel.clone());
    match timeout(CONNECT, client.attach(ReceiverStream::new(messages))).await {
        Ok(Ok(response)) => Ok(Stream {
            outgoing,
            last: Last::default(),
            incoming: response.into_inner(),
            channel,
            shown: enrolled,
            owes_whole: true,
            filling: Filling::default(),
            spread: Duration::ZERO,
        }),
        Ok(Err(status)) => Err(ended(&status)),
        Err(_) => Err(LinkError::Ended("no answer".to_owned())),
    }
}

pub(super) fn ended(status: &Status) -> LinkError {
    let said = status.message().to_owned();
    if status.code() == Code::PermissionDenied {
        LinkError::ShutOut(said)
    } else if status.code() == Code::Unauthenticated {
        LinkError::Unknown(said)
    } else {
        LinkError::Ended(said)
    }
}
