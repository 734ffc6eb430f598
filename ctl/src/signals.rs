//! Ctrl-C and SIGTERM.

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Exit, Failure};

/// Completes when casctl is told to stop, with how it is to end.
pub(crate) async fn interrupted() -> Failure {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers a signal ends the process as it always does.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => Failure::local(Exit::Interrupted, "INTERRUPTED", "interrupted"),
        _ = terminate.recv() => Failure::local(Exit::Terminated, "INTERRUPTED", "terminated"),
    }
}
