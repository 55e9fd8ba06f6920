//! Stands where VMs would be read, in an agent that was built without libvirt.

use std::sync::Arc;

use horcrux_proto::v1::{Source, SourceState};

use crate::sample::{Cycle, Found, Lane, SourceReport, Taken};

/// Says why there are no VMs.
#[derive(Clone, Copy, Debug)]
pub struct NoVms;

impl Lane for NoVms {
    fn name(&self) -> &'static str {
        "vms"
    }

    fn source(&self) -> Source {
        Source::Libvirt
    }

    fn read(&mut self, taken: Taken) -> Cycle {
        let detail = "this agent was built without libvirt".to_owned();
        let report = SourceReport {
            source: Source::Libvirt,
            instance: Arc::default(),
            state: SourceState::Absent,
            detail,
        };
        Cycle { taken, found: Found::Nothing, samples: Vec::new(), sources: vec![report], events: Vec::new() }
    }
}
