//! Numbers of RFB, the protocol of VNC (RFC 6143 and its registry), that more than one program here needs.

/// What a viewer may answer to a server's greeting; the newest last.
pub const VERSIONS: [&[u8; VERSION_BYTES]; 3] = [b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.008\n"];
pub const VERSION_BYTES: usize = 12;

/// Nobody asks for a password: who may look is decided before the first byte.
pub const SECURITY_NONE: u8 = 1;

/// The first byte of what a viewer sends.
pub mod client {
    pub const SET_PIXEL_FORMAT: u8 = 0;
    pub const SET_ENCODINGS: u8 = 2;
    pub const UPDATE_REQUEST: u8 = 3;
    pub const KEY: u8 = 4;
    pub const POINTER: u8 = 5;
    pub const CUT_TEXT: u8 = 6;
    pub const CONTINUOUS_UPDATES: u8 = 150;
    pub const FENCE: u8 = 248;
    pub const XVP: u8 = 250;
    pub const SET_DESKTOP_SIZE: u8 = 251;
    /// What QEMU added; the second byte says what it is.
    pub const QEMU: u8 = 255;
    pub const QEMU_KEY: u8 = 0;
    pub const QEMU_AUDIO: u8 = 1;
}

/// The first byte of what a server sends.
pub mod server {
    pub const UPDATE: u8 = 0;
    pub const COLOUR_MAP: u8 = 1;
    pub const BELL: u8 = 2;
    pub const CUT_TEXT: u8 = 3;
}
