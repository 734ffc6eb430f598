//! What hostile peers say on the DHT plane, and what becomes of them (B16 to B21).

use std::future::Future;
use std::io;
use std::pin::Pin;

use futures::future::join_all;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::core::Endpoint;
use libp2p::core::Transport as _;
use libp2p::core::transport::{DialOpts, PortUse};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo, Version};
use libp2p::identity::PublicKey;
use libp2p::{Multiaddr, tcp, tls, yamux};
use tokio::sync::mpsc;

use super::outsider::{Outsider, PROTOCOLS, Says};
use super::{Node, QUIC, TCP, key, network, options, until, within};
use crate::dht::Options;
use crate::dht::about::Describing;
use crate::dht::batch::Draft;
use crate::dht::catalogue::{self, Listing};
use crate::dht::codec::Exchange;
use crate::dht::find::Finding;
use crate::dht::hello::Greeting;
use crate::dht::introducing::Introducing;
use crate::peer::{Conduct, Keypair, PeerId, network_id};

/// A node that can be asked what it remembers of others.
pub(super) async fn judge(listen: &str) -> (Node, Conduct) {
    let conduct = Conduct::default();
    let options = Options { conduct: conduct.clone(), ..options(listen, &[]) };
    (Box::pin(Node::with(options)).await, conduct)
}

/// The node does what it did before.
pub(super) async fn is_well(node: &Node) {
    let friend = Node::server(TCP, &[node]).await;
    friend.knows(1).await;
    let chunk = within(
        "the hello is answered",
        crate::peer::Discovery::chunk_addresses(&node.dht, friend.dht.0.local, vec![]),
    );
    assert_eq!(chunk.await, friend.chunk);
}

