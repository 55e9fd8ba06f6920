//! What a list can't show: why something may be missing in it, from what nodes say of their sources. For people, and only
//! of nodes that they may see; who doesn't see a node doesn't hear how it is.

use std::collections::BTreeMap;

use horcrux_proto::v1::{Node, NodeState, Source, SourceState};

use crate::inventory::node_resource;
use crate::view::container::ContainerListView;
use crate::view::value::source;
use crate::view::{bare, shown, word};

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    Vms,
    Containers,
}

/// A fleet whose nodes all have the same trouble doesn't push the list off the screen.
const LINES: usize = 8;

/// Why there may be more than is listed; on `only`, where one node is asked about.
#[must_use]
pub fn missing<'a>(
    listed: Listed,
    nodes: impl IntoIterator<Item = &'a Node>,
    only: Option<&str>,
) -> Vec<String> {
    let only = only.map(node_resource);
    let mut lines: Vec<String> = nodes
        .into_iter()
        .filter(|node| only.as_ref().is_none_or(|only| *only == node.name))
        .flat_map(|node| of_node(listed, node))
        .collect();
    if lines.len() > LINES {
        let more = lines.split_off(LINES - 1).len();
        lines.push(format!(
            "and {more} more: `horcruxctl node get NODE` shows how each of its sources is doing"
        ));
    }
    lines
}

/// Why containers have no name, each reason once.
#[must_use]
pub fn unnamed(containers: &ContainerListView) -> Vec<String> {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for container in containers.0.iter().filter(|container| container.display_name.is_none()) {
        *reasons.entry(&container.name_unknown_reason).or_default() += 1;
    }
    let line = |(reason, count): (&str, usize)| {
        let reason = if reason.is_empty() { "its runtime did not tell it".to_owned() } else { shown(reason) };
        let of = if count == 1 { "one container".to_owned() } else { format!("{count} containers") };
        format!("the name of {of} is not known: {reason}")
    };
    reasons.into_iter().take(LINES).map(line).collect()
}

fn of_node(listed: Listed, node: &Node) -> Vec<String> {
    let name = shown(bare(&node.name));
    match node.state() {
        NodeState::Connected | NodeState::Here | NodeState::Unspecified => {}
        NodeState::NeverSeen => return vec![format!("{name} has not attached yet: nothing is known of it")],
        state @ (NodeState::Late | NodeState::Down) => {
            let state = word(state.as_str_name(), "NODE_STATE_");
            return vec![format!("{name} is {state}: what is shown of it is the last known")];
        }
    }
    let sources = node.facts.iter().flat_map(|facts| &facts.sources);
    let concerned = sources.filter(|status| match listed {
        Listed::Vms => tells_of_vms(status.source()),
        Listed::Containers => tells_of_containers(status.source()),
    });
    let trouble = concerned.filter(|s| matches!(s.state(), SourceState::Failing | SourceState::Stuck));
    let line = |status: &horcrux_proto::v1::SourceStatus| {
        let what = format!("{} {}", source(status.source()), shown(&status.instance));
        let state = word(status.state().as_str_name(), "SOURCE_STATE_");
        let detail = shown(&status.detail);
        let why = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        format!("{} on {name} is {state}{why}", what.trim_end())
    };
    trouble.map(line).collect()
}

fn tells_of_vms(source: Source) -> bool {
    matches!(source, Source::Libvirt | Source::QemuProcess)
}

/// Whatever is of neither the node nor its VMs: cgroups, and whom a runtime's containers are asked of.
fn tells_of_containers(source: Source) -> bool {
    let elsewhere = matches!(
        source,
        Source::Proc
            | Source::Sysfs
            | Source::Statvfs
            | Source::Hwmon
            | Source::Spool
            | Source::Simulated
            | Source::QemuMonitor
            | Source::LibvirtEvents
            | Source::GuestAgent
    );
    !elsewhere && !tells_of_vms(source)
}

#[cfg(test)]
mod tests {
    use horcrux_proto::v1::{NodeFacts, SourceStatus};

    use super::*;

    fn node(name: &str, state: NodeState, sources: &[(Source, SourceState, &str)]) -> Node {
        let status = |&(source, state, detail): &(Source, SourceState, &str)| SourceStatus {
            source: source.into(),
            state: state.into(),
            detail: detail.to_owned(),
            ..SourceStatus::default()
        };
        let facts = NodeFacts { sources: sources.iter().map(status).collect(), ..NodeFacts::default() };
        Node { name: format!("nodes/{name}"), state: state.into(), facts: Some(facts), ..Node::default() }
    }

    #[test]
    fn a_list_that_may_lack_something_says_why() {
        let sources = [
            (Source::Libvirt, SourceState::Failing, "connect\u{1b}[2J: no such file"),
            (Source::QemuProcess, SourceState::Ok, ""),
            (Source::QemuMonitor, SourceState::Stuck, "a reading takes 61 s"),
            (Source::CgroupV2, SourceState::Stuck, ""),
        ];
        let none = [(Source::Libvirt, SourceState::Absent, "not installed")];
        let nodes = [
            node("host1", NodeState::Connected, &sources),
            node("host2", NodeState::Here, &none),
            node("host3", NodeState::Down, &sources),
            node("host4", NodeState::NeverSeen, &[]),
        ];
        assert_eq!(
            missing(Listed::Vms, &nodes, None),
            [
                "libvirt on host1 is failing: connect\\u{1b}[2J: no such file",
                "host3 is down: what is shown of it is the last known",
                "host4 has not attached yet: nothing is known of it",
            ]
        );
        assert_eq!(missing(Listed::Containers, &nodes, Some("host1")), ["cgroup_v2 on host1 is stuck"]);
        assert_eq!(missing(Listed::Vms, &nodes, Some("host2")), [""; 0]);
        let many: Vec<Node> = (0..20).map(|_| nodes[0].clone()).collect();
        let lines = missing(Listed::Vms, &many, None);
        assert_eq!(lines.len(), LINES);
        assert!(lines[LINES - 1].starts_with("and 13 more: "), "{lines:?}");
    }
}
