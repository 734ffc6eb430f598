//! Connections to the API's socket, as they are accepted: each user has some, and no more.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt, future};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::{Connected, UdsConnectInfo};

use super::access::{Access, Role};
use super::shares::{CONNECTIONS, Share, Shares};
use crate::node::Caller;

/// How long accepting rests after it failed: for want of descriptors, which somebody else must give back.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection. Its place is free when it is dropped.
pub(super) struct Connection {
    stream: UnixStream,
    _share: Share,
}

/// Connections as they are accepted. Whoever has too many finds his closed at once.
pub(super) fn incoming(listener: UnixListener, access: Access) -> impl Stream<Item = Result<Connection>> {
    let shares = Shares::new(CONNECTIONS);
    let accepted = UnixListenerStream::new(listener).then(|accepted| async {
        if let Err(error) = &accepted {
            tracing::warn!(%error, "cannot accept a connection to the API");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        accepted
    });
    accepted.filter_map(move |accepted| {
        future::ready(match accepted {
            Ok(stream) => counted(stream, access, &shares).map(Ok),
            Err(error) => Some(Err(error)),
        })
    })
}

/// A connection that its user may have. Of whom the system does not tell has none.
fn counted(stream: UnixStream, access: Access, shares: &Shares) -> Option<Connection> {
    let uid = stream.peer_cred().ok()?.uid();
    let caller = Caller { uid, is_admin: access.role(uid) == Role::Admin };
    match shares.try_take(caller) {
        Ok(share) => Some(Connection { stream, _share: share }),
        Err((all, own)) => {
            tracing::debug!(uid, all, own, "a connection to the API is one too many");
            None
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
