//! `horcruxctl audit`.
//!
//! Following begins before listing, so that no row falls between the two; what comes twice is known by its number. A stream
//! that breaks is opened again after the last row that was shown.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use horcrux_proto::v1::audit_service_client::AuditServiceClient;
use horcrux_proto::v1::{AuditRecord, AuditServiceListRequest, FollowRequest, FollowResponse, VerifyRequest};
use horcrux_transport::backoff::{Backoff, draw};
use horcrux_transport::{clock, signal};
use tonic::Streaming;

use crate::App;
use crate::args::audit::{AuditCommand, AuditListArgs, VerifyArgs};
use crate::failure::Failure;
use crate::feed::{FIRST_RETRY, MAX_RETRY, ended, next};
use crate::pages;
use crate::place::on_path;
use crate::session::{MESSAGE_LIMIT, Session, Wire};
use crate::view::audit::{AuditListView, AuditRecordView, VerifyView};
use crate::view::quantity::seconds;
use crate::view::{Output, shown};
use crate::{Reader, prompt, user};

/// More than anyone notes down: one a minute is half a million in a year.
const MAX_CHECKPOINT_BYTES: u64 = 64 << 20;
/// What the controller checks at once.
const MOST_CHECKPOINTS: usize = 100;
/// The largest page.
const PAGE: u32 = 1000;

impl App {
    pub async fn audit(&self, command: AuditCommand) -> Result<(), Failure> {
        match command {
            AuditCommand::List(args) if args.follow => self.follow(args).await,
            AuditCommand::List(mut args) => {
                let session = self.session().await?;
                args.resource = on_log(&session, args.resource).await?;
                let records = list(&session, &args, clock::unix_ms()).await?;
                if records.len() == limit(&args) {
                    self.say(&format!(
                        "the newest {} rows; --since and --limit choose others",
                        records.len()
                    ));
                }
                self.print(&AuditListView(records.iter().map(AuditRecordView::from).collect()))
            }
            AuditCommand::Verify(args) => {
                let all = checkpoints(&args)?;
                let count = all.len();
                let checkpoints = spread(all);
                if checkpoints.len() < count {
                    self.say(&format!(
                        "of {count} checkpoints {} are compared, evenly chosen, the last among them",
                        checkpoints.len()
                    ));
                }
                let view = verify(&self.session().await?, checkpoints).await?;
                self.print(&view)?;
                match view.problem() {
                    None => Ok(()),
                    Some(problem) => Err(Failure::Refused(format!("the audit log is not intact: {problem}"))),
                }
            }
        }
    }

    async fn follow(&self, mut args: AuditListArgs) -> Result<(), Failure> {
        if self.output == Output::Yaml {
            return Err(Failure::Usage("--follow prints lines: choose -o table or -o json".to_owned()));
        }
        let session = self.session().await?;
        args.resource = on_log(&session, args.resource).await?;
        let stopped = signal::terminate().context("wait for signals")?;
        tokio::pin!(stopped);
        let mut shown = 0;
        let mut backoff = Backoff::new(FIRST_RETRY, MAX_RETRY);
        let mut print = |records: &[AuditRecord]| self.print_records(records);
        loop {
            let broken = tokio::select! {
                end = follow_once(&session, &args, &mut shown, &mut backoff, &mut print) => match end {
                    Ok(()) => return Ok(()),
                    Err(failure) if failure.is_passing() => failure,
                    Err(failure) => return Err(failure),
                },
                () = &mut stopped => return Ok(()),
            };
            let retry_in = backoff.failed(draw());
            self.say(&format!("connection lost: {broken}; trying again in {}", in_words(retry_in)));
            tokio::select! {
                () = tokio::time::sleep(retry_in) => {}
                () = &mut stopped => return Ok(()),
            }
        }
    }

    fn print_records(&self, records: &[AuditRecord]) -> Result<Reader, Failure> {
        let mut text = String::new();
        for record in records {
            let view = AuditRecordView::from(record);
            match self.output {
                Output::Json => text.push_str(&serde_json::to_string(&view).context("write JSON")?),
                Output::Table | Output::Yaml => text.push_str(&view.line()),
            }
            text.push('\n');
        }
        crate::write_out(text.as_bytes())
    }
}

/// Shows rows until the stream breaks, which is an error, or the reader has left. `shown` is the number of the last row
/// that was shown, or 0.
pub async fn follow_once(
    session: &Session,
    args: &AuditListArgs,
    shown: &mut u64,
    backoff: &mut Backoff,
    print: &mut impl FnMut(&[AuditRecord]) -> Result<Reader, Failure>,
) -> Result<(), Failure> {
    let request = FollowRequest {
        actor: actor(args),
        resource: args.resource.clone().unwrap_or_default(),
        after_sequence: *shown,
    };
    let follow = |wire, r| async move { on_audit(wire).follow(r).await };
    let mut stream: Streaming<FollowResponse> = session.send(request, follow).await?;
    if *shown == 0 {
        let mut records = list(session, args, clock::unix_ms()).await?;
        records.reverse();
        *shown = records.last().map_or(0, |record| record.sequence);
        if print(&records)? == Reader::Left {
            return Ok(());
        }
    }
    loop {
        let message = next(&mut stream).await.map_err(|status| ended(&session.url, &status))?;
        backoff.succeeded();
        let Some(record) = message.record.filter(|record| record.sequence > *shown) else { continue };
        *shown = record.sequence;
        if print(&[record])? == Reader::Left {
            return Ok(());
        }
    }
}

