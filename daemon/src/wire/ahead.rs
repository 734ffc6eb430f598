//! A socket that is read ahead of TLS.
//!
//! rustls asks for a record at a time, and after a pause for 4 KiB of one: on a fast path that is a call of the system,
//! and often an acknowledgement, for each 16 KiB that come. Here one call takes what has come, up to [`AHEAD`], and
//! rustls is given its records from memory, which costs a copy within the processor's cache. Writing goes past it.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

/// Bytes taken off the socket at once: eight TLS records, few enough to be in the cache still when they are used.
const AHEAD: usize = 128 * 1024;

/// See the module. It has memory only while there is something in it: a connection that waits costs none.
pub(super) struct Ahead {
    socket: TcpStream,
    /// What was read and has not been asked for yet.
    buffer: BytesMut,
}

impl Ahead {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { socket, buffer: BytesMut::new() }
    }

    /// This end's address and the other's.
    pub(super) fn ends(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.socket.local_addr()?, self.socket.peer_addr()?))
    }
}

impl AsyncRead for Ahead {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.buffer.is_empty() {
            this.buffer.reserve(AHEAD);
            match poll_read_buf(Pin::new(&mut this.socket), context, &mut this.buffer) {
                // None at the end, which is then told as such.
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    this.buffer = BytesMut::new();
                    return Poll::Pending;
                }
            }
        }
        let here = this.buffer.len().min(to.remaining());
        to.put_slice(&this.buffer[..here]);
        this.buffer.advance(here);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Ahead {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn what_is_read_ahead_comes_in_order_and_in_any_pieces_and_then_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (mut ahead, mut far) = (Ahead::new(near.unwrap()), far.unwrap().0);
        let data: Vec<u8> = (0..700_001u32).map(|i| (i % 251) as u8).collect();
        let sent = async {
            far.write_all(&data).await.unwrap();
            far.shutdown().await.unwrap();
            far
        };
        let taken = async {
            let (mut back, mut piece) = (Vec::new(), vec![0; 18_437]);
            for size in (1..=piece.len()).rev().step_by(409).cycle() {
                match ahead.read(&mut piece[..size]).await.unwrap() {
                    0 => break,
                    read => back.extend_from_slice(&piece[..read]),
                }
            }
            back
        };
        let (mut far, back) = tokio::join!(sent, taken);
        assert!(back == data);
        // The other way nothing is held back.
        ahead.write_all(b"and back").await.unwrap();
        let mut back = [0; 8];
        far.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"and back");
        assert_eq!(ahead.read(&mut back).await.unwrap(), 0);
    }
}
