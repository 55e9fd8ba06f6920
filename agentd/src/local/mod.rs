//! The agent on its own: what every lane read last is kept here, for whoever asks on this host.
//!
//! Prometheus asks the [exporter]; people ask the [socket](served), which answers as a controller would.
//!
//! Lanes send their readings to the [`Tap`], which gives each to [`Latest`] and passes it on to the link, where there is
//! one. The link may be slow or away; the tap never waits for it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

pub mod exporter;
mod latest;
pub mod served;
mod shown;
mod tap;

pub use self::latest::Latest;
pub use self::shown::{Shown, this_node};
pub use self::tap::{Forward, Tap};

use horcrux_proto::v1::Source;

use crate::collect::Watched;
use crate::link::Standing;

/// What is known here now. Written by the tap; readers hold the lock while they write down what they need of it, and
/// never across an await.
#[derive(Debug)]
pub struct Local {
    latest: Mutex<Latest>,
    pub lanes: Vec<Watched>,
    /// Set once, where there is a controller.
    link: OnceLock<Arc<Standing>>,
}

impl Local {
    #[must_use]
    pub fn new(lanes: Vec<Watched>) -> Self {
        Self { latest: Mutex::default(), lanes, link: OnceLock::new() }
    }

    /// Has it told how the link to the controller is, from here on.
    pub fn linked(&self, standing: Arc<Standing>) {
        if self.link.set(standing).is_err() {
            tracing::debug!("it has a link already");
        }
    }

    fn link(&self) -> Option<&Standing> {
        self.link.get().map(Arc::as_ref)
    }

    pub(crate) fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Readings of a source that were skipped so far.
    fn skipped(&self, source: Source, instance: &str) -> u64 {
        let of_source =
            self.lanes.iter().filter(|lane| lane.source == source && lane.instance.as_ref() == instance);
        of_source.map(|lane| lane.progress.skipped()).sum()
    }

    /// A tap that fills a new one of these.
    #[must_use]
    pub fn tapped(lanes: Vec<Watched>, forward: Forward) -> (Tap, Arc<Self>) {
        let local = Arc::new(Self::new(lanes));
        (Tap::new(Arc::clone(&local), forward), local)
    }
}
