//! LXD and Incus.

use std::collections::BTreeMap;
use std::path::PathBuf;

use horcrux_privd::v1::{Container, State};
use serde::Deserialize;

use super::Silence;
use super::http::{self, Owner};

/// Older ones know no projects, and take no notice of being asked for all.
const LIST: &str = "/1.0/instances?recursion=1&all-projects=true";

#[derive(Debug, Deserialize)]
struct Answer {
    metadata: Vec<Instance>,
}

/// What is used of an instance.
#[derive(Debug, Deserialize)]
struct Instance {
    name: String,
    status: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    project: Option<String>,
    config: Option<BTreeMap<String, String>>,
}

/// From the first of the sockets that is there: the places of a package and of a snap.
pub(super) fn containers(sockets: &[PathBuf]) -> Result<Vec<Container>, Silence> {
    let Some(socket) = sockets.iter().find(|socket| socket.exists()).or(sockets.first()) else {
        return Ok(Vec::new());
    };
    let body = super::got(socket, http::get(socket, Owner::Host, LIST))?;
    let answer: Answer = serde_json::from_slice(&body).map_err(Silence::Json)?;
    // Its VMs are QEMU processes.
    let containers =
        answer.metadata.into_iter().filter(|instance| instance.kind.as_deref() != Some("virtual-machine"));
    Ok(containers.map(Container::from).collect())
}

impl From<Instance> for Container {
    fn from(instance: Instance) -> Self {
        // As LXC, and so the cgroup, has it.
        let id = match instance.project.as_deref() {
            None | Some("" | "default") => instance.name.clone(),
            Some(project) => format!("{project}_{}", instance.name),
        };
        let mut config = instance.config.unwrap_or_default();
        let image = config.remove("image.description").unwrap_or_default();
        Self {
            id,
            name: instance.name,
            image,
            labels: config.into_iter().filter_map(label).collect(),
            state: state(&instance.status.unwrap_or_default()).into(),
            ..Self::default()
        }
    }
}

/// What its people put there freely. The rest of the configuration has environments and scripts, with secrets in them.
fn label((key, value): (String, String)) -> Option<(String, String)> {
    // Of cloud-init, from before it had a place of its own.
    const SCRIPTS: [&str; 4] = ["user-data", "vendor-data", "meta-data", "network-config"];
    let name = key.strip_prefix("user.").filter(|name| !SCRIPTS.contains(name))?.to_owned();
    Some((name, value))
}

fn state(word: &str) -> State {
    match word {
        "Running" => State::Running,
        "Frozen" => State::Paused,
        "Stopped" => State::Exited,
        "Error" => State::Dead,
        _ => State::Unspecified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_hold_a_secret_is_no_label() {
        let config = [
            ("user.team", "shop"),
            ("user.user-data", "password"),
            ("environment.TOKEN", "secret"),
            ("cloud-init.user-data", "password"),
            ("image.description", "Debian 12"),
        ];
        let config = config.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let instance = Instance {
            name: "web".into(),
            status: Some("Frozen".into()),
            kind: None,
            project: Some("shop".into()),
            config: Some(config.into()),
        };
        let container = Container::from(instance);
        let labels: Vec<_> =
            container.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(labels, [("team", "shop")]);
        assert_eq!((container.id.as_str(), container.name.as_str()), ("shop_web", "web"));
        assert_eq!((container.image.as_str(), container.state()), ("Debian 12", State::Paused));
    }
}
