//! How a program with a privilege answers another program of its host, and how it is asked: the socket, who may ask, how
//! many at once, and until when.
//!
//! `horcrux-pamd` and `horcrux-privd` are made of it. Nothing here is asynchronous and nothing knows TLS or gRPC: what a
//! privileged program is made of stays small.
#![deny(unsafe_code)]

pub mod clock;
pub mod connection;
pub mod listener;
pub mod log;
pub mod options;
pub mod server;

mod sys;

pub use self::sys::accounts;
