//! Certificates: what a peer shows, what we show, whom we trust. TLS 1.3 only; nothing turns it off. Servers that aren't
//! ours, where people's accounts are kept, may still speak TLS 1.2 ([`foreign_client`]).

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
pub use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
pub use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// The name in every controller's own certificate. Agents ask for it whatever address they dial, so that no address
/// can go stale in a certificate.
pub const CONTROLLER_NAME: &str = "controller.horcrux.internal";
/// What may wait encrypted, and so go out in one write: four of a console's longest messages with their headers. rustls would
/// make two writes of one of them.
pub(crate) const WRITTEN_AT_ONCE: usize = 257 << 10;

/// SHA-256 of a certificate's SubjectPublicKeyInfo. What a person compares and what a join token carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

/// A chain, leaf first, and its key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// What a peer's certificate says, after it was checked against the CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The first `spiffe://` name.
    pub spiffe: String,
    /// Lower-case hex.
    pub serial: String,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds no usable certificate", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{} holds no usable private key", path.display())]
    NoKey { path: PathBuf },
    #[error("not a certificate")]
    Malformed,
    #[error("use a certificate and key")]
    Rustls(#[source] rustls::Error),
    #[error("this machine trusts no certificate authority")]
    NoSystemRoots,
    #[error("trust a certificate authority")]
    Authority(#[source] rustls::server::VerifierBuilderError),
}

impl Pin {
    /// Of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Result<Self, TlsError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| TlsError::Malformed)?;
        let hash = digest(&SHA256, parsed.tbs_certificate.subject_pki.raw);
        let mut pin = [0; 32];
        pin.copy_from_slice(hash.as_ref());
        Ok(Self(pin))
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A fingerprint is 64 hex digits; colons and spaces between them are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 64 hex digits")]
pub struct InvalidPin;

impl FromStr for Pin {
    type Err = InvalidPin;

    fn from_str(text: &str) -> Result<Self, InvalidPin> {
        let digits: Vec<u32> = text
            .chars()
            .filter(|c| !matches!(c, ':' | ' '))
            .map(|c| c.to_digit(16).ok_or(InvalidPin))
            .collect::<Result<_, _>>()?;
        let bytes: Vec<u8> = digits
            .chunks_exact(2)
            .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).map_err(|_| InvalidPin))
            .collect::<Result<_, _>>()?;
        if digits.len() != 64 {
            return Err(InvalidPin);
        }
        bytes.try_into().map(Self).map_err(|_| InvalidPin)
    }
}

impl Identity {
    /// From PEM files. The key's file must hold one PKCS #8, SEC 1 or PKCS #1 key.
    pub fn from_files(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain_pem = read(chain)?;
        let certificates = CertificateDer::pem_slice_iter(&chain_pem)
            .collect::<Result<Vec<_>, _>>()
            .ok()
            .filter(|c| !c.is_empty())
            .ok_or_else(|| TlsError::NoCertificate { path: chain.to_owned() })?;
        let key_der = PrivateKeyDer::from_pem_slice(&read(key)?)
            .map_err(|_| TlsError::NoKey { path: key.to_owned() })?;
        Ok(Self { chain: certificates, key: key_der })
    }

    /// From DER: a chain, leaf first, and a PKCS #8 key.
    #[must_use]
    pub fn from_der(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Self {
        Self {
            chain: chain.into_iter().map(CertificateDer::from).collect(),
            key: PrivateKeyDer::Pkcs8(key.into()),
        }
    }

    /// Whether it serves as a client's: the key is the certificate's, and one of `authorities` (DER) signed that for
    /// clients. Its time isn't looked at: a clock that is wrong says nothing of a certificate.
    pub fn check_as_client(&self, authorities: &[Vec<u8>]) -> Result<(), TlsError> {
        self.certified()?;
        let leaf = self.chain.first().ok_or(TlsError::Malformed)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| TlsError::Malformed)?;
        let begins =
            u64::try_from(parsed.validity().not_before.timestamp()).map_err(|_| TlsError::Malformed)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authorities)?), crypto())
            .build()
            .map_err(TlsError::Authority)?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(begins + 1));
        verifier.verify_client_cert(leaf, &[], at).map_err(TlsError::Rustls)?;
        Ok(())
    }

    pub(crate) fn parts(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.chain.clone(), self.key.clone_key())
    }

    fn certified(&self) -> Result<Arc<CertifiedKey>, TlsError> {
        let key = CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), &crypto());
        key.map(Arc::new).map_err(TlsError::Rustls)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} certificates)", self.chain.len())
    }
}

