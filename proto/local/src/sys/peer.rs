//! Who is at the other end of a UNIX socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use rustix::process::Uid;

/// By the kernel's word. The process is 0 where it is in a PID namespace that isn't seen from here, which rustix takes for
/// an error.
pub(crate) fn of(connection: impl AsFd) -> io::Result<(Uid, i32)> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    let fd = connection.as_fd().as_raw_fd();
    // SAFETY: `peer` is as long as `length` says, and both outlive the call.
    let done = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &raw mut length)
    };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    // A socket that isn't a UNIX one, or isn't connected, has nobody: the kernel says so by these.
    if peer.uid == u32::MAX || usize::try_from(length) != Ok(size_of::<libc::ucred>()) {
        return Err(io::ErrorKind::NotConnected.into());
    }
    Ok((Uid::from_raw(peer.uid), peer.pid))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use rustix::process::{geteuid, getpid};

    use super::*;

    #[test]
    fn it_is_who_connected_and_of_nobody_it_is_none() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(of(&ours).unwrap(), (geteuid(), getpid().as_raw_nonzero().get()));
        assert!(of(UnixDatagram::unbound().unwrap()).is_err());
        assert!(of(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
