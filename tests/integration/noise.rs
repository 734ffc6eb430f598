//! Strangers who are no peers at all: they come and go, make noise, speak of something else, or say next to nothing for
//! as long as they can. They are hung up on, the log says little of it, and honest peers are served meanwhile.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};

use casd_tests::corpus::{self, MIB};
use casd_tests::stranger::{self, Liar, Reply, encode, hello, slice};
use casd_tests::wait::{self, LONG};
use casd_tests::{Node, Settings, nodes};

use casd::session::Reason;
use casd::session::frames::{Ask, Frame, Record, Role};

/// MiB of noise that each port hears. The long form: 1000.
const NOISE: &str = "CASD_NOISE";

/// Handshakes that the chunk port has under way at most.
const HALF_OPEN: usize = 64;

/// Two nodes of one network, an object that the first has, and what the network is called.
fn two() -> (Node, Node, String, String) {
    let nodes = nodes::network(2, |_, settings| settings);
    let [first, second] = <[Node; 2]>::try_from(nodes).unwrap();
    let id = first.ctl().add_bytes(&corpus::bytes(31, usize::try_from(3 * MIB).unwrap()));
    let network = first.ctl().status()["network"].as_str().unwrap().to_owned();
    (first, second, id, network)
}

/// Where a node listens on TCP: its chunk port, and the DHT's.
fn ports(node: &Node) -> [SocketAddr; 2] {
    let chunk = node.daemon.chunk_address();
    let (_, chunk) = chunk.split_once('@').unwrap();
    [chunk.parse().unwrap(), dht(node, "tcp")]
}

/// Where its DHT listens on TCP or UDP.
fn dht(node: &Node, over: &str) -> SocketAddr {
    let all = node.daemon.dht_addresses();
    let start = format!("/ip4/127.0.0.1/{over}/");
    let port = all.iter().find_map(|at| at.strip_prefix(&start)).unwrap().split('/').next().unwrap();
    SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()))
}

fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// Waits until the other end hangs up: an end or a reset, and not silence.
fn hung_up_on(mut stream: TcpStream) {
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it hangs up: {error}"),
    }
}

/// Open files of a daemon.
fn descriptors(node: &Node) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", node.daemon.pid())).unwrap().count()
}

/// What it holds of memory, in KiB.
fn memory(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Another node fetches the object, and nobody who is no peer is connected any more.
fn is_none_the_worse(node: &Node, other: &Node, id: &str, descriptors_before: usize) {
    fetches(other, id, &node.daemon.chunk_address());
    wait::until("strangers to be gone", LONG, || {
        (descriptors(node) <= descriptors_before + 16).then_some(())
    });
    assert!(!node.daemon.log().contains("panicked"));
}

/// A node fetches an object from another, and forgets it.
fn fetches(node: &Node, id: &str, from: &str) {
    let run = node.ctl().run(&["fetch", id, "--peer", from, "--force", "-o"]).arg(node.home.path("out"));
    run.within(2 * LONG).done().ok();
    assert_eq!(corpus::id_of_file(&node.home.path("out")), id);
    node.ctl().run(&["rm", id]).done().ok();
}

fn lines(node: &Node) -> usize {
    node.daemon.log().lines().count()
}

/// B01: nothing, and an end or a reset.
#[test]
fn who_comes_and_goes_without_a_word_is_not_spoken_of() {
    let (node, other, id, _) = two();
    let (before, open) = (lines(&node), descriptors(&node));
    for at in ports(&node) {
        for number in 0..200 {
            let stream = connect(at);
            if number % 2 == 0 {
                let at_once = Some(Duration::ZERO);
                rustix::net::sockopt::set_socket_linger(&stream, at_once).unwrap();
            } else {
                stream.shutdown(Shutdown::Write).unwrap();
                hung_up_on(stream);
            }
        }
    }
    is_none_the_worse(&node, &other, &id, open);
    let said: Vec<String> = node.daemon.log().lines().skip(before).map(str::to_owned).collect();
    assert!(said.len() <= 3, "{said:#?}");
}

/// B14: a MiB of noise again and again, on every port.
#[test]
fn noise_on_every_port_is_hung_up_on() {
    let (node, other, id, _) = two();
    let rounds: u64 = std::env::var(NOISE).map_or(20, |rounds| rounds.parse().unwrap());
    let (open, held, before) = (descriptors(&node), memory(&node), lines(&node));
    let noise = |round: u64| corpus::bytes(1000 + round, usize::try_from(MIB).unwrap());
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let quic = dht(&node, "udp");
    for round in 0..rounds {
        for at in ports(&node) {
            let mut stream = connect(at);
            // It may hang up before it has heard all.
            let _ = stream.write_all(&noise(round));
            hung_up_on(stream);
        }
        for datagram in noise(round).chunks(1200) {
            // What does not fit into its socket's buffer is lost.
            let _ = udp.send_to(datagram, quic);
        }
    }
    is_none_the_worse(&node, &other, &id, open);
    assert!(memory(&node) <= held + (64 << 10), "{held} and then {} KiB", memory(&node));
    assert!(lines(&node) <= before + 30, "{} lines", lines(&node) - before);
}

/// What a program that knows nothing of casd says first by TLS.
fn stock_tls() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let name = "casd.invalid".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut said = Vec::new();
    client.write_tls(&mut said).unwrap();
    said
}

