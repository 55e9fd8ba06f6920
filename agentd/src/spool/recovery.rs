//! What an earlier run left.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::head::{self, HEAD};
use super::names::SERIES;
use super::place::{epoch_of, forget};
use super::segment::Segment;

/// What runs before the epoch `current` left, oldest first, and the newest epoch there was. Of each, all that was given and
/// isn't stored is in a segment, which tells of what is not whole in it.
pub(super) fn recover(dir: &Path, current: Option<u64>, now_ms: i64) -> io::Result<(VecDeque<Segment>, u64)> {
    let (mut segments, mut epochs) = (Vec::new(), BTreeSet::new());
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        epochs.extend([HEAD, SERIES].iter().filter_map(|ending| epoch_of(&path, ending)));
        match Segment::recover(&path, current) {
            Ok(found) => segments.extend(found),
            Err(error) if is_no_file(&error) => {
                tracing::warn!(file = %path.display(), %error, "not recovered: set aside");
                fs::rename(&path, path.with_extension("unusable"))?;
            }
            Err(error) => return Err(error),
        }
    }
    segments.sort_by_key(|segment| (segment.epoch, segment.first));
    epochs.extend(segments.iter().map(|segment| segment.epoch));
    let mut all = VecDeque::new();
    for &epoch in epochs.iter().filter(|epoch| Some(**epoch) != current) {
        let mut of: VecDeque<Segment> = segments.extract_if(.., |segment| segment.epoch == epoch).collect();
        let known = head::read(dir, epoch);
        if known.is_none() && !of.is_empty() {
            tracing::warn!(epoch, "how many records an earlier run took is not known any more");
        }
        // Then it is what is there.
        let (assigned, stored) = known.unwrap_or_else(|| {
            (of.back().map_or(0, |last| last.last), of.front().map_or(0, |first| first.first - 1))
        });
        if stored < of.front().map_or(assigned, |first| first.first - 1) {
            of.push_front(Segment::begin(Some(dir), epoch, stored + 1, false)?);
        }
        for at in 0..of.len() {
            let end = of.get(at + 1).map_or(assigned, |next| next.first - 1);
            let segment = &mut of[at];
            // What follows its last whole record is lost.
            segment.last = segment.last.max(end);
            segment.acked = segment.acked.max(stored.min(segment.last));
            if segment.until_ms == 0 {
                segment.until_ms = now_ms;
            }
        }
        let mut kept = VecDeque::new();
        for segment in of {
            if segment.is_stored() {
                segment.remove()?;
            } else {
                kept.push_back(segment);
            }
        }
        if kept.is_empty() {
            forget_epoch(dir, epoch)?;
        }
        all.extend(kept);
    }
    Ok((all, epochs.last().copied().unwrap_or(0)))
}

/// Whether something else is in the place of a file, rather than that it can't be read now.
fn is_no_file(error: &io::Error) -> bool {
    let others = [Errno::LOOP, Errno::ISDIR, Errno::NXIO];
    error.kind() == io::ErrorKind::InvalidData
        || others.iter().any(|other| Errno::from_io_error(error) == Some(*other))
}

/// Removes what is left of an epoch of which all is stored.
pub(super) fn forget_epoch(dir: &Path, epoch: u64) -> io::Result<()> {
    forget(dir, epoch, SERIES)?;
    forget(dir, epoch, HEAD)
}
