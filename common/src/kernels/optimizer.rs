//! Optimiser steps in place, on slices: one pass over parameters, gradients and state.

use super::threads::share_out;
use super::{Isa, dispatch};

/// Where RMSProp's epsilon stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpsilonPlacement {
    /// `g / (sqrt(v) + eps)`, as PyTorch has it.
    OutsideSqrt,
    /// `g / sqrt(v + eps)`, as TensorFlow has it; the IMPALA paper's epsilon of 0.01 to 0.1 means this one.
    InsideSqrt,
}

/// The numbers of an RMSProp step (Tieleman & Hinton, 2012).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsProp {
    /// Step size.
    pub learning_rate: f32,
    /// Decay of the running mean of squared gradients (`alpha` in PyTorch, `decay` in TensorFlow).
    pub decay: f32,
    /// Keeps the step finite where gradients vanish.
    pub epsilon: f32,
    /// Whether epsilon is added outside or inside the square root.
    pub epsilon_placement: EpsilonPlacement,
    /// Momentum of the scaled gradient; only used where a momentum buffer is given.
    pub momentum: f32,
}

/// The numbers of an Adam step (Kingma & Ba, 2015, arXiv:1412.6980).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// Step size.
    pub learning_rate: f32,
    /// Decay of the running mean of gradients.
    pub beta1: f32,
    /// Decay of the running mean of squared gradients.
    pub beta2: f32,
    /// Keeps the step finite where gradients vanish; added outside the square root.
    pub epsilon: f32,
}

/// Takes an RMSProp step: changes `params`, `square_avg` and, where given, the momentum buffer.
///
/// `v = decay v + (1 - decay) g^2`; then `p -= lr g / (sqrt(v) + eps)` (or `sqrt(v + eps)`), or with momentum
/// `b = momentum b + g / (...)` and `p -= lr b`: PyTorch's formula. `scale` multiplies the gradients first
/// (clipping by the global norm). State starts at zero in PyTorch; TensorFlow starts `square_avg` at one.
///
/// # Panics
/// If the slices differ in length.
pub fn rmsprop_step(
    params: &mut [f32],
    grads: &[f32],
    square_avg: &mut [f32],
    momentum: Option<&mut [f32]>,
    rms_prop: &RmsProp,
    scale: f32,
) {
    assert!(
        params.len() == grads.len() && params.len() == square_avg.len(),
        "RMSProp's slices differ in length"
    );
    let (outside, inside) = match rms_prop.epsilon_placement {
        EpsilonPlacement::OutsideSqrt => (rms_prop.epsilon, 0.0),
        EpsilonPlacement::InsideSqrt => (0.0, rms_prop.epsilon),
    };
    let step = RmsPropStep {
        learning_rate: rms_prop.learning_rate,
        decay: rms_prop.decay,
        outside,
        inside,
        momentum: rms_prop.momentum,
        scale,
    };
    let worthwhile = is_worth_threads(params.len());
    let jobs = params.chunks_mut(CHUNK).zip(grads.chunks(CHUNK)).zip(square_avg.chunks_mut(CHUNK));
    match momentum {
        Some(buffer) => {
            assert_eq!(grads.len(), buffer.len(), "RMSProp's slices differ in length");
            share_out(
                jobs.zip(buffer.chunks_mut(CHUNK)),
                worthwhile,
                |(((params, grads), square_avg), buffer)| {
                    rmsprop_with_momentum(params, grads, square_avg, buffer, step);
                },
            );
        }
        None => share_out(jobs, worthwhile, |((params, grads), square_avg)| {
            rmsprop_plain(params, grads, square_avg, step);
        }),
    }
}

