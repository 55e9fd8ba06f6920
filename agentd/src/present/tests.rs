use super::*;

fn vm(uuid: &str, state: VmState) -> VmFacts {
    VmFacts { uuid: uuid.into(), display_name: uuid.into(), state: state.into(), ..VmFacts::default() }
}

fn kinds(news: &News) -> Vec<EventKind> {
    news.events.iter().map(Event::kind).collect()
}

#[test]
fn the_first_list_is_no_event_and_later_differences_are() {
    let mut present = Present::default();
    let first = present.found("vms", &Found::Vms(vec![vm("a", VmState::Running)]), 1);
    assert_eq!(first.events, vec![]);
    assert_eq!(first.inventory.unwrap().vms.len(), 1);
    let next = [vm("a", VmState::Paused), vm("b", VmState::Running)];
    let news = present.found("vms", &Found::Vms(next.to_vec()), 2);
    assert_eq!(kinds(&news), [EventKind::VmStateChanged, EventKind::VmAppeared]);
    let news = present.found("vms", &Found::Vms(vec![next[1].clone()]), 3);
    assert_eq!(kinds(&news), [EventKind::VmGone]);
    assert_eq!(news.inventory.unwrap().gone_vms, ["a"]);
    assert_eq!(present.found("vms", &Found::Vms(vec![next[1].clone()]), 4), News::default());
}

#[test]
fn of_several_lanes_that_list_vms_each_speaks_for_its_own() {
    let mut present = Present::default();
    present.found("vms", &Found::Vms(vec![vm("a", VmState::Running)]), 1);
    let first = present.found("vms other", &Found::Vms(vec![vm("b", VmState::Running)]), 2);
    assert_eq!(first.events, vec![], "the first list of each is how things are");
    assert_eq!(present.vms().len(), 2);
    let news = present.found("vms", &Found::Vms(Vec::new()), 3);
    assert_eq!((kinds(&news), news.inventory.unwrap().gone_vms), (vec![EventKind::VmGone], vec!["a".into()]));
    assert_eq!(present.vms().len(), 1);
}

#[test]
fn what_is_seen_before_all_is_told_is_no_news_when_it_is_told() {
    let mut present = Present::default();
    let seen = Found::VmsSoFar(vec![vm("a", VmState::Unspecified), vm("b", VmState::Unspecified)]);
    assert_eq!(present.found("vms", &seen, 1).events, vec![]);
    assert_eq!(present.vms().len(), 2);
    let all = [vm("a", VmState::Running), vm("off", VmState::ShutOff)];
    let news = present.found("vms", &Found::Vms(all.to_vec()), 2);
    assert_eq!(kinds(&news), [EventKind::VmGone], "of b libvirt doesn't know");
    let next = present.found("vms", &Found::Vms(all[..1].to_vec()), 3);
    assert_eq!(kinds(&next), [EventKind::VmGone], "from then on the list is whole");
}

#[test]
fn a_state_that_was_told_as_it_happened_is_not_told_again() {
    let uuid = "aaaaaaaa-0000-4000-8000-000000000001";
    let mut present = Present::default();
    present.found("vms", &Found::Vms(vec![vm(uuid, VmState::Running)]), 1);
    let object = Object::Vm(uuid.parse().unwrap());
    let paused = Happened { kind: EventKind::VmSuspended, object, detail: "paused".into() };
    assert_eq!(kinds(&present.happened(&[paused], 2)), [EventKind::VmSuspended]);
    assert_eq!(kinds(&present.found("vms", &Found::Vms(vec![vm(uuid, VmState::Paused)]), 3)), []);
    let missed = present.found("vms", &Found::Vms(vec![vm(uuid, VmState::Running)]), 4);
    assert_eq!(kinds(&missed), [EventKind::VmStateChanged], "nothing told of this one");
}

