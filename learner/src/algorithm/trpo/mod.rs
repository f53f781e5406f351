//! TRPO: trust region policy optimisation (Schulman et al. 2015, <https://arxiv.org/abs/1502.05477>).
//!
//! In lockstep, an update maximises the surrogate `L = mean(pi(a|x) / pi_old(a|x) A)`, with advantages `A` by GAE, as
//! long as the mean divergence `KL(pi_old, pi)` stays within `max_kl`:
//!
//! ```text
//! g    = dL / d theta
//! x    = F^-1 g                       by conjugate gradients; F is the Fisher matrix, the divergence's curvature
//! step = sqrt(2 max_kl / (x F x)) x   then shorter ones, until L has risen and the divergence keeps its bound
//! ```
//!
//! The value estimates follow the returns by ordinary steps of the optimiser. They share no layer with the policy,
//! which they would move out of its trust region.
//!
//! # Layout
//!
//! * [`fisher`]: products with the Fisher matrix. * [`conjugate_gradient`]: the linear system.
//! * here: the update.

pub mod conjugate_gradient;
pub mod fisher;

use candle_core::Tensor;
use impresario_common::config::{RunConfig, TrpoConfig};
use impresario_common::kernels::{self, update_in_place, with_slice};
use impresario_common::policy::value_scale::ValueScale;
use impresario_common::policy::{PolicyError, Weights};

use super::advantages::Advantages;
use super::objective::known_gradient;
use super::rewards::RewardRule;
use super::{
    Algorithm, Metrics, Outcome, Progress, SkipReason, TargetPolicy, TrainError, UpdateReport, diagnostics,
};
use crate::batch::Batch;
use crate::optimizer::Step;
use crate::returns::{explained_variance, normalize};
use conjugate_gradient::solve;
use fisher::{Fisher, flat_gradient};

/// The method, with buffers that serve every update.
#[derive(Debug)]
pub struct Trpo {
    config: TrpoConfig,
    estimates: Advantages,
}

/// What the policy says of the steps of a batch.
struct Judgement {
    /// `[steps, P]`.
    params: Vec<f32>,
    /// `[steps]`: `ln pi(a|x) - ln pi_old(a|x)`, `pi_old` being the policy that acted.
    log_ratios: Vec<f32>,
    /// Mean entropy in nats.
    entropy: f64,
    /// Mean of the ratio times the advantage.
    surrogate: f64,
}

impl Trpo {
    /// The method with the given knobs.
    ///
    /// # Errors
    /// If the value estimate shares layers with the policy.
    pub fn new(run: &RunConfig, config: &TrpoConfig) -> Result<Self, TrainError> {
        if run.policy.shared_encoder {
            let message = "trpo bounds each step of the policy, which a value estimate that shares its layers would \
                           break: set policy.shared_encoder = false";
            return Err(PolicyError::Space(message.into()).into());
        }
        Ok(Self { config: config.clone(), estimates: Advantages::default() })
    }

    /// Judges the policy as it is now; also its distribution and the log-probabilities in the graph.
    fn judge(&self, target: &TargetPolicy, batch: &Batch) -> Result<(Judgement, Tensor, Tensor), TrainError> {
        let steps = batch.steps();
        let output = target.forward(batch)?;
        let log_prob_entropy = target.log_prob_entropy(&output, batch)?;
        let width = target.action_distribution().parameter_count();
        let params =
            with_slice(&output.distribution.contiguous()?, |rows: &[f32]| rows[..steps * width].to_vec())?;
        let judgement = with_slice(&log_prob_entropy, |rows: &[f32]| {
            let rows = rows[..2 * steps].chunks_exact(2);
            let log_ratios: Vec<f32> =
                rows.clone().zip(&batch.behaviour_log_probs).map(|(row, mu)| row[0] - mu).collect();
            let entropy = rows.map(|row| f64::from(row[1])).sum::<f64>() / steps as f64;
            let gains = log_ratios.iter().zip(&self.estimates.advantages);
            let surrogate = gains.map(|(ratio, a)| f64::from(ratio.exp() * a)).sum::<f64>() / steps as f64;
            Judgement { params, log_ratios, entropy, surrogate }
        })?;
        Ok((judgement, output.distribution, log_prob_entropy))
    }

