//! Lists of nodes to join by that are nonsense, and links that lie: they cost time and a line that says so, and what is
//! right in them is used as if it stood alone.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use casd::peer::{Keypair, PeerId};
use casd_tests::corpus::{self, MIB};
use casd_tests::ctl::Done;
use casd_tests::wait::{self, LONG};
use casd_tests::{Home, Node, nodes};

fn somebody() -> PeerId {
    Keypair::generate_ed25519().public().to_peer_id()
}

/// A port where nobody listens: it was this process's a moment ago.
fn nobody() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A service that is no node, and talks to whoever comes.
#[expect(clippy::disallowed_methods, reason = "it is beside the daemons, and ends with this process")]
fn service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut caller in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let _ = caller.read(&mut [0; 512]);
                let _ = caller.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            });
        }
    });
    at
}

/// The TCP port of a daemon's DHT.
fn dht_port(node: &Node) -> String {
    let all = node.daemon.dht_addresses();
    let tcp = all.iter().find_map(|at| at.strip_prefix("/ip4/127.0.0.1/tcp/")).unwrap();
    tcp.split('/').next().unwrap().to_owned()
}

#[test]
fn a_list_of_nonsense_is_told_of_and_joined_by_what_is_right_in_it() {
    let first = nodes::network(1, |_, settings| settings).pop().unwrap();
    let network = first.ctl().status()["network"].as_str().unwrap().to_owned();
    let id = first.ctl().add_bytes(b"found all the same");
    let (port, own) = (dht_port(&first), first.id());
    // What is there is somebody else, nobody, or no node.
    let missed = [
        (somebody(), format!("/ip4/127.0.0.1/tcp/{port}")),
        (somebody(), format!("/ip4/127.0.0.1/tcp/{}", nobody())),
        (somebody(), format!("/ip4/127.0.0.1/tcp/{}", service().port())),
        (somebody(), "/dns4/nowhere.invalid/tcp/8468".to_owned()),
    ];
    let mut list: Vec<_> = missed.iter().map(|(peer, place)| format!("{place}/p2p/{peer}")).collect();
    list.push(format!("/ip4/127.0.0.1/tcp/{}/p2p/{own}", nobody()));
    list.extend(list.clone());
    list.push(format!("/ip4/127.0.0.1/tcp/{port}/p2p/{own}"));
    let home =
        Home::with(|settings| settings.text("network.name", &network).texts("network.bootstrap", &list));
    let second = Node { daemon: home.start(), home };
    let got = second.ctl().run(&["fetch", &id, "-o", "-"]).done().ok();
    assert_eq!(got.stdout, b"found all the same");
    for (peer, place) in &missed {
        let line = second.daemon.logged(&peer.to_string());
        assert!(line.contains("bootstrap node"), "{place}: {line}");
    }
    // Each is told of once, however often it is tried.
    let log = second.daemon.log();
    for (peer, _) in &missed {
        let lines = log.lines().filter(|line| line.contains(&peer.to_string())).count();
        assert!(lines <= 1, "{lines} lines about {peer}");
    }
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(second.daemon.stop(LONG).code(), Some(0));
}

/// Fetches by a link into a folder of its own.
fn follow(node: &Node, link: &str, folder: &str) -> Done {
    let folder = node.home.path(folder);
    std::fs::create_dir_all(&folder).unwrap();
    node.ctl().run(&["fetch", link, "--stall", "3s"]).in_folder(&folder).within(2 * LONG).done()
}

