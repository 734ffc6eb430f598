//! Streams for the chunk protocol on connections of the DHT plane.

use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Node, QUIC, TCP, options, within};
use crate::dht::{Mode, Options};
use crate::peer::{Conn, Detour, ReachVerdict, Unconnected};

async fn open(from: &Node, to: &Node) -> Result<Conn, Unconnected> {
    let known = vec![to.address()];
    within("a stream is opened or not", from.dht.open(to.dht.0.local, known)).await
}

#[tokio::test]
async fn a_stream_is_had_where_none_was_connected_and_is_between_the_two() {
    for carrier in [QUIC, TCP] {
        let (giver, asker) = (Node::server(carrier, &[]).await, Node::server(carrier, &[]).await);
        let mut accepted = giver.dht.take_accepted().unwrap();
        assert!(giver.dht.take_accepted().is_none());
        let mut asked = open(&asker, &giver).await.unwrap();
        asked.stream.write_all(b"hello").await.unwrap();
        asked.stream.shutdown().await.unwrap();
        let mut given = within("it is accepted", accepted.recv()).await.unwrap();
        let here = Some(IpAddr::from([127, 0, 0, 1]));
        assert_eq!((asked.peer, given.peer), (giver.dht.0.local, asker.dht.0.local));
        assert_eq!((asked.remote, given.remote, asked.binding), (here, here, [0; 32]));
        let mut heard = Vec::new();
        within("it is read", given.stream.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(heard, b"hello");
    }
}

#[tokio::test]
async fn one_peer_has_no_more_than_its_streams() {
    let (giver, asker) = (Node::server(QUIC, &[]).await, Node::server(QUIC, &[]).await);
    let mut accepted = giver.dht.take_accepted().unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut asked = open(&asker, &giver).await.unwrap();
        asked.stream.write_all(b"x").await.unwrap();
        held.push((asked, within("it is accepted", accepted.recv()).await.unwrap()));
    }
    let mut third = open(&asker, &giver).await.unwrap();
    // Negotiated by the protocol's name alone, it is dropped at the other end.
    let end = within("it is refused", async {
        let _ = third.stream.write_all(b"x").await;
        third.stream.read_u8().await
    });
    assert!(end.await.is_err() && accepted.try_recv().is_err());
    held.pop();
    let mut next = open(&asker, &giver).await.unwrap();
    next.stream.write_all(b"x").await.unwrap();
    assert!(within("there is a place again", accepted.recv()).await.is_some());
}

#[tokio::test]
async fn who_gives_nothing_accepts_nothing_and_who_is_nowhere_is_not_reached() {
    let mute = Node::with(Options { serves: false, ..options(QUIC, &[]) }).await;
    let asker = Node::server(QUIC, &[]).await;
    assert!(open(&asker, &mute).await.is_err());
    let known = vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()];
    let nobody = within("it is given up", asker.dht.open(libp2p::PeerId::random(), known)).await;
    assert!(nobody.is_err());
}

#[tokio::test]
async fn on_one_host_nobody_asks_to_be_dialled_and_all_are_servers() {
    let seed = Node::with(Options { mode: Mode::Auto, ..options(QUIC, &[]) }).await;
    let auto = |others: &[&Node]| Options { mode: Mode::Auto, ..options(QUIC, others) };
    let other = Node::with(auto(&[&seed])).await;
    other.knows(1).await;
    seed.knows(1).await;
    for node in [&seed, &other] {
        let reach = node.dht.reachability();
        assert!(reach.is_server && !reach.is_outside && reach.relays.is_empty());
        assert_eq!(reach.verdict, ReachVerdict::Unknown);
    }
}
