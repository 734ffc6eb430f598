//! Add and AddMany: checks what the caller's stream brings and hands it to the node, bytes uncopied.

use bytes::Bytes;
use casd_proto::v1::add_request::Part;
use casd_proto::{MAX_BATCH, MAX_DATA_BYTES, Reason, v1};
use futures::{Stream, StreamExt, stream};
use tonic::{Status, Streaming};

use super::{Desk, convert, status};
use crate::content::MAX_OBJECT;
use crate::node::{AddOptions, Caller, Node};

/// The longest name: what file systems allow.
const MAX_NAME: usize = 255;

/// Batches under way on one stream: at most 8 MiB of bytes. Those that wait together share a sync and a write of the
/// journal.
const BATCHES: usize = 8;

/// One object from its start to its finish.
pub(super) async fn add(
    desk: &Desk,
    caller: Caller,
    mut parts: Streaming<v1::AddRequest>,
) -> Result<v1::AddResponse, Status> {
    let Some(Part::Start(start)) = next(desk, &mut parts).await? else {
        return Err(invalid("the first message is no start"));
    };
    let (options, wait) = started(&desk.node, caller, start)?;
    let mut adding = desk.node.add(options, wait);
    loop {
        match next(desk, &mut parts).await? {
            Some(Part::Data(v1::AddData { data })) if (1..=MAX_DATA_BYTES).contains(&data.len()) => {
                adding.write(data).await?;
            }
            Some(Part::Data(_)) => return Err(invalid("a data message has 1 byte to 1 MiB")),
            Some(Part::Start(_)) => return Err(invalid("there is a second start")),
            Some(Part::Finish(finish)) => {
                // Read to the stream's end, so that what follows a finish is an error always, not when it is fast.
                if desk.hear(parts.message()).await?.is_some() {
                    return Err(invalid("a message follows the finish"));
                }
                let object = convert::added(adding.finish(finish.length).await?);
                return Ok(v1::AddResponse { object: Some(object) });
            }
            None => return Err(invalid("a message is neither start nor data nor finish")),
        }
    }
}

/// The next message's part, `None` for one that this version does not know.
///
/// # Errors
/// NO_FINISH when the stream is at its end, and those of [`Desk::hear`].
async fn next(desk: &Desk, parts: &mut Streaming<v1::AddRequest>) -> Result<Option<Part>, Status> {
    match desk.hear(parts.message()).await? {
        Some(message) => Ok(message.part),
        None => Err(status::no_finish()),
    }
}

/// What a start asks for, and whether to wait for the announcement.
fn started(node: &Node, caller: Caller, start: v1::AddStart) -> Result<(AddOptions, bool), Status> {
    let manner = Manner::read(node, caller, &start.options.unwrap_or_default())?;
    if let Some(length) = start.length.filter(|length| *length > MAX_OBJECT) {
        return Err(status::too_long(length));
    }
    let options = AddOptions {
        length: start.length,
        data: start.data_length,
        expected: start.expected_id.map(|text| Node::whole_id(&text)).transpose()?,
        ..manner.options(start.name)?
    };
    Ok((options, manner.wait_announced))
}

/// Batches of small objects, each answered when it is durable, in order.
pub(super) fn add_many(
    desk: &Desk,
    caller: Caller,
    batches: Streaming<v1::AddManyRequest>,
) -> impl Stream<Item = Result<v1::AddManyResponse, Status>> + Send + use<> {
    let node = desk.node.clone();
    let adding = desk.node.clone();
    let mut manner = None;
    let next = |(desk, mut batches): (Desk, Streaming<v1::AddManyRequest>)| async move {
        let batch = desk.hear(batches.message()).await.transpose()?;
        Some((batch, (desk, batches)))
    };
    stream::unfold((desk.clone(), batches), next)
        .map(move |batch| open(&node, caller, &mut manner, batch?))
        .map(move |batch| add_batch(adding.clone(), batch))
        .buffered(BATCHES)
}

/// A batch that may be added.
struct Batch {
    manner: Manner,
    objects: Vec<(Bytes, AddOptions)>,
}

/// Checks a batch. The first one says how all of them are to be kept.
fn open(
    node: &Node,
    caller: Caller,
    manner: &mut Option<Manner>,
    batch: v1::AddManyRequest,
) -> Result<Batch, Status> {
    let manner = match (&*manner, batch.options) {
        (Some(_), Some(_)) => return Err(invalid_batch("only the first message may have options")),
        (Some(known), None) => known.clone(),
        (None, options) => manner.insert(Manner::read(node, caller, &options.unwrap_or_default())?).clone(),
    };
    let bytes: usize = batch.objects.iter().map(|object| object.data.len()).sum();
    if batch.objects.len() > MAX_BATCH || bytes > MAX_DATA_BYTES {
        return Err(invalid_batch("a message has at most 1,024 objects and 1 MiB of bytes"));
    }
    let with_options = |object: v1::SmallObject| Ok((object.data, manner.options(object.name)?));
    let objects = batch.objects.into_iter().map(with_options).collect::<Result<_, Status>>()?;
    Ok(Batch { manner, objects })
}

