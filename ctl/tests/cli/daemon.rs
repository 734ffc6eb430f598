//! A daemon that does as a test tells it: errors in mid-stream, silence, lies. What a real daemon does is
//! tested with real daemons.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use casd_proto::v1::add_request::Part;
use casd_proto::v1::fetch_response::Event;
use casd_proto::v1::objects_server::{Objects, ObjectsServer};
use casd_proto::v1::trees_server::TreesServer;
use casd_proto::v1::*;
use casd_proto::{Bytes, MAX_FRAME_BYTES, MAX_MESSAGE_BYTES, Reason};
use futures::{Stream, StreamExt, stream};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::trees;

/// An id that passes.
pub(crate) const ID: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What it does and has seen.
#[derive(Default)]
pub(crate) struct Script {
    /// What a fetch sends.
    pub(crate) fetch: Mutex<Vec<Result<Event, Reason>>>,
    /// Whether a fetch then says nothing more, instead of ending.
    pub(crate) hang: bool,
    /// Refuse an add as soon as it has started.
    pub(crate) refuse_add: Option<Reason>,
    /// What a fetch was asked for.
    pub(crate) fetched: Mutex<Vec<FetchRequest>>,
    /// Each add: its name, the bytes that came, whether it was finished.
    pub(crate) added: Mutex<Vec<(String, usize, bool)>>,
    /// What is stored, where a test says so.
    pub(crate) objects: Vec<ListedObject>,
    /// What a removal says, where a test says so.
    pub(crate) removed: Option<RemoveResponse>,
    /// What was asked for in lists of objects, and whether parts of directories.
    pub(crate) listed: Mutex<Vec<(String, bool)>>,
    /// What it does about directories.
    pub(crate) trees: trees::Script,
}

/// Starts it on the current runtime, at a socket in `folder`.
pub(crate) fn start(folder: &Path, script: Script) -> (PathBuf, Arc<Script>) {
    let socket = folder.join("casd.sock");
    let script = Arc::new(script);
    let listener = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
    let service = ObjectsServer::new(Scripted(Arc::clone(&script)))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let trees = TreesServer::new(trees::Scripted(Arc::clone(&script)))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let server = Server::builder().max_frame_size(MAX_FRAME_BYTES).add_service(service).add_service(trees);
    tokio::task::spawn(server.serve_with_incoming(listener));
    (socket, script)
}

/// The start of a fetch.
pub(crate) fn started(size: u64, name: &str) -> Result<Event, Reason> {
    Ok(Event::Started(FetchStarted { id: ID.into(), size, name: name.into() }))
}

/// A piece of a fetch.
pub(crate) fn data(offset: u64, bytes: &'static [u8]) -> Result<Event, Reason> {
    Ok(Event::Data(FetchData { offset, data: Bytes::from_static(bytes), zeros: 0 }))
}

/// Zeros of a fetch.
pub(crate) fn zeros(offset: u64, zeros: u64) -> Result<Event, Reason> {
    Ok(Event::Data(FetchData { offset, data: Bytes::new(), zeros }))
}

/// The end of a fetch.
pub(crate) fn finished(size: u64) -> Result<Event, Reason> {
    let peers = [("12D3Koo".to_owned(), size)].into();
    Ok(Event::Finished(FetchFinished { size, seconds: 0.25, local_bytes: 0, peers, written_bytes: 0 }))
}

struct Scripted(Arc<Script>);

fn unscripted<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented(""))
}

#[tonic::async_trait]
impl Objects for Scripted {
    type AddManyStream = Answers<AddManyResponse>;
    type FetchStream = Answers<FetchResponse>;
    type CatStream = Answers<CatResponse>;
    type ListStream = Answers<ListResponse>;
    type ChunksStream = Answers<ChunksResponse>;

