use std::path::Path;

use horcrux_proto::v1::{ConsoleKind, RecordingVerdict};

use super::super::check::{Check, Noted};
use super::super::space::Space;
use super::super::tape::Title;
use super::*;
use crate::app::Counts;
use crate::store::Store;

const PLENTY: u64 = 1 << 30;

async fn space(dir: &Path, quota: u64) -> Share {
    let store = Store::open(dir).await.unwrap();
    Space::new(dir.to_owned(), store, Counts::default(), quota, &[]).of("vm")
}

fn begun(kind: ConsoleKind, file: File, share: Share) -> (Recorder, Writer, mpsc::Receiver<Piece>) {
    let title = Title { kind, began_ms: 0, vm: String::new(), display_name: String::new() };
    let (tape, header) = Tape::begin(&title);
    let (recorder, _, pieces) = Recorder::new(true);
    file.write_all_at(&header, 0).ok();
    let writer = Writer::new("x".to_owned(), file, share, &recorder, (tape, &header));
    (recorder, writer, pieces)
}

fn checked(kind: ConsoleKind, bytes: &[u8], noted: Noted, piece: usize) -> RecordingVerdict {
    let mut check = Check::new(kind);
    bytes.chunks(piece).for_each(|piece| check.take(piece));
    check.verdict(noted)
}

/// Says a hundred KiB, and a bit; the recording and its last link.
async fn spoken(kind: ConsoleKind) -> (Vec<u8>, Written) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recording");
    let file = File::create_new(&path).unwrap();
    let (recorder, writer, pieces) = begun(kind, file, space(dir.path(), PLENTY).await);
    for _ in 0..100 {
        recorder.said(&Bytes::from(vec![b'a'; 1024]));
    }
    recorder.typed(&Bytes::from_static(b"secret"));
    drop(recorder);
    let written = writer.run(pieces).await;
    (std::fs::read(&path).unwrap(), written)
}

#[tokio::test]
async fn whatever_is_changed_added_or_cut_shows() {
    for kind in [ConsoleKind::Serial, ConsoleKind::Vnc] {
        let (bytes, written) = spoken(kind).await;
        assert_eq!(written.shed, 0);
        assert!(bytes.len() > 100 << 10);
        let noted = Noted::Ended(written.link);
        for piece in [1, 4096, bytes.len()] {
            let verdict = checked(kind, &bytes, noted, piece);
            assert!(verdict.intact, "{kind:?}: {verdict:?}");
            assert_eq!(verdict.broken_at, u64::try_from(bytes.len()).unwrap());
        }
        let ends = (0..40).chain(bytes.len() - 120..bytes.len());
        for at in ends.chain((0..bytes.len()).step_by(997)) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(!checked(kind, &changed, noted, 65536).intact, "{kind:?}: byte {at}");
            assert!(!checked(kind, &bytes[..at], noted, 65536).intact, "{kind:?}: cut at {at}");
        }
        let more = [&bytes[..], b"[9.0,\"o\",\"x\"]\n"].concat();
        assert!(!checked(kind, &more, noted, 65536).intact);
        // A chain that was made anew is in itself whole.
        let (other, _) = spoken(kind).await;
        assert!(checked(kind, &other, Noted::Open, 65536).intact);
        assert!(!checked(kind, &other, noted, 65536).intact, "{kind:?}: another one");
    }
}

#[tokio::test]
async fn what_the_disk_takes_too_slowly_is_left_out_counted_and_marked_where_it_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recording");
    let file = File::create_new(&path).unwrap();
    let (recorder, writer, mut pieces) = begun(ConsoleKind::Serial, file, space(dir.path(), PLENTY).await);
    // Nothing is written meanwhile: a mebibyte waits, and no more.
    for _ in 0..40 {
        recorder.said(&Bytes::from(vec![b'a'; 64 << 10]));
    }
    assert_eq!(recorder.course.waiting.load(Ordering::Relaxed), WAITING);
    let shed = 24 << 16;
    assert_eq!(recorder.course.shed.load(Ordering::Relaxed), shed);
    // The disk takes something: what comes then stands behind the mark.
    let first = pieces.recv().await.unwrap();
    recorder.course.waiting.fetch_sub(64 << 10, Ordering::Relaxed);
    recorder.said(&Bytes::from_static(b"after"));
    drop((recorder, first));
    let mut rest = Vec::new();
    while let Some(piece) = pieces.recv().await {
        rest.push(piece);
    }
    let (put, pieces) = mpsc::channel(rest.len());
    for piece in rest {
        put.try_send(piece).unwrap();
    }
    drop(put);
    let written = writer.run(pieces).await;
    assert_eq!(written.shed, shed);
    let text = std::fs::read_to_string(&path).unwrap();
    let mark = format!("\"m\",\"{shed} bytes are missing here\"");
    assert!(text.find(&mark).unwrap() < text.find("\"after\"").unwrap());
    assert!(text.rfind("aaaa").unwrap() < text.find(&mark).unwrap());
    assert!(checked(ConsoleKind::Serial, text.as_bytes(), Noted::Ended(written.link), 4096).intact);
}

#[tokio::test]
async fn a_full_disk_costs_the_recording_and_not_the_console() {
    let dir = tempfile::tempdir().unwrap();
    let file = File::options().write(true).open("/dev/full").unwrap();
    let (recorder, writer, pieces) = begun(ConsoleKind::Vnc, file, space(dir.path(), PLENTY).await);
    recorder.said(&Bytes::from_static(b"hello"));
    recorder.typed(&Bytes::from_static(b"you"));
    drop(recorder);
    assert_eq!(writer.run(pieces).await.shed, 8);
}

#[tokio::test]
async fn what_no_room_is_left_for_is_marked() {
    // In the second there isn't even room for that.
    for quota in [4000, 4] {
        no_room(quota).await;
    }
}

async fn no_room(quota: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recording");
    let file = File::create_new(&path).unwrap();
    let (recorder, writer, pieces) = begun(ConsoleKind::Serial, file, space(dir.path(), quota).await);
    recorder.said(&Bytes::from(vec![b'a'; 2000]));
    drop(recorder);
    let written = writer.run(pieces).await;
    assert_eq!(written.shed, 2000);
    let bytes = std::fs::read(&path).unwrap();
    assert!(!bytes.windows(4).any(|part| part == b"aaaa"));
    assert!(String::from_utf8_lossy(&bytes).contains("2000 bytes are missing here"));
    assert!(checked(ConsoleKind::Serial, &bytes, Noted::Ended(written.link), 4096).intact);
}
