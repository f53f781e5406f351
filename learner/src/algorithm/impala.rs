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

use impresario_common::config::{ImpalaConfig, LossReduction};
use impresario_common::kernels::{self, with_slice};

use super::objective::Objective;
use super::rewards::RewardRule;
use super::{
    Algorithm, Metrics, Outcome, Progress, SkipReason, TargetPolicy, TrainError, UpdateReport, diagnostics,
};
use crate::batch::Batch;
use crate::optimizer::Step;
use crate::returns::{VTraceParams, explained_variance, vtrace_batch};

/// The method, with buffers that serve every update. All are `[T, B]`.
#[derive(Debug)]
pub struct Impala {
    config: ImpalaConfig,
    log_rhos: Vec<f32>,
    rhos: Vec<f32>,
    rewards: Vec<f32>,
    discounts: Vec<f32>,
    vs: Vec<f32>,
    pg_advantages: Vec<f32>,
}

impl Impala {
    /// The method with the given knobs.
    pub fn new(config: &ImpalaConfig) -> Self {
        Self {
            config: config.clone(),
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
        // One pass over all rows: the steps [T, B], the bootstrap row [B], the final observations [K].
        let output = target.forward(batch)?;
        let log_prob_entropy = target.log_prob_entropy(&output, batch)?;

        let mut metrics = Metrics::default();
        let objective = with_slice(&log_prob_entropy, |log_prob_entropy: &[f32]| {
            with_slice(&output.values, |values: &[f32]| {
                self.correct(batch, log_prob_entropy, values);
                self.objective(log_prob_entropy, values, &mut metrics)
            })
        })??;
        let loss = objective.loss;
        if !(loss as f32).is_finite() {
            return Ok(UpdateReport {
                outcome: Outcome::Skipped { reason: SkipReason::Loss(loss) },
                metrics,
            });
        }

        let loss = objective.into_tensor(&log_prob_entropy, &output.values)?;
        let step = target.minimise(&loss, progress)?;
        let (Step::Applied { grad_norm } | Step::Refused { grad_norm }) = step;
        metrics.push("grad_norm", grad_norm);
        metrics.push("learning_rate", target.learning_rate(progress));
        Ok(UpdateReport { outcome: step.into(), metrics })
    }
}

impl Impala {
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

    /// The loss and its gradient with respect to every row's log-probability, entropy and value, of which
    /// only the rows of steps have one.
    fn objective(&mut self, log_prob_entropy: &[f32], values: &[f32], metrics: &mut Metrics) -> Objective {
        let steps = self.vs.len();
        let config = &self.config;
        let weight = match config.loss_reduction {
            LossReduction::Sum => 1.0,
            LossReduction::Mean => 1.0 / steps as f32,
        };
        let mut d_log_prob_entropy = vec![0.0; log_prob_entropy.len()];
        let mut d_values = vec![0.0; values.len()];
        let (mut policy_loss, mut value_loss, mut entropy, mut value) = (0f64, 0f64, 0f64, 0f64);
        let rows = log_prob_entropy.chunks_exact(2).zip(values);
        let targets = self.vs.iter().zip(&self.pg_advantages);
        let gradients = d_log_prob_entropy.chunks_exact_mut(2).zip(&mut d_values);
        for (((row, &v), (&vs, &advantage)), (d_row, d_v)) in rows.zip(targets).zip(gradients) {
            let (log_prob, h) = (row[0], row[1]);
            policy_loss -= f64::from(advantage) * f64::from(log_prob);
            value_loss += 0.5 * f64::from(vs - v).powi(2);
            entropy += f64::from(h);
            value += f64::from(v);
            d_row[0] = -weight * advantage;
            d_row[1] = -weight * config.entropy_cost;
            *d_v = weight * config.baseline_cost * (v - vs);
        }

        let weight = f64::from(weight);
        let entropy_loss = -f64::from(config.entropy_cost) * weight * entropy;
        let loss =
            weight * policy_loss + f64::from(config.baseline_cost) * weight * value_loss + entropy_loss;
        metrics.push("loss", loss);
        metrics.push("policy_loss", weight * policy_loss);
        metrics.push("value_loss", weight * value_loss);
        metrics.push("entropy_loss", entropy_loss);
        metrics.push("entropy", entropy / steps as f64);
        metrics.push("mean_value", value / steps as f64);
        metrics.push("explained_variance", explained_variance(&values[..steps], &self.vs).into());
        self.rhos.clone_from(&self.log_rhos);
        kernels::exp(&mut self.rhos);
        diagnostics::importance_weights(metrics, &self.log_rhos, &self.rhos, config.clip_rho);
        Objective { loss, d_log_prob_entropy, d_values }
    }
}
