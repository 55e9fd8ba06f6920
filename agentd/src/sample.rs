//! One instant as plain data: what the readers in `host` give and the rest of the agent passes on.
//!
//! A value is here because it was read. What should be here and isn't is an absence with its reason; nothing is ever
//! filled in.

use std::sync::Arc;

use horcrux_proto::name::{ContainerId, VmUuid};
use horcrux_proto::v1::{ContainerFacts, EventKind, Metric, NodeFacts, Source, SourceState, VmFacts};

use crate::collect::Bell;

/// When a reading was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub unix_ms: i64,
    /// `CLOCK_BOOTTIME`, from which rates are computed.
    pub boottime_ns: u64,
}

/// What a reading is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    Node,
    Vm(VmUuid),
    Container(ContainerId),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Cumulative, as its source has it.
    Counter(u64),
    Gauge(f64),
}

/// One value. Units are the catalogue's.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub metric: Metric,
    /// Which core, device or mount point; empty: the object as a whole. Readers keep and share these.
    pub instance: Arc<str>,
    pub value: Value,
    pub source: Source,
}

/// All that one lane read of one object. Without readings: there is nothing to read of it now, and what was read before
/// no longer holds.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectSample {
    pub object: Object,
    pub readings: Vec<Reading>,
}

/// What a lane found to exist. What was in its last list and isn't in this one is gone.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    Node(Box<NodeFacts>),
    Vms(Vec<VmFacts>),
    /// Those that are seen, before who knows them all has told of any.
    VmsSoFar(Vec<VmFacts>),
    Containers(Vec<ContainerFacts>),
    /// This lane lists nothing, or couldn't: what was known stays.
    Nothing,
}

/// How something that a lane reads from is doing.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceReport {
    pub source: Source,
    /// Which of several, such as a connection's URI; empty: there is one.
    pub instance: Arc<str>,
    pub state: SourceState,
    /// Why it is not OK; empty when it is.
    pub detail: String,
}

/// Something that a lane saw happen, beside what follows from what it found.
#[derive(Clone, Debug, PartialEq)]
pub struct Happened {
    pub kind: EventKind,
    pub object: Object,
    /// For people.
    pub detail: String,
}

/// What one reading of one lane gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Cycle {
    pub taken: Taken,
    pub found: Found,
    pub samples: Vec<ObjectSample>,
    pub sources: Vec<SourceReport>,
    pub events: Vec<Happened>,
}

/// Something that is read at a cadence of its own, on a thread of its own. `read` may block; whoever runs the lane
/// watches its deadline.
pub trait Lane: Send {
    /// For logs and states: `node`, `filesystems`, `sensors`, `containers`, `container-changes`, `vms`,
    /// `vm-monitors`, `vm-jobs`, `vm-events`, `guest-agents`, `qemu-processes`; where there are several of a kind, the kind, a
    /// space and what tells them apart.
    fn name(&self) -> &'static str;

    /// What it reads from, to report as stuck when `read` doesn't come back.
    fn source(&self) -> Source;

    /// Which of several it reads from, as its reports have it; empty: there is one.
    fn instance(&self) -> Arc<str> {
        Arc::from("")
    }

    /// Rung from elsewhere, where something may have happened that this lane is to see before its next tick.
    fn bell(&self) -> Option<&Bell> {
        None
    }

    fn read(&mut self, taken: Taken) -> Cycle;
}
