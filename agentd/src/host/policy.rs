//! What this node lets a controller do, as `horcrux-privd` tells it.

use std::path::Path;
use std::time::Duration;

use horcrux_privd::v1::{Mode, PolicyAnswer};
use horcrux_proto::v1::{NodeMode, NodePolicy};
use horcrux_transport::error::Chain;

use super::worker::Worker;

/// What the lane that tells what the node is waits for it. A privd that is there reads two files.
const PATIENCE: Duration = Duration::from_millis(200);
/// For privd.
const DEADLINE: Duration = Duration::from_secs(5);

/// Asks privd, on a thread of its own.
#[derive(Debug)]
pub struct Policy(Result<Worker<(), NodePolicy>, String>);

impl Policy {
    /// Of the privd that listens at `socket`, if one does.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        let socket = socket.to_owned();
        let asked = Worker::start("policy", move |()| match horcrux_privd::policy(&socket, DEADLINE) {
            Ok(answer) => told(answer),
            Err(error) => unreached(&format!("at {}: {}", socket.display(), Chain(&error))),
        });
        Self(asked.map_err(|error| format!("start a thread: {error}")))
    }

    /// As it is now. One that doesn't answer is not waited for again until it has.
    pub(super) fn read(&mut self) -> NodePolicy {
        match &mut self.0 {
            Ok(worker) => worker.ask((), PATIENCE).unwrap_or_else(|no| unreached(&no.to_string())),
            Err(why) => unreached(why),
        }
    }
}

fn told(PolicyAnswer { mode, reason, held: _ }: PolicyAnswer) -> NodePolicy {
    let mode = match Mode::try_from(mode) {
        Ok(Mode::Observe) => NodeMode::Observe,
        Ok(Mode::Console) => NodeMode::Console,
        Ok(Mode::Operate) => NodeMode::Operate,
        Ok(Mode::Manage) => NodeMode::Manage,
        Ok(Mode::Unspecified) | Err(_) => return unreached("it tells a mode that isn't known here"),
    };
    NodePolicy { mode: mode.into(), reason }
}

fn unreached(why: &str) -> NodePolicy {
    let reason = format!("nothing is carried out here: horcrux-privd is not reached: {why}");
    NodePolicy { mode: NodeMode::Unspecified.into(), reason }
}

#[cfg(test)]
mod tests {
    use horcrux_local::listener::{Kind, bound};
    use horcrux_privd::packets::{MAX_QUESTION, Packets};
    use horcrux_privd::v1::{Answer, Question, answer, question};
    use horcrux_transport::clock;

    use super::*;

    #[test]
    fn it_is_what_privd_says_and_where_none_is_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("privd.sock");
        let mut policy = Policy::new(&socket);
        let read = policy.read();
        assert_eq!(read.mode(), NodeMode::Unspecified);
        assert!(read.reason.contains("horcrux-privd is not reached: at "), "{read:?}");
        let listener = bound(&socket, Kind::Packets).unwrap();
        let answering = std::thread::spawn(move || {
            let connection = rustix::net::accept(&listener).unwrap();
            let connection = Packets::new(connection, clock::monotonic() + DEADLINE);
            let asked: Question = connection.read(MAX_QUESTION).unwrap();
            assert!(matches!(asked.question, Some(question::Question::Policy(_))));
            let answer = PolicyAnswer { mode: Mode::Console.into(), reason: "why".to_owned(), held: false };
            connection.write(&Answer { answer: Some(answer::Answer::Policy(answer)) }).unwrap();
        });
        assert_eq!(policy.read(), NodePolicy { mode: NodeMode::Console.into(), reason: "why".to_owned() });
        answering.join().unwrap();
    }
}
