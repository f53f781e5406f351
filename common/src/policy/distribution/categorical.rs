//! Independent categorical distributions: sampling, log-probability, entropy, divergence, gradient.
//!
//! A row of parameters holds the logits of each choice, one choice after another. With `m` the largest logit and
//! `s = sum exp(l_j - m)`: `log p_j = l_j - m - ln s` and `H = ln s - sum p_j (l_j - m)`, in which no exponent is
//! positive and nothing overflows. Where `p_j = 0`, `p_j log p_j` counts as 0.

use rand::Rng;

use crate::kernels::{Isa, dispatch, exp_of, ln_of};
use crate::random::Stream;

dispatch! {
    /// Samples one action a choice for each stream: `params` `[E, P]`, `actions` `[E, choices]`, `log_probs` `[E]`.
    pub(super) fn sample(alternatives: &[usize], params: &[f32], streams: &mut [Stream], actions: &mut [i32], log_probs: &mut [f32]) = sample_body;

    /// Log-probability and entropy of each row: `params` `[N, P]`, `actions` `[N, choices]` in range, `out` `[N, 2]`.
    pub(super) fn log_prob_entropy(alternatives: &[usize], params: &[f32], actions: &[i32], out: &mut [f32]) = log_prob_entropy_body;

    /// Gradient of the above with respect to `params`: `grad` `[N, 2]`, `out` `[N, P]`.
    pub(super) fn log_prob_entropy_gradient(alternatives: &[usize], params: &[f32], actions: &[i32], grad: &[f32], out: &mut [f32]) = gradient_body;

    /// Entropy of one row.
    pub(super) fn entropy(alternatives: &[usize], params: &[f32]) -> f32 = entropy_body;

    /// `KL(p || q)` of two rows.
    pub(super) fn kl(alternatives: &[usize], p: &[f32], q: &[f32]) -> f32 = kl_body;
}

/// The logits of each choice in a row of parameters.
#[inline(always)]
pub(super) fn choices<'a>(alternatives: &'a [usize], mut row: &'a [f32]) -> impl Iterator<Item = &'a [f32]> {
    alternatives.iter().map(move |count| {
        let (logits, rest) = row.split_at(*count);
        row = rest;
        logits
    })
}

/// Index of the first largest logit.
#[inline(always)]
pub(super) fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (at, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = at;
        }
    }
    best
}

/// What normalises the logits of one choice.
#[derive(Clone, Copy)]
struct Normaliser {
    /// The largest logit.
    max: f32,
    /// `ln sum exp(l - max)`.
    ln_sum: f32,
    /// `1 / sum exp(l - max)`.
    inverse_sum: f32,
}

impl Normaliser {
    #[inline(always)]
    fn of<S: Isa>(logits: &[f32]) -> Self {
        let max = largest(logits);
        let sum: f32 = logits.iter().map(|logit| exp_of::<S>(logit - max)).sum();
        Self { max, ln_sum: ln_of::<S>(sum), inverse_sum: 1.0 / sum }
    }

    #[inline(always)]
    fn log_prob(self, logit: f32) -> f32 {
        logit - self.max - self.ln_sum
    }

    #[inline(always)]
    fn prob<S: Isa>(self, logit: f32) -> f32 {
        exp_of::<S>(logit - self.max) * self.inverse_sum
    }

    #[inline(always)]
    fn entropy<S: Isa>(self, logits: &[f32]) -> f32 {
        let mean: f32 = logits.iter().map(|l| weighted(self.prob::<S>(*l), l - self.max)).sum();
        self.ln_sum - mean
    }
}

/// The largest logit; NaN if one is NaN.
#[inline(always)]
fn largest(logits: &[f32]) -> f32 {
    logits.iter().fold(f32::NEG_INFINITY, |max, l| if *l > max || l.is_nan() { *l } else { max })
}

/// `p x`, or 0 where `p` is 0 (and `x` may be infinite).
#[inline(always)]
fn weighted(p: f32, x: f32) -> f32 {
    if p == 0.0 { 0.0 } else { p * x }
}

