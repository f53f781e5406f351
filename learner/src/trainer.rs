//! [`Trainer`]: batches in, new versions of the policy out.
//!
//! It owns the target policy, the optimiser and the algorithm, and does arithmetic only: the loop around it
//! takes batches from the intake, publishes [`Trainer::snapshot`] through the broadcast, and hands
//! [`Trainer::checkpoint`] and the batches of skipped updates to the checkpoint writer.

use impresario_common::config::RunConfig;
use impresario_common::policy::{PolicySpec, Snapshot};
use impresario_common::space::EnvironmentSpec;

use crate::accounting::Accounting;
use crate::algorithm::{self, Algorithm, Outcome, Progress, TargetPolicy};
use crate::batch::Batch;
use crate::checkpoint::Checkpoint;
use crate::report::Totals;
use crate::roster::SavedActors;

pub use crate::algorithm::{Metrics, SkipReason, TrainError, UpdateReport};

/// The learner's state: what a checkpoint saves.
pub struct Trainer {
    config: RunConfig,
    environment: EnvironmentSpec,
    target: TargetPolicy,
    algorithm: Box<dyn Algorithm>,
    version: u64,
    skipped: u64,
    skipped_in_a_row: u32,
}

impl Trainer {
    /// A trainer at version 0, with the initial weights that the run's seed gives.
    ///
    /// # Errors
    /// If there is no policy for the environment's spaces.
    pub fn new(config: &RunConfig, environment: &EnvironmentSpec) -> Result<Self, TrainError> {
        let spec = PolicySpec::of_run(config, environment)?;
        let weights = spec.initialise(config.run.seed)?;
        tracing::info!(weights = spec.weight_count(), "network: {}", spec.encoder());
        Ok(Self {
            target: TargetPolicy::new(config, &spec, &weights)?,
            algorithm: algorithm::build(config, environment, &spec)?,
            config: config.clone(),
            environment: environment.clone(),
            version: 0,
            skipped: 0,
            skipped_in_a_row: 0,
        })
    }

    /// Makes one update on `batch`; `env_steps_before` environment steps were trained on before it.
    ///
    /// An update whose loss or gradient is not finite is skipped: every weight stays as it is, and the
    /// report says why. The caller keeps such a batch for inspection.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] when `learner.max_skipped_updates` in a row were skipped; another error if the
    /// batch does not fit the policy.
    pub fn train(&mut self, batch: &Batch, env_steps_before: u64) -> Result<UpdateReport, TrainError> {
        let progress = Progress { env_steps: env_steps_before, version: self.version };
        let report = self.algorithm.update(&mut self.target, batch, progress)?;
        if !matches!(report.outcome, Outcome::Skipped { .. }) {
            self.target.observe(batch)?;
        }
        match report.outcome {
            Outcome::Applied => {
                self.version += 1;
                self.skipped_in_a_row = 0;
            }
            Outcome::Kept => self.skipped_in_a_row = 0,
            Outcome::Skipped { reason } => {
                self.skipped += 1;
                self.skipped_in_a_row += 1;
                tracing::warn!(%reason, version = self.version, "skipped an update");
                if self.skipped_in_a_row >= self.config.learner.max_skipped_updates.max(1) {
                    return Err(TrainError::NotFinite { skipped: self.skipped_in_a_row, reason });
                }
            }
        }
        Ok(report)
    }

    /// Updates applied.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Updates skipped since the trainer was made.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The policy being learned.
    pub fn target(&self) -> &TargetPolicy {
        &self.target
    }

    /// The present version of the weights. It shares no memory with the trainer: later updates leave it as
    /// it is.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn snapshot(&self) -> Result<Snapshot, TrainError> {
        Ok(Snapshot { version: self.version, weights: self.target.parameters().copied()? })
    }

    /// A copy of all state of the trainer's own (totals and books are its caller's), after `env_steps` environment steps trained on.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn checkpoint(&self, env_steps: u64) -> Result<Checkpoint, TrainError> {
        let experience =
            if self.config.report.checkpoint_replay { self.algorithm.experience() } else { vec![] };
        Ok(Checkpoint {
            run_id: String::new(),
            policy_version: self.version,
            env_steps,
            environment: self.environment.clone(),
            config: self.config.clone(),
            weights: self.target.parameters().copied()?,
            optimizer: self.target.optimizer().state()?,
            algorithm: self.algorithm.state()?,
            skipped_in_a_row: self.skipped_in_a_row,
            experience,
            totals: Totals::default(),
            accounting: Accounting::default(),
            actors: SavedActors::default(),
            rollouts: vec![],
        })
    }

    /// Goes on from `checkpoint`, bit for bit. This run's configuration stays in force.
    ///
    /// # Errors
    /// If the checkpoint is of another environment, network or optimiser; nothing has changed then.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let other = |what: String| TrainError::Checkpoint(what);
        if let Some(mismatch) = checkpoint.environment.mismatch("there", &self.environment, "in this run") {
            return Err(other(format!("it was trained in another environment: {mismatch}")));
        }
        let parameters = self.target.parameters().clone();
        parameters
            .check(&checkpoint.weights)
            .map_err(|e| other(format!("{e}; take policy.* from the configuration it was written with")))?;
        if !checkpoint.experience.is_empty() {
            self.algorithm.load_experience(checkpoint.experience.clone())?;
        }
        self.algorithm.load_state(&checkpoint.algorithm)?;
        self.target.optimizer_mut().load_state(&checkpoint.optimizer).map_err(|e| {
            other(format!(
                "{e}; take optimizer.kind and optimizer.momentum from the configuration it was written with"
            ))
        })?;
        parameters.load(&checkpoint.weights)?;
        self.version = checkpoint.policy_version;
        self.skipped_in_a_row = checkpoint.skipped_in_a_row;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
