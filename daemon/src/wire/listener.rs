//! Listening: connections come in, shake hands in tasks of their own, and are handed over.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::caps::Shaking;
use super::stream::conn;
use super::{Error, Shared, tune};
use crate::peer::Conn;
use crate::support::task::Tasks;

/// Connections that the kernel holds for us before they are accepted.
const BACKLOG: u32 = 1024;

/// Connections that may wait to be handed over; more wait in their tasks, within the limits.
const WAITING: usize = 8;

/// Pause after the system refuses to accept: out of descriptors, most likely, which only time cures.
const PAUSE: Duration = Duration::from_millis(100);

/// A port that is listened on. Dropping it stops listening.
#[derive(Debug)]
pub struct Listener {
    local: SocketAddr,
    ready: mpsc::Receiver<Conn>,
}

impl Listener {
    pub(super) fn open(at: SocketAddr, shared: Arc<Shared>, tasks: &Tasks) -> Result<Self, Error> {
        let bound = bind(at).and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (local, socket) = bound.map_err(|source| Error::Listen { at, source })?;
        let (done, ready) = mpsc::channel(WAITING);
        let family = tasks.clone();
        tasks.spawn("chunk listener", async move {
            tokio::select! {
                () = family.stopping() => {}
                () = done.closed() => {}
                () = listen(&socket, &shared, &done, &family) => {}
            }
        });
        Ok(Self { local, ready })
    }

    /// Where it listens, with the port that was taken.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next peer that has proved who it is. `None` when listening has stopped. Cancel-safe.
    pub async fn accept(&mut self) -> Option<Conn> {
        self.ready.recv().await
    }
}

fn bind(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted daemon takes its port back although old connections linger.
    socket.set_reuseaddr(true)?;
    if at.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

async fn listen(socket: &TcpListener, shared: &Arc<Shared>, done: &mpsc::Sender<Conn>, tasks: &Tasks) {
    loop {
        let room = shared.caps.socket().await;
        let (stream, from) = match socket.accept().await {
            Ok((stream, from)) => (stream, SocketAddr::new(from.ip().to_canonical(), from.port())),
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(shaking) = shared.caps.incoming(from.ip()) else {
            shared.refused.fetch_add(1, Relaxed);
            tracing::debug!(%from, "connection refused: a limit is reached");
            continue;
        };
        let incoming = Incoming { stream, from, shaking, room };
        let (shared, done, family) = (Arc::clone(shared), done.clone(), tasks.clone());
        tasks.spawn("handshake", async move {
            tokio::select! {
                () = family.stopping() => {}
                () = incoming.shake(&shared, &done) => {}
            }
        });
    }
}

/// A connection whose peer is not known yet.
struct Incoming {
    stream: TcpStream,
    from: SocketAddr,
    shaking: Shaking,
    /// For the socket.
    room: OwnedSemaphorePermit,
}

impl Incoming {
    async fn shake(self, shared: &Shared, done: &mpsc::Sender<Conn>) {
        let Self { stream, from, shaking, room } = self;
        let handshake = async {
            tune(&stream)?;
            let (stream, peer) = shared.tls.accept(stream).await?;
            if !shared.conduct.admits(&peer, Some(from.ip()), SystemTime::now()) {
                return Err(io::Error::other("it is banned"));
            }
            Ok((stream, peer))
        };
        let timed = tokio::select! {
            timed = tokio::time::timeout(shared.options.handshake, handshake) => timed,
            () = shaking.over() => Ok(Err(io::Error::other("it made room for another"))),
        };
        let shaken = timed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        drop(room);
        let conn = shaken.and_then(|(stream, peer)| {
            let permit = shared.caps.admit(shaking).ok_or_else(|| io::Error::other("a limit is reached"))?;
            conn(stream, peer, from, permit, shared).map_err(io::Error::other)
        });
        match conn {
            Ok(conn) => {
                shared.accepted.fetch_add(1, Relaxed);
                // Nobody takes it when the listener has gone meanwhile.
                let _ = done.send(conn).await;
            }
            Err(error) => {
                shared.failed.fetch_add(1, Relaxed);
                tracing::debug!(%from, %error, "handshake failed");
            }
        }
    }
}
