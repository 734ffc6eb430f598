//! The DHT plane as the node's verbs see it.

use futures::future::BoxFuture;

use crate::dht::Dht;
use crate::node::Neighbours;
use crate::peer::{Multiaddr, PeerId};

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

    fn connect(&self, at: Multiaddr) -> BoxFuture<'static, Result<PeerId, String>> {
        let dht = self.0.clone();
        Box::pin(async move { dht.connect(at).await.map_err(|error| error.to_string()) })
    }

    fn listen(&self) -> Vec<Multiaddr> {
        self.0.listen_addresses()
    }
}
