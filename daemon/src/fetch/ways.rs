//! The ways to a peer that the caller named, of which it may have named several.
//!
//! Owns: which of them come first, and what they lead to. Refuses: nothing; whoever answers has to prove who it is.
//! Survives a crash: nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::stream::{self, BoxStream, FuturesUnordered, StreamExt};

use super::Parts;
use super::links::Place;
use crate::peer::{Host, Multiaddr, PeerAddr, PeerId, Reach, Unconnected};

/// Each peer once, in the order in which they are named, with all that was said of where it is.
pub(super) fn by_peer(hints: &[PeerAddr]) -> Vec<(PeerId, Vec<Reach>)> {
    let mut peers: Vec<(PeerId, Vec<Reach>)> = Vec::new();
    for PeerAddr { peer, reach } in hints {
        match peers.iter_mut().find(|(known, _)| known == peer) {
            Some((_, ways)) if ways.contains(reach) => {}
            Some((_, ways)) => ways.push(reach.clone()),
            None => peers.push((*peer, vec![reach.clone()])),
        }
    }
    peers
}

/// The libp2p addresses among them.
pub(super) fn known(ways: &[Reach]) -> Vec<Multiaddr> {
    let dht = |way: &Reach| match way {
        Reach::Dht(address) => Some(address.clone()),
        Reach::Chunk(..) => None,
    };
    ways.iter().filter_map(dht).collect()
}

/// The chunk ports that they lead to: those that are named, then those of names and those that the peer tells over
/// libp2p, as they become known: what is asked in vain holds up no other. A name that leads nowhere is told.
pub(super) fn sockets(parts: &Arc<Parts>, peer: PeerId, ways: &[Reach]) -> BoxStream<'static, Place> {
    let (mut plain, asked) = (Vec::new(), FuturesUnordered::new());
    for way in ways {
        match way {
            Reach::Chunk(Host::Ip(ip), port) => plain.push(Ok(SocketAddr::new(*ip, *port))),
            _ => {
                if let Reach::Dht(address) = way {
                    // At once: other ways are tried there while the chunk ports are dialled.
                    parts.discovery.vouch(address);
                }
                asked.push(ask(Arc::clone(parts), peer, way.clone()));
            }
        }
    }
    stream::iter(plain).chain(asked.flat_map(stream::iter)).boxed()
}

async fn ask(parts: Arc<Parts>, peer: PeerId, way: Reach) -> Vec<Place> {
    match way {
        Reach::Chunk(Host::Ip(ip), port) => vec![Ok(SocketAddr::new(ip, port))],
        Reach::Chunk(Host::Name(name), port) => resolve(name, port).await,
        Reach::Dht(address) => {
            let found = parts.discovery.chunk_addresses(peer, vec![address]).await;
            found.into_iter().map(Ok).collect()
        }
    }
}

/// The addresses of a name, or why there are none.
async fn resolve(name: String, port: u16) -> Vec<Place> {
    match tokio::net::lookup_host((name.clone(), port)).await {
        Ok(found) => found.map(Ok).collect(),
        Err(error) => {
            let why = format!("the name {name} cannot be resolved: {error}");
            vec![Err(Unconnected::Unreachable(why))]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_is_there_once_with_all_that_was_said_of_it() {
        let [one, two] = [1, 2].map(|_| PeerId::random());
        let at = |peer: PeerId, port: u16| PeerAddr::chunk(peer, SocketAddr::from(([127, 0, 0, 1], port)));
        let peers = by_peer(&[at(one, 1), at(two, 2), at(one, 3), at(one, 1)]);
        let ways = |ports: &[u16]| ports.iter().map(|port| at(one, *port).reach).collect::<Vec<_>>();
        assert_eq!(peers, [(one, ways(&[1, 3])), (two, ways(&[2]))]);
        assert!(known(&peers[0].1).is_empty());
    }

    #[tokio::test]
    async fn a_name_that_leads_nowhere_is_named() {
        // RFC 6761: this one never leads anywhere.
        let found = resolve("no.such.host.invalid".to_owned(), 9000).await;
        let [Err(Unconnected::Unreachable(why))] = found.as_slice() else { panic!("{found:?}") };
        assert!(why.starts_with("the name no.such.host.invalid cannot be resolved: "), "{why}");
    }
}
