//! What answers of Kademlia may tell of other nodes.
//!
//! Owns: what of an answer is handed on. Refuses: more nodes, and more addresses of one, than its limits; addresses
//! that this node would not dial, and nodes to which nothing else leads. Pure. Survives a crash: nothing.
//!
//! `libp2p-kad` takes whatever an answer says, in place of what others have said of the same node: one liar on the way
//! could name all whom the others name, nowhere or at addresses of nobody, and none of them would be found. So what is
//! said is added to what is known: each answer has its part, and none takes another's away.

use libp2p::kad::KadPeer;
use libp2p::{Multiaddr, PeerId};

use super::records::MAX_ADDRESS;
use super::regions::K;

/// Holders that one answer may name; a casd node names twenty.
const MAX_HOLDERS: usize = 64;
/// Addresses that are taken of one answer for a node: two carriers of two versions of IP…
const OF_ANSWER: usize = 4;
/// …while fewer than this are known; then one of each: a few that lie leave room for another.
const FEW: usize = 8;
/// Addresses of a node in all: as many as [`pace`](super::pace) tries.
const OF_NODE: usize = 16;

/// What is known of the nodes that an answer names.
pub(super) trait Known {
    /// Where others say that a node is, or where it was found.
    fn addresses(&mut self, peer: &PeerId) -> Vec<Multiaddr>;
    /// Whether it is connected.
    fn is_connected(&self, peer: &PeerId) -> bool;
    /// Whether an address may be dialled.
    fn allows(&self, address: &Multiaddr) -> bool;
}

/// Makes of the nodes that an answer calls nearer what may be believed.
pub(super) fn judge_nearer(nodes: &mut Vec<KadPeer>, known: &mut impl Known) {
    nodes.truncate(K);
    nodes.iter_mut().for_each(|node| add_known(node, known));
    nodes.retain(|node| !node.multiaddrs.is_empty() || known.is_connected(&node.node_id));
}

/// The same of those that it calls holders, who may be found otherwise.
pub(super) fn judge_holders(nodes: &mut Vec<KadPeer>, known: &mut impl Known) {
    nodes.truncate(MAX_HOLDERS);
    nodes.iter_mut().for_each(|node| add_known(node, known));
}

fn add_known(node: &mut KadPeer, known: &mut impl Known) {
    let mut all: Vec<Multiaddr> = Vec::new();
    for at in known.addresses(&node.node_id) {
        if all.len() < OF_NODE && !all.contains(&at) {
            all.push(at);
        }
    }
    let said = std::mem::take(&mut node.multiaddrs).into_iter();
    add(&mut all, said.filter(|at| at.len() <= MAX_ADDRESS && known.allows(at)));
    node.multiaddrs = all;
}

/// Adds what one answer says of where a node is.
pub(super) fn add(known: &mut Vec<Multiaddr>, said: impl Iterator<Item = Multiaddr>) {
    let room = if known.len() < FEW { OF_ANSWER } else { 1 };
    let most = OF_NODE.min(known.len() + room);
    for at in said {
        if known.len() < most && !known.contains(&at) {
            known.push(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::kad::ConnectionType;
    use libp2p::multiaddr::Protocol;
    use std::collections::{HashMap, HashSet};

    /// What a query knows: as `libp2p-kad`, the last that was handed on.
    #[derive(Default)]
    struct Query(HashMap<PeerId, Vec<Multiaddr>>, HashSet<PeerId>);

    impl Known for Query {
        fn addresses(&mut self, peer: &PeerId) -> Vec<Multiaddr> {
            self.0.get(peer).cloned().unwrap_or_default()
        }

        fn is_connected(&self, peer: &PeerId) -> bool {
            self.1.contains(peer)
        }

        fn allows(&self, address: &Multiaddr) -> bool {
            !address.to_string().starts_with("/ip4/127.")
        }
    }

    impl Query {
        fn answer(&mut self, named: &[(PeerId, Vec<Multiaddr>)]) -> Vec<PeerId> {
            let node = |(node_id, multiaddrs): &(PeerId, Vec<Multiaddr>)| KadPeer {
                node_id: *node_id,
                multiaddrs: multiaddrs.clone(),
                connection_ty: ConnectionType::NotConnected,
            };
            let mut nodes: Vec<_> = named.iter().map(node).collect();
            judge_nearer(&mut nodes, self);
            self.0.extend(nodes.iter().map(|node| (node.node_id, node.multiaddrs.clone())));
            nodes.iter().map(|node| node.node_id).collect()
        }
    }

    fn at(number: usize) -> Multiaddr {
        format!("/ip4/9.9.9.9/tcp/{number}").parse().unwrap()
    }

    #[test]
    fn who_answers_last_takes_back_nothing_that_others_said() {
        let (mut query, node) = (Query::default(), PeerId::random());
        assert_eq!(query.answer(&[(node, vec![at(1), at(2)])]), [node]);
        for lie in [Vec::new(), vec![at(3)], (10..60).map(at).collect()] {
            query.answer(&[(node, lie)]);
            assert!(query.0[&node].starts_with(&[at(1), at(2)]));
        }
        // Nor does who answers first keep others from saying more.
        let other = PeerId::random();
        query.answer(&[(other, (10..60).map(at).collect())]);
        query.answer(&[(other, vec![at(1), at(10), at(2)])]);
        assert_eq!(query.0[&other], [at(10), at(11), at(12), at(13), at(1), at(2)]);
        for number in 0..100 {
            query.answer(&[(other, (100 * number..100 * number + 50).map(at).collect())]);
        }
        assert_eq!(query.0[&other].len(), OF_NODE);
    }

    #[test]
    fn a_few_that_lie_leave_room_for_who_does_not() {
        let (mut query, node) = (Query::default(), PeerId::random());
        for number in 1..=9 {
            query.answer(&[(node, (100 * number..100 * number + 50).map(at).collect())]);
        }
        query.answer(&[(node, vec![at(1)])]);
        assert!(query.0[&node].contains(&at(1)), "{:?}", query.0[&node]);
    }

    #[test]
    fn who_could_not_be_dialled_is_not_handed_on_unless_it_is_there() {
        let (mut query, node) = (Query::default(), PeerId::random());
        let loopback: Multiaddr = "/ip4/127.0.0.1/tcp/8468".parse().unwrap();
        let long = (0..9).fold(at(1), |at, _| at.with(Protocol::P2p(node)));
        assert!(long.len() > MAX_ADDRESS);
        for nowhere in [Vec::new(), vec![loopback], vec![long]] {
            assert!(query.answer(&[(node, nowhere)]).is_empty());
        }
        query.1.insert(node);
        assert_eq!(query.answer(&[(node, Vec::new())]), [node]);
    }

    #[test]
    fn an_answer_names_no_more_than_fit_it() {
        let mut query = Query::default();
        let many: Vec<_> = (0..1_000).map(|_| (PeerId::random(), vec![at(1)])).collect();
        assert_eq!(query.answer(&many).len(), K);
    }
}
