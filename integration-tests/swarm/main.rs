//! Simulated agents and watching clients, to see what a controller costs and how late its watchers learn things.
//!
//! The agents speak with the real link of the agent, over real mTLS and after a real enrollment; what they say is made
//! up, and every value of it says so: its source is `simulated`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

mod latency;
mod node;
mod person;
mod process;
mod sign_ins;
mod values;
mod watcher;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Parser, ValueEnum};
use horcrux_agentd::enroll::{self, Existing, JoinToken};
use horcrux_proto::v1::node_service_client::NodeServiceClient;
use horcrux_proto::v1::{CreateJoinTokenRequest, NodeServiceListRequest, NodeState};
use horcrux_transport::client::{Connect, Pin, Target, Trust};
use horcrux_transport::clock;
use horcrux_transport::tls::CONTROLLER_NAME;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::latency::Latencies;
use crate::node::Size;
use crate::person::Person;
use crate::process::Usage;

/// Simulated nodes and watchers against a controller
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// The controller's address for people
    #[arg(long)]
    controller: Target,
    /// SHA-256 of its authority's public key: the file `ca-fingerprint` of its state
    #[arg(long)]
    fingerprint: Pin,
    #[arg(long, default_value = "admin")]
    user: String,
    #[arg(long)]
    password_file: PathBuf,
    #[arg(long, default_value_t = 10)]
    nodes: usize,
    /// Per node
    #[arg(long, default_value_t = 50)]
    vms: usize,
    /// Per node
    #[arg(long, default_value_t = 5)]
    containers: usize,
    #[arg(long, default_value_t = 10)]
    watchers: usize,
    /// Times faster than agents read by default: more than a host says, to see what is the most that can be taken in
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=50))]
    faster: u32,
    /// Measure something else: what so many sign-ins at a time do to other calls
    #[arg(long, conflicts_with_all = ["nodes", "watchers"])]
    sign_ins: Option<usize>,
    /// How long is measured, once all nodes are there
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// The controller's process, to tell what it costs
    #[arg(long)]
    controller_pid: Option<u32>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

const DEADLINE: Duration = Duration::from_secs(15);
/// For all nodes to be seen by the controller.
const ATTACH: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Enrollments at once: more only wait for the controller's disk.
const AT_ONCE: usize = 8;

