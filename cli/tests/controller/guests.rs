use horcrux_proto::v1::container_service_server::ContainerService;
use horcrux_proto::v1::vm_service_server::VmService;
use horcrux_proto::v1::{
    Container, ContainerServiceGetRequest, ContainerServiceGetResponse, ContainerServiceListRequest,
    ContainerServiceListResponse, Vm, VmServiceGetRequest, VmServiceGetResponse, VmServiceListRequest,
    VmServiceListResponse,
};
use tonic::{Request, Response, Status};

use super::Shared;

/// Of the one VM, which is called `shop`.
pub(crate) const SHOP: &str = "aaaaaaaa-0000-4000-8000-000000000011";
/// Of the one container, which is called `worker` and runs on `node1`.
pub(crate) const WORKER: &str = "3f2a3f2a3f2a3f2a3f2a3f2a3f2a3f2a";

#[tonic::async_trait]
impl VmService for Shared {
    async fn list(
        &self,
        _: Request<VmServiceListRequest>,
    ) -> Result<Response<VmServiceListResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get(
        &self,
        request: Request<VmServiceGetRequest>,
    ) -> Result<Response<VmServiceGetResponse>, Status> {
        self.0.check(&request)?;
        match request.get_ref().name.as_str() {
            "shop" | "node1/shop" | SHOP => {
                let vm = Vm { name: format!("vms/{SHOP}"), ..Vm::default() };
                Ok(Response::new(VmServiceGetResponse { vm: Some(vm), values: vec![] }))
            }
            name => Err(Status::not_found(format!("no VM {name:?} exists, or it is not yours to see"))),
        }
    }
}

#[tonic::async_trait]
impl ContainerService for Shared {
    async fn list(
        &self,
        _: Request<ContainerServiceListRequest>,
    ) -> Result<Response<ContainerServiceListResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get(
        &self,
        request: Request<ContainerServiceGetRequest>,
    ) -> Result<Response<ContainerServiceGetResponse>, Status> {
        self.0.check(&request)?;
        let name = request.get_ref().name.as_str();
        let bare = name.strip_prefix("node1/").unwrap_or(name);
        if bare == "twin" {
            return Err(Status::invalid_argument(
                "2 containers fit \"twin\": containers/a/1, containers/b/2",
            ));
        }
        if bare == "worker" || WORKER.starts_with(bare) {
            let name = format!("containers/node1/{WORKER}");
            let container = Some(Container { name, ..Container::default() });
            return Ok(Response::new(ContainerServiceGetResponse { container, values: vec![] }));
        }
        Err(Status::not_found("no such container"))
    }
}
