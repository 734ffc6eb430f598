//! The asker's book of what it has asked for and not got: what may come, and who waits for it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::frames::{Record, SLICE};
use super::ledger::SUBSCRIPTIONS;
use super::{Answer, Came, Error, Have, News};
use crate::support::allowance::{Allowances, Rate};

/// News of one subscription. A giver tells of chunks ten times a second and of others fifty times, and what has waited
/// on the way, until a session ends for its silence, comes at once.
const TOLD: Rate = Rate { each_second: 100, burst: 4_000 };
/// Bytes of a map, or of a list of chunks, that count as more news: of the longest object there are 144.
const COUNTED: usize = 4_096;

/// What was asked for.
#[derive(Debug)]
pub(super) enum Asked {
    /// A record of this kind.
    Record(Record),
    /// A chunk of this length, and where its bytes are counted as they come.
    Chunk(u32, Came),
    /// The chunks of an object.
    Haves,
}

/// Who waits.
#[derive(Debug)]
pub(super) enum Waiter {
    /// For one answer.
    One(oneshot::Sender<Answer<Bytes>>),
    /// For as many as come.
    Many(mpsc::Sender<News>),
}

/// Credit that a request uses up, given back when the giver ends it.
pub(super) type Credit = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

/// One request, from when it is sent to the frame that ends it.
#[derive(Debug)]
struct Open {
    asked: Asked,
    /// `None` once it has been taken back: what still comes is passed over.
    waiter: Option<Waiter>,
    /// How much of a chunk has come.
    received: u32,
    /// The chunk, made when its first slice comes; never longer than what was asked for.
    buffer: BytesMut,
    /// Given back by being dropped.
    _credit: Credit,
}

/// All open requests.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Never held across an await.
    book: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    open: HashMap<u32, Open>,
    next: u32,
    /// What has been told lately in each subscription.
    told: Allowances<u32>,
    /// The session has ended: nothing more may be opened.
    over: bool,
}

impl Default for Book {
    fn default() -> Self {
        let told = Allowances::new(TOLD, SUBSCRIPTIONS);
        Self { open: HashMap::new(), next: 0, told, over: false }
    }
}

impl Book {
    /// Counts news of so many bytes.
    fn hear(&mut self, request: u32, bytes: usize) -> Result<(), Error> {
        let now = Instant::now();
        let is_within = (0..=bytes / COUNTED).all(|_| self.told.take(request, now));
        if is_within { Ok(()) } else { Err(Error::Protocol("more news than any giver has")) }
    }
}

/// A chunk of zeros, which is not sent.
static ZEROS: [u8; crate::content::CHUNK] = [0; crate::content::CHUNK];

const UNASKED: Error = Error::Protocol("an answer to nothing that was asked");

impl Pending {
    /// Opens requests with ids that follow one another and gives the first id; `None` when the session has ended.
    ///
    /// The ids go round after 2^32 requests; one that is still open then is passed over.
    pub(super) fn open(&self, requests: Vec<(Asked, Waiter, Credit)>) -> Option<u32> {
        let mut book = self.book();
        if book.over {
            return None;
        }
        let count = u32::try_from(requests.len()).unwrap_or(u32::MAX);
        while let Some(taken) =
            (0..count).rev().find(|step| book.open.contains_key(&book.next.wrapping_add(*step)))
        {
            book.next = book.next.wrapping_add(taken).wrapping_add(1);
        }
        let first = book.next;
        for (asked, waiter, credit) in requests {
            let open =
                Open { asked, waiter: Some(waiter), received: 0, buffer: BytesMut::new(), _credit: credit };
            let id = book.next;
            book.open.insert(id, open);
            book.next = id.wrapping_add(1);
        }
        Some(first)
    }

    /// Takes a request back; whether the giver must be told.
    pub(super) fn cancel(&self, request: u32) -> bool {
        let mut book = self.book();
        let Some(open) = book.open.get_mut(&request) else { return false };
        open.buffer = BytesMut::new();
        open.waiter.take().is_some()
    }

    /// A slice begins: where its data go and are counted, or `None` when they are to be passed over.
    pub(super) fn slice(
        &self,
        request: u32,
        offset: u32,
        length: usize,
    ) -> Result<Option<(BytesMut, Came)>, Error> {
        let mut book = self.book();
        let open = book.open.get_mut(&request).ok_or(UNASKED)?;
        let Asked::Chunk(whole, ref came) = open.asked else { return Err(UNASKED) };
        if length == 0 || length > SLICE {
            return Err(Error::Protocol("a slice without data"));
        }
        if offset != open.received {
            return Err(Error::Protocol("a slice that does not follow the one before it"));
        }
        if length > (whole - open.received) as usize {
            return Err(Error::Protocol("more of a chunk than was asked for"));
        }
        if open.waiter.is_none() {
            return Ok(None);
        }
        let came = came.clone();
        if open.received == 0 {
            open.buffer = BytesMut::with_capacity(whole as usize);
        }
        Ok(Some((std::mem::take(&mut open.buffer), came)))
    }

