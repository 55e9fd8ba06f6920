//! API tokens: `hxt_<id>_<secret><checksum>`. The prefix lets a scanner find leaked ones, the checksum lets it be sure, and
//! lets us refuse a mistyped one without asking the store.

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use horcrux_transport::secret::Secret;
use ipnet::IpNet;

use super::keys::{KeyError, hash, random_id, random_text};

pub const PREFIX: &str = "hxt_";
/// 32 bytes in base64.
const SECRET_CHARS: usize = 43;
/// Three bytes: one typing mistake in sixteen million gets through to the store.
const CHECKSUM_CHARS: usize = 4;
pub const DEFAULT_SECONDS: u32 = 90 * 86_400;
pub const MIN_SECONDS: u32 = 3600;
pub const MAX_SECONDS: u32 = 366 * 86_400;
pub const MAX_NETWORKS: usize = 16;

/// A token that was just made.
#[derive(Debug)]
pub struct NewToken {
    pub id: String,
    pub text: Secret,
    pub hash: [u8; 32],
}

impl NewToken {
    pub fn make() -> Result<Self, KeyError> {
        let (id, secret) = (random_id()?, random_text::<32>()?);
        let body = format!("{PREFIX}{id}_{secret}");
        let text = format!("{body}{}", checksum(&body));
        Ok(Self { id, hash: hash(&text), text: text.into() })
    }
}

/// The id in a token that is whole.
#[must_use]
pub fn id_of(text: &str) -> Option<&str> {
    let (id, rest) = text.strip_prefix(PREFIX)?.split_once('_')?;
    if rest.len() != SECRET_CHARS + CHECKSUM_CHARS || !rest.is_ascii() {
        return None;
    }
    let (body, sum) = text.split_at(text.len() - CHECKSUM_CHARS);
    (checksum(body) == sum).then_some(id)
}

fn checksum(body: &str) -> String {
    URL_SAFE_NO_PAD.encode(&digest(&SHA256, body.as_bytes()).as_ref()[..3])
}

/// Networks as they are stored, from what a caller gave.
pub fn networks(given: &[String]) -> Option<String> {
    let all: Option<Vec<String>> = given
        .iter()
        .map(|text| {
            let network = text.parse::<IpNet>().ok();
            network
                .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
                .map(|net| net.trunc().to_string())
        })
        .collect();
    all.filter(|all| all.len() <= MAX_NETWORKS).map(|all| all.join(","))
}

/// Whether `from` lies in one of `networks` as stored.
#[must_use]
pub fn admits(networks: &str, from: IpAddr) -> bool {
    let from = from.to_canonical();
    networks.is_empty() || networks.split(',').any(|n| n.parse::<IpNet>().is_ok_and(|n| n.contains(&from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_token_is_not_one() {
        let token = NewToken::make().unwrap();
        let text = token.text.expose();
        assert_eq!(id_of(text), Some(token.id.as_str()));
        for at in [0, 6, 20, text.len() - 1] {
            let mut wrong: Vec<char> = text.chars().collect();
            wrong[at] = if wrong[at] == 'A' { 'B' } else { 'A' };
            assert_eq!(id_of(&wrong.into_iter().collect::<String>()), None, "{at}");
        }
        for wrong in ["", "hxt_", "hxt_a_b", "hxt_é_"] {
            assert_eq!(id_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_token_of_a_network_works_from_there_only() {
        let of = |given: &[&str]| networks(&given.iter().map(|&s| s.to_owned()).collect::<Vec<_>>());
        let stored = of(&["192.0.2.17/24", "2001:db8::/32", "198.51.100.7"]).unwrap();
        assert_eq!(stored, "192.0.2.0/24,2001:db8::/32,198.51.100.7/32");
        let admitted = |from: &str| admits(&stored, from.parse().unwrap());
        assert!(admitted("192.0.2.200") && admitted("::ffff:192.0.2.1") && admitted("2001:db8::5"));
        assert!(!admitted("192.0.3.1") && !admitted("198.51.100.8") && !admitted("::1"));
        assert!(admits("", "203.0.113.1".parse().unwrap()));
        assert_eq!(of(&["192.0.2.0/33"]), None);
    }
}
