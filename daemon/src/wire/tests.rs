//! Real sockets on loopback.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LOOPBACK: &str = "127.0.0.1:0";

/// A node's identity, wire and open port.
fn node(options: Options) -> (PeerId, Wire, Listener, Tasks) {
    let (key, tasks) = (Keypair::generate_ed25519(), Tasks::new());
    let wire = Wire::new(&key, options).unwrap();
    let listener = wire.listen(LOOPBACK.parse().unwrap(), &tasks).unwrap();
    (key.public().to_peer_id(), wire, listener, tasks)
}

/// Dials a port and takes what comes; a dial that fails is not waited for.
async fn meet(wire: &Wire, peer: PeerId, port: &mut Listener) -> (Result<Conn, DialError>, Option<Conn>) {
    let out = wire.dial(peer, port.local_addr()).await;
    let into = if out.is_ok() { port.accept().await } else { None };
    (out, into)
}

fn brief() -> Options {
    Options { handshake: Duration::from_millis(300), ..Options::default() }
}

/// No test takes longer.
async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("a test takes under a minute")
}

/// Waits for a condition that no future tells of.
async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn both_ends_know_who_the_other_is() {
    let (alice, wire, mut port, _tasks) = node(Options::default());
    let (bob, other, _port, _other_tasks) = node(Options::default());
    within(async {
        let (out, into) = meet(&other, alice, &mut port).await;
        let (mut out, mut into) = (out.unwrap(), into.unwrap());
        assert_eq!((out.peer, into.peer), (alice, bob));
        assert_eq!(out.remote, Some(port.local_addr().ip()));
        assert_eq!(out.binding, into.binding);
        assert_ne!(out.binding, [0; 32]);
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        let (_, back) = tokio::join!(
            async {
                into.stream.write_all(&data).await.unwrap();
                into.stream.shutdown().await.unwrap();
            },
            async {
                let mut back = Vec::new();
                out.stream.read_to_end(&mut back).await.unwrap();
                back
            }
        );
        assert!(back == data);
        let (again, _into) = meet(&other, alice, &mut port).await;
        assert_ne!(again.unwrap().binding, out.binding);
        assert_eq!(wire.counters(), Counters { accepted: 2, failed: 0, refused: 0 });
    })
    .await;
}

#[tokio::test]
async fn aes_is_negotiated_and_nothing_can_be_resumed() {
    let (alice, _wire, port, _tasks) = node(Options::default());
    let tls = Tls::new(&Keypair::generate_ed25519()).unwrap();
    within(async {
        let socket = TcpStream::connect(port.local_addr()).await.unwrap();
        let stream = tls.connect(alice, port.local_addr(), socket).await.unwrap();
        let (_, session) = stream.get_ref();
        let suite = session.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    })
    .await;
}

#[tokio::test]
async fn another_peer_than_the_one_wanted_is_named_and_does_not_learn_who_asked() {
    let (alice, wire, mut port, _tasks) = node(brief());
    let (_, other, ..) = node(Options::default());
    let wanted = PeerId::random();
    within(async {
        match other.dial(wanted, port.local_addr()).await {
            Err(error) => {
                // What people are told to do follows from these words.
                assert!(error.to_string().starts_with("another node is at "), "{error}");
                let DialError::WrongPeer { wanted: w, found, .. } = error else { panic!("{error}") };
                assert_eq!((w, found), (wanted, alice));
            }
            Ok(_) => panic!("another was taken for it"),
        }
        until(|| wire.counters().failed != 0).await;
        assert!(port.accept().now_or_never().is_none());
        assert_eq!(wire.connections(), 0);
    })
    .await;
}

