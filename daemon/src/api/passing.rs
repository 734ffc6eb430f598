//! The files that callers pass: open descriptors, on a socket of their own beside the API's, since HTTP/2 carries none.
//!
//! Owns: who has passed which file, until a fetch takes it. Refuses: to open anything by its path, a file for another
//! user than the one who passed it, many of one user at once, and with [`Target`] whatever is not a file opened for
//! writing alone. Survives a crash: nothing.
//!
//! The protocol is in the README of the API. A file waits as long as the connection that brought it is open, but for
//! [`KEPT`] at most.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use casd_proto::Reason;
use casd_proto::passing::{GREETING, MAX_WORDS, REFUSED, TAKEN, TOKEN};
use futures::stream::{FuturesUnordered, StreamExt};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tonic::Status;

use super::access::{Access, Role};
use super::connections::ACCEPT_PAUSE;
use super::shares::{FILES, Share, Shares};
use super::status;
use crate::node::{Caller, Target};
use crate::support::pool::Pool;
use crate::support::text::shorten;

/// How long a file waits for the fetch that names it.
const KEPT: Duration = Duration::from_secs(30);

/// How long whoever connects may take to pass one.
const HELLO: Duration = Duration::from_secs(5);

/// What whoever does not know how is told.
const UNGREETED: &str = "pass one descriptor, together with the greeting";

/// What names a file in a call, once.
type Token = [u8; TOKEN];

/// The files that wait, by who passed them. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Passed(Arc<Mutex<HashMap<(u32, Token), Target>>>);

impl Passed {
    fn files(&self) -> MutexGuard<'_, HashMap<(u32, Token), Target>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a file wait until the value is dropped.
    fn keep(&self, uid: u32, file: Target) -> Waiting {
        let token: Token = rand::random();
        self.files().insert((uid, token), file);
        Waiting { passed: self.clone(), uid, token }
    }

    /// The file that this user has passed, which nobody else can name and which waits no more.
    ///
    /// # Errors
    /// NOT_PASSED.
    pub(super) fn take(&self, caller: Caller, token: &[u8]) -> Result<Target, Status> {
        let token = Token::try_from(token).ok();
        let file = token.and_then(|token| self.files().remove(&(caller.uid, token)));
        file.ok_or_else(|| {
            let message = "no file of this user waits under this token";
            status::refusal(Reason::NotPassed, message, "pass it again, just before the call")
        })
    }
}

/// A file that waits.
struct Waiting {
    passed: Passed,
    uid: u32,
    token: Token,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let unclaimed = self.passed.files().remove(&(self.uid, self.token));
        drop(unclaimed);
    }
}

