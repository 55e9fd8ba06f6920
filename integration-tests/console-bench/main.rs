//! What carrying consoles costs, beside Debian's websockify in the same run and with the same source of bytes, both with TLS.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

mod cost;
mod echo;
mod many;
mod ours;
mod privd;
mod websockify;

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context as _, bail};
use clap::Parser;
use horcrux_transport::clock;
use horcrux_transport::websocket::{Heard, Receiver};

use crate::cost::{Spent, median};
use crate::ours::Ours;
use crate::websockify::Websockify;

/// Consoles beside websockify
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Of each, in turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// To a viewer, in each round
    #[arg(long, default_value_t = 256)]
    mib: usize,
    /// Bytes that the source writes at once
    #[arg(long, default_value_t = 64 << 10)]
    write: usize,
    /// Round trips of each
    #[arg(long, default_value_t = 2000)]
    echoes: usize,
    /// Open at once
    #[arg(long, default_value_t = 200)]
    sessions: usize,
    /// For the latency of samples, with those open and without
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

/// What is written before it is measured: windows and buffers have grown by then.
const WARM: usize = 8 << 20;

/// What an agent reads of a VM at once.
const PIECE: usize = (64 << 10) - 18;

/// One run of bytes to a viewer.
struct Run {
    /// CPU seconds for each GiB, of each process.
    cost: Vec<f64>,
    mib_per_second: f64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    horcrux_transport::log::init();
    match bench(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(cli: &Cli) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let theirs = Websockify::start(dir.path())?;
    let ours = Ours::start()?;
    if cli.rounds > 0 && cli.mib > 0 {
        runtime.block_on(throughput(cli, &theirs, &ours))?;
    }
    if cli.echoes > 0 {
        runtime.block_on(echo::measure(cli.echoes, &theirs, &ours))?;
    }
    if cli.sessions > 0 {
        drop(theirs);
        runtime.block_on(many::measure(cli.sessions, cli.seconds, ours))?;
    }
    Ok(())
}

async fn throughput(cli: &Cli, theirs: &Websockify, ours: &Ours) -> anyhow::Result<()> {
    let (controller, agent) = (ours.controller()?, ours.agent()?);
    let (mut websockify, mut relay, mut path) = (Vec::new(), Vec::new(), Vec::new());
    let (bytes, piece) = (cli.mib << 20, cli.write);
    for number in 0..cli.rounds {
        let (_viewer, mut receiver, source) = theirs.open().await?;
        let run = measured(&[theirs.pid()], bytes, piece, to_stream(source), &mut receiver).await?;
        websockify.push(run);
        let (_viewer, mut receiver, vm) = ours.open_played(number).await?;
        // In such pieces an agent reads it.
        let say = move |piece: &[u8]| piece.chunks(PIECE).try_for_each(|part| vm.say(part));
        relay.push(measured(&[controller], bytes, piece, say, &mut receiver).await?);
        let (_viewer, mut receiver, vm) = ours.open_real().await?;
        let source = vm.stream.try_clone()?;
        path.push(measured(&[controller, agent], bytes, piece, to_stream(source), &mut receiver).await?);
        drop(vm);
    }
    println!("{} rounds of {} MiB, written {} bytes at once; medians", cli.rounds, cli.mib, piece);
    let all = |runs: &[Run], part: usize| median(runs.iter().map(|run| run.cost[part]).collect());
    let sums = |runs: &[Run]| median(runs.iter().map(|run| run.cost.iter().sum()).collect());
    let speed = |runs: &[Run]| median(runs.iter().map(|run| run.mib_per_second).collect());
    let base = sums(&websockify);
    let line = |name: &str, runs: &[Run], target: &str| {
        let (cost, mib) = (sums(runs), speed(runs));
        println!("{name:<28} {cost:.3} s of CPU/GiB {mib:>6.0} MiB/s  ratio {:.2} {target}", cost / base);
    };
    line("websockify", &websockify, "");
    line("controller alone", &relay, "(target: 0.5)");
    line("agent and controller", &path, "(target: 1.0)");
    println!("  of which {:.3} the controller's, {:.3} the agent's", all(&path, 0), all(&path, 1));
    Ok(())
}

fn to_stream(mut stream: UnixStream) -> impl FnMut(&[u8]) -> anyhow::Result<()> {
    move |piece| stream.write_all(piece).context("write to the console")
}

/// Has `say` write that much, and reads it at the viewer's end.
async fn measured(
    pids: &[u32],
    bytes: usize,
    piece: usize,
    mut say: impl FnMut(&[u8]) -> anyhow::Result<()> + Send + 'static,
    receiver: &mut Receiver,
) -> anyhow::Result<Run> {
    // Written after the warm bytes were read, so that none of them are counted.
    let (go, going) = std::sync::mpsc::sync_channel(1);
    let source = thread::spawn(move || {
        let pattern: Vec<u8> = (0..=250).cycle().take(piece).collect();
        for amount in [WARM, bytes] {
            let mut left = amount;
            while left > 0 {
                let part = left.min(piece);
                say(&pattern[..part])?;
                left -= part;
            }
            if amount == WARM {
                going.recv()?;
            }
        }
        // Not yet over: websockify leaves what it holds when its source ends.
        anyhow::Ok(say)
    });
    read(receiver, WARM).await?;
    let spent = || pids.iter().map(|pid| Spent::by(*pid)).collect::<anyhow::Result<Vec<_>>>();
    let (before, began) = (spent()?, clock::monotonic());
    go.send(())?;
    read(receiver, bytes).await?;
    let (after, took) = (spent()?, clock::monotonic() - began);
    let gib = bytes as f64 / f64::from(1 << 30);
    let cost = after.iter().zip(&before).map(|(after, before)| after.since(before).as_secs_f64() / gib);
    let run = Run { cost: cost.collect(), mib_per_second: gib * 1024.0 / took.as_secs_f64() };
    drop(source.join().ok().context("the source's thread")??);
    Ok(run)
}

async fn read(receiver: &mut Receiver, bytes: usize) -> anyhow::Result<()> {
    let mut left = bytes;
    while left > 0 {
        match receiver.next().await? {
            Heard::Bytes(bytes) => left = left.checked_sub(bytes.len()).context("more than was written")?,
            Heard::Text(_) => {}
            Heard::Closed { code, reason } => bail!("it ended: {code} {reason}"),
        }
    }
    Ok(())
}
