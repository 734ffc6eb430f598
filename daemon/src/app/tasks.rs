//! The tasks that join one room's output to another's input.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use crate::config::Config;
use crate::fetch::Notice;
use crate::peer::{Conduct, Conn, PeerAddr};
use crate::serve::Serve;
use crate::session;
use crate::store::Store;
use crate::support::file;
use crate::support::pool::Pool;
use crate::support::task::Tasks;
use crate::upkeep::{Announcer, Scrubber};
use crate::wire::Listener;

/// Damage that follows other damage within this time is summed up in one line.
const QUIET: Duration = Duration::from_secs(30);

/// How often strikes and scores are written down; bans are at once.
const KEEP: Duration = Duration::from_mins(5);

/// Runs a giver for each peer that connects.
pub(super) fn accept(
    mut listener: Listener,
    options: session::Options,
    (serve, conduct): (Arc<Serve>, Conduct),
    tasks: &Tasks,
) {
    let family = tasks.clone();
    tasks.spawn("chunk port", async move {
        while let Some(conn) = listener.accept().await {
            give(conn, options.clone(), (Arc::clone(&serve), conduct.clone()), &family);
        }
    });
}

/// Runs a giver for each stream that a peer opens on the DHT plane.
pub(super) fn accept_streams(
    mut streams: mpsc::Receiver<Conn>,
    options: session::Options,
    (serve, conduct): (Arc<Serve>, Conduct),
    tasks: &Tasks,
) {
    let (family, stop) = (tasks.clone(), tasks.token());
    tasks.spawn("streams", async move {
        while let Some(Some(conn)) = stop.run_until_cancelled(streams.recv()).await {
            give(conn, options.clone(), (Arc::clone(&serve), conduct.clone()), &family);
        }
    });
}

fn give(conn: Conn, options: session::Options, (serve, conduct): (Arc<Serve>, Conduct), tasks: &Tasks) {
    let inner = tasks.clone();
    tasks.spawn("session giver", async move {
        let (peer, at) = (conn.peer, conn.remote);
        let _visit = serve.visitors().enter(peer, at);
        match session::give(conn, &options, serve, &inner).await {
            Ok(summary) => tracing::debug!(%peer, sent = summary.sent, "a session ended"),
            Err(error) => {
                tracing::debug!(%peer, %error, "a session broke");
                if error.is_strike() {
                    conduct.strike(peer, at, "it breaks the chunk protocol", SystemTime::now());
                }
            }
        }
    });
}

/// How peers behaved, as it was written down, and will be: soon after a ban, now and then, and at the end.
pub(super) async fn conduct(config: &Config, tasks: &Tasks) -> Conduct {
    let configured = config.network.bootstrap.iter().filter_map(|at| PeerAddr::try_from(at.clone()).ok());
    let conduct = Conduct::new(configured.map(|at| at.peer));
    let (path, disk) = (config.node.state_dir.join("cache/conduct"), Pool::new(1));
    let (kept, from) = (conduct.clone(), path.clone());
    disk.run(move || match file::read(&from, Conduct::MAX_SAVED).and_then(|bytes| kept.restore(&bytes)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, file = %from.display(), "how peers behaved cannot be read; going on without");
        }
        _ => {}
    })
    .await;
    let (kept, stop, mut bans) = (conduct.clone(), tasks.token(), conduct.changes());
    tasks.spawn("conduct", async move {
        let mut is_going_on = true;
        while is_going_on {
            is_going_on = tokio::select! {
                () = stop.cancelled() => false,
                () = tokio::time::sleep(KEEP) => true,
                changed = bans.changed() => changed.is_ok(),
            };
            let Some(bytes) = kept.save() else { continue };
            let to = path.clone();
            if let Err(error) = disk.run(move || file::replace(&to, &bytes)).await {
                tracing::warn!(%error, file = %path.display(), "how peers behaved cannot be written down");
            }
        }
    });
    conduct
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
