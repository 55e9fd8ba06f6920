//! The controller's certificate authority: made at the first start, kept in the state directory, files 0600.
//!
//! It signs two kinds of certificate. A controller's says serverAuth and names the controller; a node's says clientAuth,
//! names the node and nothing else, and lives seven days. Neither passes for the other. While the authority is being
//! replaced there are two: see [`rotation`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use horcrux_transport::files;
use horcrux_transport::tls::{CONTROLLER_NAME, Identity, Pin, TlsError, serial_of};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

pub mod rotation;

const AUTHORITY_DAYS: i64 = 3650;
/// Made anew at each start, so its end is out of reach.
const CONTROLLER_DAYS: i64 = 397;
const NODE_DAYS: i64 = 7;
/// A node whose clock is behind ours by this much still takes its certificate for valid.
const CLOCK_SLACK: Duration = Duration::minutes(5);
/// The same of the controller's own, which is made anew at each start: a node that attached before attaches again, and is
/// told what its clock is worth.
const OWN_SLACK: Duration = Duration::days(30);

/// Signs certificates.
pub struct Authority {
    /// Signs for controllers, and for nodes while it is the only one.
    current: Pair,
    next: Option<Pair>,
    cluster: String,
}

/// An authority's key and certificate.
struct Pair {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
    /// What the serials of its certificates begin with.
    mark: [u8; 4],
}

/// A node's new certificate.
#[derive(Clone, Debug)]
pub struct NodeCertificate {
    pub leaf: Vec<u8>,
    /// Lower-case hex.
    pub serial: String,
    pub expires_ms: i64,
}

/// A certificate request that proved to hold its key.
#[derive(Debug)]
pub struct Request {
    params: CertificateSigningRequestParams,
    /// SHA-256 of its public key.
    pub key: [u8; 32],
}

#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is there and {} is not: restore it from a backup (a new authority would shut out every node), or, if this controller never ran, remove the first", there.display(), missing.display())]
    Half { there: PathBuf, missing: PathBuf },
    #[error("nodes are enrolled, and {} is gone: restore it and ca-key.pem and cluster from a backup; a new authority would shut out every node", path.display())]
    Lost { path: PathBuf },
    #[error("{} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: &'static str },
    #[error("the authority is being replaced already: see `horcrux-controld rotate-ca status`")]
    Rotating,
    #[error("the authority is not being replaced: begin with `horcrux-controld rotate-ca start`")]
    NotRotating,
    #[error("make or sign a certificate")]
    Sign(#[source] rcgen::Error),
    #[error("read back a certificate")]
    Inspect(#[source] TlsError),
    #[error("no randomness")]
    Random,
    #[error("the certificate request is not valid")]
    Request,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.cluster)
    }
}

impl Authority {
    /// Opens the authority in `dir`, or makes it where there is none and no node has a certificate yet.
    pub fn open(dir: &Path, has_nodes: bool) -> Result<Self, CaError> {
        rotation::resume(dir)?;
        let (key_path, cert_path, cluster_path) =
            (dir.join("ca-key.pem"), dir.join("ca.pem"), dir.join("cluster"));
        if !cert_path.exists() {
            if key_path.exists() {
                return Err(CaError::Half { there: key_path, missing: cert_path });
            }
            if has_nodes {
                return Err(CaError::Lost { path: cert_path });
            }
            let cluster = random_hex::<8>()?;
            let key = KeyPair::generate().map_err(CaError::Sign)?;
            let certificate = authority_params(&cluster)?.self_signed(&key).map_err(CaError::Sign)?;
            write(&cluster_path, cluster.as_bytes())?;
            write(&key_path, key.serialize_pem().as_bytes())?;
            // Last: its presence says that the others are there.
            write(&cert_path, certificate.pem().as_bytes())?;
        }
        let key = files::read_private(&key_path)
            .map_err(|source| CaError::Read { path: key_path.clone(), source })?;
        let key = String::from_utf8_lossy(&key);
        let current = Pair::open(&read(&cert_path)?, &key, &cert_path, &key_path)?;
        let authority = Self { current, next: rotation::next(dir)?, cluster: cluster(dir)? };
        write(&dir.join("ca-fingerprint"), format!("{}\n", authority.pin()?).as_bytes())?;
        Ok(authority)
    }

    /// What join tokens carry and people compare: of the authority whose name is on controllers' certificates.
    pub fn pin(&self) -> Result<Pin, CaError> {
        Pin::of(&self.current.der).map_err(CaError::Inspect)
    }

