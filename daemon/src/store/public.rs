//! What others may have: the chunks of public objects, and nothing else of what is on disk.
//!
//! Owns: a list of the chunks of all public objects of more than one, made when it is first needed and added to as
//! objects come. Refuses: chunks of private objects, also while those are added or after they are removed, and
//! leftovers, of which nobody knows whose they were. Survives a crash: nothing; it is read again from the manifests.
//!
//! An object that goes takes nothing off the list: whoever finds a chunk on it asks the ledger whether one of the
//! objects that it was listed for is still there, and public. So the answer is right at once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex as AsyncMutex;

use super::record::Key;
use super::{Error, Inner, Store};
use crate::content::{ChunkId, ChunkRef, ObjectId};

/// Objects whose manifests could not be read are not tried again before this.
const REST: Duration = Duration::from_secs(10);

/// A list shorter than this is not looked through for what has gone.
const SHORT: usize = 1 << 16;

/// An object, with the parity that is stored with it.
type Item = (ObjectId, Option<(u8, u8)>);

/// See the module.
#[derive(Default)]
pub(super) struct Public {
    listed: Mutex<Arc<Listed>>,
    /// Held while it is added to: objects that could not be listed, and when that was found.
    missed: AsyncMutex<Option<(Instant, Vec<Item>)>>,
}

/// Chunks by object. 12 bytes a chunk, as there may be millions.
#[derive(Clone, Default)]
struct Listed {
    /// The first eight bytes of a chunk's id, and the number of an object that has it; sorted.
    rows: Vec<[u32; 3]>,
    objects: Vec<ObjectId>,
    /// What was listed of each last.
    known: HashMap<ObjectId, Known>,
    /// It is looked through when it has so many rows.
    full: usize,
}

/// What was listed of an object.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Known {
    parity: Option<(u8, u8)>,
    chunks: usize,
    /// All could be told.
    is_all: bool,
}

/// The first bytes of an id are as good as random, and another with the same eight cannot be made up.
fn print(id: &ChunkId) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h, ..] = *id.as_bytes();
    [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])]
}

impl Listed {
    /// The objects for which a chunk was listed.
    fn objects_of(&self, id: &ChunkId) -> impl Iterator<Item = &ObjectId> {
        let print = print(id);
        let from = self.rows.partition_point(|row| row[..2] < print[..]);
        let rows = self.rows[from..].iter().take_while(move |row| row[..2] == print[..]);
        rows.filter_map(|row| self.objects.get(row[2] as usize))
    }

    /// Adds what could be read of an object; [`Listed::sort`] comes after.
    fn add(&mut self, (object, parity): Item, chunks: &[ChunkId], is_all: bool) {
        let known = Known { parity, chunks: chunks.len(), is_all };
        let before = self.known.insert(object, known);
        // What cannot be read now, and could not before, is not listed over and over.
        let is_more = before.is_none_or(|before| before.parity != parity || before.chunks < known.chunks);
        if let (true, Ok(number)) = (is_more, u32::try_from(self.objects.len())) {
            self.objects.push(object);
            self.rows.extend(chunks.iter().map(print).map(|[high, low]| [high, low, number]));
        }
    }

    /// Most of it is in order already.
    fn sort(&mut self) {
        self.rows.sort();
    }

    /// Takes out what is listed of objects that are not `public` any more.
    fn trim(&mut self, public: impl Fn(&ObjectId) -> bool) {
        if self.rows.len() < self.full.max(SHORT) {
            return;
        }
        let (mut objects, mut numbers) = (Vec::new(), Vec::with_capacity(self.objects.len()));
        for object in &self.objects {
            let stays = public(object);
            numbers.push(u32::try_from(objects.len()).ok().filter(|_| stays));
            objects.extend(stays.then_some(*object));
        }
        // Those that stay keep their order, and so do the rows.
        self.rows.retain_mut(|row| {
            let number = numbers.get(row[2] as usize).copied().flatten();
            row[2] = number.unwrap_or_default();
            number.is_some()
        });
        let stay: HashSet<&ObjectId> = objects.iter().collect();
        self.known.retain(|object, _| stay.contains(object));
        self.objects = objects;
        self.full = 2 * self.rows.len();
    }
}

impl Public {
    fn listed(&self) -> MutexGuard<'_, Arc<Listed>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Whether others may have a chunk: it is of a public object, whole or being fetched, or of a public directory that
    /// is being fetched. A look-up in memory, but for the first time after long objects came, when their manifests are
    /// read. It says nothing of whether the chunk is here.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Closed`] when the index cannot be brought up.
    pub async fn is_public(&self, chunk: &ChunkRef) -> Result<bool, Error> {
        if self.inner.is_listed(chunk) {
            return Ok(true);
        }
        self.list_public().await?;
        Ok(self.inner.is_listed(chunk))
    }