    /// Mean divergence of the policy as `after` judges it from what it was `before`, in nats.
    fn divergence(&self, target: &TargetPolicy, before: &Judgement, after: &Judgement) -> f64 {
        let distribution = target.action_distribution();
        let width = distribution.parameter_count();
        let rows = before.params.chunks_exact(width).zip(after.params.chunks_exact(width));
        let sum = rows.map(|(before, after)| f64::from(distribution.kl(before, after))).sum::<f64>();
        sum / before.log_ratios.len() as f64
    }

    /// Moves the policy; `None` if it could not be moved for a number that is not finite.
    fn improve_policy(
        &self,
        target: &TargetPolicy,
        batch: &Batch,
        metrics: &mut Metrics,
    ) -> Result<Option<SkipReason>, TrainError> {
        let (before, params, log_prob_entropy) = self.judge(target, batch)?;
        if !before.surrogate.is_finite() {
            return Ok(Some(SkipReason::Loss(before.surrogate)));
        }
        let mut d_log_prob_entropy = vec![0.0; log_prob_entropy.elem_count()];
        let steps = batch.steps() as f32;
        let gains = before.log_ratios.iter().zip(&self.estimates.advantages);
        for (row, (ratio, advantage)) in d_log_prob_entropy.chunks_exact_mut(2).zip(gains) {
            row[0] = ratio.exp() * advantage / steps;
        }
        let surrogate = known_gradient(before.surrogate, &log_prob_entropy, d_log_prob_entropy)?;
        let gradient = flat_gradient(&surrogate, target.parameters())?;
        let grad_norm = dot(&gradient, &gradient).sqrt();
        if !grad_norm.is_finite() {
            return Ok(Some(SkipReason::Gradient(grad_norm)));
        }
        metrics.push("grad_norm", grad_norm);

        let weights = target.parameters().copied()?;
        let fisher = Fisher::new(target, batch, &params, &weights, self.config.cg_damping)?;
        let solution = solve(&gradient, self.config.cg_iterations, |v| fisher.product(v))?;
        let curvature = dot(&solution.x, &fisher.product(&solution.x)?);
        metrics.push("cg_residual", solution.residual);
        if !curvature.is_finite() {
            return Ok(Some(SkipReason::Gradient(curvature)));
        }
        let longest = if curvature > 0.0 { (2.0 * self.config.max_kl / curvature).sqrt() } else { 0.0 };
        let mut step = longest;
        let mut accepted = None;
        let mut tries = 0;
        while longest > 0.0 && accepted.is_none() && tries < self.config.line_search_steps {
            tries += 1;
            move_from(target, &weights, &solution.x, step)?;
            let (after, ..) = self.judge(target, batch)?;
            let divergence = self.divergence(target, &before, &after);
            if divergence <= self.config.max_kl && after.surrogate > before.surrogate {
                accepted = Some((after, divergence));
            } else {
                step *= self.config.line_search_decay;
            }
        }
        metrics.push("line_search_steps", tries as f64);
        if accepted.is_none() {
            target.parameters().load(&weights)?;
        }
        let (after, divergence, step) = match accepted {
            Some((after, divergence)) => (after, divergence, step),
            None => (before, 0.0, 0.0),
        };
        metrics.push("step_size", step);
        metrics.push("kl", divergence);
        metrics.push("entropy", after.entropy);
        metrics.push("policy_loss", -after.surrogate);
        let mut rhos = after.log_ratios.clone();
        kernels::exp(&mut rhos);
        diagnostics::importance_weights(metrics, &after.log_ratios, &rhos, 1.0);
        Ok(None)
    }