#[tokio::test]
async fn who_speaks_something_else_or_nothing_is_closed_and_counted() {
    let (alice, wire, mut port, _tasks) = node(brief());
    within(async {
        let garbage: Vec<u8> =
            (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let calls: [&[u8]; 5] = [
            b"",
            b"GET / HTTP/1.1\r\nHost: casd\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.9\r\n",
            b"\x16\x03\x01\xff\xff",
            &garbage,
        ];
        for (count, bytes) in (1..).zip(calls) {
            let mut socket = TcpStream::connect(port.local_addr()).await.unwrap();
            let _ = socket.write_all(bytes).await;
            // It is we who wait: the other side must close. A reset is as good.
            let _ = socket.read_to_end(&mut Vec::new()).await;
            until(|| wire.counters().failed >= count).await;
        }
        // TLS, but of nobody, or of another protocol.
        let socket = TcpStream::connect(port.local_addr()).await.unwrap();
        let _ = shake_as_stranger(socket).await;
        let socket = TcpStream::connect(port.local_addr()).await.unwrap();
        let _ = shake_as_libp2p(socket).await;
        until(|| wire.counters().failed >= 7).await;
        assert_eq!((wire.counters().accepted, wire.connections()), (0, 0));
        let (bob, other, ..) = node(Options::default());
        let (out, into) = meet(&other, alice, &mut port).await;
        assert!(out.is_ok() && into.unwrap().peer == bob);
    })
    .await;
}

/// Slow-loris: whoever opens connections and says nothing, or next to nothing, and opens new ones whenever one is
/// closed.
#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out() {
    let options = Options { half_open: 8, connections: 12, ..Options::default() };
    let (alice, wire, mut port, _tasks) = node(options);
    within(async {
        let mut silent = Vec::new();
        for number in 0..200 {
            let mut socket = TcpStream::connect(port.local_addr()).await.unwrap();
            // The beginning of a handshake, or nothing.
            let said = if number % 2 == 0 { &b"\x16\x03\x01"[..] } else { b"" };
            let _ = socket.write_all(said).await;
            silent.push(socket);
        }
        // All but the last are let go, long before their time is over.
        until(|| wire.counters().failed >= 192).await;
        assert_eq!((wire.counters().refused, wire.connections()), (0, 0));
        for _ in 0..3 {
            let (bob, other, ..) = node(Options::default());
            let (out, into) = meet(&other, alice, &mut port).await;
            assert!(out.is_ok() && into.unwrap().peer == bob);
        }
        assert!(silent[0].read_u8().await.is_err(), "it is closed");
    })
    .await;
}

/// A client that has no certificate at all.
async fn shake_as_stranger(socket: TcpStream) -> std::io::Result<()> {
    let mut config = libp2p_tls::make_client_config(&Keypair::generate_ed25519(), None).unwrap();
    config.client_auth_cert_resolver = Arc::new(Nobody);
    config.alpn_protocols = vec![b"casd/1".to_vec()];
    shake(config, socket).await
}

/// A node of another protocol with a good identity.
async fn shake_as_libp2p(socket: TcpStream) -> std::io::Result<()> {
    shake(libp2p_tls::make_client_config(&Keypair::generate_ed25519(), None).unwrap(), socket).await
}

async fn shake(config: rustls::ClientConfig, socket: TcpStream) -> std::io::Result<()> {
    let name = rustls::pki_types::ServerName::try_from("casd.invalid").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
    stream.read_u8().await.map(drop)
}

#[derive(Debug)]
struct Nobody;

