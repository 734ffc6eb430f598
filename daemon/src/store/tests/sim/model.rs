//! What is stored in the simulation, and what was answered about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use libp2p_identity::Keypair;

use super::super::*;
use crate::content::{CODEC_RS8, ParityClaim, ParityPage, ParityPart};
use crate::erasure::{self, Geometry, Layout};
use crate::store::record::Key;

/// An object with all its records.
pub(super) struct Thing {
    pub(super) object: NewObject,
    /// Those that are not zeros.
    pub(super) chunks: Vec<Chunk>,
    pub(super) manifest: Option<Manifest>,
    parity: Option<(ParityPart, Vec<ParityPage>, Vec<Chunk>)>,
    /// The names of all records of its data and its manifest.
    keys: BTreeSet<Key>,
    /// Those of its parity.
    parity_keys: BTreeSet<Key>,
}

/// All objects of the simulation: single chunks around every size that matters, several chunks, zeros, a chunk that
/// two share, parity. Those that are cheap come first.
pub(super) static THINGS: LazyLock<Vec<Thing>> = LazyLock::new(|| {
    let sizes = [1, 100, 3583, 3584, 3585, 4096, 9000, 20_000, 70_000, 12_288];
    let singles = (1..).zip(sizes).map(|(seed, size)| {
        let (chunk, object) = single(seed, size);
        Thing::new(object, vec![chunk], None, None)
    });
    let mut things: Vec<_> = singles.collect();
    let zeros = || Bytes::from(vec![0; CHUNK]);
    things.push(long(&[zeros(), sample(50, 5000)], None));
    things.push(long(&[zeros(), sample(51, 300)], Some((16, 4))));
    things.push(long(&[zeros(), zeros()], None));
    let shared = sample(60, CHUNK);
    things.push(long(&[shared.clone(), sample(61, 5000)], None));
    things.push(long(&[shared, sample(62, 90)], Some((2, 1))));
    things
});

/// How many of them are cheap.
pub(super) const SMALL: usize = 10;

/// Who makes all parity, so that what is made anew is the same.
pub(super) fn maker() -> Keypair {
    Keypair::ed25519_from_bytes([7; 32]).unwrap()
}

fn long(parts: &[Bytes], parity: Option<(u8, u8)>) -> Thing {
    let mut builder = ManifestBuilder::new();
    let place = |index| Place::At(index as u64 * CHUNK as u64);
    let all = parts.iter().enumerate();
    let chunks: Vec<_> =
        all.map(|(index, bytes)| Chunk::compute(place(index), bytes.clone()).unwrap()).collect();
    chunks.iter().for_each(|chunk| builder.push(chunk).unwrap());
    let manifest = builder.finish().unwrap();
    let mut object = NewObject::new(manifest.id(), manifest.length(), 0);
    object.parity = parity;
    let parity = parity.map(|(k, m)| {
        let layout = Layout::new(manifest.length(), Geometry::new(k, m).unwrap()).unwrap();
        let encoded = layout.iter().flat_map(|stripe| erasure::encode(&stripe, parts).unwrap());
        let chunks: Vec<_> = encoded.map(|bytes| Chunk::compute(Place::Root, bytes).unwrap()).collect();
        let ids: Vec<_> = chunks.iter().map(Chunk::id).collect();
        let (object, length, count) = (manifest.id(), manifest.length(), ids.len() as u32);
        let claim = ParityClaim { object, length, codec: CODEC_RS8, k, m, count };
        let (part, pages) = ParityPart::sign(claim, &ids, &maker()).unwrap();
        (part, pages, chunks)
    });
    let chunks = chunks.into_iter().filter(|chunk| !chunk.is_zero()).collect();
    Thing::new(object, chunks, Some(manifest), parity)
}

/// Records that are not there or cannot be read; why not, where that was said.
pub(super) type Absent = BTreeMap<Key, Option<Error>>;

impl Thing {
    fn new(
        object: NewObject,
        chunks: Vec<Chunk>,
        manifest: Option<Manifest>,
        parity: Option<(ParityPart, Vec<ParityPage>, Vec<Chunk>)>,
    ) -> Self {
        let none = BTreeSet::new;
        let mut thing = Self { object, chunks, manifest, parity, keys: none(), parity_keys: none() };
        let keys = |items: &[Item<'_>]| items.iter().map(key).collect();
        (thing.keys, thing.parity_keys) = (
            thing.chunk_items().iter().chain(&thing.manifest_items()).map(key).collect(),
            keys(&thing.parity_items()),
        );
        thing
    }

    pub(super) fn has_parity(&self) -> bool {
        self.parity.is_some()
    }

    /// The records that it needs, with its parity or without.
    pub(super) fn needs(&self, parity: bool) -> impl Iterator<Item = &Key> {
        self.keys.iter().chain(self.parity_keys.iter().filter(move |_| parity))
    }

    pub(super) fn chunk_items(&self) -> Vec<Item<'_>> {
        self.chunks.iter().cloned().map(Item::Chunk).collect()
    }

