//! Nodes.

use horcrux_proto::v1::{Node, NodeMode, NodePolicy, NodeServiceGetResponse, SourceStatus};
use serde::Serialize;

use super::hardware::{DiskView, HypervisorView, NetworkDeviceView, disks, network_devices};
use super::quantity::{millis, whole_bytes};
use super::table::{Facts, Table};
use super::time::{ago, utc};
use super::value::{self, ValueView, source};
use super::{View, bare, or_dash, shown, word};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeView {
    pub name: String,
    pub id: String,
    pub state: String,
    pub state_since_unix_ms: i64,
    pub last_sample_unix_ms: Option<i64>,
    pub enrolled_unix_ms: i64,
    pub certificate_expires_unix_ms: i64,
    pub agent_version: Option<String>,
    pub clock_offset_ms: Option<i64>,
    /// Why it is shut out; null where it isn't.
    pub locked_reason: Option<String>,
    #[serde(flatten)]
    pub facts: NodeFactsView,
}

/// All null until the node has attached once.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NodeFactsView {
    pub hostname: Option<String>,
    pub os: Option<String>,
    pub kernel: Option<String>,
    pub architecture: Option<String>,
    pub cpu_model: Option<String>,
    pub cpus: Option<u32>,
    pub memory_bytes: Option<u64>,
    pub cgroup_mode: Option<String>,
    pub boot_unix_ms: Option<i64>,
    pub sources: Vec<SourceView>,
    pub network_devices: Vec<NetworkDeviceView>,
    pub disks: Vec<DiskView>,
    pub hypervisor: Option<HypervisorView>,
    pub policy: Option<PolicyView>,
}

/// What the node lets a controller do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicyView {
    /// Null: horcrux-privd is not there, so nothing is done.
    pub mode: Option<String>,
    /// Why it is no more than that, where that isn't what its policy file says.
    pub reason: String,
    #[serde(skip)]
    means: &'static str,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceView {
    pub source: String,
    /// Which of several, such as a libvirt connection's address; empty: there is one.
    pub instance: String,
    pub state: String,
    pub detail: String,
    pub since_unix_ms: i64,
    pub skipped: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct NodeListView(pub Vec<NodeView>);

/// One node with its values.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeDetailView {
    #[serde(flatten)]
    pub node: NodeView,
    pub values: Vec<ValueView>,
}

/// Of a node that answers by itself: there is no controller.
const HERE: &str = "here";
/// A clock's offset below it is the network's delay as likely as the clock's.
const MEANT_MS: u64 = 1000;

impl From<&Node> for NodeView {
    fn from(wire: &Node) -> Self {
        let facts = wire.facts.as_ref().map(|facts| NodeFactsView {
            hostname: Some(facts.hostname.clone()),
            os: facts.os.clone(),
            kernel: Some(facts.kernel.clone()),
            architecture: Some(facts.architecture.clone()),
            cpu_model: facts.cpu_model.clone(),
            cpus: Some(facts.cpus),
            memory_bytes: Some(facts.memory_bytes),
            cgroup_mode: Some(word(facts.cgroup_mode().as_str_name(), "CGROUP_MODE_")),
            boot_unix_ms: Some(facts.boot_unix_ms),
            sources: facts.sources.iter().map(SourceView::from).collect(),
            network_devices: facts.network_devices.iter().map(NetworkDeviceView::from).collect(),
            disks: facts.disks.iter().map(DiskView::from).collect(),
            hypervisor: facts.hypervisor.as_ref().map(HypervisorView::from),
            policy: facts.policy.as_ref().map(PolicyView::from),
        });
        Self {
            name: wire.name.clone(),
            id: wire.id.clone(),
            state: word(wire.state().as_str_name(), "NODE_STATE_"),
            state_since_unix_ms: wire.state_since_unix_ms,
            last_sample_unix_ms: wire.last_sample_unix_ms,
            enrolled_unix_ms: wire.enrolled_unix_ms,
            certificate_expires_unix_ms: wire.certificate_expires_unix_ms,
            agent_version: wire.agent_version.clone(),
            clock_offset_ms: wire.clock_offset_ms,
            locked_reason: wire.locked_reason.clone(),
            facts: facts.unwrap_or_default(),
        }
    }
}

impl From<&NodePolicy> for PolicyView {
    fn from(wire: &NodePolicy) -> Self {
        // One that this program doesn't know is unspecified to it, and yet a mode.
        let means = match wire.mode() {
            NodeMode::Unspecified if wire.mode != 0 => "more than this horcruxctl knows",
            NodeMode::Unspecified => "horcrux-privd is not there, so nothing is done",
            NodeMode::Observe => "nothing is done",
            NodeMode::Console => "consoles are opened",
            NodeMode::Operate => "consoles are opened, VMs started and stopped",
            NodeMode::Manage => "consoles are opened, VMs started, stopped, made, changed and removed",
        };
        let mode = (wire.mode != 0).then(|| word(wire.mode().as_str_name(), "NODE_MODE_"));
        Self { mode, reason: wire.reason.clone(), means }
    }
}

impl From<&SourceStatus> for SourceView {
    fn from(wire: &SourceStatus) -> Self {
        Self {
            source: source(wire.source()),
            instance: wire.instance.clone(),
            state: word(wire.state().as_str_name(), "SOURCE_STATE_"),
            detail: wire.detail.clone(),
            since_unix_ms: wire.since_unix_ms,
            skipped: wire.skipped,
        }
    }
}