/// B15: TLS, HTTP, SSH and SMTP, a hundred times each on either port.
#[test]
fn other_protocols_are_hung_up_on_and_do_not_fill_the_log() {
    let (node, other, id, _) = two();
    let (before, open) = (lines(&node), descriptors(&node));
    let tls = stock_tls();
    let says: [&[u8]; 4] =
        [&tls, b"GET / HTTP/1.1\r\nHost: casd\r\n\r\n", b"SSH-2.0-OpenSSH_9.9\r\n", b"EHLO casd\r\n"];
    for at in ports(&node) {
        let streams = says.iter().cycle().take(400).map(|said| {
            let mut stream = connect(at);
            let _ = stream.write_all(said);
            stream
        });
        let streams: Vec<TcpStream> = streams.collect();
        streams.into_iter().for_each(hung_up_on);
    }
    is_none_the_worse(&node, &other, &id, open);
    let said: Vec<String> = node.daemon.log().lines().skip(before).map(str::to_owned).collect();
    assert!(said.len() <= 30, "{said:#?}");
}

/// A connection from another address of this host than those that honest nodes come from.
fn connect_from_elsewhere(to: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    socket.into()
}

/// Slow-loris: two thousand connections of one host that say next to nothing, opened anew as they are closed.
#[test]
fn slow_connections_keep_nobody_from_being_served() {
    let (node, other, id, _) = two();
    let open = descriptors(&node);
    let [chunk, _] = ports(&node);
    let (stop, opened, most) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut slow = std::collections::VecDeque::new();
            // So many at most, should what is waited for not come.
            while !stop.load(Ordering::Relaxed) && opened.load(Ordering::Relaxed) < 20_000 {
                // The beginning of a handshake: a record is to come that never does.
                let mut stream = connect_from_elsewhere(chunk);
                let _ = stream.write_all(b"\x16\x03\x01\x02");
                slow.push_back(stream);
                if slow.len() > 200 {
                    slow.pop_front();
                }
                opened.fetch_add(1, Ordering::Relaxed);
                most.fetch_max(descriptors(&node), Ordering::Relaxed);
            }
        });
        let mut fetched = 0;
        wait::until("two thousand to have come, and fetches among them", 2 * LONG, || {
            if opened.load(Ordering::Relaxed) > 2 * HALF_OPEN {
                fetches(&other, &id, &node.daemon.chunk_address());
                fetched += 1;
            }
            (fetched > 2 && opened.load(Ordering::Relaxed) >= 2000).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
    });
    let most = most.load(Ordering::Relaxed);
    assert!(most <= open + HALF_OPEN + 64, "{open} and then {most} open files");
    is_none_the_worse(&node, &other, &id, open);
}

