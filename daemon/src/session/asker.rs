//! The asking end of a session: a handle that many use at once.

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::asking;
use super::frames::{Ask, CROWDS, Frame, Hello, Record};
use super::hello::{self, Ends};
use super::io::{Meter, split};
use super::ledger::SUBSCRIPTIONS;
use super::pending::{Asked, Credit, Pending, Waiter};
use super::want::{Came, Haves, Ticket, Want};
use super::{Answer, Error, Options, Unproven};
use crate::content::{
    self, CHUNK, CHUNK_LEN, ChunkRef, ManifestPage, ManifestTop, ObjectId, ParityPage, ParityPart, Place,
};
use crate::peer::{CardSigner, Conn, PeerId};
use crate::support::pool::Pool;
use crate::support::task::Tasks;
use crate::support::unix_now;

/// Requests at once at most, whatever a giver grants: it bounds what we remember of a session.
const MAX_REQUESTS: u32 = 1024;

/// Bytes at once at most, whatever a giver grants: 256 MiB.
const MAX_BYTES: u32 = 256 << 20;

/// What a chunk of a run counts for.
#[expect(clippy::cast_possible_truncation, reason = "1 MiB")]
const MAX_COST: u32 = CHUNK as u32;

/// News of a subscription that may wait for whoever reads them: of chunks and of others, who may take half of this. A
/// whole map is at most 16, and a second brings 10 and 50.
const NEWS: usize = 256;

/// A session as its asker. Clones are the same session; when the last one and the last [`Want`] and [`Haves`] are gone,
/// the session says goodbye and ends.
#[derive(Clone, Debug)]
pub struct Asker {
    handle: Arc<Handle>,
    /// Where the giver is, as seen from here.
    remote: Option<IpAddr>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.unwanted.cancel();
    }
}

/// What the handle and the session's task share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) peer: PeerId,
    /// The version of the protocol that both ends speak.
    pub(super) version: u16,
    /// Where proofs are checked.
    pool: Pool,
    /// Signs what is shown of where this end gives chunks; `None` where it gives none, or the giver would not know it.
    signer: Option<CardSigner>,
    /// Held while a subscription is asked for, so that a card is for the one that it is shown for.
    subscribing: Mutex<()>,
    pub(super) pending: Pending,
    pub(super) meter: Arc<Meter>,
    /// Frames for the writer. Has room for an ask and a cancel of everything that can be open, and for cards.
    pub(super) out: mpsc::Sender<Frame>,
    /// Requests and bytes that may be open at once.
    grant: (usize, usize),
    /// Requests that may still be opened.
    requests: Arc<Semaphore>,
    /// Bytes that may still be asked for.
    bytes: Arc<Semaphore>,
    /// Subscriptions that may still be opened.
    subscriptions: Arc<Semaphore>,
    /// Chunks in a run at most, so that the credit for all of them can be had at once.
    longest_run: usize,
    /// Nobody holds the session any more.
    pub(super) unwanted: CancellationToken,
    /// The session is over; `reason` says why.
    over: CancellationToken,
    reason: OnceLock<Error>,
}

impl Asker {
    /// Opens a session on a connection. It runs as one task among `tasks` and ends when they are told to stop.
    ///
    /// # Errors
    /// [`Error`]: the peer is of another network, too slow, or breaks the protocol.
    pub async fn open(conn: Conn, options: &Options, tasks: &Tasks) -> Result<Self, Error> {
        let Conn { peer, remote, stream, binding } = conn;
        let (meter, mut reader, mut writer) = split(stream);
        let ends = Ends { asker: &options.me, giver: &peer, binding: &binding };
        let (hello, version) = match hello::ask((&mut reader, &mut writer), options, &ends).await {
            Ok(heard) => heard,
            Err(error) => {
                writer.part(error.reason(), "").await;
                return Err(error);
            }
        };
        let (shared, out) = Shared::new(peer, version, options, meter, &hello);
        let shared = Arc::new(shared);
        tasks.spawn(
            "session asker",
            asking::run(Arc::clone(&shared), reader, writer, out, options.clone(), tasks.clone()),
        );
        Ok(Self { handle: Arc::new(Handle { shared }), remote })
    }

