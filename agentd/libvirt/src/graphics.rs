//! A VM's display, as a descriptor.
#![allow(unsafe_code, reason = "the binding gives a descriptor as a number")]

use std::os::fd::{FromRawFd as _, OwnedFd};

use virt::domain::Domain;
use virt::error::Error;
use virt::sys::VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH;

/// A connection to the display that is at `index` among those of the domain, without its password being asked for.
pub fn open_graphics(domain: &Domain, index: u32) -> Result<OwnedFd, Error> {
    let number = domain.open_graphics_fd(index, VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)?;
    // What isn't negative fits: it was an int.
    let number = i32::try_from(number).unwrap_or(i32::MAX);
    // SAFETY: libvirt has just opened it for its caller, and keeps no hold of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
