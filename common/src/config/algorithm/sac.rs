//! What `sac` can be told.

use serde::{Deserialize, Serialize};

use crate::config::ranges::{at_least_1, check, fraction, not_negative, positive};
use crate::config::{Activation, ConfigError, PolicyLagBound, RunConfig};

/// SAC's knobs (Haarnoja et al. 2018, arXiv 1812.05905; for discrete actions Christodoulou 2019, arXiv 1910.07207).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SacConfig {
    /// Discount of future reward per environment step.
    pub gamma: f32,
    /// Share by which the target critics follow the critics at each gradient step (Polyak averaging).
    pub tau: f32,
    /// Transitions that the replay buffer holds; the oldest are overwritten. Each takes two observations' memory.
    pub replay_capacity: usize,
    /// Transitions drawn for each gradient step.
    pub replay_batch: usize,
    /// Transitions gathered before the first gradient step.
    pub learning_starts: usize,
    /// Gradient steps for each environment step. More learn more from each step, and take longer.
    pub updates_per_step: f64,
    /// Widths of the critics' hidden layers.
    pub critic_hidden: Vec<usize>,
    /// Step size of the critics; the policy's is `optimizer.learning_rate`.
    pub critic_learning_rate: f64,
    /// Entropy temperature at the start.
    pub initial_alpha: f32,
    /// Step size of the logarithm of the entropy temperature; 0 keeps the temperature as it is.
    pub alpha_learning_rate: f64,
    /// Entropy that the temperature aims at, as a multiple of the usual: minus the number of dimensions of a
    /// continuous action (in nats), or half of the greatest entropy of a discrete one.
    pub target_entropy_scale: f32,
    /// Multiplies every reward.
    pub reward_scale: f32,
}

impl Default for SacConfig {
    fn default() -> Self {
        Self {
            gamma: 0.99,
            tau: 0.005,
            replay_capacity: 1_000_000,
            replay_batch: 256,
            learning_starts: 1_000,
            updates_per_step: 1.0,
            critic_hidden: vec![256, 256],
            critic_learning_rate: 1e-3,
            initial_alpha: 1.0,
            alpha_learning_rate: 1e-3,
            target_entropy_scale: 1.0,
            reward_scale: 1.0,
        }
    }
}

/// A squashed policy with its own spread for every observation; small batches, so that the policy that gathers
/// experience is a fresh one.
pub(super) fn adapt(run: &mut RunConfig) {
    run.rollout.unroll_length = 8;
    run.rollout.envs_per_actor = 2;
    run.learner.batch_size = 4;
    run.learner.max_policy_lag = PolicyLagBound(Some(1));
    run.policy.hidden = vec![256, 256].into();
    run.policy.activation = Activation::Relu;
    run.policy.squash = true;
    run.policy.log_std = crate::config::LogStd::State;
    run.optimizer.learning_rate = 1e-3;
    run.optimizer.epsilon = 1e-8;
    run.optimizer.max_grad_norm = 0.0;
}

impl SacConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        fraction("algorithm.gamma", self.gamma.into())?;
        fraction("algorithm.tau", self.tau.into())?;
        at_least_1("algorithm.replay_capacity", self.replay_capacity)?;
        at_least_1("algorithm.replay_batch", self.replay_batch)?;
        check(
            "algorithm.learning_starts",
            &self.learning_starts,
            self.learning_starts <= self.replay_capacity,
            "must not exceed algorithm.replay_capacity",
        )?;
        positive("algorithm.updates_per_step", self.updates_per_step)?;
        check(
            "algorithm.critic_hidden",
            &format!("{:?}", self.critic_hidden),
            self.critic_hidden.iter().all(|&n| n > 0),
            "must hold widths of at least 1",
        )?;
        positive("algorithm.critic_learning_rate", self.critic_learning_rate)?;
        positive("algorithm.initial_alpha", self.initial_alpha.into())?;
        not_negative("algorithm.alpha_learning_rate", self.alpha_learning_rate)?;
        positive("algorithm.target_entropy_scale", self.target_entropy_scale.into())?;
        positive("algorithm.reward_scale", self.reward_scale.into())
    }
}
