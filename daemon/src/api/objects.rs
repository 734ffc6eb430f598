//! `casd.v1.Objects`: adding, fetching, reading and keeping objects.

use casd_proto::v1;
use casd_proto::v1::objects_server::Objects;
use futures::{StreamExt, stream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Desk, Role, add, convert, fetch};
use crate::content::ObjectId;
use crate::node::{Error, Linked, Node, ObjectInfo};

/// The service.
pub(super) struct Service(pub(super) Desk);

#[tonic::async_trait]
impl Objects for Service {
    async fn add(
        &self,
        request: Request<Streaming<v1::AddRequest>>,
    ) -> Result<Response<v1::AddResponse>, Status> {
        let caller = self.0.access.admit(&request, Role::Write)?;
        let _permit = self.0.transfers.take(caller)?;
        Ok(Response::new(add::add(&self.0, caller, request.into_inner()).await?))
    }

    type AddManyStream = Answers<v1::AddManyResponse>;

    async fn add_many(
        &self,
        request: Request<Streaming<v1::AddManyRequest>>,
    ) -> Result<Response<Self::AddManyStream>, Status> {
        let caller = self.0.access.admit(&request, Role::Write)?;
        let permit = self.0.transfers.take(caller)?;
        let answers = add::add_many(&self.0, caller, request.into_inner());
        Ok(Response::new(self.0.until_end(answers, permit)))
    }

    type FetchStream = Answers<v1::FetchResponse>;

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let caller = self.0.access.admit(&request, Role::Write)?;
        let permit = self.0.transfers.take(caller)?;
        let answers = fetch::fetch(&self.0, caller, request.into_inner()).await?;
        Ok(Response::new(self.0.until_end(answers, permit)))
    }

    type CatStream = Answers<v1::CatResponse>;

    async fn cat(&self, request: Request<v1::CatRequest>) -> Result<Response<Self::CatStream>, Status> {
        let caller = self.0.access.admit(&request, Role::Read)?;
        let permit = self.0.transfers.take(caller)?;
        let v1::CatRequest { object, offset, length } = request.into_inner();
        let reading = self.0.node.cat(&object, offset, length).await?;
        Ok(Response::new(self.0.until_end(fetch::cat(reading), permit)))
    }

    type ListStream = Answers<v1::ListResponse>;

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        self.0.access.admit(&request, Role::Read)?;
        let v1::ListRequest { object, parts } = request.into_inner();
        if object.is_empty() {
            return Ok(Response::new(self.0.until_end(stream::iter(pages(self.0.node.clone(), parts)), ())));
        }
        let info = self.0.node.find(&object).await?;
        let used = self.0.node.used(&info.id);
        let is_recordless = self.0.node.is_recordless(&info.id);
        let one = convert::listed(info, used, is_recordless);
        let answer = stream::once(async move { Ok(v1::ListResponse { objects: vec![one] }) });
        Ok(Response::new(self.0.until_end(answer, ())))
    }

    async fn stat(&self, request: Request<v1::StatRequest>) -> Result<Response<v1::StatResponse>, Status> {
        let caller = self.0.access.admit(&request, Role::Read)?;
        let object = request.into_inner().object;
        let here = self.0.node.stat(&object).await;
        if let Err(Error::NotFound(_)) = &here
            && let Some((id, told)) = self.0.node.told(&object).await?
        {
            return Ok(Response::new(convert::claimed(id, &told)));
        }
        Ok(Response::new(convert::stat(here?, caller)))
    }

    type ChunksStream = Answers<v1::ChunksResponse>;

    async fn chunks(
        &self,
        request: Request<v1::ChunksRequest>,
    ) -> Result<Response<Self::ChunksStream>, Status> {
        self.0.access.admit(&request, Role::Read)?;
        let pages = self.0.node.chunks(&request.into_inner().object).await?;
        let answers = ReceiverStream::new(pages).map(|lines| {
            let chunks = lines.into_iter().map(convert::chunk).collect();
            Ok(v1::ChunksResponse { chunks })
        });
        Ok(Response::new(self.0.until_end(answers, ())))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        let caller = self.0.access.admit(&request, Role::Write)?;
        let v1::RemoveRequest { object, force } = request.into_inner();
        let (info, gone) = self.0.node.remove(caller, &object, force).await?;
        Ok(Response::new(convert::removed(&info, gone)))
    }

    async fn pin(&self, request: Request<v1::PinRequest>) -> Result<Response<v1::PinResponse>, Status> {
        let caller = self.0.access.admit(&request, Role::Write)?;
        let (info, changed) = self.0.node.pin(caller, &request.into_inner().object).await?;
        let (id, kind) = (info.id.to_string(), convert::kind(&info));
        Ok(Response::new(v1::PinResponse { id, changed, kind }))
    }

    async fn unpin(&self, request: Request<v1::UnpinRequest>) -> Result<Response<v1::UnpinResponse>, Status> {
        let caller = self.0.access.admit(&request, Role::Write)?;
        let (info, changed) = self.0.node.unpin(caller, &request.into_inner().object).await?;
        let (id, kind) = (info.id.to_string(), convert::kind(&info));
        Ok(Response::new(v1::UnpinResponse { id, changed, kind }))
    }

    async fn link(&self, request: Request<v1::LinkRequest>) -> Result<Response<v1::LinkResponse>, Status> {
        self.0.access.admit(&request, Role::Read)?;
        let Linked { link, is_unreached } = self.0.node.link(&request.into_inner().object).await?;
        Ok(Response::new(v1::LinkResponse { link: link.to_string(), unreached: is_unreached }))
    }

    async fn publish(
        &self,
        request: Request<v1::PublishRequest>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        let caller = self.0.access.admit(&request, Role::Write)?;
        let v1::PublishRequest { id, name, withdraw } = request.into_inner();
        let published = if withdraw {
            self.0.node.withdraw(caller, &id).await?
        } else {
            self.0.node.publish(caller, &id, Some(name).filter(|name| !name.is_empty())).await?
        };
        Ok(Response::new(convert::published(published)))
    }

    async fn collect(
        &self,
        request: Request<v1::CollectRequest>,
    ) -> Result<Response<v1::CollectResponse>, Status> {
        let caller = self.0.access.admit(&request, Role::Admin)?;
        let collected = self.0.node.collect(caller, request.into_inner().dry_run).await?;
        Ok(Response::new(v1::CollectResponse {
            objects: collected.objects.len() as u64,
            bytes: collected.freed,
        }))
    }
}

/// All objects, a page a message, each read when it is asked for.
fn pages(node: Node, parts: bool) -> impl Iterator<Item = Result<v1::ListResponse, Status>> + Send {
    let mut after: Option<ObjectId> = None;
    let shown = move |info: &ObjectInfo| parts || !info.part || !info.pins.is_empty();
    std::iter::from_fn(move || {
        let page = node.list(after);
        after = Some(page.last()?.id);
        let listed = |info: ObjectInfo| {
            let used = node.used(&info.id);
            let is_recordless = node.is_recordless(&info.id);
            convert::listed(info, used, is_recordless)
        };
        Some(Ok(v1::ListResponse { objects: page.into_iter().filter(shown).map(listed).collect() }))
    })
}
