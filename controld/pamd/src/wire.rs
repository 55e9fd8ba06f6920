//! One packet with a request, one packet with an answer.
//!
//! ```text
//! request: version, user, password, host, known          answer: version, kind, and for Accepted the user
//! ```
//! Version, kind and known, which is 0 or 1, are one byte each. A text is its length in two bytes, the higher first, and its UTF-8. A packet ends
//! where its last field does. The socket keeps packets apart, so nothing says how long one is.

use zeroize::Zeroizing;

use crate::{Answer, MAX_HOST, MAX_PASSWORD, MAX_USER, Password, Request};

const VERSION: u8 = 2;
const LENGTH: usize = 2;

/// The longest request.
pub const MAX_REQUEST: usize = 1 + LENGTH + MAX_USER + LENGTH + MAX_PASSWORD + LENGTH + MAX_HOST + 1;
/// The longest answer.
pub const MAX_ANSWER: usize = 2 + LENGTH + MAX_USER;

const STRANGER: u8 = 0;
const KNOWN: u8 = 1;

const ACCEPTED: u8 = 1;
const REFUSED: u8 = 2;
const BUSY: u8 = 3;
const FAILED: u8 = 4;

#[derive(Debug, thiserror::Error)]
#[error("{field} is longer than {limit} bytes")]
pub struct TooLong {
    pub field: &'static str,
    pub limit: usize,
}

