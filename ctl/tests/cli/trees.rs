//! The scripted daemon's side of directories, and directories as a test sees them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};

use casd_proto::v1::tree_part::Part;
use casd_proto::v1::trees_server::Trees;
use casd_proto::v1::*;
use casd_proto::{Bytes, MAX_BATCH, MAX_DATA_BYTES, Reason};
use futures::{StreamExt, stream};
use tonic::{Request, Response, Status, Streaming};

use crate::daemon::{self, Answers, ID};

/// What it does about directories, and has seen.
#[derive(Default)]
pub(crate) struct Script {
    /// What a fetch sends.
    pub(crate) fetch: Mutex<Vec<Result<FetchTreeResponse, Reason>>>,
    /// What a fetch was asked for.
    pub(crate) fetched: Mutex<Vec<FetchTreeRequest>>,
    /// Refuse an add after its first message with parts.
    pub(crate) refuse_add: Option<Reason>,
    /// Answer the files of an add, and then this.
    pub(crate) fail_add: Option<Reason>,
    /// Each add that came to its end.
    pub(crate) added: Mutex<Vec<Added>>,
    /// What a directory has in it.
    pub(crate) entries: Vec<ListedEntry>,
    /// What was asked for in lists.
    pub(crate) listed: Mutex<Vec<String>>,
}

/// What an add brought.
#[derive(Clone, Debug)]
pub(crate) struct Added {
    pub(crate) start: AddTreeStart,
    pub(crate) tree: Tree,
    /// Whether its finish came, with the right count.
    pub(crate) finished: bool,
    /// How many messages there were.
    pub(crate) messages: usize,
}

/// A directory: what is at each path in it.
pub(crate) type Tree = BTreeMap<String, Node>;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    File(Vec<u8>, bool),
    Directory,
    Link(String),
}

pub(crate) struct Scripted(pub(crate) Arc<daemon::Script>);

#[tonic::async_trait]
impl Trees for Scripted {
    type AddStream = Answers<AddTreeResponse>;
    type FetchStream = Answers<FetchTreeResponse>;
    type ListStream = Answers<ListTreeResponse>;

    async fn add(
        &self,
        request: Request<Streaming<AddTreeRequest>>,
    ) -> Result<Response<Self::AddStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.unwrap();
        let start = first.start.expect("the first message says how");
        let (mut reader, mut messages) = (Reader::default(), 0);
        while let Some(request) = requests.message().await? {
            assert!(request.start.is_none() && !request.parts.is_empty());
            let bytes: usize = request.parts.iter().map(bytes_of).sum();
            assert!(request.parts.len() <= MAX_BATCH && bytes <= MAX_DATA_BYTES);
            messages += 1;
            request.parts.into_iter().for_each(|part| reader.take(part));
            if let Some(reason) = self.0.trees.refuse_add {
                return Err(reason.status("refused", "hint"));
            }
        }
        let added = Added { start, finished: reader.finished, tree: reader.tree.clone(), messages };
        self.0.trees.added.lock().unwrap().push(added.clone());
        if !reader.finished {
            return Err(Reason::NoFinish.status("no finish", ""));
        }
        let is = |is: fn(&Node) -> bool| added.tree.values().filter(|node| is(node)).count() as u64;
        let tree = AddedTree {
            id: ID.into(),
            size: reader.files.iter().map(|(_, size)| size).sum(),
            files: is(|node| matches!(node, Node::File(..))),
            directories: is(|node| matches!(node, Node::Directory)),
            links: is(|node| matches!(node, Node::Link(_))),
            created: true,
            announced: None,
        };
        let files = reader.files.iter().enumerate().map(|(number, (_, size))| AddedObject {
            id: format!("{number:064x}"),
            size: *size,
            created: true,
            announced: None,
        });
        let files: Vec<_> = if added.start.each { files.collect() } else { Vec::new() };
        let mut answers: Vec<_> =
            files.chunks(3).map(|files| Ok(AddTreeResponse { files: files.to_vec(), tree: None })).collect();
        answers.push(match self.0.trees.fail_add {
            Some(reason) => Err(reason.status("failed", "")),
            None => Ok(AddTreeResponse { files: Vec::new(), tree: Some(tree) }),
        });
        Ok(Response::new(Box::pin(stream::iter(answers))))
    }

    async fn fetch(&self, request: Request<FetchTreeRequest>) -> Result<Response<Self::FetchStream>, Status> {
        self.0.trees.fetched.lock().unwrap().push(request.into_inner());
        let events = std::mem::take(&mut *self.0.trees.fetch.lock().unwrap());
        let events = stream::iter(events).map(|event| match event {
            Ok(event) => Ok(event),
            Err(reason) => Err(reason.status("no more of it", "try later")),
        });
        Ok(Response::new(if self.0.hang {
            Box::pin(events.chain(stream::pending()))
        } else {
            Box::pin(events)
        }))
    }

    async fn list(&self, request: Request<ListTreeRequest>) -> Result<Response<Self::ListStream>, Status> {
        self.0.trees.listed.lock().unwrap().push(request.into_inner().object);
        let entries = self.0.trees.entries.clone();
        Ok(Response::new(Box::pin(stream::iter([Ok(ListTreeResponse { entries })]))))
    }
}

