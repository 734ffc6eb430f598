//! Jobs: fetches that go on without their caller, as the journal has them.
//!
//! Owns: what of a job outlives the process: what is fetched, for whom, and how. Refuses: to know how far it is, and to
//! do it: whoever runs jobs takes them up again after a start. Survives a crash: every job that was entered and not
//! ended. What a job has brought so far is kept as long as the job is there: see [`Inner::is_leased`].

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};

use super::handle::{Inner, Store};
use super::journal::Fact;
use super::object::{Fields, ObjectInfo, State};
use super::record::Key;
use super::{Error, now};
use crate::content::ObjectId;

/// The most peers that a job names.
pub const MAX_JOB_PEERS: usize = 64;

/// The longest address of one, in bytes.
pub const MAX_JOB_PEER: usize = 512;

const FLAG_PIN: u8 = 1;
const FLAG_TREE: u8 = 2;

/// Which of a user's jobs begins first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// When no other waits.
    Low,
    /// In its turn.
    #[default]
    Normal,
    /// Before the others.
    High,
}

/// Jobs by their numbers.
pub(super) type Jobs = BTreeMap<u64, Job>;

/// What the journal learns of changes to jobs. `None`: ended.
pub(super) fn facts(changes: &BTreeMap<u64, Option<Job>>) -> impl Iterator<Item = Fact> {
    changes.iter().map(|(number, job)| job.clone().map_or(Fact::Ended(*number), Fact::Job))
}

/// A fetch that goes on without its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its number, from 1; of those that are there no two have the same.
    pub number: u64,
    /// What is fetched.
    pub object: ObjectId,
    /// Whether it is a directory, and all that is in it is fetched as well.
    pub tree: bool,
    /// The user whose it is.
    pub uid: u32,
    /// Whether that user pins it at the end.
    pub pin: bool,
    /// When it begins among others.
    pub priority: Priority,
    /// When it was entered, in Unix seconds.
    pub since: u64,
    /// Addresses to ask at besides those that are found: at most [`MAX_JOB_PEERS`] of [`MAX_JOB_PEER`] bytes.
    pub peers: Vec<String>,
}

impl Job {
    /// Whether it is within the limits of its format.
    pub(super) fn is_valid(&self) -> bool {
        let fits = |peer: &String| (1..=MAX_JOB_PEER).contains(&peer.len());
        let is_something = self.number > 0 && self.object != ObjectId::EMPTY;
        is_something && self.peers.len() <= MAX_JOB_PEERS && self.peers.iter().all(fits)
    }

    /// Its fields as the journal has them (`docs/storage-format.md`, "Journal").
    #[expect(clippy::cast_possible_truncation, reason = "peers and their addresses are limited")]
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.number);
        out.put_slice(self.object.as_bytes());
        out.put_u32_le(self.uid);
        let flag = |is_set, flag: u8| if is_set { flag } else { 0 };
        out.put_u8(flag(self.pin, FLAG_PIN) | flag(self.tree, FLAG_TREE));
        out.put_u8(match self.priority {
            Priority::Low => 0,
            Priority::Normal => 1,
            Priority::High => 2,
        });
        out.put_u64_le(self.since);
        out.put_u8(self.peers.len() as u8);
        for peer in &self.peers {
            out.put_u16_le(peer.len() as u16);
            out.put_slice(peer.as_bytes());
        }
    }

    /// Reads what [`Job::encode`] wrote; `None` for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let number = u64::from_le_bytes(fields.array()?);
        let object = ObjectId::from_bytes(fields.array()?);
        let uid = u32::from_le_bytes(fields.array()?);
        let [flags, priority] = fields.array()?;
        let priority = match priority {
            0 => Priority::Low,
            1 => Priority::Normal,
            2 => Priority::High,
            _ => return None,
        };
        let since = u64::from_le_bytes(fields.array()?);
        let [count] = fields.array()?;
        let peers = (0..count).map(|_| {
            let size = usize::from(u16::from_le_bytes(fields.array()?));
            String::from_utf8(fields.take(size)?.to_vec()).ok()
        });
        let peers = peers.collect::<Option<Vec<_>>>()?;
        let (pin, tree) = (flags & FLAG_PIN != 0, flags & FLAG_TREE != 0);
        fields.0.is_empty().then_some(Self { number, object, tree, uid, pin, priority, since, peers })
    }
}

impl Store {
    /// The jobs that were entered and not ended, by their numbers.
    #[must_use]
    pub fn jobs(&self) -> Vec<Job> {
        self.inner.ledger.jobs().values().cloned().collect()
    }

    /// Enters a job, or changes the one of its number. Durable when it returns. Whoever enters several chooses numbers
    /// that are free, and how many there are.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::ReadOnly`], [`Error::DiskFull`], [`Error::Io`].
    pub async fn set_job(&self, job: Job) -> Result<(), Error> {
        if !job.is_valid() {
            return Err(Error::Invalid("a job is beyond its limits"));
        }
        let change = move |draft: &mut super::draft::Draft<'_>| {
            draft.changes.jobs.insert(job.number, Some(job));
            Ok(())
        };
        self.inner.change(change).await
    }

    /// Ends a job: nothing is left of it but what it brought, which is kept for a day from now on where it is not
    /// whole; on a full disk, where the job may be what fills it, that day is not begun anew. Durable when it returns.
    /// That there is none of this number is no error.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::DiskFull`], [`Error::Io`].
    pub async fn end_job(&self, number: u64) -> Result<(), Error> {
        let job = self.inner.ledger.jobs().get(&number).cloned();
        let Some(job) = job else { return Ok(()) };
        let change = move |draft: &mut super::draft::Draft<'_>| {
            draft.changes.jobs.insert(number, None);
            if let Some(begun) = draft.get(&job.object).filter(|info| info.state == State::Partial).cloned() {
                draft.set(ObjectInfo { added: now(), ..begun });
            }
            Ok(())
        };
        match self.inner.change(change).await {
            // What only removes has the ballast.
            Err(Error::DiskFull(_)) => {
                let end = move |draft: &mut super::draft::Draft<'_>| {
                    draft.changes.jobs.insert(number, None);
                    Ok(())
                };
                self.inner.change(end).await
            }
            done => done,
        }
    }
}

impl Inner {
    /// Whether an object stays although nobody has pinned it: a lease holds its first record, or a job is to bring the
    /// rest of it.
    pub(super) fn is_leased(&self, info: &ObjectInfo) -> bool {
        let has_job = || self.ledger.jobs().values().any(|job| job.object == info.id);
        let is_wanted = info.state == State::Partial && has_job();
        is_wanted || self.catalog.is_kept(&Key::first(&info.id, info.length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_reads_back_and_nothing_shorter_does(
            number in 1u64.., tree: bool, uid: u32, pin: bool, since: u64, level in 0usize..3,
            peers in proptest::collection::vec("[a-zé@:]{1,40}", 0..4),
        ) {
            let priority = [Priority::Low, Priority::Normal, Priority::High][level];
            let object = ObjectId::from_bytes([7; 32]);
            let job = Job { number, object, tree, uid, pin, priority, since, peers };
            prop_assert!(job.is_valid());
            let mut out = BytesMut::new();
            job.encode(&mut out);
            prop_assert_eq!(Job::decode(&out), Some(job));
            for length in 0..out.len() {
                prop_assert_eq!(Job::decode(&out[..length]), None);
            }
        }
    }
}
