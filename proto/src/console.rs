//! What a viewer's WebSocket at [`PATH`] carries beside the console's own bytes.
//!
//! The first message is the ticket, as text, within [`TICKET_WITHIN`] seconds. From then on binary messages, of at most
//! [`MAX_MESSAGE`] bytes, are the console's bytes; text messages are JSON: [`Notice`] to the viewer, [`Ask`] from it. An end
//! has a [`CloseCode`] and words.
//!
//! SPICE has a connection for each of its channels. The first WebSocket of such a console carries no bytes: [`Notice::Opened`]
//! has a key, and a WebSocket whose first message is that key, from the same session or API token, is one more channel. It
//! hears [`Notice::ChannelOpened`], and then carries that channel's bytes. The first that is opened is SPICE's main channel:
//! the console ends with it.

use std::fmt;

use serde::{Deserialize, Serialize};

pub const PATH: &str = "/console/v1";
/// The WebSocket's subprotocol.
pub const SUBPROTOCOL: &str = "hx.console.v1";
/// Bytes of one message, in either direction.
pub const MAX_MESSAGE: usize = 64 << 10;
/// Seconds from the upgrade to the ticket.
pub const TICKET_WITHIN: u64 = 5;
/// What a ticket begins with; 43 letters of base64url follow.
pub const TICKET_PREFIX: &str = "hxc_";
/// What the key to a console's channels begins with; 43 letters of base64url follow.
pub const CHANNEL_KEY_PREFIX: &str = "hxj_";
/// What the secret of a guest link begins with; 43 letters of base64url follow.
pub const LINK_PREFIX: &str = "hxg_";
/// Where a guest's browser goes with it. The secret follows a `#`, which no browser sends.
pub const GUEST_PATH: &str = "/guest";
/// In the query of [`PATH`]: by which link a guest comes.
pub const LINK_QUERY: &str = "link";
/// The header in which a guest's page says by which link it comes.
pub const LINK_HEADER: &str = "x-horcrux-link";

/// To the viewer.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(tag = "notice", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Notice {
    /// The VM's side is there: the console's bytes follow.
    Opened {
        /// `consoles/{id}`.
        console: String,
        /// `vms/{uuid}`.
        vm: String,
        vm_display_name: String,
        /// `nodes/{node}`.
        node: String,
        in_control: bool,
        recorded: bool,
        /// Of SPICE alone: what opens its channels, as long as the console is open and has control.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel_key: Option<ChannelKey>,
    },
    /// The VM's side of this channel is there: its bytes follow.
    ChannelOpened,
    /// No bytes come for a while; the words say why: the VM is being moved.
    Waiting { why: String },
    /// What follows begins a new conversation: an RFB client starts over with the handshake, on the same WebSocket.
    Restarted { node: String },
    /// Who looks at this VM in this way, the viewer itself included. Told at the beginning and at each change.
    Viewers { viewers: Vec<Viewer> },
    /// Whose keys reach the VM from now on.
    Control { in_control: bool, by: String },
}

/// Prints nothing.
#[derive(Clone, Deserialize, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ChannelKey(String);

impl ChannelKey {
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ChannelKey {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for ChannelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelKey")
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Viewer {
    /// `consoles/{id}`.
    pub console: String,
    /// `user@realm`, or `guest link {id} of user@realm`.
    pub user: String,
    pub in_control: bool,
    /// It may take control.
    pub may_control: bool,
    pub is_you: bool,
    /// Of a guest: what the link's maker wrote of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
}

/// From the viewer.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(tag = "ask", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Ask {
    /// Let my keys reach the VM: whoever's did goes on looking.
    TakeControl,
    /// Let another viewer's.
    GiveControl { to: String },
}

/// How a console ends, where it isn't the viewer who leaves (1000, 1001).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// The controller restarts: try again with another ticket.
    Restart,
    /// Of tickets of all kinds of wrongness.
    Ticket,
    /// The session or API token ended.
    Session,
    /// The right was lost.
    Right,
    /// The VM is off, or is no more.
    Gone,
    /// Nothing was sent or received for too long.
    Idle,
    /// The VM was moved to where the console can't follow.
    Moved,
    /// Its node was locked, or can't be reached.
    Node,
    /// Somebody else took it.
    Taken,
    /// Somebody ended it.
    Ended,
    /// The node refused by its policy, or doesn't have such a console.
    Refused,
    /// It could not be opened, or broke.
    Failed,
    /// There are too many already.
    TooMany,
    /// The viewer sent what is no part of its protocol.
    Protocol,
}

impl CloseCode {
    pub const ALL: [Self; 14] = [
        Self::Restart,
        Self::Ticket,
        Self::Session,
        Self::Right,
        Self::Gone,
        Self::Idle,
        Self::Moved,
        Self::Node,
        Self::Taken,
        Self::Ended,
        Self::Refused,
        Self::Failed,
        Self::TooMany,
        Self::Protocol,
    ];

    #[must_use]
    pub fn of(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Restart => 1012,
            Self::Ticket => 4400,
            Self::Session => 4401,
            Self::Right => 4403,
            Self::Gone => 4404,
            Self::Idle => 4408,
            Self::Moved => 4409,
            Self::Node => 4410,
            Self::Taken => 4411,
            Self::Ended => 4412,
            Self::Refused => 4413,
            Self::Protocol => 4422,
            Self::TooMany => 4429,
            Self::Failed => 4500,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_the_web_page_reads_and_writes_it() {
        let told = Notice::Viewers {
            viewers: vec![Viewer {
                console: "consoles/a".to_owned(),
                user: "alice@local".to_owned(),
                in_control: true,
                may_control: true,
                is_you: false,
                guest: None,
            }],
        };
        let text = r#"{"notice":"viewers","viewers":[{"console":"consoles/a","user":"alice@local","inControl":true,"mayControl":true,"isYou":false}]}"#;
        assert_eq!(serde_json::to_string(&told).unwrap(), text);
        let asked: Ask = serde_json::from_str(r#"{"ask":"giveControl","to":"consoles/b"}"#).unwrap();
        assert_eq!(asked, Ask::GiveControl { to: "consoles/b".to_owned() });
        assert!(serde_json::from_str::<Ask>(r#"{"ask":"power"}"#).is_err());
    }

    #[test]
    fn a_key_is_told_where_there_is_one_and_is_not_printed() {
        let told = |channel_key| Notice::Opened {
            console: "consoles/a".to_owned(),
            vm: "vms/b".to_owned(),
            vm_display_name: "web1".to_owned(),
            node: "nodes/c".to_owned(),
            in_control: true,
            recorded: false,
            channel_key,
        };
        let with = told(Some(ChannelKey::from("hxj_secret")));
        let text = serde_json::to_string(&with).unwrap();
        assert!(text.ends_with(r#""channelKey":"hxj_secret"}"#), "{text}");
        assert_eq!(serde_json::from_str::<Notice>(&text).unwrap(), with);
        assert!(!format!("{with:?}").contains("secret"));
        let without = serde_json::to_string(&told(None)).unwrap();
        assert!(!without.contains("hannelKey"), "{without}");
        assert_eq!(serde_json::to_string(&Notice::ChannelOpened).unwrap(), r#"{"notice":"channelOpened"}"#);
    }
}
