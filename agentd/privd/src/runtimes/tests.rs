use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};

use horcrux_local::clock;
use horcrux_privd::v1::{Health, State};

use super::*;

const ID: &str = "3f2a9c0d1e4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1";

/// A host whose runtimes are threads of the test.
struct Fake {
    root: tempfile::TempDir,
}

impl Fake {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn path(&self, path: &str) -> PathBuf {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
    }

    /// Listens at `path`, and does `serve` with one connection after its request.
    fn serve(&self, path: &str, serve: impl FnOnce(&str, &mut UnixStream) + Send + 'static) {
        let listener = UnixListener::bind(self.path(path)).unwrap();
        thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = connection.read(&mut request).unwrap();
            serve(std::str::from_utf8(&request[..length]).unwrap(), &mut connection);
        });
    }

    /// Answers with a body, in chunks of some bytes.
    fn answer(&self, path: &str, wanted: &'static str, body: &str) {
        let body = body.to_owned();
        self.serve(path, move |request, connection| {
            assert!(request.starts_with(&format!("GET {wanted} HTTP/1.1\r\nHost: ")), "{request}");
            connection.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
            for chunk in body.as_bytes().chunks(13) {
                write!(connection, "{:x}\r\n", chunk.len()).unwrap();
                connection.write_all(chunk).unwrap();
                connection.write_all(b"\r\n").unwrap();
            }
            connection.write_all(b"0\r\n\r\n").unwrap();
        });
    }

    fn told(&self) -> ContainersAnswer {
        Host::new(self.root.path()).containers()
    }
}

fn of(answer: &ContainersAnswer, runtime: Runtime) -> &RuntimeAnswer {
    answer.runtimes.iter().find(|told| told.runtime() == runtime).unwrap()
}

const DOCKER: &str = "run/docker.sock";
const DOCKERS: &str = "/containers/json?all=true";

/// What is told of a Docker that does so.
fn docker(serve: impl FnOnce(&str, &mut UnixStream) + Send + 'static) -> RuntimeAnswer {
    let host = Fake::new();
    host.serve(DOCKER, serve);
    of(&host.told(), Runtime::Docker).clone()
}

fn failing(answer: &RuntimeAnswer, why: &str) {
    assert_eq!(answer.outcome(), Outcome::Failing, "{answer:?}");
    assert!(answer.reason.contains(why), "{}", answer.reason);
    assert_eq!(answer.containers, []);
}

#[test]
fn a_host_without_runtimes_has_none_and_each_says_what_is_not_there() {
    let told = Fake::new().told();
    assert_eq!(told.runtimes.len(), 8);
    for runtime in &told.runtimes {
        assert_eq!(runtime.outcome(), Outcome::Absent, "{runtime:?}");
        assert!(runtime.reason.ends_with(" does not exist"), "{runtime:?}");
    }
}

#[test]
fn docker_and_podman_tell_name_image_labels_state_and_health() {
    let host = Fake::new();
    let list = format!(
        r#"[{{"Id": "{ID}", "Names": ["/web"], "Image": "nginx:1", "State": "running", "More": [1],
            "Status": "Up 1 second (healthy)", "Labels": {{"team": "shop"}}}},
            {{"Id": "{}", "Names": null, "Labels": null}}]"#,
        "b".repeat(64)
    );
    host.answer(DOCKER, DOCKERS, &list);
    host.answer("run/podman/podman.sock", DOCKERS, &list);
    let told = host.told();
    for runtime in [Runtime::Docker, Runtime::Podman] {
        let runtime = of(&told, runtime);
        assert_eq!(
            (runtime.outcome(), runtime.reason.as_str(), runtime.user_id),
            (Outcome::Answered, "", None)
        );
        let [web, bare] = runtime.containers.as_slice() else { panic!("{runtime:?}") };
        assert_eq!((web.id.as_str(), web.name.as_str(), web.image.as_str()), (ID, "web", "nginx:1"));
        assert_eq!((web.state(), web.health()), (State::Running, Health::Healthy));
        assert_eq!(web.labels["team"], "shop");
        assert_eq!((bare.name.as_str(), bare.state()), ("", State::Unspecified));
    }
}

#[test]
fn lxd_tells_its_containers_and_not_its_vms() {
    let host = Fake::new();
    let list = r#"{"type": "sync", "metadata": [
        {"name": "web", "status": "Running", "type": "container", "config": {"image.description": "Debian"}},
        {"name": "vm", "status": "Running", "type": "virtual-machine"}]}"#;
    let wanted = "/1.0/instances?recursion=1&all-projects=true";
    host.answer("var/snap/lxd/common/lxd/unix.socket", wanted, list);
    host.answer("var/lib/incus/unix.socket", wanted, list);
    let told = host.told();
    for runtime in [Runtime::Lxd, Runtime::Incus] {
        let [web] = of(&told, runtime).containers.as_slice() else { panic!("{told:?}") };
        assert_eq!((web.name.as_str(), web.image.as_str(), web.state()), ("web", "Debian", State::Running));
    }
}