    /// Lets the value estimates follow the returns, both on `scale`; says why if a step was refused.
    fn fit_values(
        &self,
        target: &mut TargetPolicy,
        batch: &Batch,
        scale: ValueScale,
        progress: Progress,
        metrics: &mut Metrics,
    ) -> Result<Option<SkipReason>, TrainError> {
        let steps = batch.steps();
        for step in 0..self.config.value_steps {
            let values = target.forward(batch)?.values;
            let (loss, gradient, mean, explained) = with_slice(&values, |values: &[f32]| {
                let mut gradient = vec![0.0; values.len()];
                let (mut loss, mut sum) = (0.0, 0.0);
                for ((d, value), target) in gradient.iter_mut().zip(values).zip(&self.estimates.returns) {
                    loss += 0.5 * f64::from(value - target).powi(2) / steps as f64;
                    sum += f64::from(*value);
                    *d = (value - target) / steps as f32;
                }
                (
                    loss,
                    gradient,
                    sum / steps as f64,
                    explained_variance(&values[..steps], &self.estimates.returns),
                )
            })?;
            if step == 0 {
                metrics.push("value_loss", loss);
                metrics.push("mean_value", mean * f64::from(scale.deviation) + f64::from(scale.mean));
                metrics.push("explained_variance", explained.into());
            }
            if !(loss as f32).is_finite() {
                return Ok(Some(SkipReason::Loss(loss)));
            }
            let objective = known_gradient(loss, &values, gradient)?;
            if let Step::Refused { grad_norm } = target.minimise(&objective, progress)? {
                return Ok(Some(SkipReason::Gradient(grad_norm)));
            }
        }
        Ok(None)
    }
}

/// Makes the parameters `weights + step * direction`.
fn move_from(
    target: &TargetPolicy,
    weights: &Weights,
    direction: &[f32],
    step: f64,
) -> Result<(), TrainError> {
    let mut start = 0;
    for ((_, var), (_, from)) in target.parameters().iter().zip(&weights.0) {
        let part = &direction[start..start + var.elem_count()];
        start += part.len();
        with_slice(from, |from: &[f32]| {
            update_in_place(var, |to| {
                for ((to, from), along) in to.iter_mut().zip(from).zip(part) {
                    *to = (f64::from(*from) + step * f64::from(*along)) as f32;
                }
            })
        })??;
    }
    Ok(())
}

/// The inner product of two flat vectors.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

impl Algorithm for Trpo {
    fn name(&self) -> &'static str {
        "trpo"
    }

    fn update(
        &mut self,
        target: &mut TargetPolicy,
        batch: &Batch,
        progress: Progress,
    ) -> Result<UpdateReport, TrainError> {
        let mut metrics = Metrics::default();
        let values = target.values(&target.forward(batch)?)?;
        let config = &self.config;
        let rule = RewardRule { gamma: config.gamma, scale: config.reward_scale, clip: config.reward_clip };
        self.estimates.estimate(batch, &values, &rule, config.lambda);
        let saved = target.save()?;
        let scale = target.absorb_values(&self.estimates.returns, &mut metrics)?;
        scale.normalize(&mut self.estimates.returns);
        scale.normalize_differences(&mut self.estimates.advantages);
        if config.normalize_advantages {
            normalize(&mut self.estimates.advantages);
        }
        let mut problem = self.improve_policy(target, batch, &mut metrics)?;
        if problem.is_none() {
            problem = self.fit_values(target, batch, scale, progress, &mut metrics)?;
        }
        if let Some(reason) = problem {
            target.go_back(&saved)?;
            return Ok(UpdateReport { outcome: Outcome::Skipped { reason }, metrics });
        }
        let loss =
            metrics.get("policy_loss").zip(metrics.get("value_loss")).map(|(policy, value)| policy + value);
        metrics.push("loss", loss.unwrap_or(f32::NAN).into());
        metrics.push("learning_rate", target.learning_rate(progress));
        Ok(UpdateReport { outcome: Outcome::Applied, metrics })
    }
}

#[cfg(test)]
mod tests;
