//! `horcruxctl`: the controller from a terminal.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "data goes to standard output; this is a command")]

use std::process::ExitCode;

use clap::Parser as _;

mod args;
mod commands;
mod contexts;
mod exit;
mod fleet;
mod prompt;
mod session;
mod view;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&anyhow::Error::new(error).context("start")),
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
