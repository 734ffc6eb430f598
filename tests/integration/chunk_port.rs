//! Strangers on the chunk plane: whatever they say, nothing false is stored or given, honest peers are used
//! instead, and the daemon is none the worse for it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use casd_tests::corpus::{self, MIB};
use casd_tests::ctl::Done;
use casd_tests::stranger::{self, Liar, Reply, Truth, encode, hello, slice};
use casd_tests::wait::{self, LONG};
use casd_tests::{Home, Node, nodes};

use casd::content::ChunkRef;
use casd::session::Reason;
use casd::session::frames::{Ask, Frame, Hello, Kind, Record, Role, SLICE};

/// A node with no neighbours, and what its network is called.
fn alone() -> (Node, String) {
    let node = nodes::network(1, |_, settings| settings).pop().unwrap();
    let network = node.ctl().status()["network"].as_str().unwrap().to_owned();
    (node, network)
}

/// Ten chunks and a bit.
fn truth() -> Arc<Truth> {
    Arc::new(Truth::new(corpus::bytes(77, usize::try_from(10 * MIB).unwrap() + 5000)))
}

fn fetch(node: &Node, id: &str, from: &[&str], stall: &str, out: &str) -> Done {
    let mut run = node.ctl().run(&["--json", "fetch", id, "--stall", stall, "-o"]).arg(node.home.path(out));
    for peer in from {
        run = run.arg("--peer").arg(peer);
    }
    run.within(2 * LONG).done()
}

/// A lie about one request; `None` where the truth is told.
type Lie = Box<dyn Fn(u32, &Ask, &Truth) -> Option<Reply> + Send + Sync>;

fn lie(lie: impl Fn(u32, &Ask, &Truth) -> Option<Reply> + Send + Sync + 'static) -> Lie {
    Box::new(lie)
}

fn liar(network: &str, truth: &Arc<Truth>, lie: Lie) -> Liar {
    let truth = Arc::clone(truth);
    Liar::new(network, move |request, ask| {
        lie(request, ask, &truth).unwrap_or_else(|| Reply::Say(truth.answer(request, ask)))
    })
}

/// A lie about the bytes of chunks; it is told at the second chunk, so that the first raises hopes.
fn about_chunks(say: impl Fn(u32, &ChunkRef, &Truth) -> Reply + Send + Sync + 'static) -> Lie {
    lie(move |request, ask, truth| match ask {
        Ask::Chunk(chunk) if chunk.id != truth.manifest.chunk(0).unwrap().id => {
            Some(say(request, chunk, truth))
        }
        _ => None,
    })
}

fn tops(say: impl Fn(&Truth) -> Vec<u8> + Send + Sync + 'static) -> Lie {
    lie(move |request, ask, truth| match ask {
        Ask::Top(_) => Some(Reply::Say(encode(&[Frame::Record(request, Record::Top, say(truth).into())]))),
        _ => None,
    })
}

fn pages(say: impl Fn(&Truth) -> Vec<u8> + Send + Sync + 'static) -> Lie {
    lie(move |request, ask, truth| match ask {
        Ask::Page(..) => Some(Reply::Say(encode(&[Frame::Record(request, Record::Page, say(truth).into())]))),
        _ => None,
    })
}

/// The true top with other bytes at some place.
fn altered(truth: &Truth, at: usize, with: &[u8]) -> Vec<u8> {
    let mut top = truth.manifest.top().encode().to_vec();
    top[at..at + with.len()].copy_from_slice(with);
    top
}

/// Values of ever smaller subtrees fold to the same id, so 4,096 leaves of 1 KiB could pass for 4,096 chunks of 1 MiB:
/// 4 GiB for an object of 4 MiB. The length is claimed with the best tail that there is.
fn leaves_for_chunks(truth: &Truth) -> Vec<u8> {
    let claim = u64::from(u32::MAX) + 1;
    let halves = truth.data[..4 << 20].chunks(2 << 20).enumerate();
    let values = halves.map(|(half, bytes)| {
        let mut hasher = blake3::Hasher::new();
        blake3::hazmat::HasherExt::set_input_offset(&mut hasher, (half as u64) << 21);
        blake3::hazmat::HasherExt::finalize_non_root(hasher.update(bytes))
    });
    let mut top = [&[1][..], &claim.to_le_bytes()].concat();
    values.for_each(|value| top.extend_from_slice(&value));
    // The true last leaf; then what would have to be 21 neighbours.
    top.extend_from_slice(&truth.data[truth.data.len() - 1024..]);
    top.extend_from_slice(&[7; 21 * 32]);
    top
}

