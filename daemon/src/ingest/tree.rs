//! Adding a directory: the parts of a walk become files and trees in the store, and then one object.
//!
//! Owns: which directory is open, and what has been found in it. Refuses: parts out of order, names that break the
//! rules, too many or too deep. Survives a crash: nothing before the answer; what was put stays for a day.
//!
//! All of it is put under one lease and entered at once, so small files share their syncs however many they are.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::feed::{Feed, ended};
use super::pipeline::{self, Sealed};
use super::{AddOptions, Added, Error, Ingest};
use crate::content::{
    CHUNK, Chunk, Entry, MAX_TREE_BYTES, MAX_TREE_DEPTH, MAX_TREE_TOTAL, Node, ObjectId, Place, Tree,
    TreeBuilder, check_portable,
};
use crate::erasure::Geometry;
use crate::store::{Committed, Entries, Item, Lease, NewObject, NewTree, Part};
use crate::support::unix_now;

/// Batches of small objects on their way to the disk: with messages of 1 MiB, 4 MiB of memory an add.
const WRITING: usize = 4;

/// Bytes of the lists of all directories that are open in one add: those of one directory at most. They are in memory
/// until their directories end.
const MAX_OPEN: usize = MAX_TREE_BYTES;

/// How a directory is to be added.
#[derive(Clone, Debug, Default)]
pub struct TreeOptions {
    /// What people call it.
    pub name: Option<String>,
    /// Parity of what has more than a chunk.
    pub parity: Option<Geometry>,
    /// Never announced, served, or placed, nor is anything in it.
    pub private: bool,
    /// The name of the directory may leave the node; those of what is in it are in its list.
    pub publish: bool,
    /// The user that pins it; `None` leaves it cached.
    pub pin: Option<u32>,
    /// Names that not every file system can hold are refused.
    pub portable: bool,
}

/// What comes next of a directory.
#[derive(Clone, Debug)]
pub enum TreePart {
    /// A directory begins; what follows is in it.
    Enter(String),
    /// The directory that was entered last ends.
    Leave,
    /// A whole file of at most a chunk: its name, whether it may be executed, its bytes.
    File(String, bool, Bytes),
    /// A longer file begins: its name, whether it may be executed, its length where known.
    Start(String, bool, Option<u64>),
    /// Its next bytes.
    Data(Bytes),
    /// Its end, with the length that the caller counted.
    End(u64),
    /// A symbolic link: its name and target.
    Link(String, String),
}

/// A directory that the store has now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddedTree {
    /// Its id, the empty object's until it is known.
    pub id: Option<ObjectId>,
    /// Bytes of all files in it, each as often as it occurs.
    pub size: u64,
    /// Files in it.
    pub files: u64,
    /// Directories in it.
    pub directories: u64,
    /// Links in it.
    pub links: u64,
    /// Whether it is new here.
    pub created: bool,
    /// Everything in it that has an object, the outermost directory last.
    pub objects: Vec<ObjectId>,
}

/// A directory being added. Dropping it ends the add: nothing becomes of it.
pub struct AddingTree {
    ingest: Ingest,
    options: TreeOptions,
    lease: Arc<Lease>,
    /// The directories that are open, the outermost first, with their names.
    open: Vec<(String, TreeBuilder)>,
    /// The file whose bytes are coming.
    file: Option<OpenFile>,
    /// Chunks that have been hashed and are to be put.
    chunks: Vec<Chunk>,
    /// Batches of chunks that are being put, the oldest first.
    writing: VecDeque<JoinHandle<Option<Result<(), Error>>>>,
    files: Vec<Part>,
    trees: Vec<(Part, Entries)>,
    counted: AddedTree,
}

/// A file whose bytes are coming.
struct OpenFile {
    name: String,
    executable: bool,
    feed: Feed<Sealed>,
}

impl Ingest {
    /// Begins to add a directory.
    #[must_use]
    pub fn begin_tree(&self, options: TreeOptions) -> AddingTree {
        AddingTree {
            ingest: self.clone(),
            lease: Arc::new(self.store.lease()),
            open: vec![(options.name.clone().unwrap_or_default(), TreeBuilder::default())],
            options,
            file: None,
            chunks: Vec::new(),
            writing: VecDeque::new(),
            files: Vec::new(),
            trees: Vec::new(),
            counted: AddedTree::default(),
        }
    }
}

impl AddingTree {
    /// Takes the next parts. Waits when the store is slower than the caller. Gives the files that are complete by now.
    ///
    /// # Errors
    /// [`Error`], which ended the add.
    pub async fn take(&mut self, parts: Vec<TreePart>) -> Result<Vec<Added>, Error> {
        let taken = self.take_all(parts).await;
        self.ended(taken).await
    }

