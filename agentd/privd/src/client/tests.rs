use std::thread;

use horcrux_local::listener::{Kind, bound};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, accept, send, socketpair};

use super::*;
use crate::packets::MAX_QUESTION;
use crate::v1::ConsoleOpened;

const LONG: Duration = Duration::from_secs(20);

/// What a client makes of one that answers its question so.
fn told<T: Send>(
    ask: impl FnOnce(&Path) -> T + Send,
    answer: impl FnOnce(question::Question, Packets) + Send,
) -> T {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = bound(&path, Kind::Packets).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let connection = Packets::new(accept(&listener).unwrap(), clock::now() + LONG);
            let asked: Question = connection.read(MAX_QUESTION).unwrap();
            answer(asked.question.unwrap(), connection);
        });
        ask(&path)
    })
}

fn told_bytes(bytes: Option<&[u8]>) -> Result<ContainersAnswer, AskError> {
    told(
        |path| containers(path, LONG),
        |question, connection| {
            assert!(matches!(question, question::Question::Containers(_)));
            if let Some(bytes) = bytes {
                send(&connection, bytes, SendFlags::NOSIGNAL).unwrap();
            }
        },
    )
}

fn order_answer(status: OrderStatus) -> Answer {
    let answer = OrderAnswer { status: status.into(), ..OrderAnswer::default() };
    Answer { answer: Some(answer::Answer::Order(answer)) }
}

fn opened() -> Answer {
    let console_opened = Some(ConsoleOpened::default());
    let answer = OrderAnswer { status: OrderStatus::Done.into(), console_opened, ..OrderAnswer::default() };
    Answer { answer: Some(answer::Answer::Order(answer)) }
}

fn pending(path: &Path) -> Pending {
    match submit(path, &[], LONG).unwrap() {
        Submitted::Accepted(pending) => pending,
        Submitted::Answered(answer) => panic!("{answer:?}"),
    }
}

#[test]
fn the_answer_is_what_was_said() {
    assert_eq!(told_bytes(Some(b"\0\x0a\0")).unwrap(), ContainersAnswer::default());
    assert!(matches!(told_bytes(Some(b"\0\x12\x02no")), Err(AskError::Refused(why)) if why == "no"));
    assert!(matches!(told_bytes(Some(b"\0")), Err(AskError::Other)));
}

#[test]
fn what_is_no_answer_is_told_from_one() {
    assert!(matches!(told_bytes(None), Err(AskError::NoAnswer)));
    assert!(matches!(told_bytes(Some(b"\x01\x0a")), Err(AskError::Exchange(PacketError::Short))));
    assert!(matches!(told_bytes(Some(b"\x7f\0")), Err(AskError::Exchange(PacketError::Packet))));
}

#[test]
fn where_nothing_listens_nothing_is_asked_and_one_who_is_silent_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    assert!(matches!(containers(&path, LONG), Err(AskError::Connect(_))));
    let _listener = bound(&path, Kind::Packets).unwrap();
    assert!(matches!(containers(&path, Duration::from_millis(50)), Err(AskError::TimedOut)));
    assert!(matches!(submit(&path, &[7], LONG), Err(AskError::Order(_))));
}

#[test]
fn a_console_is_its_stream_and_the_connection() {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let console = told(
        |path| pending(path).wait(LONG).unwrap().console.unwrap(),
        |question, connection| {
            assert!(matches!(question, question::Question::Order(_)));
            connection.write(&order_answer(OrderStatus::Accepted)).unwrap();
            connection.write_with(&opened(), std::os::fd::AsFd::as_fd(&theirs)).unwrap();
        },
    );
    rustix::io::write(&ours, b"RFB").unwrap();
    let mut said = [0; 3];
    rustix::io::read(&console.stream, &mut said).unwrap();
    assert_eq!(&said, b"RFB");
    // The other end was closed: that is how its end is told.
    assert_eq!(rustix::io::read(&console.lease, &mut said), Ok(0));
}

#[test]
fn a_console_without_a_descriptor_is_none_nor_is_a_refusal_that_opens_one() {
    let settled = told(
        |path| pending(path).wait(LONG),
        |_, connection| {
            connection.write(&order_answer(OrderStatus::Accepted)).unwrap();
            connection.write(&opened()).unwrap();
        },
    );
    assert!(matches!(settled, Err(AskError::Other)));
    let refused = told(
        |path| submit(path, &[], LONG).unwrap(),
        |_, connection| connection.write(&order_answer(OrderStatus::Forbidden)).unwrap(),
    );
    assert!(matches!(refused, Submitted::Answered(answer) if answer.status() == OrderStatus::Forbidden));
    assert!(matches!(
        told(|path| submit(path, &[], LONG), |_, connection| connection.write(&opened()).unwrap()),
        Err(AskError::Other)
    ));
}