    /// Of the same, in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.current.der
    }

    /// All whose certificates are accepted and that nodes are told to trust, in DER: two while one is being replaced.
    #[must_use]
    pub fn authorities(&self) -> Vec<Vec<u8>> {
        [Some(&self.current), self.next.as_ref()].into_iter().flatten().map(|pair| pair.der.clone()).collect()
    }

    /// Whether another is to take its place.
    #[must_use]
    pub fn is_rotating(&self) -> bool {
        self.next.is_some()
    }

    /// Signs for nodes.
    fn newest(&self) -> &Pair {
        self.next.as_ref().unwrap_or(&self.current)
    }

    /// Names this cluster in certificates.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// A certificate for this controller, good for `names` and for agents, with a key that never leaves memory.
    pub fn controller(&self, names: &[String], now: OffsetDateTime) -> Result<Identity, CaError> {
        let key = KeyPair::generate().map_err(CaError::Sign)?;
        let mut all = vec![CONTROLLER_NAME.to_owned()];
        all.extend(names.iter().cloned());
        let mut params = CertificateParams::new(all).map_err(CaError::Sign)?;
        params.distinguished_name.push(DnType::CommonName, "Horcrux controller");
        params.subject_alt_names.push(self.spiffe("controller", "0")?);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        (params.not_before, params.not_after) = (now - OWN_SLACK, now + Duration::days(CONTROLLER_DAYS));
        params.serial_number = Some(self.current.serial()?);
        let signed = params.signed_by(&key, &self.current.issuer).map_err(CaError::Sign)?;
        Ok(Identity::from_der(vec![signed.der().to_vec(), self.current.der.clone()], key.serialize_der()))
    }

    /// A node's certificate. Of the request only the public key is used.
    pub fn node(
        &self,
        request: &Request,
        node_id: &str,
        now: OffsetDateTime,
    ) -> Result<NodeCertificate, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Horcrux node");
        params.subject_alt_names = vec![self.spiffe("node", node_id)?];
        params.is_ca = IsCa::ExplicitNoCa;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.not_before = now - CLOCK_SLACK;
        params.not_after = now + Duration::days(NODE_DAYS) - CLOCK_SLACK;
        let pair = self.newest();
        params.serial_number = Some(pair.serial()?);
        let expires_ms = unix_ms(params.not_after);
        let signed = params.signed_by(&request.params.public_key, &pair.issuer).map_err(CaError::Sign)?;
        let leaf = signed.der().to_vec();
        Ok(NodeCertificate { serial: serial_of(&leaf).map_err(CaError::Inspect)?, leaf, expires_ms })
    }

    /// The node id in a certificate's name, if it is a node's of this cluster.
    #[must_use]
    pub fn node_id<'a>(&self, spiffe: &'a str) -> Option<&'a str> {
        let rest = spiffe.strip_prefix("spiffe://")?.strip_prefix(self.cluster.as_str())?;
        rest.strip_prefix("/node/").filter(|id| !id.is_empty() && !id.contains('/'))
    }

    fn spiffe(&self, role: &str, id: &str) -> Result<SanType, CaError> {
        let uri = format!("spiffe://{}/{role}/{id}", self.cluster);
        uri.try_into().map(SanType::URI).map_err(CaError::Sign)
    }
}

impl Pair {
    /// From PEM; the files are named where something is wrong with them.
    fn open(certificate: &str, key: &str, cert_path: &Path, key_path: &Path) -> Result<Self, CaError> {
        let damaged = |path: &Path, reason| CaError::Damaged { path: path.to_owned(), reason };
        let key = KeyPair::from_pem(key).map_err(|_| damaged(key_path, "it holds no key"))?;
        let public = digest(&SHA256, &rcgen::PublicKeyData::subject_public_key_info(&key));
        let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(CaError::Sign)?;
        let ders = horcrux_transport::tls::authorities(cert_path).map_err(CaError::Inspect)?;
        let der = ders.into_iter().next().ok_or(CaError::Request)?;
        let pin = Pin::of(&der).map_err(CaError::Inspect)?;
        if pin.as_bytes() != public.as_ref() {
            return Err(damaged(key_path, "it is the key of another certificate than the authority's"));
        }
        let [a, b, c, d, ..] = *pin.as_bytes();
        // Positive, and never shorter than its bytes.
        Ok(Self { issuer, der, mark: [a & 0x7f | 0x40, b, c, d] })
    }

    fn serial(&self) -> Result<SerialNumber, CaError> {
        let mut bytes = [0; 16];
        SystemRandom::new().fill(&mut bytes).map_err(|_| CaError::Random)?;
        bytes[..self.mark.len()].copy_from_slice(&self.mark);
        Ok(SerialNumber::from_slice(&bytes))
    }

    /// Whether this serial, in hex, is of a certificate that it signed.
    fn has_signed(&self, serial: &str) -> bool {
        let mark: String = self.mark.iter().map(|byte| format!("{byte:02x}")).collect();
        serial.starts_with(&mark)
    }
}

