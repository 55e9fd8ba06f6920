//! All that safe Rust can't do here: C's functions of libpam.
#![allow(unsafe_code, reason = "C functions can't be had otherwise")]

pub(crate) mod pam;
