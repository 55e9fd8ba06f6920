//! Logs of a daemon: on stderr, one line each, level by `HORCRUX_LOG` (`info` when unset).

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Starts logging. Once, from `main`.
pub fn init() {
    let mut filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("HORCRUX_LOG")
        .from_env_lossy();
    // Below that it writes out messages, and the first of a console's is its ticket.
    if let Ok(quiet) = "tungstenite=info".parse() {
        filter = filter.add_directive(quiet);
    }
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}
