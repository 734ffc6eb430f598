//! The `casd.v1` gRPC API: its messages and services, the reasons of its errors, and a client that connects
//! over the daemon's Unix socket.
//!
//! Owns: what both sides must agree on, and nothing else. The proto files beside this crate are the source;
//! their comments say what each field means and which errors each rpc gives. `README.md` has the versioning
//! rule, the table of errors and how to connect from other languages.

pub mod client;
pub mod memory;
pub mod passing;
mod reason;

pub use prost::bytes::{Bytes, BytesMut};
pub use reason::{Failure, Reason};

/// What is generated from `casd/v1/*.proto`: messages, clients and servers.
#[allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::too_many_lines,
    reason = "generated; the proto files have the documentation"
)]
pub mod v1 {
    tonic::include_proto!("casd.v1");
}

/// The encoded `google.protobuf.FileDescriptorSet` of the proto files, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("casd.v1");

/// The most payload that one message carries: 1 MiB, a chunk.
pub const MAX_DATA_BYTES: usize = 1 << 20;

/// The most small objects that one `AddManyRequest` carries, and parts that one message of a tree does.
pub const MAX_BATCH: usize = 1024;

/// The longest message, either way: twice [`MAX_DATA_BYTES`], so that names and framing always fit beside a
/// full payload.
pub const MAX_MESSAGE_BYTES: usize = 2 * MAX_DATA_BYTES;

/// The longest HTTP/2 frame, either way. Those of the default size (16 KiB) cost a third of the throughput; longer
/// ones cost memory, and a second copy of each message.
pub const MAX_FRAME_BYTES: u32 = 128 << 10;

/// What may be under way unread on one stream, either way: four payloads keep both ends busy.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// What may be under way unread on one connection, either way: four busy streams.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
