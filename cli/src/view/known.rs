//! A guest's state when its node is silent: the last known, and no more than that.

use horcrux_proto::v1::NodeState;

use super::time::ago;
use super::{bare, shown, word};

/// What a guest's state is worth.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub node: &'a str,
    pub node_state: &'a str,
    pub sampled_ms: Option<i64>,
}

/// `unknown`: whoever answers doesn't tell.
#[must_use]
pub fn node_state(state: NodeState) -> String {
    word(state.as_str_name(), "NODE_STATE_")
}

/// What isn't of now, in a column.
#[must_use]
pub fn held(node_state: &str, state: String) -> String {
    match silence(node_state) {
        Some(_) if state == "-" => state,
        Some(silence) => format!("was {state} (node {silence})"),
        None => state,
    }
}

impl Known<'_> {
    /// `running`, or `running, last known 36.0s ago: web1 is down`.
    #[must_use]
    pub fn told(&self, state: String, now_ms: i64) -> String {
        let Some(silence) = silence(self.node_state) else { return state };
        let when = self.sampled_ms.map_or_else(String::new, |at| format!(" {}", ago(at, now_ms)));
        format!("{state}, last known{when}: {} is {silence}", shown(bare(self.node)))
    }
}

fn silence(node_state: &str) -> Option<&'static str> {
    match node_state {
        "late" => Some("late"),
        "down" => Some("down"),
        "never_seen" => Some("not seen"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_nodes_guest_was_what_it_was() {
        let told = |node_state, sampled_ms| {
            let known = Known { node: "nodes/web1", node_state, sampled_ms };
            known.told("running".to_owned(), 36_000)
        };
        assert_eq!(told("down", Some(0)), "running, last known 36.0s ago: web1 is down");
        assert_eq!(told("late", None), "running, last known: web1 is late");
        for well in ["connected", "here", "unknown"] {
            assert_eq!(told(well, Some(0)), "running");
            assert_eq!(held(well, "running".to_owned()), "running");
        }
        assert_eq!(held("down", "running".to_owned()), "was running (node down)");
        assert_eq!(held("down", "-".to_owned()), "-");
    }
}
