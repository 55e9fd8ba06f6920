//! Dialling a controller. The server's certificate is checked before the first byte of anything secret is sent.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

pub use crate::tls::{Identity, Pin};
use crate::tls::{TlsError, WRITTEN_AT_ONCE, crypto, roots};

/// How often an idle connection is probed, and how long the answer may take: a peer that vanished without a word is
/// noticed within their sum.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(5);

/// A host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub host: String,
    pub port: u16,
}

/// Whom a server's certificate must come from.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The chain that the server shows holds an authority with this public key.
    Pinned(Pin),
    /// One of these authorities, in DER.
    Authorities(Vec<Vec<u8>>),
}

/// How to connect.
#[derive(Clone, Debug)]
pub struct Connect {
    pub target: Target,
    pub trust: Trust,
    /// The name that the certificate must hold; the target's host when `None`.
    pub server_name: Option<&'static str>,
    /// What we show, where the server asks.
    pub identity: Option<Arc<Identity>>,
    /// What the program says it is, before what the library says.
    pub user_agent: Option<&'static str>,
    /// For TCP, TLS and HTTP/2 together.
    pub deadline: Duration,
}

/// What a server showed, unchecked.
#[derive(Clone, Debug)]
pub struct Presented {
    /// Of the chain's last certificate.
    pub pin: Pin,
    pub authority_der: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0} is not an address: expected https://HOST or https://HOST:PORT")]
    Target(String),
    #[error("{target} does not answer within {deadline:?}")]
    Deadline { target: Target, deadline: Duration },
    #[error("reach {target}")]
    Unreachable {
        target: Target,
        #[source]
        source: io::Error,
    },
    #[error(
        "{target} does not prove to be the controller that is trusted here: its certificate comes from another authority"
    )]
    Untrusted { target: Target },
    #[error("agree on TLS with {target}")]
    Tls {
        target: Target,
        #[source]
        source: io::Error,
    },
    #[error("use a certificate")]
    Certificate(#[source] TlsError),
    #[error("speak HTTP/2 with {target}")]
    Http {
        target: Target,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("{target} answers {status} where a WebSocket was asked for")]
    NotUpgraded { target: Target, status: http::StatusCode },
    #[error("open a WebSocket to {target}")]
    WebSocket {
        target: Target,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl FromStr for Target {
    type Err = ConnectError;

    fn from_str(text: &str) -> Result<Self, ConnectError> {
        let wrong = || ConnectError::Target(text.to_owned());
        let uri: http::Uri = text.parse().map_err(|_| wrong())?;
        // Who signs in is no part of an address: what stands there would be kept and shown.
        let names_a_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if uri.scheme_str() != Some("https")
            || names_a_user
            || !matches!(uri.path(), "" | "/")
            || uri.query().is_some()
        {
            return Err(wrong());
        }
        let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(DEFAULT_PUBLIC_PORT) })
    }
}

/// Where a controller listens for people when nothing else was said.
pub const DEFAULT_PUBLIC_PORT: u16 = 8006;

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "https://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "https://{}:{}", self.host, self.port)
        }
    }
}

/// Shows a server's authority to a person who must decide whether to trust it. Sends nothing but a TLS hello.
pub async fn presented(target: &Target, deadline: Duration) -> Result<Presented, ConnectError> {
    let seen = Arc::new(Seen::default());
    let config = client_config(seen.clone(), None).map_err(ConnectError::Certificate)?;
    // The handshake is refused by the verifier once it has seen the chain.
    let outcome = handshake(target, None, &Arc::new(config), deadline).await;
    let chain = seen.0.lock().map(|mut chain| chain.take()).ok().flatten();
    match (chain, outcome) {
        (Some(authority_der), _) => {
            let pin = Pin::of(&authority_der).map_err(ConnectError::Certificate)?;
            Ok(Presented { pin, authority_der })
        }
        (None, Err(error)) => Err(error),
        (None, Ok(_)) => Err(ConnectError::Untrusted { target: target.clone() }),
    }
}

impl Connect {
    /// To `target`, by its own name and with nothing to show.
    #[must_use]
    pub fn new(target: Target, trust: Trust, deadline: Duration) -> Self {
        Self { target, trust, server_name: None, identity: None, user_agent: None, deadline }
    }

