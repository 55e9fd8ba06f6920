//! How what is recorded is written down.
//!
//! A serial line: asciicast v2, 80 by 24, for a line doesn't know its size. Beside `o` (the VM) and `i` (what was typed)
//! there are `m`, where bytes are missing, and `h`, a link of the chain in hex, which players pass over. What is no UTF-8
//! is U+FFFD, as in their own recordings; a letter that was cut in two is whole in the next event.
//!
//! A screen: a line of JSON, and then records of RFB: one letter, microseconds since the beginning (8 bytes, big-endian),
//! a length (4 bytes) and so many bytes.
//!
//! | letter | bytes |
//! |---|---|
//! | `S` | what the server said, from its greeting on |
//! | `W` | how the viewer wants it: its version, SetPixelFormat or SetEncodings, which a replay needs |
//! | `C` | what the viewer sent, all of it, where input is kept |
//! | `N` | a new conversation begins: the VM was moved or started again |
//! | `L` | so many bytes are missing here (8 bytes); up to the next `N` the picture can't be relied on |
//! | `H` | a link of the chain (32 bytes) |

use bytes::Bytes;
use horcrux_proto::v1::ConsoleKind;
use serde_json::json;

use super::chain::Link;
use crate::access::audit::hex;

/// What is recorded, as it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The VM said it.
    Said(Bytes),
    /// The viewer did, and it reached the VM.
    Typed(Bytes),
    /// The viewer told how it wants the picture.
    Wish(Bytes),
    /// The VM's side was opened anew.
    Anew,
}

#[derive(Clone, Debug)]
pub(super) enum Tape {
    /// What is left of letters that were cut.
    Serial {
        said: Vec<u8>,
        typed: Vec<u8>,
    },
    Screen,
}

/// What a recording says of itself.
#[derive(Clone, Debug)]
pub(super) struct Title {
    pub(super) kind: ConsoleKind,
    pub(super) began_ms: i64,
    pub(super) vm: String,
    pub(super) display_name: String,
}

impl What {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Said(bytes) | Self::Typed(bytes) | Self::Wish(bytes) => bytes.len(),
            Self::Anew => 0,
        }
    }
}

impl Tape {
    /// One that begins, and its beginning.
    pub(super) fn begin(title: &Title) -> (Self, Vec<u8>) {
        let Title { kind, began_ms, vm, display_name } = title;
        let (tape, header) = if *kind == ConsoleKind::Serial {
            let header = json!({
                "version": 2, "width": 80, "height": 24, "timestamp": began_ms / 1000, "title": display_name,
                "env": {"TERM": "vt100"}, "horcrux": {"vm": vm, "chain": "sha256"},
            });
            (Self::Serial { said: Vec::new(), typed: Vec::new() }, header)
        } else {
            let header = json!({
                "horcruxRfb": 1, "timestampMs": began_ms, "title": display_name, "vm": vm, "chain": "sha256",
            });
            (Self::Screen, header)
        };
        (tape, format!("{header}\n").into_bytes())
    }

    pub(super) fn put(&mut self, out: &mut Vec<u8>, micros: u64, what: &What) {
        match (self, what) {
            (Self::Serial { said, .. }, What::Said(bytes)) => event(out, micros, 'o', &whole(said, bytes)),
            (Self::Serial { typed, .. }, What::Typed(bytes)) => event(out, micros, 'i', &whole(typed, bytes)),
            (Self::Serial { said, typed }, What::Anew) => {
                said.clear();
                typed.clear();
                event(out, micros, 'm', "the line was opened anew");
            }
            (Self::Serial { .. }, What::Wish(_)) => {}
            (Self::Screen, What::Said(bytes)) => record(out, micros, b'S', bytes),
            (Self::Screen, What::Typed(bytes)) => record(out, micros, b'C', bytes),
            (Self::Screen, What::Wish(bytes)) => record(out, micros, b'W', bytes),
            (Self::Screen, What::Anew) => record(out, micros, b'N', &[]),
        }
    }

    /// So many bytes are missing here.
    pub(super) fn put_missed(&mut self, out: &mut Vec<u8>, micros: u64, missed: u64) {
        match self {
            Self::Serial { said, typed } => {
                said.clear();
                typed.clear();
                event(out, micros, 'm', &format!("{missed} bytes are missing here"));
            }
            Self::Screen => record(out, micros, b'L', &missed.to_be_bytes()),
        }
    }

