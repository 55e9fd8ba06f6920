//! What the node should have and some lane of it couldn't read, for the lane that tells what the node is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use horcrux_proto::v1::{Absence, Metric};

/// Shared by the lanes of a node.
#[derive(Clone, Debug, Default)]
pub struct Lacking(Arc<Mutex<BTreeMap<&'static str, Vec<Absence>>>>);

/// Absences of one lane that are told.
const MOST: usize = 32;

impl Lacking {
    /// Replaces what a lane told before.
    pub(super) fn replace(&self, lane: &'static str, mut absences: Vec<Absence>) {
        absences.truncate(MOST);
        self.lock().insert(lane, absences);
    }

    pub(super) fn all(&self) -> Vec<Absence> {
        self.lock().values().flatten().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Vec<Absence>>> {
        // A map is whole after any panic: what is in it is replaced in one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn absent(metric: Metric, instance: &str, reason: String) -> Absence {
    Absence { metric: metric.into(), instance: instance.to_owned(), reason }
}
