//! What each command does.

use std::io::Write as _;

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::args::{Cli, Command, Context};
use crate::contexts::Home;

mod account;
mod objects;
mod watch;

/// Runs one command.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<()> {
    let home = Home::find()?;
    let (context, output) = (cli.context.as_deref(), cli.output);
    match cli.command {
        Command::Setup(setup) => account::setup(&home, context, &setup).await,
        Command::Login(login) => account::login(&home, context, &login).await,
        Command::Logout => account::logout(&home, context).await,
        Command::Whoami => account::whoami(&home, context, output).await,
        Command::Context(command) => contexts(&home, &command),
        Command::Node(command) => objects::node(&home, context, output, command).await,
        Command::Vm(command) => objects::vm(&home, context, output, command).await,
        Command::Container(command) => objects::container(&home, context, output, command).await,
        Command::Watch(watch) => watch::watch(&home, context, output, watch).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "horcruxctl", &mut std::io::stdout());
            Ok(())
        }
    }
}

/// Data, to standard output. A reader that left (`| head`) is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("print"),
        _ => Ok(()),
    }
}

fn contexts(home: &Home, command: &Context) -> anyhow::Result<()> {
    let mut contexts = home.contexts()?;
    match command {
        Context::List => {
            for (name, entry) in &contexts.context {
                let mark = if contexts.current.as_deref() == Some(name) { "*" } else { " " };
                print(&format!("{mark} {name}  {}  {}\n", entry.url, entry.user))?;
            }
            Ok(())
        }
        Context::Use { name } => {
            let known = contexts.context.contains_key(name);
            contexts.current =
                Some(known.then(|| name.clone()).with_context(|| format!("no context {name}"))?);
            home.save(&contexts)
        }
        Context::Remove { name } => {
            contexts.context.remove(name).with_context(|| format!("no context {name}"))?;
            contexts.current = contexts.current.filter(|current| current != name);
            home.forget_tokens(name)?;
            home.save(&contexts)
        }
    }
}
