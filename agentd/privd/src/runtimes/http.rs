//! One GET request on one UNIX socket: as much of HTTP/1.1 as that takes, with a deadline and a bound on what is read.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use horcrux_local::clock;
use horcrux_local::connection::{Timed, connected, peer};
use rustix::net::SocketType;
use rustix::process::{Uid, geteuid};

use super::MOST_BYTES;

/// For the whole exchange.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);
/// The longest status line with all headers, and the longest line between chunks.
const MOST_HEAD: usize = 16 * 1024;
const MOST_HEADERS: usize = 64;
/// Read at once.
const PIECE: usize = 64 * 1024;

/// Who has to be at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner {
    /// Root, or who this program runs as.
    Host,
    /// A user, who can put anything at the socket's path, but not make it somebody else's who is asked.
    User(u32),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum GetError {
    #[error("connect")]
    Connect(#[source] io::Error),
    #[error("user {0} listens there, who must not")]
    Stranger(u32),
    #[error("exchange")]
    Exchange(#[source] io::Error),
    #[error("no answer within {} s", DEADLINE.as_secs())]
    TimedOut,
    #[error("the answer ends too soon")]
    Short,
    #[error("the answer is not HTTP")]
    Malformed,
    #[error("the answer is longer than {MOST_BYTES} bytes")]
    TooLong,
    #[error("the answer has status {0}")]
    Status(u16),
}

/// How a body ends.
enum Ends {
    After(usize),
    WithLastChunk,
    WithConnection,
}

struct Head {
    status: u16,
    ends: Ends,
}

/// What `path`, which has to be plain, gives.
pub(super) fn get(socket: &Path, owner: Owner, path: &str) -> Result<Vec<u8>, GetError> {
    let until = clock::now() + DEADLINE;
    let connection = connected(socket, SocketType::STREAM, until).map_err(|error| {
        if error.kind() == io::ErrorKind::TimedOut { GetError::TimedOut } else { GetError::Connect(error) }
    })?;
    let there = peer(&connection).map_err(GetError::Connect)?;
    if !owner.is(there) {
        return Err(GetError::Stranger(there.as_raw()));
    }
    let mut connection = Timed::new(connection, until);
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).map_err(failed)?;
    Incoming { from: connection, buffer: Vec::new(), at: 0, came: 0 }.body()
}

impl GetError {
    /// Nothing is where the socket would be.
    pub(super) fn is_no_socket(&self) -> bool {
        matches!(self, Self::Connect(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

impl Owner {
    fn is(self, there: Uid) -> bool {
        match self {
            Self::Host => there == Uid::ROOT || there == geteuid(),
            Self::User(user_id) => there.as_raw() == user_id,
        }
    }
}

/// What comes, from where it is read on.
struct Incoming<R> {
    from: R,
    buffer: Vec<u8>,
    /// What is before is done with.
    at: usize,
    /// Bytes so far, done with or not.
    came: usize,
}

impl<R: Read> Incoming<R> {
    fn body(mut self) -> Result<Vec<u8>, GetError> {
        let head = self.head()?;
        if head.status != 200 {
            return Err(GetError::Status(head.status));
        }
        match head.ends {
            Ends::After(length) => Ok(self.exactly(length)?.to_vec()),
            Ends::WithLastChunk => self.chunks(),
            Ends::WithConnection => {
                while self.more()? {}
                Ok(self.rest().to_vec())
            }
        }
    }

    fn head(&mut self) -> Result<Head, GetError> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            match response.parse(self.rest()).map_err(|_| GetError::Malformed)? {
                httparse::Status::Complete(used) => {
                    let head = Head {
                        status: response.code.ok_or(GetError::Malformed)?,
                        ends: ends(response.headers)?,
                    };
                    self.at += used;
                    return Ok(head);
                }
                httparse::Status::Partial => self.more_of_line()?,
            }
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>, GetError> {
        let mut body = Vec::new();
        loop {
            let size = match httparse::parse_chunk_size(self.rest()).map_err(|_| GetError::Malformed)? {
                httparse::Status::Complete((used, size)) => {
                    self.at += used;
                    usize::try_from(size).map_err(|_| GetError::TooLong)?
                }
                httparse::Status::Partial => {
                    self.more_of_line()?;
                    continue;
                }
            };
            // What may follow the last chunk says nothing of the body.
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(self.exactly(size)?);
            if self.exactly(2)? != b"\r\n" {
                return Err(GetError::Malformed);
            }
        }
    }

    /// The next so many bytes.
    fn exactly(&mut self, length: usize) -> Result<&[u8], GetError> {
        if length > MOST_BYTES {
            return Err(GetError::TooLong);
        }
        while self.rest().len() < length {
            if !self.more()? {
                return Err(GetError::Short);
            }
        }
        let from = self.at;
        self.at += length;
        Ok(self.buffer.get(from..self.at).unwrap_or_default())
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    fn more_of_line(&mut self) -> Result<(), GetError> {
        if self.rest().len() > MOST_HEAD {
            return Err(GetError::Malformed);
        }
        if self.more()? { Ok(()) } else { Err(GetError::Short) }
    }

    /// Reads on; `false` where it ends.
    fn more(&mut self) -> Result<bool, GetError> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let before = self.buffer.len();
        self.buffer.resize(before + PIECE, 0);
        let came = match self.from.read(self.buffer.get_mut(before..).unwrap_or_default()) {
            Ok(came) => came,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.buffer.truncate(before);
                return Ok(true);
            }
            Err(error) => return Err(failed(error)),
        };
        self.buffer.truncate(before + came);
        self.came += came;
        if self.came > MOST_BYTES { Err(GetError::TooLong) } else { Ok(came > 0) }
    }
}

fn ends(headers: &[httparse::Header<'_>]) -> Result<Ends, GetError> {
    let named = |name: &str| headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    if let Some(coding) = named("transfer-encoding") {
        let is_chunked = coding.value.eq_ignore_ascii_case(b"chunked");
        return if is_chunked { Ok(Ends::WithLastChunk) } else { Err(GetError::Malformed) };
    }
    let Some(length) = named("content-length") else { return Ok(Ends::WithConnection) };
    let length = std::str::from_utf8(length.value).ok().and_then(|text| text.parse().ok());
    length.map(Ends::After).ok_or(GetError::Malformed)
}

fn failed(error: io::Error) -> GetError {
    if error.kind() == io::ErrorKind::TimedOut { GetError::TimedOut } else { GetError::Exchange(error) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is made of an answer that comes in pieces of `piece` bytes.
    fn body(answer: &[u8], piece: usize) -> Result<Vec<u8>, GetError> {
        struct Pieces<'a>(&'a [u8], usize);
        impl Read for Pieces<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let length = self.1.min(buffer.len()).min(self.0.len());
                (&self.0[..length]).read(buffer).inspect(|&came| self.0 = &self.0[came..])
            }
        }
        Incoming { from: Pieces(answer, piece), buffer: Vec::new(), at: 0, came: 0 }.body()
    }

    const CHUNKED: &[u8] =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\n[1,\r\n2;x=y\r\n2]\r\n0\r\nLast: 1\r\n\r\n";

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        let counted = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n[1,2]beyond";
        let until_end = b"HTTP/1.0 200 OK\r\n\r\n[1,2]";
        for piece in [1, 2, 7, 4096] {
            for answer in [CHUNKED, counted, until_end] {
                assert_eq!(body(answer, piece).unwrap(), b"[1,2]");
            }
        }
    }

    #[test]
    fn what_ends_too_soon_is_no_answer() {
        let whole = CHUNKED.len() - b"0\r\nLast: 1\r\n\r\n".len();
        for cut in 0..whole {
            assert!(matches!(body(&CHUNKED[..cut], 9), Err(GetError::Short)), "{cut}");
        }
    }

    #[test]
    fn each_fault_is_told() {
        let refused = |answer: &[u8]| body(answer, 4096).unwrap_err();
        assert!(matches!(refused(b"SSH-2.0-OpenSSH\r\n\r\n"), GetError::Malformed));
        assert!(matches!(refused(b"HTTP/1.1 403 Forbidden\r\n\r\n"), GetError::Status(403)));
        let coded = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n";
        assert!(matches!(refused(coded), GetError::Malformed));
        let negative = b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n";
        assert!(matches!(refused(negative), GetError::Malformed));
        let announced = b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n";
        assert!(matches!(refused(announced), GetError::TooLong));
        let chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n";
        assert!(matches!(refused(chunk), GetError::TooLong));
        let unended = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxyz";
        assert!(matches!(refused(unended), GetError::Malformed));
    }

    #[test]
    fn what_has_no_end_is_left() {
        let endless = |start: &str, more: &str| {
            let answer = [start.as_bytes(), &more.as_bytes().repeat(MOST_BYTES / more.len() + 1)].concat();
            body(&answer, PIECE).unwrap_err()
        };
        assert!(matches!(endless("HTTP/1.1 200 OK\r\n\r\n", "x"), GetError::TooLong));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(matches!(endless(chunked, "1\r\nx\r\n"), GetError::TooLong));
        assert!(matches!(endless("HTTP/1.1 200 OK\r\nX: ", "x"), GetError::Malformed));
        assert!(matches!(endless(&format!("{chunked}1;"), "x"), GetError::Malformed));
    }

    proptest! {
        #[test]
        fn any_answer_can_be_read(
            bytes in "(HTTP/1\\.1 200 OK\r\n)?(Transfer-Encoding: chunked\r\n|Content-Length: [0-9]{1,3}\r\n)?(\r\n)?([0-9a-f]{0,2}\r\n|.{0,9}){0,9}",
            piece in 1_usize..9,
        ) {
            let _body = body(bytes.as_bytes(), piece);
        }
    }
}
