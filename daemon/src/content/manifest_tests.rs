//! Manifests against `blake3` itself, and every lie that a fold alone would let pass.

use blake3::hazmat::HasherExt;
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::content::fold::{self, LEAF, Level};
use crate::content::{Excerpt, MAX_PAGE_BYTES, MAX_TOP_BYTES, PAGE_LEN};

/// Bytes that differ everywhere, without a random source.
fn sample(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(b"sample").finalize_xof().fill(&mut bytes);
    bytes
}

fn manifest_of(data: &[u8]) -> Manifest {
    let mut builder = ManifestBuilder::new();
    for (index, bytes) in data.chunks(CHUNK).enumerate() {
        let place = Place::At(index as u64 * CHUNK_LEN);
        builder.push(&Chunk::compute(place, Bytes::copy_from_slice(bytes)).unwrap()).unwrap();
    }
    builder.finish().unwrap()
}

/// A manifest of an object too long for memory: full pages of made-up ids, then the chunks of `tail`.
fn tall(pages: usize, tail: &[u8]) -> Manifest {
    let mut builder = ManifestBuilder::new();
    for page in 0..pages {
        let ids = (0..PAGE)
            .map(|i| ChunkId::from_bytes(*blake3::hash(&[page as u8, i as u8, (i >> 8) as u8]).as_bytes()));
        builder.pages.push(ManifestPage::seal(ids.collect(), vec![false; PAGE]));
        builder.length += PAGE_LEN;
    }
    let base = builder.length;
    for (index, bytes) in tail.chunks(CHUNK).enumerate() {
        let place = Place::At(base + index as u64 * CHUNK_LEN);
        builder.push(&Chunk::compute(place, Bytes::copy_from_slice(bytes)).unwrap()).unwrap();
    }
    builder.finish().unwrap()
}

fn reads_back(manifest: &Manifest) {
    let encoded = manifest.top().encode();
    assert!(encoded.len() <= MAX_TOP_BYTES);
    let top = ManifestTop::prove(manifest.id(), &encoded).unwrap();
    assert_eq!(&top, manifest.top());
    for (index, page) in manifest.pages().iter().enumerate() {
        let encoded = page.encode();
        assert!(encoded.len() <= MAX_PAGE_BYTES);
        assert_eq!(&ManifestPage::prove(&top, index, &encoded).unwrap(), page);
    }
}

#[test]
fn an_excerpt_knows_the_chunks_of_its_pages_and_no_others() {
    let manifest = tall(2, &sample(3 * CHUNK + 77));
    let excerpt = |first, pages: &[ManifestPage]| Excerpt::new(manifest.top().clone(), first, pages.to_vec());
    let some = excerpt(1, &manifest.pages()[1..]).unwrap();
    assert_eq!((some.length(), some.chunks()), (manifest.length(), manifest.chunks()));
    for index in 0..manifest.chunks() + 2 {
        assert_eq!(some.chunk(index), manifest.chunk(index).filter(|_| index >= PAGE as u64), "{index}");
    }
    assert!(excerpt(3, &[]).is_some_and(|none| none.chunk(0).is_none()));
    // Others than those that stand there, by their length, and more than there are.
    assert_eq!(excerpt(2, &manifest.pages()[1..2]), None);
    assert_eq!(excerpt(1, &manifest.pages()[2..]), None);
    assert_eq!(excerpt(2, &[&manifest.pages()[2..], &manifest.pages()[2..]].concat()), None);
}

#[test]
fn the_id_is_blake3_of_the_bytes() {
    for length in
        [CHUNK + 1, 2 * CHUNK - 1023, 2 * CHUNK, 3 * CHUNK, 5 * CHUNK + 1024, 16 * CHUNK + 7, 17 * CHUNK]
    {
        let data = sample(length);
        let manifest = manifest_of(&data);
        assert_eq!(manifest.id().as_bytes(), blake3::hash(&data).as_bytes(), "{length}");
        assert_eq!((manifest.length(), manifest.chunks()), (length as u64, data.chunks(CHUNK).len() as u64));
        reads_back(&manifest);
        for (index, bytes) in data.chunks(CHUNK).enumerate() {
            let chunk = manifest.chunk(index as u64).unwrap();
            assert!(chunk.verify(Bytes::copy_from_slice(bytes)).is_ok());
        }
        assert_eq!(manifest.chunk(manifest.chunks()), None);
    }
}

#[test]
fn more_than_one_page_proves_at_every_shape_of_tail() {
    for pages in 1..4 {
        for length in [1, LEAF as usize, LEAF as usize + 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5000] {
            let manifest = tall(pages, &sample(length));
            assert_eq!(manifest.pages().len(), pages + 1);
            reads_back(&manifest);
        }
    }
}

