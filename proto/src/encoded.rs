//! Answers that are encoded before they reach the RPC layer, so that a message for a hundred watchers is encoded once.
//! The server here speaks the same wire format as the generated one.

use std::marker::PhantomData;

use bytes::{BufMut as _, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};

pub use generated::watch_service_server::{WatchService, WatchServiceServer};

#[allow(
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::wildcard_enum_match_arm,
    reason = "generated"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/horcrux.v1.WatchService.rs"));
}

/// Decodes requests as usual and sends answers as they are.
#[derive(Debug)]
pub struct EncodedCodec<T, U> {
    request: PhantomData<(T, U)>,
}

#[derive(Debug)]
pub struct PassThrough;

impl<T, U> Default for EncodedCodec<T, U> {
    fn default() -> Self {
        Self { request: PhantomData }
    }
}

impl<U: Message + Default + Send + 'static> Codec for EncodedCodec<Bytes, U> {
    type Encode = Bytes;
    type Decode = U;
    type Encoder = PassThrough;
    type Decoder = tonic_prost::ProstDecoder<U>;

    fn encoder(&mut self) -> PassThrough {
        PassThrough
    }

    fn decoder(&mut self) -> Self::Decoder {
        tonic_prost::ProstDecoder::new(BufferSettings::default())
    }
}

impl Encoder for PassThrough {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}
