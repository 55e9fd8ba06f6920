//! What a VNC viewer may send to QEMU. Nobody else here reads those bytes: they come in pieces that are cut anywhere.
//!
//! ```text
//! Version ─► Security ─► Init ─► Message ⇄ Text        restart(): what is in flight is dropped, up to the next Version
//!    └── 3.3, where the server decides ─┘
//! ```
//!
//! What passes is what QEMU knows of RFB, message by message and with its bounds (`ui/vnc.c`, `protocol_client_msg`, 7.2 to
//! 10), and what viewers send only to servers that offer it: fences and continuous updates. Anything else is an error, since
//! where the next message would begin can't be known. A piece that passes whole isn't copied. At most [`MAX_KEPT`] bytes of a message that isn't whole are kept; a clipboard's text is passed
//! on as it comes. What the VM says to the viewer isn't read at all.

use bytes::{Bytes, BytesMut};
use horcrux_proto::rfb::VERSIONS;

use self::held::Held;
use self::message::{Kind, MAX_MESSAGE, Need};

mod held;
mod message;
#[cfg(test)]
mod tests;

/// A ClientInit that leaves other viewers where they are.
const SHARED: [u8; 1] = [1];

/// The most that a filter keeps of what it was given and hasn't passed on: one message.
pub const MAX_KEPT: usize = MAX_MESSAGE;

/// Whether a viewer's keys, pointer and clipboard reach the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    Pass,
    Drop,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RfbError {
    #[error("the viewer doesn't speak RFB 3.3, 3.7 or 3.8")]
    Version,
    #[error("the viewer chose security type {0}, which was not offered")]
    Security(u8),
    #[error("the viewer sent message {0}, which is unknown")]
    Unknown(u8),
    #[error("the viewer sent QEMU message {0}, which is unknown")]
    UnknownOfQemu(u8),
    #[error("the viewer sent audio operation {0}, which is unknown")]
    Audio(u16),
    #[error("the viewer lists {0} encodings")]
    Encodings(u16),
    #[error("the viewer sent a clipboard of impossible length {0}")]
    Clipboard(i32),
    #[error("the viewer sent a fence of {0} bytes")]
    Fence(u8),
}

/// One viewer's side of one console.
#[derive(Debug)]
pub struct Filter {
    stage: Stage,
    talk: Talk,
    input: Input,
    /// A message that has begun.
    begun: BytesMut,
    held: Held,
    version: Option<Bytes>,
    pixel_format: Option<Bytes>,
    encodings: Option<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Version,
    Security,
    Init,
    Message,
    /// Inside a clipboard's text.
    Text {
        left: usize,
        fate: Input,
    },
}

/// Which conversation the viewer's bytes belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Talk {
    Present,
    /// One whose server is gone: the viewer doesn't know yet.
    Past,
}

enum Verdict {
    Pass,
    Drop,
    Instead(Bytes),
}

impl Filter {
    #[must_use]
    pub fn new(input: Input) -> Self {
        Self {
            stage: Stage::Version,
            talk: Talk::Present,
            input,
            begun: BytesMut::new(),
            held: Held::default(),
            version: None,
            pixel_format: None,
            encodings: None,
        }
    }

    /// Adds what of `bytes` may go on to QEMU to `out`. After an error the filter is of no use any more.
    pub fn pass(&mut self, mut bytes: Bytes, out: &mut Vec<Bytes>) -> Result<(), RfbError> {
        if self.talk == Talk::Past && VERSIONS.iter().any(|version| bytes.starts_with(&version[..])) {
            self.begin();
        }
        while !bytes.is_empty() {
            if let Stage::Text { left, fate } = self.stage {
                let part = bytes.split_to(left.min(bytes.len()));
                self.stage = text(left - part.len(), fate);
                if fate == Input::Pass {
                    out.push(part);
                }
                self.release(out);
            } else if self.begun.is_empty() {
                self.run(&mut bytes, out)?;
            } else {
                self.go_on(&mut bytes, out)?;
            }
        }
        Ok(())
    }

    /// From the next message on. What is held down is let go when input is taken away: at once, or behind the clipboard's
    /// text that is passing.
    pub fn set_input(&mut self, input: Input, out: &mut Vec<Bytes>) {
        self.input = input;
        self.release(out);
    }

    /// Another server follows, which greets the viewer as the first did. Whatever the viewer sent before it heard of that
    /// is dropped: no message begins with the `R` of the version, which says that it has. A viewer that was cut off in the
    /// middle of a message doesn't finish it: the next one's version comes as a piece of its own.
    pub fn restart(&mut self) {
        self.held = Held::default();
        if let Stage::Text { left, .. } = self.stage {
            self.stage = text(left, Input::Drop);
        }
        if self.stage != Stage::Version || !self.begun.is_empty() {
            self.talk = Talk::Past;
        }
    }

    /// How the viewer wants the picture: the messages that say it again to a server that wasn't there to hear it.
    pub fn wishes(&self) -> impl Iterator<Item = &Bytes> {
        self.pixel_format.iter().chain(&self.encodings)
    }

    /// The version that the viewer chose, on which the server's greeting depends.
    #[must_use]
    pub fn version(&self) -> Option<&Bytes> {
        self.version.as_ref()
    }

