//! The controller.
#![forbid(unsafe_code)]

pub mod access;
pub mod config;
pub mod files;
pub mod fleet;
pub mod store;
