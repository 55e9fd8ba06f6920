//! The node side: reads the machine, and passes on what it read.

pub mod host;
pub mod sample;
