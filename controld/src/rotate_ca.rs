//! `horcrux-controld rotate-ca`: replaces the certificate authority, in two steps with a day or more between them.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use horcrux_controld::access::audit::{Audit, Entry};
use horcrux_controld::config::Config;
use horcrux_controld::fleet::ca::{Authority, rotation};
use horcrux_controld::store::Store;
use horcrux_controld::store::nodes::NodeRow;
use horcrux_transport::clock;

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Step {
    /// Make a new authority: nodes get certificates of it when they renew, and trust both until `finish`
    Start,
    /// Print how far it is, and which nodes have a certificate of the old authority
    Status,
    /// Let the new authority take the old one's place; refused while a node has a certificate of the old one
    Finish {
        /// Shut those nodes out: each must be enrolled again
        #[arg(long)]
        force: bool,
    },
}

/// As many names as a person reads in one line.
const NAMES: usize = 20;

pub(crate) async fn run(config: &Config, step: Step) -> anyhow::Result<()> {
    let dir = &config.state_dir;
    let store = Store::open(dir).await?;
    let nodes = store.nodes().await?;
    let authority = Authority::open(dir, !nodes.is_empty())?;
    let behind = rotation::behind(&authority, &nodes);
    match step {
        Step::Status => {
            let text = status(&authority, &nodes, &behind)?;
            return std::io::stdout().write_all(text.as_bytes()).context("print");
        }
        Step::Start => {
            if authority.is_rotating() {
                bail!("a new authority is there already: see `horcrux-controld rotate-ca status`");
            }
            record(config, &store, "start").await?;
            rotation::start(dir)?;
            tracing::info!("new authority made");
            tracing::info!(
                "restart horcrux-controld: from then on nodes get certificates of the new authority when they renew, within a day for those that are up. Then run `rotate-ca finish`"
            );
        }
        Step::Finish { force } => {
            if !authority.is_rotating() {
                bail!("no authority is being replaced: begin with `horcrux-controld rotate-ca start`");
            }
            if !behind.is_empty() && !force {
                bail!(
                    "{} of {} nodes have a certificate of the old authority, and would be shut out: {}. Wait until they have renewed, or pass --force and enroll them again",
                    behind.len(),
                    nodes.len(),
                    names(&behind)
                );
            }
            record(config, &store, if force { "finish --force" } else { "finish" }).await?;
            rotation::finish(dir)?;
            let pin = Authority::open(dir, true)?.pin()?;
            tracing::info!(fingerprint = %pin, "the new authority is the only one");
            if !behind.is_empty() {
                tracing::warn!(nodes = names(&behind), "shut out: enroll these nodes again");
            }
            tracing::info!(
                "restart horcrux-controld: from then on it shows certificates of the new authority. Join tokens that were made before are worth nothing, and people's clients ask for the new fingerprint"
            );
        }
    }
    Ok(())
}

fn status(authority: &Authority, nodes: &[NodeRow], behind: &[&NodeRow]) -> anyhow::Result<String> {
    let mut text = format!("fingerprint  {}\n", authority.pin()?);
    if !authority.is_rotating() {
        text.push_str("one authority: none is being replaced\n");
        return Ok(text);
    }
    writeln!(
        text,
        "two authorities: {} of {} nodes have a certificate of the old one",
        behind.len(),
        nodes.len()
    )?;
    for node in behind {
        let ended = if node.expires_ms <= clock::unix_ms() { "  ended: enroll it again" } else { "" };
        writeln!(text, "  {}{ended}", node.name)?;
    }
    let next = if behind.is_empty() { "run `rotate-ca finish`" } else { "wait until they have renewed" };
    writeln!(text, "next: {next}")?;
    Ok(text)
}

fn names(nodes: &[&NodeRow]) -> String {
    let mut text = nodes.iter().take(NAMES).map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ");
    if nodes.len() > NAMES {
        text.push_str(", …");
    }
    text
}

async fn record(config: &Config, store: &Store, step: &str) -> anyhow::Result<()> {
    let (audit, _scribe) = Audit::open(store.clone(), &config.state_dir, None).await?;
    let entry = Entry {
        actor: "controller".to_owned(),
        rpc: "rotate-ca".to_owned(),
        detail: format!("{step}, on the controller's host"),
        ..Entry::default()
    };
    audit.event(&entry, "ok").await?;
    Ok(())
}