/// B08: who has shown an identity and says the rest a byte at a time.
#[test]
fn who_says_a_byte_at_a_time_is_cut_off() {
    let (node, other, id, network) = two();
    let open = descriptors(&node);
    let at = node.daemon.chunk_address();
    let ours = encode(&[Frame::Hello(hello(&network, Role::Asker))]);
    let ask = encode(&[Frame::Ask(0, Ask::Top(id.parse().unwrap()))]);
    thread::scope(|scope| {
        let ways = [("a hello", Vec::new(), &ours), ("a request", ours.clone(), &ask)];
        let slow = ways.map(|(what, first, slowly)| {
            let at = &at;
            (what, scope.spawn(move || stranger::drip(at, &first, slowly)))
        });
        for (what, slow) in slow {
            let said = stranger::decode(&slow.join().unwrap());
            let last = said.last();
            assert!(matches!(last, Some(Frame::Goodbye(Reason::Slow, _))), "{what}: {last:?}");
        }
    });
    is_none_the_worse(&node, &other, &id, open);
}

/// B13: ten thousand requests at once. Who asks for more than was granted breaks the protocol; what was granted is
/// answered.
#[test]
fn requests_beyond_what_is_granted_end_a_session_and_those_within_are_answered() {
    let settings = |_: usize, settings: Settings| settings.text("transfer.idle_timeout", "1s");
    let [node, other] = <[Node; 2]>::try_from(nodes::network(2, settings)).unwrap();
    let id = node.ctl().add_bytes(&corpus::bytes(32, usize::try_from(3 * MIB).unwrap()));
    let network = node.ctl().status()["network"].as_str().unwrap().to_owned();
    let open = descriptors(&node);
    let at = node.daemon.chunk_address();
    let object = id.parse().unwrap();
    let ask = |count: u32| {
        let asks = (0..count).map(|request| Frame::Ask(request, Ask::Top(object)));
        let says: Vec<Frame> = [Frame::Hello(hello(&network, Role::Asker))].into_iter().chain(asks).collect();
        stranger::decode(&stranger::call(&at, &encode(&says)))
    };
    let last = ask(10_000).pop();
    assert!(matches!(last, Some(Frame::Goodbye(Reason::Protocol, _))), "{last:?}");
    let said = ask(64);
    let answers = said.iter().filter(|frame| matches!(frame, Frame::Record(_, Record::Top, _))).count();
    assert_eq!(answers, 64, "{said:?}");
    is_none_the_worse(&node, &other, &id, open);
}

/// Words that would drive a terminal, in the one place where a giver may say something to be shown.
#[test]
fn what_a_peer_says_in_parting_drives_no_terminal() {
    let (node, _, _, network) = two();
    let controls = (0..=0x9f).filter_map(char::from_u32).filter(|c| c.is_control());
    let words: String = controls.chain(['\u{202e}', '\u{2028}', '\u{feff}']).collect();
    assert!(words.len() <= 256);
    let goodbye = encode(&[Frame::Goodbye(Reason::Other(77), words)]);
    let liar = Liar::new(&network, move |_, _| Reply::Last(goodbye.clone()));
    let id = corpus::id(b"that nobody has");
    let run = node.ctl().run(&["fetch", &id, "--stall", "2s", "--peer", &liar.address, "-o"]);
    let done = run.arg(node.home.path("out")).done();
    assert!(!done.status.success() && liar.sessions() > 0);
    for (what, said) in [("casctl", &done.stderr), ("the log", &node.daemon.log())] {
        let bad =
            said.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}' || *c == '\u{2028}');
        assert_eq!(bad, None, "{what}: {said:?}");
    }
}

/// A slice where a hello is due, and other frames that only a giver sends, from one who was let in.
#[test]
fn frames_of_the_wrong_end_are_refused() {
    let (node, other, id, network) = two();
    let open = descriptors(&node);
    let at = node.daemon.chunk_address();
    let ours = encode(&[Frame::Hello(hello(&network, Role::Asker))]);
    let wrong = [
        ("a slice first", slice(0, 0, &[1; 9])),
        ("a slice", [ours.clone(), slice(0, 0, &[1; 9])].concat()),
        ("a pong", [ours.clone(), encode(&[Frame::Pong(1)])].concat()),
        ("not found", [ours.clone(), encode(&[Frame::NotFound(1)])].concat()),
        ("two hellos", [ours.clone(), ours].concat()),
    ];
    for (what, bytes) in wrong {
        let last = stranger::decode(&stranger::call(&at, &bytes)).pop();
        assert!(matches!(last, Some(Frame::Goodbye(Reason::Protocol, _))), "{what}: {last:?}");
    }
    is_none_the_worse(&node, &other, &id, open);
}
