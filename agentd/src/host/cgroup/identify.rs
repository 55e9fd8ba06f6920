//! Which container a cgroup is, by its path. Runtimes and their cgroup drivers name groups in ways of their own; any of
//! them may stand at any depth (rootless users, pods, containers in containers).

use horcrux_proto::v1::ContainerRuntime;

/// A container, as its path tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identified {
    pub(super) runtime: ContainerRuntime,
    pub(super) id: String,
    /// For runtimes whose path holds the name that people gave.
    pub(super) name: Option<String>,
}

/// What the last segment of `path` (relative, with `/`) says. A group inside a container is not a container itself.
pub(super) fn identify(path: &str) -> Option<Identified> {
    let mut segments = path.rsplit('/');
    let last = unescape(segments.next()?);
    let parent = segments.next().unwrap_or_default();
    let scope = last.strip_suffix(".scope");
    let by_id = |runtime, id: &str| Some(Identified { runtime, id: id.to_owned(), name: None });
    let by_name = |runtime, name: &str| {
        (!name.is_empty()).then(|| Identified { runtime, id: name.to_owned(), name: Some(name.to_owned()) })
    };
    let prefixes = [
        ("docker-", ContainerRuntime::Docker),
        ("libpod-", ContainerRuntime::Podman),
        ("cri-containerd-", ContainerRuntime::Containerd),
        ("crio-", ContainerRuntime::Crio),
    ];
    for (prefix, runtime) in prefixes {
        // The cgroupfs driver of Podman leaves the suffix out.
        if let Some(id) = scope.unwrap_or(&last).strip_prefix(prefix).filter(|id| is_id(id)) {
            return by_id(runtime, id);
        }
    }
    if is_id(&last) {
        if parent == "docker" {
            return by_id(ContainerRuntime::Docker, &last);
        }
        if path
            .split('/')
            .any(|s| s == "kubepods" || s.starts_with("kubepods.") || s.starts_with("kubepods-"))
        {
            return by_id(ContainerRuntime::Kubernetes, &last);
        }
    }
    if let Some(name) = last.strip_prefix("lxc.payload.") {
        return by_name(ContainerRuntime::Lxc, name);
    }
    if parent == "lxc" {
        return by_name(ContainerRuntime::Lxc, &last);
    }
    if let Some(name) = last.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service")) {
        return by_name(ContainerRuntime::Nspawn, name);
    }
    let machine = scope.and_then(|scope| scope.strip_prefix("machine-"));
    // libvirt registers its VMs as machines too.
    machine
        .filter(|name| !name.starts_with("qemu-") && !name.starts_with("lxc-"))
        .and_then(|name| by_name(ContainerRuntime::Nspawn, name))
}

/// 64 hex digits, as Docker, Podman and the CRI runtimes make them.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// systemd writes what a unit's name can't hold as `\xNN`.
fn unescape(segment: &str) -> String {
    let mut parts = segment.split("\\x");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(u8::is_ascii) {
            Some(byte) => {
                out.push(char::from(byte));
                out.push_str(&part[2..]);
            }
            None => {
                out.push_str("\\x");
                out.push_str(part);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "3f2a9c0d3f2a9c0d3f2a9c0d3f2a9c0d3f2a9c0d3f2a9c0d3f2a9c0d3f2a9c0d";

    #[test]
    fn every_runtime_and_driver_is_known_by_its_path() {
        use ContainerRuntime as R;
        let cases = [
            (format!("docker/{ID}"), R::Docker, ID),
            (format!("hxn1/docker/{ID}"), R::Docker, ID),
            (format!("system.slice/docker-{ID}.scope"), R::Docker, ID),
            (format!("libpod_parent/libpod-{ID}"), R::Podman, ID),
            (
                format!("user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"),
                R::Podman,
                ID,
            ),
            (format!("kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"), R::Containerd, ID),
            (format!("kubepods.slice/crio-{ID}.scope"), R::Crio, ID),
            (format!("kubepods/besteffort/pod77/{ID}"), R::Kubernetes, ID),
            ("lxc.payload.web1".into(), R::Lxc, "web1"),
            ("lxc/web1".into(), R::Lxc, "web1"),
            ("machine.slice/systemd-nspawn@web1.service".into(), R::Nspawn, "web1"),
            (r"machine.slice/machine-web\x2d1.scope".into(), R::Nspawn, "web-1"),
        ];
        for (path, runtime, id) in cases {
            let found = identify(&path).unwrap_or_else(|| panic!("{path} is not recognised"));
            assert_eq!((found.runtime, found.id.as_str()), (runtime, id), "{path}");
        }
    }

    #[test]
    fn what_is_not_a_container_is_none() {
        let paths = [
            "",
            "docker",
            "system.slice/docker.service",
            r"machine.slice/machine-qemu\x2d1\x2dvm1.scope",
            "machine/qemu-1-vm1.libvirt-qemu",
            "lxc.monitor.web1",
            "user.slice",
            "docker/abc",
        ];
        for path in paths {
            assert_eq!(identify(path), None, "{path}");
        }
        assert_eq!(identify(&format!("libpod-conmon-{ID}.scope")), None);
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in r"[a-z0-9/.@\\x-]{0,120}") {
            identify(&path);
        }
    }
}
