//! Join tokens and what they buy: `hxj_<id>.<secret>.<pin of the CA>`. A token works once; the same key is answered again
//! for a while if the answer was lost.

use std::sync::Arc;
use std::time::Duration;

use horcrux_proto::name::NodeName;
use horcrux_transport::secret::Secret;

use super::ca::{self, Authority, CaError, NodeCertificate, Request, random_hex};
use crate::access::keys::{hash, random_text};
use crate::store::nodes::{Claim, Issued, JoinError, JoinTokenRow, Joined};
use crate::store::{Store, StoreError};

pub const DEFAULT_TTL: Duration = Duration::from_secs(30 * 60);
pub const MIN_TTL: Duration = Duration::from_secs(60);
pub const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

/// Gives nodes their identity.
#[derive(Clone, Debug)]
pub struct Enrollment {
    store: Store,
    authority: Arc<Authority>,
}

#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    #[error("the join token is not valid: it is wrong, expired or was used before")]
    Refused,
    #[error(
        "a node named {0} is enrolled already: `horcruxctl node reenroll {0}` makes a token that brings it back; another \
         host needs another name, or `node remove {0}` first"
    )]
    NameTaken(String),
    #[error("no node named {0} is enrolled")]
    NotEnrolled(String),
    #[error(
        "the node was locked after this token was made: a new token of `horcruxctl node reenroll` brings it back"
    )]
    Locked,
    #[error(
        "the token is for another node than this host is: `horcruxctl node reenroll {0}` makes one for it; to give the \
         host another name, remove {0} first"
    )]
    Another(String),
    #[error("this certificate is no longer accepted: its node was locked, deleted or enrolled again")]
    Replaced,
    #[error("the certificate request is not valid")]
    Request,
    #[error("sign a certificate")]
    Authority(#[source] CaError),
    #[error("record an enrollment")]
    Store(#[source] StoreError),
    #[error("no randomness")]
    Random,
}

/// A node that was just enrolled.
#[derive(Debug)]
pub struct Enrolled {
    pub name: String,
    pub id: String,
    pub generation: i64,
    pub certificate: NodeCertificate,
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Enroll,
    /// A node that is enrolled gets a certificate again, and keeps its name and id.
    Reenroll,
}

impl Enrollment {
    #[must_use]
    pub fn new(store: Store, authority: Arc<Authority>) -> Self {
        Self { store, authority }
    }

    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Refuses a token that could not be used.
    pub async fn check_token(
        &self,
        node: &NodeName,
        purpose: Purpose,
    ) -> Result<Option<String>, EnrollError> {
        let row = self.store.node(node.as_str()).await.map_err(EnrollError::Store)?;
        match (purpose, row) {
            (Purpose::Enroll, Some(_)) => Err(EnrollError::NameTaken(node.to_string())),
            (Purpose::Reenroll, None) => Err(EnrollError::NotEnrolled(node.to_string())),
            (Purpose::Enroll, None) => Ok(None),
            (Purpose::Reenroll, Some(row)) => Ok(Some(row.id)),
        }
    }

    /// Makes a token; returns it and its end.
    pub async fn create_token(
        &self,
        node: &NodeName,
        purpose: Purpose,
        ttl: Duration,
        now_ms: i64,
    ) -> Result<(Secret, i64), EnrollError> {
        let reenrolls = self.check_token(node, purpose).await?;
        let id = random_hex::<8>().map_err(EnrollError::Authority)?;
        let secret = random_text::<32>().map_err(|_| EnrollError::Random)?;
        let expires_ms = now_ms + i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        let row = JoinTokenRow {
            id: id.clone(),
            hash: hash(&secret),
            node_name: node.to_string(),
            created_ms: now_ms,
            expires_ms,
            reenrolls,
        };
        self.store.insert_join_token(&row).await.map_err(EnrollError::Store)?;
        let pin = self.authority.pin().map_err(EnrollError::Authority)?;
        Ok((format!("hxj_{id}.{secret}.{pin}").into(), expires_ms))
    }

    /// Whether there is such a token that nobody has used yet.
    pub async fn knows(&self, token_id: &str, secret: &Secret, now_ms: i64) -> Result<bool, EnrollError> {
        let known = self.store.knows_join_token(token_id, &hash(secret.expose()), now_ms).await;
        known.map_err(EnrollError::Store)
    }

    /// Redeems a token.
    pub async fn enroll(
        &self,
        token_id: &str,
        secret: &Secret,
        csr: &[u8],
        enrolled_as: Option<&str>,
        now_ms: i64,
    ) -> Result<Enrolled, EnrollError> {
        let request = Request::parse(csr).map_err(|_| EnrollError::Request)?;
        let new_id = random_hex::<16>().map_err(EnrollError::Authority)?;
        let claim = Claim {
            token_id,
            token_hash: &hash(secret.expose()),
            key: &request.key,
            new_id: &new_id,
            // Of another authority: it was another controller's.
            enrolled_as: enrolled_as.and_then(|identity| self.authority.node_id(identity)),
        };
        let issue = |id: &str| self.authority.node(&request, id, ca::now()).map(with_issued);
        match self.store.join(claim, issue, now_ms).await {
            Ok(Joined::Node { id, name, generation, certificate }) => {
                Ok(Enrolled { name, id, generation, certificate })
            }
            Ok(Joined::NameTaken(name)) => Err(EnrollError::NameTaken(name)),
            Ok(Joined::Locked) => Err(EnrollError::Locked),
            Ok(Joined::Another(name)) => Err(EnrollError::Another(name)),
            Ok(Joined::Refused) => Err(EnrollError::Refused),
            Err(JoinError::Store(source)) => Err(EnrollError::Store(source)),
            Err(JoinError::Issue(source)) => Err(EnrollError::Authority(source)),
        }
    }

    /// A new certificate for a node whose current one is `serial`.
    pub async fn renew(
        &self,
        node_id: &str,
        serial: &str,
        csr: &[u8],
    ) -> Result<NodeCertificate, EnrollError> {
        let request = Request::parse(csr).map_err(|_| EnrollError::Request)?;
        let certificate =
            self.authority.node(&request, node_id, ca::now()).map_err(EnrollError::Authority)?;
        let (certificate, issued) = with_issued(certificate);
        let renewed = self.store.renew(node_id, serial, &issued).await.map_err(EnrollError::Store)?;
        renewed.then_some(certificate).ok_or(EnrollError::Replaced)
    }
}

fn with_issued(certificate: NodeCertificate) -> (NodeCertificate, Issued) {
    let issued = Issued { serial: certificate.serial.clone(), expires_ms: certificate.expires_ms };
    (certificate, issued)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::store::nodes::Admitted;

    const MADE_MS: i64 = 1_000_000;
    const TTL: Duration = Duration::from_secs(60);

    struct Fixture {
        enrollment: Enrollment,
        id: String,
        secret: Secret,
        // Dropped last: the databases are in it.
        _dir: tempfile::TempDir,
    }

    async fn with_token() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let enrollment = Enrollment::new(store, Arc::new(Authority::open(dir.path(), false).unwrap()));
        let (token, expires_ms) =
            enrollment.create_token(&node(), Purpose::Enroll, TTL, MADE_MS).await.unwrap();
        assert_eq!(expires_ms, MADE_MS + 60_000);
        let (id, secret) = parts(&token);
        Fixture { enrollment, id, secret, _dir: dir }
    }

    fn node() -> NodeName {
        "web1".parse().unwrap()
    }

    fn request() -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
    }

    #[tokio::test]
    async fn a_token_is_worth_nothing_after_its_end() {
        let Fixture { enrollment, id, secret, _dir } = with_token().await;
        let late = enrollment.enroll(&id, &secret, &request(), None, MADE_MS + 60_000).await;
        assert!(matches!(late, Err(EnrollError::Refused)), "{late:?}");
        let in_time = enrollment.enroll(&id, &secret, &request(), None, MADE_MS + 59_999).await.unwrap();
        assert_eq!(in_time.name, "web1", "a refusal used nothing up");
    }

    #[tokio::test]
    async fn a_hundred_redeem_one_token_at_once_and_one_wins() {
        let Fixture { enrollment, id, secret, _dir } = with_token().await;
        let secret = Arc::new(secret);
        let mut racing = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (enrollment, id, secret) = (enrollment.clone(), id.clone(), Arc::clone(&secret));
            racing.spawn(async move { enrollment.enroll(&id, &secret, &request(), None, MADE_MS).await });
        }
        let outcomes = racing.join_all().await;
        let refused = outcomes.iter().filter(|o| matches!(o, Err(EnrollError::Refused))).count();
        assert_eq!((outcomes.iter().filter(|o| o.is_ok()).count(), refused), (1, 99), "{outcomes:?}");
    }

    #[tokio::test]
    async fn a_request_that_is_not_one_uses_nothing_up() {
        let Fixture { enrollment, id, secret, _dir } = with_token().await;
        let garbage = enrollment.enroll(&id, &secret, b"garbage", None, MADE_MS).await;
        assert!(matches!(garbage, Err(EnrollError::Request)), "{garbage:?}");
        enrollment.enroll(&id, &secret, &request(), None, MADE_MS).await.unwrap();
    }

    async fn enrolled() -> (Fixture, Enrolled) {
        let fixture = with_token().await;
        let Fixture { enrollment, id, secret, .. } = &fixture;
        let enrolled = enrollment.enroll(id, secret, &request(), None, MADE_MS).await.unwrap();
        (fixture, enrolled)
    }

    #[tokio::test]
    async fn the_first_use_of_a_renewed_certificate_retires_the_one_before() {
        let (fixture, Enrolled { id, certificate: first, .. }) = enrolled().await;
        let Fixture { enrollment, .. } = &fixture;
        let second = enrollment.renew(&id, &first.serial, &request()).await.unwrap();
        let admit = async |serial: &str| enrollment.store.admit(&id, serial).await.unwrap();
        assert!(matches!(admit(&first.serial).await, Admitted::Node(_)), "until the new one is used");
        let Admitted::Node(row) = admit(&second.serial).await else { panic!("the new one is refused") };
        assert_eq!((row.generation, &row.serial), (2, &second.serial));
        assert!(matches!(admit(&first.serial).await, Admitted::Retired(_)));
        assert!(matches!(admit("00").await, Admitted::Unknown));
        enrollment.store.lock_node(&id, Some(("why", 5))).await.unwrap();
        assert!(matches!(admit(&second.serial).await, Admitted::Locked(row) if row.locked_reason == "why"));
        enrollment.store.lock_node(&id, None).await.unwrap();
        assert!(matches!(admit(&second.serial).await, Admitted::Node(_)));
    }

    #[tokio::test]
    async fn a_node_that_is_brought_back_keeps_its_id_and_its_old_certificate_is_worth_nothing() {
        let (fixture, Enrolled { id, certificate: old, .. }) = enrolled().await;
        let Fixture { enrollment, .. } = &fixture;
        let again = enrollment.create_token(&node(), Purpose::Enroll, TTL, MADE_MS).await;
        assert!(matches!(again, Err(EnrollError::NameTaken(_))), "{again:?}");
        let (token, _) = enrollment.create_token(&node(), Purpose::Reenroll, TTL, MADE_MS).await.unwrap();
        let (token_id, secret) = parts(&token);
        let back = enrollment.enroll(&token_id, &secret, &request(), None, MADE_MS).await.unwrap();
        assert_eq!((&back.id, back.name.as_str()), (&id, "web1"));
        assert_eq!(enrollment.store.admit(&id, &old.serial).await.unwrap(), Admitted::Unknown);
        let other = enrollment.enroll(&token_id, &secret, &request(), None, MADE_MS).await;
        assert!(matches!(other, Err(EnrollError::Refused)), "once: {other:?}");
    }

    /// Id and secret, which its redeemer sends.
    fn parts(token: &Secret) -> (String, Secret) {
        let mut parts = token.expose().trim_start_matches("hxj_").split('.').map(ToOwned::to_owned);
        (parts.next().unwrap(), parts.next().unwrap().into())
    }

    async fn reenroll_token(enrollment: &Enrollment, now_ms: i64) -> (String, Secret) {
        let (token, _) = enrollment.create_token(&node(), Purpose::Reenroll, TTL, now_ms).await.unwrap();
        parts(&token)
    }

    #[tokio::test]
    async fn a_locked_node_comes_back_with_a_token_that_was_made_since() {
        let (fixture, Enrolled { id, certificate: stolen, .. }) = enrolled().await;
        let Fixture { enrollment, .. } = &fixture;
        let before = reenroll_token(enrollment, MADE_MS).await;
        enrollment.store.lock_node(&id, Some(("stolen", MADE_MS + 1))).await.unwrap();
        let since = reenroll_token(enrollment, MADE_MS + 2).await;
        let early = enrollment.enroll(&before.0, &before.1, &request(), None, MADE_MS + 3).await;
        assert!(matches!(early, Err(EnrollError::Locked)), "{early:?}");
        let still = enrollment.store.admit(&id, &stolen.serial).await.unwrap();
        assert!(matches!(still, Admitted::Locked(_)), "a refusal changes nothing: {still:?}");
        let back = enrollment.enroll(&since.0, &since.1, &request(), None, MADE_MS + 3).await.unwrap();
        let new = enrollment.store.admit(&id, &back.certificate.serial).await.unwrap();
        assert!(matches!(new, Admitted::Node(_)), "{new:?}");
        assert_eq!(enrollment.store.admit(&id, &stolen.serial).await.unwrap(), Admitted::Unknown);
    }

    #[tokio::test]
    async fn nothing_from_before_a_node_was_brought_back_is_good_after_it() {
        let (fixture, Enrolled { id, certificate: stolen, .. }) = enrolled().await;
        let Fixture { enrollment, id: spent_id, secret: spent, .. } = &fixture;
        let older = reenroll_token(enrollment, MADE_MS).await;
        let renews = async |serial: &str| enrollment.renew(&id, serial, &request()).await;
        enrollment.store.lock_node(&id, Some(("stolen", MADE_MS + 1))).await.unwrap();
        assert!(matches!(renews(&stolen.serial).await, Err(EnrollError::Replaced)), "it is locked");
        let since = reenroll_token(enrollment, MADE_MS + 2).await;
        let back = enrollment.enroll(&since.0, &since.1, &request(), None, MADE_MS + 3).await.unwrap();
        for (token_id, secret) in [(&older.0, &older.1), (spent_id, spent)] {
            let thief = enrollment.enroll(token_id, secret, &request(), None, MADE_MS + 4).await;
            assert!(matches!(thief, Err(EnrollError::Refused)), "{thief:?}");
        }
        assert!(matches!(renews(&stolen.serial).await, Err(EnrollError::Replaced)), "another took its place");
        let locks = enrollment.store.lock_node_of(&id, &stolen.serial, "copied", MADE_MS + 5).await.unwrap();
        assert!(!locks, "what the replaced one does shuts nobody out");
        renews(&back.certificate.serial).await.unwrap();
    }

    #[tokio::test]
    async fn a_host_does_not_become_another_node_while_it_is_one() {
        let (fixture, Enrolled { id, .. }) = enrolled().await;
        let Fixture { enrollment, .. } = &fixture;
        let web2 = "web2".parse().unwrap();
        let (token, _) = enrollment.create_token(&web2, Purpose::Enroll, TTL, MADE_MS).await.unwrap();
        let (token_id, secret) = parts(&token);
        let was = format!("spiffe://{}/node/{id}", enrollment.authority.cluster());
        let other = enrollment.enroll(&token_id, &secret, &request(), Some(&was), MADE_MS).await;
        assert!(matches!(&other, Err(EnrollError::Another(name)) if name == "web1"), "{other:?}");
        enrollment.store.delete_node("web1").await.unwrap();
        let free = enrollment.enroll(&token_id, &secret, &request(), Some(&was), MADE_MS).await.unwrap();
        assert_eq!(free.name, "web2", "the token was not used up, and the host is nobody any more");
    }
}
