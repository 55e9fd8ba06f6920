//! How long a key takes to the VM and back, by the whole way, while nothing else goes on.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use horcrux_transport::clock;
use horcrux_transport::websocket::{Receiver, Sender};

use crate::cost::quantile;
use crate::ours::Ours;
use crate::read;
use crate::websockify::Websockify;

/// A key of RFB, of which QEMU would show a sign.
const KEY: [u8; 8] = [4, 1, 0, 0, 0, 0, 0, 0x61];
/// Between two: everything sleeps by then.
const PAUSE: Duration = Duration::from_millis(2);

pub(crate) async fn measure(count: usize, theirs: &Websockify, ours: &Ours) -> anyhow::Result<()> {
    println!("{count} round trips of a key");
    let (sender, receiver, source) = theirs.open().await?;
    told("websockify", &round_trips(count, sender, receiver, source).await?, "");
    let (sender, receiver, vm) = ours.open_real().await?;
    let stream = vm.stream.try_clone()?;
    let times = round_trips(count, sender, receiver, stream).await?;
    told("agent and controller", &times, "(target: 1 ms, 5 ms)");
    Ok(())
}

fn told(name: &str, times: &[Duration], target: &str) {
    let ms = |share| quantile(times.to_vec(), share).as_secs_f64() * 1000.0;
    println!("{name:<28} p50 {:.3} ms  p99 {:.3} ms  {target}", ms(0.5), ms(0.99));
}

async fn round_trips(
    count: usize,
    mut sender: Sender,
    mut receiver: Receiver,
    stream: UnixStream,
) -> anyhow::Result<Vec<Duration>> {
    // Until its end: the viewer leaves before.
    thread::spawn(move || says_back(stream));
    for greeting in [&b"RFB 003.008\n"[..], &[1], &[1]] {
        sender.bytes(greeting.to_vec().into()).await?;
        read(&mut receiver, greeting.len()).await?;
    }
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        tokio::time::sleep(PAUSE).await;
        let began = clock::monotonic();
        sender.bytes(KEY.to_vec().into()).await?;
        read(&mut receiver, KEY.len()).await?;
        times.push(clock::monotonic() - began);
    }
    Ok(times)
}

fn says_back(mut stream: UnixStream) {
    let mut said = [0; 4096];
    while let Ok(count) = stream.read(&mut said) {
        if count == 0 || stream.write_all(&said[..count]).is_err() {
            return;
        }
    }
}
