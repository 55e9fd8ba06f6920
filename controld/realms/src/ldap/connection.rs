//! One connection to a directory server.

use std::io;
use std::os::unix::net::UnixStream as Pair;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Fuse, join};
use horcrux_transport::secret::Secret;
use horcrux_transport::tls::{self, ClientConfig};
use ldap3::{
    DerefAliases, Ldap, LdapConnAsync, LdapConnSettings, LdapError, Scope, SearchEntry, SearchOptions,
    StdStream,
};
use tokio::net::{TcpStream, UnixStream};
use url::Url;

use super::address::Address;
use super::wire;
use crate::{RealmError, Refusal};

/// Moves its bytes only while something is asked of it; ends when dropped.
pub(super) struct Connection {
    ldap: Ldap,
    driving: Fuse<BoxFuture<'static, io::Result<()>>>,
}

/// What a search gave.
pub(super) enum Found {
    /// All there are.
    All(Vec<SearchEntry>),
    /// More than were asked for.
    TooMany,
}

#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("connect to {0}")]
    Connect(Address, #[source] io::Error),
    #[error("agree on TLS with {0}")]
    Tls(Address, #[source] io::Error),
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    #[error("speak LDAP")]
    Ldap(#[source] LdapError),
    #[error("the directory answers with result {code}: {text}")]
    Result { code: u32, text: String },
}

/// Results of RFC 4511, appendix A.
mod result {
    pub(super) const SUCCESS: u32 = 0;
    pub(super) const SIZE_LIMIT_EXCEEDED: u32 = 4;
    pub(super) const STRONGER_AUTH_REQUIRED: u32 = 8;
    pub(super) const CONFIDENTIALITY_REQUIRED: u32 = 13;
    pub(super) const CONSTRAINT_VIOLATION: u32 = 19;
    pub(super) const NO_SUCH_OBJECT: u32 = 32;
    pub(super) const INVALID_DN_SYNTAX: u32 = 34;
    pub(super) const INAPPROPRIATE_AUTHENTICATION: u32 = 48;
    pub(super) const INVALID_CREDENTIALS: u32 = 49;
    pub(super) const INSUFFICIENT_ACCESS_RIGHTS: u32 = 50;
    pub(super) const UNWILLING_TO_PERFORM: u32 = 53;
}

impl Connection {
    /// TLS is there when this returns.
    pub(super) async fn open(address: &Address, config: &Arc<ClientConfig>) -> Result<Self, RealmError> {
        let connect = |source| RealmError::unavailable(ConnectionError::Connect(address.clone(), source));
        let secure = |source| RealmError::unavailable(ConnectionError::Tls(address.clone(), source));
        let mut tcp = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(connect)?;
        tcp.set_nodelay(true).map_err(connect)?;
        if address.start_tls {
            wire::start_tls(&mut tcp).await.map_err(secure)?;
        }
        let server = tls::secure(config, &address.host, tcp).await.map_err(secure)?;

        let (ours, theirs) = Pair::pair().map_err(connect)?;
        ours.set_nonblocking(true).map_err(connect)?;
        let ours = UnixStream::from_std(ours).map_err(connect)?;
        let settings = LdapConnSettings::new().set_std_stream(StdStream::Unix(theirs));
        let local = Url::parse("ldapi:///").map_err(|e| connect(io::Error::other(e)))?;
        let (connection, ldap) =
            LdapConnAsync::from_url_with_settings(settings, &local).await.map_err(unavailable)?;
        let driving = join(connection.drive(), wire::relay(server, ours)).map(|(_, relayed)| relayed);
        Ok(Self { ldap, driving: driving.boxed().fuse() })
    }

    /// As a person: any answer that may be about them or their password is a refusal.
    pub(super) async fn bind_person(&mut self, dn: &str, password: &Secret) -> Result<(), RealmError> {
        match self.bind(dn, password).await? {
            (result::SUCCESS, _) => Ok(()),
            (
                code @ (result::CONSTRAINT_VIOLATION
                | result::NO_SUCH_OBJECT
                | result::INVALID_DN_SYNTAX
                | result::INAPPROPRIATE_AUTHENTICATION
                | result::INVALID_CREDENTIALS
                | result::INSUFFICIENT_ACCESS_RIGHTS
                | result::UNWILLING_TO_PERFORM),
                _,
            ) => Err(RealmError::Refused(Refusal::Password(code))),
            (code, text) => Err(failed(code, &text)),
        }
    }

    /// As the account that searches.
    pub(super) async fn bind_service(&mut self, dn: &str, password: &Secret) -> Result<(), RealmError> {
        match self.bind(dn, password).await? {
            (result::SUCCESS, _) => Ok(()),
            (
                code @ (result::STRONGER_AUTH_REQUIRED
                | result::CONFIDENTIALITY_REQUIRED
                | result::NO_SUCH_OBJECT
                | result::INVALID_DN_SYNTAX
                | result::INAPPROPRIATE_AUTHENTICATION
                | result::INVALID_CREDENTIALS
                | result::INSUFFICIENT_ACCESS_RIGHTS
                | result::UNWILLING_TO_PERFORM),
                _,
            ) => Err(RealmError::Misconfigured(format!("the directory refuses {dn} (result {code})"))),
            (code, text) => Err(failed(code, &text)),
        }
    }

    async fn bind(&mut self, dn: &str, password: &Secret) -> Result<(u32, String), RealmError> {
        let mut ldap = self.ldap.clone();
        let answer = self.run(async move { ldap.simple_bind(dn, password.expose()).await }).await?;
        Ok((answer.rc, answer.text))
    }

    /// Entries below `base`, at most `limit`. References to other servers are passed over: who could put one there
    /// would say who signs in.
    pub(super) async fn search(
        &mut self,
        base: &str,
        filter: &str,
        attributes: &[&str],
        limit: usize,
    ) -> Result<Found, RealmError> {
        self.find(base, Scope::Subtree, filter, attributes, limit).await
    }

    /// One entry by its name, if it is there.
    pub(super) async fn entry(
        &mut self,
        dn: &str,
        attributes: &[&str],
    ) -> Result<Option<SearchEntry>, RealmError> {
        match self.find(dn, Scope::Base, "(objectClass=*)", attributes, 1).await? {
            Found::All(mut entries) => Ok(entries.pop()),
            Found::TooMany => Ok(None),
        }
    }

    async fn find(
        &mut self,
        base: &str,
        scope: Scope,
        filter: &str,
        attributes: &[&str],
        limit: usize,
    ) -> Result<Found, RealmError> {
        let mut ldap = self.ldap.clone();
        let asked = i32::try_from(limit).unwrap_or(i32::MAX);
        ldap.with_search_options(SearchOptions::new().deref(DerefAliases::Never).sizelimit(asked));
        let attributes = attributes.to_vec();
        let (entries, answer) = self
            .run(async move {
                let mut stream = ldap.streaming_search(base, scope, filter, attributes).await?;
                let mut entries = Vec::new();
                // A server may not keep to the limit.
                while entries.len() <= limit
                    && let Some(item) = stream.next().await?
                {
                    if !item.is_ref() && !item.is_intermediate() {
                        entries.push(SearchEntry::construct(item));
                    }
                }
                Ok((entries, stream.finish().await))
            })
            .await?;
        match answer.rc {
            _ if entries.len() > limit => Ok(Found::TooMany),
            result::SUCCESS => Ok(Found::All(entries)),
            result::SIZE_LIMIT_EXCEEDED => Ok(Found::TooMany),
            result::NO_SUCH_OBJECT => Err(RealmError::Misconfigured(format!("the directory has no {base}"))),
            code => Err(failed(code, &answer.text)),
        }
    }

    /// Says farewell, so that the server doesn't take it for a fault.
    pub(super) async fn close(mut self) {
        let mut ldap = self.ldap.clone();
        if let Err(error) = self.run(async move { ldap.unbind().await }).await {
            tracing::trace!(%error, "connection to a directory not ended in order");
        }
    }

    async fn run<T>(&mut self, work: impl Future<Output = Result<T, LdapError>>) -> Result<T, RealmError> {
        tokio::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => done.map_err(unavailable),
            // It may have ended after the answer came.
            ended = &mut self.driving => match (work.await, ended) {
                (Ok(done), _) => Ok(done),
                (Err(_), Err(why)) => Err(RealmError::unavailable(ConnectionError::Broken(why))),
                (Err(why), Ok(())) => Err(unavailable(why)),
            },
        }
    }
}

fn unavailable(source: LdapError) -> RealmError {
    RealmError::unavailable(ConnectionError::Ldap(source))
}

fn failed(code: u32, text: &str) -> RealmError {
    RealmError::unavailable(ConnectionError::Result { code, text: crate::text::display(text) })
}
