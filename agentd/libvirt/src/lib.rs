//! libvirt, loaded when a program runs: for the agent, which looks, and for `horcrux-privd`, which acts.
//!
//! [`virt`] is the binding. Its functions end the process until [`load`] has found libvirt: call that first. What the
//! binding has no safe function for, and both programs or the one without `unsafe` need, is here.

mod dl;
mod graphics;

pub use self::dl::{Loaded, NotLoaded, load};
pub use self::graphics::open_graphics;
pub use virt;
