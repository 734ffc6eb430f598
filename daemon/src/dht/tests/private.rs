//! Private networks: who is let in, and what those learn who are not.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Instant;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::core::Transport as _;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use libp2p::core::transport::{DialOpts, ListenerId, PortUse, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::core::{Endpoint, Negotiated};
use libp2p::multiaddr::Protocol;
use multistream_select::{dialer_select_proto, listener_select_proto};
use tokio::task::JoinHandle;

use super::memory::{Net, Place};
use super::{Node, QUIC, TCP, key, options, until, within};
use crate::dht::proof::{Between, PROTOCOL, Prover, Role, WITHIN};
use crate::dht::{Error, Options, transport};
use crate::peer::{Discovery, Holder, Keypair, Multiaddr, NetworkKey, PeerId};
use crate::support::task::Tasks;

fn private(listen: &str, others: &[&Node], key: u8) -> Options {
    Options { key: Some([key; 32].into()), ..options(listen, others) }
}

/// The prover of a peer that has key 1 of these tests' network.
fn prover(local: PeerId) -> Prover {
    Prover::new(NetworkKey::from([1; 32]), local, "test")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_have_the_key_find_each_other() {
    for listen in [QUIC, TCP] {
        let first = Node::with(private(listen, &[], 1)).await;
        let second = Node::with(private(listen, &[&first], 1)).await;
        let third = Node::with(private(listen, &[&first], 1)).await;
        for node in [&first, &second, &third] {
            node.knows(2).await;
        }
        let announced = within("the key is placed", second.announce(vec![key(1)], 20)).await;
        assert_eq!((announced.keys, announced.receivers), (1, 2));
        let found = third.find(key(1)).await;
        assert_eq!(found.len(), 1, "{listen}");
        assert_eq!(found[0].chunk, second.chunk);
    }
}

/// A holder that is on a private network of its own, told of by one in the middle that is no relay for it; behind a
/// router, or where there is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_on_another_private_network_is_told_of_with_why_it_is_not_dialled() {
    let homes = |holder, asker| [Place::behind("20.8.0.1", holder), Place::behind("20.9.0.1", asker)];
    for (middle, [holder, asker], ip) in [
        ("10.77.1.1", [Place::at("10.77.2.3"), Place::at("10.77.1.2")], "10.77.2.3"),
        ("20.1.0.1", homes("192.168.1.3", "10.9.0.5").map(Place::shut), "192.168.1.3"),
    ] {
        let net = Net::default();
        let middle = net.start(Place::at(middle), |options| options).await;
        // It asks no relay for a place.
        let holder = net.start(holder, |options| Options { serves: false, ..options }).await;
        holder.connect(&middle).await;
        holder.node.knows(1).await;
        let announced = within("the key is placed", holder.node.announce(vec![key(1)], 20)).await;
        assert_eq!((announced.keys, announced.receivers), (1, 1));
        let asker = net.start(asker, |options| options).await;
        asker.connect(&middle).await;
        asker.node.knows(1).await;
        let told = asker.node.look(key(1)).await;
        let Some(Holder::Missed(peer, Some(why))) = told.last() else { panic!("{told:?}") };
        assert_eq!(*peer, holder.id());
        let elsewhere = format!("it is on another private network ({ip}), ");
        assert!(why.starts_with(&elsewhere) && why.contains("no relay of it is known"), "{why}");
        assert_eq!(net.dials(&asker, ip), 0);
    }
}

