//! Whether a recording is what was recorded: read from its beginning, in pieces that are cut anywhere.

use horcrux_proto::v1::{ConsoleKind, RecordingVerdict};

use super::chain::{Chain, Link};
use super::tape::HEAD;
use crate::access::audit::hex;

/// Longer than any record: sixty-four KiB of control characters are six times that as asciicast.
const LONGEST: usize = 1 << 20;
/// What stands around a link's hash in asciicast.
const BEFORE: &[u8] = b",\"h\",\"";
const AFTER: &[u8] = b"\"]\n";

/// How a recording ended, as it was noted then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// It goes on.
    Open,
    /// The controller ended before it did.
    CutShort,
    Ended(Link),
}

#[derive(Debug)]
pub(super) struct Check {
    is_serial: bool,
    chain: Chain,
    /// A record that isn't whole.
    begun: Vec<u8>,
    has_header: bool,
    /// Where the part begins that no link covers, and whether there is something in it.
    covered: u64,
    at: u64,
    last: Option<Link>,
    broken: Option<String>,
}

enum Record {
    Plain,
    /// Its length up to the hash, and the hash.
    Link(usize, String),
}

impl Check {
    pub(super) fn new(kind: ConsoleKind) -> Self {
        Self {
            is_serial: kind == ConsoleKind::Serial,
            chain: Chain::new(),
            begun: Vec::new(),
            has_header: false,
            covered: 0,
            at: 0,
            last: None,
            broken: None,
        }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        if self.broken.is_some() {
            return;
        }
        self.begun.extend_from_slice(bytes);
        let begun = std::mem::take(&mut self.begun);
        let mut rest = &begun[..];
        while self.broken.is_none() {
            let Some((length, record)) = self.record(rest) else { break };
            self.at += u64::try_from(length).unwrap_or(u64::MAX);
            self.has_header = true;
            match record {
                Record::Plain => self.chain.add(&rest[..length]),
                Record::Link(before, told) => {
                    self.chain.add(&rest[..before]);
                    let link = self.chain.link();
                    if hex(&link) == told {
                        (self.last, self.covered) = (Some(link), self.at);
                    } else {
                        self.broken = Some("what is there is not what was recorded".to_owned());
                    }
                }
            }
            rest = &rest[length..];
        }
        if rest.len() > LONGEST {
            self.broken = Some("what is there is no recording".to_owned());
        }
        self.begun = rest.to_vec();
    }

    pub(super) fn verdict(self, noted: Noted) -> RecordingVerdict {
        let is_covered = self.covered == self.at && self.begun.is_empty();
        let problem = self.broken.unwrap_or_else(|| {
            match noted {
                Noted::Open => "",
                Noted::CutShort if is_covered => "the controller ended while it went on",
                Noted::CutShort => {
                    "the controller ended while it went on: nothing vouches for the last of it"
                }
                Noted::Ended(_) if !is_covered => "nothing vouches for the last of it",
                Noted::Ended(last) if self.last == Some(last) => "",
                Noted::Ended(_) => "it doesn't end as was noted when it ended",
            }
            .to_owned()
        });
        RecordingVerdict { intact: problem.is_empty(), broken_at: self.covered, problem }
    }

    /// The first record, where it is whole, with its length.
    fn record(&self, bytes: &[u8]) -> Option<(usize, Record)> {
        if self.is_serial || !self.has_header {
            let length = bytes.iter().position(|byte| *byte == b'\n')? + 1;
            let link = linked(&bytes[..length]);
            return Some((length, link.unwrap_or(Record::Plain)));
        }
        let head = bytes.get(..HEAD)?;
        let own = u32::from_be_bytes([head[9], head[10], head[11], head[12]]);
        let length = HEAD + usize::try_from(own).ok()?;
        let record = bytes.get(..length)?;
        let link = record[0] == b'H';
        Some((length, if link { Record::Link(HEAD, hex(&record[HEAD..])) } else { Record::Plain }))
    }
}

/// A line that is a link. No text of an event holds what stands before its hash: quotes are escaped there.
fn linked(line: &[u8]) -> Option<Record> {
    let before = line.len().checked_sub(AFTER.len() + 64)?;
    let (head, rest) = line.split_at(before);
    let told = rest.strip_suffix(AFTER)?;
    (head.starts_with(b"[") && head.ends_with(BEFORE))
        .then(|| Record::Link(before, String::from_utf8_lossy(told).into_owned()))
}
