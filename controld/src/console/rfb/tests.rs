use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

const HELLO: [u8; 14] = *b"RFB 003.008\n\x01\x01";

/// A message and what it is to the model: the picture's, input, or power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Picture,
    Input,
    Power,
}

type Message = (Sort, Vec<u8>);

#[derive(Clone, Debug)]
enum Step {
    Say(Message),
    Input(Input),
}

fn handshake() -> impl Strategy<Value = Vec<u8>> {
    select(vec![&b"RFB 003.003\n\x01"[..], b"RFB 003.007\n\x01\x01", &HELLO]).prop_map(<[u8]>::to_vec)
}

fn keys() -> impl Strategy<Value = Message> {
    prop_oneof![
        (any::<bool>(), 0..40_u8).prop_map(|(down, key)| vec![4, u8::from(down), 0, 0, 0, 0, 0, key]),
        (any::<bool>(), 0..40_u8, 0..3_u8).prop_map(|(down, code, symbol)| vec![
            255,
            0,
            0,
            u8::from(down),
            0,
            0,
            0,
            symbol,
            0,
            0,
            0,
            code
        ]),
        (0..4_u8, any::<[u8; 4]>()).prop_map(|(buttons, at)| [&[5, buttons], &at[..]].concat()),
    ]
    .prop_map(|bytes| (Sort::Input, bytes))
}

fn counted(head: &[u8], count: u16, each: usize) -> Vec<u8> {
    let mut out = head.to_vec();
    out.extend(count.to_be_bytes());
    out.resize(out.len() + usize::from(count) * each, 7);
    out
}

fn clipboard(length: i32) -> Vec<u8> {
    let text = usize::try_from(length.unsigned_abs()).unwrap();
    [&[6, 0, 0, 0][..], &length.to_be_bytes(), &vec![b'R'; text]].concat()
}

fn desktop_size(screens: u8) -> Vec<u8> {
    [&[251, 0, 1, 0, 1, 0, screens, 0][..], &vec![9; usize::from(screens) * 16]].concat()
}

fn fence(length: u8) -> Vec<u8> {
    [&[248, 0, 0, 0, 0, 0, 0, 1, length][..], &vec![3; usize::from(length)]].concat()
}

fn message() -> impl Strategy<Value = Message> {
    let picture = prop_oneof![
        any::<[u8; 19]>().prop_map(|rest| [&[0], &rest[..]].concat()),
        (0..80_u16).prop_map(|count| counted(&[2, 0], count, 4)),
        any::<[u8; 9]>().prop_map(|rest| [&[3], &rest[..]].concat()),
        any::<[u8; 9]>().prop_map(|rest| [&[150], &rest[..]].concat()),
        (0..=64_u8).prop_map(fence),
        select(vec![vec![255, 1, 0, 0], vec![255, 1, 0, 1], vec![255, 1, 0, 2, 3, 2, 0, 0, 172, 68]]),
    ];
    let input = prop_oneof![
        (0..3000_i32).prop_map(clipboard),
        (4..3000_i32).prop_map(|length| clipboard(-length)),
        (0..9_u8).prop_map(desktop_size),
    ];
    prop_oneof![
        3 => picture.prop_map(|bytes| (Sort::Picture, bytes)),
        2 => input.prop_map(|bytes| (Sort::Input, bytes)),
        3 => keys(),
        1 => any::<[u8; 2]>().prop_map(|rest| (Sort::Power, [&[250, 0], &rest[..]].concat())),
    ]
}

fn said(messages: &[Message]) -> Vec<u8> {
    messages.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
}

/// What comes out of `pieces` in order.
fn passed(filter: &mut Filter, pieces: &[Bytes]) -> Result<Vec<u8>, RfbError> {
    let mut out = Vec::new();
    for piece in pieces {
        filter.pass(piece.clone(), &mut out)?;
        assert!(filter.kept() <= MAX_KEPT, "{}", filter.kept());
    }
    Ok(out.concat())
}

fn one(filter: &mut Filter, bytes: &[u8]) -> Vec<u8> {
    passed(filter, &[Bytes::copy_from_slice(bytes)]).unwrap()
}

