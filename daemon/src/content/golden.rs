//! This room's formats as they were first written (see [`crate::golden`]).

use bytes::Bytes;
use libp2p_identity::{Keypair, ed25519};

use super::*;
use crate::golden::{is, sample};

/// The manifest of these chunks.
fn manifest_of(chunks: &[Bytes]) -> Manifest {
    let mut builder = ManifestBuilder::new();
    for (index, bytes) in chunks.iter().enumerate() {
        let place = Place::At(index as u64 * CHUNK_LEN);
        builder.push(&Chunk::compute(place, bytes.clone()).unwrap()).unwrap();
    }
    builder.finish().unwrap()
}

#[test]
fn a_top_and_a_page() {
    let zeros = Bytes::from(vec![0; CHUNK]);
    let chunks = [sample("0", CHUNK), zeros, sample("2", CHUNK), sample("3", 70_005)];
    let manifest = manifest_of(&chunks);
    let hash = blake3::hash(&chunks.concat());
    let top = is("top", &manifest.top().encode());
    let top = ManifestTop::prove(ObjectId::from_bytes(*hash.as_bytes()), &top).unwrap();
    assert_eq!((top.length(), top.pages(), top.chunks()), (3 * CHUNK_LEN + 70_005, 1, 4));
    let page = is("page", &manifest.pages()[0].encode());
    let page = ManifestPage::prove(&top, 0, &page).unwrap();
    assert_eq!([0, 1, 2, 3].map(|at| page.is_zero(at)), [false, true, false, false]);
    for (index, bytes) in chunks.iter().enumerate() {
        let chunk = Chunk::compute(top.place(index as u64), bytes.clone()).unwrap();
        assert_eq!(page.ids()[index], chunk.id());
    }
}

#[test]
fn a_top_of_one_chunk() {
    let chunk = Chunk::compute(Place::Root, sample("one", 5000)).unwrap();
    let golden = is("top_of_one_chunk", &ManifestTop::of_chunk(&chunk).unwrap().encode());
    let id = ObjectId::from_bytes(*chunk.id().as_bytes());
    let top = ManifestTop::prove(id, &golden).unwrap();
    assert_eq!((top.length(), top.pages(), top.chunks()), (5000, 0, 1));
}

/// Two full pages of one id, and one chunk of 3 bytes: 4 GiB and 3 bytes.
#[test]
fn a_top_of_three_pages() {
    let full = ManifestPage::seal(vec![ChunkId::from_bytes([9; 32]); PAGE], vec![false; PAGE]);
    let last = Chunk::compute(Place::At(2 * PAGE_LEN), sample("last", 3)).unwrap();
    let pages = [full.clone(), full, ManifestPage::seal(vec![last.id()], vec![false])];
    let sealed = ManifestTop::seal(2 * PAGE_LEN + 3, &pages, &last).unwrap();
    let golden = is("top_of_three_pages", &sealed.encode());
    let top = ManifestTop::prove(sealed.id(), &golden).unwrap();
    assert_eq!(top.id().to_string(), "3d9ec6ae7cae832e1ee6a9ab3a5f27d57d6008ccee81bb828a22b5182ecf67ad");
    assert_eq!((top.length(), top.pages(), top.chunks()), (2 * PAGE_LEN + 3, 3, 4097));
    for (index, page) in pages.iter().enumerate() {
        assert_eq!(ManifestPage::prove(&top, index, &page.encode()).as_ref(), Ok(page));
    }
}

#[test]
fn a_parity_part_and_its_page() {
    let key: Keypair = ed25519::Keypair::from(ed25519::SecretKey::try_from_bytes([5; 32]).unwrap()).into();
    let ids = [1, 2, 3].map(|id| ChunkId::from_bytes([id; 32]));
    let object = ObjectId::from_bytes([7; 32]);
    let claim = ParityClaim { object, length: 12 * CHUNK_LEN - 5, codec: CODEC_RS8, k: 16, m: 4, count: 3 };
    let (part, pages) = ParityPart::sign(claim.clone(), &ids, &key).unwrap();
    let part = ParityPart::check(&is("parity_part", &part.encode())).unwrap();
    assert_eq!((part.claim(), part.maker()), (&claim, key.public().to_peer_id()));
    let page = ParityPage::prove(&part, 0, &is("parity_page", &pages[0].encode())).unwrap();
    assert_eq!(page.ids(), ids);
}

#[test]
fn a_link() {
    let link = Link {
        id: ObjectId::EMPTY,
        is_directory: true,
        name: Some("a b,c=é%.txt".to_owned()),
        peers: vec!["12D3Koo@[::1]:9000".to_owned(), "/ip4/127.0.0.1/tcp/9000".to_owned()],
    };
    let golden = String::from_utf8(is("link", link.to_string().as_bytes())).unwrap();
    assert_eq!(golden.parse(), Ok(link));
}

#[test]
fn a_tree() {
    let id = |fill| ObjectId::from_bytes([fill; 32]);
    let entries = [
        Entry { name: "..a", node: Node::File { id: ObjectId::EMPTY, length: 0, executable: false } },
        Entry { name: "b c", node: Node::Directory { id: id(1), length: 13 } },
        Entry { name: "run", node: Node::File { id: id(2), length: MAX_OBJECT, executable: true } },
        Entry { name: "\u{e9}", node: Node::Link { target: "../../etc/passwd" } },
    ];
    let mut builder = TreeBuilder::default();
    entries.iter().rev().for_each(|entry| builder.push(*entry).unwrap());
    let golden = is("tree", builder.finish().unwrap().bytes());
    let tree = Tree::decode(golden.into()).unwrap();
    assert_eq!(tree.entries().collect::<Vec<_>>(), entries);
}

#[test]
fn a_description() {
    let key: Keypair = ed25519::Keypair::from(ed25519::SecretKey::try_from_bytes([5; 32]).unwrap()).into();
    let description = Description {
        object: ObjectId::from_bytes([7; 32]),
        is_directory: true,
        length: 70_005,
        parity: Some((16, 4)),
        name: "a b, \u{e9}.txt".to_owned(),
        time: 1_800_000_000,
    };
    let network = [3; 32];
    let signed = SignedDescription::sign(description.clone(), &network, &key).unwrap();
    let golden = SignedDescription::check(&is("description", &signed.encode()), &network).unwrap();
    assert_eq!((golden.description(), golden.publisher()), (&description, key.public().to_peer_id()));
}
