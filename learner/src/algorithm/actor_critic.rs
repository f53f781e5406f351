//! Advantage actor-critic: A2C and A3C (Mnih et al. 2016, <https://arxiv.org/abs/1602.01783>).
//!
//! The n-step return to the end of the unroll, bootstrapped with the value of what follows, is the target `R` of
//! the value estimates; what it exceeds them by is the advantage `A` (with `lambda` below 1, generalised advantage
//! estimation: Schulman et al. 2015, <https://arxiv.org/abs/1506.02438>). Both are constants in the loss
//!
//! ```text
//! policy  = sum(-A log pi(a|x))
//! value   = sum(0.5 (R - V(x))^2)
//! loss    = policy + baseline_cost * value - entropy_cost * sum(H(pi(.|x)))
//! ```
//!
//! over `[T, B]`, or the mean. The two methods differ in pacing alone, which is the learner's business: A2C runs
//! in lockstep, so that the policy that acted is the one being learned; A3C takes each unroll as it comes, and
//! nothing corrects for the age of the policy that acted (`impala` does).

use candle_core::Tensor;
use impresario_common::config::{ActorCriticConfig, RunConfig};
use impresario_common::kernels::{self, with_slice};

use super::advantages::Advantages;
use super::objective::{ActorCriticWeights, Objective};
use super::rewards::RewardRule;
use super::{Algorithm, Metrics, Progress, TargetPolicy, TrainError, UpdateReport, diagnostics, one_step};
use crate::batch::Batch;
use crate::returns::normalize;
use crate::schedule::Scheduled;

/// The method, with buffers that serve every update. All are `[T, B]`.
#[derive(Debug)]
pub struct ActorCritic {
    name: &'static str,
    config: ActorCriticConfig,
    entropy_cost: Scheduled,
    estimates: Advantages,
    log_rhos: Vec<f32>,
    rhos: Vec<f32>,
}

impl ActorCritic {
    /// The method with the given knobs, called `name`, in `run`.
    pub fn new(name: &'static str, config: &ActorCriticConfig, run: &RunConfig) -> Self {
        let (start, end) = (config.entropy_cost.into(), config.final_entropy_cost.into());
        Self {
            name,
            config: config.clone(),
            entropy_cost: Scheduled::between(start, end, config.entropy_schedule, run.run.steps),
            estimates: Advantages::default(),
            log_rhos: vec![],
            rhos: vec![],
        }
    }

    /// The loss of `target` on `batch`, as a number and in the graph of the parameters.
    ///
    /// # Errors
    /// If the batch does not fit the policy.
    pub fn loss(
        &mut self,
        target: &TargetPolicy,
        batch: &Batch,
        progress: Progress,
        metrics: &mut Metrics,
    ) -> Result<(f64, Tensor), TrainError> {
        let output = target.forward(batch)?;
        let log_prob_entropy = target.log_prob_entropy(&output, batch)?;
        let values = target.values(&output)?;
        self.estimate(batch, &values);
        let scale = target.absorb_values(&self.estimates.returns, metrics)?;
        scale.normalize_differences(&mut self.estimates.advantages);
        if self.config.normalize_advantages {
            normalize(&mut self.estimates.advantages);
        }
        let weights = ActorCriticWeights {
            baseline_cost: self.config.baseline_cost,
            entropy_cost: self.entropy_cost.at(progress.env_steps) as f32,
            reduction: self.config.loss_reduction,
            value_deviation: scale.deviation,
        };
        let objective = with_slice(&log_prob_entropy, |rows: &[f32]| {
            self.compare(batch, rows, metrics);
            let Advantages { advantages, returns, .. } = &self.estimates;
            Objective::actor_critic(rows, &values, advantages, returns, weights, metrics)
        })?;
        Ok((objective.loss, objective.into_tensor(&log_prob_entropy, &output.values)?))
    }

    /// Advantages and returns, into the buffers.
    fn estimate(&mut self, batch: &Batch, values: &[f32]) {
        let config = &self.config;
        let rule = RewardRule { gamma: config.gamma, scale: config.reward_scale, clip: config.reward_clip };
        self.estimates.estimate(batch, values, &rule, config.lambda);
    }

    /// How far the policy that acted is from the one being learned.
    fn compare(&mut self, batch: &Batch, log_prob_entropy: &[f32], metrics: &mut Metrics) {
        let log_probs = log_prob_entropy.chunks_exact(2).map(|row| row[0]);
        self.log_rhos.clear();
        self.log_rhos.extend(log_probs.zip(&batch.behaviour_log_probs).map(|(pi, mu)| pi - mu));
        self.rhos.clone_from(&self.log_rhos);
        kernels::exp(&mut self.rhos);
        diagnostics::importance_weights(metrics, &self.log_rhos, &self.rhos, 1.0);
    }
}

impl Algorithm for ActorCritic {
    fn name(&self) -> &'static str {
        self.name
    }

    fn update(
        &mut self,
        target: &mut TargetPolicy,
        batch: &Batch,
        progress: Progress,
    ) -> Result<UpdateReport, TrainError> {
        one_step(target, progress, |target, metrics| self.loss(target, batch, progress, metrics).map(Some))
    }
}