fn ready(input: Input) -> Filter {
    let mut filter = Filter::new(input);
    assert_eq!(one(&mut filter, &HELLO), HELLO);
    filter
}

fn cut(bytes: &[u8], cuts: &[Index]) -> Vec<Bytes> {
    let mut at: BTreeSet<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    let at: Vec<usize> = at.into_iter().collect();
    at.windows(2).map(|pair| Bytes::copy_from_slice(&bytes[pair[0]..pair[1]])).collect()
}

/// What is held down by whoever sends these messages: keys alone, and whether a button is.
fn held(bytes: &[u8]) -> (BTreeSet<Vec<u8>>, bool) {
    let (mut keys, mut button, mut rest) = (BTreeSet::new(), false, bytes);
    while let Some(&kind) = rest.first() {
        let length = match kind {
            4 => 8,
            5 => 6,
            _ => 12,
        };
        let (message, after) = rest.split_at(length);
        rest = after;
        match kind {
            5 => button = message[1] != 0,
            _ => {
                let name = message[if kind == 4 { 4 } else { 8 }..].to_vec();
                let name = [&[kind], &name[..]].concat();
                let down = message[if kind == 4 { 1 } else { 3 }] != 0;
                let _changed = if down { keys.insert(name) } else { keys.remove(&name) };
            }
        }
    }
    (keys, button)
}

#[test]
fn a_piece_that_passes_whole_is_not_copied() {
    let mut filter = ready(Input::Pass);
    let bytes = Bytes::from([clipboard(20), fence(3), vec![3; 10]].concat());
    let mut out = Vec::new();
    filter.pass(bytes.clone(), &mut out).unwrap();
    let parts: Vec<*const u8> = out.iter().map(|part| part.as_ptr()).collect();
    assert_eq!(parts, [bytes.as_ptr(), bytes[8..].as_ptr(), bytes[28..].as_ptr()]);
    assert_eq!(out.concat(), bytes);
}

#[test]
fn a_viewer_looks_beside_others_and_with_no_security_type_of_its_own() {
    for (said, heard) in [
        ("RFB 003.008\n\x01\x00", "RFB 003.008\n\x01\x01"),
        ("RFB 003.007\n\x01\x07", "RFB 003.007\n\x01\x01"),
        ("RFB 003.003\n\x00", "RFB 003.003\n\x01"),
    ] {
        assert_eq!(one(&mut Filter::new(Input::Pass), said.as_bytes()), heard.as_bytes());
    }
    for (said, error) in [
        ("RFB 003.889\n", RfbError::Version),
        ("RFB 004", RfbError::Version),
        ("GET / HTTP/1.1", RfbError::Version),
        ("RFB 003.008\n\x02", RfbError::Security(2)),
        ("RFB 003.008\n\x13", RfbError::Security(19)),
        ("RFB 003.007\n\x00", RfbError::Security(0)),
    ] {
        let pieces = [Bytes::from_static(said.as_bytes())];
        assert_eq!(passed(&mut Filter::new(Input::Pass), &pieces), Err(error), "{said}");
    }
}

#[test]
fn what_is_no_message_of_a_viewer_ends_it() {
    let long = |length: i32| [&[6, 0, 0, 0][..], &length.to_be_bytes()].concat();
    for (said, error) in [
        (vec![1], RfbError::Unknown(1)),
        (vec![7], RfbError::Unknown(7)),
        (vec![b'R'], RfbError::Unknown(b'R')),
        (vec![253], RfbError::Unknown(253)),
        (vec![255, 2], RfbError::UnknownOfQemu(2)),
        (vec![255, 1, 0, 3], RfbError::Audio(3)),
        (vec![2, 0, 3, 233], RfbError::Encodings(1001)),
        (long(1 + (1 << 20)), RfbError::Clipboard(1 + (1 << 20))),
        (long(-1 - (1 << 20)), RfbError::Clipboard(-1 - (1 << 20))),
        (long(-3), RfbError::Clipboard(-3)),
        (long(i32::MIN), RfbError::Clipboard(i32::MIN)),
        (vec![248, 0, 0, 0, 0, 0, 0, 0, 65], RfbError::Fence(65)),
    ] {
        for input in [Input::Pass, Input::Drop] {
            let pieces: Vec<Bytes> = said.iter().map(|&byte| Bytes::from(vec![byte])).collect();
            assert_eq!(passed(&mut ready(input), &pieces).as_ref(), Err(&error), "{said:?}");
            assert_eq!(passed(&mut ready(input), &[said.clone().into()]).as_ref(), Err(&error), "{said:?}");
        }
    }
}