/// Puts together what parts say.
#[derive(Default)]
struct Reader {
    tree: Tree,
    /// Every file's path and length, in the order in which they came.
    files: Vec<(String, u64)>,
    /// The names of the directories that are open.
    open: Vec<String>,
    /// The file that is open, and how long it was said to be.
    file: Option<(String, Vec<u8>, bool, Option<u64>)>,
    finished: bool,
}

impl Reader {
    fn take(&mut self, part: TreePart) {
        assert!(!self.finished, "nothing follows the finish");
        match part.part.unwrap() {
            Part::Enter(enter) => {
                self.put(&enter.name, Node::Directory);
                self.open.push(enter.name);
            }
            Part::Leave(_) => drop(self.open.pop().unwrap()),
            Part::File(file) => self.put(&file.name, Node::File(file.data.to_vec(), file.executable)),
            Part::Start(start) => {
                assert!(self.file.is_none());
                self.file = Some((start.name, Vec::new(), start.executable, start.length));
            }
            Part::Data(data) => self.file.as_mut().unwrap().1.extend_from_slice(&data.data),
            Part::End(end) => {
                let (name, bytes, executable, length) = self.file.take().unwrap();
                assert_eq!((end.length, length), (bytes.len() as u64, Some(bytes.len() as u64)));
                self.put(&name, Node::File(bytes, executable));
            }
            Part::Link(link) => self.put(&link.name, Node::Link(link.target)),
            Part::Finish(finish) => {
                assert!(self.open.is_empty() && self.file.is_none());
                self.finished = finish.entries == self.tree.len() as u64;
            }
        }
    }

    fn put(&mut self, name: &str, node: Node) {
        assert!(self.file.is_none());
        let path = self.open.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join("/");
        if let Node::File(bytes, _) = &node {
            self.files.push((path.clone(), bytes.len() as u64));
        }
        assert_eq!(self.tree.insert(path, node), None, "one of each name");
    }
}

fn bytes_of(part: &TreePart) -> usize {
    match &part.part {
        Some(Part::File(file)) => file.data.len(),
        Some(Part::Data(data)) => data.data.len(),
        _ => 0,
    }
}

// === Parts ===

fn part(part: Part) -> TreePart {
    TreePart { part: Some(part) }
}

pub(crate) fn enter(name: &str) -> TreePart {
    part(Part::Enter(TreeEnter { name: name.into() }))
}

pub(crate) fn leave() -> TreePart {
    part(Part::Leave(TreeLeave {}))
}

pub(crate) fn file(name: &str, data: &[u8]) -> TreePart {
    part(Part::File(TreeFile { name: name.into(), executable: false, data: Bytes::copy_from_slice(data) }))
}

pub(crate) fn program(name: &str, data: &[u8]) -> TreePart {
    part(Part::File(TreeFile { name: name.into(), executable: true, data: Bytes::copy_from_slice(data) }))
}

pub(crate) fn begin(name: &str, length: Option<u64>) -> TreePart {
    part(Part::Start(TreeStart { name: name.into(), executable: false, length }))
}

