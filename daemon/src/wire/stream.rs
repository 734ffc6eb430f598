//! A TLS stream together with the right to be connected, which a ban ends.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::ahead::Ahead;
use super::caps::Permit;
use super::tls;
use crate::peer::{Conduct, Conn, PeerId};

/// Encrypted bytes that may wait for the socket: a slice of 128 KiB with its heads goes down in one call, and a peer
/// that does not read holds no more than this.
const WAITING: usize = 256 * 1024;

/// Gives the permit back when it is dropped.
struct Held {
    tls: TlsStream<Ahead>,
    /// Is done when the peer is banned. Both ends of a session always wait for what the other says, so that it is
    /// enough to look there.
    banned: BoxFuture<'static, ()>,
    _permit: Permit,
}

/// A connection whose handshake is done and whose peer is known.
pub(super) fn conn(
    mut stream: TlsStream<Ahead>,
    peer: PeerId,
    remote: SocketAddr,
    permit: Permit,
    conduct: &Conduct,
) -> Result<Conn, rustls::Error> {
    let binding = tls::binding(&stream)?;
    match &mut stream {
        TlsStream::Client(stream) => stream.get_mut().1.set_buffer_limit(Some(WAITING)),
        TlsStream::Server(stream) => stream.get_mut().1.set_buffer_limit(Some(WAITING)),
    }
    let stream = Box::new(Held {
        tls: stream,
        banned: banned(peer, remote, conduct.clone()).boxed(),
        _permit: permit,
    });
    Ok(Conn { peer, remote: Some(remote.ip()), stream, binding })
}

/// Waits until the peer is banned.
async fn banned(peer: PeerId, remote: SocketAddr, conduct: Conduct) {
    let mut changes = conduct.changes();
    while conduct.banned_until(&peer, SystemTime::now()).is_none() {
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
    tracing::debug!(%peer, from = %remote, "closing a connection: the peer is banned");
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.banned.as_mut().poll(context).is_ready() {
            self.banned = std::future::ready(()).boxed();
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the peer is banned")));
        }
        Pin::new(&mut self.tls).poll_read(context, to)
    }
}

impl AsyncWrite for Held {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}
