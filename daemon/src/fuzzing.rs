//! What must hold of any bytes that are read as one of casd's formats or messages: the fuzz targets, one a decoder.
//!
//! Owns: the list of them; each stands in the room whose format it is about. Refuses: being part of casd: it is there
//! with the feature `fuzzing`, for `tests/fuzz`, and in tests, which replay what fuzzing found worth keeping.
//!
//! A target panics when something does not hold: the decoder panics, what it takes is not encoded to the same bytes
//! again or is beyond a limit of its format, or a lie is believed. Where a format is proved by a hash, a signature or a
//! keyed checksum, a target looks at the bytes as they come, and once more with the proof made to fit.

use crate::{content, dht, session, store};

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called; its corpus is the folder of this name in `tests/fuzz/corpus`.
    pub name: &'static str,
    /// Panics when something does not hold of these bytes.
    pub check: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "header", check: store::fuzzing::header },
    Target { name: "segment", check: store::fuzzing::segment },
    Target { name: "journal", check: store::fuzzing::journal },
    Target { name: "format", check: store::fuzzing::format },
    Target { name: "top", check: content::fuzzing::top },
    Target { name: "page", check: content::fuzzing::page },
    Target { name: "parity_part", check: content::fuzzing::parity_part },
    Target { name: "parity_page", check: content::fuzzing::parity_page },
    Target { name: "tree", check: content::fuzzing::tree },
    Target { name: "link", check: content::fuzzing::link },
    Target { name: "metadata", check: content::fuzzing::metadata },
    Target { name: "frame", check: session::fuzzing::frame },
    Target { name: "hello", check: session::fuzzing::hello },
    Target { name: "asks", check: session::fuzzing::asks },
    Target { name: "answers", check: session::fuzzing::answers },
    Target { name: "dht_hello", check: dht::fuzzing::dht_hello },
    Target { name: "announce", check: dht::fuzzing::announce },
    Target { name: "find", check: dht::fuzzing::find },
    Target { name: "servers", check: dht::fuzzing::servers },
    Target { name: "describe", check: dht::fuzzing::describe },
    Target { name: "catalogue", check: dht::fuzzing::catalogue },
];

/// Bytes of memory that a target may hold at once for so many bytes of input: whatever an input says of itself, its
/// cost is known from its length.
#[must_use]
pub const fn memory(input: usize) -> u64 {
    (1 << 20) + 16 * input as u64
}

#[cfg(test)]
pub(crate) mod tests;
