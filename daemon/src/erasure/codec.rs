//! Encoding and rebuilding one stripe.
//!
//! The code is position-wise, and the library walks whole shards for every output; so the work is done in blocks that
//! fit the processor's cache, which is what makes it several times faster on 1 MiB shards.

use std::sync::{Arc, Mutex, OnceLock};

use bytes::{Bytes, BytesMut};
use reed_solomon_erasure::galois_8::ReedSolomon;

use super::{Error, Stripe};

/// Bytes of each shard in one block: 20 shards of it fit a 1 MiB second-level cache.
const BLOCK: usize = 32 << 10;

/// Codecs kept: making one inverts a k×k matrix. Few geometries are in use at once.
const CODECS: usize = 16;

type Cache = Mutex<Vec<((usize, usize), Arc<ReedSolomon>)>>;

/// Whether this processor has what the codec was compiled for. It must be asked before any other call here: the
/// library is built for AVX2 without asking at run time.
#[must_use]
pub fn processor_is_supported() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return true;
}

/// The codec for k data and m parity shards.
fn codec(data: usize, parity: usize) -> Result<Arc<ReedSolomon>, Error> {
    static CACHE: OnceLock<Cache> = OnceLock::new();
    let mut cache = CACHE.get_or_init(Mutex::default).lock().map_err(|_| Error::Shape)?;
    if let Some((_, codec)) = cache.iter().find(|(shape, _)| *shape == (data, parity)) {
        return Ok(Arc::clone(codec));
    }
    let made = Arc::new(ReedSolomon::new(data, parity).map_err(|_| Error::Shape)?);
    if cache.len() == CODECS {
        cache.remove(0);
    }
    cache.push(((data, parity), Arc::clone(&made)));
    Ok(made)
}

/// `bytes` padded with zeros to a shard; no copy when it is as long already.
fn padded(bytes: &Bytes, shard: usize) -> Result<Bytes, Error> {
    if bytes.len() == shard {
        return Ok(bytes.clone());
    }
    if bytes.len() > shard || bytes.is_empty() {
        return Err(Error::Shape);
    }
    let mut whole = BytesMut::zeroed(shard);
    whole[..bytes.len()].copy_from_slice(bytes);
    Ok(whole.freeze())
}

/// The parity shards of a stripe, in order, from its data chunks in order.
///
/// # Errors
/// [`Error::Shape`] when the chunks are not those of the stripe.
pub fn encode(stripe: &Stripe, data: &[Bytes]) -> Result<Vec<Bytes>, Error> {
    encode_into(stripe, data, Vec::new())
}

/// As [`encode`], into memory of before where that has the right length: new memory for every shard costs half as
/// much as the arithmetic.
///
/// # Errors
/// As [`encode`].
pub fn encode_into(stripe: &Stripe, data: &[Bytes], spare: Vec<BytesMut>) -> Result<Vec<Bytes>, Error> {
    if data.len() != stripe.data || stripe.shard == 0 {
        return Err(Error::Shape);
    }
    let codec = codec(stripe.data, stripe.parity)?;
    let data = data.iter().map(|bytes| padded(bytes, stripe.shard)).collect::<Result<Vec<_>, _>>()?;
    // The first data shard overwrites what is in them.
    let fitting = spare.into_iter().filter(|bytes| bytes.len() == stripe.shard);
    let mut parity: Vec<_> = fitting.take(stripe.parity).collect();
    parity.resize_with(stripe.parity, || BytesMut::zeroed(stripe.shard));
    for at in (0..stripe.shard).step_by(BLOCK) {
        let block = at..stripe.shard.min(at + BLOCK);
        let sources: Vec<&[u8]> = data.iter().map(|bytes| &bytes[block.clone()]).collect();
        let mut outputs: Vec<&mut [u8]> = parity.iter_mut().map(|bytes| &mut bytes[block.clone()]).collect();
        codec.encode_sep(&sources, &mut outputs).map_err(|_| Error::Shape)?;
    }
    Ok(parity.into_iter().map(BytesMut::freeze).collect())
}