/// Tops and pages that do not describe the object.
fn about_manifests() -> Vec<(&'static str, Lie)> {
    let length = |truth: &Truth| truth.data.len() as u64;
    vec![
        ("one byte shorter", tops(move |t| altered(t, 1, &(length(t) - 1).to_le_bytes()))),
        ("one byte longer", tops(move |t| altered(t, 1, &(length(t) + 1).to_le_bytes()))),
        ("a last leaf of other bytes", tops(|t| altered(t, 9, &[t.data[0] ^ 1]))),
        ("no length", tops(|t| altered(t, 1, &[0; 8]))),
        ("more than 4 TiB", tops(|t| altered(t, 1, &[0xff; 8]))),
        ("another version", tops(|t| altered(t, 0, &[2]))),
        ("a top and more", tops(|t| [&t.manifest.top().encode()[..], b"more"].concat())),
        ("half a top", tops(|t| t.manifest.top().encode()[..40].to_vec())),
        (
            "a page that folds wrongly",
            pages(|t| {
                let mut page = t.manifest.pages()[0].encode().to_vec();
                page[3 + 5 * 32] ^= 1;
                page
            }),
        ),
        (
            "two ids changed places",
            pages(|t| {
                let mut page = t.manifest.pages()[0].encode().to_vec();
                let (one, two) = page[3..].split_at_mut(32);
                one.swap_with_slice(&mut two[..32]);
                page
            }),
        ),
        (
            "a chunk said to be zeros",
            pages(|t| {
                let mut page = t.manifest.pages()[0].encode().to_vec();
                *page.last_mut().unwrap() |= 1;
                page
            }),
        ),
        (
            "a page of fewer chunks",
            pages(|t| {
                let page = t.manifest.pages()[0].encode();
                [&[1, 1, 0][..], &page[3..35], &[0]].concat()
            }),
        ),
    ]
}

/// Answers that are not the chunk that was asked for.
fn about_bytes() -> Vec<(&'static str, Lie)> {
    vec![
        (
            "other bytes",
            about_chunks(|request, chunk, _| Reply::Say(whole(request, &vec![9; chunk.length as usize]))),
        ),
        (
            "a bit flipped",
            about_chunks(|request, chunk, t| {
                let mut data = part(t, chunk).to_vec();
                data[chunk.length as usize / 2] ^= 1;
                Reply::Say(whole(request, &data))
            }),
        ),
        (
            "a byte more in the last slice",
            about_chunks(|request, chunk, t| {
                let (first, last) = part(t, chunk).split_at(chunk.length as usize - 1);
                let last = slice(request, first.len(), &[last, &[0]].concat());
                Reply::Say([whole(request, first), last].concat())
            }),
        ),
        ("a slice without data", about_chunks(|request, _, _| Reply::Say(slice(request, 0, &[])))),
        (
            "a slice that is too long",
            about_chunks(|request, _, t| Reply::Say(slice(request, 0, &t.data[..SLICE + 1]))),
        ),
        (
            "another chunk",
            about_chunks(|request, chunk, t| Reply::Say(whole(request, &t.data[..chunk.length as usize]))),
        ),
        ("zeros", about_chunks(|request, _, _| Reply::Say(encode(&[Frame::Zero(request)])))),
        (
            "a frame of 4 GiB",
            about_chunks(|_, _, _| Reply::Say([&[0xff; 4][..], &[Kind::Slice as u8]].concat())),
        ),
        (
            "too much",
            about_chunks(|request, chunk, t| {
                let data = [&t.data[..], &t.data[..]].concat();
                Reply::Say(whole(request, &data[..chunk.length as usize + SLICE]))
            }),
        ),
        (
            "a chunk nobody asked for",
            about_chunks(|request, _, t| Reply::Say(whole(request.wrapping_add(1000), &t.data[..SLICE]))),
        ),
        ("an unknown kind", about_chunks(|_, _, _| Reply::Say(vec![1, 0, 0, 0, 99]))),
        ("noise", about_chunks(|_, _, _| Reply::Say(corpus::bytes(5, 5000)))),
    ]
}

