//! Objects that nobody has: anyone can make up an id whose manifest proves itself, and parity that is signed and false.
//! What they claim is refused before it costs anything, and what is true goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use bytes::Bytes;
use casd_tests::corpus::{self, MIB};
use casd_tests::ctl::Done;
use casd_tests::stranger::{Liar, Reply, Truth, encode, slice};
use casd_tests::wait::LONG;
use casd_tests::{Node, nodes};

use casd::content::{
    CODEC_RS8, Chunk, ChunkId, ManifestBuilder, ObjectId, ParityClaim, ParityPage, ParityPart, Place,
};
use casd::peer::Keypair;
use casd::session::Have;
use casd::session::frames::{Ask, Frame, Record, SLICE};

fn alone(quota: &str) -> (Node, String) {
    let quiet =
        |_, settings: casd_tests::Settings| settings.text("store.quota", quota).text("store.scrub", "0");
    let node = nodes::network(1, quiet).pop().unwrap();
    let network = node.ctl().status()["network"].as_str().unwrap().to_owned();
    (node, network)
}

fn fetch(node: &Node, id: &str, from: &[&str]) -> Done {
    let mut run = node.ctl().run(&["--json", "fetch", id, "--stall", "2s", "-o"]).arg(node.home.path("out"));
    for peer in from {
        run = run.arg("--peer").arg(peer);
    }
    run.within(2 * LONG).done()
}

/// A giver of an object with this top and these pages, and how many chunks were asked of it.
fn giver(network: &str, top: Vec<u8>, pages: Vec<Vec<u8>>) -> (Liar, Arc<AtomicUsize>) {
    let chunks = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&chunks);
    let liar = Liar::new(network, move |request, ask| {
        let page = |at: u32| pages[at as usize].clone().into();
        let frame = match ask {
            Ask::Top(_) => Frame::Record(request, Record::Top, top.clone().into()),
            Ask::Page(_, at) => Frame::Record(request, Record::Page, page(*at)),
            Ask::Haves(_) => Frame::Have(request, Have::Whole),
            Ask::Chunk(_) | Ask::Run { .. } => {
                count.fetch_add(1, Ordering::SeqCst);
                Frame::NotFound(request)
            }
            _ => Frame::NotFound(request),
        };
        Reply::Say(encode(&[frame]))
    });
    (liar, chunks)
}

/// The top and the pages of an object of 4 TiB that nobody has: all of it proves itself. All pages are alike but the
/// last, whose last chunk ends in a leaf that anyone can make up.
fn four_tib() -> (String, Vec<u8>, Vec<Vec<u8>>) {
    let (leaf, chunk) = ([7; 1024], [9; 32]);
    let join = |left: &[u8; 32], right: &[u8; 32]| merge_subtrees_non_root(left, right, Mode::Hash);
    // The left neighbours of the last leaf: within its chunk what one likes, above it 1, 2, 4, … chunks.
    let mut neighbours = vec![[8; 32]; 10];
    neighbours.extend(std::iter::successors(Some(chunk), |value| Some(join(value, value))).take(11));
    let mut values = vec![join(&neighbours[20], &neighbours[20]); 2047];
    let mut hasher = blake3::Hasher::new();
    let first = hasher.set_input_offset((4 << 40) - 1024).update(&leaf).finalize_non_root();
    let last_chunk = neighbours[..10].iter().fold(first, |value, left| join(left, &value));
    values.push(neighbours[10..].iter().fold(last_chunk, |value, left| join(left, &value)));
    let length = (4u64 << 40).to_le_bytes();
    let top = [&[1][..], &length, values.as_flattened(), &leaf, neighbours.as_flattened()].concat();
    let mut ids = vec![chunk; 2048];
    let page = |ids: &[[u8; 32]]| [&[1, 0, 8][..], ids.as_flattened(), &[0; 256]].concat();
    let mut pages = vec![page(&ids); 2047];
    ids[2047] = last_chunk;
    pages.push(page(&ids));
    while values.len() > 2 {
        values = values.chunks(2).map(|pair| join(&pair[0], &pair[1])).collect();
    }
    (merge_subtrees_root(&values[0], &values[1], Mode::Hash).to_string(), top, pages)
}

/// The manifest of a GiB of zeros.
fn zeros() -> (String, Vec<u8>, Vec<Vec<u8>>) {
    let bytes = Bytes::from(vec![0; 1 << 20]);
    let mut builder = ManifestBuilder::new();
    for index in 0..1024 {
        builder.push(&Chunk::compute(Place::At(index << 20), bytes.clone()).unwrap()).unwrap();
    }
    let manifest = builder.finish().unwrap();
    let pages = manifest.pages().iter().map(|page| page.encode().to_vec()).collect();
    (manifest.id().to_string(), manifest.top().encode().to_vec(), pages)
}

