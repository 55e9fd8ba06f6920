//! What two Horcrux programs must agree on: the contract's types, names of things, the metric catalogue and how rates
//! are computed. Nothing here does I/O.
#![forbid(unsafe_code)]

pub mod authz;
pub mod catalogue;
pub mod console;
pub mod encoded;
pub mod gathered;
pub mod name;
pub mod packed;
pub mod parts;
pub mod rates;
pub mod rfb;
mod state;

/// The public API, generated from `horcrux/v1/*.proto`.
#[allow(
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::wildcard_enum_match_arm,
    reason = "generated"
)]
pub mod v1 {
    tonic::include_proto!("horcrux.v1");
}

/// What agents and controllers say to each other, generated from `horcrux/agent/v1/*.proto`.
#[allow(
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::wildcard_enum_match_arm,
    reason = "generated"
)]
pub mod agent {
    pub mod v1 {
        tonic::include_proto!("horcrux.agent.v1");
    }
}

/// The contract as an encoded `FileDescriptorSet`, options and comments included: for reflection and for tests.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/horcrux.bin"));
