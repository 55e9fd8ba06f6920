//! What the agent and `horcrux-privd` say to each other, and the agent's side of it.
//!
//! A container runtime's socket is as good as root: who can ask for a list there can start a container that has the host's
//! files. The agent has no privilege and talks to the network, so it opens none. `horcrux-privd` opens them, has no
//! network, and puts one request to each, which changes nothing; the agent can't say which socket or what request.
//!
//! Nothing of the runtimes is in this library.
#![forbid(unsafe_code)]

mod client;
pub mod frame;

pub use client::{AskError, containers};

/// The messages, generated from `horcrux/privd/v1/privd.proto`.
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
