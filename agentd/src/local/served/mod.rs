//! gRPC on a UNIX socket: the part of a controller's API that shows things, read-only, for this host's users.
//!
//! Who may connect is for the socket's owner, group and mode to say; whoever can may see all that is here, and nothing can
//! be changed. Connections, streams and watchers are bounded, and a watcher that reads slowly falls behind by itself: it is
//! told what it missed, and nothing waits for it.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};

use horcrux_live::Live;
use horcrux_proto::encoded::WatchServiceServer;
use horcrux_proto::name::NodeName;
use horcrux_proto::v1::container_service_server::ContainerServiceServer;
use horcrux_proto::v1::node_service_server::NodeServiceServer;
use horcrux_proto::v1::system_service_server::SystemServiceServer;
use horcrux_proto::v1::vm_service_server::VmServiceServer;
use horcrux_transport::server::Incoming;
use horcrux_transport::socket::{Limits, LocalPeer, Share, Socket};
use horcrux_transport::tasks::Stop;
use http::{Request, Response};
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::service::Routes;

use self::services::{Served, elsewhere};
use super::shown::Everything;

mod followed;
mod services;
#[cfg(test)]
mod tests;

/// A few people and their scripts, each with a connection or two.
const LIMITS: Limits = Limits { connections: Share { all: 32, per_user: 16 }, streams_per_connection: 16 };
/// Who may connect to the socket: its owner and its group.
const SOCKET_MODE: u32 = 0o660;
/// A request names one thing, or a thousand filters.
const REQUEST: usize = 64 << 10;
/// What clients accept by default.
const ANSWER: usize = 4 << 20;

/// The socket, bound and ready to serve.
#[derive(Debug)]
pub struct AgentSocket {
    socket: Socket,
    served: Served,
}

#[derive(Debug, thiserror::Error)]
pub enum AgentSocketError {
    #[error("make the directory of {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("listen on {}", path.display())]
    Socket {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl AgentSocket {
    pub fn bind(path: &Path, node: NodeName, live: Live<Everything>) -> Result<Self, AgentSocketError> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)
                .map_err(|source| AgentSocketError::Directory { path: path.to_owned(), source })?;
        }
        let socket = Socket::bind(path, SOCKET_MODE)
            .map_err(|source| AgentSocketError::Socket { path: path.to_owned(), source })?;
        tracing::info!(path = %path.display(), %node, "serving this host");
        Ok(Self { socket, served: Served::new(node, live) })
    }

    /// Serves until `stop`.
    pub async fn run(self, stop: Stop) -> Result<(), Infallible> {
        let routes = routes(&self.served);
        let service = move |request: Request<Incoming>| {
            let mut routes = routes.clone();
            async move {
                let peer = request.extensions().get::<LocalPeer>().map(|peer| peer.uid);
                tracing::debug!(uid = peer, method = request.uri().path(), "asked");
                if !is_served(request.uri().path()) {
                    return Ok(elsewhere().into_http());
                }
                let answered: Result<Response<Body>, Infallible> = routes.call(request).await;
                answered
            }
        };
        self.socket.serve(LIMITS, service, stop).await;
        Ok(())
    }
}

macro_rules! limited {
    ($server:expr) => {
        $server.max_decoding_message_size(REQUEST).max_encoding_message_size(ANSWER)
    };
}

fn routes(served: &Served) -> Routes {
    Routes::new(limited!(NodeServiceServer::new(served.clone())))
        .add_service(limited!(VmServiceServer::new(served.clone())))
        .add_service(limited!(ContainerServiceServer::new(served.clone())))
        .add_service(limited!(WatchServiceServer::new(served.clone())))
        .add_service(limited!(SystemServiceServer::new(served.clone())))
        .prepare()
}

/// All that an agent answers. What isn't here is refused before any handler.
pub const SERVED: [&str; 9] = [
    "/horcrux.v1.NodeService/List",
    "/horcrux.v1.NodeService/Get",
    "/horcrux.v1.VmService/List",
    "/horcrux.v1.VmService/Get",
    "/horcrux.v1.ContainerService/List",
    "/horcrux.v1.ContainerService/Get",
    "/horcrux.v1.WatchService/Watch",
    "/horcrux.v1.SystemService/GetVersion",
    "/horcrux.v1.SystemService/GetHealth",
];

fn is_served(path: &str) -> bool {
    SERVED.contains(&path)
}
