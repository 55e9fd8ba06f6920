//! A signed-in connection. A session's access token is renewed before it ends, and once more when the controller says
//! that it has ended: our clock may be behind. An API token is sent as it is, and its refusal is final.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use horcrux_proto::v1::RefreshRequest;
use horcrux_proto::v1::auth_service_client::AuthServiceClient;
use horcrux_transport::client::{Connect, Target, Trust};
use horcrux_transport::clock;
use horcrux_transport::secret::Secret;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::agent;
use crate::contexts::{ContextName, Contexts};
use crate::failure::Failure;
use crate::private::Home;
use crate::tokens::{Credential, TokenFile, Tokens};

/// What the generated clients run on.
pub type Wire = InterceptedService<Channel, Bearer>;

/// Puts the access token into each request, where one is asked for.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

#[derive(Clone, Debug)]
pub struct Session {
    /// None for an agent.
    context: Option<ContextName>,
    pub url: String,
    channel: Channel,
    /// None for an agent, which asks for none.
    tokens: Option<TokenFile>,
    deadline: Duration,
}

/// Larger than the 4 MiB that tonic takes: a page of a thousand VMs, each with what it lacks.
pub const MESSAGE_LIMIT: usize = 32 << 20;

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer")
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.0 {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        Ok(request)
    }
}

/// Connects to a controller, with the error that people see.
pub async fn channel(target: &Target, trust: &Trust, deadline: Duration) -> Result<Channel, Failure> {
    let connect = way(target.clone(), trust.clone(), deadline);
    connect.channel().await.map_err(|e| Failure::connecting(&e))
}

/// How a controller is reached.
pub(crate) fn way(target: Target, trust: Trust, deadline: Duration) -> Connect {
    Connect {
        user_agent: Some(concat!("horcruxctl/", env!("CARGO_PKG_VERSION"))),
        ..Connect::new(target, trust, deadline)
    }
}

/// An RPC that needs no session.
pub async fn unsigned<T>(
    url: &str,
    deadline: Duration,
    rpc: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    within(deadline, rpc).await.map_err(|status| Failure::answered(url, &status))
}

/// A connection that sends `bearer` with each request; `None` where it can't be sent.
pub(crate) fn signed(channel: &Channel, bearer: &Secret) -> Option<Wire> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", bearer.expose()).parse().ok()?;
    value.set_sensitive(true);
    Some(InterceptedService::new(channel.clone(), Bearer(Some(value))))
}

impl Session {
    /// Of the chosen context.
    pub async fn open(home: &Home, asked: Option<&ContextName>, deadline: Duration) -> Result<Self, Failure> {
        let contexts = Contexts::read(home)?;
        let (name, context) = contexts.chosen(asked)?;
        let tokens = TokenFile::new(home, name);
        let (target, trust) = (context.target()?, context.trust(home)?);
        if tokens.read()?.is_none() {
            return Err(Failure::NotSignedIn { url: context.url.clone(), why: String::new() });
        }
        let channel = channel(&target, &trust, deadline).await?;
        Ok(Self::on(channel, name.clone(), context.url.clone(), tokens, deadline))
    }

    /// On a connection that exists.
    #[must_use]
    pub fn on(
        channel: Channel,
        context: ContextName,
        url: String,
        tokens: TokenFile,
        deadline: Duration,
    ) -> Self {
        Self { context: Some(context), url, channel, tokens: Some(tokens), deadline }
    }

    /// With the agent of this host that listens at `path`.
    pub async fn with_agent(path: &Path, deadline: Duration) -> Result<Self, Failure> {
        let channel = agent::channel(path, deadline).await?;
        Ok(Self { context: None, url: agent::url(path), channel, tokens: None, deadline })
    }

    /// What the controller is known by here.
    pub fn context(&self) -> Result<&ContextName, Failure> {
        let none = || Failure::Usage("an agent has no context".to_owned());
        self.context.as_ref().ok_or_else(none)
    }

