//! What an envelope says, in types that can't hold what makes no sense.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::key::KeyId;
use crate::v1;

/// The longest that an order can be good for.
pub const LIFETIME_MS: i64 = 60_000;
/// The longest `user@realm`, in bytes.
pub const MAX_ACTOR: usize = 320;
/// The longest name of a cluster or a node's id, in bytes.
const MAX_NAME: usize = 255;

/// 128 bits that a controller made, as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; 16]);

/// A console's, by which it is closed.
pub type ConsoleId = Id;

/// What the agent shows the controller for a console's stream. Prints nothing: who has it can take the stream's place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rendezvous([u8; 32]);

/// A well-formed envelope, and who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub signer: KeyId,
    pub cluster: String,
    pub node_id: String,
    pub command: Id,
    /// Grows with each order of one signer for one node.
    pub sequence: u64,
    pub issued_unix_ms: i64,
    pub expires_unix_ms: i64,
    /// `user@realm`, for the record.
    pub actor: String,
    pub operation: Operation,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    ConsoleOpen(ConsoleOpen),
    ConsoleClose(ConsoleId),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleOpen {
    pub console: ConsoleId,
    pub vm: Uuid,
    pub kind: ConsoleKind,
    pub rendezvous: Rendezvous,
    /// It is closed then.
    pub until_unix_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleKind {
    Vnc,
    Serial,
    Spice,
}

/// A field that can't be used, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidField {
    pub field: &'static str,
    pub reason: &'static str,
}

impl Id {
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl Rendezvous {
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Operation {
    /// As a policy names it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::ConsoleOpen(_) => "console-open",
            Self::ConsoleClose(_) => "console-close",
        }
    }
}

impl Order {
    pub(crate) fn new(signer: KeyId, envelope: v1::Envelope) -> Result<Self, InvalidField> {
        let v1::Envelope { issued_unix_ms, expires_unix_ms, sequence, .. } = envelope;
        let life = expires_unix_ms.checked_sub(issued_unix_ms).filter(|_| issued_unix_ms > 0);
        if !life.is_some_and(|life| (1..=LIFETIME_MS).contains(&life)) {
            return Err(invalid("expires_unix_ms", "it is not 1 to 60000 ms after it was issued"));
        }
        if sequence == 0 {
            return Err(invalid("sequence", "the first is 1"));
        }
        let operation = envelope.operation.ok_or(invalid("operation", "there is none"))?;
        Ok(Self {
            signer,
            cluster: text("cluster", envelope.cluster, MAX_NAME)?,
            node_id: text("node_id", envelope.node_id, MAX_NAME)?,
            command: id("command_id", &envelope.command_id)?,
            sequence,
            issued_unix_ms,
            expires_unix_ms,
            actor: text("actor", envelope.actor, MAX_ACTOR)?,
            operation: operation.try_into()?,
        })
    }
}

impl TryFrom<v1::envelope::Operation> for Operation {
    type Error = InvalidField;

    fn try_from(operation: v1::envelope::Operation) -> Result<Self, InvalidField> {
        Ok(match operation {
            v1::envelope::Operation::ConsoleOpen(open) => Self::ConsoleOpen(open.try_into()?),
            v1::envelope::Operation::ConsoleClose(close) => {
                Self::ConsoleClose(id("console_id", &close.console_id)?)
            }
        })
    }
}

impl TryFrom<v1::ConsoleOpen> for ConsoleOpen {
    type Error = InvalidField;

    fn try_from(open: v1::ConsoleOpen) -> Result<Self, InvalidField> {
        let kind = match open.kind() {
            v1::ConsoleKind::Vnc => ConsoleKind::Vnc,
            v1::ConsoleKind::Serial => ConsoleKind::Serial,
            v1::ConsoleKind::Spice => ConsoleKind::Spice,
            v1::ConsoleKind::Unspecified => return Err(invalid("kind", "it is not known")),
        };
        // One way to write it, as with all that is signed.
        let vm = Uuid::try_parse(&open.vm_uuid).ok().filter(|vm| vm.hyphenated().to_string() == open.vm_uuid);
        if open.until_unix_ms <= 0 {
            return Err(invalid("until_unix_ms", "it is missing"));
        }
        Ok(Self {
            console: id("console_id", &open.console_id)?,
            vm: vm.ok_or(invalid("vm_uuid", "it is not a uuid in lower case, with hyphens"))?,
            kind,
            rendezvous: open
                .rendezvous
                .try_into()
                .map(Rendezvous)
                .map_err(|_| invalid("rendezvous", "it is not of 32 bytes"))?,
            until_unix_ms: open.until_unix_ms,
        })
    }
}

fn invalid(field: &'static str, reason: &'static str) -> InvalidField {
    InvalidField { field, reason }
}

fn id(field: &'static str, text: &str) -> Result<Id, InvalidField> {
    text.parse().map_err(|error: InvalidField| InvalidField { field, ..error })
}

fn text(field: &'static str, text: String, most: usize) -> Result<String, InvalidField> {
    if text.is_empty() || text.len() > most {
        return Err(invalid(field, "it is empty or too long"));
    }
    // It ends up on terminals and in files of lines: what moves a cursor or turns the writing round has no place in it.
    if text.chars().any(|c| c.is_control() || is_format(c)) {
        return Err(invalid(field, "it holds control characters"));
    }
    Ok(text)
}

/// Characters that break lines, or have text shown in another order than it is written in.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
}

impl FromStr for Id {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let wrong = invalid("id", "it is not of 32 lower-case hexadecimal digits");
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 32 || !text.bytes().all(is_digit) {
            return Err(wrong);
        }
        u128::from_str_radix(text, 16).map(|id| Self(id.to_be_bytes())).map_err(|_| wrong)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}

impl fmt::Debug for Rendezvous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rendezvous")
    }
}

impl From<ConsoleKind> for v1::ConsoleKind {
    fn from(kind: ConsoleKind) -> Self {
        match kind {
            ConsoleKind::Vnc => Self::Vnc,
            ConsoleKind::Serial => Self::Serial,
            ConsoleKind::Spice => Self::Spice,
        }
    }
}

impl fmt::Display for ConsoleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vnc => "vnc",
            Self::Serial => "serial",
            Self::Spice => "spice",
        })
    }
}
