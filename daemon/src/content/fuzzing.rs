//! What must hold of any bytes that are read as a top, a page, a parity part, a parity page, a tree, a link or a
//! description (see [`crate::fuzzing`]).

use std::path::{Component, Path};
use std::sync::LazyLock;

use bytes::Bytes;
use libp2p_identity::{Keypair, ed25519};

use super::fold::{self, Level};
use super::tree::{MAX_LINK_TARGET, MAX_TREE_ENTRIES, Node, Tree, TreeBuilder};
use super::{
    CHUNK, CHUNK_LEN, CODEC_RS8, Chunk, ChunkId, Error, Link, MAX_DESCRIPTION, MAX_ENTRY_NAME, MAX_OBJECT,
    MAX_PAGE_BYTES, MAX_PARITY_PAGE_BYTES, MAX_PARITY_PART_BYTES, MAX_TOP_BYTES, Manifest, ManifestPage,
    ManifestTop, ObjectId, PAGE, PAGE_LEN, PARITY_PAGE, ParityClaim, ParityPage, ParityPart, Place,
    SignedDescription, TreePath, check_name, check_portable, described_name, link, parity,
};

/// An object that none of these bytes are.
const ANOTHER: ObjectId = ObjectId::from_bytes([7; 32]);

/// Who signs the parity parts and the descriptions.
pub(crate) static MAKER: LazyLock<Keypair> = LazyLock::new(|| {
    let key = ed25519::SecretKey::try_from_bytes([5; 32]).map(ed25519::Keypair::from);
    key.map_or_else(|_| Keypair::generate_ed25519(), Keypair::from)
});

/// A manifest's top.
pub(crate) fn top(encoded: &[u8]) {
    assert!(ManifestTop::prove(ANOTHER, encoded).is_err(), "it proves an object that it is not of");
    let Ok(form) = ManifestTop::decode(ANOTHER, encoded) else { return };
    assert_eq!(form.encode(), encoded);
    let (id, encoded) = proving(&form);
    let top = ManifestTop::prove(id, &encoded);
    assert!(top.is_ok(), "{top:?}: {form:?} is made to fit");
    let Ok(top) = top else { return };
    assert_eq!(top.encode(), encoded);
    assert!(encoded.len() <= MAX_TOP_BYTES);
    has_its_length(&top);
    // One id has one length.
    for bit in 0..43 {
        let mut other = encoded.to_vec();
        other[1..9].copy_from_slice(&(top.length() ^ 1 << bit).to_le_bytes());
        assert!(ManifestTop::prove(top.id(), &other).is_err(), "{top:?} proves another length as well");
    }
}

/// The bytes of this top with another last value, so that the length is proved, and the id that they prove.
fn proving(form: &ManifestTop) -> (ObjectId, Vec<u8>) {
    let mut out = form.encode().to_vec();
    let pages = if form.pages() > 1 { form.pages() } else { 0 };
    let level = if pages > 0 { Level::Inner } else { Level::Root };
    let page = (form.length() - 1) / PAGE_LEN * PAGE_LEN;
    let (spine, size) = fold::right_spine(form.length() - page);
    let (head, tail) = out.split_at_mut(9 + pages * 32);
    let (leaf, neighbours) = tail.split_at(usize::try_from(size).unwrap_or(usize::MAX));
    let neighbours = neighbours.as_chunks().0;
    assert_eq!(neighbours.len(), spine.len());
    let value = fold::climb(leaf, form.length() - size, neighbours, level);
    let id = match head[9..].as_chunks_mut().0 {
        [] => Some(value),
        [.., last] => {
            *last = value;
            fold::fold(head[9..].as_chunks().0.iter().copied(), Level::Root)
        }
    };
    (ObjectId::from_bytes(id.unwrap_or_default()), out)
}

/// Lengths and counts of a top fit each other.
fn has_its_length(top: &ManifestTop) {
    let (length, chunks, pages) = (top.length(), top.chunks(), top.pages());
    assert!((1..=MAX_OBJECT).contains(&length) && pages <= PAGE);
    assert_eq!((chunks - 1) * CHUNK_LEN + u64::from(top.chunk_length(chunks - 1)), length);
    assert!(chunks == 1 || top.chunk_length(0) as usize == CHUNK);
    assert_eq!((top.chunk_length(chunks), top.page_chunks(pages)), (0, 0));
    assert!(top.place(chunks - 1).is_valid());
    let listed: usize = (0..pages).map(|page| top.page_chunks(page)).sum();
    assert_eq!(listed as u64, if pages == 0 { 0 } else { chunks });
    assert!((0..pages).all(|page| top.page_value(page).is_some()) && top.page_value(pages).is_none());
}

