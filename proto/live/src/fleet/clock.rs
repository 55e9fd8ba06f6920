//! How far nodes' clocks are from this one: of two machines whose clocks differ, no times compare.

use std::time::{Duration, Instant};

use horcrux_proto::name::NodeName;
use horcrux_proto::v1::EventKind;

use super::{Facts, Fleet};

/// A clock that is further off is told as an event, and once it is back within half of it.
const SKEWED_MS: u64 = 5_000;
/// What a reading takes on its way makes a clock seem behind: the least delayed of so long counts.
const WINDOW: Duration = Duration::from_secs(60);
/// Less is the way's delay rather than the clock's.
const MOVED_MS: u64 = 1_000;

/// What is known of a node's clock.
#[derive(Debug, Default)]
pub(super) struct Clock {
    is_skewed: bool,
    /// Since when readings are compared, and how far ahead the least delayed was.
    window: Option<(Instant, i64)>,
}

impl Fleet {
    /// A node told its time when its stream began: hardly any delay is in that.
    pub(super) fn clock_told(&mut self, name: &NodeName, node_ms: i64, now_ms: i64) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.clock.window = None;
        }
        self.clock_is_off_by(name, node_ms.saturating_sub(now_ms), now_ms);
    }

    /// A reading came as it was taken: the clock may have moved since the stream began.
    pub fn clock_seen(&mut self, name: &NodeName, taken_ms: i64, now: Instant, now_ms: i64) {
        let Some(node) = self.nodes.get_mut(name).filter(|node| !node.is_here) else { return };
        let seen = taken_ms.saturating_sub(now_ms);
        let (since, ahead) = match node.clock.window {
            Some((since, ahead)) => (since, ahead.max(seen)),
            None => (now, seen),
        };
        node.clock.window = Some((since, ahead));
        if now.saturating_duration_since(since) < WINDOW {
            return;
        }
        node.clock.window = None;
        let slot = node.slot;
        let known = self.objects.get(&slot).and_then(|object| match &object.facts {
            Facts::Node(node) => node.clock_offset_ms,
            Facts::Vm(_) | Facts::Container(_) => None,
        });
        if known.is_none_or(|known| known.abs_diff(ahead) >= MOVED_MS) {
            self.clock_is_off_by(name, ahead, now_ms);
        }
    }

    fn clock_is_off_by(&mut self, name: &NodeName, offset_ms: i64, now_ms: i64) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let slot = node.slot;
        let bound = if node.clock.is_skewed { SKEWED_MS / 2 } else { SKEWED_MS };
        let is_skewed = offset_ms.unsigned_abs() > bound;
        let was_skewed = std::mem::replace(&mut node.clock.is_skewed, is_skewed);
        if let Some(Facts::Node(facts)) = self.objects.get_mut(&slot).map(|o| &mut o.facts) {
            facts.clock_offset_ms = Some(offset_ms);
        }
        self.touch_facts(slot);
        if is_skewed != was_skewed {
            let kind = if is_skewed { EventKind::ClockSkewed } else { EventKind::ClockAgrees };
            let way = if offset_ms < 0 { "behind" } else { "ahead of" };
            let (seconds, tenths) = (offset_ms.unsigned_abs() / 1000, offset_ms.unsigned_abs() % 1000 / 100);
            self.node_event(name, kind, format!("{seconds}.{tenths} s {way} the controller"), now_ms);
        }
    }
}
