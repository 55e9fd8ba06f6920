//! A WebSocket of ours to a controller, over the same trust as everything else that is sent to it.
//!
//! Messages are bounded in both directions. Pings are answered while [`Receiver::next`] is asked for more; a peer that is
//! silent for too long, pings included, is lost.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt as _;
use futures_util::stream::{SplitSink, SplitStream, StreamExt as _};
use http::{HeaderMap, HeaderValue, Request, header};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error as Broken;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};

use crate::client::{Connect, ConnectError, handshake};
use crate::secret::Secret;

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub path: &'a str,
    pub subprotocol: &'static str,
    /// Of one message, in either direction.
    pub max_message: usize,
    /// How long the peer may say nothing at all.
    pub silence: Duration,
}

pub struct Sender(SplitSink<Stream, Message>);

pub struct Receiver {
    stream: SplitStream<Stream>,
    silence: Duration,
}

type Stream = WebSocketStream<TlsStream<TcpStream>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Bytes(Bytes),
    Text(String),
    /// The peer ended it, and says how.
    Closed {
        code: u16,
        reason: String,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum WebSocketError {
    #[error("the connection broke")]
    Broken(#[source] Box<Broken>),
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    /// It was closed already.
    #[error("the connection ended")]
    Ended,
}

/// A close frame that gives no code (RFC 6455, 7.1.5).
const NO_CODE: u16 = 1005;
/// The viewer leaves (RFC 6455, 7.4.1).
const LEAVES: CloseCode = CloseCode::Normal;

impl Connect {
    /// Opens a WebSocket as whoever `bearer` belongs to. There is no Origin: this is no page.
    pub async fn websocket(&self, ask: Ask<'_>, bearer: &Secret) -> Result<(Sender, Receiver), ConnectError> {
        let bearer = HeaderValue::from_str(&format!("Bearer {}", bearer.expose()));
        let mut bearer = bearer.map_err(|_| self.no_address())?;
        bearer.set_sensitive(true);
        self.websocket_with(ask, HeaderMap::from_iter([(header::AUTHORIZATION, bearer)])).await
    }

    /// Opens a WebSocket as whoever these headers say.
    pub async fn websocket_with(
        &self,
        ask: Ask<'_>,
        whose: HeaderMap,
    ) -> Result<(Sender, Receiver), ConnectError> {
        let mut config = self.config().map_err(ConnectError::Certificate)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let request = self.upgrade(ask, whose).ok_or_else(|| self.no_address())?;
        let tls = handshake(&self.target, self.server_name, &Arc::new(config), self.deadline).await?;
        let limits = WebSocketConfig::default()
            .max_message_size(Some(ask.max_message))
            .max_frame_size(Some(ask.max_message));
        let opened = tokio_tungstenite::client_async_with_config(request, tls, Some(limits));
        let (stream, _) = match tokio::time::timeout(self.deadline, opened).await {
            Ok(opened) => opened.map_err(|error| self.refused(error))?,
            Err(_) => {
                return Err(ConnectError::Deadline { target: self.target.clone(), deadline: self.deadline });
            }
        };
        let (sink, stream) = stream.split();
        Ok((Sender(sink), Receiver { stream, silence: ask.silence }))
    }

    fn upgrade(&self, ask: Ask<'_>, whose: HeaderMap) -> Option<Request<()>> {
        let address = self.target.to_string();
        let host = address.strip_prefix("https://")?;
        let request = Request::get(format!("wss://{host}{}", ask.path))
            .header(header::HOST, host)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, generate_key())
            .header(header::SEC_WEBSOCKET_PROTOCOL, ask.subprotocol);
        let named = self.user_agent.map(|name| (header::USER_AGENT, name));
        let request = named.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let mut request = request.body(()).ok()?;
        request.headers_mut().extend(whose);
        Some(request)
    }

    fn no_address(&self) -> ConnectError {
        ConnectError::Target(self.target.to_string())
    }

    fn refused(&self, error: Broken) -> ConnectError {
        let target = self.target.clone();
        if let Broken::Http(answer) = &error {
            return ConnectError::NotUpgraded { target, status: answer.status() };
        }
        ConnectError::WebSocket { target, source: Box::new(error) }
    }
}

impl Sender {
    pub async fn bytes(&mut self, bytes: Bytes) -> Result<(), WebSocketError> {
        self.send(Message::Binary(bytes)).await
    }

    pub async fn text(&mut self, text: &str) -> Result<(), WebSocketError> {
        self.send(Message::Text(text.into())).await
    }

    /// Says that we leave.
    pub async fn close(mut self) -> Result<(), WebSocketError> {
        self.send(Message::Close(Some(CloseFrame { code: LEAVES, reason: "".into() }))).await
    }

    async fn send(&mut self, message: Message) -> Result<(), WebSocketError> {
        self.0.send(message).await.map_err(broken)
    }
}

impl Receiver {
    pub async fn next(&mut self) -> Result<Heard, WebSocketError> {
        loop {
            let next = tokio::time::timeout(self.silence, self.stream.next());
            let message = next.await.map_err(|_| WebSocketError::Silent(self.silence))?;
            match message.ok_or(WebSocketError::Ended)?.map_err(broken)? {
                Message::Binary(bytes) => return Ok(Heard::Bytes(bytes)),
                Message::Text(text) => return Ok(Heard::Text(text.as_str().to_owned())),
                Message::Close(Some(CloseFrame { code, reason })) => {
                    return Ok(Heard::Closed { code: code.into(), reason: reason.as_str().to_owned() });
                }
                Message::Close(None) => return Ok(Heard::Closed { code: NO_CODE, reason: String::new() }),
                // Pongs are sent by the library.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }
}

fn broken(error: Broken) -> WebSocketError {
    if matches!(error, Broken::ConnectionClosed | Broken::AlreadyClosed) {
        WebSocketError::Ended
    } else {
        WebSocketError::Broken(Box::new(error))
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver")
    }
}
