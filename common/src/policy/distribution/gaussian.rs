//! The normal distribution with a diagonal covariance: sampling, log-probability, entropy, divergence, gradient.
//!
//! A row of parameters holds `D` means and then `D` logarithms of standard deviations. With
//! `z = (a - mean) / std`: `log p = sum(-z^2 / 2 - log_std) - D/2 ln(2 pi)` and `H = sum(log_std) + D/2 (1 + ln(2 pi))`.

use super::categorical::uniform;
use crate::random::Stream;

/// `ln(2 pi) / 2`.
const HALF_LN_TWO_PI: f32 = 0.918_938_5;

/// Samples an action for each stream: `params` `[E, 2 D]`, `actions` `[E, D]`, `log_probs` `[E]`.
pub(super) fn sample(
    dimensions: usize,
    params: &[f32],
    streams: &mut [Stream],
    actions: &mut [f32],
    log_probs: &mut [f32],
) {
    for (((row, random), action), out) in params
        .chunks_exact(2 * dimensions)
        .zip(streams)
        .zip(actions.chunks_exact_mut(dimensions))
        .zip(log_probs)
    {
        let (mean, log_std) = row.split_at(dimensions);
        let mut at = 0;
        while at < dimensions {
            for noise in normal_pair(random).into_iter().take(dimensions - at) {
                action[at] = log_std[at].exp().mul_add(noise, mean[at]);
                at += 1;
            }
        }
        // From the rounded action, not from the noise: the number the learner will compute.
        *out = log_prob(mean, log_std, action);
    }
}

/// Actions that lie `noise` `[E, D]` from the means of `params` `[E, 2 D]`, with their log-densities `[E]`.
pub(super) fn displace(
    dimensions: usize,
    params: &[f32],
    noise: &[f32],
    actions: &mut [f32],
    log_probs: &mut [f32],
) {
    for (((row, noise), action), out) in params
        .chunks_exact(2 * dimensions)
        .zip(noise.chunks_exact(dimensions))
        .zip(actions.chunks_exact_mut(dimensions))
        .zip(log_probs)
    {
        let (mean, log_std) = row.split_at(dimensions);
        for ((action, mean), noise) in action.iter_mut().zip(mean).zip(noise) {
            *action = mean + noise;
        }
        *out = log_prob(mean, log_std, action);
    }
}

/// Two independent standard normal numbers (Box & Muller, 1958).
fn normal_pair(random: &mut Stream) -> [f32; 2] {
    let radius = (-2.0 * uniform(random).ln()).sqrt();
    let (sine, cosine) = (std::f32::consts::TAU * uniform(random)).sin_cos();
    [radius * cosine, radius * sine]
}

/// Log-density of one action.
fn log_prob(mean: &[f32], log_std: &[f32], action: &[f32]) -> f32 {
    let mut sum = 0.0;
    for ((mean, log_std), action) in mean.iter().zip(log_std).zip(action) {
        let z = (action - mean) * (-log_std).exp();
        sum -= 0.5 * z * z + log_std + HALF_LN_TWO_PI;
    }
    sum
}

/// Differential entropy of one row, given its logarithms of standard deviations.
pub(super) fn entropy(log_std: &[f32]) -> f32 {
    log_std.iter().map(|log_std| log_std + 0.5 + HALF_LN_TWO_PI).sum()
}

/// `KL(p || q)` of two rows.
pub(super) fn kl(dimensions: usize, p: &[f32], q: &[f32]) -> f32 {
    let ((p_mean, p_log_std), (q_mean, q_log_std)) = (p.split_at(dimensions), q.split_at(dimensions));
    let mut divergence = 0.0;
    for at in 0..dimensions {
        let log_ratio = p_log_std[at] - q_log_std[at];
        let z = (p_mean[at] - q_mean[at]) * (-q_log_std[at]).exp();
        // (sigma_p / sigma_q)^2 - 1 - 2 ln(sigma_p / sigma_q), without cancellation for near equals.
        divergence += 0.5 * ((2.0 * log_ratio).exp_m1() - 2.0 * log_ratio + z * z);
    }
    divergence
}

/// Log-density and entropy of each row: `params` `[N, 2 D]`, `actions` `[N, D]`, `out` `[N, 2]`.
pub(super) fn log_prob_entropy(dimensions: usize, params: &[f32], actions: &[f32], out: &mut [f32]) {
    for ((row, action), out) in params
        .chunks_exact(2 * dimensions)
        .zip(actions.chunks_exact(dimensions))
        .zip(out.as_chunks_mut::<2>().0)
    {
        let (mean, log_std) = row.split_at(dimensions);
        *out = [log_prob(mean, log_std, action), entropy(log_std)];
    }
}

/// Gradient of the above with respect to `params`: `grad` `[N, 2]`, `out` `[N, 2 D]`.
///
/// `d log p / d mean = z / std`, `d log p / d log_std = z^2 - 1`, `d H / d log_std = 1`.
pub(super) fn log_prob_entropy_gradient(
    dimensions: usize,
    params: &[f32],
    actions: &[f32],
    grad: &[f32],
    out: &mut [f32],
) {
    let rows = params.chunks_exact(2 * dimensions).zip(actions.chunks_exact(dimensions));
    for ((row, action), ([of_log_prob, of_entropy], out)) in
        rows.zip(grad.as_chunks::<2>().0.iter().zip(out.chunks_exact_mut(2 * dimensions)))
    {
        let (mean, log_std) = row.split_at(dimensions);
        let (of_mean, of_log_std) = out.split_at_mut(dimensions);
        for at in 0..dimensions {
            let inverse = (-log_std[at]).exp();
            let z = (action[at] - mean[at]) * inverse;
            of_mean[at] = of_log_prob * z * inverse;
            of_log_std[at] = of_log_prob * (z * z - 1.0) + of_entropy;
        }
    }
}
