//! REINFORCE (Williams 1992, <https://doi.org/10.1007/BF00992696>): the Monte Carlo policy gradient, in lockstep.
//!
//! With the return `G` from a step to its episode's end and, where there is a baseline, the value estimate
//! `V(x)` of its state, both constants in the policy's part of the loss,
//!
//! ```text
//! policy  = mean(-(G - V(x)) log pi(a|x))        without a baseline: mean(-G log pi(a|x))
//! value   = mean(0.5 (G - V(x))^2)
//! loss    = policy + baseline_cost * value - entropy_cost * mean(H(pi(.|x)))
//! ```
//!
//! over the steps whose episode ends within the unroll: only their returns are known. The steps behind each
//! column's last end are left out, and `unfinished_fraction` tells how many those are. An unroll at least as
//! long as the environment's longest episode holds an end in every column.
//!
//! An episode that was cut (truncated) goes on with the value of its final observation; without a baseline
//! nothing is known of it, and its return is what was seen. The discount counts from the step itself, as is
//! usual: the factor `gamma^t` that the theory asks for is left out.

use candle_core::Tensor;
use impresario_common::config::{ReinforceConfig, RunConfig};
use impresario_common::kernels::with_slice;
use impresario_common::policy::value_scale::ValueScale;
use impresario_common::space::EnvironmentSpec;

use super::objective::Objective;
use super::rewards::RewardRule;
use super::{Algorithm, Metrics, Progress, TargetPolicy, TrainError, UpdateReport, one_step};
use crate::batch::Batch;
use crate::returns::{explained_variance, gae_batch, normalize};
use crate::schedule::Scheduled;

/// The method, with buffers that serve every update.
#[derive(Debug)]
pub struct Reinforce {
    config: ReinforceConfig,
    entropy_cost: Scheduled,
    /// `[T, B]`.
    rewards: Vec<f32>,
    /// `[T, B]`.
    discounts: Vec<f32>,
    /// `[T, B]`: discounted sums of rewards, to the end of the episode or of the unroll.
    returns: Vec<f32>,
    /// The steps `t * B + b` whose episodes end within the unroll.
    finished: Vec<usize>,
    /// Of each finished step: what multiplies its log-probability.
    weights: Vec<f32>,
}

impl Reinforce {
    /// The method with the given knobs, in `run`.
    pub fn new(config: &ReinforceConfig, run: &RunConfig) -> Self {
        let (start, end) = (config.entropy_cost.into(), config.final_entropy_cost.into());
        Self {
            config: config.clone(),
            entropy_cost: Scheduled::between(start, end, config.entropy_schedule, run.run.steps),
            rewards: vec![],
            discounts: vec![],
            returns: vec![],
            finished: vec![],
            weights: vec![],
        }
    }

