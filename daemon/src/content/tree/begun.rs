//! Telling a directory's list by its first bytes. Pure.

use bytes::Bytes;

use super::{HEADER, MAGIC, MAX_LINK_TARGET, MAX_TREE_BYTES, Reader, Tree, VERSION, read};
use crate::content::MAX_ENTRY_NAME;

/// The longest entry.
const LONGEST: usize = 2 + MAX_ENTRY_NAME + 2 + MAX_LINK_TARGET;

impl Tree {
    /// Whether an object of `length` bytes that begins with these is a tree. Of a longer one than they are it is said
    /// as far as they show: they must be entries, up to the one that is cut.
    #[must_use]
    pub fn is_begun_by(first: &Bytes, length: u64) -> bool {
        if !first.starts_with(MAGIC) || length > MAX_TREE_BYTES as u64 {
            return false;
        }
        if first.len() as u64 == length {
            return Self::decode(first.clone()).is_ok();
        }
        let is_known = first.get(MAGIC.len()) == Some(&VERSION);
        let Some(entries) = first.get(HEADER..).filter(|_| is_known) else { return false };
        let mut reader = Reader::new("tree", entries);
        while read(&mut reader).is_ok() {}
        reader.left() <= LONGEST
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, Node, TreeBuilder};
    use super::*;
    use crate::content::ObjectId;

    #[test]
    fn a_tree_is_told_by_how_it_begins_and_what_only_looks_like_one_is_not() {
        let mut builder = TreeBuilder::default();
        for number in 100..1000 {
            let name = number.to_string();
            let node = Node::File { id: ObjectId::from_bytes([7; 32]), length: 1, executable: false };
            builder.push(Entry { name: &name, node }).unwrap();
        }
        let tree = builder.finish().unwrap().bytes().clone();
        let all = tree.len() as u64;
        assert!(Tree::is_begun_by(&tree, all));
        assert!(Tree::is_begun_by(&tree.slice(..20_000), all));
        assert!(!Tree::is_begun_by(&tree, MAX_TREE_BYTES as u64 + 1));
        assert!(!Tree::is_begun_by(&tree.slice(1..), all - 1));
        let half = tree.slice(..20_000);
        assert!(!Tree::is_begun_by(&half, 20_000), "it is not whole");
        let text = b"casdtree\x01 is how it begins".repeat(1000);
        assert!(!Tree::is_begun_by(&Bytes::from(text), 1 << 20));
    }
}
