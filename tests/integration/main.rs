//! casd and casctl as their users meet them: real programs, one machine, loopback or network namespaces only.
//!
//! Each test has daemons of its own in a folder of its own and a network of its own name, so all run side by side.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step that fails is a failed test"
)]

mod alone;
mod announcing;
mod api_add;
mod api_fetch;
mod bad_input;
mod bans;
mod chunk_port;
mod cli_local;
mod config_cli;
mod crowds;
mod damage;
mod directories;
mod forbidden;
mod full_disk;
mod jobs;
mod junk;
mod kademlia;
mod kills;
mod lan;
mod limits;
mod links;
mod made_up;
mod many_machines;
mod many_nodes;
mod misled;
mod modes;
mod noise;
mod passed;
mod publishing;
mod python;
mod ranges;
mod read_only;
mod routers;
mod scrub;
mod segment_files;
mod service;
mod shutdown;
mod state_folder;
mod syscalls;
mod two_users;
mod unreached;