    pub(super) fn manifest_items(&self) -> Vec<Item<'_>> {
        let Some(manifest) = &self.manifest else { return Vec::new() };
        let pages = manifest.pages().iter().enumerate();
        let pages = pages.map(|(index, page)| Item::Page(manifest.top(), index, page));
        pages.chain([Item::Top(manifest.top())]).collect()
    }

    pub(super) fn parity_items(&self) -> Vec<Item<'_>> {
        let Some((part, pages, chunks)) = &self.parity else { return Vec::new() };
        let chunks = chunks.iter().cloned().map(Item::Parity);
        chunks.chain(pages.iter().map(Item::ParityPage)).chain([Item::ParityPart(part)]).collect()
    }

    /// Reads every record of it by itself. Wrong bytes are a panic.
    pub(super) async fn absent(&self, store: &Store) -> Absent {
        let mut absent = Absent::new();
        for item in self.chunk_items().iter().chain(&self.manifest_items()).chain(&self.parity_items()) {
            match reads_back(store, item).await {
                Ok(true) => {}
                Ok(false) => _ = absent.insert(key(item), None),
                Err(error) => _ = absent.insert(key(item), Some(error)),
            }
        }
        absent
    }
}

/// The name of a record.
pub(super) fn key(item: &Item<'_>) -> Key {
    item.record().unwrap().header.key
}

async fn reads_back(store: &Store, item: &Item<'_>) -> Result<bool, Error> {
    fn is<T: PartialEq + std::fmt::Debug>(found: Option<T>, expected: &T) -> bool {
        found.inspect(|found| assert_eq!(found, expected, "wrong bytes")).is_some()
    }
    Ok(match item {
        Item::Chunk(chunk) | Item::Parity(chunk) => is(store.chunk(&chunk.reference()).await?, chunk),
        Item::Top(top) => is(store.top(&top.id()).await?, *top),
        Item::Page(top, index, page) => is(store.page(top, *index).await?, *page),
        Item::ParityPart(part) => {
            let claim = part.claim();
            is(store.parity_part(&claim.object, claim.k, claim.m).await?, *part)
        }
        Item::ParityPage(page) => {
            let part = THINGS.iter().filter_map(|thing| thing.parity.as_ref());
            let (part, index) = part
                .filter_map(|(part, pages, _)| Some((part, pages.iter().position(|other| other == *page)?)))
                .next()
                .unwrap();
            is(store.parity_page(part, index).await?, *page)
        }
    })
}

/// What was answered about an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Truth {
    /// `None`: it is not there.
    pub(super) there: Option<There>,
    /// A change of it was not answered: it may have been done or not.
    pub(super) unsure: bool,
    /// Whatever else is not sure, it is there and whole.
    pub(super) surely: bool,
    /// What the journal says of it has rotted; what is in memory is not written again.
    pub(super) forgotten: bool,
}

/// What is known of an object that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct There {
    /// Not merely being fetched.
    pub(super) whole: bool,
    pub(super) pins: BTreeSet<u32>,
    /// With its parity.
    pub(super) parity: bool,
}

impl There {
    pub(super) fn of(info: &ObjectInfo) -> Self {
        let pins = info.pins.iter().map(|pin| pin.uid).collect();
        Self { whole: info.state == State::Whole, pins, parity: info.parity.is_some() }
    }

    /// Nobody has promised to keep it.
    pub(super) fn may_go(&self) -> bool {
        self.pins.is_empty() || !self.whole
    }
}

impl Truth {
    /// It has been entered for this user.
    pub(super) fn enter(&mut self, uid: Option<u32>, parity: bool) {
        self.surely = uid.is_some() && !self.forgotten;
        if self.unsure {
            // Which pins it has besides is not known.
            return;
        }
        let there = self.there.get_or_insert_default();
        there.whole = true;
        there.parity |= parity;
        there.pins.extend(uid);
    }

    /// A fetch of it has begun.
    pub(super) fn begin(&mut self, uid: Option<u32>) {
        if self.unsure {
            return;
        }
        let there = self.there.get_or_insert_default();
        if !there.whole {
            there.pins.extend(uid);
        }
    }
}
