//! What `trpo` can be told.

use serde::{Deserialize, Serialize};

use crate::config::ranges::{at_least_1, check, fraction, not_negative, positive};
use crate::config::{ConfigError, PolicyLagBound, RunConfig};

/// TRPO's knobs (Schulman et al. 2015, arXiv 1502.05477).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrpoConfig {
    /// Discount of future reward per environment step.
    pub gamma: f32,
    /// Mixes n-step returns of all lengths (GAE). Less means less variance and more bias from the value estimates.
    pub lambda: f32,
    /// Mean KL divergence, in nats, that an update may put between the old policy and the new one.
    pub max_kl: f64,
    /// Iterations of the conjugate gradient method, each as dear as three passes over the batch.
    pub cg_iterations: usize,
    /// Added to the diagonal of the Fisher matrix; more makes the step shorter and surer.
    pub cg_damping: f64,
    /// Tries of the line search, each with a shorter step.
    pub line_search_steps: usize,
    /// How much shorter the step gets with each try.
    pub line_search_decay: f64,
    /// Steps of the optimiser by which the value estimates follow the returns, each on the whole batch.
    pub value_steps: usize,
    /// Whether advantages are shifted and scaled to mean 0 and deviation 1 over the batch.
    pub normalize_advantages: bool,
    /// Multiplies every reward before clipping.
    pub reward_scale: f32,
    /// Clips every scaled reward to `[-c, c]`; 0 leaves them alone.
    pub reward_clip: f32,
}

impl Default for TrpoConfig {
    fn default() -> Self {
        Self {
            gamma: 0.99,
            lambda: 0.95,
            max_kl: 0.02,
            cg_iterations: 10,
            cg_damping: 0.1,
            line_search_steps: 10,
            line_search_decay: 0.8,
            value_steps: 20,
            normalize_advantages: true,
            reward_scale: 0.1,
            reward_clip: 0.0,
        }
    }
}

/// Large batches in lockstep, and value estimates that leave the policy alone.
pub(super) fn adapt(run: &mut RunConfig) {
    run.rollout.unroll_length = 64;
    run.learner.batch_size = 64;
    run.learner.max_policy_lag = PolicyLagBound(Some(0));
    run.policy.shared_encoder = false;
    run.optimizer.max_grad_norm = 0.0;
}

impl TrpoConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        fraction("algorithm.gamma", self.gamma.into())?;
        fraction("algorithm.lambda", self.lambda.into())?;
        positive("algorithm.max_kl", self.max_kl)?;
        at_least_1("algorithm.cg_iterations", self.cg_iterations)?;
        not_negative("algorithm.cg_damping", self.cg_damping)?;
        at_least_1("algorithm.line_search_steps", self.line_search_steps)?;
        let decay = self.line_search_decay;
        check("algorithm.line_search_decay", &decay, decay > 0.0 && decay < 1.0, "must lie between 0 and 1")?;
        at_least_1("algorithm.value_steps", self.value_steps)?;
        positive("algorithm.reward_scale", self.reward_scale.into())?;
        not_negative("algorithm.reward_clip", self.reward_clip.into())
    }
}
