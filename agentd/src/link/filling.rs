//! How much of what was taken before is on its way: what is taken now never waits behind more than that. The queue and the
//! connection would hold far more, and the controller listens at a pace.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use horcrux_proto::agent::v1::{Ack, Backfill};
use prost::Message as _;

use crate::spool::last_sequence;

/// A controller takes 50 messages a second, and says within a fraction of one what it has stored.
const MOST: usize = 32;
const MOST_BYTES: usize = 256 << 10;
/// An answer may be lost where the controller's own queue was full; the next one covers it.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// What was sent on one stream and is not acknowledged yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Filling {
    sent: VecDeque<Sent>,
    bytes: usize,
}

#[derive(Debug)]
struct Sent {
    upto: (u64, u64),
    bytes: usize,
    at: Instant,
}

impl Filling {
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        while self.sent.front().is_some_and(|sent| now.saturating_duration_since(sent.at) >= ANSWERED_WITHIN)
        {
            self.forget_oldest();
        }
        self.sent.len() < MOST && self.bytes < MOST_BYTES
    }

    pub(super) fn sends(&mut self, message: &Backfill, now: Instant) {
        let bytes = message.encoded_len();
        self.bytes += bytes;
        self.sent.push_back(Sent { upto: (message.epoch, last_sequence(message)), bytes, at: now });
    }

    pub(super) fn acked(&mut self, ack: &Ack) {
        while ack.backfill && self.sent.front().is_some_and(|sent| sent.upto <= (ack.epoch, ack.sequence)) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        self.bytes -= self.sent.pop_front().map_or(0, |sent| sent.bytes);
    }
}

#[cfg(test)]
mod tests {
    use horcrux_proto::agent::v1::{Event, backfill};
    use horcrux_transport::clock;

    use super::*;

    fn event(sequence: u64, detail: usize) -> Backfill {
        let event = Event { sequence, detail: "x".repeat(detail), ..Event::default() };
        Backfill { epoch: 7, record: Some(backfill::Record::Event(event)) }
    }

    fn acks(sequence: u64, backfill: bool) -> Ack {
        Ack { epoch: 7, sequence, backfill }
    }

    #[test]
    fn no_more_is_on_its_way_than_is_answered() {
        let (mut filling, now) = (Filling::default(), clock::monotonic());
        for sequence in 1..=MOST as u64 {
            assert!(filling.has_room(now));
            filling.sends(&event(sequence, 10), now);
        }
        assert!(!filling.has_room(now));
        filling.acked(&acks(5, false));
        assert!(!filling.has_room(now), "of what is taken now");
        filling.acked(&acks(1, true));
        assert!(filling.has_room(now));
        filling.sends(&event(40, MOST_BYTES), now);
        filling.acked(&acks(39, true));
        assert!(!filling.has_room(now), "one is as large as many");
        assert!(filling.has_room(now + ANSWERED_WITHIN), "its answer was lost");
        assert_eq!((filling.sent.len(), filling.bytes), (0, 0));
    }
}
