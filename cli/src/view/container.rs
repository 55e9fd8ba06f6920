//! Containers.

use std::collections::BTreeMap;

use horcrux_proto::v1::{Container, ContainerHealth, ContainerServiceGetResponse, ContainerState};
use serde::Serialize;

use super::known::{Known, held, node_state};
use super::table::{Facts, Table};
use super::time::ago;
use super::value::{self, AbsenceView, ValueView};
use super::{View, bare, or_dash, shown, word};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContainerView {
    pub name: String,
    pub display_name: Option<String>,
    pub name_unknown_reason: String,
    pub node: String,
    pub id: String,
    pub runtime: String,
    pub image: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub state: Option<String>,
    pub state_unknown_reason: String,
    pub health: Option<String>,
    pub cgroup_path: String,
    pub last_sample_unix_ms: Option<i64>,
    pub absent: Vec<AbsenceView>,
    /// How its node is: of one that isn't connected, all of this is the last known.
    pub node_state: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ContainerListView(pub Vec<ContainerView>);

/// One container with its values.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContainerDetailView {
    #[serde(flatten)]
    pub container: ContainerView,
    pub values: Vec<ValueView>,
}

/// Runtimes show so much of an id; `container get` takes it.
const SHORT_ID: usize = 12;

impl From<&Container> for ContainerView {
    fn from(wire: &Container) -> Self {
        let facts = wire.facts.clone().unwrap_or_default();
        Self {
            name: wire.name.clone(),
            runtime: word(facts.runtime().as_str_name(), "CONTAINER_RUNTIME_"),
            state: state(facts.state()),
            health: health(facts.health()),
            display_name: facts.display_name,
            name_unknown_reason: facts.name_unknown_reason,
            state_unknown_reason: facts.state_unknown_reason,
            node: wire.node.clone(),
            id: facts.id,
            image: facts.image,
            labels: facts.labels,
            cgroup_path: facts.cgroup_path,
            last_sample_unix_ms: wire.last_sample_unix_ms,
            absent: facts.absences.iter().map(AbsenceView::from).collect(),
            node_state: node_state(wire.node_state()),
        }
    }
}

impl From<&ContainerServiceGetResponse> for ContainerDetailView {
    fn from(wire: &ContainerServiceGetResponse) -> Self {
        Self {
            container: ContainerView::from(&wire.container.clone().unwrap_or_default()),
            values: wire.values.iter().map(ValueView::from).collect(),
        }
    }
}

fn state(state: ContainerState) -> Option<String> {
    (state != ContainerState::Unspecified).then(|| word(state.as_str_name(), "CONTAINER_STATE_"))
}

fn health(health: ContainerHealth) -> Option<String> {
    (health != ContainerHealth::Unspecified).then(|| word(health.as_str_name(), "CONTAINER_HEALTH_"))
}

/// The start of an id, as runtimes show it. A name (LXC, nspawn) stays whole.
#[must_use]
pub fn short_id(id: &str) -> &str {
    let is_hash = id.len() >= 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hash { id.get(..SHORT_ID).unwrap_or(id) } else { id }
}

/// An image without its digest, which is longer than all the rest of a line.
#[must_use]
pub fn short_image(image: &str) -> &str {
    let name = image.split_once("@sha256:").map_or(image, |(name, _)| name);
    let hash = image.strip_prefix("sha256:").unwrap_or(name);
    short_id(if name.is_empty() { image } else { hash })
}

impl ContainerView {
    /// With its health; `-` where its runtime doesn't tell.
    #[must_use]
    pub fn state_in_words(&self) -> String {
        let health = self.health.as_ref().map_or_else(String::new, |health| format!(" ({health})"));
        or_dash(self.state.as_ref().map(|state| format!("{state}{health}")))
    }
}

impl View for ContainerListView {
    fn table(&self, now_ms: i64) -> String {
        if self.0.is_empty() {
            return "no containers\n".to_owned();
        }
        let mut table = Table::new(&["NAME", "NODE", "STATE", "IMAGE", "RUNTIME", "ID", "LAST SAMPLE"]);
        for container in &self.0 {
            table.row(vec![
                or_dash(container.display_name.as_deref().map(shown)),
                shown(bare(&container.node)),
                held(&container.node_state, container.state_in_words()),
                or_dash(container.image.as_deref().map(|image| shown(short_image(image)))),
                container.runtime.clone(),
                shown(short_id(&container.id)),
                or_dash(container.last_sample_unix_ms.map(|at| ago(at, now_ms))),
            ]);
        }
        table.text()
    }
}

impl View for ContainerDetailView {
    fn table(&self, now_ms: i64) -> String {
        let container = &self.container;
        let unknown = |why: &str| format!("- ({})", shown(why)).replace(" ()", "");
        let unnamed = || unknown(&container.name_unknown_reason);
        let mut facts = Facts::default();
        facts.fact("name", container.display_name.as_deref().map_or_else(unnamed, shown));
        facts.fact("id", shown(&container.id));
        facts.fact("node", shown(bare(&container.node)));
        facts.fact("runtime", container.runtime.clone());
        let known = Known {
            node: &container.node,
            node_state: &container.node_state,
            sampled_ms: container.last_sample_unix_ms,
        };
        let state = match &container.state {
            Some(_) => known.told(container.state_in_words(), now_ms),
            None => unknown(&container.state_unknown_reason),
        };
        facts.fact("state", state);
        facts.fact("image", or_dash(container.image.as_deref().map(shown)));
        for (name, value) in &container.labels {
            facts.fact("label", format!("{}={}", shown(name), shown(value)));
        }
        facts.fact("cgroup", shown(&container.cgroup_path));
        facts.fact("last sample", or_dash(container.last_sample_unix_ms.map(|at| ago(at, now_ms))));
        facts.text() + &value::table(&self.values, now_ms)
    }
}
