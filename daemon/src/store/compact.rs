//! Copying forward what is left of segments on file systems that cannot punch holes.
//!
//! Owns: which segments are worth it (those under half live), and the order: a record is durable in its new place
//! before its old one counts as retired; when nothing else is left in a segment, it is unlinked. Refuses: the segment
//! that is being filled. Survives a crash: the records, once or twice; the next start knows both and goes on with the
//! later.

use super::Error;
use super::handle::{Inner, Store};
use super::index::Entry;
use super::record::{Key, Record};
use super::space;

impl Store {
    /// Copies the live records of segments that are at least half retired, so that they can be unlinked. Gives the
    /// bytes that came free. Where holes can be punched there are none.
    /// What fails is logged: the removal that came before it has been done.
    pub(super) async fn copy_forward(&self) -> u64 {
        let before = self.inner.catalog.space.account().stored;
        if let Err(error) = self.copy_all().await {
            tracing::warn!(%error, "what is left of a segment could not be copied forward; its room is not free yet");
        }
        before.saturating_sub(self.inner.catalog.space.account().stored)
    }

    async fn copy_all(&self) -> Result<(), Error> {
        let inner = &self.inner;
        for number in inner.catalog.half_retired(inner.appender.segment()) {
            let live = self.blocking(move |inner| inner.catalog.live_in(number)).await?;
            let cost: u64 = live.iter().map(|(_, entry)| space::cost(entry.length, entry.zero)).sum();
            // Where there is no room for the copies, the records stay where they are.
            let Ok(mut room) = inner.catalog.space.promise(cost) else { continue };
            let mut last = 0;
            for (key, entry) in live {
                let Some(record) = self.blocking(move |inner| inner.copy_of(&key, &entry)).await? else {
                    continue;
                };
                let room = room.take(record.cost());
                last = inner.appender.append_again(record, room).await?;
            }
            drop(room);
            // What waits for the disk enters the copies in the index, and retires the others.
            inner.appender.durable(last).await?;
        }
        Ok(())
    }
}

impl Inner {
    /// A record as it is to be written again; `None` for one that is bad: then it is retired.
    fn copy_of(&self, key: &Key, entry: &Entry) -> Result<Option<Record>, Error> {
        let record = self.catalog.load(entry)?.filter(|record| record.header.key == *key);
        if record.is_none() {
            self.catalog.damaged(key, entry);
            let retired = self.catalog.sweep().retire(key)?.map(|entry| (*key, entry));
            self.catalog.punch(retired.into_iter().collect(), self.appender.segment(), &self.health)?;
        }
        Ok(record)
    }
}
