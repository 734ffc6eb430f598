//! The script of a seed: what is done, in which order.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::objects::PLAIN;

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Adds an object for a user.
    Add(usize, u32),
    /// Adds the whole crowd for user 1.
    Crowd,
    /// Publishes the crowd, or no more.
    Publish(bool),
    /// Pins an object for a user.
    Pin(usize, u32),
    /// Takes the pin away.
    Unpin(usize, u32),
    /// Removes an object as a user, the pins of others as well or not.
    Remove(usize, u32, bool),
    /// Reads an object and compares it.
    Read(usize),
    /// Collects what nobody pins.
    Collect,
    /// Closes the store in order, and opens it again.
    Reopen,
    /// Drops the store as it is, and opens it again.
    Abandon,
}

/// Users.
const USERS: u32 = 3;

/// The operations of a seed. Whatever the seed, each kind occurs.
pub(crate) fn script(seed: u64) -> Vec<Op> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut ops = vec![Op::Add(0, 1), Op::Add(5, 1), Op::Add(6, 2), Op::Add(4, 1), Op::Add(7, 1)];
    ops.extend((0..6).map(|_| any(&mut random)));
    ops.extend([Op::Remove(5, 1, true), Op::Remove(0, 1, false), Op::Add(3, 1), Op::Unpin(3, 1), Op::Crowd]);
    ops.extend((0..8).map(|round| Op::Publish(round % 2 == 0)));
    ops.extend([Op::Abandon, Op::Read(6), Op::Add(8, 1), Op::Add(2, 1), Op::Unpin(2, 1)]);
    ops.extend((0..6).map(|_| any(&mut random)));
    ops.extend([Op::Collect, Op::Add(1, 1), Op::Reopen, Op::Read(6), Op::Add(5, 3)]);
    ops.extend((0..4).map(|_| any(&mut random)));
    ops.extend([Op::Remove(7, 1, true), Op::Read(5)]);
    ops
}

fn any(random: &mut StdRng) -> Op {
    let (object, uid) = (random.random_range(0..PLAIN), random.random_range(1..=USERS));
    match random.random_range(0..10) {
        0..4 => Op::Add(object, uid),
        4 => Op::Pin(object, uid),
        5 => Op::Unpin(object, uid),
        6 | 7 => Op::Remove(object, uid, random.random()),
        _ => Op::Read(object),
    }
}
