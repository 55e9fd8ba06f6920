//! A message on a stream: its length in four bytes, the highest first, and its protobuf.

use std::io::{self, Read, Write};

use prost::Message;

/// The longest message. An answer has about 300 bytes for a container, its labels included.
pub const MAX_FRAME: usize = 4 << 20;
/// The longest question, with room for what may be asked one day.
pub const MAX_QUESTION: usize = 4096;

const LENGTH: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("read a message")]
    Read(#[source] io::Error),
    #[error("write a message")]
    Write(#[source] io::Error),
    /// Nothing came, not even a length.
    #[error("the connection was closed without a message")]
    Closed,
    #[error("the connection ended within a message")]
    Short,
    #[error("a message of {length} bytes is longer than the {limit} that it may have")]
    TooLong { length: usize, limit: usize },
    #[error("decode a message")]
    Malformed(#[source] prost::DecodeError),
}

/// The next message. One that says that it is longer than `limit` is refused before any of it is read.
pub fn read<M: Message + Default>(from: &mut impl Read, limit: usize) -> Result<M, FrameError> {
    let mut length = [0; LENGTH];
    let came = read_up_to(from, &mut length)?;
    if came < LENGTH {
        return Err(if came == 0 { FrameError::Closed } else { FrameError::Short });
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    // Grows with what comes, not with what was announced.
    let mut message = Vec::new();
    let wanted = u64::try_from(length).unwrap_or(u64::MAX);
    from.take(wanted).read_to_end(&mut message).map_err(FrameError::Read)?;
    if message.len() < length {
        return Err(FrameError::Short);
    }
    M::decode(message.as_slice()).map_err(FrameError::Malformed)
}

/// As bytes, to be written as they are.
pub fn encode(message: &impl Message) -> Result<Vec<u8>, FrameError> {
    let length = message.encoded_len();
    let too_long = FrameError::TooLong { length, limit: MAX_FRAME };
    let announced = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME).ok_or(too_long)?;
    let mut frame = Vec::with_capacity(LENGTH + length);
    frame.extend_from_slice(&announced.to_be_bytes());
    frame.extend_from_slice(&message.encode_to_vec());
    Ok(frame)
}

pub fn write(to: &mut impl Write, message: &impl Message) -> Result<(), FrameError> {
    to.write_all(&encode(message)?).map_err(FrameError::Write)
}

/// How many bytes there were until the buffer was full or nothing came any more.
fn read_up_to(from: &mut impl Read, buffer: &mut [u8]) -> Result<usize, FrameError> {
    let mut came = 0;
    while let Some(rest) = buffer.get_mut(came..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(more) => came += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(FrameError::Read(error)),
        }
    }
    Ok(came)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::v1::{Answer, Container, ContainersAnswer, Question, RuntimeAnswer, answer};

    fn answer(ids: Vec<String>) -> Answer {
        let containers = ids.into_iter().map(|id| Container { id, ..Container::default() }).collect();
        let runtime = RuntimeAnswer { containers, ..RuntimeAnswer::default() };
        Answer { answer: Some(answer::Answer::Containers(ContainersAnswer { runtimes: vec![runtime] })) }
    }

    #[test]
    fn what_is_announced_too_long_is_refused_unread() {
        let mut from: &[u8] = &[0, 0, 16, 1, 0];
        let refused = read::<Question>(&mut from, MAX_QUESTION).unwrap_err();
        assert!(matches!(refused, FrameError::TooLong { length: 4097, limit: MAX_QUESTION }));
        assert_eq!(from, [0]);
        let mut all: &[u8] = &[255; 8];
        assert!(matches!(read::<Answer>(&mut all, MAX_FRAME), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn what_is_too_long_is_not_written() {
        let long = answer(vec!["x".repeat(MAX_FRAME)]);
        let mut to = Vec::new();
        assert!(matches!(write(&mut to, &long), Err(FrameError::TooLong { .. })));
        assert!(to.is_empty());
    }

    #[test]
    fn nothing_at_all_is_told_from_a_part() {
        assert!(matches!(read::<Question>(&mut [].as_slice(), 9), Err(FrameError::Closed)));
        assert!(matches!(read::<Question>(&mut [0, 0].as_slice(), 9), Err(FrameError::Short)));
        assert!(matches!(read::<Question>(&mut [0, 0, 0, 1].as_slice(), 9), Err(FrameError::Short)));
        assert!(matches!(
            read::<Question>(&mut [0, 0, 0, 1, 7].as_slice(), 9),
            Err(FrameError::Malformed(_))
        ));
    }

    proptest! {
        #[test]
        fn a_message_comes_back_as_it_was(ids in prop::collection::vec(".{0,80}", 0..20)) {
            let message = answer(ids);
            let mut bytes = Vec::new();
            write(&mut bytes, &message).unwrap();
            bytes.push(b'x');
            let mut rest = bytes.as_slice();
            prop_assert_eq!(read::<Answer>(&mut rest, MAX_FRAME).unwrap(), message);
            prop_assert_eq!(rest, b"x");
        }

        #[test]
        fn a_part_of_a_message_is_none(ids in prop::collection::vec(".{0,80}", 1..9), cut: prop::sample::Index) {
            let bytes = encode(&answer(ids)).unwrap();
            let part = &bytes[..cut.index(bytes.len())];
            prop_assert!(matches!(
                read::<Answer>(&mut &*part, MAX_FRAME),
                Err(FrameError::Closed | FrameError::Short)
            ));
        }

        #[test]
        fn any_bytes_can_be_read_as_a_message(
            mut bytes in prop::collection::vec(any::<u8>(), 0..256),
            fits: bool,
            limit in 0_usize..300,
        ) {
            if let (true, Some(rest)) = (fits, bytes.len().checked_sub(LENGTH)) {
                bytes[..LENGTH].copy_from_slice(&u32::try_from(rest).unwrap().to_be_bytes());
            }
            let mut rest = bytes.as_slice();
            if read::<Answer>(&mut rest, limit).is_ok() {
                prop_assert!(bytes.len() - rest.len() <= LENGTH + limit);
            }
        }
    }
}