#[test]
fn the_longest_there_is_passes() {
    for bytes in
        [counted(&[2, 0], 1000, 4), desktop_size(255), fence(64), clipboard(1 << 20), clipboard(-(1 << 20))]
    {
        let mut filter = ready(Input::Pass);
        let pieces: Vec<Bytes> = bytes.chunks(1000).map(Bytes::copy_from_slice).collect();
        assert_eq!(passed(&mut filter, &pieces).unwrap(), bytes);
    }
}

#[test]
fn what_is_down_is_let_go_when_input_is_taken_away() {
    let mut filter = ready(Input::Pass);
    let down: [&[u8]; 3] =
        [&[4, 1, 0, 0, 0, 0, 0, 97], &[255, 0, 0, 1, 0, 0, 255, 225, 0, 0, 0, 42], &[5, 3, 1, 2, 3, 4]];
    assert_eq!(one(&mut filter, &down.concat()), down.concat());
    // In the middle of a message: it hasn't passed, and doesn't any more.
    assert_eq!(one(&mut filter, &[4, 1, 0]), b"");
    let mut out = Vec::new();
    filter.set_input(Input::Drop, &mut out);
    let up: [&[u8]; 3] =
        [&[255, 0, 0, 0, 0, 0, 255, 225, 0, 0, 0, 42], &[4, 0, 0, 0, 0, 0, 0, 97], &[5, 0, 1, 2, 3, 4]];
    assert_eq!(out.concat(), up.concat());
    assert_eq!(one(&mut filter, &[0, 0, 0, 0, 98, 5, 1, 0, 0, 0, 0]), b"");
    filter.set_input(Input::Pass, &mut out);
    filter.set_input(Input::Drop, &mut out);
    assert_eq!(out.concat(), up.concat());
}

#[test]
fn what_is_down_is_let_go_behind_the_text_that_is_passing() {
    let mut filter = ready(Input::Pass);
    let text = clipboard(10);
    assert_eq!(one(&mut filter, &[&[5, 1, 0, 0, 0, 0][..], &text[..12]].concat()).len(), 18);
    let mut out = Vec::new();
    filter.set_input(Input::Drop, &mut out);
    assert!(out.is_empty());
    let rest = one(&mut filter, &[&text[12..], &[4, 1, 0, 0, 0, 0, 0, 97]].concat());
    assert_eq!(rest, [&text[12..], &[5, 0, 0, 0, 0, 0]].concat());
}

#[test]
fn what_a_viewer_sent_to_a_server_that_is_gone_is_dropped() {
    // Cut where the server was lost: the rest is on its way already.
    for (before, in_flight) in [
        (&b"RFB 003"[..], &b".008\n"[..]),
        (b"RFB 003.008\n", b"\x01"),
        (b"RFB 003.008\n\x01", b"\x00"),
        (&HELLO, b"\x03\0\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0\0\x61"),
        (b"RFB 003.008\n\x01\x01\x04\x01", b"\0\0\0\0\0\x61"),
        (b"RFB 003.008\n\x01\x01\x06\0\0\0\0\0\0\x04R", b"RRR"),
    ] {
        let mut filter = Filter::new(Input::Pass);
        let _before = one(&mut filter, before);
        filter.restart();
        assert_eq!(one(&mut filter, in_flight), b"", "{before:?}");
        assert_eq!(one(&mut filter, &HELLO), HELLO, "{before:?}");
        assert_eq!(one(&mut filter, &[5, 0, 1, 1, 1, 1]), [5, 0, 1, 1, 1, 1]);
    }
    // Cut off there, without the rest.
    for before in [
        &b"RFB 003"[..],
        &HELLO,
        b"RFB 003.008\n\x01\x01\x04\x01",
        &[&HELLO[..], &clipboard(40)[..20]].concat(),
    ] {
        let mut filter = Filter::new(Input::Pass);
        let _before = one(&mut filter, before);
        filter.restart();
        assert_eq!(one(&mut filter, &HELLO), HELLO, "{before:?}");
        assert_eq!(filter.kept(), 0);
    }
    // Nothing was said yet: the next is said to the new one.
    let mut filter = Filter::new(Input::Pass);
    filter.restart();
    assert_eq!(one(&mut filter, &HELLO), HELLO);
}

