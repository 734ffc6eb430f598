//! Cutting a stream of messages of any size into chunks of 1 MiB.

use bytes::{Bytes, BytesMut};

use crate::content::CHUNK;

/// Collects bytes until a chunk is full. Holds less than one chunk between calls.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    /// The beginning of the next chunk.
    pending: BytesMut,
}

impl Cutter {
    /// Takes a message and hands each chunk that it completes to `full`. A message that holds a whole chunk where
    /// one begins is passed on without a copy.
    pub(super) fn push(&mut self, mut message: Bytes, mut full: impl FnMut(Bytes)) {
        while !message.is_empty() {
            if self.pending.is_empty() && message.len() >= CHUNK {
                full(message.split_to(CHUNK));
                continue;
            }
            if self.pending.is_empty() {
                self.pending.reserve(CHUNK);
            }
            let part = message.split_to(message.len().min(CHUNK - self.pending.len()));
            self.pending.extend_from_slice(&part);
            if self.pending.len() == CHUNK {
                full(std::mem::take(&mut self.pending).freeze());
            }
        }
    }

    /// The bytes of the last, shorter chunk; empty when the stream ended at a chunk's end.
    pub(super) fn rest(self) -> Bytes {
        self.pending.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn chunks_are_the_stream_cut_at_every_mebibyte(
            sizes in prop::collection::vec(prop_oneof![1usize..3000, Just(CHUNK), 1usize..2 * CHUNK + 9], 0..8)
        ) {
            let (mut cutter, mut chunks, mut stream) = (Cutter::default(), Vec::new(), Vec::new());
            for (index, size) in sizes.into_iter().enumerate() {
                let message = vec![index as u8; size];
                stream.extend_from_slice(&message);
                cutter.push(message.into(), |chunk| chunks.push(chunk));
            }
            prop_assert!(chunks.iter().all(|chunk| chunk.len() == CHUNK));
            chunks.push(cutter.rest());
            prop_assert!(chunks.last().is_some_and(|rest| rest.len() < CHUNK));
            prop_assert_eq!(chunks.concat(), stream);
        }
    }
}