    async fn take_all(&mut self, parts: Vec<TreePart>) -> Result<Vec<Added>, Error> {
        let mut hashed = self.hash(&parts).await?.into_iter();
        let mut added = Vec::new();
        for part in parts {
            match part {
                TreePart::Enter(name) => self.enter(name)?,
                TreePart::Leave => self.leave().await?,
                TreePart::File(name, executable, _) => {
                    let sealed = self.keep(hashed.next().flatten());
                    added.push(self.found(&name, executable, &sealed)?);
                }
                TreePart::Start(name, executable, length) => {
                    self.between_files()?;
                    self.file = Some(OpenFile { name, executable, feed: self.begin(length) });
                }
                TreePart::Data(bytes) => match &mut self.file {
                    Some(file) => file.feed.write(bytes).await?,
                    None => return Err(Error::Order("data outside a file")),
                },
                TreePart::End(length) => {
                    let Some(file) = self.file.take() else {
                        return Err(Error::Order("an end outside a file"));
                    };
                    let sealed = file.feed.finish(length).await?;
                    added.push(self.found(&file.name, file.executable, &sealed)?);
                }
                TreePart::Link(name, target) => {
                    self.push(&name, Node::Link { target: &target })?;
                    self.counted.links += 1;
                }
            }
        }
        self.flush().await?;
        Ok(added)
    }

    /// Ends the directory, of which so many entries were sent, and waits until all of it is durable.
    ///
    /// # Errors
    /// [`Error`]; nothing became an object then.
    pub async fn finish(mut self, entries: u64) -> Result<AddedTree, Error> {
        let finished = self.finish_all(entries).await;
        self.ended(finished).await
    }

    /// After an error waits until nothing is under way: whoever hears of it finds the room given back.
    async fn ended<T>(&mut self, done: Result<T, Error>) -> Result<T, Error> {
        if done.is_err() {
            if let Some(file) = self.file.take() {
                file.feed.end().await;
            }
            while let Some(batch) = self.writing.pop_front() {
                let _ = ended(batch).await;
            }
            self.lease = Arc::new(self.ingest.store.lease());
        }
        done
    }

    async fn finish_all(&mut self, entries: u64) -> Result<AddedTree, Error> {
        self.between_files()?;
        let got = self.entries();
        if got != entries {
            return Err(Error::Entries { said: entries, got });
        }
        if self.open.len() > 1 {
            return Err(Error::Order("a finish inside a directory"));
        }
        let Some((_, builder)) = self.open.pop() else { return Err(Error::Order("a second finish")) };
        self.check_names("", &builder)?;
        let (root, contents) = self.store_tree(builder).await?;
        self.flush().await?;
        while let Some(batch) = self.writing.pop_front() {
            ended(batch).await?;
        }
        let ids = self.files.iter().chain(self.trees.iter().map(|(part, _)| part)).map(|part| part.id);
        let objects = ids.chain([root.id]).collect();
        let new = NewTree {
            root: NewObject {
                name: self.options.name.clone(),
                parity: root.parity,
                private: self.options.private,
                publish: self.options.publish,
                pin: self.options.pin,
                ..NewObject::new(root.id, root.length, unix_now())
            },
            entries: contents,
            trees: std::mem::take(&mut self.trees),
            files: std::mem::take(&mut self.files),
        };
        let created = self.lease.commit_tree(new).await? == Committed::Created;
        Ok(AddedTree { id: Some(root.id), created, objects, ..std::mem::take(&mut self.counted) })
    }

    /// Whether the directory is never to be announced.
    #[must_use]
    pub const fn is_private(&self) -> bool {
        self.options.private
    }

    fn entries(&self) -> u64 {
        self.counted.files + self.counted.directories + self.counted.links
    }

    /// Hashes the whole files among these parts; `None` for an empty one.
    async fn hash(&self, parts: &[TreePart]) -> Result<Vec<Option<Chunk>>, Error> {
        let whole = parts.iter().filter_map(|part| match part {
            TreePart::File(_, _, bytes) => Some(bytes.clone()),
            _ => None,
        });
        let whole: Vec<Bytes> = whole.collect();
        let hash = move || {
            let chunk =
                |bytes: Bytes| (!bytes.is_empty()).then(|| Chunk::compute(Place::Root, bytes)).transpose();
            whole.into_iter().map(chunk).collect::<Result<_, _>>().map_err(crate::content::Error::from)
        };
        Ok(self.ingest.pool.run(hash).await?)
    }

    fn enter(&mut self, name: String) -> Result<(), Error> {
        self.between_files()?;
        if self.open.len() >= MAX_TREE_DEPTH {
            return Err(crate::content::Error::Crowded("is nested more than 64 deep").into());
        }
        crate::content::check_name(&name).map_err(crate::content::Error::from)?;
        self.open.push((name, TreeBuilder::default()));
        self.counted.directories += 1;
        Ok(())
    }

