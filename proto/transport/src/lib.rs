//! How Horcrux programs reach each other: TLS, channels, the accept loop, deadlines, who owns a task, and how an error
//! is told. `rustls` is named here and nowhere else.
#![forbid(unsafe_code)]

mod ahead;
pub mod backoff;
pub mod client;
pub mod clock;
pub mod error;
pub mod files;
pub mod https;
pub mod log;
pub mod plain;
pub mod secret;
pub mod server;
pub mod settings;
pub mod signal;
pub mod socket;
pub mod source;
pub mod tasks;
pub mod tls;
pub mod websocket;
