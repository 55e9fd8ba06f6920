//! Reads more from a connection than is asked for. rustls asks for one record at a time, and the kernel would be entered for
//! each: with this, once for seven. Nothing is held while nothing is left over, so an idle connection costs no memory.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// Seven of the longest records, and less than what the allocator asks of the kernel each time.
const READ: usize = 112 << 10;

#[derive(Debug)]
pub(crate) struct ReadAhead<IO> {
    io: IO,
    ahead: BytesMut,
}

impl<IO> ReadAhead<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self { io, ahead: BytesMut::new() }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for ReadAhead<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            let mut ahead = BytesMut::with_capacity(READ);
            let read = pin!(self.io.read_buf(&mut ahead)).poll(cx);
            ready!(read)?;
            self.ahead = ahead;
        }
        let amount = buf.remaining().min(self.ahead.len());
        buf.put_slice(&self.ahead[..amount]);
        self.ahead.advance(amount);
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for ReadAhead<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_was_read_ahead_comes_in_order_and_before_the_end() {
        let (mut far, near) = duplex(4 * READ);
        let sent: Vec<u8> = (0..=250).cycle().take(3 * READ + 17).collect();
        far.write_all(&sent).await.unwrap();
        drop(far);
        let mut near = ReadAhead::new(near);
        let (mut read, mut part) = (Vec::new(), [0; 1000]);
        loop {
            let count = near.read(&mut part).await.unwrap();
            if count == 0 {
                break;
            }
            read.extend_from_slice(&part[..count]);
        }
        assert!(read == sent);
        assert_eq!(near.ahead.capacity(), 0, "nothing is kept");
    }
}
