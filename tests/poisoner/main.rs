//! A node that tells addresses at which no node is, in every way in which one can tell addresses.
//!
//! `poisoner NETWORK LISTEN TARGET CHUNK RECORDS`: listens at the multiaddr LISTEN and connects to the daemon at
//! TARGET, whose chunk port is CHUNK, as a server of its DHT. Each question for holders it answers with itself and
//! with made-up ones, at forbidden addresses of all kinds; where a key begins with less than 0x40, only the question
//! that casd itself adds to Kademlia, and with less than 0x80 only with itself; so it does in hellos and in identify;
//! and its table of nodes is full of such. Beforehand RECORDS records are placed at the daemon, in signed batches of
//! identities that say to be at such addresses and then leave. When all that has been done it prints `ready PEERID`,
//! and goes on until its input ends.  `poisoner junk NETWORK TARGET PEERS RECORDS`: so many peers, all connected at
//! once, place so many records together of keys that nothing has; prints `placed N`, how many were taken, and goes on
//! until its input ends.
//!
//! Each way has a port of its own, so that what is dialled tells how it was learnt.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step that fails is a failed test"
)]

mod addresses;
mod junk;
mod outsider;

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::Arc;

use casd_tests::hearsay::{Speaks, SpeaksEvent};
use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::identity::Keypair;
use libp2p::kad::{self, RecordKey};
use libp2p::request_response::{Event, Message};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId};
use tokio::io::AsyncReadExt;

use crate::addresses::{Way, forbidden};

/// Holders that it makes up for each question: as many fit Kademlia's longest message, with as many nodes besides.
const MADE_UP: usize = 300;
/// Records of one identity.
const OF_ONE: usize = 250;
/// How often a daemon is dialled until it is met.
const MOST_DIALS: usize = 10;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [way, network, target, peers, records] = &args[..]
        && way == "junk"
    {
        junk::flood(network, &target.parse().expect("a multiaddr"), number(peers), number(records)).await;
        return ExitCode::SUCCESS;
    }
    let [network, listen, target, chunk, records] = &args[..] else {
        eprintln!(
            "usage: poisoner NETWORK LISTEN TARGET CHUNK RECORDS, or poisoner junk NETWORK TARGET PEERS RECORDS"
        );
        return ExitCode::from(64);
    };
    let target: Multiaddr = target.parse().expect("a multiaddr");
    let chunk = chunk.parse().expect("a chunk port");
    addresses::OWN.set((target.clone(), chunk)).expect("it is told once");
    let records = number(records);
    for identity in 0..records.div_ceil(OF_ONE) {
        place(network, &target, identity, OF_ONE.min(records - identity * OF_ONE)).await;
    }
    let keypair = Keypair::generate_ed25519();
    let own = keypair.public().to_peer_id();
    let made_up = move |key: &RecordKey| {
        let own = (own, forbidden_of(Way::Identify, 8));
        match key.as_ref().first() {
            // Where Kademlia names nobody, other nodes are asked who holds the key.
            Some(..64) | None => return Vec::new(),
            Some(64..128) => return vec![own],
            Some(128..) => {}
        }
        let some = (0..MADE_UP).map(|_| (PeerId::random(), vec![forbidden(Way::Kademlia)]));
        some.chain([own]).collect()
    };
    let mut swarm = outsider::swarm(network, keypair, MADE_UP + 1, Arc::new(made_up));
    let _: ListenerId = swarm.listen_on(listen.parse().expect("a multiaddr")).unwrap();
    forbidden_of(Way::Identify, 8).into_iter().for_each(|at| swarm.add_external_address(at));
    for _ in 0..1_000 {
        swarm.behaviour_mut().kad.add_address(&PeerId::random(), forbidden(Way::Closer));
    }
    meet(&mut swarm, &target).await;
    println!("ready {own}");
    go_on(&mut swarm).await;
    ExitCode::SUCCESS
}

