//! The controller: accepts agents and people, knows the present and the last hour, decides who sees what.
#![forbid(unsafe_code)]

pub mod access;
pub mod app;
pub mod config;
pub mod console;
pub mod daemon;
pub mod edge;
pub mod fleet;
pub mod live;
pub mod recording;
pub mod store;
