//! Where one message of a viewer ends, and what it is.

use horcrux_proto::rfb::{SECURITY_NONE, VERSION_BYTES, VERSIONS, client};

use super::held::{Change, Key};
use super::{RfbError, Stage};

/// QEMU takes no more text at once.
const MAX_TEXT: u32 = 1 << 20;
/// Viewers list some thirty.
const MAX_ENCODINGS: u16 = 1000;
/// RFC 6143's registry: "the server must not send more".
const MAX_FENCE: u8 = 64;
/// The longest is SetDesktopSize with 255 screens.
pub(super) const MAX_MESSAGE: usize = 8 + 255 * 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Version,
    Security,
    Init,
    PixelFormat,
    Encodings,
    /// What is about picture and sound, and changes nothing in the VM.
    Picture,
    Key(Key, Change),
    Pointer,
    /// The part before so many bytes of text.
    CutText(usize),
    DesktopSize,
    /// Switches the VM off or resets it.
    Power,
}

/// What is known of a message from its beginning.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// It has at least so many bytes, which is more than there are.
    Bytes(usize),
    /// It is there, so long.
    Whole(Kind, usize),
}

/// `begun` holds at least one byte, and may hold more than one message.
pub(super) fn need(stage: Stage, begun: &[u8]) -> Result<Need, RfbError> {
    match stage {
        Stage::Version => version(begun),
        Stage::Security => match begun[0] {
            SECURITY_NONE => Ok(Need::Whole(Kind::Security, 1)),
            other => Err(RfbError::Security(other)),
        },
        Stage::Init => Ok(Need::Whole(Kind::Init, 1)),
        Stage::Message | Stage::Text { .. } => message(begun),
    }
}

fn version(begun: &[u8]) -> Result<Need, RfbError> {
    let line = &begun[..begun.len().min(VERSION_BYTES)];
    if !VERSIONS.iter().any(|version| version.starts_with(line)) {
        return Err(RfbError::Version);
    }
    Ok(whole(Kind::Version, VERSION_BYTES, begun))
}

fn message(begun: &[u8]) -> Result<Need, RfbError> {
    Ok(match begun[0] {
        client::SET_PIXEL_FORMAT => whole(Kind::PixelFormat, 20, begun),
        client::SET_ENCODINGS => match u16_at(begun, 2) {
            None => Need::Bytes(4),
            Some(many) if many > MAX_ENCODINGS => return Err(RfbError::Encodings(many)),
            Some(count) => whole(Kind::Encodings, 4 + 4 * usize::from(count), begun),
        },
        client::UPDATE_REQUEST | client::CONTINUOUS_UPDATES => whole(Kind::Picture, 10, begun),
        client::KEY => match u32_at(begun, 4) {
            None => Need::Bytes(8),
            Some(symbol) => Need::Whole(Kind::Key(Key::Symbol(symbol), change(begun[1].into())), 8),
        },
        client::POINTER => whole(Kind::Pointer, 6, begun),
        client::CUT_TEXT => cut_text(begun)?,
        client::FENCE => match begun.get(8) {
            None => Need::Bytes(9),
            Some(&long) if long > MAX_FENCE => return Err(RfbError::Fence(long)),
            Some(&length) => whole(Kind::Picture, 9 + usize::from(length), begun),
        },
        client::XVP => whole(Kind::Power, 4, begun),
        client::SET_DESKTOP_SIZE => match begun.get(6) {
            None => Need::Bytes(8),
            Some(&screens) => whole(Kind::DesktopSize, 8 + 16 * usize::from(screens), begun),
        },
        client::QEMU => qemu(begun)?,
        other => return Err(RfbError::Unknown(other)),
    })
}

/// A negative length is that of the extended clipboard, which begins with four bytes of flags.
fn cut_text(begun: &[u8]) -> Result<Need, RfbError> {
    let Some(length) = u32_at(begun, 4).map(u32::cast_signed) else { return Ok(Need::Bytes(8)) };
    let bytes = length.unsigned_abs();
    let text = usize::try_from(bytes).ok().filter(|_| bytes <= MAX_TEXT && !(-3..0).contains(&length));
    text.map(|text| Need::Whole(Kind::CutText(text), 8)).ok_or(RfbError::Clipboard(length))
}

fn qemu(begun: &[u8]) -> Result<Need, RfbError> {
    /// Sound on, off, and in which form.
    const AUDIO: [usize; 3] = [4, 4, 10];
    Ok(match begun.get(1) {
        None => Need::Bytes(2),
        Some(&client::QEMU_KEY) => match (u16_at(begun, 2), u32_at(begun, 4), u32_at(begun, 8)) {
            (Some(down), Some(symbol), Some(code)) => {
                Need::Whole(Kind::Key(Key::Code { code, symbol }, change(down)), 12)
            }
            _ => Need::Bytes(12),
        },
        Some(&client::QEMU_AUDIO) => match u16_at(begun, 2) {
            None => Need::Bytes(4),
            Some(operation) => match AUDIO.get(usize::from(operation)) {
                Some(&length) => whole(Kind::Picture, length, begun),
                None => return Err(RfbError::Audio(operation)),
            },
        },
        Some(&other) => return Err(RfbError::UnknownOfQemu(other)),
    })
}

fn whole(kind: Kind, length: usize, begun: &[u8]) -> Need {
    if begun.len() < length { Need::Bytes(length) } else { Need::Whole(kind, length) }
}

fn change(down: u16) -> Change {
    if down == 0 { Change::Up } else { Change::Down }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}
