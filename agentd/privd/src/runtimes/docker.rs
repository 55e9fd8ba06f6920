//! Docker, and Podman by Docker's API.

use std::collections::BTreeMap;
use std::path::Path;

use horcrux_privd::v1::{Container, Health, State};
use serde::Deserialize;

use super::Silence;
use super::http::{self, Owner};

/// Without a version: both give what theirs is.
const LIST: &str = "/containers/json?all=true";

/// What is used of `ContainerSummary`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    names: Option<Vec<String>>,
    image: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    state: Option<String>,
    status: Option<String>,
}

pub(super) fn containers(socket: &Path, owner: Owner) -> Result<Vec<Container>, Silence> {
    let body = super::got(socket, http::get(socket, owner, LIST))?;
    let listed: Vec<Listed> = serde_json::from_slice(&body).map_err(Silence::Json)?;
    Ok(listed.into_iter().map(Container::from).collect())
}

impl From<Listed> for Container {
    fn from(listed: Listed) -> Self {
        let status = listed.status.unwrap_or_default();
        Self {
            id: listed.id,
            name: name(&listed.names.unwrap_or_default()),
            image: listed.image.unwrap_or_default(),
            labels: listed.labels.unwrap_or_default(),
            state: state(&listed.state.unwrap_or_default()).into(),
            health: health(&status).into(),
        }
    }
}

/// Its own: `/web`. By a link another container has it as `/other/web`.
fn name(names: &[String]) -> String {
    let mut plain = names.iter().map(|name| name.strip_prefix('/').unwrap_or(name));
    plain.find(|name| !name.contains('/')).unwrap_or_default().to_owned()
}

fn state(word: &str) -> State {
    match word {
        "created" | "configured" | "initialized" => State::Created,
        "running" | "stopping" => State::Running,
        "paused" => State::Paused,
        "restarting" => State::Restarting,
        "exited" | "stopped" => State::Exited,
        "dead" | "removing" => State::Dead,
        _ => State::Unspecified,
    }
}

/// The list tells it in words for people only: `Up 3 minutes (healthy)`.
fn health(status: &str) -> Health {
    let word = status.rsplit_once('(').and_then(|(_, word)| word.strip_suffix(')'));
    match word.map(|word| word.strip_prefix("health: ").unwrap_or(word)) {
        Some("starting") => Health::Starting,
        Some("healthy") => Health::Healthy,
        Some("unhealthy") => Health::Unhealthy,
        Some(_) | None => Health::Unspecified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_called_by_its_own_name() {
        let of = |names: &[&str]| name(&names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["/other/db", "/web"]), "web");
        assert_eq!(of(&["web"]), "web");
        assert_eq!(of(&[]), "");
    }

    #[test]
    fn health_is_what_the_status_ends_in() {
        assert_eq!(health("Up 3 minutes (healthy)"), Health::Healthy);
        assert_eq!(health("Up 3 seconds (health: starting)"), Health::Starting);
        assert_eq!(health("Up 3 minutes (unhealthy)"), Health::Unhealthy);
        assert_eq!(health("Exited (0) 3 minutes ago"), Health::Unspecified);
        assert_eq!(health("Up 3 minutes (Paused)"), Health::Unspecified);
    }
}
