//! What stands between the network and the LDAP library: StartTLS, and a look at each message that comes in.
//!
//! The library takes a message of any length and follows its nesting by recursion, so that a few hundred kilobytes from
//! a server would end the process. It is therefore given a pair of sockets, not the connection: messages reach it only
//! once TLS is there, and only when they are bounded in length and depth.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, copy};
use tokio::net::UnixStream;

/// A person's entry with a thousand groups is a tenth of this.
const MESSAGE_BYTES: usize = 1 << 20;
/// A message holds an entry, that attributes, those their values; with a control that makes six.
const DEPTH: usize = 16;

/// Message 1: an extended request of 1.3.6.1.4.1.1466.20037 (RFC 4511, 4.14).
const START_TLS: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
const SEQUENCE: u8 = 0x30;
const EXTENDED_RESPONSE: u8 = 0x78;
const ENUMERATED: u8 = 0x0a;

/// Asks for TLS on a plain connection. No byte beyond the answer is read: what somebody slips in after it becomes part
/// of the handshake and breaks it.
pub(super) async fn start_tls(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_all(START_TLS).await?;
    let answer = message(stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if is_start_tls_accepted(&answer) { Ok(()) } else { Err(io::Error::other("the server refuses StartTLS")) }
}

/// Carries bytes between the server and the library until either ends.
pub(super) async fn relay(
    server: impl AsyncRead + AsyncWrite + Send + Unpin,
    library: UnixStream,
) -> io::Result<()> {
    let (from_server, mut to_server) = tokio::io::split(server);
    let (mut from_library, mut to_library) = library.into_split();
    let mut from_server = BufReader::new(from_server);
    let inward = async {
        while let Some(message) = message(&mut from_server).await? {
            if !is_shallow(&message) {
                return Err(malformed());
            }
            to_library.write_all(&message).await?;
        }
        Ok(())
    };
    let outward = async {
        copy(&mut from_library, &mut to_server).await?;
        to_server.shutdown().await
    };
    tokio::select! {
        ended = inward => ended,
        ended = outward => ended,
    }
}

/// The next message, whole; `None` when there are no more.
async fn message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut message = vec![0; 2];
    if stream.read(&mut message[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut message[1..]).await?;
    if message[0] != SEQUENCE {
        return Err(malformed());
    }
    if let 0x81..=0x84 = message[1] {
        message.resize(2 + usize::from(message[1] & 0x7f), 0);
        stream.read_exact(&mut message[2..]).await?;
    }
    let (_, length) = length(&message[1..]).ok_or_else(malformed)?;
    if length > MESSAGE_BYTES {
        return Err(malformed());
    }
    let header = message.len();
    message.resize(header + length, 0);
    stream.read_exact(&mut message[header..]).await?;
    Ok(Some(message))
}

/// The bytes that a length takes, and the length.
fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.first()? {
        short @ 0..=0x7f => Some((1, usize::from(short))),
        long @ 0x81..=0x84 => {
            let count = usize::from(long & 0x7f);
            let digits = bytes.get(1..=count)?;
            Some((1 + count, digits.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte))))
        }
        _ => None,
    }
}

/// Where an element's content begins and ends.
fn content(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    // Tags of more than one byte: there are none in LDAP.
    if bytes.get(at)? & 0x1f == 0x1f {
        return None;
    }
    let (taken, length) = length(bytes.get(at + 1..)?)?;
    let begin = at + 1 + taken;
    let end = begin.checked_add(length).filter(|end| *end <= bytes.len())?;
    Some((begin, end))
}

/// Whether all elements lie whole within those that hold them, nowhere too deep.
fn is_shallow(message: &[u8]) -> bool {
    let mut ends = vec![message.len()];
    let mut at = 0;
    while let Some(&end) = ends.last() {
        if at == end {
            ends.pop();
            continue;
        }
        match content(message, at) {
            Some((_, inner)) if inner > end => return false,
            Some((begin, inner)) if message[at] & 0x20 != 0 => {
                if ends.len() > DEPTH {
                    return false;
                }
                ends.push(inner);
                at = begin;
            }
            Some((_, inner)) => at = inner,
            None => return false,
        }
    }
    true
}

fn is_start_tls_accepted(answer: &[u8]) -> bool {
    let accepted = || {
        let (id, _) = content(answer, 0)?;
        let (_, response) = content(answer, id)?;
        let (result, _) = content(answer, response)?;
        let (code, end) = content(answer, result)?;
        Some(
            (answer[0], answer[response], answer[result]) == (SEQUENCE, EXTENDED_RESPONSE, ENUMERATED)
                && answer.get(id..response)? == b"\x02\x01\x01"
                && answer.get(code..end)? == [0],
        )
    };
    is_shallow(answer) && accepted().unwrap_or(false)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the server's answer is not LDAP, or is too long")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ACCEPTED: &[u8] = b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00";
    /// As Active Directory writes lengths.
    const ACCEPTED_LONG: &[u8] =
        b"\x30\x84\x00\x00\x00\x10\x02\x01\x01\x78\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00";

    fn nested(depth: usize) -> Vec<u8> {
        (0..depth).fold(vec![0x04, 0], |inner, _| {
            let length = u32::try_from(inner.len()).unwrap().to_be_bytes();
            [&[SEQUENCE, 0x84], &length[..], &inner].concat()
        })
    }

    #[test]
    fn only_success_is_taken_for_success() {
        assert!(is_start_tls_accepted(ACCEPTED) && is_start_tls_accepted(ACCEPTED_LONG));
        for at in 0..ACCEPTED.len() - 4 {
            let mut other = ACCEPTED.to_vec();
            other[at] ^= 1;
            assert!(!is_start_tls_accepted(&other), "{other:x?}");
            assert!(!is_start_tls_accepted(&ACCEPTED[..at]));
        }
    }

    #[test]
    fn deep_messages_do_not_get_through() {
        assert!(is_shallow(&nested(DEPTH)));
        assert!(!is_shallow(&nested(DEPTH + 1)) && !is_shallow(&nested(10_000)));
    }

    #[tokio::test]
    async fn messages_are_read_whole_and_bounded() {
        let two = [ACCEPTED, ACCEPTED_LONG].concat();
        let mut stream = two.as_slice();
        assert_eq!(message(&mut stream).await.unwrap().unwrap(), ACCEPTED);
        assert_eq!(message(&mut stream).await.unwrap().unwrap(), ACCEPTED_LONG);
        assert!(message(&mut stream).await.unwrap().is_none());
        for (length, fits) in [(MESSAGE_BYTES, true), (MESSAGE_BYTES + 1, false)] {
            let header = [&[SEQUENCE, 0x84][..], &u32::try_from(length).unwrap().to_be_bytes()].concat();
            let long = [header, vec![0; length]].concat();
            assert_eq!(message(&mut long.as_slice()).await.is_ok(), fits, "{length}");
        }
        for wrong in
            [&b"\x30\x84\x7f\xff\xff\xff"[..], b"\x30\x80", b"\x30\x88", b"\x04\x00", b"\x30\x02\x02"]
        {
            assert!(message(&mut { wrong }).await.is_err(), "{wrong:x?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_stumble(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            is_shallow(&bytes);
            is_start_tls_accepted(&bytes);
        }
    }
}
