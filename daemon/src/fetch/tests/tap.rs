//! Something on the way between two nodes: it listens to what is asked for, and can change what is given.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::watch;

use crate::content::ChunkId;
use crate::session::frames::{HEAD, Kind};
use crate::support::task::Tasks;

/// See the module.
#[derive(Debug)]
pub(in crate::fetch) struct Tap {
    wanted: Mutex<Vec<ChunkId>>,
    /// Cards that were shown.
    cards: AtomicUsize,
    /// Slices that are still to be changed.
    lies: AtomicUsize,
    /// Whether anything goes through from the giver.
    open: watch::Sender<bool>,
}

impl Default for Tap {
    fn default() -> Self {
        let (wanted, cards, lies) = Default::default();
        Self { wanted, cards, lies, open: watch::channel(true).0 }
    }
}

impl Tap {
    /// The chunks that were asked for one by one, in order.
    pub(in crate::fetch) fn wanted(&self) -> Vec<ChunkId> {
        self.wanted.lock().unwrap().clone()
    }

    /// How many cards the giver was shown.
    pub(super) fn cards(&self) -> usize {
        self.cards.load(Ordering::SeqCst)
    }

    /// Changes a bit in so many of the next slices.
    pub(in crate::fetch) fn lie(&self, slices: usize) {
        self.lies.store(slices, Ordering::SeqCst);
    }

    /// Holds back what comes from the giver, or lets it through.
    pub(in crate::fetch) fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }

    /// The asker's end of a stream whose other end is `giver`.
    pub(super) fn listen(self: &Arc<Self>, giver: DuplexStream, tasks: &Tasks) -> DuplexStream {
        let (asker, here) = tokio::io::duplex(1 << 18);
        let ((from_giver, to_giver), (from_asker, to_asker)) =
            (tokio::io::split(giver), tokio::io::split(here));
        let (up, down) = (Arc::clone(self), Arc::clone(self));
        tasks.spawn("tap up", async move { up.relay(from_asker, to_giver, false).await });
        tasks.spawn("tap down", async move { down.relay(from_giver, to_asker, true).await });
        asker
    }

    async fn relay(&self, mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>, down: bool) {
        let mut open = self.open.subscribe();
        let mut head = [0; HEAD];
        while from.read_exact(&mut head).await.is_ok() {
            let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let mut fields = vec![0; length - 1];
            if from.read_exact(&mut fields).await.is_err() {
                break;
            }
            match Kind::from_code(head[4]) {
                Some(Kind::Want) => {
                    let id: [u8; 32] = fields[fields.len() - 32..].try_into().unwrap();
                    self.wanted.lock().unwrap().push(ChunkId::from_bytes(id));
                }
                Some(Kind::Card) => _ = self.cards.fetch_add(1, Ordering::SeqCst),
                Some(Kind::Slice) => {
                    let lie = |left: usize| left.checked_sub(1);
                    if self.lies.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lie).is_ok() {
                        *fields.last_mut().unwrap() ^= 1;
                    }
                }
                _ => {}
            }
            if down && open.wait_for(|open| *open).await.is_err() {
                break;
            }
            if to.write_all(&[&head[..], &fields].concat()).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    }
}
