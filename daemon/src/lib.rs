//! casd stores files by the BLAKE3 of their content and shares them peer to peer.
//!
//! # Rooms
//!
//! Each module is a room that owns one thing. A room may use only rooms listed above it (the full table,
//! with who may use whom, is in `ARCHITECTURE.md` and is checked by the `tidy` test):
//!
//! - [`support`]: spawning, shutdown, readiness, systemd, telemetry, rate limits.
//! - [`content`]: ids, chunks, manifests and their proofs, links. Pure.
//! - [`erasure`]: stripe geometry, parity encoding, rebuilding. Pure.
//! - [`store`]: what is on disk: segments, index, journal, leases, pins.
//! - [`peer`]: who the others are: identity, addresses, scores; the traits that the network implements.
//! - [`session`]: the chunk protocol between two peers, over any byte stream.
//! - [`dht`]: libp2p and nothing else: the swarm, provider records, announcing, look-ups.
//! - [`wire`]: TCP and TLS and nothing else: listen, dial, connection caps.
//! - [`ingest`]: the add path.
//! - [`fetch`]: the fetch path: planner, workers, ordered assembly.
//! - [`serve`]: the give path: slots, rates, answers.
//! - [`upkeep`]: background work: announcing, collection.
//! - [`node`]: the product's verbs.
//! - [`api`]: tonic and nothing else: the gRPC services on the Unix socket.
//! - [`app`]: builds the rooms bottom-up and drains them top-down; [`config`] collects their options.

// Tests cast constants that they know.
#![cfg_attr(
    test,
    allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::large_stack_arrays)
)]

pub mod api;
pub mod app;
pub mod args;
pub mod config;
pub mod content;
pub mod dht;
pub mod erasure;
pub mod fetch;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
#[cfg(test)]
mod golden;
pub mod ingest;
pub mod node;
pub mod peer;
pub mod serve;
pub mod session;
pub mod store;
pub mod support;
pub mod upkeep;
pub mod wire;
