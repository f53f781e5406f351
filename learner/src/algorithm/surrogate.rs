//! The clipped surrogate objective of PPO (Schulman et al. 2017, <https://arxiv.org/abs/1707.06347>, section 3),
//! over several passes of minibatches.
//!
//! With the ratio `r = pi(a|x) / mu(a|x)` of the policy being learned to the one that acted, an advantage `A`
//! and a value target `R`, both constants,
//!
//! ```text
//! policy  = mean(-min(r A, clip(r, 1 - c, 1 + c) A))
//! value   = mean(0.5 (R - V(x))^2)
//! loss    = policy + baseline_cost * value - entropy_cost * mean(H(pi(.|x)))
//! ```
//!
//! `r` begins near 1 and drifts off as the passes go on; where it has left the clip in the direction that the
//! advantage asks for, there is no gradient, so that one batch cannot take the policy far. With value
//! clipping, `(R - V)^2` is the larger of that and `(R - V')^2`, where `V'` is `V` kept within `value_clip` of
//! what it was before the update.
//!
//! A policy that learns normalised values ([`impresario_common::policy::value_scale`]) has `R`, `V` and `A` on their scale.
//!
//! The passes are one update: it becomes a version whole, or not at all.

use candle_core::Tensor;
use impresario_common::config::{AppoConfig, PpoConfig, RunConfig};
use impresario_common::kernels::{self, with_slice};
use impresario_common::policy::value_scale::ValueScale;
use impresario_common::random::{self, Purpose, Stream};

use super::minibatches::{Minibatch, Minibatches};
use super::objective::Objective;
use super::{Metrics, Outcome, Progress, TargetPolicy, TrainError, UpdateReport, descend};
use crate::batch::Batch;
use crate::returns::normalize;
use crate::schedule::Scheduled;

/// The objective and how it is climbed.
#[derive(Debug, Clone)]
pub struct ClippedSurrogate {
    /// Passes over the batch.
    pub epochs: usize,
    /// Parts of each pass.
    pub minibatches: usize,
    /// How far the ratio pays.
    pub clip_range: Scheduled,
    /// How far values may move, normalised ones where the policy learns such; 0 is any distance.
    pub value_clip: f32,
    /// Whether advantages are normalised over each minibatch.
    pub normalize_advantages: bool,
    /// Weight of the value loss.
    pub baseline_cost: f32,
    /// Weight of the entropy as a bonus.
    pub entropy_cost: Scheduled,
    /// The passes end before the step at which `KL(mu, pi)` is estimated beyond 1.5 times this; 0 is never.
    pub target_kl: f32,
}

/// What is to be learned of each step of a batch, `[T, B]` each.
#[derive(Debug, Clone, Copy)]
pub struct Goals<'a> {
    /// Values before the update.
    pub values: &'a [f32],
    /// Advantages.
    pub advantages: &'a [f32],
    /// Value targets.
    pub targets: &'a [f32],
}

/// The goals of some steps.
#[derive(Debug, Default)]
struct Chosen {
    values: Vec<f32>,
    advantages: Vec<f32>,
    targets: Vec<f32>,
}

impl Goals<'_> {
    fn of(&self, steps: &[usize]) -> Chosen {
        let pick = |from: &[f32]| steps.iter().map(|step| from[*step]).collect();
        Chosen { values: pick(self.values), advantages: pick(self.advantages), targets: pick(self.targets) }
    }

    /// All of them as a value head of this scale says them.
    fn normalized(&self, scale: ValueScale) -> Chosen {
        let (values, advantages, targets) =
            (self.values.to_vec(), self.advantages.to_vec(), self.targets.to_vec());
        let mut goals = Chosen { values, advantages, targets };
        scale.normalize(&mut goals.values);
        scale.normalize(&mut goals.targets);
        scale.normalize_differences(&mut goals.advantages);
        goals
    }
}

/// The stream that deals the minibatches of the update after `version`: a resumed run deals them alike.
pub fn dealer(seed: u64, version: u64) -> Stream {
    random::stream(seed, Purpose::Learner, [version as u32, (version >> 32) as u32, 0])
}

impl ClippedSurrogate {
    /// As PPO's knobs say.
    pub fn of_ppo(config: &PpoConfig, run: &RunConfig) -> Self {
        Self {
            epochs: config.epochs,
            minibatches: config.minibatches,
            clip_range: Scheduled::new(config.clip_range.into(), config.clip_schedule, run.run.steps),
            value_clip: config.value_clip,
            normalize_advantages: config.normalize_advantages,
            baseline_cost: config.baseline_cost,
            entropy_cost: Scheduled::between(
                config.entropy_cost.into(),
                config.final_entropy_cost.into(),
                config.entropy_schedule,
                run.run.steps,
            ),
            target_kl: config.target_kl,
        }
    }

