//! Not built yet.
#[derive(Debug, thiserror::Error)]
#[error("x")]
/// x
pub struct Error;
/// x
pub struct Access;
impl Access {
    /// x
    pub fn new(_: u32) -> Self {
        Self
    }
}
/// x
pub async fn serve(
    _: tokio::net::UnixListener,
    _: crate::node::Node,
    _: Access,
    _: tokio_util::sync::CancellationToken,
) -> Result<(), Error> {
    Ok(())
}
