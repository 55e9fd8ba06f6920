//! From bytes that somebody sent to an order that a controller gave.

use prost::Message as _;

use crate::key::{KeyId, PublicKey};
use crate::order::{InvalidField, Order};
use crate::v1::{Envelope, SignedEnvelope};

/// The longest envelope, in bytes: what it names has bounds far below.
pub const MAX_ENVELOPE: usize = 4096;

/// Why an envelope is no order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("an envelope of {0} bytes is longer than it may be")]
    TooLong(usize),
    #[error("its signer's key is not one of this node")]
    UnknownKey,
    #[error("its signature by key {0} is wrong")]
    Signature(KeyId),
    #[error("decode it")]
    Decode(#[source] prost::DecodeError),
    /// Of a newer controller, or not encoded as a controller does.
    #[error("it holds what this version doesn't know")]
    Unknown,
    #[error("it makes no sense")]
    Field(#[source] InvalidField),
}

/// What it says, where one of `keys` has signed it.
pub fn open(signed: &SignedEnvelope, keys: &[PublicKey]) -> Result<Order, EnvelopeError> {
    let bytes = &signed.envelope;
    if bytes.len() > MAX_ENVELOPE {
        return Err(EnvelopeError::TooLong(bytes.len()));
    }
    let key = keys.iter().find(|key| key.id().as_bytes().as_slice() == signed.key_id);
    let key = key.ok_or(EnvelopeError::UnknownKey)?;
    if !key.has_signed(bytes, &signed.signature) {
        return Err(EnvelopeError::Signature(key.id()));
    }
    let envelope = Envelope::decode(bytes.as_slice()).map_err(EnvelopeError::Decode)?;
    if envelope.encode_to_vec() != *bytes {
        return Err(EnvelopeError::Unknown);
    }
    Order::new(key.id(), envelope).map_err(EnvelopeError::Field)
}

#[cfg(test)]
mod tests;
