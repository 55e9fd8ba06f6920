//! From a console to its file, by a task of its own. The console never waits: what the disk can't take in time, or at all,
//! is left out, counted, and marked where it is missing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use horcrux_transport::error::Chain as Causes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::chain::{Chain, Link};
use super::space::Share;
use super::tape::{Tape, What};

/// What waits for the disk, of one recording: pieces, and their bytes.
const PIECES: usize = 1024;
const WAITING: u64 = 1 << 20;
/// Written at once.
const BATCH: usize = 64;
/// A link stands behind so many bytes, and so long after what it covers.
const LINK_EVERY: u64 = 64 << 10;
const LINK_WITHIN: Duration = Duration::from_secs(5);
/// How long the end of a console waits for the end of its recording.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// What comes of a recording, for whoever lists it while it goes on.
#[derive(Debug, Default)]
pub(super) struct Course {
    pub(super) size: AtomicU64,
    pub(super) shed: AtomicU64,
    /// Shed, and not marked yet.
    unmarked: AtomicU64,
    waiting: AtomicU64,
}

/// A console's end of its recording.
#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    keeps_input: bool,
    course: Arc<Course>,
    queue: mpsc::Sender<Piece>,
    written: Option<JoinHandle<Written>>,
}

/// How a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub link: [u8; 32],
    pub shed: u64,
}

#[derive(Debug)]
pub(super) struct Piece {
    micros: u64,
    what: What,
    /// Bytes that were left out before it.
    missed: u64,
}

impl Recorder {
    pub(super) fn new(keeps_input: bool) -> (Self, Arc<Course>, mpsc::Receiver<Piece>) {
        let (queue, pieces) = mpsc::channel(PIECES);
        let course = Arc::<Course>::default();
        let recorder =
            Self { began: Instant::now(), keeps_input, course: Arc::clone(&course), queue, written: None };
        (recorder, course, pieces)
    }

    pub(super) fn is_written_by(&mut self, task: JoinHandle<Written>) {
        self.written = Some(task);
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// The VM said something.
    pub fn said(&self, bytes: &Bytes) {
        self.put(What::Said(bytes.clone()));
    }

    /// What the viewer sent reached the VM.
    pub fn typed(&self, bytes: &Bytes) {
        if self.keeps_input {
            self.put(What::Typed(bytes.clone()));
        }
    }

    /// The viewer told how it wants the picture.
    pub fn wished(&self, bytes: &Bytes) {
        self.put(What::Wish(bytes.clone()));
    }

    /// The VM's side was opened anew.
    pub fn anew(&self) {
        self.put(What::Anew);
    }

    /// Waits for a moment for all of it to be written; `None` where the disk is too slow for that.
    pub async fn end(self) -> Option<Written> {
        let Self { queue, written, .. } = self;
        drop(queue);
        tokio::time::timeout(CLOSE_WITHIN, written?).await.ok()?.ok()
    }

    fn put(&self, what: What) {
        let length = u64::try_from(what.len()).unwrap_or(u64::MAX);
        let fits = self.course.waiting.load(Ordering::Relaxed).saturating_add(length) <= WAITING;
        match self.queue.try_reserve() {
            Ok(place) if fits => {
                self.course.waiting.fetch_add(length, Ordering::Relaxed);
                let missed = self.course.unmarked.swap(0, Ordering::Relaxed);
                place.send(Piece { micros: micros(self.began), what, missed });
            }
            Ok(_) | Err(_) => self.course.miss(length),
        }
    }
}

impl Course {
    fn miss(&self, length: u64) {
        self.shed.fetch_add(length, Ordering::Relaxed);
        self.unmarked.fetch_add(length, Ordering::Relaxed);
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Writes one recording. It is the only one that knows where the file ends.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) id: String,
    pub(super) began: Instant,
    pub(super) file: Arc<File>,
    pub(super) share: Share,
    pub(super) course: Arc<Course>,
    tape: Tape,
    chain: Chain,
    end: u64,
    /// Written since the last link, and until when the next must be.
    unlinked: u64,
    link_by: Instant,
    link: Link,
    /// Left out because it could not be written, and not marked yet.
    missed: u64,
    has_failed: bool,
}

impl Writer {
    pub(super) fn new(
        id: String,
        file: File,
        share: Share,
        recorder: &Recorder,
        (tape, header): (Tape, &[u8]),
    ) -> Self {
        let began = recorder.began();
        let mut chain = Chain::new();
        chain.add(header);
        let end = u64::try_from(header.len()).unwrap_or(u64::MAX);
        let course = Arc::clone(&recorder.course);
        course.size.store(end, Ordering::Relaxed);
        Self {
            id,
            began,
            file: Arc::new(file),
            share,
            course,
            tape,
            chain,
            end,
            unlinked: end,
            link_by: began + LINK_WITHIN,
            link: Link::default(),
            missed: 0,
            has_failed: false,
        }
    }