    /// Connects now; a channel that breaks later connects again by itself when it is next used.
    pub async fn channel(&self) -> Result<Channel, ConnectError> {
        let config = Arc::new(self.config().map_err(ConnectError::Certificate)?);
        // The first connection is made here, where its failure can be told in full.
        let first = handshake(&self.target, self.server_name, &config, self.deadline).await?;
        let first = Arc::new(Mutex::new(Some(first)));
        let (target, name, deadline) = (self.target.clone(), self.server_name, self.deadline);
        let connector = tower::service_fn(move |_: http::Uri| {
            let ready = first.lock().ok().and_then(|mut first| first.take());
            let (target, config) = (target.clone(), Arc::clone(&config));
            async move {
                match ready {
                    Some(stream) => Ok(TokioIo::new(stream)),
                    None => handshake(&target, name, &config, deadline).await.map(TokioIo::new),
                }
            }
        });
        let plain = self.target.to_string().replacen("https", "http", 1);
        let wrong = |_| ConnectError::Target(self.target.to_string());
        let mut endpoint = Endpoint::from_shared(plain).map_err(wrong)?;
        if let Some(name) = self.user_agent {
            endpoint = endpoint.user_agent(name).map_err(wrong)?;
        }
        let endpoint = endpoint
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_ANSWER)
            .keep_alive_while_idle(true);
        endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|source| ConnectError::Http { target: self.target.clone(), source })
    }

    /// Whether the server lets nobody in without a certificate, as the port for agents does. It says so only when the
    /// client's side of TLS 1.3 is through, so that a request that was sent by then is lost without a reason.
    pub async fn needs_certificate(&self) -> bool {
        let Ok(config) = self.config() else { return false };
        let Ok(mut stream) =
            handshake(&self.target, self.server_name, &Arc::new(config), self.deadline).await
        else {
            return false;
        };
        let read = tokio::time::timeout(self.deadline, stream.read_u8()).await;
        read.is_ok_and(|read| read.is_err_and(|error| is_certificate_required(&error)))
    }

    pub(crate) fn config(&self) -> Result<ClientConfig, TlsError> {
        let verifier: Arc<dyn ServerCertVerifier> = match &self.trust {
            Trust::Pinned(pin) => Arc::new(PinnedAuthority(*pin)),
            Trust::Authorities(der) => {
                let roots = Arc::new(roots(der)?);
                rustls::client::WebPkiServerVerifier::builder_with_provider(roots, crypto())
                    .build()
                    .map_err(TlsError::Authority)?
            }
        };
        client_config(verifier, self.identity.as_deref())
    }
}

/// Connects to `target` by its own name.
pub async fn connect(target: &Target, trust: &Trust, deadline: Duration) -> Result<Channel, ConnectError> {
    Connect::new(target.clone(), trust.clone(), deadline).channel().await
}

fn client_config(
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<&Identity>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Rustls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity.map(Identity::parts) {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(TlsError::Rustls)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

pub(crate) async fn handshake(
    target: &Target,
    server_name: Option<&str>,
    config: &Arc<ClientConfig>,
    deadline: Duration,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ConnectError> {
    let name = ServerName::try_from(server_name.unwrap_or(&target.host).to_owned())
        .map_err(|_| ConnectError::Target(target.to_string()))?;
    let connected = tokio::time::timeout(deadline, async {
        let tcp = TcpStream::connect((target.host.as_str(), target.port))
            .await
            .map_err(|source| ConnectError::Unreachable { target: target.clone(), source })?;
        tcp.set_nodelay(true)
            .map_err(|source| ConnectError::Unreachable { target: target.clone(), source })?;
        let shaken = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await;
        let mut stream = shaken.map_err(|source| {
            if is_untrusted(&source) {
                ConnectError::Untrusted { target: target.clone() }
            } else {
                ConnectError::Tls { target: target.clone(), source }
            }
        })?;
        stream.get_mut().1.set_buffer_limit(Some(WRITTEN_AT_ONCE));
        Ok(stream)
    });
    connected.await.unwrap_or_else(|_| Err(ConnectError::Deadline { target: target.clone(), deadline }))
}

fn is_untrusted(error: &io::Error) -> bool {
    of_rustls(error).is_some_and(|error| {
        matches!(error, rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))
    })
}

fn is_certificate_required(error: &io::Error) -> bool {
    of_rustls(error).is_some_and(|error| {
        matches!(error, rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired))
    })
}

fn of_rustls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// Trusts the authority with the pinned key, wherever it stands in the chain that is shown.
#[derive(Debug)]
struct PinnedAuthority(Pin);

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned = others.iter().find(|der| Pin::of(der).is_ok_and(|pin| pin == self.0));
        let Some(authority) = pinned else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        let anchors = roots(&[authority.to_vec()]).map_err(|_| CertificateError::UnknownIssuer)?;
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = crypto().signature_verification_algorithms;
        verify_server_cert_signed_by_trust_anchor(&parsed, &anchors, others, now, algorithms.all)?;
        verify_server_name(&parsed, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &crypto().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &crypto().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        crypto().signature_verification_algorithms.supported_schemes()
    }
}

/// Keeps the last certificate that was shown, and trusts nobody.
#[derive(Debug, Default)]
struct Seen(Mutex<Option<Vec<u8>>>);

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Ok(mut seen) = self.0.lock() {
            *seen = Some(others.last().unwrap_or(leaf).to_vec());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        crypto().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_https_address() {
        let target: Target = "https://web1.example".parse().unwrap();
        assert_eq!(target, Target { host: "web1.example".into(), port: 8006 });
        let target: Target = "https://[::1]:9000/".parse().unwrap();
        assert_eq!(target, Target { host: "::1".into(), port: 9000 });
        for wrong in ["web1", "http://web1", "https://", "https://a/b", "https://a?x", "https://u:p@a"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_fingerprint_is_read_as_people_write_it() {
        let plain = "ab".repeat(32);
        let pin: Pin = plain.parse().unwrap();
        assert_eq!(pin.to_string(), plain);
        assert_eq!(vec!["AB"; 32].join(":").parse::<Pin>().unwrap(), pin);
        assert!("ab".repeat(31).parse::<Pin>().is_err());
        assert!("zz".repeat(32).parse::<Pin>().is_err());
    }
}
