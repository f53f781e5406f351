//! The trainer's thread: batch -> update -> publish, until the run is over.
//!
//! No network and no disk here: weights go to the [`Broadcast`], checkpoints and offending batches to a
//! writer thread, numbers to the [`Recorder`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use impresario_common::config::RunConfig;

use crate::algorithm::{Outcome, TrainError};
use crate::arrivals::ArrivalLog;
use crate::broadcast::Broadcast;
use crate::checkpoint::{Checkpoint, CheckpointWriter};
use crate::intake::{Intake, Work};
use crate::report::{Recorder, UpdateEvent};
use crate::roster::Roster;
use crate::trainer::Trainer;

/// Why training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The mean return of the last 100 episodes reached the goal.
    Solved,
    /// All environment steps of the run are trained on.
    OutOfSteps,
    /// The process was asked to stop.
    Stopped,
}

impl Ending {
    /// The name in the summary.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Solved => "solved",
            Self::OutOfSteps => "steps",
            Self::Stopped => "shutdown",
        }
    }
}

/// What the trainer's thread leaves.
pub(crate) struct Ended {
    pub(crate) ending: Result<Ending, TrainError>,
    /// The last checkpoint, as it was written.
    pub(crate) last: Option<Checkpoint>,
}

/// What the trainer's thread works with.
pub(crate) struct Session {
    pub(crate) config: RunConfig,
    pub(crate) trainer: Trainer,
    pub(crate) intake: Arc<Intake>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) broadcast: Arc<Broadcast>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) checkpoints: CheckpointWriter,
    /// Where arrivals are put on record, if they are.
    pub(crate) arrivals: Option<Arc<ArrivalLog>>,
    /// Mean return of the last 100 episodes that ends the run.
    pub(crate) goal: Option<f64>,
    /// Environment steps trained on so far.
    pub(crate) env_steps: u64,
}

/// Environment steps at which checkpoints are due: at 0, and wherever a multiple of a distance is reached or passed.
#[derive(Debug)]
struct Milestones {
    /// 0 for none.
    every: u64,
    due: u64,
}

impl Milestones {
    /// For a run that begins or goes on at `steps`.
    fn new(every: u64, steps: u64) -> Self {
        Self { every, due: every.saturating_mul(steps.div_ceil(every.max(1))) }
    }

    /// Whether one is due at `steps`; then the next one is planned.
    fn is_due(&mut self, steps: u64) -> bool {
        let due = self.every > 0 && steps >= self.due;
        if due {
            self.due = self.every.saturating_mul(steps / self.every + 1);
        }
        due
    }
}

impl Session {
    /// Trains until the run is over, and writes the last checkpoint. Afterwards nothing more is admitted.
    pub(crate) fn run(mut self) -> Ended {
        let ending = self.train();
        self.intake.finish();
        self.recorder.end(Instant::now());
        // The last good weights, whatever the ending.
        let last =
            self.checkpoint().inspect_err(|e| tracing::error!("no checkpoint of the last weights: {e}"));
        let last = last.ok();
        if let Some(checkpoint) = &last {
            self.checkpoints.submit(checkpoint.clone());
        }
        if let Err(error) = self.checkpoints.finish() {
            tracing::error!("the last checkpoint is not written: {error}");
        }
        Ended { ending, last }
    }

    fn train(&mut self) -> Result<Ending, TrainError> {
        self.broadcast.publish(self.trainer.snapshot()?);
        let interval = Duration::from_secs_f64(self.config.report.checkpoint_seconds);
        let mut last_checkpoint = Instant::now();
        let mut milestones = Milestones::new(self.config.report.checkpoint_steps, self.env_steps);
        if milestones.is_due(self.env_steps) {
            self.checkpoints.submit_milestone(self.checkpoint()?);
        }
        let mut lags = vec![];
        loop {
            self.recorder.waiting(Instant::now());
            let Some(work) = self.intake.next_batch() else { return Ok(Ending::Stopped) };
            let received = Instant::now();
            if let Some(started) = self.intake.started() {
                self.recorder.begin(started);
            }
            self.recorder.working(received);
            let ended = self.update(&work, &mut lags)?;
            if let Some(ending) = ended {
                return Ok(ending);
            }
            if milestones.is_due(self.env_steps) {
                self.checkpoints.submit_milestone(self.checkpoint()?);
            }
            if last_checkpoint.elapsed() >= interval {
                last_checkpoint = Instant::now();
                self.checkpoints.submit(self.checkpoint()?);
            }
        }
    }

    /// Everything that a later learner needs to go on.
    fn checkpoint(&self) -> Result<Checkpoint, TrainError> {
        let mut checkpoint = self.trainer.checkpoint(self.env_steps)?;
        checkpoint.totals = self.recorder.totals();
        (checkpoint.accounting, checkpoint.actors) = self.roster.saved();
        checkpoint.run_id.clone_from(&self.roster.run().run_id);
        Ok(checkpoint)
    }

    fn update(&mut self, work: &Work, lags: &mut Vec<u64>) -> Result<Option<Ending>, TrainError> {
        let acted_on = self.trainer.version();
        lags.clear();
        lags.extend(work.batch.policy_versions.iter().map(|acted| acted_on - acted));
        let result = self.trainer.train(&work.batch, self.env_steps);
        let skipped = !matches!(&result, Ok(report) if !matches!(report.outcome, Outcome::Skipped { .. }));
        // The intake must know a version before anyone can act with it.
        self.intake.trained(skipped, self.trainer.version());
        if !skipped {
            self.env_steps += work.batch.steps() as u64;
        }
        if self.trainer.version() != acted_on {
            self.broadcast.publish(self.trainer.snapshot()?);
        }
        if let (Some(log), Ok(report)) = (&self.arrivals, &result) {
            let skipped = matches!(report.outcome, Outcome::Skipped { .. });
            let snapshot = self.trainer.snapshot()?;
            log.trained(work.parts.clone(), snapshot.version, snapshot.weights, skipped);
        }
        if skipped {
            self.checkpoints.submit_skipped(acted_on, work.batch.clone());
        }
        let report = result?;
        self.recorder.update(&UpdateEvent {
            version: self.trainer.version(),
            steps: work.batch.steps() as u64,
            lags,
            steps_per_column: work.batch.length as u64,
            episodes: &work.episodes,
            metrics: report.metrics.as_slice(),
            skipped,
        });
        let reached = self.recorder.mean_return_100().zip(self.goal).is_some_and(|(mean, goal)| mean >= goal);
        Ok(if reached {
            Some(Ending::Solved)
        } else if self.env_steps >= self.config.run.steps {
            Some(Ending::OutOfSteps)
        } else {
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where milestones are due, of updates of `batch` steps up to `end`.
    fn due(every: u64, start: u64, batch: u64, end: u64) -> Vec<u64> {
        let mut milestones = Milestones::new(every, start);
        (start..=end).step_by(batch as usize).filter(|&steps| milestones.is_due(steps)).collect()
    }

    #[test]
    fn milestones_are_due_at_the_start_and_where_multiples_are_passed() {
        assert_eq!(due(100, 0, 40, 400), [0, 120, 200, 320, 400]);
        assert_eq!(due(100, 0, 250, 1000), [0, 250, 500, 750, 1000]);
        assert_eq!(due(100, 130, 10, 300), [200, 300]);
        assert_eq!(due(100, 200, 50, 300), [200, 300]);
        assert!(due(0, 0, 40, 400).is_empty());
    }
}
