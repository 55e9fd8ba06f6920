use std::fs;
use std::sync::Mutex;

use horcrux_transport::clock;

use super::places::MOST_MEMORY;
use super::*;

const REAL: &str = include_str!("../../../testdata/proc/hybrid/self/mountinfo");
const THREE: &str = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:50 / /mnt/hung rw - nfs4 h:/x rw\n\
                     3 1 8:2 / /srv rw - xfs /dev/sdb1 rw\n";
const SPACE: Space =
    Space { size_bytes: 100, free_bytes: 45, available_bytes: 40, inodes: Some((10, 5)), read_only: false };
const TAKEN: Taken = Taken { unix_ms: 0, boottime_ns: 0 };

fn points(text: &str) -> Vec<String> {
    distinct(&mounts(text).unwrap()).into_iter().map(|place| place.point).collect()
}

/// A lane over a list of mounts, which is in the directory.
fn lane(text: &str, probe: Probe) -> (tempfile::TempDir, FilesystemLane) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("proc/self")).unwrap();
    fs::write(dir.path().join("proc/self/mountinfo"), text).unwrap();
    let patience = Patience { answer: Duration::from_millis(50), round: Duration::from_secs(60), late: 64 };
    let lane = FilesystemLane::with(dir.path(), Lacking::default(), probe, patience);
    (dir, lane)
}

/// Mount points that have a size.
fn sizes(cycle: &Cycle) -> Vec<&str> {
    let readings = cycle.samples.iter().flat_map(|sample| &sample.readings);
    readings.filter(|r| r.metric == Metric::NodeFilesystemSize).map(|r| &*r.instance).collect()
}

#[test]
fn pseudo_filesystems_are_left_out() {
    assert_eq!(points(REAL), ["/", "/dev/shm"]);
}

#[test]
fn a_device_mounted_twice_is_asked_about_once() {
    let text = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:1 /var /srv/var rw - ext4 /dev/sda1 rw\n\
                3 1 8:2 / /home rw - xfs /dev/sda2 rw\n";
    assert_eq!(points(text), ["/", "/home"]);
}

#[test]
fn a_mount_that_another_hides_is_not_asked_about() {
    let text = "1 0 8:1 / /mnt rw - ext4 /dev/sda1 rw\n2 1 0:9 / /mnt rw - proc proc rw\n";
    assert_eq!(points(text), [""; 0]);
    let text = "1 0 8:1 / /mnt rw - ext4 /dev/sda1 rw\n2 1 0:9 / /mnt rw - tmpfs tmpfs rw\n";
    assert_eq!(points(text), ["/mnt"]);
}

fn tmpfs(points: &[&str]) -> String {
    let line = |(at, point): (usize, &&str)| format!("{at} 0 0:{at} / {point} rw - tmpfs tmpfs rw\n");
    points.iter().enumerate().map(line).collect()
}

#[test]
fn memory_that_is_used_as_a_disk_is_shown_where_it_is_the_host_s() {
    let shown = ["/dev/shm", "/run", "/run/user/1000", "/srv/t1", "/tmp"];
    let not = [
        "/dev",
        "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/a/shm",
        "/run/credentials/web.service",
        "/sys/fs/cgroup",
        "/var/lib/docker/containers/a/mounts/shm",
        "/var/lib/kubelet/pods/a/volumes/kubernetes.io~secret/b",
    ];
    assert_eq!(points(&tmpfs(&[&shown[..], &not].concat())), shown);
}

fn without_limit_at_srv(path: &Path) -> io::Result<Space> {
    let size_bytes = if path.ends_with("srv") { 0 } else { SPACE.size_bytes };
    Ok(Space { size_bytes, ..SPACE })
}

#[test]
fn memory_without_a_limit_or_of_the_agent_s_own_service_is_not_shown() {
    let (dir, mut lane) = lane(&tmpfs(&["/run", "/srv", "/home"]), without_limit_at_srv);
    assert_eq!(sizes(&lane.read(TAKEN)), ["/home", "/run"]);
    fs::create_dir_all(dir.path().join("proc/1")).unwrap();
    fs::write(dir.path().join("proc/1/mountinfo"), tmpfs(&["/run", "/srv"])).unwrap();
    assert_eq!(sizes(&lane.read(TAKEN)), ["/run"]);
}

#[test]
fn of_hundreds_of_sessions_some_are_shown_and_how_many_are_not_is_told() {
    let sessions: Vec<String> = (1000..1300).map(|user| format!("/run/user/{user}")).collect();
    let all: Vec<&str> = sessions.iter().map(String::as_str).chain(["/run", "/tmp"]).collect();
    let (_dir, mut lane) = lane(&tmpfs(&all), |_| Ok(SPACE));
    let cycle = lane.read(TAKEN);
    let shown = sizes(&cycle);
    assert!(shown.len() == MOST_MEMORY && shown.contains(&"/tmp") && shown.contains(&"/run"), "{shown:?}");
    let source = &cycle.sources[0];
    assert_eq!((source.state, source.detail.as_str()), (SourceState::Ok, "238 more tmpfs are not shown"));
}

