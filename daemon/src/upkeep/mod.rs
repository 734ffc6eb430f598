//! Background work that nobody waits for: telling the DHT what is held here, and proving what is on disk.
//!
//! Owns: what is announced; the scrub, and mending what it finds. Refuses: sockets (it speaks to the network
//! through [`crate::peer::Announce`] and [`crate::fetch`]) and sweeping the store by itself (collection is a verb
//! that someone asks for). Survives a crash: how far the scrub is. Every start announces what the store holds.

mod announce;
mod mend;
mod rebuild;
mod run;
mod scrub;
mod used;

pub use announce::{Announcer, Options, Policy};
pub use mend::Mender;
pub use rebuild::Rebuilder;
pub use run::{Broken, Tally};
pub use scrub::{Event as VerifyEvent, Options as ScrubOptions, Scrubber, Status as ScrubStatus};
pub use used::keep_used;