#[test]
fn the_last_word_on_the_picture_is_kept() {
    let mut filter = ready(Input::Drop);
    let formats = [vec![0; 20], [&[0], &[9; 19][..]].concat()];
    let encodings = [counted(&[2, 0], 3, 4), counted(&[2, 0], 2, 4)];
    for (format, encodings) in formats.iter().zip(&encodings) {
        assert_eq!(one(&mut filter, format), *format);
        assert_eq!(one(&mut filter, encodings), *encodings);
    }
    assert_eq!(filter.wishes().collect::<Vec<_>>(), [&formats[1], &encodings[1]]);
}

proptest! {
    #[test]
    fn where_a_conversation_is_cut_changes_nothing(
        hello in handshake(), messages in vec(message(), 0..20), cuts in vec(any::<Index>(), 0..30),
        input in select(vec![Input::Pass, Input::Drop]),
    ) {
        let bytes = [hello, said(&messages)].concat();
        let mut filter = Filter::new(input);
        let whole = one(&mut filter, &bytes);
        prop_assert_eq!(filter.kept(), 0);
        prop_assert_eq!(passed(&mut Filter::new(input), &cut(&bytes, &cuts)).unwrap(), &whole[..]);
        let each: Vec<Bytes> = bytes.iter().map(|&byte| Bytes::from(vec![byte])).collect();
        prop_assert_eq!(passed(&mut Filter::new(input), &each).unwrap(), whole);
    }

    #[test]
    fn only_what_may_pass_does(
        steps in vec(prop_oneof![
            8 => message().prop_map(Step::Say),
            1 => select(vec![Input::Pass, Input::Drop]).prop_map(Step::Input),
        ], 0..30),
    ) {
        let mut filter = ready(Input::Pass);
        let mut now = Input::Pass;
        for step in steps {
            match step {
                Step::Input(input) => {
                    filter.set_input(input, &mut Vec::new());
                    now = input;
                }
                Step::Say((sort, bytes)) => {
                    let passes = sort == Sort::Picture || (sort == Sort::Input && now == Input::Pass);
                    let out = one(&mut filter, &bytes);
                    // Before one key too many, another is let go.
                    prop_assert!(if passes { out.ends_with(&bytes) } else { out.is_empty() }, "{:?}", out);
                }
            }
        }
    }

    #[test]
    fn nothing_stays_down(
        messages in vec(keys(), 0..120), cuts in vec(any::<Index>(), 0..20), after in vec(keys(), 0..5),
    ) {
        let mut filter = ready(Input::Pass);
        let mut out = passed(&mut filter, &cut(&said(&messages), &cuts)).unwrap();
        let mut released = Vec::new();
        filter.set_input(Input::Drop, &mut released);
        out.extend(released.concat());
        out.extend(one(&mut filter, &said(&after)));
        prop_assert_eq!(held(&out), (BTreeSet::new(), false));
    }

    #[test]
    fn any_bytes_are_taken_or_refused(
        hello in prop_oneof![handshake(), Just(Vec::new())], messages in vec(message(), 0..3),
        noise in vec(any::<u8>(), 0..300), kind in select(vec![0, 2, 3, 4, 5, 6, 150, 248, 250, 251, 255]),
        size in 1..40_usize, restart: bool, input in select(vec![Input::Pass, Input::Drop]),
    ) {
        let mut filter = Filter::new(input);
        let bytes = [hello, said(&messages), vec![kind], noise].concat();
        let mut pieces: Vec<Bytes> = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
        let later = pieces.split_off(pieces.len() / 2);
        if let Ok(first) = passed(&mut filter, &pieces) {
            prop_assert!(first.len() <= bytes.len());
            if restart {
                filter.restart();
            }
            drop(passed(&mut filter, &later));
        }
    }
}