#[test]
fn a_giver_that_lies_is_struck_once_and_others_are_asked() {
    let (node, network) = alone();
    let honest = nodes::network(1, |_, settings| settings.text("network.name", &network)).pop().unwrap();
    let truth = truth();
    let file = honest.home.path("file");
    std::fs::write(&file, &truth.data).unwrap();
    assert_eq!(honest.ctl().add(&file), truth.id());
    let good = honest.daemon.chunk_address();
    // That nothing but the lie makes the difference: who tells the truth frame by frame is believed.
    let frank = liar(&network, &truth, lie(|_, _, _| None));
    let done = fetch(&node, &truth.id(), &[&frank.address], "10s", "frank").ok();
    assert_eq!(done.json()[0]["peers"][&frank.id], truth.data.len());
    assert!(std::fs::read(node.home.path("frank")).unwrap() == truth.data);
    node.ctl().run(&["rm", &truth.id()]).done().ok();

    for (what, lie) in about_manifests().into_iter().chain(about_bytes()) {
        let liar = liar(&network, &truth, lie);
        let done = fetch(&node, &truth.id(), &[&liar.address, &good], "20s", "out").ok();
        assert!(std::fs::read(node.home.path("out")).unwrap() == truth.data, "{what}");
        let given = &done.json()[0]["peers"];
        assert!(given[&honest.id()].as_u64() > Some(0), "{what}: {given}");
        std::fs::remove_file(node.home.path("out")).unwrap();
        node.ctl().run(&["rm", &truth.id()]).done().ok();
        let told = node.daemon.log().lines().filter(|line| line.contains(&liar.id)).count();
        assert!(told <= 1, "{what}: {told} lines about one peer");
    }
    let log = node.daemon.log();
    assert!(!log.contains("panicked"), "{log}");
    assert!(log.contains("a peer sent something else than what was asked of it"), "{log}");
}

/// The true bytes of a chunk.
fn part<'t>(truth: &'t Truth, chunk: &ChunkRef) -> &'t [u8] {
    let at = usize::try_from(chunk.place.offset()).unwrap();
    &truth.data[at..at + chunk.length as usize]
}

/// All slices of a chunk.
fn whole(request: u32, data: &[u8]) -> Vec<u8> {
    (0..).step_by(SLICE).zip(data.chunks(SLICE)).flat_map(|(at, part)| slice(request, at, part)).collect()
}

#[test]
fn an_object_of_4_mib_does_not_pass_for_4_gib() {
    let (node, network) = alone();
    let truth = Arc::new(Truth::new(corpus::bytes(78, 4 << 20)));
    let liar = liar(&network, &truth, tops(leaves_for_chunks));
    fetch(&node, &truth.id(), &[&liar.address], "2s", "out").refused(&[4], &truth.id()[..8]);
    assert!(liar.sessions() >= 1, "it was asked");
    assert!(!node.home.path("out").exists());
    assert!(node.ctl().json(&["ls"]).is_empty());
    let _ = node.daemon.logged(&liar.id);
}

#[test]
fn a_liar_alone_gives_nothing_and_says_why() {
    let (node, network) = alone();
    let truth = truth();
    // All chunks but the first are false: what is true stays here, nothing false does.
    let false_chunks =
        about_chunks(|request, chunk, _| Reply::Say(whole(request, &vec![9; chunk.length as usize])));
    let liar = liar(&network, &truth, false_chunks);
    let done = fetch(&node, &truth.id(), &[&liar.address], "2s", "out").code(7);
    assert!(done.stderr.contains("chunks 1-10") || done.stderr.contains("chunks 0-10"), "{}", done.stderr);
    assert!(!node.home.path("out").exists());
    assert!(liar.sessions() == 1, "a liar is not asked again in the same fetch");
}

#[test]
fn a_giver_that_stops_in_the_middle_of_a_chunk_costs_little() {
    let (node, network) = alone();
    let honest = nodes::network(1, |_, settings| settings.text("network.name", &network)).pop().unwrap();
    let truth = truth();
    let file = honest.home.path("file");
    std::fs::write(&file, &truth.data).unwrap();
    honest.ctl().add(&file);
    let good = honest.daemon.chunk_address();
    let stops: [(&str, Lie); 4] = [
        (
            "half a chunk and an end",
            about_chunks(|request, chunk, t| {
                let said = whole(request, part(t, chunk));
                Reply::Last(said[..said.len() / 2].to_vec())
            }),
        ),
        (
            "silence",
            about_chunks(|request, _, t| Reply::Say(slice(request, 0, &t.data[..SLICE])[..9999].to_vec())),
        ),
        ("no answer at all", about_chunks(|_, _, _| Reply::Say(Vec::new()))),
        ("an end", about_chunks(|_, _, _| Reply::Close)),
    ];
    for (what, lie) in stops {
        let liar = liar(&network, &truth, lie);
        fetch(&node, &truth.id(), &[&liar.address, &good], "60s", "out").ok();
        assert!(std::fs::read(node.home.path("out")).unwrap() == truth.data, "{what}");
        std::fs::remove_file(node.home.path("out")).unwrap();
        node.ctl().run(&["rm", &truth.id()]).done().ok();
    }
}

