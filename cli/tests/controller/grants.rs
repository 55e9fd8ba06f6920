use horcrux_proto::v1::grant_service_server::GrantService;
use horcrux_proto::v1::{
    CreateRoleRequest, CreateRoleResponse, DeleteRoleRequest, DeleteRoleResponse, Grant,
    GrantServiceCreateRequest, GrantServiceCreateResponse, GrantServiceDeleteRequest,
    GrantServiceDeleteResponse, GrantServiceListRequest, GrantServiceListResponse, ListRolesRequest,
    ListRolesResponse, Privilege, PrivilegeChange, UpdateRoleRequest, UpdateRoleResponse, WhatIfRequest,
    WhatIfResponse, WhyRequest, WhyResponse, grant,
};
use tonic::{Request, Response, Status};

use super::Shared;

fn grant(id: &str, subject: grant::Subject, path: &str) -> Grant {
    Grant {
        id: id.into(),
        subject: Some(subject),
        role: "VmUser".into(),
        path: path.into(),
        ..Grant::default()
    }
}

#[tonic::async_trait]
impl GrantService for Shared {
    /// Two pages.
    async fn list(
        &self,
        request: Request<GrantServiceListRequest>,
    ) -> Result<Response<GrantServiceListResponse>, Status> {
        self.0.check(&request)?;
        let (bob, ops) = (grant::Subject::User("bob@local".into()), grant::Subject::Group("ops".into()));
        let (grants, next) = if request.get_ref().page_token.is_empty() {
            (vec![grant("1", bob.clone(), "/vms"), grant("2", ops, "/pools/ci")], "2")
        } else {
            (vec![grant("3", bob, "/nodes/web1")], "")
        };
        Ok(Response::new(GrantServiceListResponse { grants, next_page_token: next.into() }))
    }

    async fn create(
        &self,
        request: Request<GrantServiceCreateRequest>,
    ) -> Result<Response<GrantServiceCreateResponse>, Status> {
        self.0.check(&request)?;
        let request = request.into_inner();
        let what = format!("grant {} on {}", request.role, request.path);
        self.0.change(&what, &request.request_id, request.validate_only)?;
        let subject = grant::Subject::User("bob@local".into());
        Ok(Response::new(GrantServiceCreateResponse { grant: Some(grant("4", subject, &request.path)) }))
    }

    /// The role NoAccess takes from bob, others give him.
    async fn what_if(&self, request: Request<WhatIfRequest>) -> Result<Response<WhatIfResponse>, Status> {
        self.0.check(&request)?;
        let changes = request.into_inner().add.into_iter().map(|wanted| {
            let console = vec![Privilege::VmConsole.into()];
            let (gained, lost) =
                if wanted.role == "NoAccess" { (vec![], console) } else { (console, vec![]) };
            PrivilegeChange { principal: "bob@local".into(), resource: wanted.path, gained, lost }
        });
        self.0.changes.lock().unwrap().push("asked what if".to_owned());
        Ok(Response::new(WhatIfResponse { changes: changes.collect(), more: 0 }))
    }

    async fn why(&self, request: Request<WhyRequest>) -> Result<Response<WhyResponse>, Status> {
        self.0.check(&request)?;
        let path = request.into_inner().path;
        Ok(Response::new(WhyResponse { allowed: true, path, ..WhyResponse::default() }))
    }

    async fn delete(
        &self,
        _: Request<GrantServiceDeleteRequest>,
    ) -> Result<Response<GrantServiceDeleteResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_roles(&self, _: Request<ListRolesRequest>) -> Result<Response<ListRolesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn create_role(
        &self,
        _: Request<CreateRoleRequest>,
    ) -> Result<Response<CreateRoleResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn update_role(
        &self,
        _: Request<UpdateRoleRequest>,
    ) -> Result<Response<UpdateRoleResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn delete_role(
        &self,
        _: Request<DeleteRoleRequest>,
    ) -> Result<Response<DeleteRoleResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