    /// Who gives.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.shared().peer
    }

    /// Where that one is, as seen from here.
    #[must_use]
    pub fn remote(&self) -> Option<IpAddr> {
        self.remote
    }

    /// Bytes read in this session, heads and all.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.shared().meter.received.load(Relaxed)
    }

    /// Bytes written in this session.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared().meter.sent.load(Relaxed)
    }

    /// Whether the session has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared().over.is_cancelled()
    }

    /// Completes when the session ends, with the reason. Cancel-safe.
    pub async fn closed(&self) -> Error {
        self.shared().over.cancelled().await;
        self.shared().reason()
    }

    /// How many requests and bytes the giver grants at once. Whoever shares the session shares them: a request beyond
    /// them waits for its turn.
    #[must_use]
    pub fn grant(&self) -> (usize, usize) {
        self.shared().grant
    }

    /// How many requests and bytes could be asked for now without waiting.
    #[cfg(test)]
    pub(super) fn room(&self) -> (usize, usize) {
        (self.shared().requests.available_permits(), self.shared().bytes.available_permits())
    }

    /// The top of an object's manifest, proved.
    ///
    /// # Errors
    /// [`Error::Lie`] when it does not prove `object`; else why the session ended.
    pub async fn top(&self, object: &ObjectId) -> Result<Answer<ManifestTop>, Error> {
        let object = *object;
        let answer = self.record(Record::Top, Ask::Top(object)).await?;
        self.prove(answer, move |bytes| ManifestTop::prove(object, &bytes)).await
    }

    /// Page `index` of the manifest that `top` begins, proved.
    ///
    /// # Errors
    /// As [`Asker::top`].
    pub async fn page(&self, top: &ManifestTop, index: usize) -> Result<Answer<ManifestPage>, Error> {
        let Some(number) = u32::try_from(index).ok().filter(|_| index < top.pages()) else {
            return Ok(Answer::NotFound);
        };
        let answer = self.record(Record::Page, Ask::Page(top.id(), number)).await?;
        let top = top.clone();
        self.prove(answer, move |bytes| ManifestPage::prove(&top, index, &bytes)).await
    }

    /// A parity part of an object: signed, which does not make it true.
    ///
    /// # Errors
    /// [`Error::Lie`] when it is not signed or is another object's; else why the session ended.
    pub async fn parity(&self, object: &ObjectId) -> Result<Answer<ParityPart>, Error> {
        let object = *object;
        let answer = self.record(Record::Parity, Ask::Parity(object)).await?;
        let check = move |bytes: Bytes| {
            let part = ParityPart::check(&bytes)?;
            let why = "it is another object's";
            let other = content::Error::Malformed { what: "parity part", why };
            if part.claim().object == object { Ok(part) } else { Err(other) }
        };
        self.prove(answer, check).await
    }

    /// Page `index` of a parity part: the one that its maker signed.
    ///
    /// # Errors
    /// As [`Asker::parity`].
    pub async fn parity_page(&self, part: &ParityPart, index: usize) -> Result<Answer<ParityPage>, Error> {
        let Some(digest) = part.pages().get(index).copied() else { return Ok(Answer::NotFound) };
        let ask = Ask::ParityPage(part.claim().object, digest);
        let answer = self.record(Record::ParityPage, ask).await?;
        let part = part.clone();
        self.prove(answer, move |bytes| ParityPage::prove(&part, index, &bytes)).await
    }

    /// A chunk. Waits for credit first, then for the bytes; dropping the future takes the request back.
    ///
    /// # Errors
    /// Why the session ended.
    pub async fn want(&self, chunk: ChunkRef) -> Result<Answer<Unproven>, Error> {
        self.want_counted(chunk, &Came::default()).await
    }

    /// As [`Asker::want`]; what has come of the chunk is counted meanwhile.
    ///
    /// # Errors
    /// Why the session ended.
    pub async fn want_counted(&self, chunk: ChunkRef, came: &Came) -> Result<Answer<Unproven>, Error> {
        if !chunk.is_valid() {
            // Nobody has such a chunk, and to ask for it would break the protocol.
            return Ok(Answer::NotFound);
        }
        let waiting = self.ask_chunks(vec![chunk], chunk.length, came, |_| Ask::Chunk(chunk)).await?;
        match waiting.into_iter().next() {
            Some(want) => want.await,
            None => Err(Error::Closed),
        }
    }

    /// Chunks `first` and following of an object whose manifest both ends hold, in one frame. Waits for credit for all
    /// of them, so a run must not be longer than [`Asker::grant`] ever is; of a longer one, or one with a
    /// chunk that does not stand there, only the beginning is asked for. Each [`Want`] that is dropped is taken back.
    ///
    /// # Errors
    /// Why the session ended.
    pub async fn want_run(
        &self,
        object: ObjectId,
        first: u64,
        chunks: &[ChunkRef],
    ) -> Result<Vec<Want>, Error> {
        // To ask for what is not a chunk of an object at its place would break the protocol.
        let fits = |(index, chunk): &(u64, &ChunkRef)| {
            chunk.is_valid() && chunk.place == Place::At(index.saturating_mul(CHUNK_LEN))
        };
        let chunks = (first..).zip(chunks).take(self.shared().longest_run).take_while(fits);
        let chunks: Vec<ChunkRef> = chunks.map(|(_, chunk)| *chunk).collect();
        let Ok(first) = u32::try_from(first) else { return Ok(Vec::new()) };
        if chunks.is_empty() {
            return Ok(Vec::new());
        }
        let ask = |count| Ask::Run { object, first, count };
        self.ask_chunks(chunks, MAX_COST, &Came::default(), ask).await
    }

    /// Which chunks of an object the giver holds, now and from now on, and who else asks for them; they are not told of
    /// this end.
    ///
    /// # Errors
    /// Why the session ended.
    pub async fn haves(&self, object: ObjectId) -> Result<Haves, Error> {
        self.subscribe(object, None).await
    }

    /// As [`Asker::haves`]; where this end gives chunks itself, others who ask for the object are told of it.
    ///
    /// # Errors
    /// Why the session ended.
    pub async fn join(&self, object: ObjectId) -> Result<Haves, Error> {
        let card = self.shared().signer.as_ref().and_then(|signer| signer.sign(unix_now()));
        self.subscribe(object, card).await
    }

    async fn subscribe(&self, object: ObjectId, card: Option<Bytes>) -> Result<Haves, Error> {
        let shared = self.shared();
        let credit = (shared.credit(&shared.subscriptions, 1).await?, None);
        let (news, updates) = mpsc::channel(NEWS);
        let _next = shared.subscribing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(card) = card {
            shared.out.try_send(Frame::Card(card)).map_err(|_| shared.reason())?;
        }
        let tickets = self.ask(vec![(Asked::Haves, Waiter::Many(news), credit)], |_| Ask::Haves(object))?;
        Ok(Haves { updates, _tickets: tickets })
    }

    async fn record(&self, record: Record, ask: Ask) -> Result<Answer<Bytes>, Error> {
        let shared = self.shared();
        let credit = (shared.credit(&shared.requests, 1).await?, None);
        let (reply, answer) = oneshot::channel();
        let _tickets = self.ask(vec![(Asked::Record(record), Waiter::One(reply), credit)], |_| ask)?;
        answer.await.map_err(|_| shared.reason())
    }

    /// Checks off the runtime what a giver sent.
    async fn prove<T: Send + 'static>(
        &self,
        answer: Answer<Bytes>,
        check: impl FnOnce(Bytes) -> Result<T, content::Error> + Send + 'static,
    ) -> Result<Answer<T>, Error> {
        match answer {
            Answer::Found(bytes) => Ok(Answer::Found(self.shared().pool.run(move || check(bytes)).await?)),
            Answer::NotFound => Ok(Answer::NotFound),
            Answer::Busy(after) => Ok(Answer::Busy(after)),
        }
    }

    /// Asks for chunks that count for `cost` bytes each, and counts what comes of them together.
    async fn ask_chunks(
        &self,
        chunks: Vec<ChunkRef>,
        cost: u32,
        came: &Came,
        ask: impl FnOnce(u16) -> Ask,
    ) -> Result<Vec<Want>, Error> {
        let shared = self.shared();
        let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        // Always in this order, so that two who wait never hold what the other needs.
        let mut requests = shared.credit(&shared.requests, count).await?;
        let mut bytes = shared.credit(&shared.bytes, count.saturating_mul(cost)).await?;
        let (mut asked, mut answers) = (Vec::new(), Vec::new());
        for chunk in &chunks {
            let (reply, answer) = oneshot::channel();
            let one: Option<Credit> = requests.split(1).map(|one| (one, bytes.split(cost as usize)));
            let chunk = Asked::Chunk(chunk.length, came.clone());
            asked.push((chunk, Waiter::One(reply), one.ok_or(Error::Closed)?));
            answers.push(answer);
        }
        let tickets = self.ask(asked, ask)?;
        let wants = tickets.into_iter().zip(answers).zip(chunks);
        Ok(wants.map(|((ticket, answer), chunk)| Want { chunk, answer, ticket }).collect())
    }

    /// Opens requests and sends the frame that asks for them.
    fn ask(
        &self,
        asked: Vec<(Asked, Waiter, Credit)>,
        ask: impl FnOnce(u16) -> Ask,
    ) -> Result<Vec<Ticket>, Error> {
        let count = u16::try_from(asked.len()).unwrap_or(u16::MAX);
        let shared = self.shared();
        let first = shared.pending.open(asked).ok_or_else(|| shared.reason())?;
        let ticket = |step| Ticket { asker: self.clone(), request: first.wrapping_add(step) };
        let tickets = (0..u32::from(count)).map(ticket).collect();
        shared.out.try_send(Frame::Ask(first, ask(count))).map_err(|_| shared.reason())?;
        Ok(tickets)
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.handle.shared
    }
}

