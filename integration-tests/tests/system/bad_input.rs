//! What is wrong is told to the side that caused it, and changes nothing on the other.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use horcrux_agentd::identity::Enrolled;
use horcrux_integration_tests::{Controller, program, succeeded, value};
use horcrux_proto::agent::v1::agent_link_client::AgentLinkClient;
use horcrux_proto::agent::v1::{
    AttachRequest, Backfill, CommandResult, Event, Gap, Hello, Inventory, SampleBatch, Series,
    attach_request, attach_response, backfill, series,
};
use horcrux_proto::v1::{Metric, NodeFacts, VmFacts};
use tonic::{Code, Status};

const DEADLINE: Duration = Duration::from_secs(10);

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn run(program_name: &str, arguments: &[&str]) -> Output {
    Command::new(program(program_name).unwrap()).args(arguments).output().unwrap()
}

#[test]
fn wrong_settings_are_all_told_at_once_and_nothing_starts() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrong.toml");
    let path = file.display().to_string();
    let state = dir.path().join("state").display().to_string();
    fs::write(
        &file,
        format!("state_dir = {state:?}\npublic_listn = 5\nlate_after = \"soon\"\nagents_listen = \"x\"\n"),
    )
    .unwrap();
    for verb in ["check-config", "run"] {
        let refused = run("horcrux-controld", &[verb, "--config", &path]);
        assert_eq!(refused.status.code(), Some(1), "{verb}");
        for part in ["public_listn", "late_after", "agents_listen"] {
            assert!(said(&refused).contains(part), "{verb} does not tell of {part}: {}", said(&refused));
        }
    }
    fs::write(&file, format!("state_dir = {state:?}\nnode_intervall = \"1s\"\nvm_interval = \"1ms\"\n"))
        .unwrap();
    let refused = run("horcrux-agentd", &["run", "--config", &path]);
    assert_eq!(refused.status.code(), Some(1));
    for part in ["node_intervall", "vm_interval"] {
        assert!(said(&refused).contains(part), "{}", said(&refused));
    }
    assert!(!Path::new(&state).exists(), "a daemon that was refused its settings made its state");
}

#[test]
fn an_administrator_is_recovered_where_a_controller_keeps_its_state_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (state, code) = (path("state"), path("code"));
    fs::create_dir(&state).unwrap();
    fs::write(path("controld.toml"), format!("state_dir = {state:?}\n")).unwrap();
    let recover = |more: &[&str]| {
        let refused = run("horcrux-controld", &[&["recover-admin", "--code-file", &code], more].concat());
        assert_eq!(refused.status.code(), Some(1));
        said(&refused)
    };
    let told = recover(&["--config", &path("controld.toml")]);
    assert!(told.contains(&state) && told.contains("--config"), "{told}");
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0, "a new, empty state was made");
    assert!(!Path::new(&code).exists());
    // As on a host whose controller has its settings elsewhere.
    if !Path::new("/etc/horcrux/controld.toml").exists() && !Path::new("/var/lib/horcrux-controld").exists() {
        let told = recover(&[]);
        assert!(told.contains("/etc/horcrux/controld.toml") && told.contains("--config"), "{told}");
    }
}

#[test]
fn a_thing_that_is_not_there_is_named() {
    let controller = Controller::start().unwrap();
    for (noun, name) in [("node", "nowhere"), ("vm", "nothing"), ("container", "nobody")] {
        let missing = controller.ctl(&[noun, "get", name]).unwrap();
        assert_eq!(missing.status.code(), Some(4), "{noun}: {}", said(&missing));
        assert!(said(&missing).contains(name), "{noun}: {}", said(&missing));
    }
}