async fn is_banned_after_three(listen: &str, protocol: &str) {
    let (node, conduct) = judge(listen).await;
    let mut hostile = Outsider::new("test");
    for (number, garbage) in
        [vec![0xff; 40], vec![1; 1 << 20], b"GET / HTTP/1.1\r\n\r\n".to_vec()].into_iter().enumerate()
    {
        hostile.meet(&node).await.unwrap();
        assert!(conduct.bans(std::time::SystemTime::now()).is_empty(), "{protocol} {number}");
        hostile.say(&node, protocol, Says::Whole(garbage)).await.unwrap_err();
        hostile.is_let_go(&format!("{listen} {protocol} {number}")).await;
    }
    assert_eq!(conduct.bans(std::time::SystemTime::now())[0].peer, hostile.id(), "{protocol}");
    hostile.meet(&node).await.unwrap_err();
    // Nobody else is meant, and the owner may think otherwise.
    Outsider::new("test").meet(&node).await.unwrap();
    assert!(conduct.pardon(&hostile.id(), std::time::SystemTime::now()));
    hostile.meet(&node).await.unwrap();
    is_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_in_no_form_end_the_connection_and_three_of_them_ban() {
    let (kademlia, ours) = PROTOCOLS.split_last().unwrap();
    assert_eq!(*kademlia, "kad/1.0.0");
    for listen in [QUIC, TCP] {
        join_all(ours.iter().map(|protocol| is_banned_after_three(listen, protocol))).await;
    }
}

/// Says something that does not end. Each time another peer: three in a row would be a ban.
async fn goes_on_and_on(node: &Node, protocol: &str) {
    let mut hostile = Outsider::new("test");
    hostile.meet(node).await.unwrap();
    hostile.say(node, protocol, Says::Endless(vec![0xff; 1 << 16])).await.unwrap_err();
}

/// Ends a question at each of its bytes, and holds one back.
async fn stops_halfway(node: &Node, protocol: &str, whole: Vec<u8>) {
    let mut slow = Outsider::new("test");
    slow.meet(node).await.unwrap();
    for length in 0..whole.len() {
        let said = slow.say(node, protocol, Says::Whole(whole[..length].to_vec())).await;
        assert!(said.is_err(), "{protocol}: {length} bytes");
    }
    slow.say(node, protocol, Says::Whole(whole.clone())).await.unwrap();
    // It is given up on when it has taken too long.
    slow.say(node, protocol, Says::Half(whole[..1].to_vec())).await.unwrap_err();
    slow.say(node, protocol, Says::Whole(whole)).await.unwrap();
}

async fn outlasts_what_does_not_end(listen: &str) {
    let (node, conduct) = judge(listen).await;
    let greeting = Greeting.encode_request(crate::dht::hello::Hello::to(&[], true, None));
    let question = Finding.encode_request(key(1));
    let endless = join_all(PROTOCOLS.into_iter().map(|protocol| goes_on_and_on(&node, protocol)));
    let list = catalogue::Question { after: Some(key(1)), text: "x".to_owned() };
    let slow = [
        ("hello/1", greeting),
        ("find/1", question),
        ("servers/1", Introducing.encode_request(())),
        ("describe/1", Describing { network: network_id("test") }.encode_request(key(1))),
        ("catalogue/1", Listing { network: network_id("test") }.encode_request(list)),
    ];
    let slow = join_all(slow.into_iter().map(|(protocol, whole)| stops_halfway(&node, protocol, whole)));
    tokio::join!(endless, slow);
    assert!(conduct.bans(std::time::SystemTime::now()).is_empty());
    is_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_without_end_are_cut_off_and_halves_are_nobodys_fault() {
    tokio::join!(outlasts_what_does_not_end(QUIC), outlasts_what_does_not_end(TCP));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_networks_protocols_are_not_spoken() {
    let (node, conduct) = judge(TCP).await;
    for protocol in PROTOCOLS {
        let mut stranger = Outsider::new("other");
        stranger.meet(&node).await.unwrap();
        stranger.say(&node, protocol, Says::Whole(vec![1; 33])).await.unwrap_err();
        stranger.is_let_go(protocol).await;
        assert!(conduct.admits(&stranger.id(), None, std::time::SystemTime::now()), "it did no wrong");
    }
    is_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_banned_elsewhere_is_let_go_here() {
    let nodes = network(QUIC, 2).await;
    let (conduct, peer) = (&nodes[0].conduct, nodes[1].dht.0.local);
    for _ in 0..3 {
        conduct.strike(peer, None, "it lies on the chunk plane", std::time::SystemTime::now());
    }
    until("it is let go", || async {
        let status = nodes[0].dht.status().await;
        status.connected == 0 && status.routed == 0
    })
    .await;
    // Who announces waits for somebody to come from then on, and not for its next try.
    let is_told = || async { *nodes[0].dht.0.seen.routed.borrow() == 0 };
    until("those who announce hear of it", is_told).await;
    let refused = within("a dial ends", nodes[0].dht.connect(nodes[1].address())).await.unwrap_err();
    assert!(refused.to_string().contains("banned"), "{refused}");
    until("the other has seen it", || async { nodes[1].dht.status().await.connected == 0 }).await;
    within("a dial ends", nodes[1].dht.connect(nodes[0].address())).await.unwrap_err();
    assert!(conduct.pardon(&peer, std::time::SystemTime::now()));
    within("it connects", nodes[1].dht.connect(nodes[0].address())).await.unwrap();
}

/// A message of Kademlia: its kind, a key, providers, and a value.
pub(super) fn kad(kind: u8, key: &[u8], provider: Option<&PeerId>, value: &[u8]) -> Vec<u8> {
    let varint = |mut number: usize| {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    };
    let field = |tag: u8, data: &[u8]| [&[tag << 3 | 2][..], &varint(data.len()), data].concat();
    let mut body = [vec![1 << 3, kind], field(2, key)].concat();
    if !value.is_empty() {
        body.extend(field(3, &[field(1, key), field(2, value)].concat()));
    }
    if let Some(provider) = provider {
        let at: Multiaddr = "/ip4/203.0.113.9/tcp/8468".parse().unwrap();
        body.extend(field(9, &[field(1, &provider.to_bytes()), field(2, at.as_ref())].concat()));
    }
    [varint(body.len()), body].concat()
}

const PUT_VALUE: u8 = 0;
const ADD_PROVIDER: u8 = 2;
pub(super) const FIND_NODE: u8 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b16_a_record_in_another_peers_name_is_ignored() {
    let node = Node::server(QUIC, &[]).await;
    let mut hostile = Outsider::new("test");
    hostile.meet(&node).await.unwrap();
    let (own, other) = (hostile.id(), PeerId::random());
    for number in 0..100 {
        let add = kad(ADD_PROVIDER, &key(number), Some(&other), &[]);
        let _ = hostile.say(&node, "kad/1.0.0", Says::Whole(add)).await;
    }
    // What it says of itself is taken, after all those.
    let _ = hostile.say(&node, "kad/1.0.0", Says::Whole(kad(ADD_PROVIDER, &key(7), Some(&own), &[]))).await;
    until("its own record is there", || async { node.dht.status().await.other_records > 0 }).await;
    assert_eq!((node.dht.status().await.other_records, node.dht.status().await.sources), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b18_of_five_hundred_addresses_of_a_peer_eight_are_kept() {
    let node = Node::server(QUIC, &[]).await;
    let mut hostile = Outsider::new("test");
    hostile.meet(&node).await.unwrap();
    let at = |port| format!("/ip4/203.0.113.9/tcp/{port}").parse().unwrap();
    // As many as a signed record may be long.
    let told: Vec<Multiaddr> = (2_000..2_300).map(at).collect();
    let record = crate::dht::batch::peer_record(&hostile.keypair, told);
    assert!(!record.is_empty());
    let (receiver, lifetime) = (node.dht.0.local, std::time::Duration::from_secs(60));
    let draft = Draft {
        receiver,
        sequence: 1,
        lifetime,
        keys: vec![key(1)],
        removals: Vec::new(),
        descriptions: Vec::new(),
    };
    let batch = draft.sign("test", &hostile.keypair, &record).unwrap();
    assert_eq!(hostile.say(&node, "announce/1", Says::Whole(batch)).await.unwrap()[..2], [1, 0]);
    let asked = hostile.say(&node, "find/1", Says::Whole(Finding.encode_request(key(1)))).await.unwrap();
    let holders = Finding.decode_response(&asked).unwrap();
    assert_eq!((holders.len(), holders[0].0), (1, hostile.id()));
    assert!(!holders[0].1.is_empty() && holders[0].1.len() <= 8);
    let (records, _) =
        node.dht.0.ask(|done| crate::dht::Command::Page { from: None, most: 9, done }).await.unwrap();
    let kept = records.iter().find_map(|entry| match entry {
        crate::dht::journal::Entry::Located { addresses, .. } => Some(addresses.len()),
        _ => None,
    });
    assert_eq!(kept, Some(8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b19_values_are_refused_whatever_their_size() {
    let node = Node::server(QUIC, &[]).await;
    for size in [1, 60 << 10, 65 << 10] {
        let mut hostile = Outsider::new("test");
        hostile.meet(&node).await.unwrap();
        let put = kad(PUT_VALUE, &key(1), None, &vec![7; size]);
        let answer = hostile.say(&node, "kad/1.0.0", Says::Whole(put)).await;
        assert!(answer.is_err(), "{size}: {answer:?}");
        // It still answers what may be asked.
        let asked = hostile.say(&node, "kad/1.0.0", Says::Whole(kad(FIND_NODE, &key(1), None, &[]))).await;
        assert!(asked.is_ok_and(|answer| !answer.is_empty()), "{size}");
    }
    assert_eq!(node.dht.status().await.other_records, 0);
    is_well(&node).await;
}

#[test]
fn b20_a_key_of_another_kind_is_no_identity() {
    // An RSA key of 16,384 bits as libp2p writes it: kind 0, and its DER.
    let mut rsa = vec![0x08, 0x00, 0x12, 0x9a, 0x10];
    rsa.extend(vec![0x30; 2_074]);
    let refused = PublicKey::try_decode_protobuf(&rsa);
    assert!(refused.is_err());
    for kind in [2, 3] {
        let other = [&[0x08, kind, 0x12, 33][..], &[2; 33]].concat();
        assert!(PublicKey::try_decode_protobuf(&other).is_err(), "kind {kind}");
    }
    let ours = Keypair::generate_ed25519().public();
    assert!(PublicKey::try_decode_protobuf(&ours.encode_protobuf()).is_ok());
}

/// Speaks yamux byte by byte: writes frames, and reads until the other end closes.
#[derive(Clone)]
struct Frames(Vec<u8>, mpsc::Sender<()>);

impl UpgradeInfo for Frames {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/yamux/1.0.0")
    }
}

type Spoken<T> = Pin<Box<dyn Future<Output = io::Result<yamux::Muxer<T>>> + Send>>;

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<T> for Frames {
    type Output = yamux::Muxer<T>;
    type Error = io::Error;
    type Future = Spoken<T>;

    fn upgrade_outbound(self, mut io: T, _: &'static str) -> Self::Future {
        Box::pin(async move {
            // It may hang up before all has been written.
            let _ = io.write_all(&self.0).await;
            let _ = io.flush().await;
            let mut said = Vec::new();
            let _ = io.read_to_end(&mut said).await;
            let _ = self.1.send(()).await;
            Err(io::ErrorKind::ConnectionAborted.into())
        })
    }
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<T> for Frames {
    type Output = yamux::Muxer<T>;
    type Error = io::Error;
    type Future = Spoken<T>;

    fn upgrade_inbound(self, io: T, info: &'static str) -> Self::Future {
        self.upgrade_outbound(io, info)
    }
}

/// A frame's head: kind, flags, stream, length.
fn head(kind: u8, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    [&[0, kind][..], &flags.to_be_bytes(), &stream.to_be_bytes(), &length.to_be_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b21_frames_that_broke_yamux_once_end_the_connection() {
    const DATA: u8 = 0;
    const WINDOW: u8 = 1;
    const SYN: u16 = 1;
    let node = Node::server(TCP, &[]).await;
    let large = [head(DATA, SYN, 1, 262_145), vec![7; 262_145]].concat();
    let full =
        [head(WINDOW, SYN, 1, u32::MAX), head(WINDOW, 0, 1, u32::MAX), head(WINDOW, 0, 1, u32::MAX)].concat();
    let unknown = [head(9, SYN, 1, 0), head(DATA, 0, 0, u32::MAX)].concat();
    for (what, frames) in
        [("a body that is too long", large), ("too large a window", full), ("no frame", unknown)]
    {
        let (done, mut closed) = mpsc::channel(1);
        let keypair = Keypair::generate_ed25519();
        let mut dialer = tcp::tokio::Transport::new(tcp::Config::default())
            .upgrade(Version::V1)
            .authenticate(tls::Config::new(&keypair).unwrap())
            .multiplex(Frames(frames, done));
        let how = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let to: Multiaddr = node.address().iter().take(2).collect();
        let dial = dialer.dial(to, how).unwrap();
        assert!(within("the connection ends", dial).await.is_err());
        assert!(closed.recv().await.is_some(), "{what}");
        is_well(&node).await;
    }
}
