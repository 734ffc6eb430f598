//! The store's face: opening, objects, pins, closing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::append::Appender;
use super::ballast::Ballast;
use super::catalog::{Catalog, DAMAGE_QUEUE, Damage};
use super::disk::Disk;
use super::health::Health;
use super::index::Index;
use super::journal::{Fact, Journal};
use super::lease::Lease;
use super::ledger::{Found, Ledger};
use super::object::{MAX_NAME, NewObject, ObjectInfo, State};
use super::progress::Gauge;
use super::public::Public;
use super::record::Key;
use super::recordless::{self, Recordless};
use super::recover;
use super::relieve::InVain;
use super::segment::Segments;
use super::space::Space;
use super::usage::Survey;
use super::used::Used;
use super::{Error, open};
use crate::content::ObjectId;
use crate::support::pool::Pool;
use crate::support::task::Tasks;

/// How long [`Store::close`] waits for what was accepted to be written: the queue holds 16 MiB.
const CLOSE_WITHIN: Duration = Duration::from_secs(30);

/// A store's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes that the store may use, with headers and index; 0: no limit.
    pub quota: u64,
    /// Bytes of the file system that are to stay free.
    pub reserve: u64,
    /// Bytes of memory for the index's cache. 32 MiB hold the entries of about 100 GiB of 1 MiB chunks; the daemon
    /// is to stay under 150 MiB.
    pub index_cache: u64,
    /// How large files become.
    pub sizes: Sizes,
}

/// How large the store's files become. Others than these are for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of records in a segment at most; its footer comes on top. At most 1 GiB.
    pub segment: u64,
    /// A journal shorter than this is never written anew.
    pub journal: u64,
    /// Bytes that are given up on a full disk, so that a removal can be written.
    pub ballast: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        // A batch of removals is 64 KiB.
        Self { segment: 1 << 30, journal: 1 << 20, ballast: 4 << 20 }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { quota: 0, reserve: 1 << 30, index_cache: 32 << 20, sizes: Sizes::default() }
    }
}

/// An open store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
}

/// What clones and leases share.
pub(super) struct Inner {
    pub(super) pool: Pool,
    pub(super) catalog: Arc<Catalog>,
    pub(super) appender: Appender,
    pub(super) ledger: Ledger,
    pub(super) health: Arc<Health>,
    pub(super) disk: Arc<dyn Disk>,
    /// The appender's and the ledger's tasks.
    pub(super) tasks: Tasks,
    /// What was counted last of what no whole object needs.
    pub(super) survey: Arc<Survey>,
    /// When objects were last read.
    pub(super) used: Used,
    /// The chunks that others may have.
    pub(super) public: Public,
    /// Taken once, by whoever heals.
    damage: Mutex<Option<mpsc::Receiver<Damage>>>,
    /// The last run did not end in order.
    pub(super) unclean: bool,
    /// Held while the state folder is looked at.
    pub(super) examined: tokio::sync::Mutex<()>,
    /// How far the index is.
    pub(super) gauge: Arc<Gauge>,
    /// When room was last looked for in vain. Held while it is looked for.
    pub(super) in_vain: tokio::sync::Mutex<Option<InVain>>,
    /// Objects of which no segment has anything.
    pub(super) recordless: Recordless,
    /// Leases that ended and had kept something.
    pub(super) ended: AtomicU64,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without a close the tasks end as well: with what they have at hand.
        self.tasks.stop();
    }
}