    /// A link's record up to its hash, and, from the hash, the rest.
    pub(super) fn link(&self, micros: u64) -> (Vec<u8>, impl Fn(&Link) -> Vec<u8> + use<>) {
        let is_serial = matches!(self, Self::Serial { .. });
        let before = if is_serial {
            format!("[{},\"h\",\"", time(micros)).into_bytes()
        } else {
            head(micros, b'H', 32).to_vec()
        };
        let rest = move |link: &Link| {
            if is_serial { format!("{}\"]\n", hex(link)).into_bytes() } else { link.to_vec() }
        };
        (before, rest)
    }
}

/// The text that `bytes` end, and what was left; a letter that isn't whole is left.
fn whole(left: &mut Vec<u8>, bytes: &[u8]) -> String {
    left.extend_from_slice(bytes);
    let mut text = String::new();
    let mut kept = 0;
    for chunk in left.utf8_chunks() {
        text.push_str(chunk.valid());
        kept += chunk.valid().len();
        let wrong = chunk.invalid();
        let may_go_on = kept + wrong.len() == left.len() && may_begin(wrong);
        if !wrong.is_empty() && !may_go_on {
            text.push(char::REPLACEMENT_CHARACTER);
            kept += wrong.len();
        }
    }
    left.drain(..kept);
    text
}

/// Whether these bytes, the last ones there are, can begin a letter.
fn may_begin(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

fn event(out: &mut Vec<u8>, micros: u64, code: char, text: &str) {
    if !text.is_empty() {
        out.extend_from_slice(format!("[{},\"{code}\",{}]\n", time(micros), json!(text)).as_bytes());
    }
}

fn time(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

fn record(out: &mut Vec<u8>, micros: u64, letter: u8, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&head(micros, letter, length));
    out.extend_from_slice(bytes);
}

/// Bytes of a record before its own.
pub(super) const HEAD: usize = 13;

fn head(micros: u64, letter: u8, length: u32) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[0] = letter;
    head[1..9].copy_from_slice(&micros.to_be_bytes());
    head[9..].copy_from_slice(&length.to_be_bytes());
    head
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn title(kind: ConsoleKind) -> Title {
        Title { kind, began_ms: 5000, vm: "u".to_owned(), display_name: "web\"1".to_owned() }
    }

    #[test]
    fn a_line_is_asciicast_and_a_letter_that_was_cut_is_whole_in_the_next_event() {
        let (mut tape, header) = Tape::begin(&title(ConsoleKind::Serial));
        let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
        assert_eq!(
            (&header["version"], &header["width"], &header["timestamp"]),
            (&json!(2), &json!(80), &json!(5))
        );
        let mut out = Vec::new();
        for (at, part) in
            [&b"caf\xc3"[..], b"\xa9\x1b[m \xff", b"\xe2", b"\x82", b"\xac\xe2x"].iter().enumerate()
        {
            let at = u64::try_from(at).unwrap() * 1_500_000;
            tape.put(&mut out, at, &What::Said(Bytes::from_static(part)));
        }
        tape.put(&mut out, 7_000_001, &What::Typed(Bytes::from_static(b"ls\r")));
        tape.put_missed(&mut out, 8_000_000, 9);
        let text = String::from_utf8(out).unwrap();
        let expected = [
            r#"[0.000000,"o","caf"]"#,
            r#"[1.500000,"o","é\u001b[m �"]"#,
            r#"[6.000000,"o","€�x"]"#,
            r#"[7.000001,"i","ls\r"]"#,
            r#"[8.000000,"m","9 bytes are missing here"]"#,
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_screen_is_records_of_bytes_with_their_time_and_direction() {
        let (mut tape, header) = Tape::begin(&title(ConsoleKind::Vnc));
        assert!(header.starts_with(b"{") && header.ends_with(b"}\n"));
        let mut out = Vec::new();
        tape.put(&mut out, 258, &What::Said(Bytes::from_static(b"RFB")));
        tape.put(&mut out, 259, &What::Anew);
        assert_eq!(&out, b"S\0\0\0\0\0\0\x01\x02\0\0\0\x03RFBN\0\0\0\0\0\0\x01\x03\0\0\0\0");
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_text_is_the_same(bytes: Vec<u8>, at in 0..64_usize) {
            let at = at.min(bytes.len());
            let mut left = Vec::new();
            let mut text = whole(&mut left, &bytes[..at]);
            text.push_str(&whole(&mut left, &bytes[at..]));
            prop_assert!(left.len() < 4);
            text.push_str(&String::from_utf8_lossy(&left));
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}