    /// Says so where `run` cuts experience into pieces that are shorter than episodes in `environment` may be.
    pub(super) fn warn_of_short_unrolls(run: &RunConfig, environment: &EnvironmentSpec) {
        let length = run.rollout.unroll_length;
        if let Some(longest) =
            environment.max_episode_steps.filter(|longest| (length as u64) < u64::from(*longest))
        {
            tracing::warn!(
                "rollout.unroll_length is {length}, but an episode of {} may take {longest} steps: reinforce learns \
                 only from steps whose episode ends within the unroll. Set rollout.unroll_length={longest} or more, or see \
                 unfinished_fraction for what is left out",
                environment.id
            );
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
        self.sum(batch, &values);
        let of_finished: Vec<f32> = self.finished.iter().map(|step| self.returns[*step]).collect();
        let scale = match self.config.baseline {
            true => target.absorb_values(&of_finished, metrics)?,
            false => ValueScale::IDENTITY,
        };
        self.weigh(&values, scale);
        let objective = with_slice(&log_prob_entropy, |rows: &[f32]| {
            self.objective(rows, &values, scale, progress, metrics)
        })?;
        metrics.push("unfinished_fraction", 1.0 - self.finished.len() as f64 / batch.steps() as f64);
        Ok((objective.loss, objective.into_tensor(&log_prob_entropy, &output.values)?))
    }

    /// Returns and the steps whose returns are known, into the buffers.
    fn sum(&mut self, batch: &Batch, values: &[f32]) {
        let (steps, columns) = (batch.steps(), batch.columns);
        let final_values = &values[steps + columns..];
        let config = &self.config;
        let rule = RewardRule { gamma: config.gamma, scale: config.reward_scale, clip: config.reward_clip };
        // No final values, no bootstrap.
        let final_values = if config.baseline { final_values } else { &[] };
        rule.apply(batch, final_values, &mut self.rewards, &mut self.discounts);

        // Without values a temporal difference is a reward, and their discounted sum the return.
        self.returns.resize(steps, 0.0);
        let nothing = vec![0.0; steps + columns];
        let (rewards, discounts) = (&self.rewards, &self.discounts);
        gae_batch(batch.length, columns, discounts, rewards, &nothing, 1.0, &mut self.returns);

        let mut ends_later = vec![false; columns];
        self.finished.clear();
        for step in (0..steps).rev() {
            ends_later[step % columns] |= batch.terminated[step] | batch.truncated[step] == 1;
            if ends_later[step % columns] {
                self.finished.push(step);
            }
        }
        self.finished.reverse();
    }

    /// What the log-probabilities are multiplied by, into the buffer.
    fn weigh(&mut self, values: &[f32], scale: ValueScale) {
        let config = &self.config;
        self.weights.clear();
        self.weights.extend(self.finished.iter().map(|&step| match config.baseline {
            true => self.returns[step] - values[step],
            false => self.returns[step],
        }));
        scale.normalize_differences(&mut self.weights);
        if config.normalize_advantages {
            normalize(&mut self.weights);
        }
    }

    /// The loss with the returns and weights in the buffers. Rows of other steps have no gradient.
    fn objective(
        &self,
        log_prob_entropy: &[f32],
        values: &[f32],
        scale: ValueScale,
        progress: Progress,
        metrics: &mut Metrics,
    ) -> Objective {
        let config = &self.config;
        let entropy_cost = self.entropy_cost.at(progress.env_steps) as f32;
        let count = self.finished.len().max(1) as f32;
        let baseline_cost = if config.baseline { config.baseline_cost } else { 0.0 };
        let mut d_log_prob_entropy = vec![0.0; log_prob_entropy.len()];
        let mut d_values = vec![0.0; values.len()];
        let (mut policy_loss, mut value_loss, mut entropy) = (0f64, 0f64, 0f64);
        for (&step, &weight) in self.finished.iter().zip(&self.weights) {
            let error = (values[step] - self.returns[step]) / scale.deviation;
            policy_loss -= f64::from(weight) * f64::from(log_prob_entropy[2 * step]);
            value_loss += 0.5 * f64::from(error).powi(2);
            entropy += f64::from(log_prob_entropy[2 * step + 1]);
            d_log_prob_entropy[2 * step] = -weight / count;
            d_log_prob_entropy[2 * step + 1] = -entropy_cost / count;
            d_values[step] = baseline_cost * error / count;
        }
        let count = f64::from(count);
        let entropy_loss = -f64::from(entropy_cost) * entropy / count;
        let mut loss = policy_loss / count + entropy_loss;
        metrics.push("policy_loss", policy_loss / count);
        metrics.push("entropy_loss", entropy_loss);
        metrics.push("entropy_cost", entropy_cost.into());
        metrics.push("entropy", entropy / count);
        if config.baseline {
            loss += f64::from(baseline_cost) * value_loss / count;
            metrics.push("value_loss", value_loss / count);
            let of_finished =
                |numbers: &[f32]| self.finished.iter().map(|step| numbers[*step]).collect::<Vec<_>>();
            let (values, returns) = (of_finished(values), of_finished(&self.returns));
            metrics.push("mean_value", values.iter().copied().map(f64::from).sum::<f64>() / count);
            metrics.push("explained_variance", explained_variance(&values, &returns).into());
        }
        metrics.push("loss", loss);
        Objective { loss, d_log_prob_entropy, d_values }
    }
}

impl Algorithm for Reinforce {
    fn name(&self) -> &'static str {
        "reinforce"
    }

    fn update(
        &mut self,
        target: &mut TargetPolicy,
        batch: &Batch,
        progress: Progress,
    ) -> Result<UpdateReport, TrainError> {
        one_step(target, progress, |target, metrics| {
            let loss = self.loss(target, batch, progress, metrics)?;
            // Where nothing is known of any step, the next version is the same policy.
            Ok((!self.finished.is_empty()).then_some(loss))
        })
    }
}

#[cfg(test)]
mod tests;
