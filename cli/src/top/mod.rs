//! `horcruxctl top`: what the fleet does now, full-screen.
//!
//! ```text
//! keys (a thread) ──┐
//! feed (a task) ────┼─► one loop owns Fleet and State ──► screen
//! a tick, signals ──┘
//! ```
//! The terminal is put back when the loop ends in any way, by a panic too.

mod rows;
mod screen;
mod state;

use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use crossterm::event::{self, Event};
use horcrux_proto::v1::{Topic, WatchRequest};
use horcrux_transport::clock;
use horcrux_transport::signal;
use horcrux_transport::tasks::Tasks;
use ratatui::DefaultTerminal;
use tokio::sync::mpsc;

use self::state::{Flow, Link, State};
use crate::App;
use crate::failure::Failure;
use crate::feed::{self, Heard};
use crate::fleet::Fleet;

/// Ages are counted on while nothing arrives.
const TICK: Duration = Duration::from_secs(1);
/// How soon the key thread sees that it is to stop.
const KEY_POLL: Duration = Duration::from_millis(100);
/// Keys that wait while the screen is drawn. What is typed faster waits in the terminal.
const KEYS_WAITING: usize = 32;

pub async fn run(app: &App) -> Result<(), Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::Usage("top needs a terminal: `horcruxctl watch` prints lines".to_owned()));
    }
    let session = app.session().await?;
    let url = session.url.clone();
    let terminated = signal::terminate().context("wait for signals")?;
    let mut hung_up = signal::reload().context("wait for signals")?;
    tokio::pin!(terminated);
    let mut tasks = Tasks::default();
    // Events have no place on this screen.
    let topics = [Topic::NodeMetrics, Topic::VmMetrics, Topic::ContainerMetrics, Topic::Status];
    let request = WatchRequest { topics: topics.map(i32::from).to_vec(), ..WatchRequest::default() };
    let mut feed = feed::start(&mut tasks, session, request);
    let mut screen = Screen::start().context("take over the terminal")?;
    let mut keys = Keys::start().context("read keys")?;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut fleet, mut state) = (Fleet::default(), State::default());
    loop {
        let drawn = screen.0.draw(|frame| screen::draw(frame, &state, &fleet, &url, clock::monotonic()));
        drawn.context("draw")?;
        tokio::select! {
            heard = feed.recv() => match heard {
                Some(heard) => hear(heard, &mut fleet, &mut state)?,
                None => return Err(Failure::Unreachable("the stream ended".to_owned())),
            },
            event = keys.0.recv() => match event {
                Some(Event::Key(key)) => {
                    let rows = state.rows(&fleet, clock::monotonic());
                    if state.key(key, &rows) == Flow::Quits {
                        return Ok(());
                    }
                }
                // Drawn anew in any case.
                Some(Event::Resize(..) | Event::FocusGained | Event::FocusLost | Event::Mouse(_) | Event::Paste(_)) => {}
                // The terminal is gone.
                None => return Ok(()),
            },
            _ = tick.tick() => {}
            () = &mut terminated => return Ok(()),
            _ = hung_up.recv() => return Ok(()),
        }
    }
}

fn hear(heard: Heard, fleet: &mut Fleet, state: &mut State) -> Result<(), Failure> {
    match heard {
        Heard::Message(message) => {
            state.link = Link::Live;
            fleet.apply(*message, clock::monotonic());
        }
        Heard::Lost { why, retry_in } => state.link = Link::Lost { why, retry_in },
        Heard::Ended(failure) => return Err(failure),
    }
    Ok(())
}

/// The terminal in full-screen mode; as it was before when dropped. ratatui's own hook does the same for a panic, before
/// the panic's text is printed.
struct Screen(DefaultTerminal);

impl Screen {
    fn start() -> io::Result<Self> {
        ratatui::try_init().map(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It complains on stderr by itself when it can't.
        ratatui::restore();
    }
}

/// Keys, read on a thread of their own because reading blocks. The thread ends soon after this is dropped.
struct Keys(mpsc::Receiver<Event>);

impl Keys {
    fn start() -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(KEYS_WAITING);
        thread::Builder::new().name("keys".to_owned()).spawn(move || {
            while !sender.is_closed() {
                let read = event::poll(KEY_POLL).and_then(|ready| ready.then(event::read).transpose());
                let sent = match read {
                    Ok(Some(event)) => sender.blocking_send(event).is_ok(),
                    Ok(None) => true,
                    Err(_) => false,
                };
                if !sent {
                    return;
                }
            }
        })?;
        Ok(Self(receiver))
    }
}