    /// Until the console has ended and all is written.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Piece>) -> Written {
        let mut pieces = Vec::new();
        loop {
            let got = tokio::select! {
                got = queue.recv_many(&mut pieces, BATCH) => Some(got),
                () = sleep_until(self.link_by), if self.unlinked > 0 => None,
            };
            match got {
                Some(0) => break,
                Some(_) => self.write(&mut pieces).await,
                None => self.put_link().await,
            }
            if self.unlinked >= LINK_EVERY {
                self.put_link().await;
            }
        }
        self.missed += self.course.unmarked.swap(0, Ordering::Relaxed);
        self.write(&mut pieces).await;
        if self.unlinked > 0 {
            self.put_link().await;
        }
        let file = Arc::clone(&self.file);
        let synced = tokio::task::spawn_blocking(move || file.sync_all()).await;
        if let Ok(Err(error)) = synced {
            tracing::error!(recording = self.id, error = %Causes(&error), "a recording may be lost with the power");
        }
        Written { link: self.link, shed: self.course.shed.load(Ordering::Relaxed) }
    }

    async fn write(&mut self, pieces: &mut Vec<Piece>) {
        let (mut tape, mut out, mut length) = (self.tape.clone(), Vec::new(), 0);
        let before = std::mem::take(&mut self.missed);
        if before > 0 {
            let at = pieces.first().map_or_else(|| micros(self.began), |piece| piece.micros);
            tape.put_missed(&mut out, at, before);
        }
        let mut marked = before;
        for Piece { micros, what, missed } in pieces.drain(..) {
            if missed > 0 {
                tape.put_missed(&mut out, micros, missed);
                marked += missed;
            }
            tape.put(&mut out, micros, &what);
            length += u64::try_from(what.len()).unwrap_or(u64::MAX);
        }
        self.course.waiting.fetch_sub(length, Ordering::Relaxed);
        let mut chain = self.chain.clone();
        chain.add(&out);
        // That bytes are missing is told wherever it ends, and in no more than a line.
        let charge = if length > 0 { Charge::Asks } else { Charge::Takes };
        if self.append(out, charge).await {
            (self.tape, self.chain) = (tape, chain);
        } else {
            self.missed = marked + length;
            self.course.shed.fetch_add(length, Ordering::Relaxed);
        }
    }

    async fn put_link(&mut self) {
        let (mut out, rest) = self.tape.link(micros(self.began));
        let mut chain = self.chain.clone();
        chain.add(&out);
        let link = chain.link();
        out.extend_from_slice(&rest(&link));
        // Without a link at the end nothing vouches for what is there.
        if self.append(out, Charge::Takes).await {
            (self.chain, self.link, self.unlinked) = (chain, link, 0);
        }
        self.link_by = Instant::now() + LINK_WITHIN;
    }

    /// Writes at the end, all of it or nothing.
    async fn append(&mut self, out: Vec<u8>, charge: Charge) -> bool {
        let length = u64::try_from(out.len()).unwrap_or(u64::MAX);
        if length == 0 {
            return true;
        }
        match charge {
            Charge::Asks if !self.share.take(length).await => return false,
            Charge::Asks => {}
            Charge::Takes => self.share.take_anyway(length),
        }
        let (file, at) = (Arc::clone(&self.file), self.end);
        let wrote = tokio::task::spawn_blocking(move || {
            // What a full disk took of it isn't left there.
            file.write_all_at(&out, at).inspect_err(|_| drop(file.set_len(at)))
        });
        match wrote.await.unwrap_or_else(|_| Err(io::Error::other("the writer ended"))) {
            Ok(()) => {
                if self.unlinked == 0 {
                    self.link_by = Instant::now() + LINK_WITHIN;
                }
                self.end += length;
                self.unlinked += length;
                self.course.size.store(self.end, Ordering::Relaxed);
                true
            }
            Err(error) => {
                self.share.give(length);
                // Told once: a full disk is told by each piece otherwise.
                if !std::mem::replace(&mut self.has_failed, true) {
                    tracing::error!(recording = self.id, error = %Causes(&error), "a recording can't be written: what is missing in it is counted");
                }
                false
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Charge {
    /// Where there is room.
    Asks,
    Takes,
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
