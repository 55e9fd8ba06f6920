//! What the agent and `horcrux-privd` say to each other, the agent's side of it, and the files by which a host is told what
//! a controller may do there.
//!
//! A container runtime's socket is as good as root: who can ask for a list there can start a container that has the host's
//! files. The agent has no privilege and talks to the network, so it opens none. `horcrux-privd` opens them, has no
//! network, and puts one request to each, which changes nothing; the agent can't say which socket or what request.
//!
//! What changes something is an order: a controller has signed it, the agent passes it on as it came, and privd carries it
//! out where it is for this node and this moment, and the node's own policy allows it.
//!
//! Nothing of the runtimes or of libvirt is in this library.
#![forbid(unsafe_code)]

mod client;
pub mod packets;
pub mod settings;

pub use client::{AskError, OpenedConsole, Pending, Settled, Submitted, containers, policy, submit};

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
