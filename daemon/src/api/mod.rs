//! The gRPC services on the Unix socket, and the socket beside it on which callers pass files: tonic and nothing else.
//!
//! Owns: the services of `casd.v1` over [`crate::node::Node`], conversions to messages, errors to statuses, and who
//! may do what. Refuses: messages and streams beyond the limits below, callers without the role that a call needs;
//! and to know how anything is done. Survives a crash: nothing; a call that was cut off left nothing behind but
//! what the node keeps.
//!
//! A call begins in `objects`, `trees`, `network`, `jobs` or `node`, whose first line says which [`Role`] it needs.

mod access;
mod add;
mod advice;
mod connections;
mod convert;
mod error;
mod fetch;
mod fetch_tree;
mod jobs;
mod limits;
mod network;
mod node;
mod objects;
mod passing;
mod shares;
mod status;
mod trees;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use casd_proto::v1::jobs_server::JobsServer;
use casd_proto::v1::network_server::NetworkServer;
use casd_proto::v1::node_server::NodeServer;
use casd_proto::v1::objects_server::ObjectsServer;
use casd_proto::v1::trees_server::TreesServer;
use casd_proto::{
    CONNECTION_WINDOW_BYTES, FILE_DESCRIPTOR_SET, MAX_FRAME_BYTES, MAX_MESSAGE_BYTES, STREAM_WINDOW_BYTES,
};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Server;

pub use access::{Access, Role};
pub use casd_proto::memory;
pub use casd_proto::passing::socket_beside;
pub use error::Error;

use crate::node::Node;
use passing::Passed;
use shares::{CALLS, Shares};

/// Calls at once on one connection; more wait in the client.
const MAX_STREAMS: u32 = 256;

/// Metadata of one call. casd reads none of it.
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// How often a connection without traffic is tried.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// How long the other end may leave that unanswered. Long: the kernel tells of clients that died, and one that was
/// suspended for a while is to find its call alive.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_mins(10);

/// How long a caller may leave an add without a message: whoever has gone to sleep gives up his place.
const SILENCE: Duration = Duration::from_mins(10);

/// Bytes of directories' lists that are in memory for callers who are being told of them, in KiB: eight of the largest.
const LISTS: usize = 1 << 20;

/// How long calls may go on after the daemon was told to stop; then they end with STOPPING.
const GRACE: Duration = Duration::from_millis(1500);

/// How long their statuses may take to get out. What is open then (a health watch, a suspended client) is dropped.
const FAREWELL: Duration = Duration::from_millis(500);

/// Serves the API on `listener` until `stop`, then lets calls end, for two seconds at most. On `files`, where there is
/// such a socket, callers pass files.
///
/// # Errors
/// [`Error`].
pub async fn serve(
    listener: UnixListener,
    files: Option<UnixListener>,
    node: Node,
    access: Access,
    stop: CancellationToken,
) -> Result<(), Error> {
    let ending = CancellationToken::new();
    let transfers = Shares::new(CALLS);
    let lists = Arc::new(Semaphore::new(LISTS));
    let passed = Passed::default();
    let desk = Desk { node, access, ending: ending.clone(), transfers, lists, passed: passed.clone() };
    let objects = ObjectsServer::new(objects::Service(desk.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let network = NetworkServer::new(network::Service(desk.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let trees = TreesServer::new(trees::Service(desk.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let jobs = JobsServer::new(jobs::Service(desk.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let node = NodeServer::new(node::Service(desk))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<ObjectsServer<objects::Service>>().await;
    reporter.set_serving::<TreesServer<trees::Service>>().await;
    reporter.set_serving::<NetworkServer<network::Service>>().await;
    reporter.set_serving::<JobsServer<jobs::Service>>().await;
    reporter.set_serving::<NodeServer<node::Service>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let server = builder()
        .add_service(objects)
        .add_service(trees)
        .add_service(network)
        .add_service(jobs)
        .add_service(node)
        .add_service(health)
        .add_service(reflection)
        .serve_with_incoming_shutdown(
            connections::incoming(listener, access),
            stop.clone().cancelled_owned(),
        );
    let end = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
        ending.cancel();
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        served = server => Ok(served?),
        () = passing::run(files, access, passed) => Ok(()),
        () = end => Ok(()),
    }
}

fn builder() -> Server {
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

/// See [`Desk::hear`].
async fn hear<T>(
    message: impl Future<Output = Result<Option<T>, Status>>,
    silence: Duration,
    ending: &CancellationToken,
) -> Result<Option<T>, Status> {
    tokio::select! {
        biased;
        message = message => message,
        () = ending.cancelled() => Err(status::stopping()),
        () = tokio::time::sleep(silence) => Err(status::silent(silence)),
    }
}

/// What a service answers with, message by message.
type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// What all calls work with. Cheap to clone.
#[derive(Clone)]
struct Desk {
    node: Node,
    access: Access,
    /// Cancelled when calls have had their time after the daemon was told to stop.
    ending: CancellationToken,
    /// The calls that carry objects' bytes, or lists of directories.
    transfers: Shares,
    /// Room for lists, in KiB.
    lists: Arc<Semaphore>,
    /// The files that callers have passed.
    passed: Passed,
}

impl Desk {
    /// The caller's next message.
    ///
    /// # Errors
    /// SILENT, STOPPING, and those of the connection.
    async fn hear<T>(
        &self,
        message: impl Future<Output = Result<Option<T>, Status>>,
    ) -> Result<Option<T>, Status> {
        let heard = hear(message, SILENCE, &self.ending).await;
        self.node.moved();
        heard
    }

    /// The answers up to their end or the daemon's, whichever is first. `held` lives as long as they do.
    fn until_end<T: Send + 'static>(
        &self,
        answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
        held: impl Send + 'static,
    ) -> Answers<T> {
        let (ending, node) = (self.ending.clone(), self.node.clone());
        let next = move |state: Option<(Answers<T>, _)>| {
            let (ending, node) = (ending.clone(), node.clone());
            async move {
                let (mut answers, held) = state?;
                tokio::select! {
                    biased;
                    answer = answers.next() => {
                        node.moved();
                        Some((answer?, Some((answers, held))))
                    }
                    () = ending.cancelled() => Some((Err(status::stopping()), None)),
                }
            }
        };
        stream::unfold(Some((answers.boxed(), held)), next).boxed()
    }
}
