//! Conduct as it is written down. Format: `docs/storage-format.md`, "Conduct". Pure.

use std::io;
use std::time::{Duration, SystemTime};

use crate::peer::{HostAddr, PeerId, Score, Scores};

const MAGIC: &[u8; 8] = b"casdcon3";
/// A peer's id is a multihash of at most 32 bytes with its two numbers; public keys within an id are as short.
const MAX_ID: usize = 48;
/// Peers that are written down, strikes of one.
const MAX_PEERS: usize = 4_096;
const MAX_STRIKES: usize = 8;
/// Bytes of BLAKE3 at the end.
const SUM: usize = 16;
/// One peer with all that it may have.
const MAX_PEER: usize = 1 + MAX_ID + 1 + 8 * MAX_STRIKES + 8 + 9 + 4 + 8 + 8 + 8 + 8;
/// The longest: 668 KiB.
pub(super) const MAX_FILE: usize = MAGIC.len() + 2 + MAX_PEERS * MAX_PEER + SUM;

/// What is written of `scores`.
pub(super) fn encode(scores: &Scores) -> Vec<u8> {
    let mut all: Vec<_> = scores.iter().collect();
    // One form for one content.
    all.sort_unstable_by_key(|(peer, _)| **peer);
    all.truncate(MAX_PEERS);
    let mut out = MAGIC.to_vec();
    out.extend(u16::try_from(all.len()).unwrap_or(0).to_le_bytes());
    for (peer, score) in all {
        let id = peer.to_bytes();
        out.push(u8::try_from(id.len()).unwrap_or(0));
        out.extend(id);
        let strikes = &score.strikes[score.strikes.len().saturating_sub(MAX_STRIKES)..];
        out.push(u8::try_from(strikes.len()).unwrap_or(0));
        strikes.iter().for_each(|at| out.extend(seconds(Some(*at)).to_le_bytes()));
        out.extend(seconds(score.banned_until).to_le_bytes());
        let (kind, host) = match score.host {
            None => (0, 0),
            Some(HostAddr::V4(ip)) => (4, u64::from(ip)),
            Some(HostAddr::V6(upper)) => (6, upper),
        };
        out.push(kind);
        out.extend(host.to_le_bytes());
        out.extend(score.failures.to_le_bytes());
        out.extend(seconds(score.retry_at).to_le_bytes());
        out.extend(score.rate.unwrap_or(0).to_le_bytes());
        out.extend(score.delivered.to_le_bytes());
        out.extend(seconds(Some(score.seen)).to_le_bytes());
    }
    let sum = blake3::hash(&out);
    out.extend_from_slice(&sum.as_bytes()[..SUM]);
    out
}

/// What `bytes` say.
pub(super) fn decode(bytes: &[u8]) -> io::Result<Vec<(PeerId, Score)>> {
    let (summed, sum) = bytes.split_last_chunk::<SUM>().map_or((bytes, None), |(all, sum)| (all, Some(sum)));
    if bytes.len() > MAX_FILE || sum.map(|sum| &sum[..]) != Some(&blake3::hash(summed).as_bytes()[..SUM]) {
        return Err(wrong());
    }
    let mut rest = summed;
    if &take::<8>(&mut rest)? != MAGIC {
        return Err(wrong());
    }
    let count = usize::from(u16::from_le_bytes(take(&mut rest)?));
    if count > MAX_PEERS {
        return Err(wrong());
    }
    let all = (0..count).map(|_| score(&mut rest)).collect::<io::Result<Vec<_>>>()?;
    if rest.is_empty() { Ok(all) } else { Err(wrong()) }
}