/// Takes Adam step number `step` (from 1): changes `params`, `first_moment` and `second_moment`.
///
/// PyTorch's formula: `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`,
/// `p -= lr / (1 - b1^step) * m / (sqrt(v) / sqrt(1 - b2^step) + eps)`. `scale` multiplies the gradients first.
///
/// # Panics
/// If the slices differ in length, or `step` is 0.
pub fn adam_step(
    params: &mut [f32],
    grads: &[f32],
    first_moment: &mut [f32],
    second_moment: &mut [f32],
    adam: &Adam,
    step: u64,
    scale: f32,
) {
    assert!(
        params.len() == grads.len()
            && params.len() == first_moment.len()
            && params.len() == second_moment.len(),
        "Adam's slices differ in length"
    );
    assert!(step > 0, "Adam's steps are numbered from 1");
    let correction = |beta: f32| 1.0 - f64::from(beta).powf(step as f64);
    let step_size = (f64::from(adam.learning_rate) / correction(adam.beta1)) as f32;
    let inverse_root = (1.0 / correction(adam.beta2).sqrt()) as f32;
    let worthwhile = is_worth_threads(params.len());
    let moments = first_moment.chunks_mut(CHUNK).zip(second_moment.chunks_mut(CHUNK));
    let jobs = params.chunks_mut(CHUNK).zip(grads.chunks(CHUNK)).zip(moments);
    share_out(jobs, worthwhile, |((params, grads), (first, second))| {
        adam_moments(params, grads, first, second, *adam, step_size, inverse_root, scale);
    });
}

/// Numbers of a thread's next piece of work.
const CHUNK: usize = 1 << 15;

/// Whether a step of so many numbers is worth the start of threads.
fn is_worth_threads(numbers: usize) -> bool {
    numbers >= 1 << 19
}

#[derive(Clone, Copy)]
struct RmsPropStep {
    learning_rate: f32,
    decay: f32,
    outside: f32,
    inside: f32,
    momentum: f32,
    scale: f32,
}

dispatch! {
    fn rmsprop_plain(params: &mut [f32], grads: &[f32], square_avg: &mut [f32], step: RmsPropStep) = rmsprop_plain_body;
    fn rmsprop_with_momentum(params: &mut [f32], grads: &[f32], square_avg: &mut [f32], buffer: &mut [f32], step: RmsPropStep) = rmsprop_momentum_body;
    fn adam_moments(params: &mut [f32], grads: &[f32], first: &mut [f32], second: &mut [f32], adam: Adam, step_size: f32, inverse_root: f32, scale: f32) = adam_body;
}

/// The gradient over its root mean square; updates the running mean.
#[inline(always)]
fn normalised<S: Isa>(grad: f32, square_avg: &mut f32, step: &RmsPropStep) -> f32 {
    let grad = grad * step.scale;
    *square_avg = S::mul_add(step.decay, *square_avg, (1.0 - step.decay) * grad * grad);
    grad / ((*square_avg + step.inside).sqrt() + step.outside)
}

#[inline(always)]
fn rmsprop_plain_body<S: Isa>(params: &mut [f32], grads: &[f32], square_avg: &mut [f32], step: RmsPropStep) {
    for ((param, grad), square_avg) in params.iter_mut().zip(grads).zip(square_avg) {
        *param = S::mul_add(-step.learning_rate, normalised::<S>(*grad, square_avg, &step), *param);
    }
}

