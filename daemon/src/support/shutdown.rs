//! The signals that a daemon answers.
//!
//! Owns: SIGTERM and SIGINT (stop; the second one means at once) and SIGHUP (read the settings again).
//! Refuses: to decide how long stopping may take; whoever drains does. Survives a crash: nothing.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::task::Tasks;

/// What signals ask for.
#[derive(Debug)]
pub struct Signals {
    /// Cancelled at the first SIGTERM or SIGINT.
    pub stop: CancellationToken,
    /// One message when SIGHUP came since the last; several that come together are one.
    pub reload: mpsc::Receiver<()>,
}

impl Signals {
    /// Takes over the signals, from inside the runtime.
    ///
    /// The task that watches them is deliberately in no family that anyone drains: it must still hear the second
    /// signal while the rest is stopping. It ends with the runtime.
    ///
    /// # Errors
    /// The system refused a handler.
    pub fn listen() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let stop = CancellationToken::new();
        let (reload_tx, reload) = mpsc::channel(1);
        let tasks = Tasks::new();
        tasks.spawn("stop signals", watch_stop(terminate, interrupt, stop.clone()));
        tasks.spawn("reload signals", async move {
            while hangup.recv().await.is_some() {
                // Full means that a reload is already asked for and not begun: it will read the new file.
                if let Err(mpsc::error::TrySendError::Closed(())) = reload_tx.try_send(()) {
                    return;
                }
            }
        });
        Ok(Self { stop, reload })
    }
}

#[expect(clippy::disallowed_methods, reason = "the second signal asks for exactly this: no destructors, now")]
async fn watch_stop(mut terminate: Signal, mut interrupt: Signal, stop: CancellationToken) {
    loop {
        let (name, code) = tokio::select! {
            _ = terminate.recv() => ("SIGTERM", 143),
            _ = interrupt.recv() => ("SIGINT", 130),
        };
        if stop.is_cancelled() {
            tracing::warn!("{name} again: ending at once; what was acknowledged is on disk");
            std::process::exit(code);
        }
        tracing::info!("{name}: stopping; a second signal ends at once");
        stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    const CHILD: &str = "CASD_TEST_SHUTDOWN_CHILD";

    /// What the child does: it prints what it hears. Run by itself it does nothing.
    #[tokio::test]
    async fn child() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let mut signals = Signals::listen().unwrap();
        eprintln!("heard listening");
        signals.reload.recv().await.unwrap();
        eprintln!("heard reload");
        signals.stop.cancelled().await;
        eprintln!("heard stop");
        // As a drain that never ends; the parent's second signal ends it, and this bound if that is broken.
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    }

    fn start() -> (Child, impl Iterator<Item = String>) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "support::shutdown::tests::child", "--nocapture"])
            .env(CHILD, "1")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        (child, lines.filter_map(|line| line.strip_prefix("heard ").map(str::to_owned)))
    }

    #[test]
    fn hangup_reloads_the_first_signal_stops_and_the_second_ends() {
        for (first, second, code) in [(Signal::TERM, Signal::TERM, 143), (Signal::TERM, Signal::INT, 130)] {
            let (mut child, mut heard) = start();
            let send = |signal| kill_process(Pid::from_child(&child), signal).unwrap();
            assert_eq!(heard.next().as_deref(), Some("listening"));
            send(Signal::HUP);
            assert_eq!(heard.next().as_deref(), Some("reload"));
            send(first);
            assert_eq!(heard.next().as_deref(), Some("stop"));
            send(second);
            assert_eq!(child.wait().unwrap().code(), Some(code));
        }
    }
}
