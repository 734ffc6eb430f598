//! How many small files a second go from one node to another, and what that costs each.

use std::time::Instant;

use tokio::runtime::{Builder, Runtime};

use super::*;

/// Bytes of each file.
const LENGTH: usize = 4096;

/// A runtime whose threads are known by this name.
fn runtime(name: &str) -> Runtime {
    Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build().unwrap()
}

/// Seconds of processor that the threads of this name have used.
fn processor(name: &str) -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let is_named = |task: &std::path::PathBuf| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    // The first number is nanoseconds on a processor.
    let used = |task: std::path::PathBuf| {
        let stat = std::fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        stat.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0)
    };
    tasks.filter(is_named).map(used).sum::<f64>() / 1e9
}

/// `CASD_TREE_FILES=100000 cargo test -p casd --lib tree::tests::figure -- --nocapture` measures; see
/// `tests/README.md`.
#[test]
fn many_small_files() {
    let count = std::env::var("CASD_TREE_FILES").map_or(2000, |count| count.parse().unwrap());
    let (giving, taking) = (runtime("giver"), runtime("taker"));
    let web = Web::default();
    let giver = giving.block_on(async { Node::new(&web, 1) });
    let taker = taking.block_on(async { Node::new(&web, 2) });
    let folder = many(count, LENGTH);
    let began = Instant::now();
    let root = giving.block_on(giver.add_folder(&folder, TreeOptions::default()));
    let added = began.elapsed();
    drop(folder);
    let before = (processor("giver"), processor("taker"));
    let (took, entered, size) = taking.block_on(async {
        let began = Instant::now();
        let mut events = taker.begin(root, &[&giver]);
        let (mut bytes, mut given) = (0, began);
        loop {
            match next(&mut events).await.unwrap() {
                TreeEvent::Parts(parts) => {
                    let length = |part: &FetchedPart| match part {
                        FetchedPart::File { bytes, .. } => bytes.len() as u64,
                        _ => 0,
                    };
                    bytes += parts.iter().map(length).sum::<u64>();
                    given = Instant::now();
                }
                TreeEvent::Finished(_) => break (began.elapsed(), given.elapsed(), bytes),
                TreeEvent::Started(_) | TreeEvent::Progress(_) => {}
            }
        }
    });
    assert_eq!(size, (count * LENGTH) as u64);
    let (gave, took_up) = (processor("giver") - before.0, processor("taker") - before.1);
    println!(
        "{count} files of {LENGTH} bytes: added in {:.2} s; fetched in {:.2} s ({:.0} a second), of which entering \
         {:.2} s; processor: giver {gave:.2} s, taker {took_up:.2} s",
        added.as_secs_f64(),
        took.as_secs_f64(),
        count as f64 / took.as_secs_f64(),
        entered.as_secs_f64(),
    );
    for (runtime, node) in [(giving, giver), (taking, taker)] {
        runtime.block_on(async { drop(node) });
        runtime.shutdown_background();
    }
}