    async fn leave(&mut self) -> Result<(), Error> {
        self.between_files()?;
        if self.open.len() == 1 {
            return Err(Error::Order("the outermost directory is left; it is finished"));
        }
        let Some((name, builder)) = self.open.pop() else { return Ok(()) };
        self.check_names(&name, &builder)?;
        let (part, contents) = self.store_tree(builder).await?;
        self.trees.push((part, contents));
        self.push(&name, Node::Directory { id: part.id, length: part.length })
    }

    /// Where it is asked: whether every file system can hold the names in a directory that is complete and no longer
    /// open; `name` is empty for the outermost one.
    fn check_names(&self, name: &str, builder: &TreeBuilder) -> Result<(), Error> {
        if !self.options.portable {
            return Ok(());
        }
        check_portable(builder.names()).map_err(|error| {
            if name.is_empty() {
                return crate::content::Error::from(error).into();
            }
            let around = self.open.iter().skip(1).map(|(name, _)| name.as_str());
            Error::Inside { path: around.chain([name]).collect::<Vec<_>>().join("/"), error }
        })
    }

    /// Makes a tree of a directory that is complete, and puts it.
    async fn store_tree(&mut self, builder: TreeBuilder) -> Result<(Part, Entries), Error> {
        let tree: Tree = builder.finish()?;
        let bytes = tree.bytes().clone();
        let sealed = if bytes.len() <= CHUNK {
            let chunk = self.ingest.only_chunk(bytes).await?;
            self.keep(Some(chunk))
        } else {
            let mut feed = self.begin(Some(bytes.len() as u64));
            for start in (0..bytes.len()).step_by(CHUNK) {
                feed.write(bytes.slice(start..bytes.len().min(start + CHUNK))).await?;
            }
            feed.finish(bytes.len() as u64).await?
        };
        Ok((part(&sealed), Entries::of(&tree)))
    }

    /// A file is complete.
    fn found(&mut self, name: &str, executable: bool, sealed: &Sealed) -> Result<Added, Error> {
        let Sealed { id, size, .. } = *sealed;
        self.push(name, Node::File { id, length: size, executable })?;
        self.counted.files += 1;
        self.counted.size = self.counted.size.saturating_add(size);
        if size > 0 {
            self.files.push(part(sealed));
        }
        let created = size > 0 && self.ingest.store.object(&id).is_none();
        Ok(Added { id, size, created, private: self.options.private })
    }

    fn push(&mut self, name: &str, node: Node<'_>) -> Result<(), Error> {
        self.between_files()?;
        if self.entries() >= MAX_TREE_TOTAL {
            return Err(crate::content::Error::Crowded("has more than 4,194,304 entries in all").into());
        }
        let Some((_, builder)) = self.open.last_mut() else {
            return Err(Error::Order("parts after the finish"));
        };
        builder.push(Entry { name, node })?;
        let open: usize = self.open.iter().map(|(_, builder)| builder.size()).sum();
        if open > MAX_OPEN {
            let why = "is inside others, and together they have names of more than 128 MiB so far";
            return Err(crate::content::Error::Crowded(why).into());
        }
        Ok(())
    }

    fn between_files(&self) -> Result<(), Error> {
        match &self.file {
            Some(_) => Err(Error::Order("a file has not ended")),
            None => Ok(()),
        }
    }

    /// A chunk that is an object is to be put with the next batch; none: the empty object.
    fn keep(&mut self, chunk: Option<Chunk>) -> Sealed {
        let Some(chunk) = chunk else { return Sealed { id: ObjectId::EMPTY, size: 0, parity: None } };
        let id = ObjectId::from_bytes(*chunk.id().as_bytes());
        let size = chunk.bytes().len() as u64;
        self.chunks.push(chunk);
        Sealed { id, size, parity: None }
    }

    /// Begins an object that is longer than a chunk, or may be.
    fn begin(&self, length: Option<u64>) -> Feed<Sealed> {
        let options = AddOptions { length, parity: self.options.parity, ..AddOptions::default() };
        let (ingest, lease) = (self.ingest.clone(), Arc::clone(&self.lease));
        Feed::start(&self.ingest.tasks, |messages| pipeline::seal(ingest, lease, options, messages))
    }

    /// Begins to put what has been hashed.
    async fn flush(&mut self) -> Result<(), Error> {
        if self.chunks.is_empty() {
            return Ok(());
        }
        if self.writing.len() >= WRITING
            && let Some(batch) = self.writing.pop_front()
        {
            ended(batch).await?;
        }
        let (lease, chunks) = (Arc::clone(&self.lease), std::mem::take(&mut self.chunks));
        let items = chunks.into_iter().map(Item::Chunk).collect();
        let work = async move { Ok(lease.put_new(items).await.map(drop)?) };
        self.writing.push_back(self.ingest.tasks.spawn("add-files", work));
        Ok(())
    }
}

fn part(sealed: &Sealed) -> Part {
    let parity = sealed.parity.map(|geometry| (geometry.k(), geometry.m()));
    Part { id: sealed.id, length: sealed.size, parity }
}
