//! A client that watches everything, as a dashboard does, and notes how old each value is when it comes.

use std::sync::Arc;

use anyhow::Context as _;
use horcrux_proto::v1::watch_response::Message;
use horcrux_proto::v1::watch_service_client::WatchServiceClient;
use horcrux_proto::v1::{WatchRequest, WatchResponse};
use horcrux_transport::clock;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use crate::Person;
use crate::latency::Latencies;

/// Snapshots of large fleets come in pieces; none is as large as this.
const MESSAGE: usize = 64 << 20;

pub(crate) async fn open(person: &Person) -> anyhow::Result<Streaming<WatchResponse>> {
    let mut client = WatchServiceClient::new(person.channel().await?).max_decoding_message_size(MESSAGE);
    let stream = client.watch(person.asks(WatchRequest::default())).await.context("watch")?;
    Ok(stream.into_inner())
}

pub(crate) async fn follow(
    mut stream: Streaming<WatchResponse>,
    latencies: Arc<Latencies>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let own = latencies.watcher();
    loop {
        let message = tokio::select! {
            message = stream.message() => message.context("a watcher's stream")?,
            () = stop.cancelled() => return Ok(()),
        };
        let message = message.context("a watcher's stream ended")?;
        let bytes = message.encoded_len();
        match message.message {
            Some(Message::Changes(changes)) => {
                let now = clock::unix_ms();
                let ages = changes.frames.iter().flat_map(|frame| {
                    let newest = now - frame.newest_unix_ms;
                    frame.age_ms.iter().map(move |&age| newest + i64::from(age))
                });
                latencies.add(own, bytes, ages);
            }
            Some(Message::Gap(gap)) => latencies.gap(gap.missed_ticks),
            Some(Message::Hello(_) | Message::Snapshot(_) | Message::Heartbeat(_)) | None => {}
        }
    }
}
