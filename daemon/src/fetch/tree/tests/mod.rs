//! Directories between real stores over real sessions.

mod figure;
mod gather;
mod honest;
mod hostile;
mod reader;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::super::tests::{Node, Web, sample};
use super::super::{Error, Options, Summary};
use super::{FetchedPart, TreeEvent, TreeRequest, TreeStarted};
use crate::content::{self, CHUNK, Chunk, Entry, ObjectId, Place, TreeBuilder};
use crate::ingest::{TreeOptions, TreePart};
use crate::store::{self, Item, NewObject, State};

/// What a directory has, by path. Directories are made of what is in them; an empty one is said to be there.
type Folder = BTreeMap<&'static str, Kind>;

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    File(Vec<u8>),
    Executable(Vec<u8>),
    Link(&'static str),
    Empty,
}

use Kind::{Empty, Executable, File, Link};

impl Node {
    /// Adds a directory.
    async fn add_folder(&self, folder: &Folder, options: TreeOptions) -> ObjectId {
        let mut adding = self.ingest.begin_tree(options);
        let mut parts = Vec::new();
        let mut around: Vec<&str> = Vec::new();
        let mut entries = 0;
        for (path, kind) in folder {
            let mut names: Vec<&str> = path.split('/').collect();
            let last = if *kind == Empty { None } else { names.pop() };
            let same = around.iter().zip(&names).take_while(|(a, b)| a == b).count();
            for _ in same..around.len() {
                parts.push(TreePart::Leave);
            }
            for name in &names[same..] {
                parts.push(TreePart::Enter((*name).to_owned()));
                entries += 1;
            }
            around = names;
            let Some(name) = last.map(str::to_owned) else { continue };
            entries += 1;
            match kind {
                File(bytes) | Executable(bytes) if bytes.len() > CHUNK => {
                    parts.push(TreePart::Start(name, *kind == Executable(bytes.clone()), None));
                    parts
                        .extend(bytes.chunks(CHUNK).map(|data| TreePart::Data(Bytes::copy_from_slice(data))));
                    parts.push(TreePart::End(bytes.len() as u64));
                }
                File(bytes) => parts.push(TreePart::File(name, false, bytes.clone().into())),
                Executable(bytes) => parts.push(TreePart::File(name, true, bytes.clone().into())),
                Link(target) => parts.push(TreePart::Link(name, (*target).to_owned())),
                Empty => {}
            }
        }
        around.iter().for_each(|_| parts.push(TreePart::Leave));
        adding.take(parts).await.unwrap();
        adding.finish(entries).await.unwrap().id.unwrap()
    }

    /// Stores bytes as an object, whatever they are.
    async fn put(&self, bytes: impl Into<Bytes>) -> (ObjectId, u64) {
        let chunk = Chunk::compute(Place::Root, bytes.into()).unwrap();
        let (id, length) = (chunk.id().whole_object(Place::Root).unwrap(), chunk.bytes().len() as u64);
        let lease = self.store.lease();
        lease.put(Item::Chunk(chunk)).await.unwrap();
        lease.commit(NewObject::new(id, length, 1)).await.unwrap();
        (id, length)
    }

    fn begin(&self, root: ObjectId, from: &[&Node]) -> mpsc::Receiver<Result<TreeEvent, Error>> {
        self.fetcher.fetch_tree(request(root, from)).events
    }

    async fn take(&self, root: ObjectId, from: &[&Node]) -> Result<Got, Error> {
        collect(self.begin(root, from)).await
    }

    async fn take_path(&self, root: ObjectId, path: &[&str], from: &[&Node]) -> Result<Got, Error> {
        let path = path.iter().map(|name| (*name).to_owned()).collect();
        collect(self.fetcher.fetch_tree(TreeRequest { path, ..request(root, from) }).events).await
    }

    fn is_whole(&self, id: ObjectId) -> bool {
        self.store.object(&id).is_some_and(|info| info.state == State::Whole)
    }

    /// What is listed: whole objects that did not come as a part.
    fn shown(&self) -> Vec<ObjectId> {
        let all = self.store.objects(None, 10_000);
        all.into_iter().filter(|info| !info.part).map(|info| info.id).collect()
    }
}

fn request(root: ObjectId, from: &[&Node]) -> TreeRequest {
    TreeRequest {
        root,
        path: Vec::new(),
        peers: from.iter().map(|node| node.address.clone()).collect(),
        pin: None,
        name: None,
        stall: Duration::from_secs(20),
        range: None,
    }
}

/// What came of a directory.
struct Got {
    started: TreeStarted,
    /// By path, in the order in which they came; directories end in a slash.
    entries: Vec<(String, Kind)>,
    summary: Summary,
}

impl Got {
    /// What came, as it was added.
    fn is(&self, folder: &Folder) -> bool {
        let wanted: BTreeMap<String, Kind> = folder
            .iter()
            .filter(|(_, kind)| **kind != Empty)
            .map(|(path, kind)| ((*path).to_owned(), kind.clone()))
            .collect();
        let got = self.entries.iter().filter(|(path, _)| !path.ends_with('/')).cloned();
        wanted == got.collect()
    }

    fn received(&self) -> u64 {
        self.summary.peers.iter().map(|(_, bytes)| bytes).sum()
    }
}

async fn next(events: &mut mpsc::Receiver<Result<TreeEvent, Error>>) -> Result<TreeEvent, Error> {
    let event = tokio::time::timeout(Duration::from_secs(60), events.recv()).await;
    event.expect("a fetch hangs").expect("no end")
}

