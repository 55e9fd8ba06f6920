//! Every task has an owner, a stop signal and a deadline.
//!
//! `Tasks` owns all tasks of a daemon. One that ends, ends the daemon; what is left is told to stop and is given a grace
//! period. Dropping `Tasks` aborts what still runs.

use std::future::Future;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Resolves when the daemon is to stop.
pub type Stop = CancellationToken;

#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<(&'static str, Result<(), BoxError>)>,
    stop: Stop,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The task that ended the daemon.
#[derive(Debug, thiserror::Error)]
pub enum TaskFailed {
    #[error("task {name} failed")]
    Failed {
        name: &'static str,
        #[source]
        source: BoxError,
    },
    #[error("task {name} ended early")]
    EndedEarly { name: &'static str },
    #[error("a task panicked")]
    Panicked {
        #[source]
        source: JoinError,
    },
}

impl Tasks {
    /// The signal that all tasks get.
    #[must_use]
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Starts a task. It should return soon after its stop signal.
    pub fn spawn<F, E>(&mut self, name: &'static str, task: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let running = task(self.stop.clone());
        self.set.spawn(async move { (name, running.await.map_err(Into::into)) });
    }

    /// Runs until `shutdown` or until any task ends, then stops the rest and waits at most `grace` for them.
    pub async fn run(
        mut self,
        shutdown: impl Future<Output = ()>,
        grace: Duration,
    ) -> Result<(), TaskFailed> {
        let outcome = tokio::select! {
            () = shutdown => Ok(()),
            Some(ended) = self.set.join_next() => match ended {
                Ok((name, Ok(()))) => Err(TaskFailed::EndedEarly { name }),
                Ok((name, Err(source))) => Err(TaskFailed::Failed { name, source }),
                Err(source) => Err(TaskFailed::Panicked { source }),
            },
        };
        self.stop.cancel();
        let drained = tokio::time::timeout(grace, async {
            let mut late = Ok(());
            while let Some(ended) = self.set.join_next().await {
                late = late.and(match ended {
                    Ok((_, Ok(()))) => Ok(()),
                    Ok((name, Err(source))) => Err(TaskFailed::Failed { name, source }),
                    Err(source) => Err(TaskFailed::Panicked { source }),
                });
            }
            late
        });
        if let Ok(late) = drained.await {
            outcome.and(late)
        } else {
            tracing::warn!(?grace, still_running = self.set.len(), "tasks outlived the grace period");
            outcome
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_early_is_named() {
        let mut tasks = Tasks::default();
        tasks.spawn("brief", |_| async { Ok::<_, Infallible>(()) });
        tasks.spawn("long", |stop| async move {
            stop.cancelled().await;
            Ok::<_, Infallible>(())
        });
        let ended = tasks.run(pending(), Duration::from_secs(5)).await;
        assert!(matches!(ended, Err(TaskFailed::EndedEarly { name: "brief" })));
    }

    #[tokio::test]
    async fn shutdown_stops_every_task() {
        let mut tasks = Tasks::default();
        tasks.spawn("long", |stop| async move {
            stop.cancelled().await;
            Ok::<_, Infallible>(())
        });
        assert!(tasks.run(async {}, Duration::from_secs(5)).await.is_ok());
    }
}