fn score(rest: &mut &[u8]) -> io::Result<(PeerId, Score)> {
    let [length] = take(rest)?;
    let (id, after) = rest.split_at_checked(usize::from(length)).ok_or_else(wrong)?;
    *rest = after;
    let peer = PeerId::from_bytes(id).map_err(|_| wrong())?;
    let [strikes] = take(rest)?;
    if usize::from(length) > MAX_ID || usize::from(strikes) > MAX_STRIKES {
        return Err(wrong());
    }
    let strikes = (0..strikes).map(|_| time(rest)?.ok_or_else(wrong)).collect::<io::Result<Vec<_>>>()?;
    let banned_until = time(rest)?;
    let [kind] = take(rest)?;
    let host = u64::from_le_bytes(take(rest)?);
    let host = match kind {
        0 => None,
        4 => Some(HostAddr::V4(u32::try_from(host).map_err(|_| wrong())?)),
        6 => Some(HostAddr::V6(host)),
        _ => return Err(wrong()),
    };
    let failures = u32::from_le_bytes(take(rest)?);
    let retry_at = time(rest)?;
    let rate = Some(u64::from_le_bytes(take(rest)?)).filter(|rate| *rate > 0);
    let delivered = u64::from_le_bytes(take(rest)?);
    let seen = time(rest)?.unwrap_or(SystemTime::UNIX_EPOCH);
    Ok((peer, Score { strikes, banned_until, host, failures, retry_at, rate, delivered, seen }))
}

/// Seconds since 1970, at least 1; 0: never.
fn seconds(at: Option<SystemTime>) -> u64 {
    at.map_or(0, |at| at.duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_secs().max(1)))
}

fn time(rest: &mut &[u8]) -> io::Result<Option<SystemTime>> {
    let seconds = u64::from_le_bytes(take(rest)?);
    if seconds == 0 {
        return Ok(None);
    }
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).map(Some).ok_or_else(wrong)
}

fn take<const N: usize>(rest: &mut &[u8]) -> io::Result<[u8; N]> {
    let (taken, after) = rest.split_first_chunk().ok_or_else(wrong)?;
    *rest = after;
    Ok(*taken)
}

fn wrong() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "damaged, or of another form")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, proptest};

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    /// Peers of all kinds.
    fn sample(count: usize) -> Scores {
        let mut scores = Scores::new();
        for number in 0..count {
            let mut seed = [7; 32];
            seed[..8].copy_from_slice(&number.to_le_bytes());
            let peer = crate::peer::Keypair::ed25519_from_bytes(seed).unwrap().public().to_peer_id();
            for _ in 0..=number % 4 {
                scores.strike(peer, at(number as u64));
            }
            let ips = ["203.0.113.1", "2a00:1450::1", "10.0.0.1"];
            scores.seen_at(&peer, HostAddr::of(ips[number % 3].parse().unwrap()));
            if number % 2 == 0 {
                scores.failed(peer, at(5));
            } else {
                scores.delivered(peer, 1 << 20, Duration::from_secs(1), at(6));
            }
        }
        scores
    }

    #[test]
    fn what_is_written_is_read_and_what_is_torn_is_not() {
        let scores = sample(9);
        let bytes = encode(&scores);
        let whole = crate::golden::is("conduct.3", &bytes);
        for other in [
            &include_bytes!("../../../../tests/golden/conduct")[..],
            include_bytes!("../../../../tests/golden/conduct.2"),
        ] {
            assert!(decode(other).is_err(), "of another form");
        }
        let read = decode(&whole).unwrap();
        assert_eq!(read.len(), 9);
        for (peer, score) in &read {
            assert_eq!(scores.get(peer), Some(score));
        }
        for at in 0..whole.len() {
            let mut torn = whole.clone();
            torn[at] ^= 1;
            assert!(decode(&torn).is_err() && decode(&whole[..at]).is_err(), "byte {at}");
        }
        assert!(encode(&sample(MAX_PEERS)).len() <= MAX_FILE);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0..300_usize) {
            prop_assert!(decode(&bytes).is_err());
            // Behind the sum as well.
            let mut whole = encode(&sample(3));
            whole.truncate(whole.len() - SUM);
            let at = at.min(whole.len());
            whole.splice(at.., bytes);
            let sum = blake3::hash(&whole);
            whole.extend_from_slice(&sum.as_bytes()[..SUM]);
            if let Ok(read) = decode(&whole) {
                prop_assert!(read.len() <= MAX_PEERS);
            }
        }
    }
}