/// Takes all of a directory and checks that it comes in the order of a walk.
async fn collect(mut events: mpsc::Receiver<Result<TreeEvent, Error>>) -> Result<Got, Error> {
    let TreeEvent::Started(started) = next(&mut events).await? else { panic!("not started") };
    collect_rest(started, events).await
}

/// As [`collect`], of one that has started.
async fn collect_rest(
    started: TreeStarted,
    mut events: mpsc::Receiver<Result<TreeEvent, Error>>,
) -> Result<Got, Error> {
    let mut taking = Taking::default();
    loop {
        match next(&mut events).await? {
            TreeEvent::Parts(parts) => {
                assert!(!parts.is_empty() && parts.len() <= 1024);
                let bytes = |part: &FetchedPart| match part {
                    FetchedPart::File { bytes, .. } | FetchedPart::Data(bytes) => bytes.len(),
                    _ => 0,
                };
                assert!(parts.iter().map(bytes).sum::<usize>() <= CHUNK);
                parts.into_iter().for_each(|part| taking.take(part));
            }
            TreeEvent::Progress(_) => {}
            TreeEvent::Finished(summary) => {
                assert!(taking.around.is_empty() && taking.open.is_none());
                return Ok(Got { started, entries: taking.entries, summary });
            }
            TreeEvent::Started(_) => panic!("started twice"),
        }
    }
}

/// A walk, as far as it has come.
#[derive(Default)]
struct Taking {
    around: Vec<String>,
    /// The last name in each directory around.
    last: Vec<String>,
    /// The long file whose bytes come.
    open: Option<(String, bool, u64, Vec<u8>)>,
    entries: Vec<(String, Kind)>,
}

impl Taking {
    fn take(&mut self, part: FetchedPart) {
        let inside = matches!(part, FetchedPart::Data(_) | FetchedPart::Zeros(_) | FetchedPart::End { .. });
        assert_eq!(inside, self.open.is_some(), "{part:?}");
        match part {
            FetchedPart::Enter { name } => {
                let path = self.path(&name);
                self.entries.push((format!("{path}/"), Empty));
                self.around.push(name);
            }
            FetchedPart::Leave => {
                self.last.truncate(self.around.len());
                self.around.pop().expect("left more often than entered");
            }
            FetchedPart::File { name, executable, bytes } => {
                assert!(bytes.len() <= CHUNK);
                self.file(&name, executable, bytes.to_vec());
            }
            FetchedPart::Start { name, executable, length } => {
                assert!(length > CHUNK as u64);
                self.open = Some((name, executable, length, Vec::new()));
            }
            FetchedPart::Data(bytes) => self.open.as_mut().unwrap().3.extend_from_slice(&bytes),
            FetchedPart::Zeros(count) => {
                let bytes = &mut self.open.as_mut().unwrap().3;
                bytes.resize(bytes.len() + count as usize, 0);
            }
            FetchedPart::End { length } => {
                let (name, executable, said, bytes) = self.open.take().unwrap();
                assert_eq!((length, said), (bytes.len() as u64, length));
                self.file(&name, executable, bytes);
            }
            FetchedPart::Link { name, target } => {
                let path = self.path(&name);
                self.entries.push((path, Link(Box::leak(target.into_boxed_str()))));
            }
        }
    }

    fn file(&mut self, name: &str, executable: bool, bytes: Vec<u8>) {
        let path = self.path(name);
        self.entries.push((path, if executable { Executable(bytes) } else { File(bytes) }));
    }

    /// The path of an entry, which must come behind the last one of its directory.
    fn path(&mut self, name: &str) -> String {
        let depth = self.around.len();
        self.last.truncate(depth + 1);
        assert!(self.last.get(depth).is_none_or(|last| last.as_str() < name), "{name} is out of order");
        self.last.truncate(depth);
        self.last.resize(depth + 1, String::new());
        self.last[depth] = name.to_owned();
        [self.around.clone(), vec![name.to_owned()]].concat().join("/")
    }
}

/// Bytes that differ by seed.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A directory with all there can be in it.
fn mixed() -> Folder {
    let mut long = sample(3 * CHUNK + 17);
    long[CHUNK..2 * CHUNK].fill(0);
    let folder = [
        ("a/b/c/deep", File(bytes(1, 300))),
        ("a/b/empty", Empty),
        ("a/b.txt", File(bytes(2, 5000))),
        ("a/same", File(bytes(1, 300))),
        ("a-run", Executable(bytes(3, 70_000))),
        ("empty", File(Vec::new())),
        ("full", File(bytes(4, CHUNK))),
        ("link", Link("../else/where")),
        ("long", File(long)),
        ("longer", Executable(sample(2 * CHUNK))),
        ("same", File(bytes(1, 300))),
        ("same-but-run", Executable(bytes(1, 300))),
        ("zeros", File(vec![0; 9000])),
        ("é", File(bytes(5, 1))),
    ];
    folder.into_iter().collect()
}

/// A directory of so many small files.
fn many(count: usize, length: usize) -> Folder {
    let path = |number: usize| -> &'static str {
        Box::leak(format!("d{:03}/f{number:05}", number / 100).into_boxed_str())
    };
    (0..count).map(|number| (path(number), File(bytes(number as u64 + 100, length)))).collect()
}
