//! The controller's side: one connection for one question. It blocks, so it belongs into a bounded pool of threads.

use std::io;
use std::path::Path;
use std::time::Duration;

use horcrux_local::clock;
use horcrux_local::connection::{connected, left};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, SocketType, recv, send, sockopt};

use crate::wire::{MAX_ANSWER, Malformed, TooLong};
use crate::{Answer, Request};

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nothing was sent: a longer name or password belongs to nobody.
    #[error("encode the request")]
    TooLong(#[source] TooLong),
    #[error("connect to horcrux-pamd")]
    Connect(#[source] io::Error),
    #[error("ask horcrux-pamd")]
    Exchange(#[source] io::Error),
    #[error("horcrux-pamd did not answer in time")]
    TimedOut,
    /// It ended meanwhile, or doesn't answer this user id.
    #[error("horcrux-pamd closed the connection without an answer")]
    NoAnswer,
    #[error("read the answer of horcrux-pamd")]
    Malformed(#[source] Malformed),
}

/// Asks the `horcrux-pamd` that listens at `socket`, and waits at most `deadline`.
///
/// A refusal takes 3 seconds, and PAM's modules have 20: a deadline below 25 seconds gives up on some that would be answered.
pub fn ask(socket: &Path, request: &Request, deadline: Duration) -> Result<Answer, AskError> {
    let packet = request.encode().map_err(AskError::TooLong)?;
    let until = clock::now() + deadline;
    let connection = connected(socket, SocketType::SEQPACKET, until).map_err(|error| {
        if error.kind() == io::ErrorKind::TimedOut { AskError::TimedOut } else { AskError::Connect(error) }
    })?;
    let wait = |which| {
        let left = left(until).map_err(|_| AskError::TimedOut)?;
        sockopt::set_socket_timeout(&connection, which, Some(left))
            .map_err(|errno| AskError::Exchange(errno.into()))
    };
    wait(sockopt::Timeout::Send)?;
    retry_on_intr(|| send(&connection, &packet, SendFlags::NOSIGNAL)).map_err(ended)?;
    wait(sockopt::Timeout::Recv)?;
    // One more than there can be: a longer packet is malformed, not cut to a shorter one.
    let mut answer = [0; MAX_ANSWER + 1];
    let (length, _) = retry_on_intr(|| recv(&connection, &mut answer, RecvFlags::empty())).map_err(ended)?;
    match answer.get(..length) {
        Some([]) | None => Err(AskError::NoAnswer),
        Some(answer) => Answer::decode(answer).map_err(AskError::Malformed),
    }
}

fn ended(errno: Errno) -> AskError {
    match errno {
        Errno::AGAIN => AskError::TimedOut,
        Errno::PIPE | Errno::CONNRESET => AskError::NoAnswer,
        other => AskError::Exchange(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::thread;

    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, accept, bind, listen, socket_with};

    use super::*;
    use crate::Password;

    const SOON: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(20);

    fn request() -> Request {
        Request {
            user: "alice".to_owned(),
            password: Password::from("p".to_owned()),
            host: String::new(),
            known: false,
        }
    }

    fn listener(at: &Path) -> OwnedFd {
        let listener =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(at).unwrap()).unwrap();
        listen(&listener, 1).unwrap();
        listener
    }

    /// What a client makes of a server that answers with `packet`, or closes without.
    fn told(packet: Option<&'static [u8]>) -> Result<Answer, AskError> {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("socket");
        let listener = listener(&at);
        let server = thread::spawn(move || {
            let connection = accept(&listener).unwrap();
            let mut buffer = [0; 1024];
            let (length, _) = recv(&connection, &mut buffer, RecvFlags::empty()).unwrap();
            assert_eq!(Request::decode(&buffer[..length]).unwrap().user, "alice");
            if let Some(packet) = packet {
                send(&connection, packet, SendFlags::NOSIGNAL).unwrap();
            }
        });
        let answer = ask(&at, &request(), LONG);
        server.join().unwrap();
        answer
    }

    #[test]
    fn the_answer_is_what_the_server_said() {
        let accepted = Answer::Accepted { user: "al".to_owned() };
        assert_eq!(told(Some(b"\x02\x01\0\x02al")).unwrap(), accepted);
        assert_eq!(told(Some(b"\x02\x02")).unwrap(), Answer::Refused);
    }

    #[test]
    fn an_answer_of_another_make_is_none() {
        assert!(matches!(told(Some(b"\x01\x02")), Err(AskError::Malformed(Malformed::Version(1)))));
        assert!(matches!(told(Some(&[0; 4096])), Err(AskError::Malformed(_))));
    }

    #[test]
    fn a_closed_connection_is_no_answer() {
        assert!(matches!(told(None), Err(AskError::NoAnswer)));
    }

    #[test]
    fn a_silent_server_is_left_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("socket");
        let _listener = listener(&at);
        assert!(matches!(ask(&at, &request(), SOON), Err(AskError::TimedOut)));
    }

    #[test]
    fn a_full_backlog_is_left_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("socket");
        let _listener = listener(&at);
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                thread::spawn({
                    let at = at.clone();
                    move || ask(&at, &request(), SOON)
                })
            })
            .collect();
        for answer in waiting.into_iter().map(|thread| thread.join().unwrap()) {
            assert!(matches!(answer, Err(AskError::TimedOut)), "{answer:?}");
        }
    }

    #[test]
    fn where_nothing_listens_nothing_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(ask(&dir.path().join("none"), &request(), LONG), Err(AskError::Connect(_))));
    }
}
