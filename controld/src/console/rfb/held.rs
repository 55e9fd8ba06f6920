//! What a viewer holds down, as QEMU was told.

use bytes::{BufMut as _, Bytes, BytesMut};
use horcrux_proto::rfb::client;

/// More keys than hands hold. A viewer that says "down" and "up" with other symbols (Shift was let go in between) leaves
/// keys behind: the oldest is let go then.
const MAX_KEYS: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Symbol(u32),
    /// QEMU's own event: the key is its code.
    Code {
        code: u32,
        symbol: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Down,
    Up,
}

#[derive(Debug, Default)]
pub(super) struct Held {
    /// The longest held first.
    keys: Vec<Key>,
    /// Where the pointer was when buttons were last seen pressed.
    pointer: Option<[u8; 4]>,
}

impl Held {
    /// What QEMU must be told first.
    pub(super) fn key(&mut self, key: Key, change: Change) -> Option<BytesMut> {
        self.keys.retain(|held| !held.is(key));
        if change == Change::Up {
            return None;
        }
        let oldest = (self.keys.len() == MAX_KEYS).then(|| self.keys.remove(0));
        self.keys.push(key);
        oldest.map(|oldest| {
            let mut release = BytesMut::new();
            oldest.let_go(&mut release);
            release
        })
    }

    /// A whole PointerEvent.
    pub(super) fn pointer(&mut self, message: &[u8]) {
        let at = message.last_chunk::<4>().copied();
        self.pointer = at.filter(|_| message[1] != 0);
    }

    /// The messages that let go everything.
    pub(super) fn release(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        for key in self.keys.drain(..).rev() {
            key.let_go(&mut out);
        }
        if let Some(at) = self.pointer.take() {
            out.put_slice(&[client::POINTER, 0]);
            out.put_slice(&at);
        }
        out.freeze()
    }
}

impl Key {
    fn is(self, other: Self) -> bool {
        match (self, other) {
            (Self::Symbol(a), Self::Symbol(b)) => a == b,
            (Self::Code { code: a, .. }, Self::Code { code: b, .. }) => a == b,
            (Self::Symbol(_), Self::Code { .. }) | (Self::Code { .. }, Self::Symbol(_)) => false,
        }
    }

    fn let_go(self, out: &mut BytesMut) {
        match self {
            Self::Symbol(symbol) => {
                out.put_slice(&[client::KEY, 0, 0, 0]);
                out.put_u32(symbol);
            }
            Self::Code { code, symbol } => {
                out.put_slice(&[client::QEMU, client::QEMU_KEY, 0, 0]);
                out.put_u32(symbol);
                out.put_u32(code);
            }
        }
    }
}
