//! What a crowd that signs in at once does to everybody else: how long other calls take without and with it.

use std::time::{Duration, Instant};

use anyhow::bail;
use horcrux_proto::v1::auth_service_client::AuthServiceClient;
use horcrux_proto::v1::vm_service_client::VmServiceClient;
use horcrux_proto::v1::{SignInRequest, VmServiceListRequest};
use horcrux_transport::clock;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tonic::Code;

use crate::person::Person;

/// Callers that go on with their work meanwhile, each with a pause between two calls.
const OTHERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(20);
/// Who signs in. Of one user's sessions the ones of longest ago end, so it isn't who makes the other calls.
const CROWD: &str = "crowd";

/// Runs other calls for `seconds` without a crowd, and again while `crowd` sign-ins at a time go on.
pub(crate) async fn measure(person: &Person, crowd: usize, seconds: u64) -> anyhow::Result<Value> {
    let length = Duration::from_secs(seconds);
    person.make_user(CROWD).await?;
    let calm = others(person, clock::monotonic() + length).await?;
    let until = clock::monotonic() + length;
    let mut signing_in = JoinSet::new();
    for _ in 0..crowd {
        let (channel, password) = (person.channel().await?, person.password.clone());
        signing_in.spawn(async move {
            let (mut done, mut refused) = (0_u64, 0_u64);
            while clock::monotonic() < until {
                let request = SignInRequest {
                    username: CROWD.to_owned(),
                    password: password.expose().to_owned(),
                    ..SignInRequest::default()
                };
                match AuthServiceClient::new(channel.clone()).sign_in(request).await {
                    Ok(_) => done += 1,
                    Err(status) if status.code() == Code::ResourceExhausted => {
                        refused += 1;
                        // As a person does who is told to come back.
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    Err(status) => bail!("sign in: {status}"),
                }
            }
            anyhow::Ok((done, refused))
        });
    }
    let crowded = others(person, until).await?;
    let (mut done, mut refused) = (0, 0);
    while let Some(one) = signing_in.join_next().await {
        let (in_, out) = one??;
        (done, refused) = (done + in_, refused + out);
    }
    let (calm, crowded) = (quantiles(calm), quantiles(crowded));
    Ok(json!({
        "crowd": crowd, "signed_in": done, "told_to_come_back": refused,
        "others_ms": {"calm": calm, "crowded": crowded},
    }))
}

async fn others(person: &Person, until: Instant) -> anyhow::Result<Vec<Duration>> {
    let mut callers = JoinSet::new();
    for _ in 0..OTHERS {
        let (person, channel) = (person.clone(), person.channel().await?);
        callers.spawn(async move {
            let mut took = Vec::new();
            while clock::monotonic() < until {
                let began = clock::monotonic();
                VmServiceClient::new(channel.clone())
                    .list(person.asks(VmServiceListRequest::default()))
                    .await?;
                took.push(clock::monotonic() - began);
                tokio::time::sleep(PAUSE).await;
            }
            anyhow::Ok(took)
        });
    }
    let mut all = Vec::new();
    while let Some(one) = callers.join_next().await {
        all.extend(one??);
    }
    Ok(all)
}

fn quantiles(mut took: Vec<Duration>) -> Value {
    took.sort_unstable();
    let at = |share: usize| took.get((took.len() * share / 100).min(took.len().saturating_sub(1)));
    let ms = |share| at(share).map(|d| (d.as_secs_f64() * 10_000.0).round() / 10.0);
    json!({"calls": took.len(), "p50": ms(50), "p99": ms(99)})
}