#[inline(always)]
fn rmsprop_momentum_body<S: Isa>(
    params: &mut [f32],
    grads: &[f32],
    square_avg: &mut [f32],
    buffer: &mut [f32],
    step: RmsPropStep,
) {
    for (((param, grad), square_avg), buffer) in params.iter_mut().zip(grads).zip(square_avg).zip(buffer) {
        *buffer = S::mul_add(step.momentum, *buffer, normalised::<S>(*grad, square_avg, &step));
        *param = S::mul_add(-step.learning_rate, *buffer, *param);
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the slices of the state and the numbers of the step")]
fn adam_body<S: Isa>(
    params: &mut [f32],
    grads: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    adam: Adam,
    step_size: f32,
    inverse_root: f32,
    scale: f32,
) {
    for (((param, grad), first), second) in params.iter_mut().zip(grads).zip(first).zip(second) {
        let grad = *grad * scale;
        *first = S::mul_add(adam.beta1, *first, (1.0 - adam.beta1) * grad);
        *second = S::mul_add(adam.beta2, *second, (1.0 - adam.beta2) * grad * grad);
        *param -= step_size * *first / S::mul_add(second.sqrt(), inverse_root, adam.epsilon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::tests::at_every_level;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 11 + seed * 5) % 23) as f32 / 10.0 - 1.1).collect()
    }

    #[test]
    fn rmsprop_follows_its_formula_with_either_epsilon_and_with_momentum() {
        at_every_level(|_| {
            for placement in [EpsilonPlacement::OutsideSqrt, EpsilonPlacement::InsideSqrt] {
                for momentum in [None, Some(0.9f32)] {
                    let rms_prop = RmsProp {
                        learning_rate: 0.01,
                        decay: 0.95,
                        epsilon: 0.1,
                        epsilon_placement: placement,
                        momentum: momentum.unwrap_or(0.0),
                    };
                    let mut params = numbers(37, 1);
                    let (mut square, mut buffer) = (vec![0f32; 37], vec![0f32; 37]);
                    let mut exact: Vec<f64> = params.iter().map(|p| f64::from(*p)).collect();
                    let (mut exact_square, mut exact_buffer) = (vec![0f64; 37], vec![0f64; 37]);
                    for step in 0..5 {
                        let grads = numbers(37, step + 2);
                        let slot = momentum.map(|_| &mut buffer[..]);
                        rmsprop_step(&mut params, &grads, &mut square, slot, &rms_prop, 0.5);
                        for i in 0..37 {
                            let g = f64::from(grads[i]) * 0.5;
                            exact_square[i] = 0.95 * exact_square[i] + 0.05 * g * g;
                            let root = match placement {
                                EpsilonPlacement::OutsideSqrt => exact_square[i].sqrt() + 0.1,
                                EpsilonPlacement::InsideSqrt => (exact_square[i] + 0.1).sqrt(),
                            };
                            exact_buffer[i] = momentum.map_or(0.0, f64::from) * exact_buffer[i] + g / root;
                            exact[i] -= 0.01 * exact_buffer[i];
                        }
                    }
                    for (param, exact) in params.iter().zip(&exact) {
                        assert!((f64::from(*param) - exact).abs() < 2e-6, "{param} {exact}");
                    }
                }
            }
        });
    }

    #[test]
    fn adam_follows_its_formula() {
        at_every_level(|_| {
            let adam = Adam { learning_rate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
            let mut params = numbers(35, 1);
            let (mut first, mut second) = (vec![0f32; 35], vec![0f32; 35]);
            let mut exact: Vec<f64> = params.iter().map(|p| f64::from(*p)).collect();
            let (mut m, mut v) = (vec![0f64; 35], vec![0f64; 35]);
            for step in 1..=6u64 {
                let grads = numbers(35, step as usize + 2);
                adam_step(&mut params, &grads, &mut first, &mut second, &adam, step, 2.0);
                for i in 0..35 {
                    let g = f64::from(grads[i]) * 2.0;
                    m[i] = 0.9 * m[i] + 0.1 * g;
                    v[i] = 0.999 * v[i] + 0.001 * g * g;
                    let (m, v) =
                        (m[i] / (1.0 - 0.9f64.powi(step as i32)), v[i] / (1.0 - 0.999f64.powi(step as i32)));
                    exact[i] -= 0.01 * m / (v.sqrt() + 1e-8);
                }
            }
            for (param, exact) in params.iter().zip(&exact) {
                assert!((f64::from(*param) - exact).abs() < 1e-5, "{param} {exact}");
            }
        });
    }

    #[test]
    #[should_panic(expected = "differ in length")]
    fn slices_of_different_length_are_refused() {
        let adam = Adam { learning_rate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
        adam_step(&mut [0.0; 2], &[0.0; 2], &mut [0.0; 2], &mut [0.0; 3], &adam, 1, 1.0);
    }
}
