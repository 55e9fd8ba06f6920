//! Reads the command line, runs it, says how it ended.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use horcruxctl::args::Cli;
use horcruxctl::exit::Exit;

fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(horcruxctl::agent::joined(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. Where stdout and stderr are closed, the code is all there is.
            drop(error.print());
            return if error.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "error: start: {error}"));
            return Exit::Failed.into();
        }
    };
    let ended = runtime.block_on(horcruxctl::run(cli));
    // A read of the keyboard, or a write to a pipe that nobody reads, would be waited for otherwise.
    runtime.shutdown_background();
    match ended {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            drop(writeln!(std::io::stderr(), "{}", failure.report()));
            failure.exit().into()
        }
    }
}
