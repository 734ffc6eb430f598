//! Background work that nobody waits for: telling the DHT what is held here.
//!
//! Owns: the announcing schedule. Refuses: sockets (it speaks to the network through [`crate::peer::Announce`]) and
//! sweeping the store by itself (collection is a verb that someone asks for). Survives a crash: nothing has to:
//! every start announces what the store holds.

mod announce;
mod used;

pub use announce::{Announcer, Options, Policy, Status};
pub use used::keep_used;
