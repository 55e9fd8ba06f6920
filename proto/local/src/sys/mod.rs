//! All that safe Rust can't do here: the host's accounts, and a descriptor by its number.
#![allow(unsafe_code, reason = "C functions and inherited descriptors can't be had otherwise")]

pub mod accounts;
pub(crate) mod inherited;