impl Store {
    /// Opens the store on `disk`, making it when there is none. Blocks; must be called within a tokio runtime, on which
    /// the store's tasks then run. One of them brings the index up to what the last run left: meanwhile what it knows
    /// is read, and whoever misses a record, writes or removes waits.
    ///
    /// # Errors
    /// [`Error::Folder`], [`Error::Locked`], [`Error::TooNew`], [`Error::Damaged`], [`Error::Io`],
    /// [`Error::Index`].
    pub fn open(options: &Options, disk: Arc<dyn Disk>, pool: Pool) -> Result<Self, Error> {
        let lock = open::prepare(disk.as_ref())?;
        let key = open::key(disk.as_ref())?;
        let mut health = Health::open(Arc::clone(&disk), lock);
        let (mut objects, mut jobs) = (BTreeMap::new(), BTreeMap::new());
        let journal = Journal::open(Arc::clone(&disk), key, options.sizes.journal, |fact| match fact {
            Fact::Key(_) => {}
            Fact::Object(info) => drop(objects.insert(info.id, info)),
            Fact::Removed(id) => drop(objects.remove(&id)),
            Fact::Job(job) => drop(jobs.insert(job.number, job)),
            Fact::Ended(number) => drop(jobs.remove(&number)),
        })?;
        if let Some(error) = journal.unread() {
            // What is known is served; to write would be to go by half of what was promised.
            let _ = health.fail("read all of the journal", error);
        }
        health.journal_read(journal.end(), journal.lost());
        let health = Arc::new(health);
        let segments = Segments::list(Arc::clone(&disk)).map_err(Error::io("list segments"))?;
        let is_cut = health.journal_loss().cut.is_some();
        let unclean = is_cut || (health.closed().is_none() && !segments.numbers().is_empty());
        let gauge = Arc::new(Gauge::new());
        let index = Index::open(disk.as_ref(), options.index_cache, &key, Arc::clone(&gauge));
        let space = Space::new(Arc::clone(&disk), options.quota, options.reserve);
        let (told, damage) = mpsc::channel(DAMAGE_QUEUE);
        let catalog = Arc::new(Catalog::new(key, segments, index, space, told));
        let (tail, recovery) = recover::tail(&catalog, &health)?;
        let tasks = Tasks::new();
        let recovered = recovery.run(pool.clone(), tasks.clone(), Arc::clone(&gauge));
        tasks.spawn("store-recover", recovered);
        let segment = options.sizes.segment;
        let appender =
            Appender::start(Arc::clone(&catalog), Arc::clone(&health), tail, segment, &pool, &tasks);
        let ballast = Ballast::open(Arc::clone(&disk), options.sizes.ballast);
        let told = (journal, objects, jobs);
        let ledger = Ledger::start(told, Arc::clone(&health), ballast, pool.clone(), &tasks);
        let damage = Mutex::new(Some(damage));
        let in_vain = tokio::sync::Mutex::new(None);
        let survey = Arc::new(Survey::default());
        let used = Used::open(disk.as_ref(), key);
        let inner = Inner {
            pool,
            catalog,
            appender,
            ledger,
            health,
            disk,
            tasks,
            survey,
            used,
            public: Public::default(),
            unclean,
            examined: tokio::sync::Mutex::new(()),
            damage,
            gauge,
            in_vain,
            recordless: Recordless::default(),
            ended: AtomicU64::new(0),
        };
        let inner = Arc::new(inner);
        let find = recordless::find(Arc::downgrade(&inner), Arc::clone(&inner.gauge), inner.tasks.clone());
        inner.tasks.spawn("store-recordless", find);
        Ok(Self { inner })
    }

    /// Writes what was accepted, makes it durable, and marks the store as closed in order. Later calls that
    /// write give [`Error::Closed`]. The folder stays locked until the last clone and lease are dropped.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] when the disk failed, [`Error::Io`], [`Error::Index`].
    pub async fn close(&self) -> Result<(), Error> {
        let running = self.inner.tasks.drain(CLOSE_WITHIN).await;
        self.blocking(move |inner| {
            inner.appender.finish()?;
            inner.save_used();
            // It is a cache: the next start makes of it what it can.
            let _ = inner.catalog.index.flush();
            // An index that is not whole is checked again by the next start.
            if running == 0 && inner.is_whole() && inner.catalog.has_all() {
                inner.health.close(inner.catalog.index.sum().1, inner.ledger.journal_end())
            } else {
                Ok(())
            }
        })
        .await
    }

    /// Waits until the index names every record, so that what is not found is not there.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] when the disk failed, [`Error::Closed`].
    pub async fn recovered(&self) -> Result<(), Error> {
        self.inner.whole().await
    }

    /// A new lease, under which to write.
    #[must_use]
    pub fn lease(&self) -> Lease {
        Lease::new(Arc::clone(&self.inner))
    }

    /// What is known of an object, whole or partial (see its state).
    #[must_use]
    pub fn object(&self, id: &ObjectId) -> Option<ObjectInfo> {
        self.inner.ledger.get(id)
    }

    /// Up to `limit` whole objects in the order of their ids, from behind `after` on.
    #[must_use]
    pub fn objects(&self, after: Option<ObjectId>, limit: usize) -> Vec<ObjectInfo> {
        self.inner.ledger.page(State::Whole, after, limit)
    }

    /// The objects that are never to be announced, served or placed. The same set as long as nothing changes in it.
    #[must_use]
    pub fn private_objects(&self) -> Arc<BTreeSet<ObjectId>> {
        self.inner.ledger.private()
    }

    /// As [`Store::objects`], of those that are being fetched.
    #[must_use]
    pub fn partials(&self, after: Option<ObjectId>, limit: usize) -> Vec<ObjectInfo> {
        self.inner.ledger.page(State::Partial, after, limit)
    }

    /// The whole object of this name, or whose id is this or begins with it (8 to 64 digits). Names go first.
    #[must_use]
    pub fn find(&self, text: &str) -> Found {
        self.inner.ledger.find(text)
    }

    /// Pins an object for a user. `Ok(false)`: there is no such whole object. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::DiskFull`], [`Error::Io`], [`Error::Invalid`] for too many pins.
    pub async fn pin(&self, id: &ObjectId, uid: u32) -> Result<bool, Error> {
        let now = super::now();
        self.edit(id, move |info| info.pin(uid, now).map(|_| ())).await
    }

    /// Takes a user's pin away; the object stays, as a cached one when it was the last. `Ok(false)`: there is no
    /// such whole object. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::DiskFull`], [`Error::Io`].
    pub async fn unpin(&self, id: &ObjectId, uid: u32) -> Result<bool, Error> {
        self.edit(id, move |info| {
            info.unpin(uid);
            Ok(())
        })
        .await
    }

