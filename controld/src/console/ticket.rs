//! Tickets: `hxc_` and 32 random bytes in base64url; keys to a console's channels, which begin with `hxj_`; and the secrets of
//! guest links, which begin with `hxg_`. What is kept and compared is a hash of those bytes, which no second way of writing
//! them leads to.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use horcrux_proto::console::{CHANNEL_KEY_PREFIX, LINK_PREFIX, TICKET_PREFIX};
use horcrux_transport::secret::Secret;

use crate::access::keys::{KeyError, hash, random};

const BYTES: usize = 32;
/// Of [`BYTES`] in base64.
const LETTERS: usize = 43;

/// A ticket that was just made.
pub struct Ticket {
    pub text: Secret,
    pub hash: TicketHash,
}

/// What a ticket is known by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TicketHash([u8; 32]);

impl Ticket {
    pub fn generate() -> Result<Self, KeyError> {
        Self::with(TICKET_PREFIX)
    }

    /// The key to one console's channels.
    pub fn channel_key() -> Result<Self, KeyError> {
        Self::with(CHANNEL_KEY_PREFIX)
    }

    /// The secret of a guest link.
    pub fn of_link() -> Result<Self, KeyError> {
        Self::with(LINK_PREFIX)
    }

    fn with(prefix: &str) -> Result<Self, KeyError> {
        let bytes = random::<BYTES>()?;
        let text = format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes));
        Ok(Self { text: text.into(), hash: TicketHash(hash(bytes)) })
    }
}

impl TicketHash {
    /// That of the ticket in `text`; `None` where it isn't one, letter by letter as [`Ticket::generate`] writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::after(TICKET_PREFIX, text)
    }

    /// The same, of a key to channels.
    #[must_use]
    pub fn parse_channel_key(text: &str) -> Option<Self> {
        Self::after(CHANNEL_KEY_PREFIX, text)
    }

    /// The same, of a guest link's secret.
    #[must_use]
    pub fn of_link(text: &str) -> Option<Self> {
        Self::after(LINK_PREFIX, text)
    }

    fn after(prefix: &str, text: &str) -> Option<Self> {
        let letters = text.strip_prefix(prefix).filter(|letters| letters.len() == LETTERS)?;
        let mut bytes = [0; BYTES];
        // Refuses padding, letters of another alphabet, and a last letter with bits that say nothing.
        let written = URL_SAFE_NO_PAD.decode_slice(letters, &mut bytes).ok()?;
        (written == BYTES).then(|| Self(hash(bytes)))
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

impl fmt::Debug for TicketHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketHash")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_ticket_is_known_by_its_text_and_prints_nothing() {
        let ticket = Ticket::generate().unwrap();
        let text = ticket.text.expose();
        assert!(text.starts_with("hxc_") && text.len() == 47);
        assert_eq!(TicketHash::parse(text), Some(ticket.hash));
        assert_ne!(Ticket::generate().unwrap().hash, ticket.hash);
        assert_eq!(format!("{ticket:?} {:?}", ticket.hash), "Ticket TicketHash");
        let key = Ticket::channel_key().unwrap();
        assert_eq!(TicketHash::parse_channel_key(key.text.expose()), Some(key.hash));
        assert_eq!(TicketHash::parse(key.text.expose()), None);
        assert_eq!(TicketHash::parse_channel_key(text), None);
    }

    #[test]
    fn a_links_secret_is_no_ticket_and_a_ticket_no_links_secret() {
        let (ticket, link) = (Ticket::generate().unwrap(), Ticket::of_link().unwrap());
        assert_eq!(TicketHash::of_link(link.text.expose()), Some(link.hash));
        assert_eq!(TicketHash::parse(link.text.expose()), None);
        assert_eq!(TicketHash::of_link(ticket.text.expose()), None);
    }

    #[test]
    fn a_ticket_is_written_in_one_way() {
        // Sixteen times the same 32 bytes, but for the four bits of the last letter that say nothing.
        let body = "A".repeat(42);
        let read = |last: char| TicketHash::parse(&format!("hxc_{body}{last}"));
        let canonical: Vec<char> = ('A'..='Z')
            .chain('a'..='z')
            .chain('0'..='9')
            .chain(['-', '_'])
            .filter(|&last| read(last).is_some())
            .collect();
        assert_eq!(canonical.iter().collect::<String>(), "AEIMQUYcgkosw048");
        let whole = format!("hxc_{body}A");
        assert!(TicketHash::parse(&whole).is_some());
        for wrong in [
            format!("{whole}="),
            format!("{whole}\n"),
            format!(" {whole}"),
            format!("{whole}A"),
            whole[..46].to_owned(),
            format!("hxt_{body}A"),
            format!("HXC_{body}A"),
            format!("hxc_{}+A", &body[1..]),
            format!("hxc_{}/A", &body[1..]),
            format!("hxc_{} A", &body[1..]),
            format!("hxc_{}éA", &body[2..]),
            format!("{body}A"),
            String::new(),
        ] {
            assert_eq!(TicketHash::parse(&wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_what_was_written(text in "(hxc_)?[A-Za-z0-9_=+/ -]{41,45}", bytes: [u8; 32]) {
            if TicketHash::parse(&text).is_some() {
                let decoded = URL_SAFE_NO_PAD.decode(&text[4..]).unwrap();
                prop_assert_eq!(format!("hxc_{}", URL_SAFE_NO_PAD.encode(decoded)), text);
            }
            let made = format!("hxc_{}", URL_SAFE_NO_PAD.encode(bytes));
            prop_assert_eq!(TicketHash::parse(&made), Some(TicketHash(hash(bytes))));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "\\PC*") {
            prop_assert_eq!(TicketHash::parse(&text), None);
        }
    }
}