#[test]
fn what_is_read_only_is_as_the_host_has_it() {
    let sees_all_read_only = |_: &Path| Ok(Space { read_only: true, ..SPACE });
    let (dir, mut lane) = lane(THREE, sees_all_read_only);
    let read_only = |cycle: &Cycle| {
        let readings = cycle.samples.iter().flat_map(|sample| &sample.readings);
        let of = readings.filter(|r| r.metric == Metric::NodeFilesystemReadOnly);
        of.map(|r| (r.instance.to_string(), format!("{:?}", r.value))).collect::<Vec<_>>()
    };
    let unknown = read_only(&lane.read(TAKEN));
    assert!(unknown.iter().all(|(_, value)| *value == unknown[0].1), "as statvfs says: {unknown:?}");
    let host = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n3 1 8:2 / /srv ro - xfs /dev/sdb1 rw\n\
                2 1 0:51 / /mnt/hung rw - nfs4 h:/y rw\n";
    fs::create_dir_all(dir.path().join("proc/1")).unwrap();
    fs::write(dir.path().join("proc/1/mountinfo"), host).unwrap();
    let told = read_only(&lane.read(TAKEN));
    let of = |point: &str| &told.iter().find(|(at, _)| at == point).unwrap().1;
    let (yes, no) = (&unknown[0].1, of("/"));
    assert_ne!(yes, no);
    assert_eq!((of("/srv"), of("/mnt/hung")), (yes, yes), "the host has another filesystem at /mnt/hung");
}

/// Held by the test while `/mnt/hung` is to hang.
static SERVER: Mutex<()> = Mutex::new(());

fn hangs(path: &Path) -> io::Result<Space> {
    if path.ends_with("hung") {
        let _answers = SERVER.lock().unwrap();
    }
    Ok(SPACE)
}

#[test]
fn a_hung_filesystem_costs_itself_only_says_why_and_comes_back() {
    let (_dir, mut lane) = lane(THREE, hangs);
    let all = ["/", "/mnt/hung", "/srv"];
    assert_eq!(sizes(&lane.read(TAKEN)), all);
    let gone = SERVER.lock().unwrap();
    for round in 0..2 {
        let cycle = lane.read(TAKEN);
        assert_eq!(sizes(&cycle), ["/", "/srv"]);
        assert_eq!(cycle.samples[0].readings.is_empty(), round == 0, "what it had is withdrawn, once");
        assert_eq!(cycle.sources[0].state, SourceState::Failing);
        assert!(cycle.sources[0].detail.starts_with("statvfs /mnt/hung: no answer"), "{cycle:?}");
        let lacking = lane.lacking.all();
        assert!(lacking.len() == METRICS.len() && lacking.iter().all(|a| a.instance == "/mnt/hung"));
    }
    drop(gone);
    let until = clock::monotonic() + Duration::from_secs(10);
    while sizes(&lane.read(TAKEN)) != all {
        assert!(clock::monotonic() < until, "it never came back");
    }
    assert_eq!(lane.lacking.all(), []);
}

/// Whether `/mnt/turns` is read-only.
static READ_ONLY: Mutex<bool> = Mutex::new(false);

fn turns(path: &Path) -> io::Result<Space> {
    Ok(Space { read_only: path.ends_with("turns") && *READ_ONLY.lock().unwrap(), ..SPACE })
}

#[test]
fn a_filesystem_that_becomes_read_only_is_an_event_and_one_that_is_new_is_not() {
    let mounts = |device: &str| format!("2 1 {device} / /mnt/turns rw - ext4 /dev/sdb rw\n");
    let (dir, mut lane) = lane(&mounts("8:16"), turns);
    let mut kinds = Vec::new();
    for read_only in [false, true, true, false] {
        *READ_ONLY.lock().unwrap() = read_only;
        kinds.extend(lane.read(TAKEN).events.into_iter().map(|event| event.kind));
    }
    assert_eq!(kinds, [EventKind::FilesystemReadOnly, EventKind::FilesystemWritable]);
    *READ_ONLY.lock().unwrap() = true;
    fs::write(dir.path().join("proc/self/mountinfo"), mounts("8:32")).unwrap();
    assert_eq!(lane.read(TAKEN).events, [], "it is another filesystem");
}

#[test]
fn the_root_of_this_machine_has_a_size() {
    let space = statvfs(Path::new("/")).unwrap();
    assert!(space.size_bytes > space.available_bytes && space.available_bytes > 0, "{space:?}");
}

#[test]
fn a_mount_point_that_is_gone_has_no_values_and_a_reason() {
    let (dir, mut lane) = lane(THREE, statvfs);
    let cycle = lane.read(TAKEN);
    assert_eq!(sizes(&cycle), ["/"], "the directory that stands for the root is there");
    assert!(cycle.sources[0].detail.contains("/srv: No such file"), "{cycle:?}");
    fs::remove_file(dir.path().join("proc/self/mountinfo")).unwrap();
    lane.mountinfo = KeptFile::new(dir.path().join("proc/self/mountinfo"), Shape::Records, Keep::Open);
    let cycle = lane.read(TAKEN);
    assert!(sizes(&cycle).is_empty() && cycle.sources[0].detail.contains("mountinfo"), "{cycle:?}");
}
