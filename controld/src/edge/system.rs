//! SystemService: the controller itself.

use std::sync::Arc;

use horcrux_proto::v1::system_service_server::SystemService;
use horcrux_proto::v1::{
    Component, Count, GetHealthRequest, GetHealthResponse, GetVersionRequest, GetVersionResponse,
};
use horcrux_transport::error::Chain;
use tonic::{Request, Response, Status};

use crate::app::App;

pub(super) struct System(pub(super) Arc<App>);

#[tonic::async_trait]
impl SystemService for System {
    async fn get_version(
        &self,
        _: Request<GetVersionRequest>,
    ) -> Result<Response<GetVersionResponse>, Status> {
        Ok(Response::new(GetVersionResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api: "horcrux.v1".to_owned(),
            setup_required: self.0.is_setup_required(),
        }))
    }

    async fn get_health(&self, _: Request<GetHealthRequest>) -> Result<Response<GetHealthResponse>, Status> {
        let store = match self.0.store.ping().await {
            Ok(()) => Component { name: "store".into(), ok: true, detail: String::new() },
            Err(error) => Component { name: "store".into(), ok: false, detail: Chain(&error).to_string() },
        };
        let live = self.0.live.ask(|fleet| (fleet.counts.clone(), fleet.connected())).await;
        let (fleet_counts, agents) = live?;
        let mut counts = self.0.counts.all();
        counts.extend(fleet_counts.into_iter().map(|(name, value)| (name.to_owned(), value)));
        counts.insert("agents_attached".to_owned(), agents as u64);
        Ok(Response::new(GetHealthResponse {
            components: vec![store, Component { name: "live".into(), ok: true, detail: String::new() }],
            started_unix_ms: self.0.started_ms,
            counts: counts.into_iter().map(|(name, value)| Count { name, value }).collect(),
        }))
    }
}