    /// Lists what has come since the last time.
    async fn list_public(&self) -> Result<(), Error> {
        let inner = &self.inner;
        let mut missed = inner.public.missed.lock().await;
        let was_whole = inner.is_whole();
        let mut items = inner.ledger.take_unlisted();
        if items.is_empty() && missed.as_ref().is_none_or(|(at, _)| was_whole && at.elapsed() < REST) {
            return Ok(());
        }
        items.extend(missed.take().into_iter().flat_map(|(_, items)| items));
        // Whoever asks may go away meanwhile.
        *missed = Some((Instant::now(), items.clone()));
        let mut rest = self.blocking(move |inner| inner.list(items)).await;
        if !rest.is_empty() && !was_whole {
            inner.whole().await?;
            rest = self.blocking(move |inner| inner.list(rest)).await;
        }
        *missed = (!rest.is_empty()).then(|| (Instant::now(), rest));
        Ok(())
    }
}

impl Inner {
    /// Whether a chunk is known to be of something public.
    fn is_listed(&self, chunk: &ChunkRef) -> bool {
        let alone = chunk.id.whole_object(chunk.place);
        if alone.is_some_and(|object| self.ledger.is_public(&object)) {
            return true;
        }
        let listed = Arc::clone(&self.public.listed());
        if listed.objects_of(&chunk.id).any(|object| self.ledger.is_public(object)) {
            return true;
        }
        let is_private = alone.is_some_and(|object| self.ledger.contains(&object));
        !is_private && self.catalog.is_shared(&Key::data(&chunk.id))
    }

    /// Lists objects. Gives those of which something cannot be read. Blocks.
    fn list(&self, items: Vec<Item>) -> Vec<Item> {
        let mut listed = Listed::clone(&self.public.listed());
        let is_known = |listed: &Listed, (object, parity): &Item| {
            listed.known.get(object).is_some_and(|known| known.is_all && known.parity == *parity)
        };
        let mut rest = Vec::new();
        for item in items {
            if is_known(&listed, &item) || !self.ledger.is_public(&item.0) {
                continue;
            }
            let mut chunks = Vec::new();
            let is_all = matches!(self.chunks_of(&item, &mut chunks), Ok(Some(())));
            listed.add(item, &chunks, is_all);
            rest.extend((!is_all).then_some(item));
        }
        listed.sort();
        listed.trim(|object| self.ledger.is_public(object));
        *self.public.listed() = Arc::new(listed);
        rest
    }

    /// The chunks of an object of more than one, with its parity; `None` when not all of them can be told. Nobody asks
    /// for those that are all zeros: the manifest says so.
    fn chunks_of(&self, (object, parity): &Item, chunks: &mut Vec<ChunkId>) -> Result<Option<()>, Error> {
        let Some(top) = self.top(object)? else { return Ok(None) };
        let mut is_all = true;
        for index in 0..top.pages() {
            let Some(page) = self.page(&top, index)? else {
                is_all = false;
                continue;
            };
            let ids = page.ids().iter().enumerate().filter(|(at, _)| !page.is_zero(*at));
            chunks.extend(ids.map(|(_, id)| *id));
        }
        if let Some((k, m)) = parity {
            let Some(part) = self.parity_part(object, *k, *m)? else { return Ok(None) };
            for index in 0..part.pages().len() {
                match self.parity_page(&part, index)? {
                    Some(page) => chunks.extend(page.ids()),
                    None => is_all = false,
                }
            }
        }
        Ok(is_all.then_some(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_gone_is_taken_off_a_long_list_and_the_rest_stays() {
        let object = |number: u8| ObjectId::from_bytes([number; 32]);
        let chunk = |object: u8, number: usize| {
            ChunkId::from_bytes(*blake3::hash(&[&[object][..], &number.to_le_bytes()].concat()).as_bytes())
        };
        let mut listed = Listed::default();
        for number in 0..4 {
            let chunks: Vec<ChunkId> = (0..SHORT / 4).map(|at| chunk(number, at)).collect();
            listed.add((object(number), None), &chunks, true);
            listed.add((object(number), None), &chunks, true);
            listed.sort();
            assert_eq!(listed.rows.len(), (usize::from(number) + 1) * SHORT / 4, "each is listed once");
        }
        let is_odd = |id: &ObjectId| id.as_bytes()[0] % 2 == 1;
        listed.trim(is_odd);
        assert_eq!((listed.rows.len(), listed.objects.len(), listed.known.len()), (SHORT / 2, 2, 2));
        assert!(listed.rows.is_sorted());
        for (number, at) in [(0, 0), (1, 7), (2, 9), (3, SHORT / 4 - 1)] {
            let found: Vec<_> = listed.objects_of(&chunk(number, at)).copied().collect();
            let expected: Vec<_> = Some(object(number)).filter(is_odd).into_iter().collect();
            assert_eq!(found, expected, "{number} {at}");
        }
    }
}