    async fn add(&self, request: Request<Streaming<AddRequest>>) -> Result<Response<AddResponse>, Status> {
        let mut parts = request.into_inner();
        let (mut name, mut length, mut whole) = (String::new(), 0, false);
        while let Some(AddRequest { part }) = parts.message().await? {
            match part {
                Some(Part::Start(start)) => name = start.name,
                Some(Part::Data(part)) => length += part.data.len(),
                Some(Part::Finish(finish)) => whole = finish.length == length as u64,
                None => {}
            }
            if let Some(reason) = self.0.refuse_add {
                return Err(reason.status("refused", ""));
            }
        }
        self.0.added.lock().unwrap().push((name, length, whole));
        if !whole {
            return Err(Reason::NoFinish.status("no finish", ""));
        }
        let object = AddedObject { id: ID.into(), size: length as u64, created: true, announced: None };
        Ok(Response::new(AddResponse { object: Some(object) }))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        self.0.fetched.lock().unwrap().push(request.into_inner());
        let events = std::mem::take(&mut *self.0.fetch.lock().unwrap());
        let events = stream::iter(events).map(|event| match event {
            Ok(event) => Ok(FetchResponse { event: Some(event) }),
            Err(reason) => Err(reason.status("chunks 3 and 5 are missing", "try later")),
        });
        Ok(Response::new(if self.0.hang {
            Box::pin(events.chain(stream::pending()))
        } else {
            Box::pin(events)
        }))
    }

    async fn cat(&self, _: Request<CatRequest>) -> Result<Response<Self::CatStream>, Status> {
        let block = Bytes::from(vec![7; 1 << 20]);
        let endless = stream::repeat_with(move || Ok(CatResponse { data: block.clone() }));
        Ok(Response::new(Box::pin(endless)))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let request = request.into_inner();
        self.0.listed.lock().unwrap().push((request.object, request.parts));
        let mut objects = self.0.objects.clone();
        if objects.is_empty() {
            objects.push(ListedObject {
                id: ID.into(),
                name: "x\u{1b}[2J".into(),
                size: 1,
                pinned: true,
                complete: true,
                ..Default::default()
            });
        }
        Ok(Response::new(Box::pin(stream::iter([Ok(ListResponse { objects })]))))
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<RemoveResponse>, Status> {
        if let Some(removed) = &self.0.removed {
            return Ok(Response::new(removed.clone()));
        }
        let RemoveRequest { object, force } = request.into_inner();
        match object.as_str() {
            "theirs" if !force => Err(Reason::NotPermitted.status("the user with uid 7 has pinned it", "")),
            "damaged" => Err(Reason::Damaged.status("chunk 3 is damaged", "")),
            "unknown" => Err(Reason::NotFound.status("nothing here is called so", "")),
            id => Ok(Response::new(RemoveResponse {
                id: id.into(),
                removed: true,
                freed_bytes: 9,
                ..Default::default()
            })),
        }
    }

    async fn add_many(
        &self,
        _: Request<Streaming<AddManyRequest>>,
    ) -> Result<Response<Self::AddManyStream>, Status> {
        unscripted()
    }

    async fn chunks(&self, _: Request<ChunksRequest>) -> Result<Response<Self::ChunksStream>, Status> {
        unscripted()
    }

    async fn stat(&self, _: Request<StatRequest>) -> Result<Response<StatResponse>, Status> {
        unscripted()
    }

    async fn pin(&self, _: Request<PinRequest>) -> Result<Response<PinResponse>, Status> {
        unscripted()
    }

    async fn unpin(&self, _: Request<UnpinRequest>) -> Result<Response<UnpinResponse>, Status> {
        unscripted()
    }

    async fn link(&self, _: Request<LinkRequest>) -> Result<Response<LinkResponse>, Status> {
        unscripted()
    }

    async fn publish(&self, _: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        unscripted()
    }

    async fn collect(&self, _: Request<CollectRequest>) -> Result<Response<CollectResponse>, Status> {
        unscripted()
    }
}