fn main() -> ExitCode {
    let cli = Cli::parse();
    horcrux_transport::log::init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.context("start").and_then(|runtime| runtime.block_on(run(&cli))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> anyhow::Result<()> {
    let password = std::fs::read_to_string(&cli.password_file).context("read the password")?;
    let connect = Connect {
        server_name: Some(CONTROLLER_NAME),
        ..Connect::new(cli.controller.clone(), Trust::Pinned(cli.fingerprint), DEADLINE)
    };
    let password = password.trim_end().to_owned().into();
    let person = Person::sign_in(connect, &cli.user, password).await.context("sign in")?;
    if let Some(crowd) = cli.sign_ins {
        println!("{}", sign_ins::measure(&person, crowd, cli.seconds).await?);
        return Ok(());
    }
    let states = tempfile::tempdir()?;
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let size = Size { vms: cli.vms, containers: cli.containers };
    let nodes = enroll_all(cli, &person, states.path()).await?;
    let sent = node::start(nodes, size, cli.faster, &mut tasks, &stop);
    all_connected(cli, &person).await?;
    let latencies = Arc::new(Latencies::default());
    for stream in watcher::open_all(&person, cli.watchers).await? {
        tasks.spawn(watcher::follow(stream, Arc::clone(&latencies), stop.clone()));
    }
    // Snapshots and first batches are not the steady state.
    tokio::time::sleep(Duration::from_secs(6)).await;
    latencies.start_over();
    let before = Usage::of(cli.controller_pid)?;
    let own_before = Usage::of(Some(std::process::id()))?;
    let sent_before = sent.load(Ordering::Relaxed);
    let began = clock::monotonic();
    tokio::time::sleep(Duration::from_secs(cli.seconds)).await;
    let window = clock::monotonic() - began;
    let report = latencies.report();
    let cost = Usage::of(cli.controller_pid)?.zip(before).map(|(after, before)| after.since(&before, window));
    let own = Usage::of(Some(std::process::id()))?.zip(own_before).map(|(a, b)| a.since(&b, window));
    let sent = sent.load(Ordering::Relaxed) - sent_before;
    let connected = connected(&person).await?;
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task")?.context("a part of the swarm")?;
    }
    let figures = json!({
        "nodes": cli.nodes, "vms_per_node": cli.vms, "containers_per_node": cli.containers,
        "watchers": cli.watchers, "seconds": window.as_secs_f64(), "connected": connected,
        "latency_ms": { "p50": report.p50_ms, "p90": report.p90_ms, "p99": report.p99_ms, "max": report.max_ms },
        "values": report.values, "messages": report.messages, "bytes": report.bytes, "gaps": report.gaps,
        "silent_watchers": cli.watchers.saturating_sub(report.heard),
        "sent_values": sent,
        "sent_values_per_cpu_second": cost.as_ref().and_then(|cost| cost.of_each_second(sent)),
        "controller": cost, "swarm": own,
    });
    match cli.output {
        Output::Json => println!("{figures}"),
        Output::Table => println!("{}", table(&figures)),
    }
    if connected < cli.nodes || report.heard < cli.watchers {
        bail!(
            "{connected} of {} nodes were connected, {} of {} watchers heard",
            cli.nodes,
            report.heard,
            cli.watchers
        );
    }
    Ok(())
}

/// One line for each figure.
fn table(figures: &serde_json::Value) -> String {
    let Some(all) = figures.as_object() else { return String::new() };
    let lines: Vec<String> = all.iter().map(|(name, value)| format!("{name:<20} {value}")).collect();
    lines.join("\n")
}

async fn enroll_all(cli: &Cli, person: &Person, states: &std::path::Path) -> anyhow::Result<Vec<PathBuf>> {
    let channel = person.channel().await?;
    let mut under_way = JoinSet::new();
    let mut enrolled = Vec::with_capacity(cli.nodes);
    for number in 0..cli.nodes {
        let name = format!("swarm-{number:04}");
        let request = CreateJoinTokenRequest { node_name: name.clone(), ..CreateJoinTokenRequest::default() };
        let mut client = NodeServiceClient::new(channel.clone());
        let token = client.create_join_token(person.asks(request)).await?.into_inner().token;
        let (controller, dir) = (cli.controller.clone(), states.join(&name));
        under_way.spawn(async move {
            let token = JoinToken::parse(&token)?;
            enroll::enroll(Some(controller), &token, &name, &dir, Existing::Keep).await?;
            anyhow::Ok(dir)
        });
        if under_way.len() >= AT_ONCE
            && let Some(done) = under_way.join_next().await
        {
            enrolled.push(done??);
        }
    }
    while let Some(done) = under_way.join_next().await {
        enrolled.push(done??);
    }
    enrolled.sort();
    Ok(enrolled)
}

async fn connected(person: &Person) -> anyhow::Result<usize> {
    let request = person.asks(NodeServiceListRequest::default());
    let nodes = NodeServiceClient::new(person.channel().await?).list(request).await?.into_inner().nodes;
    let is_ours = |name: &str| name.starts_with("nodes/swarm-");
    Ok(nodes.iter().filter(|node| node.state() == NodeState::Connected && is_ours(&node.name)).count())
}

async fn all_connected(cli: &Cli, person: &Person) -> anyhow::Result<()> {
    let until = clock::monotonic() + ATTACH;
    loop {
        let now = connected(person).await?;
        if now >= cli.nodes {
            return Ok(());
        }
        if clock::monotonic() > until {
            bail!("only {now} of {} nodes are connected after {ATTACH:?}", cli.nodes);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
