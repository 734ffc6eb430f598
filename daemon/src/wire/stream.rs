//! A TLS stream together with the right to be connected, which a ban ends, and the pace of what is sent on it.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::ahead::Ahead;
use super::caps::Permit;
use super::yielding::Yielding;
use super::{Shared, tls};
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
    yielding: Yielding,
    _permit: Permit,
}

/// A connection whose handshake is done and whose peer is known.
pub(super) fn conn(
    mut stream: TlsStream<Ahead>,
    peer: PeerId,
    remote: SocketAddr,
    permit: Permit,
    shared: &Shared,
) -> Result<Conn, rustls::Error> {
    let binding = tls::binding(&stream)?;
    let ends = stream.get_ref().0.ends();
    match &mut stream {
        TlsStream::Client(stream) => stream.get_mut().1.set_buffer_limit(Some(WAITING)),
        TlsStream::Server(stream) => stream.get_mut().1.set_buffer_limit(Some(WAITING)),
    }
    let stream = Box::new(Held {
        tls: stream,
        banned: banned(peer, remote, shared.conduct.clone()).boxed(),
        yielding: Yielding::new(Arc::clone(&shared.yielding), ends),
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
        let portion = ready!(self.yielding.poll_portion(context, bytes.len()));
        let bytes = bytes.get(..portion).unwrap_or(bytes);
        let written = ready!(Pin::new(&mut self.tls).poll_write(context, bytes))?;
        self.yielding.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: usize = bytes.iter().map(|slice| slice.len()).sum();
        let portion = ready!(self.yielding.poll_portion(context, all));
        let written = if portion == all {
            ready!(Pin::new(&mut self.tls).poll_write_vectored(context, bytes))?
        } else {
            let first = bytes.iter().find(|slice| !slice.is_empty()).map_or(&[] as &[u8], |slice| &**slice);
            let first = first.get(..portion).unwrap_or(first);
            ready!(Pin::new(&mut self.tls).poll_write(context, first))?
        };
        self.yielding.wrote(written);
        Poll::Ready(Ok(written))
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
