//! Many who fetch the same object from one holder, with nobody to find anybody by: they learn of each other from it.

use std::net::TcpListener;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use casd::peer::{CardSigner, Keypair};
use casd::session::frames::{Ask, Frame, Hello, Role};
use casd::session::{Fellow, Have};
use casd_tests::corpus::{self, MIB};
use casd_tests::stranger::{self, Liar, Reply, Truth, encode};
use casd_tests::wait::{self, LONG};
use casd_tests::{Home, Node, Settings, nodes};

/// A holder that gives so slowly that those who ask see each other, and others of its network who know nobody.
fn holder_and(takers: usize) -> (Node, Vec<Node>) {
    let slow = |settings: Settings| settings.text("transfer.upload", "12MiB").text("store.parity", "none");
    let holder = nodes::network(1, |_, settings| slow(settings)).pop().unwrap();
    let network = holder.ctl().status()["network"].as_str().unwrap().to_owned();
    let start = |_| {
        let home = Home::with(|settings| settings.text("network.name", &network));
        Node { daemon: home.start(), home }
    };
    (holder, (0..takers).map(start).collect())
}

#[test]
fn four_who_fetch_by_one_address_feed_each_other() {
    let (holder, takers) = holder_and(4);
    let size = 48 * MIB + 12_345;
    let file = holder.home.path("file");
    let id = corpus::file(&file, 1, size);
    assert_eq!(holder.ctl().add(&file), id);
    let at = holder.daemon.chunk_address();
    let begin = |taker: &Node| {
        let run = taker.ctl().run(&["--json", "fetch", &id, "--peer", &at, "-o"]).arg(taker.home.path("out"));
        run.within(3 * LONG).start()
    };
    let running: Vec<_> = takers.iter().map(begin).collect();
    let ids: Vec<String> = takers.iter().map(Node::id).collect();
    let mut given = 0;
    for (taker, running) in takers.iter().zip(running) {
        let result = running.done().ok().json().pop().expect("a result");
        assert_eq!(corpus::id_of_file(&taker.home.path("out")), id);
        let peers = &result["peers"];
        given += peers[&holder.id()].as_u64().unwrap_or(0);
        let others = ids.iter().filter(|other| peers[other.as_str()].as_u64() > Some(0)).count();
        assert!(others >= 1, "nobody but the holder gave anything: {peers}");
        assert_eq!(taker.ctl().status()["alone"], true, "it has joined no network");
    }
    // Four copies, if each had all from the holder.
    assert!((size..2 * size).contains(&given), "the holder gave {given} of {size}");
}

#[test]
fn a_client_is_told_of_others_and_others_are_not_told_of_it() {
    let (holder, mut takers) = holder_and(1);
    let network = holder.ctl().status()["network"].as_str().unwrap().to_owned();
    let home = Home::with(|settings| settings.text("network.name", &network).text("network.mode", "client"));
    let client = Node { daemon: home.start(), home };
    let quiet =
        Home::with(|settings| settings.text("network.name", &network).text("network.announce", "none"));
    takers.push(Node { daemon: quiet.start(), home: quiet });
    takers.push(client);
    let file = holder.home.path("file");
    let id = corpus::file(&file, 2, 36 * MIB);
    assert_eq!(holder.ctl().add(&file), id);
    let at = holder.daemon.chunk_address();
    let begin = |taker: &Node| {
        let run = taker.ctl().run(&["--json", "fetch", &id, "--peer", &at, "-o"]).arg(taker.home.path("out"));
        run.within(3 * LONG).start()
    };
    let running: Vec<_> = takers.iter().map(begin).collect();
    let [open, quiet, client] = [0, 1, 2].map(|number| takers[number].id());
    let results = running.into_iter().map(|running| running.done().ok().json().pop().expect("a result"));
    let peers: Vec<_> = results.map(|result| result["peers"].clone()).collect();
    for told in &peers {
        assert!(told[&client].is_null() && told[&quiet].is_null(), "nobody is told of these: {peers:?}");
    }
    for number in [1, 2] {
        assert!(peers[number][&open].as_u64() > Some(0), "{number} is told: {peers:?}");
    }
}

/// Where nobody must knock, and whether somebody has.
fn door() -> TcpListener {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    door.set_nonblocking(true).unwrap();
    door
}

/// The card of somebody who is at a door.
fn card(network: &str, door: &TcpListener, time: u64) -> Vec<u8> {
    let signer = CardSigner::new(Keypair::generate_ed25519(), network, &[door.local_addr().unwrap()]);
    signer.unwrap().sign(time).unwrap().to_vec()
}

#[test]
fn who_is_told_of_with_a_false_card_is_not_dialled() {
    let node = nodes::network(1, |_, settings| settings).pop().unwrap();
    let network = node.ctl().status()["network"].as_str().unwrap().to_owned();
    let truth = Truth::new(corpus::bytes(79, 5 << 20));
    let id = truth.id();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (honest, lies) = (door(), [door(), door(), door(), door()]);
    let [stale, early, elsewhere, forged] = &lies;
    let mut other_port = card(&network, forged, now);
    // Of its only address the port is another.
    let port = 1 + 8 + 1 + 1 + 4;
    other_port[port..port + 2].copy_from_slice(&elsewhere.local_addr().unwrap().port().to_le_bytes());
    let near = honest.local_addr().unwrap().ip();
    let cards = [
        card(&network, stale, now - 2 * 86_400),
        card(&network, early, now + 2 * 86_400),
        card("another", elsewhere, now),
        other_port,
        b"no card".to_vec(),
        card(&network, &honest, now),
    ];
    let told: Vec<_> = cards.into_iter().map(|card| Fellow { seen: Some(near), card: card.into() }).collect();
    let (honest, met) = (Arc::new(honest), OnceLock::new());
    let knocked = Arc::clone(&honest);
    let hello = Hello { most: 2, ..stranger::hello(&network, Role::Giver) };
    let teller = Liar::with(hello, move |request, ask| {
        Reply::Say(match ask {
            Ask::Haves(_) => {
                encode(&[Frame::Have(request, Have::Whole), Frame::Peers(request, told.clone())])
            }
            // Nothing is given before the true one has been tried.
            Ask::Chunk(_) => {
                met.get_or_init(|| wait::until("a knock", LONG, || knocked.accept().ok().map(drop)));
                truth.answer(request, ask)
            }
            _ => truth.answer(request, ask),
        })
    });
    let run = node.ctl().run(&["fetch", &id, "--peer", &teller.address, "-o"]);
    run.arg(node.home.path("out")).within(2 * LONG).done().ok();
    assert_eq!(corpus::id_of_file(&node.home.path("out")), id);
    for door in &lies {
        let knock = door.accept().map(drop).map_err(|error| error.kind());
        assert_eq!(knock, Err(std::io::ErrorKind::WouldBlock), "{door:?}");
    }
    assert!(honest.accept().is_err(), "one knock is enough");
}