impl Shared {
    fn new(
        peer: PeerId,
        version: u16,
        options: &Options,
        meter: Arc<Meter>,
        hello: &Hello,
    ) -> (Self, mpsc::Receiver<Frame>) {
        let requests = hello.requests.min(MAX_REQUESTS) as usize;
        let bytes = hello.bytes.min(MAX_BYTES) as usize;
        // An ask and a cancel of each, a card of each subscription, and pings.
        let (out, frames) = mpsc::channel(2 * requests + 3 * SUBSCRIPTIONS + 8);
        let shared = Self {
            peer,
            version,
            pool: options.pool.clone(),
            signer: options.card.clone().filter(|_| version >= CROWDS),
            subscribing: Mutex::default(),
            pending: Pending::default(),
            meter,
            out,
            grant: (requests, bytes),
            requests: Arc::new(Semaphore::new(requests)),
            bytes: Arc::new(Semaphore::new(bytes)),
            subscriptions: Arc::new(Semaphore::new(SUBSCRIPTIONS)),
            longest_run: requests.min(bytes / CHUNK),
            unwanted: CancellationToken::new(),
            over: CancellationToken::new(),
            reason: OnceLock::new(),
        };
        (shared, frames)
    }

    /// The session is over: lets everyone go who waits.
    pub(super) fn end(&self, error: Error) {
        // Only the session's task ends it, once.
        let _ = self.reason.set(error);
        for credit in [&self.requests, &self.bytes, &self.subscriptions] {
            credit.close();
        }
        self.pending.over();
        self.over.cancel();
    }

    pub(super) fn reason(&self) -> Error {
        self.reason.get().cloned().unwrap_or(Error::Closed)
    }

    async fn credit(&self, of: &Arc<Semaphore>, count: u32) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(of).acquire_many_owned(count).await.map_err(|_| self.reason())
    }
}
