//! `casd.v1.Trees`: adding and fetching directories, and looking into them.

use std::sync::Arc;

use casd_proto::v1;
use casd_proto::v1::tree_part::Part;
use casd_proto::v1::trees_server::Trees;
use casd_proto::{MAX_BATCH, MAX_DATA_BYTES, Reason};
use futures::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status, Streaming};

use super::add::Manner;
use super::{Answers, Desk, Role, convert, fetch_tree, status};
use crate::content::{MAX_OBJECT, Tree, check_name};
use crate::node::{AddingTree, Caller, TreeOptions, TreePart};

/// A page of entries ends when it has so many bytes of a list. As messages they take up to three times as much, and
/// the last of them may have 4 KiB.
const PAGE_BYTES: usize = 128 << 10;

/// The service.
pub(super) struct Service(pub(super) Desk);

#[tonic::async_trait]
impl Trees for Service {
    type AddStream = Answers<v1::AddTreeResponse>;

    async fn add(
        &self,
        request: Request<Streaming<v1::AddTreeRequest>>,
    ) -> Result<Response<Self::AddStream>, Status> {
        let caller = self.0.access.admit(&request, Role::Write)?;
        let permit = self.0.transfers.take(caller)?;
        let answers = add(self.0.clone(), caller, request.into_inner());
        Ok(Response::new(self.0.until_end(answers, permit)))
    }

    type FetchStream = Answers<v1::FetchTreeResponse>;

    async fn fetch(
        &self,
        request: Request<v1::FetchTreeRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let caller = self.0.access.admit(&request, Role::Write)?;
        let permit = self.0.transfers.take(caller)?;
        let answers = fetch_tree::fetch_tree(&self.0, caller, request.into_inner()).await?;
        Ok(Response::new(self.0.until_end(answers, permit)))
    }

    type ListStream = Answers<v1::ListTreeResponse>;

    async fn list(
        &self,
        request: Request<v1::ListTreeRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let caller = self.0.access.admit(&request, Role::Read)?;
        let permit = self.0.transfers.take(caller)?;
        let tree = self.0.node.tree(&request.into_inner().object).await?;
        let room = u32::try_from(tree.bytes().len().div_ceil(1024)).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.0.lists).try_acquire_many_owned(room) else {
            let hint = "try again when one of them has been read";
            return Err(status::refusal(Reason::Busy, "casd lists very large directories already", hint));
        };
        Ok(Response::new(self.0.until_end(stream::iter(pages(tree)), (permit, room))))
    }
}

/// A directory's entries, a page a message, each made when it is asked for.
fn pages(tree: Tree) -> impl Iterator<Item = Result<v1::ListTreeResponse, Status>> + Send {
    let mut at = Tree::FIRST;
    std::iter::from_fn(move || {
        let (mut entries, from) = (Vec::new(), at);
        while let Some((entry, next)) = tree.entry_at(at)
            && entries.len() < MAX_BATCH
            && at - from < PAGE_BYTES
        {
            entries.push(convert::entry(entry));
            at = next;
        }
        (!entries.is_empty()).then_some(Ok(v1::ListTreeResponse { entries }))
    })
}

/// An add of a directory on its way.
struct Add {
    desk: Desk,
    caller: Caller,
    messages: Streaming<v1::AddTreeRequest>,
    /// Nothing before the first message.
    adding: Option<AddingTree>,
    /// Files are answered as well.
    each: bool,
}

/// The answers to the caller's messages, the directory's last.
fn add(
    desk: Desk,
    caller: Caller,
    messages: Streaming<v1::AddTreeRequest>,
) -> impl Stream<Item = Result<v1::AddTreeResponse, Status>> + Send {
    let add = Add { desk, caller, messages, adding: None, each: false };
    stream::unfold(Some(add), |add| async move {
        let mut add = add?;
        match add.next().await {
            Ok(answer) => {
                let rest = answer.tree.is_none().then_some(add);
                Some((Ok(answer), rest))
            }
            Err(status) => Some((Err(status), None)),
        }
    })
    .filter(|answer| {
        let is_empty = answer.as_ref().is_ok_and(|answer| answer.files.is_empty() && answer.tree.is_none());
        std::future::ready(!is_empty)
    })
}

