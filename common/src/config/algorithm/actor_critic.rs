//! What `a2c` and `a3c` can be told.

use serde::{Deserialize, Serialize};

use super::LossReduction;
use crate::config::ranges::{fraction, not_negative, positive};
use crate::config::{ConfigError, PolicyLagBound, RunConfig, Schedule};

/// The knobs of the advantage actor-critic methods A2C and A3C (Mnih et al. 2016, arXiv 1602.01783).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActorCriticConfig {
    /// Discount of future reward per environment step.
    pub gamma: f32,
    /// Mixes n-step returns of all lengths (GAE); 1 takes each to the end of its unroll, as the paper does. Less
    /// means less variance and more bias from the value estimates.
    pub lambda: f32,
    /// Weight of the value loss, `0.5 (R - V)^2`.
    pub baseline_cost: f32,
    /// Weight of the policy's entropy, in nats, as a bonus: at the start of the run, if it is scheduled.
    pub entropy_cost: f32,
    /// How the weight of the entropy changes over the run.
    pub entropy_schedule: Schedule,
    /// Weight of the entropy at the run's last step, if it is scheduled.
    pub final_entropy_cost: f32,
    /// Whether advantages are shifted and scaled to mean 0 and deviation 1 over the batch.
    pub normalize_advantages: bool,
    /// Whether losses are summed or averaged over the batch. A learning rate belongs to one of the two: the
    /// factor between them is T x B.
    pub loss_reduction: LossReduction,
    /// Multiplies every reward before clipping. Returns of the order of 10 keep the value loss from drowning
    /// the policy's in a shared network.
    pub reward_scale: f32,
    /// Clips every scaled reward to `[-c, c]`; 0 leaves them alone.
    pub reward_clip: f32,
}

impl Default for ActorCriticConfig {
    fn default() -> Self {
        Self {
            gamma: 0.99,
            lambda: 1.0,
            baseline_cost: 0.5,
            entropy_cost: 0.01,
            entropy_schedule: Schedule::Constant,
            final_entropy_cost: 0.0,
            normalize_advantages: false,
            loss_reduction: LossReduction::Mean,
            reward_scale: 0.1,
            reward_clip: 0.0,
        }
    }
}

/// A2C: a batch is what all actors act with the newest weights.
pub(super) fn lockstep(run: &mut RunConfig) {
    run.learner.max_policy_lag = PolicyLagBound(Some(0));
}

/// A3C: every unroll is an update. Actors of fast environments would run hundreds of updates ahead, which nothing here
/// corrects for: the section's bound on lag stays.
pub(super) fn asynchronous(run: &mut RunConfig) {
    run.learner.batch_size = run.rollout.envs_per_actor;
}

impl ActorCriticConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        fraction("algorithm.gamma", self.gamma.into())?;
        fraction("algorithm.lambda", self.lambda.into())?;
        not_negative("algorithm.baseline_cost", self.baseline_cost.into())?;
        not_negative("algorithm.entropy_cost", self.entropy_cost.into())?;
        not_negative("algorithm.final_entropy_cost", self.final_entropy_cost.into())?;
        positive("algorithm.reward_scale", self.reward_scale.into())?;
        not_negative("algorithm.reward_clip", self.reward_clip.into())
    }
}
