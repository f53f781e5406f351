//! APPO: asynchronous PPO (Petrenko et al. 2020, <https://arxiv.org/abs/2006.11751>, section 3.4; RLlib's method
//! of that name).
//!
//! Actors run ahead of the learner, as in IMPALA, so that experience comes from an older behaviour policy
//! `mu`. V-trace, under the parameters before the update, corrects the value targets `vs`; the advantages
//!
//! ```text
//! A[t] = r[t] + discount[t] * (lambda * vs[t+1] + (1 - lambda) * V(x[t+1])) - V(x[t])
//! ```
//!
//! are those of V-trace without its weight `min(clip_pg_rho, rho)`: the surrogate's ratio `pi / mu` is that
//! weight, and its clip around the policy that acted takes the place of the truncation. The clipped surrogate
//! ([`super::surrogate`]) is then climbed over one or more passes.

use impresario_common::config::{AppoConfig, RunConfig};
use impresario_common::kernels::with_slice;
use rand::seq::SliceRandom;

use super::rewards::RewardRule;
use super::surrogate::{ClippedSurrogate, Goals, dealer};
use super::{Algorithm, Metrics, Progress, TargetPolicy, TrainError, UpdateReport};
use crate::batch::Batch;
use crate::returns::{VTraceParams, explained_variance, vtrace_batch};

/// The method, with buffers that serve every update. All are `[T, B]`.
#[derive(Debug)]
pub struct Appo {
    rule: RewardRule,
    params: VTraceParams,
    surrogate: ClippedSurrogate,
    seed: u64,
    log_rhos: Vec<f32>,
    rewards: Vec<f32>,
    discounts: Vec<f32>,
    values: Vec<f32>,
    vs: Vec<f32>,
    advantages: Vec<f32>,
}

impl Appo {
    /// The method with the given knobs, in `run`.
    pub fn new(config: &AppoConfig, run: &RunConfig) -> Self {
        Self {
            rule: RewardRule { gamma: config.gamma, scale: config.reward_scale, clip: config.reward_clip },
            params: VTraceParams {
                lambda: config.lambda,
                clip_rho: config.clip_rho,
                clip_pg_rho: 1.0,
                clip_c: config.clip_c,
            },
            surrogate: ClippedSurrogate::of_appo(config, run),
            seed: run.run.seed,
            log_rhos: vec![],
            rewards: vec![],
            discounts: vec![],
            values: vec![],
            vs: vec![],
            advantages: vec![],
        }
    }

    /// An update whose minibatches are dealt in the order that `shuffle` makes: see [`ClippedSurrogate::climb`].
    ///
    /// # Errors
    /// If the batch does not fit the policy.
    pub fn update_in_order(
        &mut self,
        target: &mut TargetPolicy,
        batch: &Batch,
        progress: Progress,
        shuffle: &mut dyn FnMut(&mut [usize]),
    ) -> Result<UpdateReport, TrainError> {
        let output = target.forward(batch)?;
        let log_prob_entropy = target.log_prob_entropy(&output, batch)?;
        let values = target.values(&output)?;
        with_slice(&log_prob_entropy, |rows: &[f32]| self.correct(batch, rows, &values))?;
        let (values, targets) = (&self.values, &self.vs);
        let mut metrics = Metrics::default();
        metrics.push("mean_value", values.iter().copied().map(f64::from).sum::<f64>() / values.len() as f64);
        metrics.push("explained_variance", explained_variance(values, targets).into());
        let goals = Goals { values, advantages: &self.advantages, targets };
        self.surrogate.climb(target, batch, &goals, progress, metrics, shuffle)
    }

    /// Value targets and advantages, into the buffers.
    fn correct(&mut self, batch: &Batch, log_prob_entropy: &[f32], values: &[f32]) {
        let (steps, columns) = (batch.steps(), batch.columns);
        let (values, final_values) = values.split_at(steps + columns);
        self.rule.apply(batch, final_values, &mut self.rewards, &mut self.discounts);
        let log_probs = log_prob_entropy.chunks_exact(2).map(|row| row[0]);
        self.log_rhos.clear();
        self.log_rhos.extend(log_probs.zip(&batch.behaviour_log_probs).map(|(pi, mu)| pi - mu));
        self.vs.resize(steps, 0.0);
        self.advantages.resize(steps, 0.0);
        let (vs, advantages) = (&mut self.vs, &mut self.advantages);
        let (rewards, discounts) = (&self.rewards, &self.discounts);
        let (params, log_rhos) = (&self.params, &self.log_rhos);
        vtrace_batch(batch.length, columns, log_rhos, discounts, rewards, values, params, vs, advantages);
        // Once more without the weight.
        let lambda = params.lambda;
        for (step, advantage) in advantages.iter_mut().enumerate() {
            let next = step + columns;
            let vs_next = vs.get(next).copied().unwrap_or(values[next]);
            let follows = lambda * vs_next + (1.0 - lambda) * values[next];
            *advantage = rewards[step] + discounts[step] * follows - values[step];
        }
        self.values.clear();
        self.values.extend(&values[..steps]);
    }
}

impl Algorithm for Appo {
    fn name(&self) -> &'static str {
        "appo"
    }

    fn update(
        &mut self,
        target: &mut TargetPolicy,
        batch: &Batch,
        progress: Progress,
    ) -> Result<UpdateReport, TrainError> {
        let mut random = dealer(self.seed, progress.version);
        self.update_in_order(target, batch, progress, &mut |order| order.shuffle(&mut random))
    }
}
