//! A descriptor that whoever started the program left open for it.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

/// Owns descriptor `number`, and doesn't pass it on to what this program starts.
///
/// To be called once for each number, and for none that the program itself has opened: there would be two owners.
pub(crate) fn take(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl touches no memory; a number that isn't open is an error.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, as was just seen, and nothing else in the program owns it, as the caller promises.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
