//! All that safe Rust can't do here: C's functions of libpam and of the host's accounts, and a descriptor by its number.
#![allow(unsafe_code, reason = "C functions and inherited descriptors can't be had otherwise")]

pub(crate) mod accounts;
pub(crate) mod inherited;
pub(crate) mod pam;
