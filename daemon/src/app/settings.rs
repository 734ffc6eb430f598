//! What the settings mean for each room.

use std::net::SocketAddr;
use std::time::Instant;

use crate::config::{self, Config};
use crate::node::{About, Rates};
use crate::peer::{CardSigner, Keypair, PeerId};
use crate::{dht, fetch, upkeep};

pub(super) fn dht(config: &Config, chunk: Vec<SocketAddr>) -> dht::Options {
    let mode = match (config.network.mode, config.network.dht) {
        (config::Mode::Client, _) | (_, config::DhtMode::Client) => dht::Mode::Client,
        (_, config::DhtMode::Server) => dht::Mode::Server,
        (_, config::DhtMode::Auto) => dht::Mode::Auto,
    };
    // Who only fetches is dialled by nobody, and has no open port unless its owner asks for one.
    let is_deaf = config.network.mode == config::Mode::Client && !config.listen.dht.configured;
    dht::Options {
        network: config.network.name.clone(),
        key: config.network.key.clone(),
        listen: if is_deaf { Vec::new() } else { config.listen.dht.list.clone() },
        replace_busy_port: !config.listen.dht.configured,
        bootstrap: config.network.bootstrap.clone(),
        lan_discovery: config.network.lan_discovery,
        peers: Some(config.node.state_dir.join("cache/peers")),
        mode,
        serves: config.network.mode == config::Mode::Full,
        chunk,
        journal: Some(config.node.state_dir.join("cache/keys")),
        ..dht::Options::default()
    }
}

pub(super) fn fetching(config: &Config) -> fetch::Options {
    let per_fetch = usize::try_from(config.transfer.per_fetch).unwrap_or(usize::MAX);
    fetch::Options { per_fetch, ..fetch::Options::default() }
}

/// Who announces nothing, or only fetches, is told of to nobody either.
pub(super) fn card(config: &Config, key: &Keypair, chunk: &[SocketAddr]) -> Option<CardSigner> {
    let config::Network { mode, announce, name, .. } = &config.network;
    let is_told = *mode == config::Mode::Full && *announce != config::Announce::None;
    is_told.then(|| CardSigner::new(key.clone(), name, chunk)).flatten()
}

pub(super) fn announcing(config: &Config) -> upkeep::Options {
    let policy = match config.network.announce {
        _ if config.network.mode == config::Mode::Client => upkeep::Policy::None,
        config::Announce::Auto => upkeep::Policy::Auto,
        config::Announce::Objects => upkeep::Policy::Objects,
        config::Announce::Chunks => upkeep::Policy::Chunks,
        config::Announce::None => upkeep::Policy::None,
    };
    upkeep::Options { policy, ..upkeep::Options::default() }
}

pub(super) fn scrubbing(config: &Config) -> upkeep::ScrubOptions {
    upkeep::ScrubOptions { every: config.store.scrub, file: config.node.state_dir.join("cache/scrub") }
}

pub(super) fn rates(config: &Config) -> Rates {
    let config::Transfer { upload, download, upload_per_peer, upload_slots, yielding, .. } = config.transfer;
    let config::Transfer { serve, announce, fetch, repair, .. } = config.transfer;
    Rates { upload, download, upload_per_peer, serve, announce, fetch, repair, upload_slots, yielding }
}

pub(super) fn about(config: &Config, peer: PeerId, chunk: Vec<SocketAddr>) -> About {
    About {
        peer,
        name: config.node.name.clone(),
        network: config.network.name.clone(),
        is_private_network: config.network.key.is_some(),
        is_client: config.network.mode == config::Mode::Client,
        chunk,
        parity: config.store.parity,
        private: config.store.private,
        publish: config.network.publish,
        started: Instant::now(),
    }
}
