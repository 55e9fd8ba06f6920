//! Whether the log is whole: its chain, its end against heads that were noted, and its beginning against what vouches for it.

use std::collections::HashMap;
use std::sync::PoisonError;

use super::{Audit, RETENTION};
use crate::store::StoreError;
use crate::store::audit::{AuditFilter, AuditRow, Head};

/// Rows that are read at a time.
const PAGE: i64 = 1000;

/// What a check of the whole log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub rows: u64,
    pub head: Head,
    /// The first row that doesn't fit, and in what way.
    pub broken: Option<(i64, String)>,
}

impl Audit {
    /// Reads the whole log. It must hold the heads in `noted`, beside what this process saw and noted itself; and where it
    /// doesn't begin with row 1, a row of its own must say that retention made it begin there.
    pub async fn verify(&self, noted: Vec<Head>) -> Result<Verdict, StoreError> {
        let anchor = self.store.audit_anchor().await?;
        let mut verdict = Verdict { head: anchor.clone(), ..Verdict::default() };
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(problem) = anchor.contradicts(&seen, &noted) {
            verdict.broken = Some((anchor.sequence + 1, problem));
            return Ok(verdict);
        }
        let all = noted.into_iter().chain([seen]).chain(self.noted());
        let mut wanted: HashMap<i64, Vec<Vec<u8>>> = HashMap::new();
        for head in all.filter(|head| head.sequence > anchor.sequence) {
            wanted.entry(head.sequence).or_default().push(head.hash);
        }
        let mut vouched = anchor.sequence == 0;
        loop {
            let page = self.store.audit_after(&AuditFilter::default(), verdict.head.sequence, PAGE).await?;
            if page.is_empty() {
                break;
            }
            for row in page {
                let problem = check(&row, &verdict.head, wanted.remove(&row.sequence));
                if let Some(problem) = problem {
                    verdict.broken = Some((row.sequence, problem));
                    return Ok(verdict);
                }
                vouched |= row.rpc == RETENTION && row.detail == dropped(&anchor);
                verdict.rows += 1;
                verdict.head = Head { sequence: row.sequence, hash: row.hash };
            }
        }
        let last = verdict.head.sequence;
        if let Some(&missing) = wanted.keys().min() {
            let problem = format!("the log ends at row {last}, and row {missing} was on it before");
            verdict.broken = Some((last + 1, problem));
        } else if !vouched {
            let problem = "the log begins after this row, and nothing on it says that retention dropped what was before";
            verdict.broken = Some((anchor.sequence, problem.to_owned()));
        }
        Ok(verdict)
    }

    /// The head in [`HEAD_FILE`].
    pub(super) fn noted(&self) -> Option<Head> {
        Head::parse(std::fs::read_to_string(&self.head_file).ok()?.trim())
    }
}

fn check(row: &AuditRow, before: &Head, noted: Option<Vec<Vec<u8>>>) -> Option<String> {
    if row.sequence != before.sequence + 1 {
        let last = before.sequence;
        return Some(format!("row {} follows row {last}: what was in between is gone", row.sequence));
    }
    if row.chained_to(&before.hash) != row.hash {
        return Some("its hash does not fit what it says and the row before it".to_owned());
    }
    let other = noted.is_some_and(|hashes| hashes.iter().any(|hash| *hash != row.hash));
    other.then(|| "its hash was another when it was noted".to_owned())
}

/// How a row vouches for where the log begins.
pub(super) fn dropped(anchor: &Head) -> String {
    format!("rows up to {anchor} were dropped")
}

impl Head {
    /// Why the log can't rightly begin after this row; `seen` by this process, `noted` elsewhere.
    fn contradicts(&self, seen: &Self, noted: &[Self]) -> Option<String> {
        let newest = noted.iter().max_by_key(|head| head.sequence);
        let same = |head: &&Self| head.sequence == self.sequence && head.hash != self.hash;
        if seen.sequence < self.sequence {
            Some(format!(
                "the log begins after row {}, and the last that was written is {}",
                self.sequence, seen.sequence
            ))
        } else if noted.iter().find(same).is_some() {
            Some("the row that it begins after had another hash when it was noted".to_owned())
        } else {
            let below = newest.filter(|head| head.sequence < self.sequence)?;
            Some(format!(
                "the log begins after row {}, so that the newest row that was noted, {}, can't be looked for",
                self.sequence, below.sequence
            ))
        }
    }

    /// `SEQUENCE:HASH`, the hash in hex.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (sequence, hash) = text.split_once(':')?;
        let digit = |c: u8| char::from(c).to_digit(16);
        let byte = |pair: &[u8]| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok();
        let hash: Option<Vec<u8>> = hash.as_bytes().chunks_exact(2).map(byte).collect();
        hash.filter(|hash| hash.len() == 32)
            .and_then(|hash| Some(Self { sequence: sequence.parse().ok()?, hash }))
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.sequence, hex(&self.hash))
    }
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