/// Rebuilds the missing data chunks of a stripe: `shards` holds its data chunks, then its parity chunks, in order,
/// `None` where one is missing. Gives (position in the stripe, shard) of each missing data chunk; a shard is
/// padded to the stripe's shard length, so the last chunk of an object must be cut by the caller.
///
/// The result is only as good as what came in: verify it.
///
/// # Errors
/// [`Error::Shape`] or [`Error::TooFew`].
pub fn rebuild(stripe: &Stripe, shards: &[Option<Bytes>]) -> Result<Vec<(usize, Bytes)>, Error> {
    if shards.len() != stripe.data + stripe.parity || stripe.shard == 0 {
        return Err(Error::Shape);
    }
    let missing: Vec<usize> = (0..stripe.data).filter(|&at| shards[at].is_none()).collect();
    let have = shards.iter().flatten().count();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    if have < stripe.data {
        return Err(Error::TooFew { have, need: stripe.data });
    }
    let codec = codec(stripe.data, stripe.parity)?;
    // The library takes every shard as writable, so a block of those that are there is copied aside.
    let whole = shards.iter().map(|s| s.as_ref().map(|b| padded(b, stripe.shard)).transpose());
    let whole = whole.collect::<Result<Vec<Option<Bytes>>, _>>()?;
    let mut rebuilt = vec![BytesMut::zeroed(stripe.shard); missing.len()];
    let mut work: Vec<(Vec<u8>, bool)> = whole.iter().map(|s| (vec![0; BLOCK], s.is_some())).collect();
    for at in (0..stripe.shard).step_by(BLOCK) {
        let block = at..stripe.shard.min(at + BLOCK);
        for ((buffer, present), shard) in work.iter_mut().zip(&whole) {
            buffer.resize(block.len(), 0);
            *present = shard.is_some();
            if let Some(shard) = shard {
                buffer.copy_from_slice(&shard[block.clone()]);
            }
        }
        codec.reconstruct_data(&mut work).map_err(|_| Error::Shape)?;
        for (output, &from) in rebuilt.iter_mut().zip(&missing) {
            output[block.clone()].copy_from_slice(&work[from].0);
        }
    }
    Ok(missing.into_iter().zip(rebuilt.into_iter().map(BytesMut::freeze)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{CHUNK_LEN, chunk_length};
    use crate::erasure::{Geometry, Layout};
    use proptest::prelude::*;

    /// The chunks of stripe `index` of an object of `length` bytes that differ everywhere.
    fn chunks(length: u64, stripe: &Stripe) -> Vec<Bytes> {
        let chunk = |index: u64| {
            let mut bytes = vec![0; chunk_length(length, index) as usize];
            blake3::Hasher::new().update(&index.to_le_bytes()).finalize_xof().fill(&mut bytes);
            Bytes::from(bytes)
        };
        stripe.chunks().map(chunk).collect()
    }

    fn survives(stripe: &Stripe, data: &[Bytes], parity: &[Bytes], lost: &[usize]) {
        let mut shards: Vec<Option<Bytes>> = data.iter().chain(parity).cloned().map(Some).collect();
        for &at in lost {
            shards[at] = None;
        }
        let rebuilt = rebuild(stripe, &shards).unwrap();
        let wanted: Vec<usize> = (0..stripe.data).filter(|at| lost.contains(at)).collect();
        assert_eq!(rebuilt.iter().map(|(at, _)| *at).collect::<Vec<_>>(), wanted);
        for (at, bytes) in rebuilt {
            assert_eq!(bytes.slice(..data[at].len()), data[at]);
            assert!(bytes[data[at].len()..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn every_loss_that_parity_covers_is_rebuilt() {
        let length = 10 * CHUNK_LEN - 700_000;
        let layout = Layout::new(length, Geometry::new(6, 3).unwrap()).unwrap();
        let stripe = layout.stripe(1).unwrap();
        let data = chunks(length, &stripe);
        let parity = encode(&stripe, &data).unwrap();
        let shards = stripe.data + stripe.parity;
        for mask in 0u32..1 << shards {
            let lost: Vec<usize> = (0..shards).filter(|at| mask >> at & 1 == 1).collect();
            if lost.len() <= stripe.parity {
                survives(&stripe, &data, &parity, &lost);
            }
        }
    }

    /// Parity is kept for years: what this version computes for known bytes must never change.
    #[test]
    fn parity_of_known_bytes_is_known() {
        let length = 4 * CHUNK_LEN;
        let stripe = Layout::new(length, Geometry::new(4, 2).unwrap()).unwrap().stripe(0).unwrap();
        let parity = encode(&stripe, &chunks(length, &stripe)).unwrap();
        let ids: Vec<String> = parity.iter().map(|bytes| blake3::hash(bytes).to_string()).collect();
        assert_eq!(
            ids,
            [
                "2b5fdb41e0ee8069cb6f93294e2d4b379ea044ff054fce017c4805456dcd5585",
                "4e5c650452f9cd0a839dec8b1f40d6062323a56f5b545dec693aa7b8180c221f",
            ]
        );
    }

    #[test]
    fn too_few_or_misshapen_shards_are_refused() {
        let length = 3 * CHUNK_LEN;
        let stripe = Layout::new(length, Geometry::new(3, 2).unwrap()).unwrap().stripe(0).unwrap();
        let data = chunks(length, &stripe);
        assert_eq!(encode(&stripe, &data[1..]), Err(Error::Shape));
        let some = |n: usize| (0..5).map(|i| (i < n).then(|| data[0].clone())).collect::<Vec<_>>();
        assert_eq!(rebuild(&stripe, &some(2)), Err(Error::TooFew { have: 2, need: 3 }));
        assert_eq!(rebuild(&stripe, &some(5)[1..]), Err(Error::Shape));
        let long = Bytes::from(vec![0; CHUNK_LEN as usize + 1]);
        assert_eq!(
            rebuild(&stripe, &[None, Some(long), Some(data[1].clone()), Some(data[2].clone()), None]),
            Err(Error::Shape)
        );
        let none = vec![Some(Bytes::new()), None, Some(data[1].clone()), Some(data[2].clone()), None];
        assert_eq!(rebuild(&stripe, &none), Err(Error::Shape));
        assert_eq!(encode(&stripe, &[data[0].clone(), Bytes::new(), data[2].clone()]), Err(Error::Shape));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn any_k_of_a_stripe_finish_it(
            n in 2u64..40,
            short in 0u64..CHUNK_LEN,
            k in 1u8..24,
            m in 1u8..8,
            order in any::<u64>(),
        ) {
            let length = n * CHUNK_LEN - short;
            let layout = Layout::new(length, Geometry::new(k, m).unwrap()).unwrap();
            let stripe = layout.stripe(layout.stripes() - 1).unwrap();
            let data = chunks(length, &stripe);
            let parity = encode(&stripe, &data).unwrap();
            let mut shards: Vec<usize> = (0..stripe.data + stripe.parity).collect();
            shards.sort_by_key(|at| *blake3::hash(&(order ^ *at as u64).to_le_bytes()).as_bytes());
            survives(&stripe, &data, &parity, &shards[..stripe.parity]);
        }
    }
}
