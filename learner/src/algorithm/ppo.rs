//! PPO: proximal policy optimisation (Schulman et al. 2017, <https://arxiv.org/abs/1707.06347>).
//!
//! In lockstep, so that the policy that acted is the one being learned. Advantages and value targets come by
//! generalised advantage estimation from the values before the update; then the clipped surrogate
//! ([`super::surrogate`]) is climbed over several passes of minibatches. The whole update is one version.

use impresario_common::config::{PpoConfig, RunConfig};
use rand::seq::SliceRandom;

use super::advantages::Advantages;
use super::rewards::RewardRule;
use super::surrogate::{ClippedSurrogate, Goals, dealer};
use super::{Algorithm, Metrics, Progress, TargetPolicy, TrainError, UpdateReport};
use crate::batch::Batch;
use crate::returns::explained_variance;

/// The method, with buffers that serve every update.
#[derive(Debug)]
pub struct Ppo {
    rule: RewardRule,
    lambda: f32,
    surrogate: ClippedSurrogate,
    seed: u64,
    estimates: Advantages,
    values: Vec<f32>,
}

impl Ppo {
    /// The method with the given knobs, in `run`.
    pub fn new(config: &PpoConfig, run: &RunConfig) -> Self {
        Self {
            rule: RewardRule { gamma: config.gamma, scale: config.reward_scale, clip: config.reward_clip },
            lambda: config.lambda,
            surrogate: ClippedSurrogate::of_ppo(config, run),
            seed: run.run.seed,
            estimates: Advantages::default(),
            values: vec![],
        }
    }

    /// An update whose minibatches are dealt in the order that `shuffle` makes: see [`ClippedSurrogate::climb`].
    ///
    /// # Errors
    /// If the batch does not fit the policy.
    pub fn update_in_order(
        &mut self,
        target: &mut TargetPolicy,
        batch: &Batch,
        progress: Progress,
        shuffle: &mut dyn FnMut(&mut [usize]),
    ) -> Result<UpdateReport, TrainError> {
        let output = target.forward(batch)?;
        self.values = target.values(&output)?;
        self.estimates.estimate(batch, &self.values, &self.rule, self.lambda);
        self.values.truncate(batch.steps());
        let (values, targets) = (&self.values, &self.estimates.returns);
        let mut metrics = Metrics::default();
        metrics.push("mean_value", values.iter().copied().map(f64::from).sum::<f64>() / values.len() as f64);
        metrics.push("explained_variance", explained_variance(values, targets).into());
        let goals = Goals { values, advantages: &self.estimates.advantages, targets };
        self.surrogate.climb(target, batch, &goals, progress, metrics, shuffle)
    }
}

impl Algorithm for Ppo {
    fn name(&self) -> &'static str {
        "ppo"
    }

    fn update(
        &mut self,
        target: &mut TargetPolicy,
        batch: &Batch,
        progress: Progress,
    ) -> Result<UpdateReport, TrainError> {
        let mut random = dealer(self.seed, progress.version);
        self.update_in_order(target, batch, progress, &mut |order| order.shuffle(&mut random))
    }
}