/// Takes what callers pass, for ever; nothing where there is no such socket.
pub(super) async fn run(listener: Option<UnixListener>, access: Access, passed: Passed) {
    let Some(listener) = listener else { return std::future::pending().await };
    let shares = Shares::new(FILES);
    let mut attended = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(()) = attended.next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Some((caller, share)) = known(&stream, access, &shares) {
                        attended.push(attend(stream, caller, Arc::new(share), access, passed.clone()));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection that is to bring a file");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// Who has connected, and a place for the file. Whoever has too many finds the connection closed.
fn known(stream: &UnixStream, access: Access, shares: &Shares) -> Option<(Caller, Share)> {
    let uid = stream.peer_cred().ok()?.uid();
    let caller = Caller { uid, is_admin: access.role(uid) == Role::Admin };
    shares.try_take(caller).ok().map(|share| (caller, share))
}

/// Takes a file and keeps it until it is claimed, its time is over, or whoever passed it has gone.
///
/// A program that its user wrote may stand behind what was brought, and need not answer when it is looked at, written
/// into or closed: its place is taken meanwhile, also when the fetch that it was for has ended long ago, so that no
/// user has many threads wait.
async fn attend(mut stream: UnixStream, caller: Caller, place: Arc<Share>, access: Access, passed: Passed) {
    let mut brought = Vec::new();
    let greeted = tokio::time::timeout(HELLO, receive(&stream, &mut brought)).await;
    let unwelcome = if !matches!(greeted, Ok(Ok(true))) {
        Some(UNGREETED)
    } else if !access.writes_for(caller.uid) {
        Some("casd runs as root here, and would write past this user's limits")
    } else {
        None
    };
    let file = match (<[OwnedFd; 1]>::try_from(brought), unwelcome) {
        (Ok([descriptor]), None) => {
            Target::take(descriptor, Arc::clone(&place)).await.map_err(|error| error.to_string())
        }
        (Ok(descriptor), Some(why)) => {
            close(descriptor).await;
            Err(why.to_owned())
        }
        (Err(descriptors), _) => {
            close(descriptors).await;
            Err(UNGREETED.to_owned())
        }
    };
    let file = match file {
        Ok(file) => file,
        Err(why) => return refuse(&mut stream, &why).await,
    };
    let waiting = passed.keep(caller.uid, file);
    let mut answer = vec![TAKEN];
    answer.extend_from_slice(&waiting.token);
    if stream.write_all(&answer).await.is_ok() {
        // Either is its end.
        let _ = tokio::time::timeout(KEPT, gone(&stream)).await;
    }
}

/// Closes what was brought, off the runtime.
async fn close<T: Send + 'static>(descriptors: T) {
    Pool::new(1).run(move || drop(descriptors)).await;
}

/// Says why a file is not taken, as far as whoever passed it listens.
async fn refuse(stream: &mut UnixStream, why: &str) {
    let why = shorten(why, MAX_WORDS);
    let mut answer = vec![REFUSED, u8::try_from(why.len()).unwrap_or(u8::MAX)];
    answer.extend_from_slice(why.as_bytes());
    let _ = stream.write_all(&answer).await;
}

/// Waits until the other end closes the connection, or says something for which there is no reason.
async fn gone(stream: &UnixStream) {
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

/// Receives the greeting, and with it descriptors: no more once there is one too many, or each of its bytes could bring
/// some. Whether it was the right one.
async fn receive(stream: &UnixStream, descriptors: &mut Vec<OwnedFd>) -> io::Result<bool> {
    let (mut greeting, mut length) = ([0; GREETING.len()], 0);
    while length < greeting.len() && descriptors.len() < 2 {
        let rest = &mut greeting[length..];
        match stream.async_io(Interest::READABLE, || receive_some(stream, rest, descriptors)).await? {
            0 => return Ok(false),
            read => length += read,
        }
    }
    Ok(length == greeting.len() && greeting == GREETING)
}

/// Receives once. Gives how many bytes.
fn receive_some(stream: &UnixStream, into: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    // Of more than fit the system closes the rest itself.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(into)];
    let received = recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_taken_once_by_who_passed_it_and_not_when_its_time_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let file = std::fs::File::create(folder.path().join(name)).unwrap();
            Target::take(file.into(), ())
        };
        let (passed, caller) = (Passed::default(), |uid| Caller { uid, is_admin: uid == 0 });
        let waiting = passed.keep(7, make("one").await.unwrap());
        // Not even an administrator writes into what another has passed.
        for other in [0, 8] {
            let refused = passed.take(caller(other), &waiting.token).unwrap_err();
            assert_eq!(casd_proto::Failure::from(&refused).reason, "NOT_PASSED");
        }
        assert!(passed.take(caller(7), &waiting.token[1..]).is_err());
        assert!(passed.take(caller(7), &waiting.token).is_ok());
        assert!(passed.take(caller(7), &waiting.token).is_err(), "once");
        let waiting = passed.keep(7, make("two").await.unwrap());
        let token = waiting.token;
        drop(waiting);
        assert!(passed.take(caller(7), &token).is_err());
        assert!(passed.files().is_empty());
    }
}
