//! IMPALA: importance-weighted actor-learner with V-trace (Espeholt et al. 2018,
//! <https://arxiv.org/abs/1802.01561>).
//!
//! Actors run ahead of the learner, so that experience comes from an older behaviour policy `mu`. V-trace
//! corrects for that: with `rho = pi(a|x) / mu(a|x)` it gives value targets `vs` and advantages `A`, both taken as
//! constants, and the loss is
//!
//! ```text
//! policy  = sum(-A log pi(a|x))
//! value   = sum(0.5 (vs - V(x))^2)
//! loss    = policy + baseline_cost * value - entropy_cost * sum(H(pi(.|x)))
//! ```
//!
//! over `[T, B]`, or the mean. The batch comes from the intake; the new weights go out with the next
//! snapshot.

use candle_core::Tensor;
use impresario_common::config::{ImpalaConfig, RunConfig};
use impresario_common::kernels::{self, with_slice};

use super::objective::{ActorCriticWeights, Objective};
use super::rewards::RewardRule;
use super::{Algorithm, Metrics, Progress, TargetPolicy, TrainError, UpdateReport, diagnostics, one_step};
use crate::batch::Batch;
use crate::returns::{VTraceParams, vtrace_batch};
use crate::schedule::Scheduled;

/// The method, with buffers that serve every update. All are `[T, B]`.
#[derive(Debug)]
pub struct Impala {
    config: ImpalaConfig,
    entropy_cost: Scheduled,
    log_rhos: Vec<f32>,
    rhos: Vec<f32>,
    rewards: Vec<f32>,
    discounts: Vec<f32>,
    vs: Vec<f32>,
    pg_advantages: Vec<f32>,
}

impl Impala {
    /// The method with the given knobs, in `run`.
    pub fn new(config: &ImpalaConfig, run: &RunConfig) -> Self {
        let (start, end) = (config.entropy_cost.into(), config.final_entropy_cost.into());
        Self {
            config: config.clone(),
            entropy_cost: Scheduled::between(start, end, config.entropy_schedule, run.run.steps),
            log_rhos: vec![],
            rhos: vec![],
            rewards: vec![],
            discounts: vec![],
            vs: vec![],
            pg_advantages: vec![],
        }
    }
}

impl Algorithm for Impala {
    fn name(&self) -> &'static str {
        "impala"
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

impl Impala {
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
        // One pass over all rows: the steps [T, B], the bootstrap row [B], the final observations [K].
        let output = target.forward(batch)?;
        let log_prob_entropy = target.log_prob_entropy(&output, batch)?;
        let values = target.values(&output)?;
        with_slice(&log_prob_entropy, |rows: &[f32]| self.correct(batch, rows, &values))?;
        let scale = target.absorb_values(&self.vs, metrics)?;
        scale.normalize_differences(&mut self.pg_advantages);
        let weights = ActorCriticWeights {
            baseline_cost: self.config.baseline_cost,
            entropy_cost: self.entropy_cost.at(progress.env_steps) as f32,
            reduction: self.config.loss_reduction,
            value_deviation: scale.deviation,
        };
        let objective =
            with_slice(&log_prob_entropy, |rows: &[f32]| self.objective(rows, &values, weights, metrics))?;
        Ok((objective.loss, objective.into_tensor(&log_prob_entropy, &output.values)?))
    }

    /// Value targets and advantages by V-trace, into the buffers. Nothing here has a gradient.
    fn correct(&mut self, batch: &Batch, log_prob_entropy: &[f32], values: &[f32]) {
        let (t_len, columns, steps) = (batch.length, batch.columns, batch.steps());
        let (values, final_values) = values.split_at(steps + columns);
        let config = &self.config;

        let rule = RewardRule { gamma: config.gamma, scale: config.reward_scale, clip: config.reward_clip };
        rule.apply(batch, final_values, &mut self.rewards, &mut self.discounts);

        let target_log_probs = log_prob_entropy.chunks_exact(2).map(|row| row[0]);
        self.log_rhos.clear();
        self.log_rhos.extend(target_log_probs.zip(&batch.behaviour_log_probs).map(|(pi, mu)| pi - mu));

        self.vs.resize(steps, 0.0);
        self.pg_advantages.resize(steps, 0.0);
        let params = VTraceParams {
            lambda: config.lambda,
            clip_rho: config.clip_rho,
            clip_pg_rho: config.clip_pg_rho,
            clip_c: config.clip_c,
        };
        vtrace_batch(
            t_len,
            columns,
            &self.log_rhos,
            &self.discounts,
            &self.rewards,
            values,
            &params,
            &mut self.vs,
            &mut self.pg_advantages,
        );
    }

    /// The loss with the targets and advantages in the buffers.
    fn objective(
        &mut self,
        log_prob_entropy: &[f32],
        values: &[f32],
        weights: ActorCriticWeights,
        metrics: &mut Metrics,
    ) -> Objective {
        let (advantages, vs) = (&self.pg_advantages, &self.vs);
        let objective = Objective::actor_critic(log_prob_entropy, values, advantages, vs, weights, metrics);
        self.rhos.clone_from(&self.log_rhos);
        kernels::exp(&mut self.rhos);
        diagnostics::importance_weights(metrics, &self.log_rhos, &self.rhos, self.config.clip_rho);
        objective
    }
}

#[cfg(test)]
mod tests;
