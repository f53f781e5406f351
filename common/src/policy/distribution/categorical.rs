//! Independent categorical distributions: sampling, log-probability, entropy, divergence, gradient.
//!
//! A row of parameters holds the logits of each choice, one choice after another. With `m` the largest logit and
//! `s = sum exp(l_j - m)`: `log p_j = l_j - m - ln s` and `H = ln s - sum p_j (l_j - m)`, in which no exponent is
//! positive and nothing overflows. Where `p_j = 0`, `p_j log p_j` counts as 0.

use std::cell::Cell;

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

/// Numbers worked on at a time: they stay in the first-level cache between the passes over them.
const BLOCK: usize = 2048;

/// The softmax of a block of rows, and what it was made from.
#[derive(Default)]
struct Softmax {
    /// `exp(l - m)`, `[rows, P]`.
    weights: Vec<f32>,
    /// The largest logit `m` of each choice, `[rows, choices]`; NaN if one is NaN.
    max: Vec<f32>,
    /// `s = sum exp(l - m)` of each choice.
    sum: Vec<f32>,
    /// `ln s` of each choice.
    ln_sum: Vec<f32>,
}

thread_local! {
    /// Scratch memory, kept for the next call. Taken out rather than borrowed while in use: the body of a
    /// closure would be compiled without the target features.
    static SCRATCH: Cell<Softmax> = const {
        Cell::new(Softmax { weights: Vec::new(), max: Vec::new(), sum: Vec::new(), ln_sum: Vec::new() })
    };
}

/// One choice of one row.
#[derive(Clone, Copy)]
struct Choice<'a> {
    logits: &'a [f32],
    /// `exp(l - m)` of each logit.
    weights: &'a [f32],
    max: f32,
    sum: f32,
    ln_sum: f32,
}

impl Softmax {
    /// Computes the softmax of `params` `[rows, P]`; exponentials and logarithms run over all rows at once.
    #[inline(always)]
    fn compute<S: Isa>(&mut self, alternatives: &[usize], params: &[f32]) {
        let rows = params.len() / alternatives.iter().sum::<usize>();
        self.weights.resize(params.len(), 0.0);
        self.max.resize(rows * alternatives.len(), 0.0);
        self.sum.resize(rows * alternatives.len(), 0.0);
        self.ln_sum.resize(rows * alternatives.len(), 0.0);
        let mut start = 0;
        for (at, max) in self.max.iter_mut().enumerate() {
            let end = start + alternatives[at % alternatives.len()];
            let logits = &params[start..end];
            *max = f32::NEG_INFINITY;
            for logit in logits {
                *max = if *logit > *max || logit.is_nan() { *logit } else { *max };
            }
            for (weight, logit) in self.weights[start..end].iter_mut().zip(logits) {
                *weight = logit - *max;
            }
            start = end;
        }
        for weight in &mut self.weights {
            *weight = exp_of::<S>(*weight);
        }
        let mut start = 0;
        for (at, sum) in self.sum.iter_mut().enumerate() {
            let end = start + alternatives[at % alternatives.len()];
            *sum = 0.0;
            for weight in &self.weights[start..end] {
                *sum += *weight;
            }
            start = end;
        }
        for (ln_sum, sum) in self.ln_sum.iter_mut().zip(&self.sum) {
            *ln_sum = ln_of::<S>(*sum);
        }
    }

    /// Choice number `at` (counted over rows), whose parameters start at `start` of `params`.
    #[inline(always)]
    fn choice<'a>(&'a self, params: &'a [f32], start: usize, count: usize, at: usize) -> Choice<'a> {
        Choice {
            logits: &params[start..start + count],
            weights: &self.weights[start..start + count],
            max: self.max[at],
            sum: self.sum[at],
            ln_sum: self.ln_sum[at],
        }
    }
}

impl Choice<'_> {
    /// `log p_j`.
    #[inline(always)]
    fn log_prob(&self, alternative: usize) -> f32 {
        self.logits[alternative] - self.max - self.ln_sum
    }

    #[inline(always)]
    fn entropy(&self) -> f32 {
        let mut mean = 0.0;
        for (weight, logit) in self.weights.iter().zip(self.logits) {
            mean += weighted(*weight, logit - self.max);
        }
        self.ln_sum - mean / self.sum
    }
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

/// Rows of `columns` numbers that make a block.
#[inline(always)]
fn block_rows(columns: usize) -> usize {
    (BLOCK / columns).max(1)
}

