//! Passing an open file to a daemon on this host, which then writes into it what it would otherwise send.
//!
//! The README of the API has the protocol. What cannot be passed, for whatever reason, is written here instead, and
//! nobody is told of that.

use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use casd_proto::Bytes;
use casd_proto::passing::{GREETING, TAKEN, TOKEN, socket_beside};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;

use crate::socket::may_listen;

/// How long the daemon may take to look at a file.
const LIMIT: Duration = Duration::from_secs(5);

/// A file that the daemon has. It keeps it for a call as long as this lives.
pub(crate) struct Passed {
    token: [u8; TOKEN],
    /// By its end the daemon sees that no call is to come.
    _connection: UnixStream,
}

impl Passed {
    /// What names the file in a call.
    pub(crate) fn token(&self) -> Bytes {
        Bytes::copy_from_slice(&self.token)
    }
}

/// Passes `file` to the daemon whose API is at `socket`. Nothing where that one does not take it.
pub(crate) async fn pass(socket: &Path, file: &File) -> Option<Passed> {
    tokio::time::timeout(LIMIT, try_pass(socket, file)).await.ok()?.ok()
}

async fn try_pass(socket: &Path, file: &File) -> io::Result<Passed> {
    let beside = socket_beside(socket);
    let mut connection = UnixStream::connect(&beside).await?;
    if !may_listen(&beside, connection.peer_cred()?.uid()) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    // So short a message goes as a whole.
    connection.async_io(Interest::WRITABLE, || send(&connection, file)).await?;
    let mut answer = [0; 1 + TOKEN];
    connection.read_exact(&mut answer).await?;
    match answer {
        [TAKEN, token @ ..] => Ok(Passed { token, _connection: connection }),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn send(connection: &UnixStream, file: &File) -> io::Result<usize> {
    let descriptors = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = sendmsg(connection, &[IoSlice::new(&GREETING)], &mut control, SendFlags::NOSIGNAL)?;
    if sent < GREETING.len() { Err(io::ErrorKind::WriteZero.into()) } else { Ok(sent) }
}
