use std::time::Duration;

use horcrux_local::clock;
use proptest::prelude::*;
use rustix::net::{AddressFamily, SocketFlags, SocketType, send, socketpair};

use super::*;
use crate::v1::{Answer, Container, ContainersAnswer, Question, RuntimeAnswer, answer};

const LONG: Duration = Duration::from_secs(20);

fn pair() -> (Packets, Packets) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let until = clock::now() + LONG;
    (Packets::new(ours, until), Packets::new(theirs, until))
}

fn answer(ids: Vec<String>) -> Answer {
    let containers = ids.into_iter().map(|id| Container { id, ..Container::default() }).collect();
    let runtime = RuntimeAnswer { containers, ..RuntimeAnswer::default() };
    Answer { answer: Some(answer::Answer::Containers(ContainersAnswer { runtimes: vec![runtime] })) }
}

/// What is read where these packets came, and then nothing any more.
fn read_of<M: Message + Default>(packets: &[&[u8]], limit: usize) -> Result<M, PacketError> {
    let (ours, theirs) = pair();
    for packet in packets {
        send(&ours, packet, SendFlags::NOSIGNAL).unwrap();
    }
    drop(ours);
    theirs.read(limit)
}

#[test]
fn a_long_message_is_many_packets() {
    let long = answer(vec!["x".repeat(3 << 20)]);
    let (ours, theirs) = pair();
    let written = long.clone();
    let writing = std::thread::spawn(move || ours.write(&written).unwrap());
    assert_eq!(theirs.read::<Answer>(MAX_MESSAGE).unwrap(), long);
    writing.join().unwrap();
    let (ours, _theirs) = pair();
    let longer = answer(vec!["x".repeat(MAX_MESSAGE)]);
    assert!(matches!(ours.write(&longer), Err(PacketError::TooLong(MAX_MESSAGE))));
}

#[test]
fn nothing_at_all_is_told_from_a_part() {
    assert!(matches!(read_of::<Question>(&[], 9), Err(PacketError::Closed)));
    assert!(matches!(read_of::<Question>(&[&[1, 10]], 9), Err(PacketError::Short)));
    assert!(matches!(read_of::<Question>(&[&[0, 7]], 9), Err(PacketError::Malformed(_))));
    assert_eq!(read_of::<Question>(&[&[0]], 9).unwrap(), Question::default());
}

#[test]
fn what_is_no_packet_or_too_much_is_refused() {
    assert!(matches!(read_of::<Question>(&[&[2]], 9), Err(PacketError::Packet)));
    assert!(matches!(read_of::<Question>(&[&[1], &[0]], 9), Err(PacketError::Packet)));
    assert!(matches!(read_of::<Question>(&[&[0; 70_000]], MAX_MESSAGE), Err(PacketError::Packet)));
    assert!(matches!(read_of::<Question>(&[&[0; 11]], 9), Err(PacketError::TooLong(9))));
    assert!(matches!(read_of::<Question>(&[&[1; 8], &[1; 8]], 9), Err(PacketError::TooLong(9))));
}

#[test]
fn who_says_nothing_is_left_at_the_deadline() {
    let (mut ours, _theirs) = pair();
    ours.set_deadline(clock::now() + Duration::from_millis(30));
    let Err(PacketError::Read(error)) = ours.read::<Answer>(9) else { panic!() };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

/// Whether every copy of the other end of this pipe is closed.
fn is_closed(pipe: &OwnedFd) -> bool {
    rustix::io::write(pipe, b"x") == Err(Errno::PIPE)
}

#[test]
fn a_descriptor_comes_with_its_message_and_only_where_it_is_expected() {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (ours, theirs) = pair();
    ours.write_with(&answer(Vec::new()), reader.as_fd()).unwrap();
    let (_, descriptor) = theirs.read_with::<Answer>(MAX_MESSAGE).unwrap();
    drop(reader);
    assert!(!is_closed(&writer));
    ours.write_with(&answer(Vec::new()), descriptor.as_ref().unwrap().as_fd()).unwrap();
    drop(descriptor);
    assert!(matches!(theirs.read::<Answer>(MAX_MESSAGE), Err(PacketError::Descriptors)));
    assert!(is_closed(&writer), "one that nobody expects is kept by nobody");
}

#[test]
fn of_many_descriptors_none_is_kept() {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (ours, theirs) = pair();
    let copies = [reader.as_fd(); 5];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(5))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&copies)));
    sendmsg(&ours, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL).unwrap();
    drop(reader);
    assert!(matches!(theirs.read_with::<Answer>(MAX_MESSAGE), Err(PacketError::Descriptors)));
    assert!(is_closed(&writer));
}

proptest! {
    #[test]
    fn a_message_comes_back_as_it_was(ids in prop::collection::vec(".{0,80}", 0..20)) {
        let message = answer(ids);
        let (ours, theirs) = pair();
        ours.write(&message).unwrap();
        prop_assert_eq!(theirs.read::<Answer>(MAX_MESSAGE).unwrap(), message);
    }

    #[test]
    fn any_packets_can_be_read_as_a_message(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..90), 0..6),
        limit in 0_usize..300,
    ) {
        let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
        if let Ok(message) = read_of::<Answer>(&packets, limit) {
            prop_assert!(message.encoded_len() <= 300);
        }
    }
}
