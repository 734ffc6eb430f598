//! For the store alone: all that is to be had comes, once, and what nobody has is named.

use std::sync::Arc;
use std::time::Instant;

use super::super::super::{Event, Inquiry, Progress};
use super::*;
use crate::content::ChunkId;
use crate::store::Lease;
use crate::support::unix_now;

impl Node {
    /// Brings a directory to the store. How far it was said to be last, and what came of it.
    async fn gather(
        &self,
        root: ObjectId,
        from: &[&Node],
        lease: &Arc<Lease>,
    ) -> (Progress, Result<Summary, Error>) {
        let inquiry = Inquiry::default();
        let mut fetching = self.fetcher.gather_tree(request(root, from), Arc::clone(lease), inquiry);
        let mut last = Progress::default();
        loop {
            let event = tokio::time::timeout(Duration::from_secs(60), fetching.events.recv()).await;
            match event.expect("a fetch hangs").expect("no end") {
                Ok(Event::Progress(progress)) => last = progress,
                Ok(Event::Finished(summary)) => return (last, Ok(summary)),
                Ok(Event::Started { .. }) => {}
                Ok(event) => panic!("bytes for nobody: {event:?}"),
                Err(error) => return (last, Err(error)),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_comes_to_the_store_alone() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    let folder: Folder = mixed().into_iter().chain(many(300, 2000)).collect();
    let root = giver.add_folder(&folder, TreeOptions::default()).await;
    let lease = Arc::new(taker.store.lease());
    let (progress, came) = taker.gather(root, &[&giver], &lease).await;
    let summary = came.unwrap();
    assert_eq!(progress.files, (8 + 300, 8 + 300), "distinct ones that have bytes");
    assert_eq!(taker.shown(), [root]);
    assert!(summary.local == 0 && summary.size == progress.bytes, "{summary:?} {progress:?}");
    assert!(Node::new(&web, 3).take(root, &[&taker]).await.unwrap().is(&folder));
    lease.give_back();
    assert_eq!(taker.store.usage().await.unwrap().promised, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_else_comes_at_once_and_stays_until_somebody_has_the_rest() {
    let web = Web::default();
    let (giver, third, taker) = (Node::new(&web, 1), Node::new(&web, 2), Node::new(&web, 3));
    let folder = many(250, 2000);
    let root = giver.add_folder(&folder, TreeOptions::default()).await;
    for seed in [100 + 3, 100 + 117] {
        giver.store.lose(&ChunkId::from_bytes(*blake3::hash(&bytes(seed, 2000)).as_bytes()));
    }
    let (lease, begun) = (Arc::new(taker.store.lease()), Instant::now());
    let error = taker.gather(root, &[&giver], &lease).await.1.unwrap_err();
    let Error::Lacking { id, missing } = &error else { panic!("{error}") };
    let mut missing: Vec<&str> = missing.split(", ").collect();
    missing.sort_unstable();
    assert_eq!((*id, missing.as_slice()), (root, ["d000/f00003", "d001/f00117"].as_slice()));
    assert!(begun.elapsed() < Duration::from_secs(15), "it waited: {:?}", begun.elapsed());
    assert!(taker.shown().is_empty());
    // It is no object yet, and nothing of it goes.
    let collected = taker.store.collect(unix_now() + 9 * 24 * 3600, false).await.unwrap();
    assert_eq!(collected.orphans, 0);
    let (a, b) = (third.put(bytes(103, 2000)).await, third.put(bytes(217, 2000)).await);
    let summary = taker.gather(root, &[&third, &giver], &lease).await.1.unwrap();
    assert_eq!(summary.peers.iter().map(|(_, bytes)| bytes).sum::<u64>(), a.1 + b.1);
    assert!(taker.is_whole(root));
}
