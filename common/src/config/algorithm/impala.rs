//! What `impala` can be told.

use serde::{Deserialize, Serialize};

use super::LossReduction;
use crate::config::ranges::{fraction, not_negative, positive};
use crate::config::{ConfigError, RunConfig, Schedule};

/// IMPALA's knobs (Espeholt et al. 2018, arXiv 1802.01561).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImpalaConfig {
    /// Discount of future reward per environment step.
    pub gamma: f32,
    /// Trace decay of V-trace (its remark 2); 1 is the paper's algorithm.
    pub lambda: f32,
    /// Truncation of the importance weights in the value targets.
    pub clip_rho: f32,
    /// Truncation of the importance weights in the policy gradient.
    pub clip_pg_rho: f32,
    /// Truncation of the trace coefficients.
    pub clip_c: f32,
    /// Weight of the value loss, `0.5 (vs - V)^2`.
    pub baseline_cost: f32,
    /// Weight of the policy's entropy, in nats, as a bonus: at the start of the run, if it is scheduled.
    pub entropy_cost: f32,
    /// How the weight of the entropy changes over the run.
    pub entropy_schedule: Schedule,
    /// Weight of the entropy at the run's last step, if it is scheduled.
    pub final_entropy_cost: f32,
    /// Whether losses are summed or averaged over the batch. A learning rate belongs to one of the two: the
    /// factor between them is T x B.
    pub loss_reduction: LossReduction,
    /// Multiplies every reward before clipping. Returns of the order of 10 keep the value loss from drowning
    /// the policy's in a shared network.
    pub reward_scale: f32,
    /// Clips every scaled reward to `[-c, c]`; 0 leaves them alone.
    pub reward_clip: f32,
}

impl Default for ImpalaConfig {
    fn default() -> Self {
        Self {
            gamma: 0.99,
            lambda: 1.0,
            clip_rho: 1.0,
            clip_pg_rho: 1.0,
            clip_c: 1.0,
            baseline_cost: 0.5,
            entropy_cost: 0.01,
            entropy_schedule: Schedule::Constant,
            final_entropy_cost: 0.0,
            loss_reduction: LossReduction::Mean,
            reward_scale: 0.1,
            reward_clip: 0.0,
        }
    }
}

/// The sections' own defaults are IMPALA's.
pub(super) fn adapt(_: &mut RunConfig) {}

impl ImpalaConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        fraction("algorithm.gamma", self.gamma.into())?;
        fraction("algorithm.lambda", self.lambda.into())?;
        positive("algorithm.clip_rho", self.clip_rho.into())?;
        positive("algorithm.clip_pg_rho", self.clip_pg_rho.into())?;
        positive("algorithm.clip_c", self.clip_c.into())?;
        not_negative("algorithm.baseline_cost", self.baseline_cost.into())?;
        not_negative("algorithm.entropy_cost", self.entropy_cost.into())?;
        not_negative("algorithm.final_entropy_cost", self.final_entropy_cost.into())?;
        positive("algorithm.reward_scale", self.reward_scale.into())?;
        not_negative("algorithm.reward_clip", self.reward_clip.into())
    }
}
