//! The current state of the fleet, and who watches it: `horcrux-live`, with what is on record of nodes, and with what each
//! watcher may see.

use horcrux_transport::clock;

use crate::store::nodes::NodeRow;

pub use horcrux_live::{
    Stopped, Subscription, TICK, derive, feed, fleet, names, new, object, page, select, watch,
};

pub mod past;
mod viewer;

pub use self::viewer::Viewer;

use fleet::{Enrolled, Fleet, Patience};

pub type Live = horcrux_live::Live<Viewer>;
pub type Writer = horcrux_live::Writer<Viewer>;
pub type Filter = feed::Filter<Viewer>;

/// A model with the enrolled nodes in it.
#[must_use]
pub fn fleet(patience: Patience, nodes: &[NodeRow]) -> Fleet {
    let mut fleet = Fleet::new(patience);
    for row in nodes {
        fleet.enrolled(&row.into(), clock::monotonic(), clock::unix_ms());
    }
    fleet
}

impl From<&NodeRow> for Enrolled {
    fn from(row: &NodeRow) -> Self {
        Self {
            name: row.name.clone(),
            id: row.id.clone(),
            enrolled_ms: row.enrolled_ms,
            expires_ms: row.expires_ms,
            ever_seen: row.last_seen_ms.is_some(),
            agent_version: row.agent_version.clone(),
            locked_reason: row.locked_ms.map(|_| row.locked_reason.clone()),
        }
    }
}

#[cfg(test)]
mod series_tests;
#[cfg(test)]
mod tests;
