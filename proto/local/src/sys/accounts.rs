//! The host's accounts, from wherever it has them: a service's own user need not be in `/etc/passwd`.

use std::ffi::{CStr, c_char};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use rustix::process::Uid;

/// What glibc takes for one account at most in practice; a longer one is an error, not a larger buffer.
const ACCOUNT_BYTES: usize = 16 * 1024;

/// The user id of `name`; none when the host has no such account.
pub fn uid(name: &CStr) -> io::Result<Option<Uid>> {
    let mut account = MaybeUninit::<libc::passwd>::uninit();
    let mut texts = vec![c_char::default(); ACCOUNT_BYTES];
    let mut found = ptr::null_mut();
    // SAFETY: `name` ends in NUL, the buffer is as long as it says, and all of them outlive the call.
    let errno = unsafe {
        libc::getpwnam_r(name.as_ptr(), account.as_mut_ptr(), texts.as_mut_ptr(), texts.len(), &raw mut found)
    };
    // These are how the manual says that there is no such account, besides 0.
    if errno != 0 && ![libc::ENOENT, libc::ESRCH, libc::EBADF, libc::EPERM].contains(&errno) {
        return Err(io::Error::from_raw_os_error(errno));
    }
    if found.is_null() {
        return Ok(None);
    }
    // SAFETY: a result that isn't null points at `account`, which getpwnam_r has then filled.
    Ok(Some(Uid::from_raw(unsafe { (*found).pw_uid })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_name() {
        assert_eq!(uid(c"root").unwrap(), Some(Uid::ROOT));
        assert_eq!(uid(c"nobody-has-this-name").unwrap(), None);
    }
}
