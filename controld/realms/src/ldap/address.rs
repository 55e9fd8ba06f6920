//! Where a directory server listens.

use std::fmt;

use url::{Host, Url};

/// Checked: TLS is certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) start_tls: bool,
}

impl Address {
    /// `ldaps://HOST[:PORT]`, or `ldap://HOST[:PORT]` where StartTLS is asked for.
    pub(super) fn new(text: &str, start_tls: bool) -> Result<Self, String> {
        let wrong = || format!("{text} is not ldaps://HOST or ldaps://HOST:PORT");
        let url = Url::parse(text).map_err(|_| wrong())?;
        let port = match (url.scheme(), start_tls) {
            ("ldaps", false) => 636,
            ("ldap", true) => 389,
            ("ldaps", true) => {
                return Err(format!("{text}: ldaps has TLS from the start; leave start_tls out"));
            }
            ("ldap", false) => {
                return Err(format!("{text}: passwords go over TLS only; use ldaps:// or start_tls"));
            }
            _ => return Err(wrong()),
        };
        let more = !url.username().is_empty()
            || url.password().is_some()
            || !matches!(url.path(), "" | "/")
            || url.query().is_some()
            || url.fragment().is_some();
        if more {
            return Err(wrong());
        }
        let host = match url.host() {
            Some(Host::Domain(name)) if !name.is_empty() => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            _ => return Err(wrong()),
        };
        Ok(Self { host, port: url.port().unwrap_or(port), start_tls })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.start_tls { "ldap" } else { "ldaps" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_certain() {
        let is = |text, start_tls| Address::new(text, start_tls).unwrap().to_string();
        assert_eq!(is("ldaps://dc1.corp.example", false), "ldaps://dc1.corp.example:636");
        assert_eq!(is("ldap://dc1.corp.example/", true), "ldap://dc1.corp.example:389");
        assert_eq!(is("ldaps://127.0.0.1:1636", false), "ldaps://127.0.0.1:1636");
        assert_eq!(is("ldaps://[::1]:1636", false), "ldaps://[::1]:1636");
        for (text, start_tls) in [
            ("ldap://dc1", false),
            ("ldaps://dc1", true),
            ("ldapi:///run/ldapi", false),
            ("https://dc1", false),
            ("ldaps://", false),
            ("ldaps://admin:pw@dc1", false),
            ("ldaps://dc1/dc=corp", false),
            ("ldaps://dc1?x", false),
            ("dc1", false),
        ] {
            assert!(Address::new(text, start_tls).is_err(), "{text}");
        }
    }
}
