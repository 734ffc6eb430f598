//! Reed-Solomon over stripes of chunks: where the stripes are, their parity, and rebuilding what is lost.
//!
//! Owns: stripe geometry ([`Layout`]) and the codec ([`encode`], [`rebuild`]). Refuses: files, peers, async; and to
//! tell good shards from bad ones: erasure coding fills gaps, it does not find errors, so only verified chunks may
//! come in, and what is rebuilt must be verified against its own id by whoever asked for it. Survives a crash:
//! nothing is kept here, but the geometry and the codec are formats: parity made by one version must be
//! usable by all later ones.
//!
//! Both calls are heavy (6 GB/s a core at best): run them off the runtime.

mod codec;
mod error;
mod layout;

pub use codec::{encode, encode_into, processor_is_supported, rebuild};
pub use error::Error;
pub use layout::{Geometry, Layout, Stripe};