impl Add {
    /// Takes the next message.
    async fn next(&mut self) -> Result<v1::AddTreeResponse, Status> {
        let message = self.desk.hear(self.messages.message()).await?;
        let Some(v1::AddTreeRequest { start, parts }) = message else { return Err(status::no_finish()) };
        let adding = match (self.adding.as_mut(), start) {
            (Some(_), Some(_)) => return Err(invalid("there is a second start")),
            (None, None) => return Err(invalid("the first message has no start")),
            (Some(adding), None) => adding,
            (None, Some(start)) => {
                self.each = start.each;
                let (options, wait) = started(&self.desk, self.caller, start)?;
                self.adding.insert(self.desk.node.add_tree(options, wait))
            }
        };
        let (parts, finish) = read(parts)?;
        let files = adding.take(parts).await?;
        let files = if self.each { files } else { Vec::new() };
        let files = files.into_iter().map(|file| convert::added((file, None))).collect();
        let Some(entries) = finish else { return Ok(v1::AddTreeResponse { files, tree: None }) };
        // Read to the stream's end, so that what follows a finish is an error always, not when it is fast.
        if self.desk.hear(self.messages.message()).await?.is_some() {
            return Err(invalid("a message follows the finish"));
        }
        let Some(adding) = self.adding.take() else { return Err(status::broken()) };
        let tree = convert::added_tree(adding.finish(entries).await?);
        Ok(v1::AddTreeResponse { files, tree: Some(tree) })
    }
}

/// What a start asks for, and whether to wait for the announcement.
fn started(desk: &Desk, caller: Caller, start: v1::AddTreeStart) -> Result<(TreeOptions, bool), Status> {
    let manner = Manner::read(&desk.node, caller, &start.options.unwrap_or_default())?;
    let name = Some(start.name).filter(|name| !name.is_empty());
    if let Some(Err(why)) = name.as_deref().map(check_name) {
        return Err(status::refusal(Reason::InvalidName, why.to_string(), ""));
    }
    let template = &manner.template;
    let options = TreeOptions {
        parity: template.parity,
        private: template.private,
        publish: manner.publishes(name.as_deref())?,
        name,
        pin: template.pin,
        portable: start.portable,
    };
    Ok((options, manner.wait_announced))
}

/// The parts of one message, and what its finish says where it has one, which must be the last.
fn read(parts: Vec<v1::TreePart>) -> Result<(Vec<TreePart>, Option<u64>), Status> {
    if parts.len() > MAX_BATCH {
        return Err(invalid("a message has at most 1,024 parts"));
    }
    let (mut read, mut bytes) = (Vec::with_capacity(parts.len()), 0);
    let mut finish = None;
    for part in parts {
        if finish.is_some() {
            return Err(invalid("a part follows the finish"));
        }
        read.push(match part.part {
            Some(Part::Enter(enter)) => TreePart::Enter(enter.name),
            Some(Part::Leave(_)) => TreePart::Leave,
            Some(Part::File(v1::TreeFile { name, executable, data })) => {
                bytes += data.len();
                TreePart::File(name, executable, data)
            }
            Some(Part::Start(v1::TreeStart { name, executable, length })) => {
                if let Some(length) = length.filter(|length| *length > MAX_OBJECT) {
                    return Err(status::too_long(length));
                }
                TreePart::Start(name, executable, length)
            }
            Some(Part::Data(v1::TreeData { data, zeros: 0 })) if !data.is_empty() => {
                bytes += data.len();
                TreePart::Data(data)
            }
            Some(Part::Data(_)) => return Err(invalid("a data part has 1 byte to 1 MiB, and no zeros")),
            Some(Part::End(end)) => TreePart::End(end.length),
            Some(Part::Link(v1::TreeLink { name, target })) => TreePart::Link(name, target),
            Some(Part::Finish(v1::TreeFinish { entries })) => {
                finish = Some(entries);
                continue;
            }
            None => return Err(invalid("a part is of no kind that this version knows")),
        });
    }
    if bytes > MAX_DATA_BYTES {
        return Err(invalid("a message has at most 1 MiB of bytes"));
    }
    Ok((read, finish))
}

fn invalid(why: &str) -> Status {
    status::refusal(Reason::InvalidStream, why, "first a start, then the parts of a walk, last a finish")
}
