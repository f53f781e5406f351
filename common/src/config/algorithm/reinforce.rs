//! What `reinforce` can be told.

use serde::{Deserialize, Serialize};

use crate::config::ranges::{fraction, not_negative, positive};
use crate::config::{ConfigError, PolicyLagBound, RunConfig, Schedule};

/// The knobs of REINFORCE (Williams 1992, <https://doi.org/10.1007/BF00992696>).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReinforceConfig {
    /// Discount of future reward per environment step.
    pub gamma: f32,
    /// Whether the value estimate of a state is subtracted from its return: less variance, no bias. Without it a
    /// truncated episode counts as if nothing had followed.
    pub baseline: bool,
    /// Weight of the value loss, `0.5 (G - V)^2`; of no account without a baseline.
    pub baseline_cost: f32,
    /// Weight of the policy's entropy, in nats, as a bonus: at the start of the run, if it is scheduled.
    pub entropy_cost: f32,
    /// How the weight of the entropy changes over the run.
    pub entropy_schedule: Schedule,
    /// Weight of the entropy at the run's last step, if it is scheduled.
    pub final_entropy_cost: f32,
    /// Whether what multiplies the log-probabilities is shifted and scaled to mean 0 and deviation 1 over the
    /// steps learned from. A solved task's small differences are then blown up, which undoes the solution in the long run.
    pub normalize_advantages: bool,
    /// Multiplies every reward before clipping. Returns of the order of 10 keep the value loss from drowning
    /// the policy's in a shared network.
    pub reward_scale: f32,
    /// Clips every scaled reward to `[-c, c]`; 0 leaves them alone.
    pub reward_clip: f32,
}

impl Default for ReinforceConfig {
    fn default() -> Self {
        Self {
            gamma: 0.99,
            baseline: true,
            baseline_cost: 0.5,
            entropy_cost: 0.01,
            entropy_schedule: Schedule::Constant,
            final_entropy_cost: 0.0,
            normalize_advantages: false,
            reward_scale: 0.1,
            reward_clip: 0.0,
        }
    }
}

/// Unrolls that hold whole episodes, of few copies, acted with the newest weights.
pub(super) fn adapt(run: &mut RunConfig) {
    run.learner.max_policy_lag = PolicyLagBound(Some(0));
    run.learner.batch_size = 4;
    run.rollout.envs_per_actor = 2;
    run.rollout.unroll_length = 500;
    run.optimizer.learning_rate = 2e-2;
    run.optimizer.schedule = Schedule::Linear;
}

impl ReinforceConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        fraction("algorithm.gamma", self.gamma.into())?;
        not_negative("algorithm.baseline_cost", self.baseline_cost.into())?;
        not_negative("algorithm.entropy_cost", self.entropy_cost.into())?;
        not_negative("algorithm.final_entropy_cost", self.final_entropy_cost.into())?;
        positive("algorithm.reward_scale", self.reward_scale.into())?;
        not_negative("algorithm.reward_clip", self.reward_clip.into())
    }
}
