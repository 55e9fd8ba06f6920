//! Where readings pass on their way from the lanes to the link.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use horcrux_proto::v1::{Source, SourceState};
use horcrux_transport::tasks::Stop;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::{Local, Shown};
use crate::collect;
use crate::link::Standing;
use crate::present::News;
use crate::sample::{Cycle, SourceReport};

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
    /// Whom this host's users ask, where they can.
    shown: Option<Shown>,
    forward: Forward,
}

/// How often lanes are looked at for being stuck.
const LOOK: Duration = Duration::from_secs(1);

impl Tap {
    pub(super) fn new(local: Arc<Local>, forward: Forward) -> Self {
        Self { local, shown: None, forward }
    }

    /// Shows what passes to this host's users too.
    #[must_use]
    pub fn showing(self, shown: Shown) -> Self {
        Self { shown: Some(shown), ..self }
    }

    /// Runs until `stop`, or until no lane is left.
    pub async fn run(
        mut self,
        mut cycles: mpsc::Receiver<(&'static str, Cycle)>,
        stop: Stop,
    ) -> Result<(), Infallible> {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let (lane, cycle) = tokio::select! {
                received = cycles.recv() => match received {
                    Some(received) => received,
                    None => return Ok(()),
                },
                _ = look.tick(), if self.shown.is_some() => {
                    self.look_for_stuck().await;
                    continue;
                }
                () = stop.cancelled() => return Ok(()),
            };
            self.take(lane, cycle).await;
        }
    }

    /// Puts what a lane read where readers find it, and says what is new.
    pub fn fill(local: &Local, lane: &'static str, cycle: &Cycle) -> Vec<News> {
        let skipped = |report: &SourceReport| local.skipped(report.source, &report.instance);
        local.latest().take(lane, cycle, skipped)
    }

    pub(super) async fn take(&mut self, lane: &'static str, cycle: Cycle) {
        let news = Self::fill(&self.local, lane, &cycle);
        let told = self.shown.as_mut().map(|shown| shown.take(lane, &cycle, news));
        self.pass_on(lane, cycle);
        if let (Some(shown), Some(told)) = (&mut self.shown, told)
            && shown.tell(told).await.is_err()
        {
            tracing::trace!("not shown: the agent is stopping");
        }
    }

    fn pass_on(&self, lane: &'static str, cycle: Cycle) {
        let watched = self.local.lanes.iter().find(|watched| watched.name == lane);
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

    async fn look_for_stuck(&self) {
        let Some(shown) = &self.shown else { return };
        let now = collect::now();
        let mut news = Vec::new();
        for lane in &self.local.lanes {
            let Some(report) = lane.stuck(now) else { continue };
            let skipped = self.local.skipped(lane.source, &lane.instance);
            news.push(self.local.latest().source(&report, skipped, now.unix_ms));
        }
        if let Some(link) = self.local.link() {
            news.push(self.local.latest().source(&kept(link), 0, now.unix_ms));
        }
        if shown.tell_news(news).await.is_err() {
            tracing::trace!("not shown: the agent is stopping");
        }
    }
}

/// What the controller has not stored, for who looks here while it is away.
fn kept(link: &Standing) -> SourceReport {
    let waiting = link.records().saturating_sub(link.stored());
    let (state, detail) = match (link.is_spool_on_disk(), link.is_attached()) {
        (true, true) => (SourceState::Ok, String::new()),
        (true, false) => (SourceState::Ok, format!("there is no controller: {waiting} records wait for it")),
        (false, true) => (SourceState::Failing, "the disk takes nothing: memory serves".to_owned()),
        (false, false) => {
            let why = format!(
                "there is no controller: {waiting} records wait for it in memory, for the disk takes nothing"
            );
            (SourceState::Failing, why)
        }
    };
    SourceReport { source: Source::Spool, instance: Arc::default(), state, detail }
}

#[cfg(test)]
mod tests {
    use horcrux_proto::v1::Metric;

    use super::*;
    use crate::collect::{Progress, Watched};
    use crate::sample::{Found, Object, ObjectSample, Reading, Taken, Value};

    #[test]
    fn what_waits_for_a_controller_that_is_away_is_told_on_the_host() {
        let standing = Standing::default();
        let told = kept(&standing);
        assert_eq!(
            (told.state, told.detail.as_str()),
            (SourceState::Ok, "there is no controller: 0 records wait for it")
        );
    }

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
        let (mut tap, local) = Local::tapped(vec![lane], Forward::Link(to_link));
        for value in [1.0, 2.0, 3.0] {
            tap.take("node", cycle(value)).await;
        }
        assert_eq!(progress.dropped(), 2);
        assert_eq!(link.try_recv().unwrap().1, cycle(1.0), "what is passed on is what was read");
        assert!(link.try_recv().is_err());
        let latest = local.latest();
        let values: Vec<_> = latest.readings(&Object::Node, 1, |_| std::time::Duration::MAX).collect();
        assert_eq!(values[0].value, Value::Gauge(3.0), "the newest is here all the same");
    }
}
