//! Where readings pass on their way from the lanes to the link.

use std::convert::Infallible;
use std::sync::Arc;

use horcrux_transport::tasks::Stop;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::collect::Watched;
use crate::sample::{Cycle, SourceReport};

use super::Local;

/// Where readings go from here.
#[derive(Debug)]
pub enum Forward {
    /// To the link. What doesn't fit is counted as dropped by its lane.
    Link(mpsc::Sender<(&'static str, Cycle)>),
    /// There is no controller.
    Nowhere,
}

/// The task between the lanes and the link.
#[derive(Debug)]
pub struct Tap {
    local: Arc<Local>,
    forward: Forward,
}

impl Tap {
    pub(super) fn new(local: Arc<Local>, forward: Forward) -> Self {
        Self { local, forward }
    }

    /// Runs until `stop`, or until no lane is left.
    pub async fn run(
        self,
        mut cycles: mpsc::Receiver<(&'static str, Cycle)>,
        stop: Stop,
    ) -> Result<(), Infallible> {
        loop {
            let (lane, cycle) = tokio::select! {
                received = cycles.recv() => match received {
                    Some(received) => received,
                    None => return Ok(()),
                },
                () = stop.cancelled() => return Ok(()),
            };
            self.take(lane, cycle);
        }
    }

    /// Puts what a lane read where readers find it.
    pub fn fill(local: &Local, lane: &'static str, cycle: &Cycle) {
        let skipped = |report: &SourceReport| {
            let is_its = |lane: &&Watched| lane.source == report.source && lane.instance == report.instance;
            let of_source = local.lanes.iter().filter(is_its);
            of_source.map(|lane| lane.progress.skipped()).sum::<u64>()
        };
        local.latest().take(lane, cycle, skipped);
    }

    fn take(&self, lane: &'static str, cycle: Cycle) {
        let watched = self.local.lanes.iter().find(|watched| watched.name == lane);
        Self::fill(&self.local, lane, &cycle);
        match &self.forward {
            Forward::Link(link) => match link.try_send((lane, cycle)) {
                // A link that has ended ends the agent.
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                Err(TrySendError::Full(_)) => {
                    if let Some(watched) = watched {
                        watched.progress.count_dropped();
                    }
                }
            },
            Forward::Nowhere => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use horcrux_proto::v1::{Metric, Source};

    use super::*;
    use crate::collect::Progress;
    use crate::sample::{Found, Object, ObjectSample, Reading, Taken, Value};

    fn cycle(value: f64) -> Cycle {
        let reading = Reading {
            metric: Metric::NodeLoad1m,
            instance: "".into(),
            value: Value::Gauge(value),
            source: Source::Proc,
        };
        Cycle {
            taken: Taken { unix_ms: 1, boottime_ns: 1 },
            found: Found::Nothing,
            events: Vec::new(),
            samples: vec![ObjectSample { object: Object::Node, readings: vec![reading] }],
            sources: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_link_that_is_full_costs_only_the_link_and_is_counted() {
        let progress = Arc::new(Progress::default());
        let lane = Watched {
            name: "node",
            source: Source::Proc,
            instance: "".into(),
            progress: Arc::clone(&progress),
        };
        let (to_link, mut link) = mpsc::channel(1);
        let (tap, local) = Local::tapped(vec![lane], Forward::Link(to_link));
        for value in [1.0, 2.0, 3.0] {
            tap.take("node", cycle(value));
        }
        assert_eq!(progress.dropped(), 2);
        assert_eq!(link.try_recv().unwrap().1, cycle(1.0), "what is passed on is what was read");
        assert!(link.try_recv().is_err());
        let latest = local.latest();
        let values: Vec<_> = latest.readings(&Object::Node, 1, |_| std::time::Duration::MAX).collect();
        assert_eq!(values[0].value, Value::Gauge(3.0), "the newest is here all the same");
    }
}
