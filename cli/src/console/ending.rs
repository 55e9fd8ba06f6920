//! How a console ended: by its close code, with the controller's words where it gave some.

use horcrux_proto::console::CloseCode;

use crate::failure::Failure;
use crate::view::shown;

/// Normal, and going away (RFC 6455, 7.4.1).
const LEFT: [u16; 2] = [1000, 1001];

pub(super) fn of(url: &str, code: u16, reason: &str) -> Result<(), Failure> {
    if LEFT.contains(&code) {
        return Ok(());
    }
    let Some(code) = CloseCode::of(code) else {
        return Err(Failure::lost(url, format!("the console ended with code {code}{}", because(reason))));
    };
    let words = if reason.is_empty() { words(code).to_owned() } else { shown(reason) };
    Err(match code {
        CloseCode::Session => Failure::NotSignedIn { url: url.to_owned(), why: words },
        CloseCode::Right => Failure::Denied(words),
        CloseCode::Gone => Failure::NotFound(words),
        CloseCode::Restart | CloseCode::Node | CloseCode::TooMany => Failure::Unavailable(words),
        CloseCode::Ticket
        | CloseCode::Idle
        | CloseCode::Moved
        | CloseCode::Taken
        | CloseCode::Ended
        | CloseCode::Refused
        | CloseCode::Failed
        | CloseCode::Protocol => Failure::Refused(words),
    })
}

fn words(code: CloseCode) -> &'static str {
    match code {
        CloseCode::Restart => "the controller restarts: open the console again",
        CloseCode::Ticket => "the controller didn't take the ticket: open the console again",
        CloseCode::Session => "the session or API token ended",
        CloseCode::Right => "you may no longer open this VM's console",
        CloseCode::Gone => "the VM is off, or is no more",
        CloseCode::Idle => "nothing was sent or received for too long",
        CloseCode::Moved => "the VM was moved to where its console can't follow: open it again",
        CloseCode::Node => "the VM's node was locked, or can't be reached",
        CloseCode::Taken => "somebody else took the console",
        CloseCode::Ended => "somebody ended the console",
        CloseCode::Refused => "the VM's node refuses, or the VM has no such console",
        CloseCode::Failed => "the console could not be opened, or broke",
        CloseCode::TooMany => "too many consoles are open: `horcruxctl console list` shows them",
        CloseCode::Protocol => "the viewer sent what is no part of its protocol",
    }
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {}", shown(reason)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    const URL: &str = "https://web1:8006";

    #[test]
    fn who_leaves_has_not_failed() {
        assert!(of(URL, 1000, "").is_ok() && of(URL, 1001, "bye").is_ok());
    }

    #[test]
    fn each_end_has_words_and_an_exit_code() {
        let mut all = Vec::new();
        for code in CloseCode::ALL {
            let failure = of(URL, code.number(), "").unwrap_err();
            let named = [
                (CloseCode::Session, Exit::NotSignedIn),
                (CloseCode::Right, Exit::Denied),
                (CloseCode::Gone, Exit::NotFound),
            ];
            let exit = named.iter().find(|(named, _)| *named == code).map_or(Exit::Failed, |(_, exit)| *exit);
            assert_eq!(failure.exit(), exit, "{code:?}");
            all.push(failure.text());
            let said = of(URL, code.number(), "the VM was\u{1b}[2J shut down").unwrap_err().text();
            assert!(said.contains("the VM was\\u{1b}[2J shut down"), "{said}");
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), CloseCode::ALL.len());
        assert_eq!(of(URL, 1006, "").unwrap_err().exit(), Exit::Unreachable);
    }
}
