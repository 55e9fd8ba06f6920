//! A recorded serial line in this terminal, in the time it took.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use horcrux_proto::v1::ConsoleKind;
use horcrux_transport::signal;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep_until};

use super::cast::{Event, Events};
use super::filter::Filter;
use super::{Reading, tell_missing};
use crate::App;
use crate::console::raw::Raw;
use crate::failure::Failure;
use crate::view::shown;

/// Ctrl-C and Ctrl-].
const LEAVE: [u8; 3] = [b'q', 0x03, 0x1d];

enum Flow {
    GoOn,
    Leave,
}

/// What was recorded, against the clock here.
struct Clock {
    speed: f64,
    /// When what is at `at` was played.
    since: Instant,
    at: Duration,
}

pub(super) async fn run(app: &App, mut reading: Reading, speed: f64) -> Result<(), Failure> {
    if reading.recording.kind() != ConsoleKind::Serial {
        return Err(Failure::Usage(
            "only a serial line plays in a terminal: `recording export` writes a screen to a file".to_owned(),
        ));
    }
    tell_missing(app, &reading.recording);
    let terminated = signal::terminate().context("wait for signals")?;
    let mut hung_up = signal::reload().context("wait for signals")?;
    let has_keys = io::stdin().is_terminal() && io::stdout().is_terminal();
    if has_keys {
        let (vm, user) = (shown(&reading.recording.vm_display_name), shown(&reading.recording.user));
        app.say(&format!("the serial line of {vm}, as {user} saw it: any key pauses, q leaves"));
    }
    let raw = has_keys.then(|| Raw::start(io::stdin())).transpose().context("take over the terminal")?;
    let mut filter = Filter::default();
    let played = tokio::select! {
        played = play(&mut reading, &mut filter, Clock::new(speed, Instant::now()), has_keys) => played,
        () = terminated => Ok(Flow::Leave),
        _ = hung_up.recv() => Ok(Flow::Leave),
    };
    // What the VM left there may hide what is told now.
    let reset = if io::stdout().is_terminal() { write(&filter.reset()) } else { Ok(()) };
    drop(raw);
    if has_keys {
        app.say("");
    }
    match played? {
        Flow::GoOn => {
            if has_keys {
                app.say("end of the recording");
            }
            reset.and(reading.checked())
        }
        Flow::Leave => Err(Failure::Refused("left before its end: not checked".to_owned())),
    }
}

async fn play(
    reading: &mut Reading,
    filter: &mut Filter,
    mut clock: Clock,
    has_keys: bool,
) -> Result<Flow, Failure> {
    let (mut keys, mut events) = (tokio::io::stdin(), Events::default());
    while let Some(bytes) = reading.next().await? {
        for event in events.add(&bytes).context("read the recording")? {
            match event {
                Event::Said(at, text) => {
                    if has_keys && matches!(wait(&mut clock, at, &mut keys).await?, Flow::Leave) {
                        return Ok(Flow::Leave);
                    }
                    if !has_keys {
                        sleep_until(clock.due(at)).await;
                    }
                    write(&filter.pass(&text))?;
                }
                // In colours that the VM didn't choose: they may hide it.
                Event::Mark(text) => write(&format!("\x1b[0m\r\n[{}]\r\n", shown(&text)))?,
            }
        }
    }
    Ok(Flow::GoOn)
}

/// Until it is time for what comes `at`, or somebody leaves. A key stops the time, and the next one starts it again.
async fn wait(clock: &mut Clock, at: Duration, keys: &mut tokio::io::Stdin) -> Result<Flow, Failure> {
    let mut pressed = [0; 16];
    let mut is_paused = false;
    loop {
        let read = tokio::select! {
            read = keys.read(&mut pressed) => read.context("read the keyboard")?,
            () = sleep_until(clock.due(at)), if !is_paused => return Ok(Flow::GoOn),
        };
        if read == 0 || pressed[..read].iter().any(|key| LEAVE.contains(key)) {
            return Ok(Flow::Leave);
        }
        is_paused = !is_paused;
        if is_paused {
            clock.pause(Instant::now());
            write("\r\n[paused: any key goes on]\r\n")?;
        } else {
            clock.go_on(Instant::now());
        }
    }
}

fn write(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("write to standard output")?;
    Ok(())
}

impl Clock {
    fn new(speed: f64, now: Instant) -> Self {
        Self { speed, since: now, at: Duration::ZERO }
    }

    fn due(&self, at: Duration) -> Instant {
        self.since + at.saturating_sub(self.at).div_f64(self.speed)
    }

    fn pause(&mut self, now: Instant) {
        self.at += (now - self.since).mul_f64(self.speed);
    }

    fn go_on(&mut self, now: Instant) {
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_moves_what_comes_after_it() {
        let s = Duration::from_secs;
        let began = Instant::now();
        let mut clock = Clock::new(2.0, began);
        assert_eq!(clock.due(s(4)), began + s(2));
        clock.pause(began + s(1));
        clock.go_on(began + s(10));
        assert_eq!(clock.due(s(4)), began + s(11));
        assert_eq!(clock.due(s(1)), began + s(10), "what was due before comes at once");
    }
}