/// The newest rows, the newest first.
pub async fn list(session: &Session, args: &AuditListArgs, now_ms: i64) -> Result<Vec<AuditRecord>, Failure> {
    if args.limit == 0 {
        return Ok(Vec::new());
    }
    pages::first(limit(args), |page_token| async {
        let request = AuditServiceListRequest {
            actor: actor(args),
            resource: args.resource.clone().unwrap_or_default(),
            since_unix_ms: args.since.map(|since| since.unix_ms(now_ms)).unwrap_or_default(),
            until_unix_ms: 0,
            page_size: args.limit.min(PAGE),
            page_token,
        };
        let list = |wire, r| async move { on_audit(wire).list(r).await };
        session.send(request, list).await.map(|page| (page.records, page.next_page_token))
    })
    .await
}

pub async fn verify(session: &Session, checkpoints: Vec<String>) -> Result<VerifyView, Failure> {
    let verify = |wire, r| async move { on_audit(wire).verify(r).await };
    Ok(VerifyView::from(&session.send(VerifyRequest { checkpoints }, verify).await?))
}

/// A resource as the log has it: VMs and containers by their ids. What isn't there any more is on the log all the same.
pub async fn on_log(session: &Session, resource: Option<String>) -> Result<Option<String>, Failure> {
    let Some(written) = resource else { return Ok(None) };
    match on_path(session, &written).await {
        Ok(place) => Ok(Some(place.path)),
        Err(Failure::NotFound(_) | Failure::Denied(_)) => Ok(Some(written)),
        Err(failure) => Err(failure),
    }
}

fn actor(args: &AuditListArgs) -> String {
    args.user.as_deref().map(user::actor).unwrap_or_default()
}

fn limit(args: &AuditListArgs) -> usize {
    usize::try_from(args.limit).unwrap_or(usize::MAX)
}

fn checkpoints(args: &VerifyArgs) -> Result<Vec<String>, Failure> {
    let mut all = args.checkpoints.clone();
    if let Some(file) = &args.checkpoint_file {
        let text = prompt::text(file, MAX_CHECKPOINT_BYTES)?;
        all.extend(text.lines().filter_map(noted));
        if all.len() == args.checkpoints.len() {
            return Err(nothing_in(file));
        }
    }
    match all.iter().find(|text| !is_checkpoint(text)) {
        Some(wrong) => Err(Failure::Usage(format!(
            "{} is no checkpoint: write SEQUENCE:HASH, as the controller's journal has it",
            shown(wrong)
        ))),
        None => Ok(all),
    }
}

/// Of a line as people note it, or as the controller does, with the time before it.
fn noted(line: &str) -> Option<String> {
    let line = line.trim();
    let checkpoint = match line.split_once(char::is_whitespace) {
        Some((unix_ms, rest)) if unix_ms.parse::<i64>().is_ok() => rest.trim_start(),
        Some(_) | None => line,
    };
    (!checkpoint.is_empty()).then(|| checkpoint.to_owned())
}

/// At most [`MOST_CHECKPOINTS`], from the first to the last: each vouches for all rows before it.
fn spread(all: Vec<String>) -> Vec<String> {
    let count = all.len();
    if count <= MOST_CHECKPOINTS {
        return all;
    }
    (0..MOST_CHECKPOINTS).map(|at| all[at * (count - 1) / (MOST_CHECKPOINTS - 1)].clone()).collect()
}

/// An empty file would check less than was meant.
fn nothing_in(file: &Path) -> Failure {
    Failure::Usage(format!("{} holds no checkpoint", file.display()))
}

/// A row's number and its SHA-256 in hex.
fn is_checkpoint(text: &str) -> bool {
    text.split_once(':').is_some_and(|(sequence, hash)| {
        sequence.parse::<u64>().is_ok() && hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

fn in_words(time: Duration) -> String {
    seconds(time.as_secs_f64())
}

fn on_audit(wire: Wire) -> AuditServiceClient<Wire> {
    AuditServiceClient::new(wire).max_decoding_message_size(MESSAGE_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_come_from_options_and_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("noted");
        let (one, two) = (format!("1:{}", "ab".repeat(32)), format!("22:{}", "CD".repeat(32)));
        std::fs::write(&file, format!("\n  {two}\n1767225600000 {one}\n")).unwrap();
        let args = |texts: &[&str], file: Option<&Path>| VerifyArgs {
            checkpoints: texts.iter().map(|&text| text.to_owned()).collect(),
            checkpoint_file: file.map(Path::to_owned),
        };
        assert_eq!(checkpoints(&args(&[&one], Some(&file))).unwrap(), [one.clone(), two, one.clone()]);
        assert!(checkpoints(&args(&[], None)).unwrap().is_empty());
        for wrong in ["", "1", "1:ab", "x:y", &format!("-{one}")] {
            assert!(checkpoints(&args(&[wrong], None)).is_err(), "{wrong}");
        }
        std::fs::write(&file, "\n").unwrap();
        assert!(checkpoints(&args(&[], Some(&file))).is_err());
    }

    #[test]
    fn of_more_than_the_controller_takes_the_first_and_the_last_are_among_the_chosen() {
        let numbers = |count: usize| (0..count).map(|at| at.to_string()).collect::<Vec<_>>();
        assert_eq!(spread(numbers(100)), numbers(100));
        for count in [101, 525_600] {
            let chosen = spread(numbers(count));
            assert_eq!((chosen.len(), chosen[0].as_str()), (MOST_CHECKPOINTS, "0"));
            assert_eq!(chosen.last(), numbers(count).last());
        }
    }
}