/// Why a packet is none of ours. Says nothing of its content, which may be a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("version {0} is not known")]
    Version(u8),
    #[error("answer {0} is not known")]
    Kind(u8),
    #[error("{0} is neither of a stranger nor of somebody known")]
    Known(u8),
    #[error("the packet ends within {0}")]
    Short(&'static str),
    #[error("{0} is too long")]
    Long(&'static str),
    #[error("{0} is not text")]
    Text(&'static str),
    #[error("something follows the last field")]
    Trailing,
}

impl Request {
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, TooLong> {
        // All that it can become: a vector that grows leaves its old self, with the password, behind.
        let mut packet = Zeroizing::new(Vec::with_capacity(MAX_REQUEST));
        packet.push(VERSION);
        put(&mut packet, "user", &self.user, MAX_USER)?;
        put(&mut packet, "password", self.password.expose(), MAX_PASSWORD)?;
        put(&mut packet, "host", &self.host, MAX_HOST)?;
        packet.push(if self.known { KNOWN } else { STRANGER });
        Ok(packet)
    }

    pub fn decode(packet: &[u8]) -> Result<Self, Malformed> {
        let mut rest = packet;
        version(&mut rest)?;
        let user = take(&mut rest, "user", MAX_USER)?.to_owned();
        let password = Password::from(take(&mut rest, "password", MAX_PASSWORD)?.to_owned());
        let host = take(&mut rest, "host", MAX_HOST)?.to_owned();
        let known = match byte(&mut rest, "known")? {
            STRANGER => false,
            KNOWN => true,
            other => return Err(Malformed::Known(other)),
        };
        end(rest)?;
        Ok(Self { user, password, host, known })
    }
}

impl Answer {
    pub fn encode(&self) -> Result<Vec<u8>, TooLong> {
        let mut packet = vec![VERSION];
        match self {
            Self::Accepted { user } => {
                packet.push(ACCEPTED);
                put(&mut packet, "user", user, MAX_USER)?;
            }
            Self::Refused => packet.push(REFUSED),
            Self::Busy => packet.push(BUSY),
            Self::Failed => packet.push(FAILED),
        }
        Ok(packet)
    }

    pub fn decode(packet: &[u8]) -> Result<Self, Malformed> {
        let mut rest = packet;
        version(&mut rest)?;
        let answer = match byte(&mut rest, "kind")? {
            ACCEPTED => Self::Accepted { user: take(&mut rest, "user", MAX_USER)?.to_owned() },
            REFUSED => Self::Refused,
            BUSY => Self::Busy,
            FAILED => Self::Failed,
            other => return Err(Malformed::Kind(other)),
        };
        end(rest)?;
        Ok(answer)
    }
}

fn put(packet: &mut Vec<u8>, field: &'static str, text: &str, limit: usize) -> Result<(), TooLong> {
    let length = u16::try_from(text.len()).ok().filter(|_| text.len() <= limit);
    packet.extend_from_slice(&length.ok_or(TooLong { field, limit })?.to_be_bytes());
    packet.extend_from_slice(text.as_bytes());
    Ok(())
}

fn take<'a>(rest: &mut &'a [u8], field: &'static str, limit: usize) -> Result<&'a str, Malformed> {
    let (length, after) = rest.split_first_chunk::<LENGTH>().ok_or(Malformed::Short(field))?;
    let length = usize::from(u16::from_be_bytes(*length));
    if length > limit {
        return Err(Malformed::Long(field));
    }
    let (text, after) = after.split_at_checked(length).ok_or(Malformed::Short(field))?;
    *rest = after;
    std::str::from_utf8(text).map_err(|_| Malformed::Text(field))
}

fn byte(rest: &mut &[u8], field: &'static str) -> Result<u8, Malformed> {
    let (first, after) = rest.split_first().ok_or(Malformed::Short(field))?;
    *rest = after;
    Ok(*first)
}

fn version(rest: &mut &[u8]) -> Result<(), Malformed> {
    match byte(rest, "version")? {
        VERSION => Ok(()),
        other => Err(Malformed::Version(other)),
    }
}

fn end(rest: &[u8]) -> Result<(), Malformed> {
    if rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(user: &str, password: &str, host: &str) -> Request {
        Request {
            user: user.to_owned(),
            password: Password::from(password.to_owned()),
            host: host.to_owned(),
            known: false,
        }
    }

    #[test]
    fn a_request_has_the_form_that_the_module_describes() {
        let packet = request("al", "p", "").encode().unwrap();
        assert_eq!(packet.as_slice(), b"\x02\0\x02al\0\x01p\0\0\0");
        let known = Request { known: true, ..request("al", "p", "h") };
        assert_eq!(known.encode().unwrap().as_slice(), b"\x02\0\x02al\0\x01p\0\x01h\x01");
    }

    #[test]
    fn an_answer_has_the_form_that_the_module_describes() {
        let accepted = Answer::Accepted { user: "al".to_owned() };
        assert_eq!(accepted.encode().unwrap(), b"\x02\x01\0\x02al");
        assert_eq!(Answer::Refused.encode().unwrap(), b"\x02\x02");
        assert_eq!(Answer::Busy.encode().unwrap(), b"\x02\x03");
        assert_eq!(Answer::Failed.encode().unwrap(), b"\x02\x04");
    }

    #[test]
    fn what_is_too_long_is_not_sent() {
        let field = |request: Request| request.encode().unwrap_err().field;
        assert_eq!(field(request(&"u".repeat(MAX_USER + 1), "p", "h")), "user");
        assert_eq!(field(request("u", &"p".repeat(MAX_PASSWORD + 1), "h")), "password");
        assert_eq!(field(request("u", "p", &"h".repeat(MAX_HOST + 1))), "host");
        assert!(Answer::Accepted { user: "u".repeat(MAX_USER + 1) }.encode().is_err());
    }

    #[test]
    fn the_longest_request_is_as_long_as_a_packet_may_be() {
        let all = request(&"u".repeat(MAX_USER), &"p".repeat(MAX_PASSWORD), &"h".repeat(MAX_HOST));
        assert_eq!(all.encode().unwrap().len(), MAX_REQUEST);
        let answer = Answer::Accepted { user: "u".repeat(MAX_USER) };
        assert_eq!(answer.encode().unwrap().len(), MAX_ANSWER);
    }

    #[test]
    fn a_packet_longer_than_a_request_is_none_however_it_begins() {
        let all = request(&"u".repeat(MAX_USER), &"p".repeat(MAX_PASSWORD), &"h".repeat(MAX_HOST));
        let mut packet = all.encode().unwrap().to_vec();
        packet.push(0);
        assert_eq!(Request::decode(&packet).unwrap_err(), Malformed::Trailing);
    }

    #[test]
    fn each_fault_is_named() {
        let fault = |packet: &[u8]| Request::decode(packet).unwrap_err();
        assert_eq!(fault(b""), Malformed::Short("version"));
        assert_eq!(fault(b"\x01\0\x01a\0\x01p\0\0"), Malformed::Version(1));
        assert_eq!(fault(b"\x02\0\x01a\0\x02p"), Malformed::Short("password"));
        assert_eq!(fault(b"\x02\x01\x01"), Malformed::Long("user"));
        assert_eq!(fault(b"\x02\0\x01\xff\0\0\0\0\0"), Malformed::Text("user"));
        assert_eq!(fault(b"\x02\0\0\0\0\0\0"), Malformed::Short("known"));
        assert_eq!(fault(b"\x02\0\0\0\0\0\0\x02"), Malformed::Known(2));
        assert_eq!(fault(b"\x02\0\0\0\0\0\0\x01x"), Malformed::Trailing);
        assert_eq!(Answer::decode(b"\x02\x05").unwrap_err(), Malformed::Kind(5));
    }

    proptest! {
        #[test]
        fn a_request_comes_back_as_it_was(user in ".{0,64}", password in ".{0,128}", host in ".{0,16}", known: bool) {
            let packet = Request { known, ..request(&user, &password, &host) }.encode().unwrap();
            let back = Request::decode(&packet).unwrap();
            prop_assert_eq!((back.user, back.password.expose(), back.host, back.known), (user, password.as_str(), host, known));
        }

        #[test]
        fn an_answer_comes_back_as_it_was(user in ".{0,64}") {
            let answer = Answer::Accepted { user };
            prop_assert_eq!(Answer::decode(&answer.encode().unwrap()), Ok(answer));
        }

        #[test]
        fn a_part_of_a_request_is_none(user in ".{0,64}", password in ".{0,128}", host in ".{0,16}", cut: prop::sample::Index) {
            let packet = request(&user, &password, &host).encode().unwrap();
            prop_assert!(Request::decode(&packet[..cut.index(packet.len())]).is_err());
        }

        #[test]
        fn any_bytes_can_be_read_as_a_packet(mut bytes in prop::collection::vec(any::<u8>(), 0..MAX_REQUEST * 2), ours: bool) {
            if let (true, Some(first)) = (ours, bytes.first_mut()) {
                *first = VERSION;
            }
            if let Ok(request) = Request::decode(&bytes) {
                prop_assert_eq!(request.encode().unwrap().to_vec(), bytes.clone());
            }
            if let Ok(answer) = Answer::decode(&bytes) {
                prop_assert_eq!(answer.encode().unwrap(), bytes);
            }
        }
    }
}
