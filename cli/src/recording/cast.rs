//! Asciicast v2, as far as a terminal plays it.

use std::time::Duration;

/// Longer than any event of a recording.
const LONGEST: usize = 1 << 20;

/// What the VM said, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Said(Duration, String),
    /// Something to know about this moment.
    Mark(String),
}

/// Lines from pieces that are cut anywhere.
#[derive(Debug, Default)]
pub(super) struct Events {
    begun: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line is no asciicast")]
pub(super) struct NoCast;

impl Events {
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<Vec<Event>, NoCast> {
        self.begun.extend_from_slice(bytes);
        let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') else {
            return if self.begun.len() > LONGEST { Err(NoCast) } else { Ok(Vec::new()) };
        };
        let rest = self.begun.split_off(end + 1);
        let lines = std::mem::replace(&mut self.begun, rest);
        // The header is an object, and no event.
        let events = lines.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"["));
        events.filter_map(|line| event(line).transpose()).collect()
    }
}

fn event(line: &[u8]) -> Result<Option<Event>, NoCast> {
    let (seconds, code, text): (f64, String, String) = serde_json::from_slice(line).map_err(|_| NoCast)?;
    let at = Duration::try_from_secs_f64(seconds).map_err(|_| NoCast)?;
    Ok(match code.as_str() {
        "o" => Some(Event::Said(at, text)),
        "m" => Some(Event::Mark(text)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_found_however_it_comes() {
        let text = "{\"version\":2}\n[0.5,\"o\",\"a\\n\"]\n[1.0,\"h\",\"00\"]\n[1.25,\"i\",\"ls\"]\n[2.0,\"m\",\"gone\"]\n";
        let expected =
            [Event::Said(Duration::from_millis(500), "a\n".to_owned()), Event::Mark("gone".to_owned())];
        for size in [1, 7, text.len()] {
            let mut events = Events::default();
            let all: Vec<Event> =
                text.as_bytes().chunks(size).flat_map(|piece| events.add(piece).unwrap()).collect();
            assert_eq!(all, expected, "{size}");
        }
        for wrong in ["[1\n", "[-1.0,\"o\",\"\"]\n", "[1e300,\"o\",\"\"]\n"] {
            assert_eq!(Events::default().add(wrong.as_bytes()), Err(NoCast), "{wrong}");
        }
    }
}
