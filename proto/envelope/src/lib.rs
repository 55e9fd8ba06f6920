//! Orders to a node: a controller signs them, and the node's `horcrux-privd` carries out those that it can open.
//!
//! [`Signer`] makes a [`v1::SignedEnvelope`] of a [`v1::Envelope`]; [`open`] makes an [`Order`] of it again, for who has the
//! signer's [`PublicKey`]. What is signed is a prefix that no other protocol uses, and then the envelope's bytes as they
//! are. So that nothing is made of bytes that nobody vouches for, they are decoded after the signature was found good, and
//! there is one encoding of an order: what a decoder would skip or overwrite is refused.
//!
//! An [`Order`] is well formed, and that is all that is known of it. Whether it is for this node and this moment, was
//! carried out before and is allowed is the node's to say.
#![forbid(unsafe_code)]

mod key;
mod open;
mod order;

pub use self::key::{InvalidKey, KeyId, PublicKey, Signer};
pub use self::open::{EnvelopeError, MAX_ENVELOPE, open};
pub use self::order::{
    ConsoleId, ConsoleKind, ConsoleOpen, Id, InvalidField, LIFETIME_MS, MAX_ACTOR, Operation, Order,
    Rendezvous,
};

/// The messages, generated from `horcrux/privd/v1/envelope.proto`.
#[allow(
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::wildcard_enum_match_arm,
    reason = "generated"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/horcrux.privd.v1.rs"));
}