impl Request {
    /// From PKCS #10 in DER; its own signature is checked.
    pub fn parse(der: &[u8]) -> Result<Self, CaError> {
        let params = CertificateSigningRequestParams::from_der(&der.into()).map_err(|_| CaError::Request)?;
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, rcgen::PublicKeyData::der_bytes(&params.public_key)).as_ref());
        Ok(Self { params, key })
    }
}

/// Random bytes in hex.
pub fn random_hex<const BYTES: usize>() -> Result<String, CaError> {
    let mut bytes = [0; BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| CaError::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The cluster's name in `dir`.
fn cluster(dir: &Path) -> Result<String, CaError> {
    let path = dir.join("cluster");
    let cluster = read(&path)?.trim().to_owned();
    if cluster.is_empty() || !cluster.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(CaError::Damaged { path, reason: "it holds no cluster's name" });
    }
    Ok(cluster)
}

fn authority_params(name: &str) -> Result<CertificateParams, CaError> {
    let now = now();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("Horcrux CA {name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (now - CLOCK_SLACK, now + Duration::days(AUTHORITY_DAYS));
    params.serial_number = Some(serial()?);
    Ok(params)
}

fn serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| CaError::Random)?;
    // Positive, and never shorter than its bytes.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// The clock as certificates want it.
#[must_use]
pub fn now() -> OffsetDateTime {
    let ms = horcrux_transport::clock::unix_ms();
    OffsetDateTime::from_unix_timestamp(ms / 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn unix_ms(at: OffsetDateTime) -> i64 {
    at.unix_timestamp().saturating_mul(1000)
}

fn read(path: &Path) -> Result<String, CaError> {
    fs::read_to_string(path).map_err(|source| CaError::Read { path: path.to_owned(), source })
}

fn write(path: &Path, content: &[u8]) -> Result<(), CaError> {
    files::write_private(path, content).map_err(|source| CaError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn request(names: &[&str]) -> Request {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
        let csr = CertificateParams::new(names).unwrap().serialize_request(&key).unwrap();
        Request::parse(csr.der()).unwrap()
    }

    #[test]
    fn the_authority_is_the_same_after_a_restart_and_its_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open(dir.path(), false).unwrap().pin().unwrap();
        assert_eq!(Authority::open(dir.path(), false).unwrap().pin().unwrap(), first);
        for file in ["ca-key.pem", "ca.pem", "cluster"] {
            let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn a_node_gets_its_own_name_whatever_it_asked_for_and_seven_days_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path(), false).unwrap();
        let issued = authority.node(&request(&["controller.horcrux.internal"]), "ab12", now()).unwrap();
        let text = String::from_utf8_lossy(&issued.leaf).into_owned();
        assert!(!text.contains("controller.horcrux"), "a name of the request was copied");
        assert!(text.contains(&format!("spiffe://{}/node/ab12", authority.cluster())));
        assert!(issued.expires_ms - horcrux_transport::clock::unix_ms() <= NODE_DAYS * 86_400_000);
    }

    #[test]
    fn a_controllers_name_is_no_nodes() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path(), false).unwrap();
        let cluster = authority.cluster().to_owned();
        assert_eq!(authority.node_id(&format!("spiffe://{cluster}/node/7f")), Some("7f"));
        assert_eq!(authority.node_id(&format!("spiffe://{cluster}/controller/0")), None);
        assert_eq!(authority.node_id("spiffe://other/node/7f"), None);
        assert_eq!(authority.node_id(&format!("spiffe://{cluster}/node/7f/x")), None);
    }

    #[test]
    fn an_authority_that_lost_a_part_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("ca-key.pem");
        Authority::open(dir.path(), false).unwrap();
        let kept = fs::read(&key).unwrap();
        fs::remove_file(dir.path().join("ca.pem")).unwrap();
        assert!(matches!(Authority::open(dir.path(), false), Err(CaError::Half { .. })));
        assert_eq!(fs::read(&key).unwrap(), kept);
        fs::remove_file(&key).unwrap();
        assert!(matches!(Authority::open(dir.path(), true), Err(CaError::Lost { .. })));
        assert!(!key.exists());
    }

    #[test]
    fn parts_that_do_not_belong_together_are_told() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Authority::open(dir.path(), false).unwrap();
        Authority::open(other.path(), false).unwrap();
        fs::copy(other.path().join("ca-key.pem"), dir.path().join("ca-key.pem")).unwrap();
        assert!(matches!(Authority::open(dir.path(), false), Err(CaError::Damaged { .. })));
        fs::write(other.path().join("cluster"), "").unwrap();
        assert!(matches!(Authority::open(other.path(), false), Err(CaError::Damaged { .. })));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert!(Request::parse(b"x").is_err());
    }
}
