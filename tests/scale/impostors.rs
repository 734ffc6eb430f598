//! A key that many announce who do not hold it, from hosts of a few networks; and a network into which liars come that
//! are as many as its nodes.
//!
//! Owns: the impostors, and counting liars in routing tables.

use std::collections::HashSet;
use std::time::Duration;

use casd::dht::Mode;
use casd::peer::{Key, Keypair, PeerId};
use futures::stream::{self, StreamExt};
use rand::Rng;

use crate::liar::Liar;
use crate::node::{Found, Node, Sort};
use crate::siege;
use crate::world::{AT_ONCE, PORT, World};

/// A holder must be found within this time…
pub(crate) const WITHIN: Duration = Duration::from_secs(30);
/// …and so many dials.
pub(crate) const DIALS: u64 = 200;
/// Impostors that start at once.
const WAVE: usize = 20;
/// Other ports than the Sybils': hosts may be the same.
const IMPOSTORS: u16 = PORT + 1;

impl World {
    /// `count` impostors from `networks` networks announce a key as real nodes do; every second one of them is gone
    /// then, without a word, and the others answer whoever asks them. Then one node that has it announces it, and
    /// `look_ups` others look for it.
    pub(crate) async fn impostors(
        &mut self,
        count: usize,
        networks: usize,
        look_ups: usize,
    ) -> Result<Vec<Found>, String> {
        let key: Key = self.rng.random();
        let places = siege::addresses(&mut self.rng, count, networks, IMPOSTORS);
        let sort = Sort { is_defended: true, mode: Mode::Client };
        let mut staying: Vec<Node> = Vec::new();
        for wave in places.chunks(WAVE) {
            let entrances = self.entrances();
            let net = &self.net;
            let come = wave.iter().map(|at| {
                let entrances = entrances.clone();
                async move {
                    let node = Node::start(net, *at, entrances, sort).await?;
                    node.dht.joined().await;
                    node.place(key).await;
                    Ok::<_, String>(node)
                }
            });
            for (number, node) in futures::future::join_all(come).await.into_iter().enumerate() {
                match number % 2 {
                    0 => staying.push(node?),
                    _ => node?.leave(true).await,
                }
            }
        }
        let holder = self.rng.random_range(0..self.nodes.len());
        self.nodes[holder].place(key).await;
        let holder = self.nodes[holder].peer;
        let others = self.nodes.iter().filter(|node| node.peer != holder).take(look_ups);
        let looks = stream::iter(others).map(|node| node.find(key, holder));
        let found = looks.buffer_unordered(AT_ONCE).collect().await;
        futures::future::join_all(staying.into_iter().map(|node| node.leave(false))).await;
        Ok(found)
    }

    /// `count` liars with ids of no particular place and hosts of `networks` networks join, who all know each other.
    pub(crate) fn flood(&mut self, count: usize, networks: usize) -> Result<HashSet<PeerId>, String> {
        let hosts = siege::addresses(&mut self.rng, count, networks, PORT);
        let keypairs = std::iter::repeat_with(Keypair::generate_ed25519);
        let liars: Vec<_> = keypairs.zip(hosts).collect();
        for liar in &liars {
            let entrances = self.entrances();
            self.liars.push(Liar::start(&self.net, liar, entrances, &liars, &[])?);
        }
        Ok(liars.iter().map(|(keypair, _)| keypair.public().to_peer_id()).collect())
    }

    /// How many of a hundred entries in the routing tables of nodes from number `first` on are of `liars`.
    pub(crate) async fn infested(&self, first: usize, liars: &HashSet<PeerId>) -> f64 {
        let (mut all, mut lying) = (0usize, 0usize);
        for node in self.nodes.iter().skip(first) {
            let routed = node.dht.peers().await.into_iter().filter(|view| view.routed);
            for view in routed {
                all += 1;
                lying += usize::from(liars.contains(&view.peer));
            }
        }
        100.0 * lying as f64 / all.max(1) as f64
    }
}