/// A holder behind a router, which one in the middle tells of: it is on none of the asker's subnets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_the_key_is_dialled_at_a_private_address_that_another_tells_and_who_has_none_is_not() {
    for has_key in [true, false] {
        let (net, chunk) = (Net::default(), vec![SocketAddr::from(([10, 77, 2, 3], 9000))]);
        let key_of_all = has_key.then(|| NetworkKey::from([1; 32]));
        let keyed = |options: Options| Options { key: key_of_all.clone(), ..options };
        let middle = net.start(Place::at("10.77.1.1"), keyed).await;
        let holds = |options| Options { chunk: chunk.clone(), ..keyed(options) };
        let holder = net.start(Place::at("10.77.2.3"), holds).await;
        holder.connect(&middle).await;
        holder.node.knows(1).await;
        let announced = within("the key is placed", holder.node.announce(vec![key(1)], 20)).await;
        assert_eq!((announced.keys, announced.receivers), (1, 1));
        let asker = net.start(Place::at("10.77.1.2"), keyed).await;
        asker.connect(&middle).await;
        asker.node.knows(1).await;
        let found = asker.node.find(key(1)).await;
        assert_eq!(net.dials(&asker, "10.77.2.3") > 0, has_key);
        let at: Vec<_> = found.into_iter().flat_map(|provider| provider.chunk).collect();
        assert_eq!(at, if has_key { chunk } else { Vec::new() });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_have_it_not_are_refused_in_both_directions() {
    for listen in [QUIC, TCP] {
        let inside = Node::with(private(listen, &[], 1)).await;
        let name = Options { network: "other".into(), ..private(listen, &[&inside], 1) };
        for (stranger, has_key) in
            [(options(listen, &[&inside]), false), (private(listen, &[&inside], 2), true), (name, true)]
        {
            // It knows only that node, and dials it by itself as well.
            let stranger = Node::with(stranger).await;
            let refused = within("it is refused", stranger.dht.connect(inside.address())).await.unwrap_err();
            assert_eq!(matches!(refused, Error::OtherKey { .. }), has_key, "{refused}");
            assert!(has_key || refused.to_string().contains("it belongs to a private network"), "{refused}");
            let refused = within("it is refused", inside.dht.connect(stranger.address())).await.unwrap_err();
            assert!(matches!(refused, Error::OtherKey { .. }), "{refused}");
            until("all is closed", || async { stranger.dht.status().await.connected == 0 }).await;
            assert!(stranger.dht.peers().await.is_empty(), "nothing is known of who refused");
            let chunk = stranger.dht.chunk_addresses(inside.dht.0.local, vec![inside.address()]);
            assert!(within("it ends", chunk).await.is_empty());
            assert_eq!(stranger.announce(vec![key(1)], 20).await.messages, 0);
            assert_eq!((inside.dht.status().await.connected, inside.dht.peers().await.len()), (0, 0));
        }
    }
}

/// What every stream begins with.
const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";

/// A peer that says what a test makes it say, on the first stream.
struct Stranger {
    me: PeerId,
    other: PeerId,
    stream: SubstreamBox,
    /// Others that it has opened at once.
    beside: Vec<SubstreamBox>,
    /// How many streams the other end had opened when it closed the connection.
    opened: JoinHandle<Option<usize>>,
}

impl Stranger {
    /// At an end of a new connection, whose first stream is `stream`.
    fn new(me: PeerId, other: PeerId, mut connection: StreamMuxerBox, stream: SubstreamBox) -> Self {
        let opened = Tasks::new().spawn("stranger", async move {
            let mut opened = Vec::new();
            let mut next = poll_fn(|cx| {
                while let Poll::Ready(Ok(_)) = connection.poll_unpin(cx) {}
                connection.poll_inbound_unpin(cx).map(Result::ok)
            });
            while let Some(stream) = (&mut next).await {
                opened.push(stream);
            }
            opened.len()
        });
        Self { me, other, stream, beside: Vec::new(), opened }
    }

    /// One that dials `node`.
    async fn dials(node: &Node) -> Self {
        Self::dials_with(node, 0).await
    }

    /// One that dials `node` and opens `more` streams at once, beside the first.
    async fn dials_with(node: &Node, more: usize) -> Self {
        let keypair = Keypair::generate_ed25519();
        let mut transport = transport::sockets(&keypair).unwrap();
        let at: Multiaddr = node.address().iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect();
        let how = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let dialled = within("it is reached", transport.dial(at, how).unwrap()).await;
        let (other, mut connection) = dialled.unwrap();
        assert_eq!(other, node.dht.0.local);
        let mut stream = poll_fn(|cx| connection.poll_outbound_unpin(cx)).await.unwrap();
        let mut beside = Vec::new();
        if more > 0 {
            // The first has to be the first that is seen.
            stream.write_all(HEADER).await.unwrap();
            stream.flush().await.unwrap();
        }
        for _ in 0..more {
            let mut stream = poll_fn(|cx| connection.poll_outbound_unpin(cx)).await.unwrap();
            stream.write_all(HEADER).await.unwrap();
            stream.flush().await.unwrap();
            beside.push(stream);
        }
        let mut stranger = Self::new(keypair.public().to_peer_id(), other, connection, stream);
        stranger.beside = beside;
        stranger
    }

    /// One that `node` dials, and what the node says of it.
    async fn is_dialled(node: &Node, listen: &str) -> (Self, JoinHandle<Option<Result<PeerId, Error>>>) {
        let keypair = Keypair::generate_ed25519();
        let me = keypair.public().to_peer_id();
        let mut transport = transport::sockets(&keypair).unwrap();
        transport.listen_on(ListenerId::next(), listen.parse().unwrap()).unwrap();
        let at = match within("it listens", transport.next()).await {
            Some(TransportEvent::NewAddress { listen_addr, .. }) => listen_addr.with_p2p(me).unwrap(),
            _ => panic!("it does not listen"),
        };
        let dht = node.dht.clone();
        let connected = node.tasks.spawn("connect", async move { dht.connect(at).await });
        let Some(TransportEvent::Incoming { upgrade, .. }) = within("it is dialled", transport.next()).await
        else {
            panic!("it is not dialled");
        };
        let (other, mut connection) = within("it is met", upgrade).await.unwrap();
        let stream = within("a stream", poll_fn(|cx| connection.poll_inbound_unpin(cx))).await.unwrap();
        (Self::new(me, other, connection, stream), connected)
    }

    /// Waits until the other end has closed the connection; it has opened no stream.
    async fn learns_nothing(self) {
        assert_eq!(within("it is closed", self.opened).await.unwrap(), Some(0));
    }
}

/// As a dialer: hears the nonce, says what `say` makes of what a proof would be of, and gives what is answered.
async fn proves(node: &Node, say: impl FnOnce(Between) -> Vec<u8>) -> Vec<u8> {
    let Stranger { me, other, stream, opened, .. } = Stranger::dials(node).await;
    let answer = within("it is answered", async {
        let (_, mut stream) = dialer_select_proto(stream, [PROTOCOL], Version::V1).await.unwrap();
        let mut listener_nonce = [0; 32];
        stream.read_exact(&mut listener_nonce).await.unwrap();
        let between = Between { dialer: me, listener: other, dialer_nonce: rand::random(), listener_nonce };
        stream.write_all(&say(between)).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = vec![0; 1];
        stream.read_exact(&mut answer).await.unwrap();
        if answer == [0] {
            assert_eq!(stream.read_to_end(&mut answer).await.unwrap(), 0, "a refusal is all there is");
        } else {
            answer.resize(33, 0);
            stream.read_exact(&mut answer[1..]).await.unwrap();
            let proof = prover(me).prove(Role::Listener, &between);
            assert_eq!(answer[1..], *proof.as_bytes());
        }
        answer
    })
    .await;
    if answer == [0] {
        // It learns nothing more, and is let go although it stays.
        assert_eq!(within("it is closed", opened).await.unwrap(), Some(0));
    } else {
        opened.abort();
    }
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_this_connections_proof_of_this_role_is_taken() {
    for listen in [QUIC, TCP] {
        let node = Node::with(private(listen, &[], 1)).await;
        let said = |between: &Between, proof: blake3::Hash| {
            [&between.dialer_nonce[..], &proof.as_bytes()[..]].concat()
        };
        let right = proves(&node, |b| said(&b, prover(b.dialer).prove(Role::Dialer, &b))).await;
        assert_eq!((right.len(), right[0]), (33, 1));
        let another = Prover::new(NetworkKey::from([2; 32]), PeerId::random(), "test");
        let another = |b: Between| said(&b, another.prove(Role::Dialer, &b));
        // As if heard earlier: for the same ends with other nonces.
        let replayed = |b: Between| {
            let earlier = Between { listener_nonce: [7; 32], ..b };
            said(&b, prover(b.dialer).prove(Role::Dialer, &earlier))
        };
        // As if heard from a third node that dialled the stranger: its id is not the stranger's.
        let relayed = |b: Between| {
            let elsewhere = Between { dialer: PeerId::random(), ..b };
            said(&b, prover(b.dialer).prove(Role::Dialer, &elsewhere))
        };
        // As if the node itself had said it, at the other end.
        let reflected = |b: Between| said(&b, prover(b.dialer).prove(Role::Listener, &b));
        let refused = futures::join!(
            proves(&node, another),
            proves(&node, replayed),
            proves(&node, relayed),
            proves(&node, reflected),
            proves(&node, |_| vec![7; 64])
        );
        let refused: [Vec<u8>; 5] = refused.into();
        assert!(refused.iter().all(|answer| *answer == [0]), "{refused:?}");
        until("nobody is left", || async { node.dht.status().await.connected == 0 }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_listens_must_prove_as_a_listener() {
    for listen in [QUIC, TCP] {
        let node = Node::with(private(listen, &[], 1)).await;
        for answer in ["the node's own proof", "garbage", "nothing"] {
            let (stranger, connected) = Stranger::is_dialled(&node, listen).await;
            let (_, mut stream) = listener_select_proto(stranger.stream, [PROTOCOL]).await.unwrap();
            let mut said = [0; 64];
            let exchange = async {
                stream.write_all(&[7; 32]).await.unwrap();
                stream.flush().await.unwrap();
                stream.read_exact(&mut said).await.unwrap();
                let says: &[u8] = match answer {
                    "garbage" => &[9; 33],
                    "nothing" => &[],
                    _ => &[&[1], &said[32..]].concat(),
                };
                stream.write_all(says).await.unwrap();
                stream.close().await.unwrap();
            };
            within("it is told", exchange).await;
            let error = within("it is refused", connected).await.unwrap().unwrap().unwrap_err();
            assert_eq!(matches!(error, Error::OtherKey { .. }), answer.starts_with("the"), "{error}");
            assert_eq!(within("it is closed", stranger.opened).await.unwrap(), Some(0));
        }
    }
}

/// What the node answers on a stream for one of the swarm's protocols.
async fn asks(stream: SubstreamBox, protocol: &str) -> Option<Negotiated<SubstreamBox>> {
    within("it is answered", dialer_select_proto(stream, [protocol], Version::V1))
        .await
        .ok()
        .map(|(_, io)| io)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_silent_and_those_who_talk_of_something_else_are_let_go() {
    for listen in [QUIC, TCP] {
        let node = Node::with(private(listen, &[], 1)).await;
        let silent = Stranger::dials(&node).await;
        let half = async {
            let mut half = Stranger::dials(&node).await;
            half.stream.write_all(HEADER).await.unwrap();
            half.stream.flush().await.unwrap();
            half
        };
        let half = within("it says half", half).await;
        for protocol in ["/ipfs/id/1.0.0", "/casd/test/kad/1.0.0", "/casd/test/hello/1", "/ipfs/ping/1.0.0"] {
            let stranger = Stranger::dials(&node).await;
            assert!(asks(stranger.stream, protocol).await.is_none(), "{protocol}");
            assert_eq!(within("it is closed", stranger.opened).await.unwrap(), Some(0));
        }
        // Time enough for a proof, but not for another stream before it.
        let begun = Instant::now();
        let greedy = Stranger::dials_with(&node, 1).await;
        assert_eq!(within("it is closed", greedy.opened).await.unwrap(), Some(0));
        assert!(begun.elapsed() < WITHIN, "at once, although its streams stay open");
        drop((greedy.stream, greedy.beside));
        let mut loud = Stranger::dials(&node).await;
        // It may close before it has heard all.
        let _ = within("it is told", loud.stream.write_all(&[0xff; 100_000])).await;
        loud.learns_nothing().await;
        silent.learns_nothing().await;
        half.learns_nothing().await;
        // None of these is in the way of those who have the key.
        let friend = Node::with(private(listen, &[&node], 1)).await;
        friend.knows(1).await;
    }
}
