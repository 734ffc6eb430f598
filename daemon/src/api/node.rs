//! `casd.v1.Node`: the node itself.

use casd_proto::v1;
use casd_proto::v1::node_server::Node;
use futures::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Answers, Desk, Role, convert, limits};
use crate::node::Error;

/// The service.
pub(super) struct Service(pub(super) Desk);

#[tonic::async_trait]
impl Node for Service {
    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        self.0.access.admit(&request, Role::Read)?;
        let status = self.0.node.status().await?;
        let mut answer = convert::status(self.0.node.about(), &status);
        answer.scrub = Some(convert::scrub(&self.0.node.scrubbing().await));
        Ok(Response::new(answer))
    }

    type VerifyStream = Answers<v1::VerifyResponse>;

    async fn verify(
        &self,
        request: Request<v1::VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        let caller = self.0.access.admit(&request, Role::Admin)?;
        let events = self.0.node.verify(caller, &request.into_inner().object).await?;
        let answers = ReceiverStream::new(events)
            .map(|event| event.map(convert::verified).map_err(|error| Error::from(error).into()));
        Ok(Response::new(self.0.until_end(answers, ())))
    }

    async fn set_scrub(
        &self,
        request: Request<v1::SetScrubRequest>,
    ) -> Result<Response<v1::SetScrubResponse>, Status> {
        let caller = self.0.access.admit(&request, Role::Admin)?;
        let status = self.0.node.pause_scrub(caller, request.into_inner().paused).await?;
        Ok(Response::new(v1::SetScrubResponse { scrub: Some(convert::scrub(&status)) }))
    }

    async fn limits(
        &self,
        request: Request<v1::LimitsRequest>,
    ) -> Result<Response<v1::LimitsResponse>, Status> {
        self.0.access.admit(&request, Role::Read)?;
        let (now, configured) = limits::both(self.0.node.limits());
        Ok(Response::new(v1::LimitsResponse { now, configured }))
    }

    async fn set_limits(
        &self,
        request: Request<v1::SetLimitsRequest>,
    ) -> Result<Response<v1::SetLimitsResponse>, Status> {
        let caller = self.0.access.admit(&request, Role::Admin)?;
        let to = request.into_inner();
        let (now, configured) =
            limits::both(self.0.node.set_limits(caller, |rates| limits::change(rates, to))?);
        Ok(Response::new(v1::SetLimitsResponse { now, configured }))
    }

    async fn doctor(
        &self,
        request: Request<v1::DoctorRequest>,
    ) -> Result<Response<v1::DoctorResponse>, Status> {
        self.0.access.admit(&request, Role::Read)?;
        let checks = self.0.node.examine().await.into_iter().map(convert::check).collect();
        Ok(Response::new(v1::DoctorResponse { checks }))
    }
}
