//! The codec of all that is generated: protobuf, as tonic has it, but what is ready goes out together. tonic sends after 32 KiB,
//! which makes a frame and a write of each piece of a console.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// What a stream's buffer holds at its beginning: tonic's own default.
const BUFFER: usize = 8 << 10;
/// With this much ready, it is sent: three of a console's longest messages are less, four are more.
const ENOUGH: usize = 200 << 10;

#[derive(Clone, Debug)]
pub struct GatheredCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for GatheredCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for GatheredCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER, ENOUGH))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::default())
    }
}
