//! The one place that starts threads: reading and writing files blocks, and must not hold up the connection or
//! the answer to Ctrl-C.

/// Runs `work` on a thread of its own, which ends with the process at the latest. Results travel through
/// channels that `work` holds; when their other end has gone, it ends. Few need to wait for that.
///
/// # Errors
/// When the system has no thread left.
pub(crate) fn start(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work)
}
