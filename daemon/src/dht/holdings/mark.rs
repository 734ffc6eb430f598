//! What is remembered of a key that this node holds, in four bytes.
//!
//! Owns: their layout. Pure. Refuses: nothing. Survives a crash: nothing by itself.

use super::Minute;
use crate::peer::Kind;

/// The minute of its last announcement, whether it is an object's, and the count in which it was last said to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark(u32);

impl Mark {
    const OBJECT: u32 = 1 << 31;
    const COUNT: u32 = 1 << 30;
    /// Known from the journal only, so in no count.
    const UNSAID: u32 = 1 << 29;
    /// Being announced by somebody: not due for others.
    const TAKEN: u32 = 1 << 28;
    /// Announced, and not to all that should know it, or perhaps not. Not written down.
    const THIN: u32 = 1 << 27;
    const FLAGS: u32 = Self::OBJECT | Self::COUNT | Self::UNSAID | Self::TAKEN | Self::THIN;

    pub(super) fn new(kind: Kind) -> Self {
        Self(if kind == Kind::Object { Self::OBJECT } else { 0 })
    }

    pub(super) fn placed(self) -> Minute {
        self.0 & !Self::FLAGS
    }

    pub(super) fn with_placed(self, minute: Minute) -> Self {
        Self(self.0 & Self::FLAGS | minute & !Self::FLAGS)
    }

    pub(super) fn is_taken(self) -> bool {
        self.0 & Self::TAKEN != 0
    }

    pub(super) fn with_taken(self, is_taken: bool) -> Self {
        Self(self.0 & !Self::TAKEN | if is_taken { Self::TAKEN } else { 0 })
    }

    pub(super) fn is_thin(self) -> bool {
        self.0 & Self::THIN != 0
    }

    pub(super) fn with_thin(self, is_thin: bool) -> Self {
        Self(self.0 & !Self::THIN | if is_thin { Self::THIN } else { 0 })
    }

    pub(super) fn kind(self) -> Kind {
        if self.0 & Self::OBJECT == 0 { Kind::Chunk } else { Kind::Object }
    }

    pub(super) fn is_counted(self, count: bool) -> bool {
        self.0 & Self::UNSAID == 0 && (self.0 & Self::COUNT != 0) == count
    }

    pub(super) fn counted(self, count: bool) -> Self {
        Self(self.0 & !(Self::COUNT | Self::UNSAID) | if count { Self::COUNT } else { 0 })
    }

    pub(super) fn is_unsaid(self) -> bool {
        self.0 & Self::UNSAID != 0
    }

    pub(super) fn unsaid(self) -> Self {
        Self(self.0 | Self::UNSAID)
    }
}
