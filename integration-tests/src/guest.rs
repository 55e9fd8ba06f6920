//! Somebody without an account who was given a link, in a browser that does as it is told: gRPC-web, an Origin, cookies.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use horcrux_proto::console::{LINK_HEADER, LINK_QUERY, MAX_MESSAGE, PATH, SUBPROTOCOL};
use horcrux_proto::v1::guest_link_service_client::GuestLinkServiceClient;
use horcrux_proto::v1::{
    GuestConsole, GuestLinkServiceCreateTicketRequest, GuestLinkServiceGetRequest,
    GuestLinkServiceOpenRequest,
};
use horcrux_transport::client::{Connect, Trust};
use horcrux_transport::websocket::Ask;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tonic::body::Body;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_web::{GrpcWebCall, GrpcWebClientService};
use tower::util::MapRequest;

use crate::caller::runtime;
use crate::{Controller, Viewer};

const DEADLINE: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Debug)]
pub struct Guest {
    url: String,
    fingerprint: String,
    /// Of the page.
    pub origin: String,
    pub cookies: BTreeMap<String, String>,
    /// The id of the link that was opened last.
    pub link: String,
}

/// What the generated client runs on.
type WebWire = InterceptedService<GrpcWebClientService<MapRequest<Channel, Unwrap>>, Headers>;
type Unwrap = fn(http::Request<GrpcWebCall<Body>>) -> http::Request<Body>;

/// What the page and its browser add to a request.
#[derive(Clone, Debug)]
struct Headers(HeaderMap);

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().as_mut().extend(self.0.clone());
        Ok(request)
    }
}

impl Guest {
    /// In a browser with nothing in it.
    pub fn new(controller: &Controller) -> anyhow::Result<Self> {
        let (url, fingerprint) = (controller.url(), controller.fingerprint()?.trim().to_owned());
        let origin = url.clone();
        Ok(Self { url, fingerprint, origin, cookies: BTreeMap::new(), link: String::new() })
    }

    /// Comes with a link, or with its secret alone.
    pub fn open(&mut self, link: &str) -> Result<GuestConsole, Status> {
        let secret = link.rsplit_once('#').map_or(link, |(_, secret)| secret).to_owned();
        let request = GuestLinkServiceOpenRequest { secret };
        let answer = self.call(|wire| async { GuestLinkServiceClient::new(wire).open(request).await })?;
        for set in answer.metadata().get_all(header::SET_COOKIE.as_str()) {
            let set = set.to_str().map_err(|error| Status::internal(error.to_string()))?;
            let pair = set.split(';').next().and_then(|pair| pair.split_once('='));
            let (name, value) = pair.ok_or_else(|| Status::internal("no cookie"))?;
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        let console = answer.into_inner().console.unwrap_or_default();
        console.name.trim_start_matches("links/").clone_into(&mut self.link);
        Ok(console)
    }

    /// As a page that was reloaded.
    pub fn get(&self) -> Result<GuestConsole, Status> {
        let request = GuestLinkServiceGetRequest {};
        let answer = self.call(|wire| async { GuestLinkServiceClient::new(wire).get(request).await });
        answer.map(|answer| answer.into_inner().console.unwrap_or_default())
    }

    pub fn ticket(&self) -> Result<String, Status> {
        let request = GuestLinkServiceCreateTicketRequest::default();
        let answer =
            self.call(|wire| async { GuestLinkServiceClient::new(wire).create_ticket(request).await });
        answer.map(|answer| answer.into_inner().ticket)
    }

    /// Opens the console's WebSocket, and says nothing yet.
    pub fn viewer(&self) -> anyhow::Result<Viewer> {
        let runtime = runtime()?;
        let connect = Connect::new(self.url.parse()?, Trust::Pinned(self.fingerprint.parse()?), DEADLINE);
        let path = format!("{PATH}?{LINK_QUERY}={}", self.link);
        let ask = Ask { path: &path, subprotocol: SUBPROTOCOL, max_message: MAX_MESSAGE, silence: SILENCE };
        let headers = self.headers().context("headers")?;
        let opened = runtime.block_on(connect.websocket_with(ask, headers))?;
        Viewer::on(runtime, opened)
    }

    /// At the console.
    pub fn at_console(&self) -> anyhow::Result<Viewer> {
        self.viewer()?.with(&self.ticket()?)
    }

    /// As `curl` takes them.
    #[must_use]
    pub fn header_lines(&self) -> Vec<String> {
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        vec![
            format!("Origin: {}", self.origin),
            format!("Cookie: {}", cookies.join("; ")),
            format!("{LINK_HEADER}: {}", self.link),
        ]
    }

    fn headers(&self) -> anyhow::Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        for line in self.header_lines() {
            let (name, value) = line.split_once(": ").context("a header")?;
            if !value.is_empty() {
                let name = HeaderName::try_from(name.to_ascii_lowercase())?;
                headers.insert(name, HeaderValue::try_from(value)?);
            }
        }
        Ok(headers)
    }

    /// One RPC.
    fn call<T, F>(&self, rpc: impl FnOnce(WebWire) -> F) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let runtime = runtime().map_err(|error| Status::unavailable(error.to_string()))?;
        runtime.block_on(async {
            let wire = self.wire().await.map_err(|error| Status::unavailable(format!("{error:#}")))?;
            let answer = tokio::time::timeout(DEADLINE, rpc(wire)).await;
            answer.map_err(|_| Status::deadline_exceeded("no answer"))?
        })
    }

    async fn wire(&self) -> anyhow::Result<WebWire> {
        let trust = Trust::Pinned(self.fingerprint.parse()?);
        let channel = Connect::new(self.url.parse()?, trust, DEADLINE).channel().await?;
        let unwrap: Unwrap = |request| request.map(Body::new);
        let web = GrpcWebClientService::new(MapRequest::new(channel, unwrap));
        Ok(InterceptedService::new(web, Headers(self.headers()?)))
    }
}
