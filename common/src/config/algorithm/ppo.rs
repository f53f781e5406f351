//! What `ppo` can be told.

use serde::{Deserialize, Serialize};

use crate::config::ranges::{at_least_1, fraction, not_negative, positive};
use crate::config::{ConfigError, PolicyLagBound, RunConfig, Schedule};

/// PPO's knobs (Schulman et al. 2017, arXiv 1707.06347).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PpoConfig {
    /// Discount of future reward per environment step.
    pub gamma: f32,
    /// Mixes n-step returns of all lengths (GAE). Less means less variance and more bias from the value estimates.
    pub lambda: f32,
    /// Passes over each batch. More squeeze more out of it, and move further from the policy that acted.
    pub epochs: usize,
    /// Parts that each pass is divided into, each an optimiser step. Steps are dealt at random; for a policy
    /// with memory, whole columns.
    pub minibatches: usize,
    /// How far the ratio of new to old probability of an action pays: beyond `1 +- clip_range` an improvement
    /// has no gradient.
    pub clip_range: f32,
    /// How the clip range changes over the run.
    pub clip_schedule: Schedule,
    /// How far a value estimate may move in one update before its loss has no gradient, in scaled rewards, or
    /// with `policy.normalize_values` in deviations of the value targets; 0 leaves values free.
    pub value_clip: f32,
    /// Whether advantages are shifted and scaled to mean 0 and deviation 1 over each minibatch.
    pub normalize_advantages: bool,
    /// Weight of the value loss, `0.5 (R - V)^2`. (Stable-Baselines3 has no 0.5 in it: its `vf_coef` is half of this.)
    pub baseline_cost: f32,
    /// Weight of the policy's entropy, in nats, as a bonus: at the start of the run, if it is scheduled.
    pub entropy_cost: f32,
    /// How the weight of the entropy changes over the run.
    pub entropy_schedule: Schedule,
    /// Weight of the entropy at the run's last step, if it is scheduled.
    pub final_entropy_cost: f32,
    /// An update ends early, before the step at which the policy is estimated to be 1.5 times this far (KL
    /// divergence in nats) from the one that acted; 0 never does.
    pub target_kl: f32,
    /// Multiplies every reward before clipping. Returns of the order of 10 keep the value loss from drowning
    /// the policy's in a shared network.
    pub reward_scale: f32,
    /// Clips every scaled reward to `[-c, c]`; 0 leaves them alone.
    pub reward_clip: f32,
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self {
            gamma: 0.99,
            lambda: 0.95,
            epochs: 10,
            minibatches: 8,
            clip_range: 0.2,
            clip_schedule: Schedule::Constant,
            value_clip: 0.0,
            normalize_advantages: true,
            baseline_cost: 0.5,
            entropy_cost: 0.0,
            entropy_schedule: Schedule::Constant,
            final_entropy_cost: 0.0,
            target_kl: 0.0,
            reward_scale: 0.1,
            reward_clip: 0.0,
        }
    }
}

/// A batch is 2048 steps of 2 actors with 8 copies each, acted with the newest weights.
pub(super) fn adapt(run: &mut RunConfig) {
    run.learner.max_policy_lag = PolicyLagBound(Some(0));
    run.learner.batch_size = 16;
    run.rollout.envs_per_actor = 8;
    run.rollout.unroll_length = 128;
    run.optimizer.learning_rate = 1e-3;
    run.optimizer.epsilon = 1e-5;
}

impl PpoConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        fraction("algorithm.gamma", self.gamma.into())?;
        fraction("algorithm.lambda", self.lambda.into())?;
        at_least_1("algorithm.epochs", self.epochs)?;
        at_least_1("algorithm.minibatches", self.minibatches)?;
        positive("algorithm.clip_range", self.clip_range.into())?;
        not_negative("algorithm.value_clip", self.value_clip.into())?;
        not_negative("algorithm.baseline_cost", self.baseline_cost.into())?;
        not_negative("algorithm.entropy_cost", self.entropy_cost.into())?;
        not_negative("algorithm.final_entropy_cost", self.final_entropy_cost.into())?;
        not_negative("algorithm.target_kl", self.target_kl.into())?;
        positive("algorithm.reward_scale", self.reward_scale.into())?;
        not_negative("algorithm.reward_clip", self.reward_clip.into())
    }
}