    /// As APPO's knobs say.
    pub fn of_appo(config: &AppoConfig, run: &RunConfig) -> Self {
        Self {
            epochs: config.epochs,
            minibatches: config.minibatches,
            clip_range: Scheduled::new(config.clip_range.into(), config.clip_schedule, run.run.steps),
            value_clip: config.value_clip,
            normalize_advantages: config.normalize_advantages,
            baseline_cost: config.baseline_cost,
            entropy_cost: Scheduled::between(
                config.entropy_cost.into(),
                config.final_entropy_cost.into(),
                config.entropy_schedule,
                run.run.steps,
            ),
            target_kl: 0.0,
        }
    }

    /// Improves `target` on `batch` towards `goals`, or leaves it exactly as it was. `shuffle` is given the steps (or
    /// columns) before each pass and puts them in the order in which they are dealt. Adds to `metrics` the
    /// means over the minibatches, and for what tells the distance of the two policies those of the last pass.
    ///
    /// # Errors
    /// If the batch does not fit the policy.
    pub fn climb(
        &self,
        target: &mut TargetPolicy,
        batch: &Batch,
        goals: &Goals<'_>,
        progress: Progress,
        mut metrics: Metrics,
        shuffle: &mut dyn FnMut(&mut [usize]),
    ) -> Result<UpdateReport, TrainError> {
        let before = target.save()?;
        let scale = target.absorb_values(goals.targets, &mut metrics)?;
        let goals = goals.normalized(scale);
        let goals = &Goals { values: &goals.values, advantages: &goals.advantages, targets: &goals.targets };
        let mut minibatches = Minibatches::new(batch, self.minibatches);
        let (mut losses, mut distances) = (Means::default(), Means::default());
        let (mut steps, mut stopped) = (0, false);
        'passes: for _ in 0..self.epochs {
            shuffle(minibatches.order_mut());
            let mut of_pass = Means::default();
            for minibatch in minibatches.parts() {
                let mut of_loss = Metrics::default();
                let mut of_distance = Metrics::default();
                let (loss, objective) =
                    self.loss(target, &minibatch, goals, progress, &mut of_loss, &mut of_distance)?;
                of_pass.add(&of_distance);
                stopped = loss.is_finite() && self.is_too_far(&of_distance);
                if stopped {
                    distances = of_pass;
                    break 'passes;
                }
                let report = descend(target, loss, &objective, progress, of_loss)?;
                if let Outcome::Skipped { .. } = report.outcome {
                    target.go_back(&before)?;
                    return Ok(report);
                }
                losses.add(&report.metrics);
                steps += 1;
            }
            distances = of_pass;
        }
        losses.into_metrics(&mut metrics);
        distances.into_metrics(&mut metrics);
        metrics.push("epochs_run", f64::from(steps) / minibatches.count() as f64);
        if self.target_kl > 0.0 {
            metrics.push("kl_stopped", f64::from(u8::from(stopped)));
        }
        Ok(UpdateReport { outcome: Outcome::Applied, metrics })
    }

    fn is_too_far(&self, distance: &Metrics) -> bool {
        self.target_kl > 0.0 && distance.get("approx_kl").is_some_and(|kl| kl > 1.5 * self.target_kl)
    }

    /// The loss of `target` on a minibatch, as a number and in the graph of the parameters.
    fn loss(
        &self,
        target: &TargetPolicy,
        minibatch: &Minibatch,
        goals: &Goals<'_>,
        progress: Progress,
        losses: &mut Metrics,
        distances: &mut Metrics,
    ) -> Result<(f64, Tensor), TrainError> {
        let mut goals = goals.of(&minibatch.steps);
        if self.normalize_advantages {
            normalize(&mut goals.advantages);
        }
        let clip_range = self.clip_range.at(progress.env_steps) as f32;
        let entropy_cost = self.entropy_cost.at(progress.env_steps) as f32;
        let output = target.forward(&minibatch.batch)?;
        let log_prob_entropy = target.log_prob_entropy(&output, &minibatch.batch)?;
        let objective = with_slice(&log_prob_entropy, |log_prob_entropy: &[f32]| {
            let ratios = Ratios::new(log_prob_entropy, &minibatch.batch.behaviour_log_probs);
            ratios.report(clip_range, distances);
            with_slice(&output.values, |values: &[f32]| {
                self.objective(
                    log_prob_entropy,
                    values,
                    &ratios.ratios,
                    &goals,
                    (clip_range, entropy_cost),
                    losses,
                )
            })
        })??;
        Ok((objective.loss, objective.into_tensor(&log_prob_entropy, &output.values)?))
    }

    /// The loss and its gradient with respect to every row's log-probability, entropy and value.
    fn objective(
        &self,
        log_prob_entropy: &[f32],
        values: &[f32],
        ratios: &[f32],
        goals: &Chosen,
        (clip_range, entropy_cost): (f32, f32),
        metrics: &mut Metrics,
    ) -> Objective {
        let weight = 1.0 / ratios.len() as f32;
        let mut d_log_prob_entropy = vec![0.0; log_prob_entropy.len()];
        let mut d_values = vec![0.0; values.len()];
        let (mut policy_loss, mut value_loss, mut entropy) = (0f64, 0f64, 0f64);
        for (row, &ratio) in ratios.iter().enumerate() {
            let (surrogate, d_log_prob) = surrogate(ratio, goals.advantages[row], clip_range);
            let (error, d_value) =
                value_error(values[row], goals.values[row], goals.targets[row], self.value_clip);
            policy_loss -= f64::from(surrogate);
            value_loss += 0.5 * f64::from(error).powi(2);
            entropy += f64::from(log_prob_entropy[2 * row + 1]);
            d_log_prob_entropy[2 * row] = -weight * d_log_prob;
            d_log_prob_entropy[2 * row + 1] = -weight * entropy_cost;
            d_values[row] = weight * self.baseline_cost * d_value;
        }
        let weight = f64::from(weight);
        let entropy_loss = -f64::from(entropy_cost) * weight * entropy;
        let loss = weight * policy_loss + f64::from(self.baseline_cost) * weight * value_loss + entropy_loss;
        metrics.push("loss", loss);
        metrics.push("policy_loss", weight * policy_loss);
        metrics.push("value_loss", weight * value_loss);
        metrics.push("entropy_loss", entropy_loss);
        metrics.push("entropy_cost", entropy_cost.into());
        metrics.push("clip_range", clip_range.into());
        metrics.push("entropy", weight * entropy);
        Objective { loss, d_log_prob_entropy, d_values }
    }
}