async fn add_batch(node: Node, batch: Result<Batch, Status>) -> Result<v1::AddManyResponse, Status> {
    let Batch { manner, objects } = batch?;
    let added = node.add_small(objects, manner.wait_announced).await?;
    Ok(v1::AddManyResponse { objects: added.into_iter().map(convert::added).collect() })
}

/// How objects are to be kept: the caller's wishes, and the node's defaults for what they leave open.
#[derive(Clone)]
pub(super) struct Manner {
    /// Without name, length and expected id.
    pub(super) template: AddOptions,
    publish: Publish,
    pub(super) wait_announced: bool,
}

/// Whether names may leave the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Publish {
    No,
    /// As the configuration says, where it can be.
    ByDefault,
    /// As the caller says.
    Asked,
}

impl Manner {
    pub(super) fn read(node: &Node, caller: Caller, wanted: &v1::AddOptions) -> Result<Self, Status> {
        let about = node.about();
        let private = wanted.private.unwrap_or(about.private);
        if wanted.publish {
            node.may_publish(private)?;
        }
        let parity = match wanted.parity.as_deref() {
            None => about.parity,
            Some("none") => None,
            Some(text) => Some(text.parse().map_err(Status::from)?),
        };
        let template = AddOptions {
            parity,
            private,
            pin: wanted.pin.unwrap_or(true).then_some(caller.uid),
            ..AddOptions::default()
        };
        let publish = match wanted.publish {
            true => Publish::Asked,
            false if about.publish && node.may_publish(private).is_ok() => Publish::ByDefault,
            false => Publish::No,
        };
        Ok(Self { template, publish, wait_announced: wanted.wait_announced })
    }

    /// Whether what is called so is to be published. By default only what can be is.
    ///
    /// # Errors
    /// INVALID_NAME when it was asked for, and it has no name or one that cannot leave the node.
    pub(super) fn publishes(&self, name: Option<&str>) -> Result<bool, Status> {
        let can = name.map(crate::content::check_public_name);
        match (self.publish, can) {
            (Publish::No, _) => Ok(false),
            (_, Some(Ok(()))) => Ok(true),
            (Publish::ByDefault, _) => Ok(false),
            (Publish::Asked, None) => {
                let hint = "give it one with --name, or publish it later: `casctl publish ID --name NAME`";
                Err(status::refusal(Reason::InvalidName, "what has no name cannot be published", hint))
            }
            (Publish::Asked, Some(Err(why))) => {
                Err(status::refusal(Reason::InvalidName, format!("it cannot be published: {why}"), ""))
            }
        }
    }

    /// The options of one object. An empty name is none.
    fn options(&self, name: String) -> Result<AddOptions, Status> {
        let name = named(name)?;
        let publish = self.publishes(name.as_deref())?;
        Ok(AddOptions { name, publish, ..self.template.clone() })
    }
}

/// What a caller calls an object. An empty name is none.
pub(super) fn named(name: String) -> Result<Option<String>, Status> {
    check_name(&name)?;
    Ok(Some(name).filter(|name| !name.is_empty()))
}

fn check_name(name: &str) -> Result<(), Status> {
    let wrong = |why: &str| Err(status::refusal(Reason::InvalidName, format!("the name {why}"), ""));
    match name {
        "." | ".." => wrong("stands for a folder"),
        _ if name.len() > MAX_NAME => wrong("is longer than 255 bytes"),
        _ if name.contains('/') => wrong("is a path: it has a `/`"),
        _ if name.contains('\0') => wrong("has a NUL"),
        _ => Ok(()),
    }
}

fn invalid(why: &str) -> Status {
    status::refusal(Reason::InvalidStream, why, "first a start, then data, last a finish")
}

fn invalid_batch(why: &str) -> Status {
    status::refusal(Reason::InvalidStream, why, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_name_is_a_file_name_without_folders(name in ".{0,300}") {
            let fits = name.len() <= 255 && !name.contains(['/', '\0']) && name != "." && name != "..";
            prop_assert_eq!(check_name(&name).is_ok(), fits);
        }
    }

    #[test]
    fn paths_are_no_names() {
        for name in [".", "..", "a/b", "/", "a\0b", &"x".repeat(256)] {
            assert_eq!(check_name(name).unwrap_err().code(), tonic::Code::InvalidArgument, "{name:?}");
        }
        for name in ["", "a", "...", "\u{fc}ber.txt", &"x".repeat(255)] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
    }
}