#[test]
fn zeros_are_flagged_and_flags_are_proved() {
    let mut data = sample(5 * CHUNK + 10);
    data[CHUNK..2 * CHUNK].fill(0);
    data[5 * CHUNK..].fill(0);
    let manifest = manifest_of(&data);
    let flags: Vec<bool> = (0..6).map(|i| manifest.is_zero(i)).collect();
    assert_eq!(flags, [false, true, false, false, false, true]);
    reads_back(&manifest);
    assert_eq!(manifest.zero_chunk(5).unwrap().unwrap().bytes().len(), 10);
    assert!(manifest.zero_chunk(0).is_none());
    let mut lie = manifest.pages()[0].encode().to_vec();
    *lie.last_mut().unwrap() |= 1;
    assert_eq!(ManifestPage::prove(manifest.top(), 0, &lie), Err(Error::NotZero { index: 0 }));
    *lie.last_mut().unwrap() = 0b1000_0000;
    assert!(matches!(ManifestPage::prove(manifest.top(), 0, &lie), Err(Error::Malformed { .. })));
}

#[test]
fn chunks_out_of_order_short_or_single_make_no_manifest() {
    let chunk = |index: u64, length| Chunk::compute(Place::At(index << 20), sample(length).into()).unwrap();
    let mut builder = ManifestBuilder::new();
    assert_eq!(builder.push(&chunk(1, CHUNK)), Err(Error::Order { index: 0 }));
    builder.push(&chunk(0, CHUNK)).unwrap();
    assert!(ManifestBuilder { last: builder.last.clone(), ..ManifestBuilder::new() }.finish().is_err());
    builder.push(&chunk(1, 5)).unwrap();
    assert_eq!(builder.push(&chunk(2, CHUNK)), Err(Error::Order { index: 2 }));
    assert!(ManifestBuilder::new().finish().is_err());
}

/// The values of the subtrees of `size` bytes that `data` consists of.
fn values(data: &[u8], size: usize) -> Vec<[u8; 32]> {
    let value = |(i, bytes): (usize, &[u8])| {
        blake3::Hasher::new().set_input_offset((i * size) as u64).update(bytes).finalize_non_root()
    };
    data.chunks(size).enumerate().map(value).collect()
}

/// A top that claims `length` for the object of `data`, with the leaf and the neighbours given.
fn forge(length: u64, values: &[[u8; 32]], leaf: &[u8], neighbours: &[[u8; 32]]) -> Vec<u8> {
    let parts = [&[1][..], &length.to_le_bytes(), values.as_flattened(), leaf, neighbours.as_flattened()];
    parts.concat()
}

/// Everything a liar could put where the leaf and its neighbours belong.
fn best_efforts(data: &[u8], claim: u64) -> Vec<(Vec<u8>, Vec<[u8; 32]>)> {
    let (spine, leaf) = fold::right_spine(claim - (claim - 1) / PAGE_LEN * PAGE_LEN);
    let leaf = leaf as usize;
    let mut efforts = Vec::new();
    for size in [LEAF as usize, 1 << 14, CHUNK] {
        let all = values(data, size);
        // The true last leaf, zeros, or the bytes of the two values below the top, as the leaf;
        let leaves = [
            data[data.len() - leaf.min(data.len())..].to_vec(),
            vec![0; leaf],
            all.as_flattened()[..leaf.min(all.len() * 32)].to_vec(),
        ];
        // the true neighbours lowest first or folded from this size, cut or filled to the right number.
        let (true_spine, _) = fold::right_spine(data.len() as u64);
        let real: Vec<_> = true_spine
            .iter()
            .map(|&(at, n)| fold::subtree(&data[at as usize..(at + n) as usize], at))
            .collect();
        for mut leaf_bytes in leaves {
            leaf_bytes.resize(leaf, 0);
            let mut neighbours = real.clone();
            neighbours.resize(spine.len(), all[0]);
            efforts.push((leaf_bytes.clone(), neighbours.clone()));
            neighbours.reverse();
            efforts.push((leaf_bytes, neighbours));
        }
    }
    efforts
}

#[test]
fn four_thousand_leaf_values_do_not_pass_for_four_gib() {
    let data = sample(4 * CHUNK);
    let id = ObjectId::from_bytes(*blake3::hash(&data).as_bytes());
    let leaves = values(&data, LEAF as usize);
    assert_eq!(leaves.len(), 4096);
    // As 4,096 chunks on two pages the leaf values fold to the very id: only the tail can tell.
    let pages: Vec<_> =
        leaves.chunks(PAGE).map(|ids| fold::fold(ids.iter().copied(), Level::Inner).unwrap()).collect();
    assert_eq!(fold::fold(pages.iter().copied(), Level::Root), Some(*id.as_bytes()));
    let claim = 4 << 30;
    for (leaf, neighbours) in best_efforts(&data, claim) {
        let forged = forge(claim, &pages, &leaf, &neighbours);
        assert_eq!(ManifestTop::prove(id, &forged), Err(Error::Unproven { what: "length of the manifest" }));
    }
}

