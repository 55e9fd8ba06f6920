//! Replacing the authority without a node being shut out.
//!
//! ```text
//!             ca.pem, ca-key.pem   ca-next.pem    signs for controllers   for nodes   accepted and handed out
//!   one       A                                   A                       A           A
//!    │ start
//!   two       A                    B              A                       B           A and B
//!    │ finish: every node's certificate is B's, so every node trusts B
//!   one       B                                   B                       B           B
//! ```
//!
//! A node learns B with the first certificate that B signs for it, which is its next renewal: within a day for those that
//! are up. Which authority signed a certificate is seen in its serial, which begins with four bytes of its authority's
//! pin; those from before this was so begin with none's.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use horcrux_transport::files;
use rcgen::KeyPair;

use super::{Authority, CaError, Pair, authority_params, random_hex, read, write};
use crate::store::nodes::NodeRow;

/// The new authority, certificate and key in one file, so that both come and go together.
const NEXT: &str = "ca-next.pem";
/// The same, once it is decided that it takes the old one's place.
const FINISHING: &str = "ca-finishing.pem";

/// Makes the authority that is to follow the one in `dir`.
pub fn start(dir: &Path) -> Result<(), CaError> {
    let path = dir.join(NEXT);
    let failed = |source| CaError::Write { path: path.clone(), source };
    let cluster = super::cluster(dir)?;
    let key = KeyPair::generate().map_err(CaError::Sign)?;
    // Two of one name are told apart by people and by programs that look for an issuer by its name.
    let name = format!("{cluster} {}", random_hex::<4>()?);
    let certificate = authority_params(&name)?.self_signed(&key).map_err(CaError::Sign)?;
    let made = dir.join(format!("{NEXT}.{}.partial", std::process::id()));
    let text = format!("{}{}", certificate.pem(), key.serialize_pem());
    write(&made, text.as_bytes())?;
    // Unlike a rename, a link never replaces the one that another `start` has made.
    let linked = fs::hard_link(&made, &path);
    fs::remove_file(&made).map_err(failed)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(CaError::Rotating),
        linked => linked.and_then(|()| sync(dir)).map_err(failed),
    }
}

/// Lets the new authority take the old one's place. Killed in between, it is completed by the next [`Authority::open`].
pub fn finish(dir: &Path) -> Result<(), CaError> {
    let path = dir.join(NEXT);
    match fs::rename(&path, dir.join(FINISHING)).and_then(|()| sync(dir)) {
        Ok(()) => resume(dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(CaError::NotRotating),
        Err(source) => Err(CaError::Write { path, source }),
    }
}

/// Completes what [`finish`] decided.
pub(super) fn resume(dir: &Path) -> Result<(), CaError> {
    let path = dir.join(FINISHING);
    if !path.exists() {
        return Ok(());
    }
    let text = read(&path)?;
    let (certificate, key) = parts(&path, &text)?;
    write(&dir.join("ca-key.pem"), key.as_bytes())?;
    write(&dir.join("ca.pem"), certificate.as_bytes())?;
    fs::remove_file(&path).map_err(|source| CaError::Write { path, source })
}

/// The authority that [`start`] made, while both count.
pub(super) fn next(dir: &Path) -> Result<Option<Pair>, CaError> {
    let path = dir.join(NEXT);
    if !path.exists() {
        return Ok(None);
    }
    files::read_private(&path).map_err(|source| CaError::Read { path: path.clone(), source })?;
    let text = read(&path)?;
    let (certificate, key) = parts(&path, &text)?;
    Pair::open(certificate, key, &path, &path).map(Some)
}

/// Nodes whose certificate is not from the newest authority.
#[must_use]
pub fn behind<'a>(authority: &Authority, nodes: &'a [NodeRow]) -> Vec<&'a NodeRow> {
    nodes.iter().filter(|node| !authority.newest().has_signed(&node.serial)).collect()
}

