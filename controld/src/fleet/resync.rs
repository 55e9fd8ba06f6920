//! An agent is asked to declare all its series again: when it is asked, and when it has had long enough. Pure.

use std::time::{Duration, Instant};

/// An answer may be lost where an agent's own queue was full.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(30);
/// What was declared before is kept until it answers: one that never does would fill the store.
const ANSWER: Duration = Duration::from_secs(150);

/// Asked of one stream.
#[derive(Debug, Default)]
pub(super) struct Asking(Option<Asked>);

#[derive(Debug)]
struct Asked {
    command_id: String,
    /// First, and last.
    since: Instant,
    at: Instant,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ask,
    /// It doesn't answer.
    End,
}

impl Asking {
    /// Whether an answer is awaited.
    pub(super) fn is_awaited(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn due(&self, now: Instant) -> Due {
        let Some(Asked { since, at, .. }) = &self.0 else { return Due::Ask };
        if now.saturating_duration_since(*since) > ANSWER {
            Due::End
        } else if now.saturating_duration_since(*at) < ASK_AGAIN {
            Due::Nothing
        } else {
            Due::Ask
        }
    }

    pub(super) fn asked(&mut self, command_id: String, now: Instant) {
        let since = self.0.as_ref().map_or(now, |asked| asked.since);
        self.0 = Some(Asked { command_id, since, at: now });
    }

    /// Takes an answer; says whether it is to what was asked last.
    pub(super) fn is_answered(&mut self, command_id: &str) -> bool {
        self.0.take_if(|asked| asked.command_id == command_id).is_some()
    }
}

#[cfg(test)]
mod tests {
    use horcrux_transport::clock;

    use super::*;

    #[test]
    fn one_that_is_silent_is_asked_again_and_then_ended() {
        let began = clock::monotonic();
        let after = |seconds: u64| began + Duration::from_secs(seconds);
        let mut asking = Asking::default();
        assert_eq!((asking.due(began), asking.is_awaited()), (Due::Ask, false));
        asking.asked("a".to_owned(), began);
        assert_eq!((asking.due(after(29)), asking.is_awaited()), (Due::Nothing, true));
        for at in (30..=150).step_by(30) {
            assert_eq!(asking.due(after(at)), Due::Ask);
            asking.asked(format!("a{at}"), after(at));
        }
        assert_eq!(asking.due(after(151)), Due::End);
    }

    #[test]
    fn an_answer_to_what_was_asked_last_ends_the_waiting() {
        let began = clock::monotonic();
        let mut asking = Asking::default();
        asking.asked("a".to_owned(), began);
        asking.asked("b".to_owned(), began + ASK_AGAIN);
        assert!(!asking.is_answered("a"), "what was declared then may be from before it was asked again");
        assert!(asking.is_answered("b") && !asking.is_awaited());
        let later = began + 2 * ANSWER;
        assert_eq!(asking.due(later), Due::Ask);
        asking.asked("c".to_owned(), later);
        assert_eq!(asking.due(later), Due::Nothing, "it has as long as before");
    }
}