#[test]
fn coarser_values_and_other_lengths_do_not_pass() {
    let data = sample(8 * CHUNK);
    let id = ObjectId::from_bytes(*blake3::hash(&data).as_bytes());
    let honest = manifest_of(&data);
    let encoded = honest.top().encode();
    // The same shape one byte longer or shorter, a quarter of the length (coarser values), four times it (finer).
    for claim in [
        8 * CHUNK_LEN - 1,
        8 * CHUNK_LEN + 1,
        8 * CHUNK_LEN - LEAF,
        8 * CHUNK_LEN + LEAF,
        2 * CHUNK_LEN,
        4 * CHUNK_LEN,
        32 * CHUNK_LEN,
        1 << 30,
    ] {
        for (leaf, neighbours) in best_efforts(&data, claim) {
            assert!(ManifestTop::prove(id, &forge(claim, &[], &leaf, &neighbours)).is_err(), "{claim}");
        }
        let mut relabelled = encoded.to_vec();
        relabelled[1..9].copy_from_slice(&claim.to_le_bytes());
        assert!(ManifestTop::prove(id, &relabelled).is_err(), "{claim}");
    }
    // Chunk ids of the right number at the wrong level fold to the page's value, but not with this length.
    let quarter: Vec<_> = values(&data, CHUNK / 4);
    let page = ManifestPage::seal(quarter.into_iter().map(ChunkId::from_bytes).collect(), vec![false; 32]);
    assert!(matches!(ManifestPage::prove(honest.top(), 0, &page.encode()), Err(Error::Malformed { .. })));
}

#[test]
fn an_object_of_one_chunk_proves_its_length() {
    for length in [1, 1023, 1024, 1025, 5000, 1 << 19, CHUNK - 1, CHUNK] {
        let data = sample(length);
        let id = ObjectId::from_bytes(*blake3::hash(&data).as_bytes());
        let chunk = Chunk::compute(Place::Root, data.into()).unwrap();
        let top = ManifestTop::of_chunk(&chunk).unwrap();
        let encoded = top.encode();
        assert_eq!(ManifestTop::prove(id, &encoded), Ok(top.clone()));
        assert_eq!((top.length(), top.chunks(), top.pages()), (length as u64, 1, 0));
        assert!(Manifest::new(top.clone(), Vec::new()).is_none());
        assert!(ManifestPage::prove(&top, 0, &[1, 1, 0]).is_err());
        for claim in [length - 1, length + 1, length + 1024, 2 * length, CHUNK + 1] {
            let mut lie = encoded.to_vec();
            lie[1..9].copy_from_slice(&(claim as u64).to_le_bytes());
            assert!(ManifestTop::prove(id, &lie).is_err(), "{length} as {claim}");
        }
    }
    let part = Chunk::compute(Place::At(0), sample(9).into()).unwrap();
    assert_eq!(ManifestTop::of_chunk(&part), None);
}

#[test]
fn lengths_out_of_range_are_refused_before_anything_is_done() {
    for claim in [0, 1, CHUNK_LEN, MAX_OBJECT + 1, u64::MAX - 1023, u64::MAX] {
        assert!(ManifestTop::prove(ObjectId::EMPTY, &forge(claim, &[], &[0; 1024], &[])).is_err());
    }
    assert!(ManifestTop::prove(ObjectId::EMPTY, &[]).is_err());
    // A page count far beyond the bytes that are there allocates nothing.
    assert!(ManifestTop::prove(ObjectId::EMPTY, &forge(MAX_OBJECT, &[], &[], &[])).is_err());
}

proptest! {
    #[test]
    fn every_changed_or_cut_byte_of_a_top_or_page_is_refused(
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
        tall_one: bool,
    ) {
        let manifest = if tall_one { tall(1, &sample(CHUNK + 77)) } else { manifest_of(&sample(2 * CHUNK + 77)) };
        let encoded = manifest.top().encode();
        let at_top = at.index(encoded.len());
        let mut changed = encoded.to_vec();
        changed[at_top] ^= 1 << bit;
        prop_assert!(ManifestTop::prove(manifest.id(), &changed).is_err());
        prop_assert!(ManifestTop::prove(manifest.id(), &encoded[..at_top]).is_err());
        prop_assert!(ManifestTop::prove(manifest.id(), &[&encoded[..], &[0]].concat()).is_err());
        let page = manifest.pages()[0].encode();
        let at_page = at.index(page.len());
        let mut changed = page.to_vec();
        changed[at_page] ^= 1 << bit;
        prop_assert!(ManifestPage::prove(manifest.top(), 0, &changed).is_err());
        prop_assert!(ManifestPage::prove(manifest.top(), 0, &page[..at_page]).is_err());
    }

    #[test]
    fn nonsense_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let _ = ManifestTop::prove(ObjectId::EMPTY, &bytes);
        let mut with_version = vec![1];
        with_version.extend(&bytes);
        let _ = ManifestTop::prove(ObjectId::EMPTY, &with_version);
        let top = manifest_of(&sample(CHUNK + 1));
        let _ = ManifestPage::prove(top.top(), 0, &with_version);
    }
}
