//! Redeeming a join token: `hxj_<id>.<secret>.<pin of the CA>`. The controller must prove that it is the one that the
//! pin names before a byte of the secret is sent.

use std::path::Path;
use std::time::Duration;

use horcrux_proto::agent::v1::EnrollRequest;
use horcrux_proto::agent::v1::enrollment_client::EnrollmentClient;
use horcrux_transport::client::{Connect, ConnectError, Pin, Target, Trust};
use horcrux_transport::secret::Secret;
use horcrux_transport::tls::CONTROLLER_NAME;

use crate::identity::{Facts, IdentityError, NewKey};

const DEADLINE: Duration = Duration::from_secs(15);

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
    #[error("the controller refused: {0}")]
    Refused(String),
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

/// Enrolls this node; returns its name, `nodes/{node}`. Tried again after a lost answer, it gets the same one.
pub async fn enroll(
    controller: &Target,
    token: &JoinToken,
    hostname: &str,
    state_dir: &Path,
) -> Result<String, EnrollError> {
    let key = NewKey::pending(state_dir).map_err(EnrollError::Identity)?;
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
    });
    request.set_timeout(DEADLINE);
    let answer = EnrollmentClient::new(channel)
        .enroll(request)
        .await
        .map_err(|status| EnrollError::Refused(status.message().to_owned()))?
        .into_inner();
    let certificate = answer.certificate.ok_or(EnrollError::Answer)?;
    let facts = Facts {
        node: answer.node.clone(),
        controller_host: controller.host.clone(),
        agents_port: u16::try_from(answer.agents_port).map_err(|_| EnrollError::Answer)?,
        certificate_expires_unix_ms: certificate.expires_unix_ms,
    };
    key.certified(state_dir, &certificate, &facts).map_err(EnrollError::Identity)?;
    Ok(answer.node)
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
