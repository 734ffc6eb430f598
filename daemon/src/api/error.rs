//! Why the API could not be served.

/// What ended the API. Errors of single calls are statuses, not these.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server could not run.
    #[error("the API cannot be served: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The descriptors that were built in cannot be read.
    #[error("the API cannot describe itself: {0}; this is a bug in casd")]
    Descriptors(#[from] tonic_reflection::server::Error),
}
