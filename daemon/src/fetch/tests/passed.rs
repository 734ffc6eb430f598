//! Fetches into a file that the caller has passed.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::*;
use crate::fetch::Target;

async fn target(path: &Path) -> Target {
    let file = OpenOptions::new().write(true).create_new(true).open(path).unwrap();
    Target::take(file.into(), ()).await.unwrap()
}

/// Fetches; no byte may be told.
async fn fetch_into(node: &Node, id: ObjectId, from: &[&Node], into: Target) -> Result<Summary, Error> {
    let peers = from.iter().map(|node| node.address.clone()).collect();
    let request = Request { peers, order: Order::Any, into: Some(into), ..request(id) };
    let mut events = node.fetcher.fetch(request).events;
    loop {
        let event = tokio::time::timeout(Duration::from_secs(60), events.recv()).await;
        match event.expect("a fetch hangs").expect("no end")? {
            Event::Started { .. } | Event::Progress(_) => {}
            Event::Finished(summary) => return Ok(summary),
            Event::Data { .. } | Event::Zeros { .. } => panic!("told of bytes that were to be written"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_and_what_is_here_is_written_whole_when_it_is_said_to_be() {
    let web = Web::default();
    let (giver, taker) = (Node::new(&web, 1), Node::new(&web, 2));
    let folder = tempfile::tempdir().unwrap();
    for length in [0, 1, CHUNK, CHUNK + 1, 20 * CHUNK + 7, 40 * CHUNK] {
        let mut data = sample(length);
        if length > 4 * CHUNK {
            data[2 * CHUNK..3 * CHUNK].fill(0);
            data[length - CHUNK..].fill(0);
        }
        let id = giver.add(&data, Some(Geometry::DEFAULT)).await;
        let nobody: &[&Node] = &[];
        for (name, from) in [("fetched", [&giver].as_slice()), ("here", nobody)] {
            let path = folder.path().join(format!("{name} {length}"));
            let summary = fetch_into(&taker, id, from, target(&path).await).await.unwrap();
            assert_eq!((summary.size, summary.written), (length as u64, length as u64));
            assert!(std::fs::read(&path).unwrap() == data, "{name} {length}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_written_ends_the_fetch_and_nothing_else() {
    let web = Web::default();
    let node = Node::new(&web, 1);
    let data = sample(3 * CHUNK);
    let id = node.add(&data, None).await;
    // One that may not grow.
    let memory = memfd_create("target", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    fcntl_add_seals(&memory, SealFlags::GROW).unwrap();
    let again = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let file = OpenOptions::new().write(true).open(again).unwrap();
    let into = Target::take(file.into(), ()).await.unwrap();
    let error = fetch_into(&node, id, &[], into).await.unwrap_err();
    assert!(matches!(error, Error::Output(_)), "{error}");
    let (got, _) = node.fetch(id, &[], Order::InOrder).await.unwrap();
    assert!(got == data);
}