/// A number in (0, 1), from 32 random bits; fine-grained near 0.
#[inline(always)]
pub(super) fn uniform(random: &mut Stream) -> f32 {
    (random.next_u32() as f32 + 0.5) * (1.0 / 4_294_967_296.0)
}

#[inline(always)]
fn sample_body<S: Isa>(
    alternatives: &[usize],
    params: &[f32],
    streams: &mut [Stream],
    actions: &mut [i32],
    log_probs: &mut [f32],
) {
    let count = alternatives.iter().sum();
    for (((row, random), actions), log_prob) in params
        .chunks_exact(count)
        .zip(streams)
        .zip(actions.chunks_exact_mut(alternatives.len()))
        .zip(log_probs)
    {
        *log_prob = 0.0;
        for (logits, action) in choices(alternatives, row).zip(actions) {
            let normaliser = Normaliser::of::<S>(logits);
            let sum = 1.0 / normaliser.inverse_sum;
            let target = uniform(random) * sum;
            // Rounding may leave the whole sum below the target: then the likeliest alternative it is.
            let mut chosen = argmax(logits);
            let mut below = 0.0;
            for (at, logit) in logits.iter().enumerate() {
                below += exp_of::<S>(logit - normaliser.max);
                if below > target {
                    chosen = at;
                    break;
                }
            }
            *action = chosen as i32;
            *log_prob += normaliser.log_prob(logits[chosen]);
        }
    }
}

#[inline(always)]
fn log_prob_entropy_body<S: Isa>(alternatives: &[usize], params: &[f32], actions: &[i32], out: &mut [f32]) {
    let count = alternatives.iter().sum();
    for ((row, actions), out) in params
        .chunks_exact(count)
        .zip(actions.chunks_exact(alternatives.len()))
        .zip(out.as_chunks_mut::<2>().0)
    {
        *out = [0.0; 2];
        for (logits, action) in choices(alternatives, row).zip(actions) {
            let normaliser = Normaliser::of::<S>(logits);
            out[0] += normaliser.log_prob(logits[*action as usize]);
            out[1] += normaliser.entropy::<S>(logits);
        }
    }
}

/// `d log p_a / d l_j = [j = a] - p_j`, `d H / d l_j = -p_j (log p_j + H)`.
#[inline(always)]
fn gradient_body<S: Isa>(
    alternatives: &[usize],
    params: &[f32],
    actions: &[i32],
    grad: &[f32],
    out: &mut [f32],
) {
    let count = alternatives.iter().sum();
    let rows = params.chunks_exact(count).zip(actions.chunks_exact(alternatives.len()));
    for ((row, actions), ([of_log_prob, of_entropy], mut out)) in
        rows.zip(grad.as_chunks::<2>().0.iter().zip(out.chunks_exact_mut(count)))
    {
        for (logits, action) in choices(alternatives, row).zip(actions) {
            let (here, rest) = std::mem::take(&mut out).split_at_mut(logits.len());
            out = rest;
            let normaliser = Normaliser::of::<S>(logits);
            let entropy = normaliser.entropy::<S>(logits);
            for (out, logit) in here.iter_mut().zip(logits) {
                let p = normaliser.prob::<S>(*logit);
                let surprise = weighted(p, normaliser.log_prob(*logit) + entropy);
                *out = -of_log_prob * p - of_entropy * surprise;
            }
            here[*action as usize] += of_log_prob;
        }
    }
}

#[inline(always)]
fn entropy_body<S: Isa>(alternatives: &[usize], params: &[f32]) -> f32 {
    choices(alternatives, params).map(|logits| Normaliser::of::<S>(logits).entropy::<S>(logits)).sum()
}

#[inline(always)]
fn kl_body<S: Isa>(alternatives: &[usize], p: &[f32], q: &[f32]) -> f32 {
    let mut divergence = 0.0;
    for (p, q) in choices(alternatives, p).zip(choices(alternatives, q)) {
        let (of_p, of_q) = (Normaliser::of::<S>(p), Normaliser::of::<S>(q));
        for (p, q) in p.iter().zip(q) {
            divergence += weighted(of_p.prob::<S>(*p), of_p.log_prob(*p) - of_q.log_prob(*q));
        }
    }
    divergence
}