/// `min(r A, clip(r, 1 - c, 1 + c) A)`, and its derivative with respect to `ln r`.
fn surrogate(ratio: f32, advantage: f32, clip_range: f32) -> (f32, f32) {
    let free = ratio * advantage;
    let clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range) * advantage;
    // A ratio that is not a number makes both so. The derivative of r by ln r is r.
    if free <= clipped { (free, free) } else { (clipped, 0.0) }
}

/// What a value's loss is half the square of, and that half square's derivative with respect to the value.
fn value_error(value: f32, before: f32, target: f32, clip: f32) -> (f32, f32) {
    let free = value - target;
    if clip == 0.0 {
        return (free, free);
    }
    let clipped = before + (value - before).clamp(-clip, clip) - target;
    // Within the clip both are equal up to rounding.
    if (value - before).abs() <= clip || free.abs() >= clipped.abs() { (free, free) } else { (clipped, 0.0) }
}

/// Ratios of the policy being learned to the one that acted, and their logarithms, `[N]`.
struct Ratios {
    ratios: Vec<f32>,
    logs: Vec<f32>,
}

impl Ratios {
    fn new(log_prob_entropy: &[f32], behaviour_log_probs: &[f32]) -> Self {
        let log_probs = log_prob_entropy.chunks_exact(2).map(|row| row[0]);
        let logs: Vec<f32> = log_probs.zip(behaviour_log_probs).map(|(pi, mu)| pi - mu).collect();
        let mut ratios = logs.clone();
        kernels::exp(&mut ratios);
        Self { ratios, logs }
    }

    fn report(&self, clip_range: f32, metrics: &mut Metrics) {
        let count = self.ratios.len() as f64;
        let mean = |numbers: &[f32]| numbers.iter().copied().map(f64::from).sum::<f64>() / count;
        let (ratio, log) = (mean(&self.ratios), mean(&self.logs));
        let clipped = self.ratios.iter().filter(|ratio| (*ratio - 1.0).abs() > clip_range).count();
        metrics.push("mean_rho", ratio);
        metrics.push("clip_fraction", clipped as f64 / count);
        // Never negative, but for rounding.
        metrics.push("approx_kl", (ratio - 1.0 - log).max(0.0));
    }
}

/// Means of metrics of the same names.
#[derive(Debug, Default)]
struct Means(Vec<(&'static str, f64, u32)>);

impl Means {
    fn add(&mut self, metrics: &Metrics) {
        for (name, value) in metrics.iter() {
            match self.0.iter_mut().find(|(known, ..)| *known == name) {
                Some((_, sum, count)) => {
                    *sum += f64::from(value);
                    *count += 1;
                }
                None => self.0.push((name, value.into(), 1)),
            }
        }
    }

    fn into_metrics(self, metrics: &mut Metrics) {
        for (name, sum, count) in self.0 {
            metrics.push(name, sum / f64::from(count));
        }
    }
}

#[cfg(test)]
mod tests;