    /// A slice has been read, or passed over.
    pub(super) fn sliced(&self, request: u32, length: usize, buffer: Option<BytesMut>) {
        let mut book = self.book();
        let Some(open) = book.open.get_mut(&request) else { return };
        open.received += u32::try_from(length).unwrap_or(u32::MAX);
        if let (Some(buffer), Some(_)) = (buffer, &open.waiter) {
            open.buffer = buffer;
        }
        let whole = matches!(open.asked, Asked::Chunk(whole, _) if whole == open.received);
        if whole
            && let Some(Open { waiter: Some(Waiter::One(reply)), buffer, .. }) = book.open.remove(&request)
        {
            // Whoever waited may just have gone.
            let _ = reply.send(Answer::Found(buffer.freeze()));
        }
    }

    /// A record has come.
    pub(super) fn record(&self, request: u32, record: Record, bytes: Bytes) -> Result<(), Error> {
        self.end(request, |open| match open.asked {
            Asked::Record(asked) if asked == record => Ok(Answer::Found(bytes)),
            _ => Err(Error::Protocol("another record than was asked for")),
        })
    }

    /// The chunk is all zeros.
    pub(super) fn zero(&self, request: u32) -> Result<(), Error> {
        self.end(request, |open| match open.asked {
            Asked::Chunk(whole, _) if open.received == 0 => {
                Ok(Answer::Found(Bytes::from_static(&ZEROS).slice(..whole as usize)))
            }
            _ => Err(Error::Protocol("zeros for what is no chunk, or has come in part")),
        })
    }

    /// The giver does not have it; or a subscription is over.
    pub(super) fn not_found(&self, request: u32) -> Result<(), Error> {
        self.end(request, |_| Ok(Answer::NotFound))
    }

    /// The giver has no time.
    pub(super) fn busy(&self, request: u32, after: Duration) -> Result<(), Error> {
        self.end(request, |_| Ok(Answer::Busy(after)))
    }

    /// The giver has taken note of a cancel.
    pub(super) fn cancelled(&self, request: u32) -> Result<(), Error> {
        self.end(request, |open| match open.waiter {
            None => Ok(Answer::NotFound),
            Some(_) => Err(Error::Protocol("a request cancelled by nobody")),
        })
    }

    /// News of chunks for a subscriber. Whether it is too slow for them and its subscription must be cancelled.
    pub(super) fn have(&self, request: u32, have: Have) -> Result<bool, Error> {
        let bytes = match &have {
            Have::Whole => 0,
            Have::Bitmap { bits, .. } => bits.len(),
            Have::Chunks(chunks) => 4 * chunks.len(),
        };
        let mut book = self.book();
        book.hear(request, bytes)?;
        let open = book.open.get_mut(&request).ok_or(UNASKED)?;
        match (&open.asked, &open.waiter) {
            (Asked::Haves, Some(Waiter::Many(news))) => {
                let late = news.try_send(News::Have(have)).is_err();
                if late {
                    open.waiter = None;
                }
                Ok(late)
            }
            (Asked::Haves, _) => Ok(false),
            _ => Err(UNASKED),
        }
    }

    /// News of others for a subscriber. One that is slow for them goes without: they are to leave room for the rest.
    pub(super) fn rumour(&self, request: u32, rumour: News) -> Result<(), Error> {
        let mut book = self.book();
        book.hear(request, 0)?;
        let open = book.open.get(&request).ok_or(UNASKED)?;
        match (&open.asked, &open.waiter) {
            (Asked::Haves, Some(Waiter::Many(news))) if news.capacity() > news.max_capacity() / 2 => {
                // It may just have gone.
                drop(news.try_send(rumour));
                Ok(())
            }
            (Asked::Haves, _) => Ok(()),
            _ => Err(UNASKED),
        }
    }

    /// Whether anything is open.
    pub(super) fn is_used(&self) -> bool {
        !self.book().open.is_empty()
    }

    /// The session has ended: everyone who waits is let go.
    pub(super) fn over(&self) {
        let mut book = self.book();
        book.over = true;
        book.open.clear();
    }

    fn end(
        &self,
        request: u32,
        answer: impl FnOnce(&Open) -> Result<Answer<Bytes>, Error>,
    ) -> Result<(), Error> {
        let open = self.book().open.remove(&request).ok_or(UNASKED)?;
        let answer = answer(&open)?;
        if let Some(Waiter::One(reply)) = open.waiter {
            let _ = reply.send(answer);
        }
        Ok(())
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