impl From<&NodeServiceGetResponse> for NodeDetailView {
    fn from(wire: &NodeServiceGetResponse) -> Self {
        Self {
            node: NodeView::from(&wire.node.clone().unwrap_or_default()),
            values: wire.values.iter().map(ValueView::from).collect(),
        }
    }
}

impl View for NodeListView {
    fn table(&self, now_ms: i64) -> String {
        if self.0.is_empty() {
            return "no nodes that you may see\n".to_owned();
        }
        let mut table = Table::new(&[
            "NAME",
            "STATE",
            "SINCE",
            ">CPUS",
            ">MEMORY",
            "OS",
            "AGENT",
            "POLICY",
            "LAST SAMPLE",
            "LOCKED",
        ]);
        for node in &self.0 {
            let facts = &node.facts;
            table.row(vec![
                shown(bare(&node.name)),
                node.state.clone(),
                ago(node.state_since_unix_ms, now_ms),
                or_dash(facts.cpus.map(|n| n.to_string())),
                or_dash(facts.memory_bytes.map(whole_bytes)),
                or_dash(facts.os.as_deref().map(shown)),
                or_dash(node.agent_version.as_deref().map(shown)),
                or_dash(facts.policy.as_ref().and_then(|policy| policy.mode.clone())),
                or_dash(node.last_sample_unix_ms.map(|at| ago(at, now_ms))),
                or_dash(node.locked()),
            ]);
        }
        table.text()
    }
}

impl View for NodeDetailView {
    fn table(&self, now_ms: i64) -> String {
        let node = &self.node;
        let mut facts = Facts::default();
        facts.fact("name", shown(bare(&node.name)));
        // An agent on its own has none of the three.
        if !node.id.is_empty() {
            facts.fact("id", shown(&node.id));
        }
        facts.fact("state", node.state_in_words(now_ms));
        if let Some(locked) = node.locked() {
            facts.fact(
                "locked",
                format!("{locked}; `horcruxctl node unlock {}` lets it in", shown(bare(&node.name))),
            );
        }
        facts.fact("last sample", or_dash(node.last_sample_unix_ms.map(|at| ago(at, now_ms))));
        if node.enrolled_unix_ms != 0 {
            facts.fact("enrolled", utc(node.enrolled_unix_ms));
        }
        if node.certificate_expires_unix_ms != 0 {
            facts.fact("certificate expires", utc(node.certificate_expires_unix_ms));
        }
        facts.fact("agent", node.agent_version.as_deref().map_or_else(never_attached, shown));
        if node.state != HERE {
            facts.fact("clock", or_dash(node.clock_offset_ms.map(clock)));
        }
        let known = &node.facts;
        let Some(kernel) = &known.kernel else {
            return facts.text() + &value::table(&self.values, now_ms);
        };
        let text = |text: &Option<String>| or_dash(text.as_deref().map(shown));
        facts.fact("host name", text(&known.hostname));
        facts.fact("os", text(&known.os));
        facts.fact("kernel", format!("{} {}", shown(kernel), text(&known.architecture)));
        facts.fact("cpus", or_dash(known.cpus.map(|n| format!("{n} {}", text(&known.cpu_model)))));
        facts.fact("memory", or_dash(known.memory_bytes.map(whole_bytes)));
        facts.fact("cgroups", text(&known.cgroup_mode));
        facts.fact("booted", or_dash(known.boot_unix_ms.map(utc)));
        if let Some(policy) = &known.policy {
            facts.fact("policy", policy.in_words());
        }
        if let Some(hypervisor) = &known.hypervisor {
            hypervisor.facts(&mut facts);
        }
        let parts = [
            facts.text(),
            sources(&known.sources, now_ms),
            network_devices(&known.network_devices),
            disks(&known.disks),
            value::table(&self.values, now_ms),
        ];
        parts.concat()
    }
}

impl NodeView {
    /// `connected for 3d 4h`.
    fn state_in_words(&self, now_ms: i64) -> String {
        let state = self.state.replace('_', " ");
        let length = millis(now_ms.saturating_sub(self.state_since_unix_ms).max(0));
        if self.state == HERE {
            return format!("{state}: its agent was asked, and has run for {length}");
        }
        format!("{state} for {length}")
    }

    /// Why it is locked, or that it is.
    fn locked(&self) -> Option<String> {
        let reason = self.locked_reason.as_deref()?;
        Some(if reason.is_empty() { "yes".to_owned() } else { shown(reason) })
    }
}

impl PolicyView {
    fn in_words(&self) -> String {
        let mode = self.mode.as_ref().map_or_else(String::new, |mode| format!("{mode}: "));
        let reason =
            if self.reason.is_empty() { String::new() } else { format!(" ({})", shown(&self.reason)) };
        format!("{mode}{}{reason}", self.means)
    }
}

/// Against the controller's.
fn clock(offset_ms: i64) -> String {
    if offset_ms.unsigned_abs() < MEANT_MS {
        return "agrees with the controller's (within 1 s)".to_owned();
    }
    let side = if offset_ms < 0 { "behind" } else { "ahead of" };
    format!("{} {side} the controller's", millis(offset_ms.saturating_abs()))
}

fn never_attached() -> String {
    "- (has not attached yet)".to_owned()
}

fn sources(sources: &[SourceView], now_ms: i64) -> String {
    if sources.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["SOURCE", "STATE", "SINCE", ">SKIPPED", "DETAIL"]);
    for source in sources {
        table.row(vec![
            format!("{} {}", source.source, shown(&source.instance)).trim_end().to_owned(),
            source.state.clone(),
            ago(source.since_unix_ms, now_ms),
            source.skipped.to_string(),
            shown(&source.detail),
        ]);
    }
    format!("\n{}", table.text())
}
