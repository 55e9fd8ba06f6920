//! Redeeming a join token: `hxj_<id>.<secret>.<pin of the CA>`. The controller must prove that it is the one that the
//! pin names before a byte of the secret is sent.

pub mod orders;

use std::path::Path;
use std::time::Duration;

use horcrux_envelope::{InvalidKey, PublicKey};
use horcrux_privd::settings::Controller;
use horcrux_proto::agent::v1::enrollment_client::EnrollmentClient;
use horcrux_proto::agent::v1::{EnrollRequest, EnrollResponse};
use horcrux_transport::client::{Connect, ConnectError, Pin, Target, Trust};
use horcrux_transport::error::Chain;
use horcrux_transport::secret::Secret;
use horcrux_transport::tls::CONTROLLER_NAME;

use crate::identity::{Change, Enrolled, Facts, IdentityError, NewKey};

const DEADLINE: Duration = Duration::from_secs(15);

/// A server that lets others in too may say nothing at first.
const PROBE: Duration = Duration::from_secs(2);

/// A join token's parts.
#[derive(Debug)]
pub struct JoinToken {
    id: String,
    secret: Secret,
    pin: Pin,
}

#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    #[error("this is not a join token: expected hxj_ID.SECRET.FINGERPRINT")]
    Token,
    #[error("connect")]
    Connect(#[source] ConnectError),
    #[error(
        "this node is enrolled already, as {0}: with a token that was made to enroll it again, pass --again to replace its identity"
    )]
    Enrolled(String),
    #[error("which controller it was is not known here: pass --controller https://HOST")]
    WhichController,
    #[error("the controller refused: {0}")]
    Refused(String),
    #[error(
        "{0} is a port for agents that are enrolled already: pass --controller with the address that people open, whose port \
         is 8006 unless it was set otherwise"
    )]
    AgentsPort(Target),
    #[error("the controller's answer is incomplete")]
    Answer,
    #[error("keep this node's identity")]
    Identity(#[source] IdentityError),
}

impl JoinToken {
    pub fn parse(text: &str) -> Result<Self, EnrollError> {
        let mut parts = text.trim().strip_prefix("hxj_").ok_or(EnrollError::Token)?.split('.');
        let (Some(id), Some(secret), Some(pin), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(EnrollError::Token);
        };
        let pin = pin.parse().map_err(|_| EnrollError::Token)?;
        if id.is_empty() || secret.is_empty() {
            return Err(EnrollError::Token);
        }
        Ok(Self { id: id.to_owned(), secret: secret.to_owned().into(), pin })
    }
}

/// What to do where this node has an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Keep,
    /// The operator said so: whatever it is, even of another controller.
    Replace,
}

/// How an enrollment went.
#[derive(Debug)]
pub struct Outcome {
    /// `nodes/{node}`.
    pub node: String,
    /// `spiffe://{cluster}/node/{id}`.
    pub id: String,
    /// The name and id that this node had before.
    pub before: Option<(String, String)>,
    /// Whose orders count from now on; none where the controller gave a key that is none.
    pub orders: Option<Controller>,
}

/// Enrolls this node with the controller that is given, or with the one that it has. Tried again after a lost answer, with
/// the same token, it gets the same identity.
pub async fn enroll(
    controller: Option<Target>,
    token: &JoinToken,
    hostname: &str,
    state_dir: &Path,
    existing: Existing,
) -> Result<Outcome, EnrollError> {
    // Held until the end: a renewal that the running agent began in between would replace what is enrolled here.
    let change = Change::begin(state_dir).map_err(EnrollError::Identity)?;
    let before = match (Enrolled::load(state_dir), existing) {
        (Ok(enrolled), Existing::Keep) => return Err(EnrollError::Enrolled(enrolled.facts.node)),
        (Ok(enrolled), Existing::Replace) => Some(enrolled),
        (Err(IdentityError::NotEnrolled), _) => None,
        (Err(error @ IdentityError::Damaged { .. }), _) => {
            tracing::warn!(error = %Chain(&error), "the identity that is here is of no use, and is replaced");
            None
        }
        (Err(error), _) => return Err(EnrollError::Identity(error)),
    };
    let known = || before.as_ref().and_then(Enrolled::controller);
    let controller = controller.or_else(known).ok_or(EnrollError::WhichController)?;
    let key = change.pending(&token.id).map_err(EnrollError::Identity)?;
    let enrolled_as = before.as_ref().map(Enrolled::id);
    let answer = redeem(&controller, token, &key, hostname, enrolled_as).await?;
    let keys: Result<Vec<_>, InvalidKey> =
        answer.command_keys.iter().map(|key| PublicKey::try_from(key.as_ref())).collect();
    let certificate = answer.certificate.ok_or(EnrollError::Answer)?;
    let facts = Facts {
        node: answer.node,
        controller_host: controller.host,
        controller_port: Some(controller.port),
        agents_port: u16::try_from(answer.agents_port).map_err(|_| EnrollError::Answer)?,
        certificate_expires_unix_ms: certificate.expires_unix_ms,
        generation: certificate.generation,
    };
    let new = key.certified(&certificate, facts).map_err(EnrollError::Identity)?;
    change.keep(&new).map_err(EnrollError::Identity)?;
    let before = before.map(|before| (before.facts.node.clone(), before.id()));
    let id = new.id();
    let named = id.strip_prefix("spiffe://").and_then(|name| name.split_once("/node/"));
    let orders = named.zip(keys.ok()).map(|((cluster, node_id), keys)| Controller {
        cluster: cluster.to_owned(),
        node_id: node_id.to_owned(),
        keys,
    });
    Ok(Outcome { id, node: new.facts.node, before, orders })
}

async fn redeem(
    controller: &Target,
    token: &JoinToken,
    key: &NewKey,
    hostname: &str,
    enrolled_as: Option<String>,
) -> Result<EnrollResponse, EnrollError> {
    let connect = Connect {
        server_name: Some(CONTROLLER_NAME),
        ..Connect::new(controller.clone(), Trust::Pinned(token.pin), DEADLINE)
    };
    let channel = connect.channel().await.map_err(EnrollError::Connect)?;
    let mut request = tonic::Request::new(EnrollRequest {
        token_id: token.id.clone(),
        token_secret: token.secret.expose().to_owned(),
        csr: key.request.clone().into(),
        hostname: hostname.to_owned(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        enrolled_as,
    });
    request.set_timeout(DEADLINE);
    match EnrollmentClient::new(channel).enroll(request).await {
        Ok(answer) => Ok(answer.into_inner()),
        // Whom TLS turned away has no answer, and no reason.
        Err(_) if (Connect { deadline: PROBE, ..connect }).needs_certificate().await => {
            Err(EnrollError::AgentsPort(controller.clone()))
        }
        Err(status) => Err(EnrollError::Refused(status.message().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_three_parts_and_prints_none() {
        let pin = "ab".repeat(32);
        let token = JoinToken::parse(&format!("hxj_12.secretpart.{pin}\n")).unwrap();
        assert!(!format!("{token:?}").contains("secretpart"));
        for wrong in
            ["", "hxj_", "hxj_a.b", "hxj_a.b.c", &format!("hxj_a.b.{pin}.d"), &format!("hxj_..{pin}")]
        {
            assert!(JoinToken::parse(wrong).is_err(), "{wrong}");
        }
    }
}
