//! The BLAKE3 tree above chunks: folding subtree values, and the right spine that proves a length.
//!
//! BLAKE3 splits an input so that the left part is the largest power of two of leaves that leaves something
//! to the right. Values of equal aligned subtrees therefore fold pairwise, an odd last one moving up.

use blake3::hazmat::{HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};

/// Bytes in a leaf of the BLAKE3 tree.
pub(super) const LEAF: u64 = 1024;

/// A subtree's chaining value, or at the top the hash itself.
pub(super) type Value = [u8; 32];

/// Whether the last merge makes the hash of the whole input or the value of an inner subtree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// The top of the tree.
    Root,
    /// Below the top.
    Inner,
}

/// Joins two neighbouring subtrees.
fn merge(left: &Value, right: &Value, level: Level) -> Value {
    match level {
        Level::Root => *merge_subtrees_root(left, right, Mode::Hash).as_bytes(),
        Level::Inner => merge_subtrees_non_root(left, right, Mode::Hash),
    }
}

/// Folds the values of equal neighbouring subtrees (the last may be smaller) into the value above them.
///
/// One inner value is its own fold. `None` for no values, and for one value at the root: the hash of a tree
/// is made in its last merge, so it cannot be had from a single value.
pub(super) fn fold(values: impl IntoIterator<Item = Value>, level: Level) -> Option<Value> {
    let mut values: Vec<Value> = values.into_iter().collect();
    while values.len() > 2 {
        values = values
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => merge(left, right, Level::Inner),
                rest => rest[0],
            })
            .collect();
    }
    match (values.as_slice(), level) {
        ([left, right], level) => Some(merge(left, right, level)),
        ([only], Level::Inner) => Some(*only),
        _ => None,
    }
}

/// The left neighbours on the way from the last leaf of `length` bytes up to the value above them all,
/// lowest first, as (offset, length) within those bytes; and the length of the last leaf.
pub(super) fn right_spine(length: u64) -> (Vec<(u64, u64)>, u64) {
    let (mut neighbours, mut offset, mut rest) = (Vec::new(), 0, length);
    while rest > LEAF {
        let left = left_subtree_len(rest);
        neighbours.push((offset, left));
        offset += left;
        rest -= left;
    }
    neighbours.reverse();
    (neighbours, rest)
}

/// Climbs from the last leaf to the value above: `neighbours` are the values that [`right_spine`] names.
/// `offset` is the leaf's offset in the whole object.
pub(super) fn climb(leaf: &[u8], offset: u64, neighbours: &[Value], level: Level) -> Value {
    if neighbours.is_empty() && level == Level::Root {
        // The leaf is the whole object.
        return *blake3::hash(leaf).as_bytes();
    }
    let mut value = blake3::Hasher::new().set_input_offset(offset).update(leaf).finalize_non_root();
    for (index, neighbour) in neighbours.iter().enumerate() {
        let top = index + 1 == neighbours.len();
        value = merge(neighbour, &value, if top { level } else { Level::Inner });
    }
    value
}

/// The value of the subtree of `bytes` at `offset` in the object.
pub(super) fn subtree(bytes: &[u8], offset: u64) -> Value {
    blake3::Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root()
}