/// Answers until the input ends.
async fn go_on(swarm: &mut Swarm<Speaks>) {
    let mut input = tokio::io::stdin();
    let mut end = [0];
    loop {
        tokio::select! {
            read = input.read(&mut end) => if read.unwrap_or(0) == 0 { return },
            event = swarm.select_next_some() => answer(swarm, event),
        }
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

/// An identity connects, announces so many keys, and leaves. The keys are hashes of their numbers, so that the test
/// knows them.
async fn place(network: &str, target: &Multiaddr, identity: usize, count: usize) {
    let keypair = Keypair::generate_ed25519();
    let first = identity * OF_ONE;
    let mut keys: Vec<[u8; 32]> =
        (first..first + count).map(|number| *blake3::hash(&number.to_le_bytes()).as_bytes()).collect();
    keys.sort_unstable();
    let mut swarm = outsider::swarm(network, keypair.clone(), 1, Arc::new(|_| Vec::new()));
    // Servers are looked for where identify says that they are, before their records are looked at; of the others only
    // the record says where.
    if identity.is_multiple_of(2) {
        swarm.behaviour_mut().kad.set_mode(Some(kad::Mode::Client));
    } else {
        forbidden_of(Way::Identify, 8).into_iter().for_each(|at| swarm.add_external_address(at));
    }
    let receiver = meet(&mut swarm, target).await;
    let at = forbidden_of(Way::Batch, 16);
    let batch = outsider::batch(network, &keypair, &receiver, 1, &keys, at);
    assert_eq!(announce(&mut swarm, &receiver, batch).await[..2], [1, 0], "a batch is refused");
}

/// Sends a batch; what is answered.
async fn announce(swarm: &mut Swarm<Speaks>, to: &PeerId, batch: Vec<u8>) -> Vec<u8> {
    swarm.behaviour_mut().announce.send_request(to, batch);
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(SpeaksEvent::Announce(Event::Message {
                message: Message::Response { response, .. },
                ..
            })) => return response,
            SwarmEvent::Behaviour(SpeaksEvent::Announce(Event::OutboundFailure { error, .. })) => {
                panic!("a batch is not answered: {error}")
            }
            event => answer(swarm, event),
        }
    }
}

/// Connects to the daemon, until each has said what it is. On a busy machine a handshake may take longer than the
/// daemon waits.
async fn meet(swarm: &mut Swarm<Speaks>, target: &Multiaddr) -> PeerId {
    let mut dials = 0;
    let mut dial = |swarm: &mut Swarm<Speaks>, why: &dyn std::fmt::Debug| {
        dials += 1;
        assert!(dials <= MOST_DIALS, "cannot meet the daemon: {why:?}");
        swarm.dial(DialOpts::unknown_peer_id().address(target.clone()).build()).unwrap();
    };
    dial(swarm, &());
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(SpeaksEvent::Identify(libp2p::identify::Event::Sent {
                peer_id, ..
            })) => {
                return peer_id;
            }
            SwarmEvent::OutgoingConnectionError { error, .. } => dial(swarm, &error),
            SwarmEvent::ConnectionClosed { cause, .. } => dial(swarm, &cause),
            event => answer(swarm, event),
        }
    }
}

fn answer(swarm: &mut Swarm<Speaks>, event: SwarmEvent<SpeaksEvent>) {
    let SwarmEvent::Behaviour(event) = event else { return };
    match event {
        SpeaksEvent::Hello(Event::Message { message: Message::Request { channel, .. }, .. }) => {
            let _ = swarm.behaviour_mut().hello.send_response(channel, addresses::hello());
        }
        SpeaksEvent::Find(Event::Message { message: Message::Request { channel, .. }, .. }) => {
            let made_up = (0..64).map(|_| (PeerId::random(), forbidden_of(Way::Find, 8)));
            let answer = outsider::holders(&made_up.collect::<Vec<_>>());
            let _ = swarm.behaviour_mut().find.send_response(channel, answer);
        }
        _ => {}
    }
}

/// Several that are different.
fn forbidden_of(way: Way, count: usize) -> Vec<Multiaddr> {
    let mut some = HashSet::new();
    while some.len() < count {
        some.insert(forbidden(way));
    }
    some.into_iter().collect()
}