#[test]
fn whoever_calls_and_talks_nonsense_is_hung_up_on() {
    let (node, network) = alone();
    let at = node.daemon.chunk_address();
    let id = node.ctl().add_bytes(&corpus::bytes(1, 3 << 20));
    let (_, socket) = at.split_once('@').unwrap();
    // Without TLS: nothing, HTTP, noise. It hangs up by itself.
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\nHost: casd\r\n\r\n", &corpus::bytes(3, 100_000)] {
        let mut stream = TcpStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let _ = stream.write_all(bytes);
        let mut said = Vec::new();
        match stream.read_to_end(&mut said) {
            // At most a TLS alert, which is 7 bytes.
            Ok(_) => assert!(said.len() <= 7, "{said:?}"),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it hangs up: {error}");
            }
        }
    }
    // With TLS and an identity, and nonsense behind it.
    let hi = |hello: Hello| encode(&[Frame::Hello(hello)]);
    let ours = hello(&network, Role::Asker);
    let object = id.parse().unwrap();
    let flood: Vec<Frame> = (0..100_000).map(|request| Frame::Ask(request, Ask::Top(object))).collect();
    let calls = [
        ("nothing", Vec::new(), Reason::Slow),
        ("no hello", encode(&[Frame::Ping(1)]), Reason::Protocol),
        (
            "another magic",
            [&hi(ours.clone())[..5], b"CASD", &hi(ours.clone())[9..]].concat(),
            Reason::Protocol,
        ),
        ("another network", hi(hello("elsewhere", Role::Asker)), Reason::Network),
        ("another version", hi(Hello { least: 3, most: 9, ..ours.clone() }), Reason::Version),
        ("a giver's hello", hi(hello(&network, Role::Giver)), Reason::Protocol),
        ("a hello of 4 GiB", [&[0xff; 4][..], &[1]].concat(), Reason::Protocol),
        (
            "a frame of 4 GiB",
            [hi(ours.clone()), vec![0xff, 0xff, 0xff, 0xff, Kind::Want as u8]].concat(),
            Reason::Protocol,
        ),
        ("an answer", [hi(ours.clone()), encode(&[Frame::Zero(3)])].concat(), Reason::Protocol),
        ("a flood", [hi(ours.clone()), encode(&flood)].concat(), Reason::Protocol),
        ("a slice", [hi(ours), slice(0, 0, &[1; 100])].concat(), Reason::Protocol),
    ];
    for (what, bytes, why) in calls {
        let said = stranger::call(&at, &bytes);
        let last = stranger::decode(&said).pop();
        assert!(matches!(&last, Some(Frame::Goodbye(reason, _)) if *reason == why), "{what}: {last:?}");
    }
    assert_eq!(corpus::id(&node.ctl().cat(&id)), id);
    assert!(!node.daemon.log().contains("panicked"));
    // All of them are gone.
    wait::until("nobody to be connected", LONG, || (descriptors(&node) < 60).then_some(()));
}

/// Open files of a daemon.
fn descriptors(node: &Node) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", node.daemon.pid())).unwrap().count()
}

#[test]
fn another_identity_or_version_than_expected_is_named() {
    let (node, network) = alone();
    let other = Home::with(|settings| settings.text("network.name", &network));
    let other = other.start();
    let at = other.chunk_address();
    let (_, socket) = at.split_once('@').unwrap();
    let wrong = format!("{}@{socket}", casd::peer::Keypair::generate_ed25519().public().to_peer_id());
    node.ctl().run(&["connect", &wrong]).done().refused(&[1], &other.peer_id());
    let newer = Liar::with(Hello { least: 3, most: 9, ..hello(&network, Role::Giver) }, |_, _| Reply::Close);
    node.ctl().run(&["connect", &newer.address]).done().refused(&[1], "version");
    node.ctl().run(&["connect", &at]).done().ok();
}
