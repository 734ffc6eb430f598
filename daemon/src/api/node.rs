//! `casd.v1.Node`: the node itself.

use casd_proto::v1;
use casd_proto::v1::node_server::Node;
use tonic::{Request, Response, Status};

use super::{Desk, Role, convert};

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
        Ok(Response::new(convert::status(self.0.node.about(), &status)))
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