/// The certificate and the key.
fn parts<'a>(path: &Path, text: &'a str) -> Result<(&'a str, &'a str), CaError> {
    let at = text.find("-----BEGIN PRIVATE KEY-----");
    let damaged = || CaError::Damaged { path: path.to_owned(), reason: "it holds no key" };
    at.and_then(|at| text.split_at_checked(at)).ok_or_else(damaged)
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;
    use std::time::Duration;

    use horcrux_transport::client::{Connect, ConnectError, Target, Trust};
    use horcrux_transport::server::{self, Limits};
    use horcrux_transport::tasks::Stop;
    use horcrux_transport::tls::{self, CONTROLLER_NAME, Identity};
    use rcgen::CertificateParams;
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use super::super::{NodeCertificate, Request, now};
    use super::*;

    /// A node that keeps what it was given.
    struct Node {
        key: Vec<u8>,
        certificate: NodeCertificate,
        trusts: Vec<Vec<u8>>,
    }

    impl Node {
        /// Enrolled or renewed.
        fn served_by(authority: &Authority) -> Self {
            let key = KeyPair::generate().unwrap();
            let csr = CertificateParams::default().serialize_request(&key).unwrap();
            let request = Request::parse(csr.der()).unwrap();
            let certificate = authority.node(&request, "7f", now()).unwrap();
            Self { key: key.serialize_der(), certificate, trusts: authority.authorities() }
        }

        fn row(&self, name: &str) -> NodeRow {
            NodeRow {
                id: "7f".to_owned(),
                name: name.to_owned(),
                enrolled_ms: 0,
                serial: self.certificate.serial.clone(),
                expires_ms: self.certificate.expires_ms,
                last_seen_ms: None,
                agent_version: None,
                generation: 1,
                locked_ms: None,
                locked_reason: String::new(),
            }
        }

        fn identity(&self) -> Identity {
            Identity::from_der(vec![self.certificate.leaf.clone()], self.key.clone())
        }

        /// Reaches the agents' port of a controller of this authority, and is heard there.
        async fn reaches(&self, authority: &Authority) -> Result<bool, ConnectError> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let own = authority.controller(&[], now()).unwrap();
            let (_keep, config) = watch::channel(tls::agents_server(&own, &authority.authorities()).unwrap());
            let (heard, mut hears) = watch::channel(false);
            let service = move |_: http::Request<server::Incoming>| {
                heard.send_replace(true);
                async { Ok(http::Response::new(axum::body::Body::empty())) }
            };
            let limits = Limits {
                connections: 4,
                connections_per_source: 4,
                handshakes_per_source: 4,
                streams_per_connection: 4,
            };
            let mut serving = tokio::task::JoinSet::new();
            serving.spawn(server::serve(listener, config, limits, service, Stop::new()));
            let connect = Connect {
                server_name: Some(CONTROLLER_NAME),
                identity: Some(Arc::new(self.identity())),
                ..Connect::new(
                    Target { host: "127.0.0.1".to_owned(), port },
                    Trust::Authorities(self.trusts.clone()),
                    Duration::from_secs(5),
                )
            };
            let mut channel = connect.channel().await?;
            let asked = http::Request::post("/x").body(tonic::body::Body::empty()).unwrap();
            // A server that refuses a certificate says so after the client's handshake.
            let answered = tower::ServiceExt::<http::Request<tonic::body::Body>>::ready(&mut channel).await;
            let answered = match answered {
                Ok(channel) => tower::Service::call(channel, asked).await.is_ok(),
                Err(_) => false,
            };
            Ok(answered && *hears.borrow_and_update())
        }
    }

    fn open(dir: &Path) -> Authority {
        Authority::open(dir, true).unwrap()
    }

    fn made() -> (tempfile::TempDir, Authority) {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path(), false).unwrap();
        (dir, authority)
    }

    #[tokio::test]
    async fn a_node_that_renewed_in_between_survives_and_one_that_did_not_is_told() {
        let (dir, one) = made();
        let (late, early) = (Node::served_by(&one), Node::served_by(&one));
        start(dir.path()).unwrap();
        let two = open(dir.path());
        assert!(early.reaches(&two).await.unwrap(), "a node with a certificate of the old authority");
        assert_eq!(behind(&two, &[early.row("a"), late.row("b")]).len(), 2);
        let renewed = Node::served_by(&two);
        renewed.identity().check_as_client(&two.authorities()[1..]).unwrap();
        assert_eq!(renewed.trusts.len(), 2);
        assert!(renewed.reaches(&two).await.unwrap());
        let rows = [renewed.row("a"), late.row("b")];
        let left: Vec<_> = behind(&two, &rows).into_iter().map(|row| row.name.as_str()).collect();
        assert_eq!(left, ["b"]);
        finish(dir.path()).unwrap();
        let three = open(dir.path());
        assert!(renewed.reaches(&three).await.unwrap());
        let untrusted = late.reaches(&three).await.unwrap_err();
        assert!(untrusted.to_string().contains("from another authority"), "{untrusted}");
        let trusting = Node { trusts: three.authorities(), ..late };
        assert!(!trusting.reaches(&three).await.unwrap(), "its certificate is accepted for nothing");
    }

    #[test]
    fn the_pin_changes_when_what_agents_see_changes() {
        let (dir, one) = made();
        let fingerprint = || fs::read_to_string(dir.path().join("ca-fingerprint")).unwrap();
        start(dir.path()).unwrap();
        let two = open(dir.path());
        assert_eq!(two.pin().unwrap(), one.pin().unwrap());
        assert_eq!(fingerprint().trim(), one.pin().unwrap().to_string());
        assert_eq!(two.authorities().len(), 2);
        finish(dir.path()).unwrap();
        let three = open(dir.path());
        assert_eq!(three.authorities(), two.authorities()[1..]);
        assert_ne!(three.pin().unwrap(), one.pin().unwrap());
        assert_eq!(fingerprint().trim(), three.pin().unwrap().to_string());
        assert_eq!(three.cluster(), one.cluster());
    }

    #[test]
    fn steps_out_of_order_change_nothing() {
        let (dir, _) = made();
        assert!(matches!(finish(dir.path()), Err(CaError::NotRotating)));
        start(dir.path()).unwrap();
        let two = open(dir.path()).authorities();
        assert!(matches!(start(dir.path()), Err(CaError::Rotating)));
        assert_eq!(open(dir.path()).authorities(), two);
        let mode = fs::metadata(dir.path().join(NEXT)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_finish_that_is_killed_at_any_step_is_completed() {
        let (done, _) = made();
        start(done.path()).unwrap();
        let expected = open(done.path()).authorities()[1..].to_vec();
        let text = fs::read_to_string(done.path().join(NEXT)).unwrap();
        let (certificate, key) = parts(Path::new(NEXT), &text).unwrap();
        let steps: [&dyn Fn(); 4] = [
            &|| fs::rename(done.path().join(NEXT), done.path().join(FINISHING)).unwrap(),
            &|| write(&done.path().join("ca-key.pem"), key.as_bytes()).unwrap(),
            &|| write(&done.path().join("ca.pem"), certificate.as_bytes()).unwrap(),
            &|| fs::remove_file(done.path().join(FINISHING)).unwrap(),
        ];
        for step in steps {
            step();
            let killed = tempfile::tempdir().unwrap();
            for entry in fs::read_dir(done.path()).unwrap() {
                let entry = entry.unwrap();
                fs::copy(entry.path(), killed.path().join(entry.file_name())).unwrap();
            }
            assert_eq!(open(killed.path()).authorities(), expected);
            assert!(!killed.path().join(FINISHING).exists());
        }
    }

    #[test]
    fn a_second_rotation_knows_who_is_behind() {
        let (dir, _) = made();
        start(dir.path()).unwrap();
        finish(dir.path()).unwrap();
        let two = open(dir.path());
        let node = Node::served_by(&two);
        assert!(behind(&two, &[node.row("a")]).is_empty());
        start(dir.path()).unwrap();
        assert_eq!(behind(&open(dir.path()), &[node.row("a")]).len(), 1);
    }
}
