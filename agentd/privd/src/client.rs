//! The agent's side: one connection for one question. It blocks, so it belongs on a thread of its own.

use std::io;
use std::path::Path;
use std::time::Duration;

use horcrux_local::clock;
use horcrux_local::connection::{Timed, connected};
use rustix::net::SocketType;

use crate::frame::{self, FrameError, MAX_FRAME};
use crate::v1::{Answer, ContainersAnswer, ContainersQuestion, Question, answer, question};

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("connect to it")]
    Connect(#[source] io::Error),
    #[error("it did not answer in time")]
    TimedOut,
    /// It ended meanwhile, or doesn't answer this user id.
    #[error("it closed the connection without an answer; it answers the users of its --allow-user only")]
    NoAnswer,
    #[error("ask it")]
    Exchange(#[source] FrameError),
    #[error("it refused: {0}")]
    Refused(String),
    /// An answer to something else.
    #[error("its answer is not one to the question")]
    Other,
}

/// Asks the `horcrux-privd` that listens at `socket` what the runtimes say of their containers.
///
/// It gives each runtime two seconds, and looks four times a second at most: a deadline below three seconds gives up on
/// answers that would come.
pub fn containers(socket: &Path, deadline: Duration) -> Result<ContainersAnswer, AskError> {
    let until = clock::now() + deadline;
    let connection = connected(socket, SocketType::STREAM, until).map_err(|error| {
        if error.kind() == io::ErrorKind::TimedOut { AskError::TimedOut } else { AskError::Connect(error) }
    })?;
    let mut connection = Timed::new(connection, until);
    let question = Question { question: Some(question::Question::Containers(ContainersQuestion {})) };
    frame::write(&mut connection, &question).map_err(ended)?;
    let Answer { answer } = frame::read(&mut connection, MAX_FRAME).map_err(ended)?;
    match answer {
        Some(answer::Answer::Containers(answer)) => Ok(answer),
        Some(answer::Answer::Refused(why)) => Err(AskError::Refused(why)),
        Some(answer::Answer::Order(_) | answer::Answer::Policy(_)) | None => Err(AskError::Other),
    }
}

fn ended(error: FrameError) -> AskError {
    let kind = match &error {
        FrameError::Read(error) | FrameError::Write(error) => error.kind(),
        FrameError::Closed => io::ErrorKind::ConnectionReset,
        FrameError::Short | FrameError::TooLong { .. } | FrameError::Malformed(_) => io::ErrorKind::Other,
    };
    if kind == io::ErrorKind::TimedOut {
        AskError::TimedOut
    } else if [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe].contains(&kind) {
        AskError::NoAnswer
    } else {
        AskError::Exchange(error)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// What a client makes of one that answers so.
    fn told(bytes: &'static [u8]) -> Result<ContainersAnswer, AskError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let asked: Question = frame::read(&mut connection, frame::MAX_QUESTION).unwrap();
            assert!(matches!(asked.question, Some(question::Question::Containers(_))));
            connection.write_all(bytes).unwrap();
        });
        let answer = containers(&path, LONG);
        server.join().unwrap();
        answer
    }

    #[test]
    fn the_answer_is_what_was_said() {
        assert_eq!(told(b"\0\0\0\x02\x0a\0").unwrap(), ContainersAnswer::default());
        assert!(matches!(told(b"\0\0\0\x04\x12\x02no"), Err(AskError::Refused(why)) if why == "no"));
        assert!(matches!(told(b"\0\0\0\0"), Err(AskError::Other)));
    }

    #[test]
    fn what_is_no_answer_is_told_from_one() {
        assert!(matches!(told(b""), Err(AskError::NoAnswer)));
        assert!(matches!(told(b"\0\0\0\x02\x0a"), Err(AskError::Exchange(FrameError::Short))));
        assert!(matches!(told(b"\x7f\0\0\0"), Err(AskError::Exchange(FrameError::TooLong { .. }))));
    }

    #[test]
    fn where_nothing_listens_nothing_is_asked_and_one_who_is_silent_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert!(matches!(containers(&path, LONG), Err(AskError::Connect(_))));
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(matches!(containers(&path, Duration::from_millis(50)), Err(AskError::TimedOut)));
    }
}