#[test]
fn a_container_s_next_state_and_health_are_told_and_a_silence_is_not() {
    let container = |state: ContainerState, health: ContainerHealth| {
        let (state, health) = (state.into(), health.into());
        let facts = ContainerFacts { id: "c".into(), state, health, ..ContainerFacts::default() };
        Found::Containers(vec![ContainerFacts { display_name: Some("web".into()), ..facts }])
    };
    let mut present = Present::default();
    let (running, healthy) = (ContainerState::Running, ContainerHealth::Healthy);
    present.found("containers", &container(running, healthy), 1);
    let news = present.found("containers", &container(running, ContainerHealth::Unhealthy), 2);
    assert_eq!(kinds(&news), [EventKind::ContainerHealthChanged]);
    assert_eq!(news.events[0].detail, "web: healthy → unhealthy");
    let silent = container(ContainerState::Unspecified, ContainerHealth::Unspecified);
    assert_eq!(kinds(&present.found("containers", &silent, 3)), []);
    assert_eq!(kinds(&present.found("containers", &container(ContainerState::Paused, healthy), 4)), []);
    let news = present.found("containers", &container(running, healthy), 5);
    assert_eq!(kinds(&news), [EventKind::ContainerStateChanged]);
}

#[test]
fn containers_that_come_and_go_in_a_loop_leave_room_and_how_many_is_told() {
    let containers = |numbers: std::ops::Range<usize>| {
        let facts = |number: usize| ContainerFacts { id: format!("c{number}"), ..ContainerFacts::default() };
        Found::Containers(numbers.map(facts).collect())
    };
    let mut present = Present::default();
    present.found("containers", &containers(0..0), 1);
    let all = present.found("containers", &containers(0..MOST_AT_ONCE), 2);
    assert_eq!(kinds(&all), [EventKind::ContainerAppeared; MOST_AT_ONCE]);
    let news = present.found("containers", &containers(1000..1300), 3);
    let (last, told) = news.events.split_last().unwrap();
    assert_eq!(
        (told.len(), last.kind(), last.detail.as_str()),
        (MOST_AT_ONCE, EventKind::EventsShed, "300 more events of containers")
    );
    let inventory = news.inventory.unwrap();
    assert_eq!((inventory.containers.len(), inventory.gone_containers.len()), (300, MOST_AT_ONCE));
}

#[test]
fn a_lane_that_could_not_list_leaves_what_was_known() {
    let mut present = Present::default();
    present.found("vms", &Found::Vms(vec![vm("a", VmState::Running)]), 1);
    assert_eq!(present.found("vms", &Found::Nothing, 2), News::default());
    assert_eq!(present.whole()[0].vms.len(), 1);
}

#[test]
fn a_large_whole_comes_in_pieces_that_fit_a_message() {
    let mut present = Present::default();
    let many: Vec<_> = (0..3000)
        .map(|number| VmFacts { display_name: "x".repeat(1000), ..vm(&number.to_string(), VmState::Running) })
        .collect();
    present.found("vms", &Found::Vms(many), 1);
    let pieces = present.whole();
    assert!(pieces.len() > 2 && pieces.iter().all(|piece| piece.encoded_len() < 2 << 20));
    assert_eq!(pieces.iter().map(|piece| piece.vms.len()).sum::<usize>(), 3000);
    let numbers: Vec<_> = pieces.iter().map(|piece| (piece.piece, piece.more_follows)).collect();
    let last = u32::try_from(pieces.len() - 1).unwrap();
    assert_eq!(numbers, (0..=last).map(|at| (at, at < last)).collect::<Vec<_>>());
}

#[test]
fn a_source_is_lost_and_comes_back_once_each() {
    let mut present = Present::default();
    present.found("vms", &Found::Node(Box::default()), 0);
    let report = |state, detail: &str| SourceReport {
        source: Source::Libvirt,
        instance: Arc::default(),
        state,
        detail: detail.into(),
    };
    assert_eq!(kinds(&present.source(&report(SourceState::Ok, ""), 0, 1)), []);
    let lost = report(SourceState::Failing, "gone");
    assert_eq!(kinds(&present.source(&lost, 0, 2)), [EventKind::SourceLost]);
    assert_eq!(present.source(&lost, 0, 3), News::default());
    assert_eq!(present.whole()[0].node.as_ref().unwrap().sources[0].since_unix_ms, 2);
    assert_eq!(kinds(&present.source(&report(SourceState::Ok, ""), 0, 4)), [EventKind::SourceBack]);
}