/// The manifest of an object that has this page, after `before` full ones. Its last chunk is the one that we know, of
/// `size` bytes.
fn listing(page: &ManifestPage, before: usize, size: usize) -> Option<Manifest> {
    let full = || ManifestPage::seal(vec![ChunkId::from_bytes([9; 32]); PAGE], vec![false; PAGE]);
    let count = page.ids().len();
    let start = (before * PAGE + count - 1) as u64 * CHUNK_LEN;
    let last = Chunk::compute(Place::At(start), vec![1; size].into()).ok()?;
    let ids = page.ids()[..count - 1].iter().copied().chain([last.id()]).collect();
    let zeros = (0..count).map(|at| page.is_zero(at)).collect();
    let pages: Vec<_> =
        std::iter::repeat_with(full).take(before).chain([ManifestPage::seal(ids, zeros)]).collect();
    let top = ManifestTop::seal(start + size as u64, &pages, &last).ok()?;
    Manifest::new(top, pages)
}

/// The manifest of an object of three chunks, of which only the last one is there: it has 1,000 bytes.
pub(crate) fn sample() -> Option<(Manifest, Chunk)> {
    let page = ManifestPage::seal(vec![ChunkId::from_bytes([8; 32]); 3], vec![false; 3]);
    let manifest = listing(&page, 0, 1000)?;
    let last = Chunk::compute(Place::At(2 * CHUNK_LEN), vec![1; 1000].into()).ok()?;
    Some((manifest, last))
}

/// A page of a manifest, behind a byte: whether a full page comes before it, and how long the last chunk is.
pub(crate) fn page(data: &[u8]) {
    let Some((shape, encoded)) = data.split_first() else { return };
    let count = encoded.get(1..3).map_or(0, |count| usize::from(count[0]) | usize::from(count[1]) << 8);
    assert!(ManifestPage::decode(count + 1, encoded).is_err(), "it has another number of chunks");
    // No top allows more.
    let Some(page) = ManifestPage::decode(count, encoded).ok().filter(|_| count <= PAGE) else { return };
    assert!(encoded.len() <= MAX_PAGE_BYTES && page.ids().len() == count && page.encode() == encoded);
    let (before, size) = (usize::from(shape & 1), usize::from(shape >> 1) * 30 + 1);
    let Some(manifest) = listing(&page, before, size) else {
        assert!(before == 0 && count == 1, "only one chunk has no manifest");
        return;
    };
    has_its_length(manifest.top());
    let page = &manifest.pages()[before];
    let flags = (0..page.ids().len()).filter(|at| page.is_zero(*at)).count();
    // Each true flag costs hashing a chunk of zeros.
    if flags > 4 {
        return;
    }
    match ManifestPage::prove(manifest.top(), before, &page.encode()) {
        Ok(proved) => {
            assert_eq!(&proved, page);
            for index in 0..manifest.chunks() {
                let zeros = manifest.zero_chunk(index);
                assert!(zeros.is_none_or(|zeros| zeros.is_ok_and(|chunk| chunk.is_zero())));
            }
        }
        Err(Error::NotZero { index }) => assert!(page.is_zero(index)),
        Err(error) => assert!(flags > 0, "{error}: {page:?}"),
    }
    // It is no page of another place, and none of another object's.
    assert!(ManifestPage::prove(manifest.top(), before + 1, &page.encode()).is_err());
    let mut changed = page.encode().to_vec();
    changed[3] ^= 1;
    assert!(ManifestPage::prove(manifest.top(), before, &changed).is_err());
}

/// The bytes of this part with another maker, and signed.
fn signed(encoded: &[u8]) -> Vec<u8> {
    let mut out = encoded[..encoded.len() - 96].to_vec();
    out.extend(MAKER.public().try_into_ed25519().map_or([0; 32], |key| key.to_bytes()));
    let signature = MAKER.sign(&[parity::DOMAIN, &out].concat());
    out.extend(signature.unwrap_or_default());
    out
}

/// A parity part.
pub(crate) fn parity_part(encoded: &[u8]) {
    if let Ok(part) = ParityPart::check(encoded) {
        assert_eq!(part.encode(), encoded);
    }
    if ParityPart::decode(encoded).is_err() {
        return;
    }
    let encoded = signed(encoded);
    let part = ParityPart::check(&encoded);
    assert!(part.is_ok(), "{part:?}: it is signed");
    let Ok(part) = part else { return };
    assert_eq!(part.encode(), encoded);
    assert_eq!(part.maker(), MAKER.public().to_peer_id());
    let claim = part.claim();
    assert!((1..=128).contains(&claim.k) && (1..=64).contains(&claim.m));
    assert!((CHUNK_LEN + 1..=MAX_OBJECT).contains(&claim.length));
    assert_eq!(part.pages().len(), (claim.count as usize).div_ceil(PARITY_PAGE));
    assert!(encoded.len() <= MAX_PARITY_PART_BYTES);
    for changed in [0, 2, 40, encoded.len() / 2, encoded.len() - 1] {
        let mut other = encoded.to_vec();
        other[changed] ^= 1;
        assert!(ParityPart::check(&other).is_err(), "byte {changed} is not signed");
    }
}