/// KiB of memory that a daemon had at most.
fn memory(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.daemon.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn what_is_longer_than_there_is_room_is_refused_before_a_chunk_is_asked_for() {
    let (node, network) = alone("64MiB");
    let kept = node.ctl().add_bytes(&corpus::bytes(1, 2 << 20));
    node.ctl().run(&["unpin", &kept]).done().ok();
    let (id, top, pages) = four_tib();
    let (liar, asked) = giver(&network, top, pages);
    fetch(&node, &id, &[&liar.address]).refused(&[6], "quota");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    assert!(!node.home.path("out").exists());
    // Nothing that is here had to go for it, and it took the memory of its pages: 33 bytes for each of 4 M chunks.
    assert_eq!(corpus::id(&node.ctl().cat(&kept)), kept);
    assert_eq!(node.ctl().json(&["ls"]).len(), 1);
    let peak = memory(&node);
    assert!(peak < 512 << 10, "{peak} KiB");
}

#[test]
fn a_gib_of_zeros_takes_no_room_and_is_asked_of_nobody() {
    let (node, network) = alone("64MiB");
    let (id, top, pages) = zeros();
    let (liar, asked) = giver(&network, top, pages);
    let result = fetch(&node, &id, &[&liar.address]).ok().json().pop().unwrap();
    assert_eq!((asked.load(Ordering::SeqCst), result["size"].as_u64()), (0, Some(1024 * MIB)));
    assert_eq!(corpus::id_of_file(&node.home.path("out")), id);
    let stored = node.ctl().status()["stored_bytes"].as_u64().unwrap();
    assert!(stored < MIB, "{stored}");
}

/// A giver of all of an object but chunk 3, with parity that its maker signed and that is nothing of the kind.
fn false_parity(network: &str, truth: &Arc<Truth>, maker: &Keypair) -> Liar {
    let shards: Vec<Chunk> = (0..3)
        .map(|seed| Chunk::compute(Place::Root, corpus::bytes(90 + seed, 1 << 20).into()).unwrap())
        .collect();
    let ids: Vec<ChunkId> = shards.iter().map(Chunk::id).collect();
    let object: ObjectId = truth.manifest.id();
    let claim =
        ParityClaim { object, length: truth.data.len() as u64, codec: CODEC_RS8, k: 16, m: 4, count: 3 };
    let (part, pages): (ParityPart, Vec<ParityPage>) = ParityPart::sign(claim, &ids, maker).unwrap();
    let missing = truth.manifest.chunk(3).unwrap().id;
    let truth = Arc::clone(truth);
    Liar::new(network, move |request, ask| {
        let whole = |bytes: &[u8]| -> Vec<u8> {
            (0..)
                .step_by(SLICE)
                .zip(bytes.chunks(SLICE))
                .flat_map(|(at, part)| slice(request, at, part))
                .collect()
        };
        Reply::Say(match ask {
            Ask::Parity(_) => encode(&[Frame::Record(request, Record::Parity, part.encode())]),
            Ask::ParityPage(..) => encode(&[Frame::Record(request, Record::ParityPage, pages[0].encode())]),
            Ask::Chunk(chunk) if chunk.id == missing => encode(&[Frame::NotFound(request)]),
            Ask::Chunk(chunk) if chunk.place == Place::Root => {
                let shard = shards.iter().find(|shard| shard.id() == chunk.id);
                shard.map_or_else(|| encode(&[Frame::NotFound(request)]), |shard| whole(shard.bytes()))
            }
            _ => truth.answer(request, ask),
        })
    })
}

#[test]
fn parity_that_is_signed_and_false_is_found_out_and_data_is_none_the_worse() {
    let (node, network) = alone("0");
    let truth = Arc::new(Truth::new(corpus::bytes(77, 9 << 20)));
    let maker = Keypair::generate_ed25519();
    let liar = false_parity(&network, &truth, &maker);
    let done = fetch(&node, &truth.id(), &[&liar.address]).code(7);
    assert!(done.stderr.contains("chunk 3 of 9"), "{}", done.stderr);
    assert!(!node.home.path("out").exists());
    let line = node.daemon.logged("the parity of this object is false");
    assert!(line.contains(&maker.public().to_peer_id().to_string()) && line.contains("verdict="), "{line}");
    // Who has the chunk ends it; the rest is here.
    let honest = nodes::network(1, |_, settings| settings.text("network.name", &network)).pop().unwrap();
    assert_eq!(honest.ctl().add_bytes(&truth.data), truth.id());
    let result = fetch(&node, &truth.id(), &[&honest.daemon.chunk_address()]).ok().json().pop().unwrap();
    assert!(std::fs::read(node.home.path("out")).unwrap() == truth.data);
    assert_eq!(result["local_bytes"], 8 * MIB, "{result}");
    assert!(!node.daemon.log().contains("panicked"));
}
