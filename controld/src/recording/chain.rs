//! The chain of a recording: each link is the SHA-256 of the link before it and of all bytes since.
//!
//! The bytes of a link's own record count too, as far as its hash: its time can't be changed either. The chain by itself
//! shows a changed or missing piece; a chain that was made anew shows against the last link, which is noted elsewhere.

use aws_lc_rs::digest::{Context, SHA256};

pub(super) type Link = [u8; 32];

#[derive(Clone)]
pub(super) struct Chain(Context);

impl Chain {
    pub(super) fn new() -> Self {
        Self::after(&[0; 32])
    }

    fn after(link: &Link) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(link);
        Self(context)
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The link over what was added; what follows is of the next.
    pub(super) fn link(&mut self) -> Link {
        let mut link = Link::default();
        link.copy_from_slice(self.0.clone().finish().as_ref());
        *self = Self::after(&link);
        link
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chain")
    }
}
