//! containerd and CRI-O. Their APIs are gRPC, and the bundle of a container, OCI's `config.json`, has in its annotations
//! what Kubernetes calls it.

use std::collections::BTreeMap;
use std::path::Path;

use horcrux_privd::v1::Container;
use serde::Deserialize;

use super::{Silence, content, entries};

/// What is used of a bundle's configuration. The rest has environments, with secrets in them.
#[derive(Debug, Deserialize)]
struct Config {
    annotations: Option<BTreeMap<String, String>>,
}

/// Under which annotations a runtime keeps what.
struct Words {
    container: &'static str,
    pod: &'static str,
    namespace: &'static str,
    image: &'static str,
    /// What a container that Kubernetes doesn't know is called by.
    plain: &'static str,
}

const CONTAINERD: Words = Words {
    container: "io.kubernetes.cri.container-name",
    pod: "io.kubernetes.cri.sandbox-name",
    namespace: "io.kubernetes.cri.sandbox-namespace",
    image: "io.kubernetes.cri.image-name",
    plain: "nerdctl/name",
};
const CRIO: Words = Words {
    container: "io.kubernetes.container.name",
    pod: "io.kubernetes.pod.name",
    namespace: "io.kubernetes.pod.namespace",
    image: "io.kubernetes.cri-o.ImageName",
    plain: "io.kubernetes.cri-o.Name",
};
/// Docker's own, in containerd: Docker tells more of them.
const DOCKERS: &str = "moby";

/// A directory for each namespace, with one for each task.
pub(super) fn containerd(dir: &Path) -> Result<Vec<Container>, Silence> {
    let mut containers = Vec::new();
    for namespace in entries(dir)?.into_iter().filter(|namespace| namespace != DOCKERS) {
        let dir = dir.join(namespace);
        for id in present(&dir)? {
            containers.extend(container(&dir.join(&id).join("config.json"), id, &CONTAINERD)?);
        }
    }
    Ok(containers)
}

/// A directory for each container, of Podman's too.
pub(super) fn crio(dir: &Path) -> Result<Vec<Container>, Silence> {
    let mut containers = Vec::new();
    for id in entries(dir)? {
        containers.extend(container(&dir.join(&id).join("userdata/config.json"), id, &CRIO)?);
    }
    Ok(containers)
}

/// What is in a directory that may have gone meanwhile.
fn present(dir: &Path) -> Result<Vec<String>, Silence> {
    match entries(dir) {
        Err(silence) if silence.is_absent() => Ok(Vec::new()),
        other => other,
    }
}

/// None where there is no bundle, or one that has no name: then its runtime knows no more of it than its id.
fn container(config: &Path, id: String, words: &Words) -> Result<Option<Container>, Silence> {
    let Some(text) = content(config)? else { return Ok(None) };
    // One that is being written is none yet.
    let Ok(config) = serde_json::from_slice::<Config>(&text) else { return Ok(None) };
    let mut annotations = config.annotations.unwrap_or_default();
    let mut take = |word| annotations.remove(word).unwrap_or_default();
    let (pod, namespace, own) = (take(words.pod), take(words.namespace), take(words.container));
    let (image, plain) = (take(words.image), take(words.plain));
    let parts = [namespace.as_str(), pod.as_str(), own.as_str()];
    // A pod's own, which holds its namespaces, has no name beside the pod's.
    let in_pod = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    let name = if pod.is_empty() { plain } else { in_pod };
    // As the kubelet labels what it starts with Docker.
    let labels = [
        ("io.kubernetes.pod.namespace", namespace),
        ("io.kubernetes.pod.name", pod),
        ("io.kubernetes.container.name", own),
    ];
    let labels = labels.into_iter().filter(|(_, value)| !value.is_empty());
    let labels = labels.map(|(key, value)| (key.to_owned(), value)).collect();
    Ok((!name.is_empty()).then(|| Container { id, name, image, labels, ..Container::default() }))
}
