//! What an earlier run left.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::path::Path;

use horcrux_proto::agent::v1::{Gap, backfill};

use super::head::{self, HEAD};
use super::names::SERIES;
use super::place::{epoch_of, forget};
use super::record::Record;
use super::segment::Segment;

/// What earlier runs left, and the newest epoch there was. What is not whole becomes a gap.
pub(super) fn recover(dir: &Path, now_ms: i64) -> io::Result<(VecDeque<Segment>, u64)> {
    let (mut segments, mut epochs) = (Vec::new(), BTreeSet::new());
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        epochs.extend([HEAD, SERIES].iter().filter_map(|ending| epoch_of(&path, ending)));
        match Segment::recover(&path) {
            Ok(found) => segments.extend(found),
            Err(error) => tracing::warn!(file = %path.display(), %error, "not recovered"),
        }
    }
    segments.sort_by_key(|segment| (segment.epoch, segment.first));
    epochs.extend(segments.iter().map(|segment| segment.epoch));
    let mut all = VecDeque::new();
    for &epoch in &epochs {
        let mut of: Vec<Segment> = segments.extract_if(.., |segment| segment.epoch == epoch).collect();
        let (assigned, base) = head::read(dir, epoch).unwrap_or_default();
        for at in 0..of.len() {
            let next = of.get(at + 1).map(|next| next.first - 1);
            let segment = &mut of[at];
            if next.is_none() && segment.first < base {
                // It was about to be emptied: what it held was stored.
                segment.last = segment.last.max(base - 1);
                segment.acked = base - 1;
            }
            give_up(segment, next.unwrap_or(assigned), now_ms)?;
        }
        if of.is_empty() && assigned >= base && base > 0 {
            let mut segment = Segment::begin(Some(dir), epoch, base, false)?;
            give_up(&mut segment, assigned, now_ms)?;
            of.push(segment);
        }
        of.retain(|segment| !segment.is_stored());
        if of.is_empty() {
            forget_epoch(dir, epoch)?;
        }
        all.extend(of);
    }
    Ok((all, epochs.last().copied().unwrap_or(0)))
}

/// What follows the last whole record of a segment, up to `end`, is lost.
fn give_up(segment: &mut Segment, end: u64, now_ms: i64) -> io::Result<()> {
    if segment.last >= end {
        return Ok(());
    }
    let at = if segment.until_ms > 0 { segment.until_ms } else { now_ms };
    let gap = Gap {
        first_sequence: segment.last + 1,
        last_sequence: end,
        from_unix_ms: at,
        until_unix_ms: at,
        reason: "it was not whole when the agent began again".to_owned(),
    };
    segment.append(&Record::new("", segment.epoch, backfill::Record::Gap(gap)))
}

/// Removes what is left of an epoch of which all is stored.
pub(super) fn forget_epoch(dir: &Path, epoch: u64) -> io::Result<()> {
    forget(dir, epoch, SERIES)?;
    forget(dir, epoch, HEAD)
}