/// What the controller answers to a node that sends this, after hello where it is said to.
async fn answered(enrolled: &Enrolled, hello: bool, message: attach_request::Message) -> Status {
    let channel = enrolled.connect(DEADLINE).channel().await.unwrap();
    let first = attach_request::Message::Hello(Hello { epoch: 1, ..Hello::default() });
    let messages: Vec<AttachRequest> = hello
        .then_some(first)
        .into_iter()
        .chain([message])
        .map(|message| AttachRequest { message: Some(message) })
        .collect();
    let talk = async {
        let mut stream =
            AgentLinkClient::new(channel).attach(tokio_stream::iter(messages)).await?.into_inner();
        loop {
            if stream.message().await?.is_none() {
                return Ok::<_, Status>(());
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), talk).await.expect("an answer");
    ended.expect_err("a refusal")
}

/// What a node goes through that used an id which it hadn't declared.
async fn declares_again(enrolled: &Enrolled) -> anyhow::Result<()> {
    let (say, said) = tokio::sync::mpsc::channel(16);
    let tell = async |message| say.send(AttachRequest { message: Some(message) }).await;
    tell(attach_request::Message::Hello(Hello { epoch: 1, ..Hello::default() })).await?;
    let mut client = AgentLinkClient::new(enrolled.connect(DEADLINE).channel().await?);
    let mut answers = client.attach(tokio_stream::wrappers::ReceiverStream::new(said)).await?.into_inner();
    tell(attach_request::Message::Inventory(Inventory {
        complete: true,
        node: Some(NodeFacts::default()),
        ..Inventory::default()
    }))
    .await?;
    let loads = |sequence: u64, id: u32, value: f64, declared: Vec<Series>| {
        batch(|b| {
            (b.sequence, b.declared, b.gauge_ids, b.gauges) = (sequence, declared, vec![id], vec![value]);
        })
    };
    tell(loads(1, 7, 1.0, vec![])).await?;
    let command = loop {
        let answer = answers.message().await?.ok_or_else(|| anyhow::anyhow!("the stream ended"))?;
        if let Some(attach_response::Message::Command(command)) = answer.message {
            break command;
        }
    };
    let result =
        CommandResult { command_id: command.command_id, error: String::new(), ..CommandResult::default() };
    tell(attach_request::Message::Result(result)).await?;
    tell(loads(2, 7, 2.5, vec![load(7)])).await?;
    loop {
        let answer = answers.message().await?.ok_or_else(|| anyhow::anyhow!("the stream ended"))?;
        if matches!(&answer.message, Some(attach_response::Message::Ack(ack)) if ack.sequence == 2) {
            return Ok(());
        }
    }
}

#[test]
fn a_node_that_uses_an_id_it_had_not_declared_is_asked_to_declare_all_again_and_goes_on() {
    let controller = Controller::start().unwrap();
    succeeded(&controller.enroll("here", &controller.join_token("here").unwrap()).unwrap()).unwrap();
    let enrolled = Enrolled::load(Path::new(&controller.path("agent-here"))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(20), declares_again(&enrolled)).await })
        .expect("in time")
        .unwrap();
    let node = controller.json(&["node", "get", "here"]).unwrap();
    assert_eq!(value(&node, "node_load_1m"), Some(2.5));
}

/// What a node goes through whose back-fill has records that can't be kept, as after a time with a wrong clock.
async fn brings_what_cannot_be_kept(enrolled: &Enrolled) -> anyhow::Result<()> {
    let (say, said) = tokio::sync::mpsc::channel(16);
    let tell = async |message| say.send(AttachRequest { message: Some(message) }).await;
    let back = |record| attach_request::Message::Backfill(Backfill { epoch: 2, record: Some(record) });
    tell(attach_request::Message::Hello(Hello { epoch: 3, ..Hello::default() })).await?;
    let mut client = AgentLinkClient::new(enrolled.connect(DEADLINE).channel().await?);
    let mut answers = client.attach(tokio_stream::wrappers::ReceiverStream::new(said)).await?.into_inner();
    let ahead = SampleBatch { sequence: 1, taken_unix_ms: i64::MAX, ..SampleBatch::default() };
    let endless = Gap { first_sequence: 2, last_sequence: u64::MAX >> 1, ..Gap::default() };
    let strange = Event { sequence: (u64::MAX >> 1) + 1, kind: 5, ..Event::default() };
    tell(back(backfill::Record::Samples(ahead))).await?;
    tell(back(backfill::Record::Gap(endless))).await?;
    tell(back(backfill::Record::Event(strange.clone()))).await?;
    // A name that nobody can read costs itself, and no stream.
    let long = Series { instance: "x".repeat(10_000), ..load(1) };
    tell(batch(|b| (b.declared, b.gauge_ids, b.gauges) = (vec![long], vec![1], vec![0.5]))).await?;
    let (mut filled, mut live) = (false, false);
    while !(filled && live) {
        let answer = answers.message().await?.ok_or_else(|| anyhow::anyhow!("the stream ended"))?;
        if let Some(attach_response::Message::Ack(ack)) = answer.message {
            filled |= ack.backfill && ack.sequence == strange.sequence;
            live |= !ack.backfill && ack.sequence == 1;
        }
    }
    Ok(())
}

