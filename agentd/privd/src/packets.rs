//! Messages on a socket of packets, each a protobuf in one packet or several. A packet's first byte says whether another
//! follows. With a message's last packet may come one descriptor.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use horcrux_local::connection::left;
use prost::Message;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The longest message. An answer has about 300 bytes for a container, its labels included.
pub const MAX_MESSAGE: usize = 4 << 20;
/// The longest question, an order, with room for what may be asked one day.
pub const MAX_QUESTION: usize = 8192;

/// The longest packet, its first byte included: the kernel's buffers have room for some.
const MAX_PACKET: usize = 64 << 10;
const LAST: u8 = 0;
const MORE: u8 = 1;

/// One end of such a socket, and until when it may block.
#[derive(Debug)]
pub struct Packets {
    socket: OwnedFd,
    until: Instant,
}

#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    #[error("read a message")]
    Read(#[source] io::Error),
    #[error("write a message")]
    Write(#[source] io::Error),
    /// Nothing came.
    #[error("the connection was closed without a message")]
    Closed,
    #[error("the connection ended within a message")]
    Short,
    #[error("a packet is too long, or doesn't say whether it is the last")]
    Packet,
    #[error("a message is longer than the {0} bytes that it may have")]
    TooLong(usize),
    #[error("descriptors came that nobody expects")]
    Descriptors,
    #[error("decode a message")]
    Malformed(#[source] prost::DecodeError),
}

impl PacketError {
    /// The deadline has passed.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.kind() == Some(io::ErrorKind::TimedOut)
    }

    /// There is nobody at the other end.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let gone = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        matches!(self, Self::Closed) || self.kind().is_some_and(|kind| gone.contains(&kind))
    }

    fn kind(&self) -> Option<io::ErrorKind> {
        if let Self::Read(error) | Self::Write(error) = self { Some(error.kind()) } else { None }
    }
}

impl Packets {
    #[must_use]
    pub fn new(socket: OwnedFd, until: Instant) -> Self {
        Self { socket, until }
    }

    /// Changes the deadline, for what comes next.
    pub fn set_deadline(&mut self, until: Instant) {
        self.until = until;
    }

    #[must_use]
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// The next message, of at most `limit` bytes. A descriptor with it is closed, and makes it an error.
    pub fn read<M: Message + Default>(&self, limit: usize) -> Result<M, PacketError> {
        match self.read_with(limit)? {
            (message, None) => Ok(message),
            (_, Some(_)) => Err(PacketError::Descriptors),
        }
    }

    /// The next message, and the descriptor that came with it. More than one are closed, and make it an error.
    pub fn read_with<M: Message + Default>(&self, limit: usize) -> Result<(M, Option<OwnedFd>), PacketError> {
        let mut message = Vec::new();
        let mut descriptors = Vec::new();
        loop {
            let before = message.len();
            let is_last = match self.read_packet(&mut message, &mut descriptors) {
                Err(PacketError::Closed) if before > 0 => return Err(PacketError::Short),
                read => read?,
            };
            if message.len() > limit {
                return Err(PacketError::TooLong(limit));
            }
            // One that says nothing and is not the last would go on for ever.
            if !is_last && message.len() == before {
                return Err(PacketError::Packet);
            }
            if descriptors.len() > 1 || (!is_last && !descriptors.is_empty()) {
                return Err(PacketError::Descriptors);
            }
            if is_last {
                let message = M::decode(message.as_slice()).map_err(PacketError::Malformed)?;
                return Ok((message, descriptors.pop()));
            }
        }
    }

    pub fn write(&self, message: &impl Message) -> Result<(), PacketError> {
        self.write_packets(message, None)
    }

    /// With a copy of `descriptor`.
    pub fn write_with(&self, message: &impl Message, descriptor: BorrowedFd<'_>) -> Result<(), PacketError> {
        self.write_packets(message, Some(descriptor))
    }

    /// Says whether it was the message's last.
    fn read_packet(
        &self,
        message: &mut Vec<u8>,
        descriptors: &mut Vec<OwnedFd>,
    ) -> Result<bool, PacketError> {
        // One byte more than there can be: a longer packet is refused, not cut.
        let mut packet = vec![0; MAX_PACKET + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        wait_at_most(&self.socket, Timeout::Recv, self.until).map_err(PacketError::Read)?;
        let flags = RecvFlags::CMSG_CLOEXEC;
        let came =
            retry_on_intr(|| recvmsg(&self.socket, &mut [IoSliceMut::new(&mut packet)], &mut control, flags));
        let came = came.map_err(|errno| PacketError::Read(late(errno)))?;
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                descriptors.extend(rights);
            }
        }
        // What had no room the kernel has closed.
        if came.flags.contains(ReturnFlags::CTRUNC) {
            return Err(PacketError::Descriptors);
        }
        let packet = packet.get(..came.bytes).filter(|packet| packet.len() <= MAX_PACKET);
        let (first, rest) = match packet {
            Some([]) => return Err(PacketError::Closed),
            Some([first, rest @ ..]) if [LAST, MORE].contains(first) => (*first, rest),
            Some(_) | None => return Err(PacketError::Packet),
        };
        message.extend_from_slice(rest);
        Ok(first == LAST)
    }

    fn write_packets(
        &self,
        message: &impl Message,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(), PacketError> {
        let message = message.encode_to_vec();
        if message.len() > MAX_MESSAGE {
            return Err(PacketError::TooLong(MAX_MESSAGE));
        }
        let mut rest = message.as_slice();
        loop {
            let (packet, after) = rest.split_at(rest.len().min(MAX_PACKET - 1));
            rest = after;
            let first = [if rest.is_empty() { LAST } else { MORE }];
            let parts = [IoSlice::new(&first), IoSlice::new(packet)];
            let passed = descriptor.filter(|_| rest.is_empty());
            wait_at_most(&self.socket, Timeout::Send, self.until).map_err(PacketError::Write)?;
            retry_on_intr(|| {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if let Some(passed) = &passed {
                    control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(passed)));
                }
                sendmsg(&self.socket, &parts, &mut control, SendFlags::NOSIGNAL)
            })
            .map_err(|errno| PacketError::Write(late(errno)))?;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }
}

impl AsFd for Packets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn wait_at_most(socket: &OwnedFd, which: Timeout, until: Instant) -> io::Result<()> {
    Ok(set_socket_timeout(socket, which, Some(left(until)?))?)
}

fn late(errno: Errno) -> io::Error {
    if errno == Errno::AGAIN { io::ErrorKind::TimedOut.into() } else { errno.into() }
}

#[cfg(test)]
mod tests;
