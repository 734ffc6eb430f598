//! Why erasure coding was refused.

/// What is wrong with a geometry or with shards.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A geometry out of range.
    #[error("parity {k}+{m} is out of range: K is 1 to 128, M is 1 to 64, and K+M at most 192")]
    Geometry {
        /// Data chunks.
        k: u8,
        /// Parity chunks.
        m: u8,
    },
    /// Text that is not `K+M`.
    #[error("parity is written K+M, such as 16+4 (K is 1 to 128, M is 1 to 64), or none; this is {0:?}")]
    Text(String),
    /// Another number of shards than the stripe has, or one that is longer than the stripe's longest chunk.
    #[error("the shards do not fit their stripe")]
    Shape,
    /// Fewer shards than the stripe has data chunks.
    #[error("{have} chunks of the stripe are there and {need} are needed")]
    TooFew {
        /// Shards given.
        have: usize,
        /// Shards needed.
        need: usize,
    },
}
