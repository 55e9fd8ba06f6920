//! Whose cgroup a directory is, by its path alone.

use horcrux_proto::name::ContainerId;
use horcrux_proto::v1::ContainerRuntime;

/// A container as its path names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) runtime: ContainerRuntime,
    /// The runtime's id; the name where the runtime has no id.
    pub(super) id: ContainerId,
    pub(super) name: Option<String>,
}

/// What `name` is, in `parent`; `in_pod` when some directory above it is of Kubernetes. All three are segments as
/// systemd writes them.
pub(super) fn identity(parent: &str, name: &str, in_pod: bool) -> Option<Identity> {
    // Prefixes that end in an id. Monitors (`libpod-conmon-…`, `crio-conmon-…`) fail the test for an id.
    const PREFIXES: [(&str, ContainerRuntime); 7] = [
        ("docker-", ContainerRuntime::Docker),
        // `--cgroups=split`, as quadlets have it.
        ("libpod-payload-", ContainerRuntime::Podman),
        ("libpod-", ContainerRuntime::Podman),
        ("cri-containerd-", ContainerRuntime::Containerd),
        ("nerdctl-", ContainerRuntime::Containerd),
        ("crio-", ContainerRuntime::Crio),
        ("cri-o-", ContainerRuntime::Crio),
    ];
    let unit = name.strip_suffix(".scope").unwrap_or(name);
    let with_id = |runtime, id: &str| Identity { runtime, id: ContainerId::near(id), name: None };
    for (prefix, runtime) in PREFIXES {
        if let Some(id) = unit.strip_prefix(prefix).filter(|id| is_id(id)) {
            return Some(with_id(runtime, id));
        }
    }
    if is_id(name) && name.len() == FULL_ID {
        if in_pod {
            return Some(with_id(ContainerRuntime::Kubernetes, name));
        }
        if parent == "docker" {
            return Some(with_id(ContainerRuntime::Docker, name));
        }
    }
    lxc(parent, name).or_else(|| machine(name))
}

/// A directory under which Kubernetes keeps its pods, with either cgroup driver.
pub(super) fn holds_pods(name: &str) -> bool {
    name == "kubepods" || name == "kubepods.slice"
}

/// Docker, Podman, containerd and CRI-O: a SHA-256 or as much randomness, in hex.
const FULL_ID: usize = 64;
/// The shortest form in which runtimes write an id.
const SHORT_ID: usize = 12;

fn is_id(text: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (SHORT_ID..=FULL_ID).contains(&text.len()) && text.bytes().all(hex)
}

/// LXC, LXD and Incus: `lxc.payload.NAME` since LXC 4.0, before that `lxc/NAME`.
fn lxc(parent: &str, name: &str) -> Option<Identity> {
    let name = match (name.strip_prefix("lxc.payload."), parent) {
        (Some(name), _) => name,
        (None, "lxc" | "lxc.payload") if !name.starts_with("lxc.") => name,
        (None, _) => return None,
    };
    named(ContainerRuntime::Lxc, name)
}

/// systemd-nspawn and others that register with systemd-machined; VMs do too, and are libvirt's to tell.
fn machine(name: &str) -> Option<Identity> {
    if let Some(instance) =
        name.strip_prefix("systemd-nspawn@").and_then(|name| name.strip_suffix(".service"))
    {
        return named(ContainerRuntime::Nspawn, &unescaped(instance));
    }
    // libvirt's driver for LXC, where no systemd makes its groups.
    if let Some(machine) = name.strip_suffix(".libvirt-lxc") {
        return libvirt_lxc(machine).and_then(|name| named(ContainerRuntime::Lxc, name));
    }
    let machine = unescaped(name.strip_prefix("machine-")?.strip_suffix(".scope")?);
    if machine.starts_with("qemu-") || machine == "qemu" {
        return None;
    }
    match libvirt_lxc(&machine) {
        Some(name) => named(ContainerRuntime::Lxc, name),
        None => named(ContainerRuntime::Nspawn, &machine),
    }
}

/// The name in `lxc-PID-NAME`, as libvirt's driver for LXC calls machines.
fn libvirt_lxc(machine: &str) -> Option<&str> {
    let (pid, name) = machine.strip_prefix("lxc-")?.split_once('-')?;
    pid.bytes().all(|b| b.is_ascii_digit()).then_some(name)
}

