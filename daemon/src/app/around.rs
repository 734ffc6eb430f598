//! The DHT plane as the node's verbs see it.

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::dht::{Dht, Error};
use crate::node::Neighbours;
use crate::peer::{Company, Multiaddr, PeerId, Reachability, Unconnected};

/// The DHT plane as the node's verbs see it.
pub(super) struct Around(pub(super) Dht);

impl Neighbours for Around {
    fn peers(&self) -> BoxFuture<'static, Vec<(PeerId, Vec<Multiaddr>, bool)>> {
        let dht = self.0.clone();
        Box::pin(async move {
            let peers = dht.peers().await.into_iter();
            peers.map(|peer| (peer.peer, peer.addresses, peer.connected)).collect()
        })
    }

    fn known(&self) -> BoxFuture<'static, Vec<(PeerId, bool)>> {
        let dht = self.0.clone();
        Box::pin(async move { dht.known().await })
    }

    fn joined(&self) -> BoxFuture<'static, bool> {
        let dht = self.0.clone();
        Box::pin(async move { dht.joined().await })
    }

    fn connect(&self, at: Multiaddr) -> BoxFuture<'static, Result<PeerId, Unconnected>> {
        let dht = self.0.clone();
        Box::pin(async move { dht.connect(at).await.map_err(|error| unconnected(&error)) })
    }

    fn listen(&self) -> Vec<Multiaddr> {
        self.0.listen_addresses()
    }

    fn company(&self) -> BoxFuture<'static, Company> {
        let dht = self.0.clone();
        Box::pin(async move { dht.standing().await })
    }

    fn reachability(&self) -> Reachability {
        self.0.reachability()
    }

    fn routed(&self) -> watch::Receiver<usize> {
        self.0.routed()
    }
}

fn unconnected(error: &Error) -> Unconnected {
    match error {
        Error::OtherNetwork { .. } => Unconnected::OtherNetwork,
        Error::OtherKey { .. } => Unconnected::OtherKey,
        Error::Unreachable { reason, .. } => Unconnected::Unreachable(reason.clone()),
        Error::Silent { within, .. } => {
            Unconnected::Unreachable(format!("no answer within {} s", within.as_secs()))
        }
        other => Unconnected::Unreachable(other.to_string()),
    }
}