/// What a folder has in it.
fn names(node: &Node, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(node.home.path(folder)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A giver of a file, and a node that knows it by nothing but a link.
fn strangers() -> (Node, String, Node) {
    let giver = nodes::network(1, |_, settings| settings).pop().unwrap();
    let network = giver.ctl().status()["network"].as_str().unwrap().to_owned();
    let file = giver.home.path("file");
    let id = corpus::file(&file, 41, 3 * MIB + 7);
    assert_eq!(giver.ctl().add(&file), id);
    let home = Home::with(|settings| settings.text("network.name", &network));
    (giver, id, Node { daemon: home.start(), home })
}

/// Peers of a link that are none, as seen by `taker`.
fn wrong_peers(giver: &Node, taker: &Node) -> Vec<String> {
    let (who, at) =
        giver.daemon.chunk_address().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let dht = dht_port(giver);
    vec![
        // Somebody else at its place, it at the place of nobody, of a service, of the one that fetches.
        format!("{}@{at}", somebody()),
        format!("/ip4/127.0.0.1/tcp/{dht}/p2p/{}", somebody()),
        format!("{who}@127.0.0.1:{}", nobody()),
        format!("/ip4/127.0.0.1/tcp/{}/p2p/{who}", nobody()),
        format!("{who}@{}", service()),
        format!("/ip4/127.0.0.1/tcp/{}/p2p/{who}", service().port()),
        format!("{who}@{}", taker.daemon.chunk_address().split_once('@').unwrap().1),
        taker.daemon.chunk_address(),
        // Where no node can be.
        format!("{who}@0.0.0.0:{}", nobody()),
        format!("{who}@224.0.0.1:8468"),
        format!("{who}@[ff02::1]:8468"),
        format!("{who}@nowhere.invalid:8468"),
        format!("/ip4/255.255.255.255/udp/8468/quic-v1/p2p/{who}"),
        format!("/memory/7/p2p/{who}"),
    ]
}

#[test]
fn wrong_peers_in_a_link_keep_nobody_from_the_right_one() {
    let (giver, id, taker) = strangers();
    let wrong = wrong_peers(&giver, &taker);
    let link = |peers: &[String]| {
        let peers: Vec<_> = peers.iter().map(|peer| format!(",peer={peer}")).collect();
        format!("casd:{id},name=file{}", peers.concat())
    };
    // By these alone it ends, in time, and leaves nothing.
    let lost = follow(&taker, &link(&wrong), "lost");
    lost.refused(&[4], &id[..8]);
    assert_eq!(names(&taker, "lost"), [""; 0]);
    // Who was blamed for nothing gives it.
    let right = [&wrong[..], &[giver.daemon.chunk_address()]].concat();
    let _ = follow(&taker, &link(&right), "found").ok();
    assert_eq!(names(&taker, "found"), ["file"]);
    assert_eq!(corpus::id_of_file(&taker.home.path("found/file")), id);
    let banned = taker.ctl().json(&["--json", "peers"]);
    assert!(banned.iter().all(|peer| peer["banned_until"].as_u64().unwrap_or(0) == 0), "{banned:?}");
    wait::until("both are well", LONG, || (taker.daemon.is_ready() && giver.daemon.is_ready()).then_some(()));
}

#[test]
fn what_a_link_says_of_an_object_is_not_believed() {
    let (giver, id, taker) = strangers();
    let peer = format!("peer={}", giver.daemon.chunk_address());
    // A name is a hint, and a size is not even that.
    let rows = [
        ("..", id.as_str()),
        ("", id.as_str()),
        ("..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("%1B%5B31mred%0Aline", "_[31mred_line"),
        (".bashrc", "_bashrc"),
        ("-rf", "_rf"),
    ];
    for (number, (name, expected)) in rows.into_iter().enumerate() {
        let folder = format!("{number}/in/here");
        let done = follow(&taker, &format!("casd:{id},name={name},size=1,{peer}"), &folder).ok();
        assert_eq!(names(&taker, &folder), [expected], "{name}");
        assert_eq!(names(&taker, &format!("{number}/in")), ["here"], "{name}");
        assert!(!done.text().contains('\x1b') && !done.stderr.contains('\x1b'), "{name}");
        assert_eq!(corpus::id_of_file(&taker.home.path(&folder).join(expected)), id);
    }
    // It is no directory, and no other object.
    let _ = taker.ctl().run(&["rm", &id, "--force"]).done();
    let other = blake3::hash(b"another").to_hex().to_string();
    for (folder, wrong) in
        [("dir", format!("casd:dir:{id},{peer}")), ("other", format!("casd:{other},{peer}"))]
    {
        let done = follow(&taker, &wrong, folder);
        assert!(!done.status.success() && !done.stderr.contains("panicked"), "{wrong}: {}", done.stderr);
        assert_eq!(names(&taker, folder), [""; 0], "{wrong}: {}", done.stderr);
    }
}

#[test]
fn a_link_in_no_form_is_refused_before_anybody_is_asked() {
    let home = Home::new();
    let daemon = home.start();
    let (id, who) = (blake3::hash(b"something").to_hex().to_string(), somebody());
    let peers = |count: usize| format!("casd:{id}{}", format!(",peer={who}@127.0.0.1:9").repeat(count));
    for (link, word) in [
        (format!("casd:{}", &id[..60]), "64"),
        (format!("casd:{id},peer"), "peer"),
        (format!("casd:{id},name=%FF"), "name=%FF"),
        (format!("casd:{id},peer=somewhere"), "somewhere"),
        (format!("casd:{id},peer={who}@127.0.0.1:0"), "127.0.0.1:0"),
        (format!("casd:{id},peer=%1B%5B31m@127.0.0.1:9"), "127.0.0.1:9"),
        (format!("casd:{id},peer=/ip4/127.0.0.1/tcp/9"), "/ip4/127.0.0.1/tcp/9"),
        (format!("casd:{id},name={}", "x".repeat(5_000)), "4096"),
        (peers(80), "4096"),
    ] {
        let done = daemon.ctl().run(&["fetch", &link, "--stall", "1s"]).in_folder(&home.path(".")).done();
        done.refused(&[1, 2], word);
        assert!(!done.stderr.contains('\x1b'), "{link}: {}", done.stderr);
    }
}
