//! The node side: reads the machine, and passes on what it read.

pub mod collect;
pub mod config;
pub mod enroll;
pub mod host;
pub mod identity;
pub mod link;
pub mod local;
mod orders;
pub mod present;
pub mod print;
pub mod sample;
pub mod spool;