    /// Runs an RPC, twice at most. `rpc` gets a signed-in connection; the deadline is for each run, and for a stream
    /// only until it begins.
    pub async fn call<T, F>(&self, rpc: impl Fn(Wire) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let failed = |status: &Status| Failure::answered(&self.url, status);
        if self.tokens.is_none() {
            let wire = InterceptedService::new(self.channel.clone(), Bearer(None));
            return within(self.deadline, rpc(wire)).await.map_err(|status| failed(&status));
        }
        let (bearer, renewable) = self.bearer().await?;
        match within(self.deadline, rpc(self.wire(&bearer)?)).await {
            Ok(answer) => Ok(answer),
            Err(status) if status.code() == Code::Unauthenticated && renewable => {
                let tokens = self.renewed(&bearer).await?;
                within(self.deadline, rpc(self.wire(&tokens.access)?)).await.map_err(|status| failed(&status))
            }
            Err(status) => Err(failed(&status)),
        }
    }

    /// What each request is signed with, and whether another can be had in its place.
    pub(crate) async fn bearer(&self) -> Result<(Secret, bool), Failure> {
        Ok(match self.credential()? {
            Credential::Session(tokens) => (self.fresh(tokens).await?.access, true),
            Credential::ApiToken(token) => (token, false),
        })
    }

    /// [`call`](Self::call) with a request, which goes again with the second run.
    pub async fn send<Q: Clone, T, F>(&self, request: Q, rpc: impl Fn(Wire, Q) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call(|wire| rpc(wire, request.clone())).await
    }

    /// Forgets the tokens, whether the controller heard of it or not.
    pub async fn forget(&self) -> Result<(), Failure> {
        let tokens = self.tokens()?;
        let _lock = tokens.lock(self.deadline).await?;
        Ok(tokens.remove()?)
    }

    /// As an API token, or as a session.
    pub fn credential(&self) -> Result<Credential, Failure> {
        self.tokens()?.read()?.ok_or_else(|| self.signed_out(String::new()))
    }

    fn tokens(&self) -> Result<&TokenFile, Failure> {
        let none = || Failure::Usage("an agent knows no sessions".to_owned());
        self.tokens.as_ref().ok_or_else(none)
    }

    fn wire(&self, bearer: &Secret) -> Result<Wire, Failure> {
        signed(&self.channel, bearer).ok_or_else(|| self.signed_out(String::new()))
    }

    async fn fresh(&self, tokens: Tokens) -> Result<Tokens, Failure> {
        if tokens.are_fresh(clock::unix_ms()) { Ok(tokens) } else { self.renewed(&tokens.access).await }
    }

    /// Tokens other than those with `used` as access token: from another process that renewed them, or from the
    /// controller.
    async fn renewed(&self, used: &Secret) -> Result<Tokens, Failure> {
        let file = self.tokens()?;
        let _lock = file.lock(self.deadline + self.deadline).await?;
        let tokens = self.credential()?.session();
        let tokens =
            tokens.ok_or_else(|| self.signed_out("an API token took the session's place".to_owned()))?;
        if tokens.access.expose() != used.expose() {
            return Ok(tokens);
        }
        let request = RefreshRequest { refresh_token: tokens.refresh.expose().to_owned() };
        let mut client = AuthServiceClient::new(self.channel.clone());
        match within(self.deadline, client.refresh(request)).await {
            Ok(answer) => {
                let pair = answer.tokens.ok_or_else(|| self.signed_out("no tokens came".to_owned()))?;
                let tokens = Tokens::from(pair);
                file.write(&Credential::Session(tokens.clone()))?;
                Ok(tokens)
            }
            Err(status) => {
                if status.code() == Code::Unauthenticated {
                    // They will never work again.
                    file.remove()?;
                }
                Err(Failure::answered(&self.url, &status))
            }
        }
    }

    fn signed_out(&self, why: String) -> Failure {
        Failure::NotSignedIn { url: self.url.clone(), why }
    }
}

async fn within<T>(
    deadline: Duration,
    rpc: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(deadline, rpc).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}
