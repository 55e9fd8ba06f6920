//! `horcruxctl recording`.

mod cast;
mod filter;
mod play;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use horcrux_proto::v1::recording_service_client::RecordingServiceClient;
use horcrux_proto::v1::recording_service_read_response::Part;
use horcrux_proto::v1::{
    Recording, RecordingPolicy, RecordingServiceListPoliciesRequest, RecordingServiceListRequest,
    RecordingServiceReadRequest, RecordingServiceReadResponse, RecordingServiceSetPolicyRequest,
    RecordingVerdict,
};
use tonic::Streaming;

use crate::App;
use crate::args::recording::{PolicyCommand, RecordingCommand};
use crate::change::{Deed, Run, request_id};
use crate::failure::Failure;
use crate::feed::ended;
use crate::pages;
use crate::session::{MESSAGE_LIMIT, Session, Wire};
use crate::view::recording::{
    RecordingListView, RecordingPolicyListView, RecordingPolicyView, RecordingView,
};
use crate::view::shown;

impl App {
    pub async fn recordings(&self, command: RecordingCommand) -> Result<(), Failure> {
        let session = self.session().await?;
        match command {
            RecordingCommand::List { vm, limit } => {
                let vm = vm.unwrap_or_default();
                let page = |page_token| {
                    let request = RecordingServiceListRequest {
                        vm: vm.clone(),
                        page_size: u32::from(limit).min(1000),
                        page_token,
                    };
                    let session = &session;
                    async move {
                        let list = |wire, r| async move { on_recordings(wire).list(r).await };
                        let answer = session.send(request, list).await?;
                        Ok((answer.recordings, answer.next_page_token))
                    }
                };
                let all: Vec<Recording> = pages::first(usize::from(limit), page).await?;
                self.print(&RecordingListView(all.iter().map(RecordingView::from).collect()))
            }
            RecordingCommand::Play { id, speed } => {
                let reading = Reading::open(&session, &id).await?;
                play::run(self, reading, speed).await
            }
            RecordingCommand::Export { id, file } => export(self, &session, &id, &file).await,
            RecordingCommand::Policy(PolicyCommand::List) => {
                let list = |wire, r| async move { on_recordings(wire).list_policies(r).await };
                let answer = session.send(RecordingServiceListPoliciesRequest {}, list).await?;
                let all = answer.policies.iter().map(RecordingPolicyView::from).collect();
                self.print(&RecordingPolicyListView(all))
            }
            RecordingCommand::Policy(PolicyCommand::Set { subject, scope, keep_input, change }) => {
                let run = Run::of(change);
                // A bare name is a VM's, as everywhere.
                let path = subject.trim_start_matches('/');
                let policy = RecordingPolicy {
                    subject: if path.contains('/') { path.to_owned() } else { format!("vms/{path}") },
                    scope: scope.wire().into(),
                    keeps_input: keep_input,
                };
                let request = RecordingServiceSetPolicyRequest {
                    policy: Some(policy),
                    request_id: request_id()?,
                    validate_only: run.validate_only(),
                };
                let set = |wire, r| async move { on_recordings(wire).set_policy(r).await };
                let policy = session.send(request, set).await?.policy;
                let what = format!("the recording policy of {}", shown(&subject));
                let made = policy.as_ref().map(|policy| RecordingPolicyListView(vec![policy.into()]));
                self.done(run, &Deed::new("set", "set", what), made.as_ref())
            }
        }
    }
}

/// A recording on its way here.
struct Reading {
    recording: Recording,
    url: String,
    stream: Streaming<RecordingServiceReadResponse>,
    verdict: Option<RecordingVerdict>,
}

impl Reading {
    async fn open(session: &Session, id: &str) -> Result<Self, Failure> {
        let request = RecordingServiceReadRequest { name: id.to_owned() };
        let read = |wire, r| async move { on_recordings(wire).read(r).await };
        let mut stream = session.send(request, read).await?;
        let first = stream.message().await.map_err(|status| ended(&session.url, &status))?;
        let Some(Part::Recording(recording)) = first.and_then(|first| first.part) else {
            return Err(Failure::lost(&session.url, "the recording didn't begin as one".to_owned()));
        };
        Ok(Self { recording, url: session.url.clone(), stream, verdict: None })
    }

    /// The next bytes, until all are here.
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        match self.stream.message().await.map_err(|status| ended(&self.url, &status))?.and_then(|m| m.part) {
            Some(Part::Data(bytes)) => Ok(Some(bytes)),
            Some(Part::Verdict(verdict)) => {
                self.verdict = Some(verdict);
                Ok(None)
            }
            Some(Part::Recording(_)) | None => {
                Err(Failure::lost(&self.url, "the recording ended too early".to_owned()))
            }
        }
    }

    /// An error where it isn't what was recorded.
    fn checked(self) -> Result<(), Failure> {
        let verdict = self.verdict.unwrap_or_default();
        if verdict.intact {
            return Ok(());
        }
        let (problem, at) = (shown(&verdict.problem), verdict.broken_at);
        Err(Failure::Refused(format!("the recording is not intact: {problem}; from byte {at} on")))
    }
}

async fn export(app: &App, session: &Session, id: &str, path: &Path) -> Result<(), Failure> {
    let mut reading = Reading::open(session, id).await?;
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file: File = made.with_context(|| format!("make {}", path.display()))?;
    let doing = || format!("write {}", path.display());
    while let Some(bytes) = reading.next().await? {
        file.write_all(&bytes).with_context(doing)?;
    }
    file.sync_all().with_context(doing)?;
    tell_missing(app, &reading.recording);
    let goes_on = reading.recording.ended_unix_ms.is_none();
    reading.checked()?;
    let so_far = if goes_on { ", as far as it has come" } else { "" };
    app.say(&format!("wrote {}: it is what was recorded{so_far}", path.display()));
    Ok(())
}

fn tell_missing(app: &App, recording: &Recording) {
    if recording.shed_bytes > 0 {
        app.say(&format!("{} bytes are missing in it: the disk was slow or full", recording.shed_bytes));
    }
}

fn on_recordings(wire: Wire) -> RecordingServiceClient<Wire> {
    RecordingServiceClient::new(wire).max_decoding_message_size(MESSAGE_LIMIT)
}
