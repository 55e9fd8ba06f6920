//! Enrolled nodes: how they get an identity, and the streams that they hold.

pub mod attach;
pub mod ca;
pub mod enrollment;
pub mod orders;
pub mod pace;
mod resync;
pub mod said;
pub mod streams;
