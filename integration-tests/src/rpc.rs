//! Any RPC of the contract by its name, with requests and answers as JSON: what tests use that go through all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use horcrux_proto::DESCRIPTORS;
use horcrux_transport::client::{Connect, Target, Trust};
use prost::bytes::{Buf as _, BufMut as _};
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::Controller;

const DEADLINE: Duration = Duration::from_secs(20);
/// More than any stream sends before it has said what there is.
const FIRST_MESSAGES: usize = 20;

/// The contract.
#[must_use]
pub fn contract() -> DescriptorPool {
    DescriptorPool::decode(DESCRIPTORS).unwrap_or_default()
}

/// All methods of the contract, as `/package.Service/Method`.
#[must_use]
pub fn methods() -> Vec<(String, MethodDescriptor)> {
    let pool = contract();
    let services = pool.services().filter(|s| s.full_name().starts_with("horcrux."));
    let of = |s: prost_reflect::ServiceDescriptor| {
        let service = s.full_name().to_owned();
        s.methods().map(move |m| (format!("/{service}/{}", m.name()), m)).collect::<Vec<_>>()
    };
    services.flat_map(of).collect()
}

/// A caller.
#[derive(Clone, Debug)]
pub struct Rpc {
    channel: Channel,
    bearer: Option<String>,
    methods: Arc<BTreeMap<String, MethodDescriptor>>,
}

impl Rpc {
    /// On a controller's public port, nobody yet.
    pub async fn to(controller: &Controller) -> anyhow::Result<Self> {
        let target: Target = controller.url().parse()?;
        let pin = controller.fingerprint()?.trim().parse()?;
        let channel = Connect::new(target, Trust::Pinned(pin), DEADLINE).channel().await?;
        Ok(Self::on(channel))
    }

    #[must_use]
    pub fn on(channel: Channel) -> Self {
        Self { channel, bearer: None, methods: Arc::new(methods().into_iter().collect()) }
    }

    /// The same on another connection.
    #[must_use]
    pub fn over(&self, channel: Channel) -> Self {
        Self { channel, ..self.clone() }
    }

    #[must_use]
    pub fn with(&self, bearer: &str) -> Self {
        Self { bearer: Some(bearer.to_owned()), ..self.clone() }
    }

    /// Signs a local user in.
    pub async fn signed_in(&self, user: &str, password: &str) -> anyhow::Result<Self> {
        let request = serde_json::json!({"username": user, "password": password});
        let answer = self.ask("/horcrux.v1.AuthService/SignIn", &request).await?;
        let token = answer["tokens"]["accessToken"].as_str().context("a session comes with tokens")?;
        Ok(self.with(token))
    }

    /// The answer as JSON; of a stream what it says first, up to a whole snapshot.
    pub async fn ask(&self, method: &str, request: &Value) -> Result<Value, Status> {
        let asked = tokio::time::timeout(DEADLINE, self.asked(method, request)).await;
        asked.map_err(|_| Status::deadline_exceeded("no answer came"))?
    }

    async fn prepare(&self, method: &str, request: &Value) -> Result<Prepared, Status> {
        let descriptor = self.methods.get(method).ok_or_else(|| wrong(&format!("no method {method}")))?;
        let message =
            DynamicMessage::deserialize(descriptor.input(), request.clone()).map_err(|e| wrong(&e))?;
        let bytes = prost::Message::encode_to_vec(&message);
        let mut request = Request::new(bytes);
        if let Some(bearer) = &self.bearer {
            let value = format!("Bearer {bearer}").parse().map_err(|_| wrong(&"a bearer"))?;
            request.metadata_mut().insert("authorization", value);
        }
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = method.parse().map_err(|_| wrong(&"a path"))?;
        Ok(Prepared { grpc, request, path, method: descriptor.clone() })
    }

    async fn asked(&self, method: &str, request: &Value) -> Result<Value, Status> {
        let Prepared { mut grpc, request, path, method } = self.prepare(method, request).await?;
        if !method.is_server_streaming() {
            return read(&method, &grpc.unary(request, path, Raw).await?.into_inner());
        }
        let mut stream = grpc.server_streaming(request, path, Raw).await?.into_inner();
        let mut said = Vec::new();
        while said.len() < FIRST_MESSAGES {
            let Some(bytes) = stream.message().await? else { break };
            let message = read(&method, &bytes)?;
            let is_whole = message["snapshot"]["complete"] == true || message.get("hello").is_none();
            said.push(message);
            if is_whole {
                break;
            }
        }
        Ok(Value::Array(said))
    }

    /// As [`Rpc::ask`] of what isn't a stream, with the request itself held back until `release`.
    pub async fn ask_late(
        &self,
        method: &str,
        request: &Value,
        release: oneshot::Receiver<()>,
    ) -> Result<Value, Status> {
        let Prepared { mut grpc, request, path, method } = self.prepare(method, request).await?;
        let (metadata, _, bytes) = request.into_parts();
        let (body, late) = mpsc::channel(1);
        let mut request = Request::new(ReceiverStream::new(late));
        *request.metadata_mut() = metadata;
        let send = async move {
            // Let go of, it is sent too.
            release.await.ok();
            body.send(bytes).await
        };
        let asked = async { tokio::join!(send, grpc.client_streaming(request, path, Raw)).1 };
        let asked = tokio::time::timeout(DEADLINE, asked).await;
        let answer = asked.map_err(|_| Status::deadline_exceeded("no answer came"))??;
        read(&method, &answer.into_inner())
    }

    /// As [`Rpc::ask`], where anything but an answer is a mistake of the test.
    pub async fn must(&self, method: &str, request: Value) -> anyhow::Result<Value> {
        match self.ask(method, &request).await {
            Ok(answer) => Ok(answer),
            Err(status) => bail!("{method} {request}: {:?} {}", status.code(), status.message()),
        }
    }
}

/// A request that is about to be sent.
struct Prepared {
    grpc: Grpc<Channel>,
    request: Request<Vec<u8>>,
    path: PathAndQuery,
    method: MethodDescriptor,
}

fn read(method: &MethodDescriptor, bytes: &[u8]) -> Result<Value, Status> {
    let answer = DynamicMessage::decode(method.output(), bytes).map_err(|e| wrong(&e))?;
    serde_json::to_value(&answer).map_err(|e| wrong(&e))
}

fn wrong(error: &dyn std::fmt::Display) -> Status {
    Status::internal(format!("the test is wrong: {error}"))
}

/// A code in a word.
#[must_use]
pub fn word(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Unauthenticated => "unauth",
        Code::PermissionDenied => "denied",
        Code::NotFound => "absent",
        Code::InvalidArgument => "invalid",
        Code::FailedPrecondition => "precond",
        Code::AlreadyExists => "exists",
        Code::Unimplemented => "unimpl",
        Code::Unavailable => "unavail",
        Code::ResourceExhausted => "exhaust",
        Code::Internal => "INTERNAL",
        Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::DataLoss => "OTHER",
    }
}

/// Messages as they are on the wire.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}
