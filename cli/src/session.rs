//! A signed-in connection: the channel, and the bearer token that each request carries.

use std::time::Duration;

use anyhow::Context as _;
use horcrux_proto::v1::auth_service_client::AuthServiceClient;
use horcrux_proto::v1::{RefreshRequest, TokenPair};
use horcrux_transport::client::{Target, Trust, connect};
use horcrux_transport::clock;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::contexts::{Entry, Home, Tokens};
use crate::exit::NotSignedIn;

pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// A token that ends within this is refreshed first, so that it outlives the request.
const SOON_MS: i64 = 30_000;

/// Puts the access token on a request.
#[derive(Clone)]
pub(crate) struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// The context in use: its name and what it holds.
pub(crate) fn current(home: &Home, wanted: Option<&str>) -> anyhow::Result<(String, Entry)> {
    let mut contexts = home.contexts()?;
    let name = wanted
        .map(str::to_owned)
        .or(contexts.current.take())
        .context("no controller yet: run `horcruxctl login https://CONTROLLER:8006`")?;
    let entry = contexts
        .context
        .remove(&name)
        .with_context(|| format!("no context is called {name}: see `horcruxctl context list`"))?;
    Ok((name, entry))
}

/// Connects to a context's controller, which must still be the one that was trusted.
pub(crate) async fn channel(entry: &Entry) -> anyhow::Result<Channel> {
    let target: Target = entry.url.parse()?;
    let trust = Trust::Pinned(entry.fingerprint.parse()?);
    Ok(connect(&target, &trust, DEADLINE).await?)
}

/// Connects and signs requests, refreshing the access token if it is about to end.
pub(crate) async fn signed(home: &Home, wanted: Option<&str>) -> anyhow::Result<(Entry, Channel, Bearer)> {
    let (name, entry) = current(home, wanted)?;
    let not_signed_in = || NotSignedIn { url: entry.url.clone() };
    let channel = channel(&entry).await?;
    let mut tokens = home.tokens(&name)?.ok_or_else(not_signed_in)?;
    if is_ending(&tokens) {
        let _lock = home.lock(&name)?;
        // Another command may have refreshed them while this one waited.
        tokens = home.tokens(&name)?.ok_or_else(not_signed_in)?;
        if is_ending(&tokens) {
            let request = RefreshRequest { refresh_token: tokens.refresh_token.clone() };
            let answer = match AuthServiceClient::new(channel.clone()).refresh(request).await {
                Ok(answer) => answer.into_inner().tokens.context("an empty refresh")?,
                Err(status) if status.code() == Code::Unauthenticated => {
                    home.forget_tokens(&name)?;
                    return Err(not_signed_in().into());
                }
                Err(status) => return Err(status).context("refresh the session"),
            };
            tokens = of(answer);
            home.save_tokens(&name, &tokens)?;
        }
    }
    let bearer = format!("Bearer {}", tokens.access_token).parse().context("use the access token")?;
    Ok((entry, channel, Bearer(bearer)))
}

fn is_ending(tokens: &Tokens) -> bool {
    tokens.access_expires_unix_ms - clock::unix_ms() < SOON_MS
}

pub(crate) fn of(pair: TokenPair) -> Tokens {
    Tokens {
        access_token: pair.access_token,
        access_expires_unix_ms: pair.access_expires_unix_ms,
        refresh_token: pair.refresh_token,
    }
}