    /// Bytes that were taken in and are neither passed on nor dropped.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.begun.len()
    }

    /// Takes the whole messages that `bytes` begins with, and keeps the beginning of one that isn't whole.
    fn run(&mut self, bytes: &mut Bytes, out: &mut Vec<Bytes>) -> Result<(), RfbError> {
        // How many bytes pass as they are, and in one piece.
        let mut passing = 0;
        while let Some(&first) = bytes.get(passing)
            && !matches!(self.stage, Stage::Text { .. })
        {
            if self.talk == Talk::Past && first == VERSIONS[0][0] {
                self.begin();
            }
            let (kind, length) = match message::need(self.stage, &bytes[passing..])? {
                Need::Whole(kind, length) => (kind, length),
                Need::Bytes(_) => {
                    push(bytes.split_to(passing), out);
                    self.begun.extend_from_slice(bytes);
                    bytes.clear();
                    return Ok(());
                }
            };
            let verdict = self.decide(kind, &bytes[passing..passing + length]);
            if matches!(verdict, Verdict::Pass) {
                passing += length;
                continue;
            }
            push(bytes.split_to(passing), out);
            drop(bytes.split_to(length));
            passing = 0;
            if let Verdict::Instead(other) = verdict {
                out.push(other);
            }
        }
        push(bytes.split_to(passing), out);
        Ok(())
    }

    /// Goes on with the message that has begun.
    fn go_on(&mut self, bytes: &mut Bytes, out: &mut Vec<Bytes>) -> Result<(), RfbError> {
        while !bytes.is_empty() {
            if let Need::Bytes(needed) = message::need(self.stage, &self.begun)? {
                let missing = needed.saturating_sub(self.begun.len());
                self.begun.extend_from_slice(&bytes.split_to(missing.min(bytes.len())));
            }
            if let Need::Whole(kind, length) = message::need(self.stage, &self.begun)? {
                let message = self.begun.split_to(length).freeze();
                match self.decide(kind, &message) {
                    Verdict::Pass => out.push(message),
                    Verdict::Drop => {}
                    Verdict::Instead(other) => out.push(other),
                }
                return Ok(());
            }
        }
        Ok(())
    }

    fn begin(&mut self) {
        self.talk = Talk::Present;
        self.stage = Stage::Version;
        self.begun.clear();
    }

    fn decide(&mut self, kind: Kind, message: &[u8]) -> Verdict {
        self.stage = match kind {
            Kind::Version if message == VERSIONS[0] => Stage::Init,
            Kind::Version => Stage::Security,
            Kind::Security => Stage::Init,
            Kind::CutText(left) => text(left, self.fate()),
            Kind::Init
            | Kind::PixelFormat
            | Kind::Encodings
            | Kind::Picture
            | Kind::Key(..)
            | Kind::Pointer
            | Kind::DesktopSize
            | Kind::Power => Stage::Message,
        };
        if self.talk == Talk::Past {
            return Verdict::Drop;
        }
        match (kind, self.input) {
            // Power is another right's, and another policy's.
            (Kind::Power, _) => Verdict::Drop,
            (Kind::CutText(_) | Kind::Key(..) | Kind::Pointer | Kind::DesktopSize, Input::Drop) => {
                Verdict::Drop
            }
            (Kind::Init, _) if message != SHARED => Verdict::Instead(Bytes::from_static(&SHARED)),
            (Kind::Version, _) => {
                self.version = Some(Bytes::copy_from_slice(message));
                Verdict::Pass
            }
            (Kind::Security | Kind::Init | Kind::Picture, _)
            | (Kind::CutText(_) | Kind::DesktopSize, Input::Pass) => Verdict::Pass,
            (Kind::PixelFormat, _) => {
                self.pixel_format = Some(Bytes::copy_from_slice(message));
                Verdict::Pass
            }
            (Kind::Encodings, _) => {
                self.encodings = Some(Bytes::copy_from_slice(message));
                Verdict::Pass
            }
            (Kind::Pointer, Input::Pass) => {
                self.held.pointer(message);
                Verdict::Pass
            }
            (Kind::Key(key, change), Input::Pass) => match self.held.key(key, change) {
                None => Verdict::Pass,
                Some(mut release) => {
                    release.extend_from_slice(message);
                    Verdict::Instead(release.freeze())
                }
            },
        }
    }

    /// What becomes of input now.
    fn fate(&self) -> Input {
        match self.talk {
            Talk::Present => self.input,
            Talk::Past => Input::Drop,
        }
    }

    /// Lets go what is held down, where input is taken away and QEMU doesn't wait for the rest of a message.
    fn release(&mut self, out: &mut Vec<Bytes>) {
        if self.input == Input::Drop && !matches!(self.stage, Stage::Text { fate: Input::Pass, .. }) {
            push(self.held.release(), out);
        }
    }
}

/// A clipboard's text of which `left` bytes are still to come.
fn text(left: usize, fate: Input) -> Stage {
    if left == 0 { Stage::Message } else { Stage::Text { left, fate } }
}

fn push(bytes: Bytes, out: &mut Vec<Bytes>) {
    if !bytes.is_empty() {
        out.push(bytes);
    }
}
