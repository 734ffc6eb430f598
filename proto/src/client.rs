//! A client that connects over the daemon's Unix socket.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use casd_proto::{client, v1};
//!
//! let channel = client::connect("/run/casd/casd.sock".as_ref()).await?;
//! let status = client::node(channel).status(v1::StatusRequest {}).await?.into_inner();
//! println!("{}", status.peer_id);
//! # Ok(()) }
//! ```

use std::io;
use std::path::Path;

use tonic::transport::{Channel, Endpoint, Uri};

use crate::v1::{
    jobs_client::JobsClient, network_client::NetworkClient, node_client::NodeClient,
    objects_client::ObjectsClient, trees_client::TreesClient,
};
use crate::{CONNECTION_WINDOW_BYTES, MAX_FRAME_BYTES, MAX_MESSAGE_BYTES, STREAM_WINDOW_BYTES};

/// Connects to the daemon that listens on the Unix socket at `path`. Clones of the channel share the
/// connection; it connects again by itself after the daemon has been restarted.
///
/// # Errors
/// What the operating system says: `NotFound` (nothing is there), `ConnectionRefused` (nobody listens),
/// `PermissionDenied`; `InvalidInput` for a path that no socket can have (not UTF-8, or over 107 bytes).
pub async fn connect(path: &Path) -> io::Result<Channel> {
    let text =
        path.to_str().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path is not UTF-8"))?;
    let endpoint = Endpoint::from_shared(format!("unix://{text}")).map_err(io::Error::other)?;
    endpoint
        .origin(Uri::from_static("http://localhost"))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .connect()
        .await
        .map_err(|error| io_cause(&error).unwrap_or_else(|| io::Error::other(error)))
}

/// The calls about objects.
#[must_use]
pub fn objects(channel: Channel) -> ObjectsClient<Channel> {
    ObjectsClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The calls about directories.
#[must_use]
pub fn trees(channel: Channel) -> TreesClient<Channel> {
    TreesClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The calls about jobs.
#[must_use]
pub fn jobs(channel: Channel) -> JobsClient<Channel> {
    JobsClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The calls about other nodes.
#[must_use]
pub fn network(channel: Channel) -> NetworkClient<Channel> {
    NetworkClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The calls about the node itself.
#[must_use]
pub fn node(channel: Channel) -> NodeClient<Channel> {
    NodeClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The operating system's error behind a transport error, so that a caller can tell its kinds apart.
fn io_cause(error: &tonic::transport::Error) -> Option<io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(error.kind(), error.to_string()),
            });
        }
        cause = error.source();
    }
    None
}