pub(crate) fn bytes(data: &[u8]) -> TreePart {
    part(Part::Data(TreeData { data: Bytes::copy_from_slice(data), zeros: 0 }))
}

pub(crate) fn zeros(zeros: u64) -> TreePart {
    part(Part::Data(TreeData { data: Bytes::new(), zeros }))
}

pub(crate) fn end(length: u64) -> TreePart {
    part(Part::End(TreeEnd { length }))
}

pub(crate) fn link(name: &str, target: &str) -> TreePart {
    part(Part::Link(TreeLink { name: name.into(), target: target.into() }))
}

// === Fetches ===

pub(crate) type Event = Result<FetchTreeResponse, Reason>;

/// The start of a fetch of a directory.
pub(crate) fn started(name: &str, size: u64, entries: u64) -> Event {
    let kind = ObjectKind::Directory.into();
    let started = TreeStarted { id: ID.into(), kind, name: name.into(), size, entries };
    Ok(FetchTreeResponse { started: Some(started), ..Default::default() })
}

pub(crate) fn parts(parts: &[TreePart]) -> Event {
    Ok(FetchTreeResponse { parts: parts.to_vec(), ..Default::default() })
}

pub(crate) fn finished(size: u64) -> Event {
    let peers = [("12D3Koo".to_owned(), size)].into();
    let finished = FetchFinished { size, seconds: 0.25, local_bytes: 0, peers, written_bytes: 0 };
    Ok(FetchTreeResponse { finished: Some(finished), ..Default::default() })
}

/// A whole fetch that says of itself what is true.
pub(crate) fn honest(name: &str, all: &[TreePart]) -> Vec<Event> {
    let size = all.iter().map(|part| match &part.part {
        Some(Part::Data(data)) => data.data.len() as u64 + data.zeros,
        _ => bytes_of(part) as u64,
    });
    let (size, entries) = (size.sum(), all.iter().filter(|part| is_entry(part)).count() as u64);
    let mut events = vec![started(name, size, entries)];
    // In messages of several parts, none of them too long.
    let mut rest = all;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fit = rest.iter().take(5).take_while(|part| {
            bytes += bytes_of(part);
            bytes <= MAX_DATA_BYTES
        });
        let (now, later) = rest.split_at(fit.count().max(1));
        events.push(parts(now));
        rest = later;
    }
    events.push(finished(size));
    events
}

fn is_entry(part: &TreePart) -> bool {
    matches!(part.part, Some(Part::Enter(_) | Part::File(_) | Part::Start(_) | Part::Link(_)))
}

// === Disks ===

/// What is in a folder, below it as well, links not followed. The daemon's socket does not count.
pub(crate) fn on_disk(folder: &Path) -> Tree {
    let mut tree = Tree::new();
    walk(folder, "", &mut |path, at| {
        let metadata = at.symlink_metadata().unwrap();
        if metadata.file_type().is_socket() {
            return;
        }
        let node = if metadata.is_symlink() {
            Node::Link(fs::read_link(at).unwrap().to_str().unwrap().to_owned())
        } else if metadata.is_dir() {
            Node::Directory
        } else {
            assert!(metadata.is_file());
            Node::File(fs::read(at).unwrap(), metadata.permissions().mode() & 0o100 != 0)
        };
        tree.insert(path.to_owned(), node);
    });
    tree
}

/// Everything that can be told of what is in a folder, but times of `folder` itself.
pub(crate) fn everything(folder: &Path) -> BTreeMap<String, (Vec<u8>, u32, [i64; 4])> {
    let mut all = BTreeMap::new();
    walk(folder, "", &mut |path, at| {
        let metadata = at.symlink_metadata().unwrap();
        let content = match () {
            () if metadata.is_symlink() => fs::read_link(at).unwrap().into_os_string().into_encoded_bytes(),
            () if metadata.is_file() => fs::read(at).unwrap(),
            () => Vec::new(),
        };
        let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
        all.insert(path.to_owned(), (content, metadata.mode(), times));
    });
    all
}

fn walk(folder: &Path, before: &str, visit: &mut impl FnMut(&str, &Path)) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{before}{}", entry.file_name().to_str().unwrap());
        visit(&path, &entry.path());
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), &format!("{path}/"), visit);
        }
    }
}
