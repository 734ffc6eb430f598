//! The planner over a virtual network, drawn from a seed.
//!
//! # The fault model
//!
//! One fetcher and up to a dozen hosts. A host answers requests one after the other at its own rate (1 Mbit/s to
//! 1 Gbit/s) over a path with its own delay (0.1 to 150 ms each way); the fetcher's downlink may be narrower
//! than all hosts together. Frames between the two are never lost or reordered (TCP); cancellations cross
//! answers. Twice a second the planner is told what is on its way. Besides, a host may
//!
//! - be held up by lost packets, begin as slowly as a new connection does, become slow (down to 8 KiB a second) or
//!   fast;
//! - hold a part of the data, tell of it bit by bit, or tell nothing (found by a chunk key);
//! - claim chunks that it lacks, and answer "not found" (with parity, everyone may lack it);
//! - join late, when peers are asked for, or when a chunk that it holds is looked up; leave without a word,
//!   with all that is outstanding;
//! - lie: answer with bytes of another hash, upon which the caller drops it for good;
//! - stall: from some time on take requests and never answer, and never leave;
//! - be busy, or fail a request, with a probability of up to a third.
//!
//! Chunks may be lost everywhere; parity may be unknown, known from the start, become known later, lie in the local
//! store, or be false at first (every rebuild fails until a true part becomes known). Stored chunks may turn
//! out to be damaged, others appear from elsewhere. A reader may be slow or jump back.
//!
//! Why all of it must end well: a *reliable* host (which neither lies, stalls nor leaves) answers every request for
//! what it holds within a bounded number of tries. So whatever reliable hosts hold between them must arrive,
//! directly or by parity, whatever the others do; and a fetch that goes silent may lack nothing but what
//! reliable hosts cannot give. [`check`] holds every step and every end against that.
//!
//! # A crowd
//!
//! That is one fetcher; in [`crowd`] there are many, each with a planner, who feed each other beside one holder.
//!
//! # Replaying
//!
//! A failure prints its seed. `CASD_SIM_SEED=N cargo test -p casd sim:: -- --nocapture` runs only that network
//! and prints every event and action.
//!
//! [`scenarios`] has the networks that a bound is promised for, by name.

mod check;
mod crowd;
mod network;
mod optimum;
mod scenarios;
mod seeds;
mod world;

pub(super) use network::{Entry, Host, Network, PartTruth};
pub(super) use world::{Outcome, World};