#[inline(always)]
fn sample_body<S: Isa>(
    alternatives: &[usize],
    params: &[f32],
    streams: &mut [Stream],
    actions: &mut [i32],
    log_probs: &mut [f32],
) {
    let (columns, choices) = (alternatives.iter().sum::<usize>(), alternatives.len());
    let block = block_rows(columns);
    let mut softmax = SCRATCH.take();
    for (((params, streams), actions), log_probs) in params
        .chunks(block * columns)
        .zip(streams.chunks_mut(block))
        .zip(actions.chunks_mut(block * choices))
        .zip(log_probs.chunks_mut(block))
    {
        softmax.compute::<S>(alternatives, params);
        let (mut start, mut at) = (0, 0);
        for (random, log_prob) in streams.iter_mut().zip(log_probs) {
            *log_prob = 0.0;
            for count in alternatives {
                let choice = softmax.choice(params, start, *count, at);
                let target = uniform(random) * choice.sum;
                // Rounding may leave the whole sum at or below the target: then the likeliest alternative it is.
                let mut chosen = usize::MAX;
                let mut below = 0.0;
                for (alternative, weight) in choice.weights.iter().enumerate() {
                    below += *weight;
                    if below > target {
                        chosen = alternative;
                        break;
                    }
                }
                if chosen == usize::MAX {
                    chosen = argmax(choice.logits);
                }
                actions[at] = chosen as i32;
                *log_prob += choice.log_prob(chosen);
                start += count;
                at += 1;
            }
        }
    }
    SCRATCH.set(softmax);
}

#[inline(always)]
fn log_prob_entropy_body<S: Isa>(alternatives: &[usize], params: &[f32], actions: &[i32], out: &mut [f32]) {
    let (columns, choices) = (alternatives.iter().sum::<usize>(), alternatives.len());
    let block = block_rows(columns);
    let mut softmax = SCRATCH.take();
    for ((params, actions), out) in
        params.chunks(block * columns).zip(actions.chunks(block * choices)).zip(out.chunks_mut(block * 2))
    {
        softmax.compute::<S>(alternatives, params);
        let (mut start, mut at) = (0, 0);
        for out in out.as_chunks_mut::<2>().0 {
            *out = [0.0; 2];
            for count in alternatives {
                let choice = softmax.choice(params, start, *count, at);
                out[0] += choice.log_prob(actions[at] as usize);
                out[1] += choice.entropy();
                start += count;
                at += 1;
            }
        }
    }
    SCRATCH.set(softmax);
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
    let (columns, choices) = (alternatives.iter().sum::<usize>(), alternatives.len());
    let block = block_rows(columns);
    let mut softmax = SCRATCH.take();
    for (((params, actions), grad), out) in params
        .chunks(block * columns)
        .zip(actions.chunks(block * choices))
        .zip(grad.chunks(block * 2))
        .zip(out.chunks_mut(block * columns))
    {
        softmax.compute::<S>(alternatives, params);
        let (mut start, mut at) = (0, 0);
        for [of_log_prob, of_entropy] in grad.as_chunks::<2>().0 {
            for count in alternatives {
                let choice = softmax.choice(params, start, *count, at);
                let inverse_sum = 1.0 / choice.sum;
                let (entropy, out) = (choice.entropy(), &mut out[start..start + count]);
                for ((out, logit), weight) in out.iter_mut().zip(choice.logits).zip(choice.weights) {
                    let p = weight * inverse_sum;
                    let surprise = weighted(p, logit - choice.max - choice.ln_sum + entropy);
                    *out = -of_log_prob * p - of_entropy * surprise;
                }
                out[actions[at] as usize] += of_log_prob;
                start += count;
                at += 1;
            }
        }
    }
    SCRATCH.set(softmax);
}

#[inline(always)]
fn entropy_body<S: Isa>(alternatives: &[usize], params: &[f32]) -> f32 {
    let mut softmax = SCRATCH.take();
    softmax.compute::<S>(alternatives, params);
    let (mut entropy, mut start) = (0.0, 0);
    for (at, count) in alternatives.iter().enumerate() {
        entropy += softmax.choice(params, start, *count, at).entropy();
        start += count;
    }
    SCRATCH.set(softmax);
    entropy
}

#[inline(always)]
fn kl_body<S: Isa>(alternatives: &[usize], p: &[f32], q: &[f32]) -> f32 {
    let (mut of_p, mut of_q) = (SCRATCH.take(), Softmax::default());
    of_p.compute::<S>(alternatives, p);
    of_q.compute::<S>(alternatives, q);
    let (mut divergence, mut start) = (0.0, 0);
    for (at, count) in alternatives.iter().enumerate() {
        let (p, q) = (of_p.choice(p, start, *count, at), of_q.choice(q, start, *count, at));
        for (alternative, weight) in p.weights.iter().enumerate() {
            divergence += weighted(*weight / p.sum, p.log_prob(alternative) - q.log_prob(alternative));
        }
        start += count;
    }
    SCRATCH.set(of_p);
    divergence
}