#[test]
fn back_fill_that_cannot_be_kept_is_told_as_lost_and_does_not_end_the_stream() {
    let controller = Controller::start().unwrap();
    succeeded(&controller.enroll("here", &controller.join_token("here").unwrap()).unwrap()).unwrap();
    let enrolled = Enrolled::load(Path::new(&controller.path("agent-here"))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let told = runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(20), brings_what_cannot_be_kept(&enrolled)).await
    });
    told.expect("in time").unwrap();
}

fn batch(change: impl FnOnce(&mut SampleBatch)) -> attach_request::Message {
    let mut batch =
        SampleBatch { sequence: 1, taken_unix_ms: 1, taken_boottime_ns: 1, ..SampleBatch::default() };
    change(&mut batch);
    attach_request::Message::Samples(batch)
}

fn load(id: u32) -> Series {
    Series {
        id,
        metric: Metric::NodeLoad1m.into(),
        object: Some(series::Object::Node(true)),
        ..Series::default()
    }
}

#[test]
fn a_malformed_or_oversized_message_ends_the_stream_of_its_sender_alone() {
    let controller = Controller::start().unwrap();
    let _good = controller.joined("good").unwrap();
    succeeded(&controller.enroll("bad", &controller.join_token("bad").unwrap()).unwrap()).unwrap();
    let enrolled = Enrolled::load(Path::new(&controller.path("agent-bad"))).unwrap();
    let wrong: Vec<(&str, bool, attach_request::Message)> = vec![
        ("hello", false, batch(|_| {})),
        ("columns of different lengths", true, batch(|b| b.gauge_ids.push(1))),
        (
            "not a finite number",
            true,
            batch(|b| {
                b.declared.push(load(1));
                b.gauge_ids.push(1);
                b.gauges.push(f64::NAN);
            }),
        ),
        (
            "don't measure",
            true,
            batch(|b| b.declared.push(Series { metric: Metric::NodeCpuUsage.into(), ..load(1) })),
        ),
        (
            "too large",
            true,
            attach_request::Message::Event(Event { detail: "x".repeat(5 << 20), ..Event::default() }),
        ),
        (
            "too many",
            true,
            attach_request::Message::Inventory(Inventory {
                complete: true,
                node: Some(NodeFacts::default()),
                vms: (0..20_001)
                    .map(|number| VmFacts {
                        uuid: format!("aaaaaaaa-0000-4000-8000-{number:012}"),
                        ..VmFacts::default()
                    })
                    .collect(),
                ..Inventory::default()
            }),
        ),
        ("must be complete", true, attach_request::Message::Inventory(Inventory::default())),
        (
            "uuid is not one",
            true,
            attach_request::Message::Inventory(Inventory {
                complete: true,
                vms: vec![VmFacts::default()],
                ..Inventory::default()
            }),
        ),
        ("nodes don't tell", true, attach_request::Message::Event(Event { kind: 5, ..Event::default() })),
        ("set the node's clock", true, batch(|b| b.taken_unix_ms = i64::MAX)),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (reason, hello, message) in wrong {
        let status = runtime.block_on(answered(&enrolled, hello, message));
        let clear =
            matches!(status.code(), Code::InvalidArgument | Code::OutOfRange | Code::ResourceExhausted);
        assert!(clear, "{reason}: {status:?}");
        assert!(status.message().contains(reason), "{reason}: {}", status.message());
        controller.wait_for_state("good", "connected").unwrap();
    }
    // Nothing of it is kept, and the node itself may come as it should.
    assert_eq!(controller.json(&["vm", "list"]).unwrap(), serde_json::json!([]));
    let _agent = controller.agent("bad").unwrap();
    controller.wait_for_state("bad", "connected").unwrap();
}