impl rustls::client::ResolvesClientCert for Nobody {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_dial_ends_in_time_and_says_why() {
    let options = Options { dial: Duration::from_millis(200), ..Options::default() };
    let (_, wire, port, tasks) = node(options);
    within(async {
        // Accepts and says nothing.
        let silent = tokio::net::TcpListener::bind(LOOPBACK).await.unwrap();
        let error = wire.dial(PeerId::random(), silent.local_addr().unwrap()).await.unwrap_err();
        assert!(matches!(error, DialError::TimedOut { .. }), "{error}");
        let at = port.local_addr();
        drop(port);
        tasks.drain(Duration::from_secs(30)).await;
        let error = wire.dial(PeerId::random(), at).await.unwrap_err();
        assert!(matches!(error, DialError::Connect { .. }), "{error}");
        let web = tokio::net::TcpListener::bind(LOOPBACK).await.unwrap();
        let answer = async {
            let (mut socket, _) = web.accept().await.unwrap();
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            socket
        };
        let (error, _socket) = tokio::join!(wire.dial(PeerId::random(), web.local_addr().unwrap()), answer);
        assert!(matches!(error, Err(DialError::Handshake { .. })), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn no_more_connections_than_allowed_and_room_again_when_one_ends() {
    let (alice, wire, mut port, _tasks) = node(Options { connections: 1, ..Options::default() });
    let (_, other, ..) = node(Options { connections: 1, ..Options::default() });
    let at = port.local_addr();
    within(async {
        let (out, into) = meet(&other, alice, &mut port).await;
        let (out, into) = (out.unwrap(), into.unwrap());
        assert!(matches!(other.dial(alice, at).await, Err(DialError::Full { limit: 1, .. })));
        // The limit of the listening side: the socket is closed before a handshake.
        let mut socket = TcpStream::connect(at).await.unwrap();
        assert!(matches!(socket.read(&mut [0]).await, Ok(0) | Err(_)));
        assert_eq!((wire.counters().refused, wire.connections(), other.connections()), (1, 1, 1));
        drop((out, into));
        assert_eq!((wire.connections(), other.connections()), (0, 0));
        let (out, into) = meet(&other, alice, &mut port).await;
        assert!(out.is_ok() && into.is_some());
    })
    .await;
}

#[tokio::test]
async fn ports_are_taken_freed_and_told_apart() {
    let (_, wire, port, tasks) = node(Options::default());
    within(async {
        let taken = wire.listen(port.local_addr(), &tasks).unwrap_err();
        assert!(
            matches!(&taken, Error::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse)
        );
        let stopped = tasks.child();
        let mut second = wire.listen(LOOPBACK.parse().unwrap(), &stopped).unwrap();
        assert_ne!(second.local_addr(), port.local_addr());
        assert_eq!(stopped.drain(Duration::from_secs(30)).await, 0);
        assert!(second.accept().await.is_none());
        // Each family for itself: `[::]` beside `0.0.0.0` on one port is no conflict. Not every machine has IPv6.
        let Ok(six) = wire.listen("[::]:0".parse().unwrap(), &tasks) else { return };
        let four = SocketAddr::new("0.0.0.0".parse().unwrap(), six.local_addr().port());
        assert!(wire.listen(four, &tasks).is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_banned_peer_is_let_in_from_neither_side_and_its_connections_end() {
    let (bob, other, _port, _other_tasks) = node(Options::default());
    let (key, tasks, conduct) = (Keypair::generate_ed25519(), Tasks::new(), Conduct::default());
    let wire = Wire::minding(&key, Options::default(), conduct.clone()).unwrap();
    let mut port = wire.listen(LOOPBACK.parse().unwrap(), &tasks).unwrap();
    let alice = key.public().to_peer_id();
    within(async {
        let (out, into) = meet(&other, alice, &mut port).await;
        let (mut out, mut into) = (out.unwrap(), into.unwrap());
        let ban = async {
            for _ in 0..3 {
                conduct.strike(bob, None, "it lies", SystemTime::now());
            }
        };
        let (ended, ()) = tokio::join!(into.stream.read_u8(), ban);
        assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionAborted);
        drop(into);
        assert!(out.stream.read_u8().await.is_err(), "the other end sees it close");
        // Whether its dial fails or the connection ends at once, it is not handed over.
        if let Ok(mut out) = other.dial(alice, port.local_addr()).await {
            assert!(out.stream.read_u8().await.is_err());
        }
        until(|| wire.counters().failed == 1).await;
        let refused = wire.dial(bob, LOOPBACK.parse().unwrap()).await;
        assert!(matches!(refused, Err(DialError::Banned { .. })), "{refused:?}");
        assert!(conduct.pardon(&bob, SystemTime::now()));
        let (out, into) = meet(&other, alice, &mut port).await;
        assert!(out.is_ok() && into.is_some());
    })
    .await;
}
