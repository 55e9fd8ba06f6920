//! Consoles: what lets a person in, and what passes between a viewer and a VM.

pub mod rfb;
pub mod ticket;
