//! Calls to the public port in somebody's name.

use anyhow::{Context as _, bail};
use horcrux_proto::v1::auth_service_client::AuthServiceClient;
use horcrux_proto::v1::user_service_client::UserServiceClient;
use horcrux_proto::v1::{SignInRequest, UserServiceCreateRequest};
use horcrux_transport::client::Connect;
use horcrux_transport::secret::Secret;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request};

/// Somebody who is signed in.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    connect: Connect,
    token: MetadataValue<Ascii>,
    pub(crate) password: Secret,
}

impl Person {
    pub(crate) async fn sign_in(connect: Connect, user: &str, password: Secret) -> anyhow::Result<Self> {
        let channel = connect.channel().await?;
        let request = SignInRequest {
            username: user.to_owned(),
            password: password.expose().to_owned(),
            ..SignInRequest::default()
        };
        let answer = AuthServiceClient::new(channel).sign_in(request).await?.into_inner();
        let tokens = answer.tokens.context("a session without tokens")?;
        let mut token: MetadataValue<Ascii> = format!("Bearer {}", tokens.access_token).parse()?;
        token.set_sensitive(true);
        Ok(Self { connect, token, password })
    }

    /// Makes a user with the same password, where an earlier run hasn't.
    pub(crate) async fn make_user(&self, user: &str) -> anyhow::Result<()> {
        let request = UserServiceCreateRequest {
            user: user.to_owned(),
            password: self.password.expose().to_owned(),
            ..UserServiceCreateRequest::default()
        };
        match UserServiceClient::new(self.channel().await?).create(self.asks(request)).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Err(status) => bail!("make the user {user}: {status}"),
        }
    }

    /// Somebody else with the same password, signed in at the same controller.
    pub(crate) async fn other(&self, user: &str) -> anyhow::Result<Self> {
        Self::sign_in(self.connect.clone(), user, self.password.clone()).await
    }

    /// A connection of its own.
    pub(crate) async fn channel(&self) -> anyhow::Result<Channel> {
        Ok(self.connect.channel().await?)
    }

    pub(crate) fn asks<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.token.clone());
        request
    }
}
