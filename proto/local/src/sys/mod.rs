//! All that safe Rust can't do here: the host's accounts, a descriptor by its number, and whose the other end is.
#![allow(unsafe_code, reason = "C functions and inherited descriptors can't be had otherwise")]

pub mod accounts;
pub(crate) mod inherited;
pub(crate) mod peer;
