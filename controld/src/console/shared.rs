//! A serial line that some look at: what the VM says goes to all of them.
//!
//! One who doesn't read is waited for while nobody else looks, and so is the VM. Once others look, all who are behind share
//! one short time for which the others wait, which comes back slowly. Whoever is behind when it is used up is ended.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use horcrux_proto::agent::v1::CarryRequest;
use horcrux_proto::console::CloseCode;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;
use tonic::Streaming;

use super::line::{Said, said};
use super::{Consoles, End};

/// What one who joins is shown of it.
const BACKLOG: usize = 16 << 10;
/// How long those who don't read keep the others waiting, all together.
const PATIENCE: Duration = Duration::from_secs(1);
/// Of the time that passes, so much of it comes back: all of it in a minute.
const BACK: u32 = 60;
const LOOK: Duration = Duration::from_secs(1);
const SLOW: &str = "others look at this line too, and you read too slowly";

/// One who looks.
#[derive(Debug)]
pub(super) struct Viewer {
    /// Of its console.
    pub(super) id: String,
    pub(super) queue: mpsc::Sender<Said>,
}

#[derive(Debug)]
pub(super) struct Shared {
    from_node: Streaming<CarryRequest>,
    joins: mpsc::Receiver<Viewer>,
    viewers: Vec<Viewer>,
    backlog: VecDeque<u8>,
    patience: Patience,
    consoles: Consoles,
}

/// What is left of it.
#[derive(Debug)]
struct Patience {
    left: Duration,
    at: Instant,
}

impl Patience {
    fn new(now: Instant) -> Self {
        Self { left: PATIENCE, at: now }
    }

    fn left(&self, now: Instant) -> Duration {
        (self.left + now.saturating_duration_since(self.at) / BACK).min(PATIENCE)
    }

    /// It was waited from then until now.
    fn spend(&mut self, from: Instant, now: Instant) {
        self.left = self.left(from).saturating_sub(now.saturating_duration_since(from));
        self.at = now;
    }
}

impl Shared {
    pub(super) fn new(
        from_node: Streaming<CarryRequest>,
        first: Viewer,
        joins: mpsc::Receiver<Viewer>,
        consoles: Consoles,
    ) -> Self {
        let patience = Patience::new(Instant::now());
        Self { from_node, joins, viewers: vec![first], backlog: VecDeque::new(), patience, consoles }
    }

    pub(super) async fn run(mut self) {
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                said = said(&mut self.from_node) => {
                    self.remember(&said);
                    self.deliver(&said).await;
                    if matches!(said, Said::Ended(_)) {
                        return;
                    }
                }
                Some(viewer) = self.joins.recv() => self.join(viewer),
                _ = look.tick() => {}
            }
            self.viewers.retain(|viewer| !viewer.queue.is_closed());
            // The node notices that nobody looks any more by the end of its stream.
            if self.viewers.is_empty() && self.joins.is_empty() {
                return;
            }
        }
    }

    fn join(&mut self, viewer: Viewer) {
        let before: Vec<u8> = self.backlog.iter().copied().collect();
        if !before.is_empty() && viewer.queue.try_send(Said::Bytes(Bytes::from(before))).is_err() {
            return;
        }
        self.viewers.push(viewer);
    }

    fn remember(&mut self, said: &Said) {
        if let Said::Bytes(bytes) = said {
            self.backlog.extend(bytes.iter());
            let over = self.backlog.len().saturating_sub(BACKLOG);
            self.backlog.drain(..over);
        }
    }

    async fn deliver(&mut self, said: &Said) {
        let is_behind =
            |viewer: &Viewer| matches!(viewer.queue.try_send(said.clone()), Err(TrySendError::Full(_)));
        // Those who read have it before anybody is waited for.
        let (behind, mut viewers): (Vec<_>, Vec<_>) = self.viewers.drain(..).partition(is_behind);
        let mut joined = None;
        if let ([alone], true) = (&behind[..], viewers.is_empty()) {
            tokio::select! {
                sent = alone.queue.send(said.clone()) => {
                    drop(sent);
                    self.viewers = behind;
                    return;
                }
                // It isn't alone any more.
                Some(viewer) = self.joins.recv() => joined = Some(viewer),
            }
        }
        if !behind.is_empty() {
            let from = Instant::now();
            let left = self.patience.left(from);
            let sent =
                join_all(behind.iter().map(|viewer| viewer.queue.send_timeout(said.clone(), left))).await;
            self.patience.spend(from, Instant::now());
            for (viewer, sent) in behind.into_iter().zip(sent) {
                match sent {
                    Ok(()) => viewers.push(viewer),
                    Err(_) => self.cut_off(&viewer),
                }
            }
        }
        self.viewers = viewers;
        if let Some(viewer) = joined {
            self.join(viewer);
        }
    }

    /// Its console ends: told on the line alone, it would be opened again.
    fn cut_off(&self, viewer: &Viewer) {
        if let Some(open) = self.consoles.find(&viewer.id) {
            tracing::info!(console = viewer.id, "a viewer of a serial line reads too slowly, and is cut off");
            open.end(End::new(CloseCode::Failed, SLOW));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_are_behind_have_a_second_together_and_it_comes_back_in_a_minute() {
        let began = Instant::now();
        let after = |ms| began + Duration::from_millis(ms);
        let mut patience = Patience::new(began);
        patience.spend(began, after(400));
        assert_eq!(patience.left(after(400)), Duration::from_millis(600));
        patience.spend(after(400), after(1100));
        assert_eq!(patience.left(after(1100)), Duration::ZERO);
        assert_eq!(patience.left(after(7100)), Duration::from_millis(100));
        assert_eq!(patience.left(after(600_000)), PATIENCE);
    }
}
