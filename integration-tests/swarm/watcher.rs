//! A client that watches everything, as a dashboard does, and notes how old each value is when it comes.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use horcrux_proto::v1::grant_service_client::GrantServiceClient;
use horcrux_proto::v1::watch_response::Message;
use horcrux_proto::v1::watch_service_client::WatchServiceClient;
use horcrux_proto::v1::{
    GrantServiceCreateRequest, WatchRequest, WatchResponse, grant_service_create_request,
};
use horcrux_transport::clock;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Streaming};

use crate::latency::Latencies;
use crate::person::Person;

/// Snapshots of large fleets come in pieces; none is as large as this.
const MESSAGE: usize = 64 << 20;

/// Streams that one user has open, as people do: a controller lets nobody hold many more.
const OF_ONE_USER: usize = 50;

/// Streams of as many users as it takes, who may see everything.
pub(crate) async fn open_all(person: &Person, count: usize) -> anyhow::Result<Vec<Streaming<WatchResponse>>> {
    let mut streams = Vec::with_capacity(count);
    while streams.len() < count {
        let user = format!("watcher-{}", streams.len() / OF_ONE_USER);
        person.make_user(&user).await?;
        let grant = GrantServiceCreateRequest {
            subject: Some(grant_service_create_request::Subject::User(user.clone())),
            role: "Auditor".to_owned(),
            path: "/".to_owned(),
            ..GrantServiceCreateRequest::default()
        };
        match GrantServiceClient::new(person.channel().await?).create(person.asks(grant)).await {
            Ok(_) => {}
            Err(status) if status.code() == Code::AlreadyExists => {}
            Err(status) => bail!("let {user} see everything: {status}"),
        }
        let watcher = person.other(&user).await?;
        for _ in 0..OF_ONE_USER.min(count - streams.len()) {
            streams.push(open(&watcher).await?);
        }
    }
    Ok(streams)
}

async fn open(person: &Person) -> anyhow::Result<Streaming<WatchResponse>> {
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