    /// Lets an object's name leave this node, or no more; `name` is what it is called from now on. `Ok(false)`: there
    /// is no such whole object. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::DiskFull`], [`Error::Io`], [`Error::Privacy`] where a private one is to be
    /// published, [`Error::Invalid`] for a name that is none.
    pub async fn publish(&self, id: &ObjectId, publish: bool, name: Option<String>) -> Result<bool, Error> {
        if name.as_ref().is_some_and(|name| name.is_empty() || name.len() > MAX_NAME) {
            return Err(Error::Invalid("an object's name has 1 to 1024 bytes"));
        }
        self.edit(id, move |info| {
            if publish && info.private {
                return Err(Error::Privacy { private: true });
            }
            info.publish = publish;
            info.name = name.or_else(|| info.name.take());
            Ok(())
        })
        .await
    }

    async fn edit(
        &self,
        id: &ObjectId,
        edit: impl FnOnce(&mut ObjectInfo) -> Result<(), Error> + Send + 'static,
    ) -> Result<bool, Error> {
        let id = *id;
        let change = move |draft: &mut super::draft::Draft<'_>| {
            let Some(old) = draft.get(&id).filter(|info| info.state == State::Whole) else {
                return Ok(false);
            };
            let mut info = old.clone();
            edit(&mut info)?;
            if info != *old {
                draft.set(info);
            }
            Ok(true)
        };
        self.inner.change(change).await
    }

    /// What failed, in words, when a write has: nothing more is written until casd is restarted.
    #[must_use]
    pub fn read_only(&self) -> Option<String> {
        self.inner.health.failed().map(|(why, _)| why.clone())
    }

    /// Counts what has been let go of, by whomever: as long as it stays the same, all that was held still is.
    #[must_use]
    pub fn let_go(&self) -> u64 {
        self.inner.ledger.let_go()
    }

    /// Where damage is told of. Gives it once.
    #[must_use]
    pub fn take_damage(&self) -> Option<mpsc::Receiver<Damage>> {
        self.inner.damage.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Inner {
    /// As [`Ledger::change`]; a refusal for want of room says what takes it.
    pub(super) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut super::draft::Draft<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        match self.ledger.change(change).await {
            Err(error) => Err(self.explained(error).await),
            done => done,
        }
    }

    /// Whether the index names every record.
    pub(super) fn is_whole(&self) -> bool {
        self.gauge.is_whole()
    }

    /// Waits until the index names every record: before that a record that it does not name may be there all the same.
    pub(super) async fn whole(&self) -> Result<(), Error> {
        tokio::select! {
            biased;
            whole = self.gauge.whole() => whole,
            () = self.tasks.stopping() => Err(Error::Closed),
        }
    }

    /// Looks for something when the index names every record, again when the index broke meanwhile.
    pub(super) async fn look<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl Fn(&Self) -> Result<Option<T>, Error> + Send + Sync + 'static,
    ) -> Result<Option<T>, Error> {
        let call = Arc::new(call);
        loop {
            self.whole().await?;
            let (inner, call, breaks) = (Arc::clone(self), Arc::clone(&call), self.gauge.breaks());
            let found = self.pool.run(move || call(&inner)).await?;
            if found.is_some() || self.gauge.breaks() == breaks {
                return Ok(found);
            }
        }
    }

    /// As [`Inner::look`], of many: with any of them missed all are looked for again.
    pub(super) async fn look_all<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl Fn(&Self) -> Result<(Vec<bool>, T), Error> + Send + Sync + 'static,
    ) -> Result<(Vec<bool>, T), Error> {
        let call = Arc::new(call);
        loop {
            self.whole().await?;
            let (inner, call, breaks) = (Arc::clone(self), Arc::clone(&call), self.gauge.breaks());
            let (there, more) = self.pool.run(move || call(&inner)).await?;
            if there.iter().all(|there| *there) || self.gauge.breaks() == breaks {
                return Ok((there, more));
            }
        }
    }

    /// As [`Inner::look`], of what walks the whole index, which cannot go on with another one.
    pub(super) async fn walk<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl Fn(&Self) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let call = Arc::new(call);
        loop {
            self.whole().await?;
            let (inner, call, breaks) = (Arc::clone(self), Arc::clone(&call), self.gauge.breaks());
            match self.pool.run(move || call(&inner)).await {
                Err(Error::Index(_)) if self.gauge.breaks() != breaks => {}
                done => return done,
            }
        }
    }

    /// An object without its only chunk, or without the top of its manifest, is none.
    pub(super) async fn require_first_records(self: &Arc<Self>, objects: &[NewObject]) -> Result<(), Error> {
        let keys = objects.iter().map(|object| Key::first(&object.id, object.length));
        let unsure: Vec<Key> = keys.filter(|key| !self.catalog.is_fresh(key)).collect();
        if unsure.is_empty() {
            return Ok(());
        }
        let look = move |inner: &Self| {
            for key in &unsure {
                if inner.catalog.find(key)?.is_none() {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        };
        match self.look(look).await? {
            Some(()) => Ok(()),
            None => Err(Error::Invalid("the object's chunk or manifest has not been stored")),
        }
    }
}
