//! The giver's book of what an asker has open: credits, cancellations, subscriptions.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::Error;
use super::frames::Ask;
use crate::content::CHUNK;

/// Subscriptions that an asker may have open beside its requests.
pub(super) const SUBSCRIPTIONS: usize = 16;

/// Requests that are open, each from the frame that opens it to the one that ends it.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Never held across an await.
    book: Mutex<Book>,
    /// Requests that may be open.
    requests: usize,
    /// Bytes that may be asked for.
    bytes: u64,
}

#[derive(Debug, Default)]
struct Book {
    open: HashMap<u32, Entry>,
    /// Bytes asked for by what is open.
    bytes: u64,
    /// Subscriptions among what is open.
    subscriptions: usize,
    /// Requests ever opened.
    total: u64,
}

#[derive(Debug)]
struct Entry {
    /// Bytes that it counts for.
    cost: u64,
    /// Set for subscriptions, which wait for this.
    subscription: Option<CancellationToken>,
    cancelled: bool,
}

impl Ledger {
    pub(super) fn new(requests: u32, bytes: u32) -> Self {
        Self { book: Mutex::default(), requests: requests as usize, bytes: bytes.into() }
    }

    /// Opens a request. Nothing is kept of one that is refused.
    pub(super) fn open(&self, request: u32, ask: &Ask) -> Result<(), Error> {
        let mut book = self.book();
        let cost = match ask {
            Ask::Chunk(chunk) => u64::from(chunk.length),
            // The lengths are in the manifest; whole chunks are counted, on both sides.
            Ask::Run { .. } => CHUNK as u64,
            _ => 0,
        };
        let subscription = matches!(ask, Ask::Haves(_)).then(CancellationToken::new);
        let subscriptions = book.subscriptions + usize::from(subscription.is_some());
        if book.open.contains_key(&request) {
            return Err(Error::Protocol("a request with the id of one that is open"));
        }
        if subscriptions > SUBSCRIPTIONS || book.open.len() + 1 - subscriptions > self.requests {
            return Err(Error::Protocol("more requests at once than were granted"));
        }
        if book.bytes + cost > self.bytes {
            return Err(Error::Protocol("more bytes asked for than were granted"));
        }
        book.bytes += cost;
        book.subscriptions = subscriptions;
        book.total += 1;
        book.open.insert(request, Entry { cost, subscription, cancelled: false });
        Ok(())
    }

    /// Takes a request back. One that has ended meanwhile is no fault: the two frames crossed.
    pub(super) fn cancel(&self, request: u32) {
        if let Some(entry) = self.book().open.get_mut(&request) {
            entry.cancelled = true;
            if let Some(token) = &entry.subscription {
                token.cancel();
            }
        }
    }

    pub(super) fn is_cancelled(&self, request: u32) -> bool {
        self.book().open.get(&request).is_none_or(|entry| entry.cancelled)
    }

    /// Cancelled when the subscription is.
    pub(super) fn subscription(&self, request: u32) -> CancellationToken {
        let token = self.book().open.get(&request).and_then(|entry| entry.subscription.clone());
        token.unwrap_or_default()
    }

    /// Ends a request. Before its last frame is written, since then the asker may use the credit again.
    pub(super) fn close(&self, request: u32) {
        let mut book = self.book();
        if let Some(entry) = book.open.remove(&request) {
            book.bytes -= entry.cost;
            book.subscriptions -= usize::from(entry.subscription.is_some());
        }
    }

    /// Whether anything is open.
    pub(super) fn is_used(&self) -> bool {
        !self.book().open.is_empty()
    }

    /// Requests opened in all.
    pub(super) fn total(&self) -> u64 {
        self.book().total
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