#[test]
fn runtimes_that_keep_files_are_read() {
    let host = Fake::new();
    host.write("var/lib/lxc/old/config", "lxc.uts.name = old\n");
    host.write("var/lib/lxc/.leftover/none", "");
    host.write("var/lib/lxc/runs/config", "");
    host.write("sys/fs/cgroup/freezer/lxc.payload.runs/freezer.state", "THAWED\n");
    host.write("var/lib/lxc/waits/config", "");
    host.write("sys/fs/cgroup/freezer/lxc.payload.waits/freezer.state", "FROZEN\n");
    host.write("var/lib/lxc/waits-2/config", "");
    host.write("sys/fs/cgroup/lxc.payload.waits-2/cgroup.freeze", "1\n");
    host.write("run/systemd/machines/deb", "NAME=deb\nCLASS=container\nROOT=/var/lib/machines/deb\n");
    host.write("run/systemd/machines/qemu-1-web", "NAME=qemu-1-web\nCLASS=vm\n");
    host.write("run/systemd/machines/unit:machine-deb.scope", "");
    let tasks = "run/containerd/io.containerd.runtime.v2.task";
    let pod = r#"{"annotations": {"io.kubernetes.cri.container-name": "web", "io.kubernetes.cri.sandbox-name": "shop-1",
        "io.kubernetes.cri.sandbox-namespace": "prod", "io.kubernetes.cri.image-name": "nginx:1"}, "process": {"env": []}}"#;
    host.write(&format!("{tasks}/k8s.io/{ID}/config.json"), pod);
    host.write(&format!("{tasks}/default/half/config.json"), "{\"annot");
    host.write(&format!("{tasks}/moby/{ID}/config.json"), pod);
    let crio = r#"{"annotations": {"io.kubernetes.pod.name": "shop-1", "io.kubernetes.pod.namespace": "prod",
        "io.kubernetes.cri-o.ImageName": "quay.io/nginx"}}"#;
    host.write(&format!("run/containers/storage/overlay-containers/{ID}/userdata/config.json"), crio);
    host.write("run/containers/storage/overlay-containers/podmans/userdata/config.json", "{}");
    let told = host.told();
    let names = |runtime| {
        let all = of(&told, runtime).containers.iter();
        all.map(|c| (c.id.as_str(), c.name.as_str(), c.image.as_str())).collect::<Vec<_>>()
    };
    assert_eq!(
        of(&told, Runtime::Lxc).containers.iter().map(|c| (c.name.as_str(), c.state())).collect::<Vec<_>>(),
        [
            ("old", State::Unspecified),
            ("runs", State::Running),
            ("waits", State::Paused),
            ("waits-2", State::Paused)
        ]
    );
    assert_eq!(names(Runtime::Nspawn), [("deb", "deb", "/var/lib/machines/deb")]);
    assert_eq!(names(Runtime::Containerd), [(ID, "prod/shop-1/web", "nginx:1")]);
    assert_eq!(names(Runtime::Crio), [(ID, "prod/shop-1", "quay.io/nginx")]);
    assert_eq!(of(&told, Runtime::Containerd).containers[0].labels["io.kubernetes.pod.name"], "shop-1");
}

#[test]
fn one_that_is_silent_or_slow_is_left_at_its_deadline_and_the_others_answer() {
    let host = Fake::new();
    host.serve(DOCKER, |_, connection| drop(connection.read(&mut [0])));
    host.serve("run/podman/podman.sock", |_, connection| {
        // A byte now and then must not move the deadline.
        while connection.write_all(b"H").is_ok() {
            thread::park_timeout(std::time::Duration::from_millis(100));
        }
    });
    host.answer(
        "var/lib/incus/unix.socket",
        "/1.0/instances?recursion=1&all-projects=true",
        r#"{"metadata": []}"#,
    );
    let began = clock::now();
    let told = host.told();
    let took = began.elapsed();
    assert!(took >= http::DEADLINE && took < 2 * http::DEADLINE, "both at once: {took:?}");
    failing(of(&told, Runtime::Docker), "no answer within 2 s");
    assert_ne!(of(&told, Runtime::Podman).outcome(), Outcome::Answered);
    assert_eq!(of(&told, Runtime::Incus).outcome(), Outcome::Answered);
}

#[test]
fn what_is_no_list_is_a_failure_with_its_reason() {
    let answered = |body: &str| {
        let body = body.to_owned();
        docker(move |_, connection| write!(connection, "HTTP/1.1 200 OK\r\n\r\n{body}").unwrap())
    };
    failing(&answered("{}"), "not what was asked for");
    failing(&answered("[{\"Id\": 5}]"), "not what was asked for");
    failing(&answered("[{\"Id\": \"a\", \"Labels\": [\"x\"]}]"), "not what was asked for");
    failing(&answered("[{\"Id\": \"a\""), "not what was asked for");
    failing(&answered(&"[".repeat(1 << 20)), "not what was asked for");
    failing(&docker(|_, connection| connection.write_all(b"\x16\x03\x01").unwrap()), "not HTTP");
    failing(&docker(|_, connection| connection.write_all(b"HTTP/1.1 500 No\r\n\r\n").unwrap()), "status 500");
    failing(&docker(|_, _| ()), "ends too soon");
}

#[test]
fn an_endless_answer_is_left_at_its_bound() {
    let endless = docker(|_, connection| {
        connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        while connection.write_all(&[b' '; 4096]).is_ok() {}
    });
    failing(&endless, "longer than");
}

#[test]
fn a_socket_that_nobody_serves_is_a_failure() {
    let host = Fake::new();
    drop(UnixListener::bind(host.path(DOCKER)).unwrap());
    failing(of(&host.told(), Runtime::Docker), "refused");
}

#[test]
fn at_a_user_s_socket_that_user_alone_is_asked() {
    let host = Fake::new();
    let other = rustix::process::geteuid().as_raw() + 1;
    let path = format!("run/user/{other}/podman/podman.sock");
    let (heard, said) = std::sync::mpsc::sync_channel(1);
    let listener = UnixListener::bind(host.path(&path)).unwrap();
    thread::spawn(move || {
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        heard.send(text).unwrap();
    });
    let told = host.told();
    let theirs = told.runtimes.iter().find(|told| told.user_id == Some(other)).unwrap();
    failing(theirs, "who must not");
    assert_eq!(said.recv().unwrap(), "", "nothing was said before it was seen whose it is");
}