fn named(runtime: ContainerRuntime, name: &str) -> Option<Identity> {
    (!name.is_empty()).then(|| Identity { runtime, id: ContainerId::near(name), name: Some(name.to_owned()) })
}

/// Undoes systemd's escapes: `\xHH` for a byte, `-` for `/` in paths, which names of machines never are.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let code = match (byte, tail) {
            (b'\\', [b'x', high, low, ..]) => {
                digit(*high).zip(digit(*low)).map(|(high, low)| high * 16 + low)
            }
            _ => None,
        };
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "3f2a9c0d1e4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1";

    /// The last segment of a path, as the walk would see it.
    fn of(path: &str) -> Option<(ContainerRuntime, String)> {
        let path = path.replace("ID", ID);
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let (name, above) = segments.split_last().unwrap();
        let in_pod = above.iter().any(|segment| holds_pods(segment));
        identity(above.last().unwrap_or(&""), name, in_pod)
            .map(|found| (found.runtime, found.id.as_str().to_owned()))
    }

    #[test]
    fn every_runtime_is_known_by_its_path() {
        use ContainerRuntime as R;
        for (path, runtime, id) in [
            ("/docker/ID", R::Docker, ID),
            ("/hxn1/docker/ID", R::Docker, ID),
            ("/system.slice/docker-ID.scope", R::Docker, ID),
            ("/machine.slice/libpod-ID.scope", R::Podman, ID),
            ("/libpod_parent/libpod-ID", R::Podman, ID),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope", R::Podman, ID),
            ("/system.slice/web.service/libpod-payload-ID", R::Podman, ID),
            ("/lxc.payload.web-1", R::Lxc, "web-1"),
            ("/lxc/web-1", R::Lxc, "web-1"),
            ("/lxc.payload/web-1", R::Lxc, "web-1"),
            ("/machine.slice/systemd-nspawn@deb\\x2dian.service", R::Nspawn, "deb-ian"),
            ("/machine.slice/machine-deb\\x2dian.scope", R::Nspawn, "deb-ian"),
            ("/machine.slice/machine-deb\\x20ian.scope", R::Nspawn, "deb_ian:1c47a07a5bf72d90"),
            ("/machine.slice/machine-lxc\\x2d4711\\x2dold\\x2dbox.scope", R::Lxc, "old-box"),
            ("/machine/lxc-4711-old-box.libvirt-lxc", R::Lxc, "old-box"),
            ("/kubepods.slice/kubepods-pod1.slice/cri-containerd-ID.scope", R::Containerd, ID),
            ("/kubepods.slice/kubepods-pod1.slice/crio-ID.scope", R::Crio, ID),
            ("/kubepods.slice/kubepods-pod1.slice/docker-ID.scope", R::Docker, ID),
            ("/kubepods/burstable/pod1/ID", R::Kubernetes, ID),
            ("/kubepods/burstable/pod1/crio-ID", R::Crio, ID),
        ] {
            assert_eq!(of(path), Some((runtime, id.to_owned())), "{path}");
        }
    }

    #[test]
    fn what_only_looks_like_a_container_is_none() {
        for path in [
            "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope",
            "/machine/qemu-1-web.libvirt-qemu",
            "/machine/lxc-box.libvirt-lxc",
            "/machine.slice/libpod-conmon-ID.scope",
            "/kubepods.slice/crio-conmon-ID.scope",
            "/lxc.monitor.web-1",
            "/lxc.monitor/web-1",
            "/lxc.pivot",
            "/lxc/lxc.monitor.web",
            "/lxc",
            "/docker",
            "/docker/buildkit",
            "/somewhere/ID",
            "/system.slice/docker.service",
            "/kubepods/burstable/pod1",
            "/system.slice/docker-3f2a.scope",
            "/system.slice/docker-ID.scope/init.scope",
            "/machine.slice/machine-.scope",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn identity_never_panics(
            parent in "(docker|lxc|.{0,5})",
            name in "(machine-|systemd-nspawn@|lxc\\.payload\\.|\\\\x[0-9a-g]{0,2}|\\.scope|\\.service|.){0,12}",
        ) {
            let _identity = identity(&parent, &name, false);
        }
    }
}