/// A page of a parity part.
pub(crate) fn parity_page(encoded: &[u8]) {
    let ids: Vec<_> = encoded.as_chunks().0.iter().copied().map(ChunkId::from_bytes).collect();
    let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    let claim = ParityClaim { object: ANOTHER, length: MAX_OBJECT, codec: CODEC_RS8, k: 16, m: 4, count };
    let Ok((part, pages)) = ParityPart::sign(claim, &ids, &MAKER) else {
        assert_eq!(count, 0);
        return;
    };
    let [first, rest @ ..] = pages.as_slice() else { return };
    let whole = rest.is_empty() && encoded.len() == ids.len() * 32;
    match ParityPage::prove(&part, 0, encoded) {
        Ok(page) => assert!(whole && page.encode() == encoded && &page == first && page.ids() == ids),
        Err(error) => assert!(!whole, "{error}"),
    }
    for (index, page) in pages.iter().enumerate() {
        let bytes = page.encode();
        assert!(bytes.len() <= MAX_PARITY_PAGE_BYTES && ParityPage::prove(&part, index, &bytes).is_ok());
        assert!(ParityPage::prove(&part, index, &bytes[1..]).is_err());
        assert!(ParityPage::prove(&part, pages.len(), &bytes).is_err());
    }
}

/// A directory's tree.
pub(crate) fn tree(bytes: &[u8]) {
    let Ok(tree) = Tree::decode(Bytes::copy_from_slice(bytes)) else { return };
    assert!(tree.len() <= MAX_TREE_ENTRIES && tree.entries().count() == tree.len());
    let mut builder = TreeBuilder::default();
    for entry in tree.entries() {
        // As a path it is one step down, and nothing else.
        let mut steps = Path::new(entry.name).components();
        assert!(matches!(steps.next(), Some(Component::Normal(step)) if step == entry.name), "{entry:?}");
        assert!(steps.next().is_none() && entry.name.len() <= MAX_ENTRY_NAME, "{entry:?}");
        assert!(!entry.name.chars().any(|c| c.is_control() || c == '\\'), "{entry:?}");
        assert!(entry.node.object().is_none_or(|(_, length)| length <= MAX_OBJECT));
        if let Node::Link { target } = entry.node {
            assert!((1..=MAX_LINK_TARGET).contains(&target.len()) && !target.contains('\0'));
        }
        assert_eq!(tree.find(entry.name), Some(entry));
        assert!(builder.push(entry).is_ok(), "{entry:?}");
    }
    assert!(builder.finish().is_ok_and(|again| again.bytes() == bytes), "it has another form");
    // It tells more of names, and does not panic.
    let _ = check_portable(tree.entries().map(|entry| entry.name));
    assert!(Tree::decode(Bytes::copy_from_slice(&bytes[..bytes.len() - 1])).is_err());
}

/// A link, the id in it, and a path in a directory.
pub(crate) fn link(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(id) = text.parse::<ObjectId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Some(path) = TreePath::parse(text) {
        assert_eq!(TreePath::parse(&path.to_string()).as_ref(), Some(&path));
    }
    if let Ok(link) = text.parse::<Link>() {
        let again = link.to_string();
        assert!(
            again.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":,=._~%/-".contains(&byte)),
            "{again}"
        );
        // Percent-encoded it may be too long.
        if again.len() <= link::MAX_LINK {
            assert_eq!(again.parse().as_ref(), Ok(&link));
        }
    }
}

/// A description.
pub(crate) fn metadata(encoded: &[u8]) {
    let network = [3; 32];
    let _ = described_name(encoded);
    if let Ok(signed) = SignedDescription::check(encoded, &network) {
        assert_eq!(signed.encode(), encoded);
    }
    let Ok(kept) = SignedDescription::read_kept(encoded) else { return };
    let said = kept.description();
    assert!(encoded.len() <= MAX_DESCRIPTION && check_name(&said.name).is_ok());
    assert!((1..=MAX_OBJECT).contains(&said.length) && said.object != ObjectId::EMPTY);
    let signed = SignedDescription::sign(said.clone(), &network, &MAKER);
    assert!(signed.is_ok(), "{signed:?}: {said:?}");
    let Ok(signed) = signed else { return };
    let again = signed.encode();
    assert_eq!(again.len(), encoded.len());
    assert_eq!(again[..again.len() - 96], encoded[..encoded.len() - 96], "it has another form");
    assert_eq!(described_name(&again), said.name);
    assert!(SignedDescription::check(&again, &network).is_ok_and(|read| read == signed));
    assert_eq!(SignedDescription::check(&again, &[4; 32]), Err(Error::Publisher));
    for changed in [2, 40, 52, again.len() - 97, again.len() - 1] {
        let mut other = again.to_vec();
        other[changed] ^= 1;
        assert!(SignedDescription::check(&other, &network).is_err(), "byte {changed} is not signed");
    }
}
