//! The tasks that join one room's output to another's input.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::fetch::Notice;
use crate::peer::Conn;
use crate::serve::Serve;
use crate::session;
use crate::store::Store;
use crate::support::task::Tasks;
use crate::upkeep::{Announcer, Scrubber};
use crate::wire::Listener;

/// Damage that follows other damage within this time is summed up in one line.
const QUIET: Duration = Duration::from_secs(30);

/// Runs a giver for each peer that connects.
pub(super) fn accept(mut listener: Listener, options: session::Options, serve: Arc<Serve>, tasks: &Tasks) {
    let family = tasks.clone();
    tasks.spawn("chunk port", async move {
        while let Some(conn) = listener.accept().await {
            give(conn, options.clone(), Arc::clone(&serve), &family);
        }
    });
}

/// Runs a giver for each stream that a peer opens on the DHT plane.
pub(super) fn accept_streams(
    mut streams: mpsc::Receiver<Conn>,
    options: session::Options,
    serve: Arc<Serve>,
    tasks: &Tasks,
) {
    let (family, stop) = (tasks.clone(), tasks.token());
    tasks.spawn("streams", async move {
        while let Some(Some(conn)) = stop.run_until_cancelled(streams.recv()).await {
            give(conn, options.clone(), Arc::clone(&serve), &family);
        }
    });
}

fn give(conn: Conn, options: session::Options, serve: Arc<Serve>, tasks: &Tasks) {
    let inner = tasks.clone();
    tasks.spawn("session giver", async move {
        let peer = conn.peer;
        let _visit = serve.visitors().enter(peer);
        match session::give(conn, &options, serve, &inner).await {
            Ok(summary) => tracing::debug!(%peer, sent = summary.sent, "a session ended"),
            Err(error) => tracing::debug!(%peer, %error, "a session broke"),
        }
    });
}

/// Hands what fetches bring to the announcing schedule.
pub(super) fn announce_fetched(mut held: mpsc::Receiver<Notice>, announcer: Announcer, tasks: &Tasks) {
    let stop = tasks.token();
    tasks.spawn("fetched", async move {
        while let Some(Some(notice)) = stop.run_until_cancelled(held.recv()).await {
            match notice {
                Notice::Holds(id) => announcer.hold([id]),
                Notice::HoldsAll(ids) => announcer.hold(ids),
            }
        }
    });
}

/// Logs damaged records, the first at once, then how many more there were, and has them mended.
pub(super) fn report_damage(store: &Store, scrubber: Scrubber, tasks: &Tasks) {
    let Some(mut damage) = store.take_damage() else { return };
    let stop = tasks.token();
    tasks.spawn("damage", async move {
        while let Some(Some(first)) = stop.run_until_cancelled(damage.recv()).await {
            tracing::error!(
                id = hex::encode(first.id),
                segment = first.segment,
                offset = first.offset,
                "a record on disk is damaged and is not served; what needs it is fetched or rebuilt again"
            );
            scrubber.found(&first);
            let (quiet, mut more) = (tokio::time::Instant::now() + QUIET, 0);
            while let Ok(Some(Some(next))) =
                tokio::time::timeout_at(quiet, stop.run_until_cancelled(damage.recv())).await
            {
                scrubber.found(&next);
                more += 1;
            }
            if more > 0 {
                tracing::error!(more, "more records on disk are damaged");
            }
        }
    });
}
