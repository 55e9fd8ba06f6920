//! Real daemons on this machine, one test at a time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod api_tokens;
mod audit;
mod bad_input;
mod browser;
mod clients;
mod contract;
mod dependencies;
mod enrollment;
mod escalation;
mod existence;
mod explain;
mod lab;
mod live;
mod node_identity;
mod recovery;
mod refiltering;
mod revocation;
mod scene;
mod secrets;