/// The authorities in a PEM file, in DER.
pub fn authorities(path: &Path) -> Result<Vec<Vec<u8>>, TlsError> {
    let pem = read(path)?;
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).map(|c| c.to_vec()).collect();
    if found.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(found) }
}

/// For the public port: no client certificate is asked for. Who asks for [`CONTROLLER_NAME`] gets `internal`, so that
/// enrollment can check the CA pin even where `public` comes from another authority.
pub fn public_server(public: &Identity, internal: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
    let by_name = ByName { public: public.certified()?, internal: internal.certified()? };
    let mut config = ServerConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Rustls)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(by_name));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// For a port with one certificate, where no client certificate is asked for.
pub fn single_server(identity: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = identity.parts();
    let mut config = ServerConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Rustls)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Rustls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// For the agents' port: a client certificate from one of `authorities` (DER) is required.
pub fn agents_server(internal: &Identity, authorities: &[Vec<u8>]) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authorities)?), crypto())
        .build()
        .map_err(TlsError::Authority)?;
    let (chain, key) = internal.parts();
    let mut config = ServerConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Rustls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(TlsError::Rustls)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// For a server that isn't ours: a directory, an OpenID provider. It must come from one of the authorities in the PEM
/// file, or from one that the system trusts when there is no file.
///
/// TLS 1.2 is taken where the server has nothing newer: Active Directory before Windows Server 2022 has not. rustls
/// speaks it with forward secrecy and authenticated encryption only, and renegotiates never.
pub fn foreign_client(authorities: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let trusted = match authorities {
        Some(path) => roots(&self::authorities(path)?)?,
        None => system_roots()?,
    };
    let config = ClientConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Rustls)?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Makes `tcp` a connection to `host`, a name or an address that the server's certificate must hold.
pub async fn secure(
    config: &Arc<ClientConfig>,
    host: &str,
    tcp: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::clone(config)).connect(name, tcp).await
}

/// A system's store may hold a certificate that can't be used; the others count.
fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 { Err(TlsError::NoSystemRoots) } else { Ok(store) }
}

#[derive(Debug)]
struct ByName {
    public: Arc<CertifiedKey>,
    internal: Arc<CertifiedKey>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let internal = hello.server_name() == Some(CONTROLLER_NAME);
        Some(Arc::clone(if internal { &self.internal } else { &self.public }))
    }
}

/// What a checked certificate says of its holder; `None` when it has no SPIFFE name.
pub(crate) fn peer_certificate(der: &CertificateDer<'_>) -> Option<PeerCertificate> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let spiffe = names.value.general_names.iter().find_map(|name| {
        if let GeneralName::URI(uri) = name
            && uri.starts_with("spiffe://")
        {
            return Some((*uri).to_owned());
        }
        None
    })?;
    let serial = parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(PeerCertificate { spiffe, serial })
}

/// The `spiffe://` name in a certificate in DER.
pub fn name_of(leaf: &[u8]) -> Result<String, TlsError> {
    peer_certificate(&CertificateDer::from(leaf)).map(|c| c.spiffe).ok_or(TlsError::Malformed)
}

/// What [`PeerCertificate`] will say of a leaf that we signed.
pub fn serial_of(leaf: &[u8]) -> Result<String, TlsError> {
    peer_certificate(&CertificateDer::from(leaf)).map(|c| c.serial).ok_or(TlsError::Malformed)
}

pub(crate) fn roots(authorities: &[Vec<u8>]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for der in authorities {
        store.add(CertificateDer::from(der.clone())).map_err(TlsError::Rustls)?;
    }
    Ok(store)
}

pub(crate) fn crypto() -> Arc<CryptoProvider> {
    Arc::new(provider::default_provider())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}
