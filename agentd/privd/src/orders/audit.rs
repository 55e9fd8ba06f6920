//! What was ordered here and what came of it, for people: lines of JSON that no controller and no agent can take back.
//!
//! Every order that was accepted or forbidden has its line. What is refused otherwise anybody can send who can ask, as
//! often as they like: of those a minute's first have a line each, and the others are counted.

use std::fs::{File, OpenOptions, rename};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use horcrux_envelope::{Operation, Order};
use horcrux_privd::v1::OrderStatus;
use serde::Serialize;

/// The length at which the next file is begun, and how many are kept beside it. A line is of about 500 bytes.
const MOST_BYTES: u64 = 4 << 20;
const KEPT: usize = 8;

/// Refusals that are written one by one, in a minute.
const MOST_REFUSALS: u32 = 60;
const MINUTE_MS: i64 = 60_000;

#[derive(Debug)]
pub(crate) struct Audit {
    path: PathBuf,
    file: File,
    length: u64,
    refusals: Refusals,
}

#[derive(Debug, Default)]
struct Refusals {
    minute: i64,
    written: u32,
    left_out: u64,
}

/// Whether it can be had in a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Once,
    Often,
}

#[derive(Serialize)]
struct Line<'a> {
    unix_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    reason: &'a str,
    #[serde(flatten)]
    order: Option<Ordered<'a>>,
    /// Refusals before this line that have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<u64>,
}

/// What its signer said. Not of what nobody signed.
#[derive(Serialize)]
struct Ordered<'a> {
    operation: &'static str,
    command: String,
    actor: &'a str,
    signer: String,
    sequence: u64,
    issued_unix_ms: i64,
    console: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    vm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
}

impl Audit {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, length, refusals: Refusals::default() })
    }

    /// Writes what came of an order, and says it in the log.
    pub(crate) fn record(
        &mut self,
        now_ms: i64,
        kind: Kind,
        order: Option<&Order>,
        status: OrderStatus,
        reason: &str,
    ) {
        let minute = now_ms / MINUTE_MS;
        if minute != self.refusals.minute {
            self.flush(now_ms);
            self.refusals.minute = minute;
        }
        if kind == Kind::Often {
            if self.refusals.written >= MOST_REFUSALS {
                self.refusals.left_out += 1;
                return;
            }
            self.refusals.written += 1;
        }
        let status = status.as_str_name().trim_start_matches("ORDER_STATUS_").to_ascii_lowercase();
        let ordered = order.map(Ordered::of);
        let (command, actor) =
            (ordered.as_ref().map(|o| o.command.clone()), order.map(|order| order.actor.as_str()));
        tracing::info!(command, actor, status, reason, "order");
        self.write(&Line { unix_ms: now_ms, status: Some(&status), reason, order: ordered, left_out: None });
    }

    /// Says how many had no line, where some had none.
    pub(crate) fn flush(&mut self, now_ms: i64) {
        let left_out = std::mem::take(&mut self.refusals).left_out;
        if left_out > 0 {
            tracing::warn!(left_out, "more orders were refused than are told one by one");
            self.write(&Line {
                unix_ms: now_ms,
                status: None,
                reason: "",
                order: None,
                left_out: Some(left_out),
            });
        }
    }

    fn write(&mut self, line: &Line<'_>) {
        let written =
            serde_json::to_string(line).map_err(io::Error::from).and_then(|text| self.append(&(text + "\n")));
        if let Err(error) = written {
            tracing::error!(%error, "the audit can't be written");
        }
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        if self.length >= MOST_BYTES {
            self.turn()?;
        }
        self.file.write_all(line.as_bytes())?;
        self.length += u64::try_from(line.len()).unwrap_or_default();
        self.file.sync_data()
    }

    /// Begins the next file; the oldest goes.
    fn turn(&mut self) -> io::Result<()> {
        let numbered = |number: usize| self.path.with_extension(number.to_string());
        for number in (1..KEPT).rev() {
            match rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        rename(&self.path, numbered(1))?;
        let refusals = std::mem::take(&mut self.refusals);
        *self = Self { refusals, ..Self::open(&self.path)? };
        Ok(())
    }
}

impl<'a> Ordered<'a> {
    fn of(order: &'a Order) -> Self {
        let (console, vm, kind) = match &order.operation {
            Operation::ConsoleOpen(open) => {
                (open.console, Some(open.vm.to_string()), Some(open.kind.to_string()))
            }
            Operation::ConsoleClose(console) => (*console, None, None),
        };
        Self {
            operation: order.operation.name(),
            command: order.command.to_string(),
            actor: &order.actor,
            signer: order.signer.to_string(),
            sequence: order.sequence,
            issued_unix_ms: order.issued_unix_ms,
            console: console.to_string(),
            vm,
            kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn what_anybody_can_cause_is_counted_and_nothing_else_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        let mut audit = Audit::open(&path).unwrap();
        for _ in 0..MOST_REFUSALS + 1000 {
            audit.record(5, Kind::Often, None, OrderStatus::Refused, "its signature is wrong");
        }
        audit.record(6, Kind::Once, None, OrderStatus::Forbidden, "observe");
        let told = lines(&path);
        assert_eq!(told.len(), usize::try_from(MOST_REFUSALS).unwrap() + 1);
        assert_eq!((&told[0]["status"], &told[60]["status"]), (&"refused".into(), &"forbidden".into()));
        audit.record(MINUTE_MS, Kind::Often, None, OrderStatus::Refused, "again");
        let told = lines(&path);
        assert_eq!((&told[61]["left_out"], &told[62]["reason"]), (&1000.into(), &"again".into()));
    }

    #[test]
    fn it_has_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        for turn in 0..KEPT + 3 {
            let mut audit = Audit::open(&path).unwrap();
            audit.record(1, Kind::Once, None, OrderStatus::Done, &turn.to_string());
            audit.length = MOST_BYTES;
            audit.record(1, Kind::Once, None, OrderStatus::Done, "next");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), KEPT + 1);
        assert_eq!(lines(&path.with_extension("1"))[1]["reason"], "10");
    }
}
