//! The Fisher information of a distribution with respect to its own parameters, times a vector.
//!
//! It is the Hessian of `KL(p || q)` in `q` at `q = p`, the metric of the natural gradient. For logits it is
//! `diag(p) - p p^T` for each choice; for a normal `1 / std^2` for each mean and 2 for each logarithm of a standard
//! deviation. Squashing actions changes nothing: the divergence of two distributions does not depend on how their
//! outcomes are written down.

use super::{ActionDistribution, Kind};

impl ActionDistribution {
    /// Multiplies each row of `tangents` by the Fisher matrix at the row of `params`; all are `[N, P]`.
    ///
    /// # Panics
    /// If the lengths differ or hold no whole rows.
    pub fn fisher_product(&self, params: &[f32], tangents: &[f32], out: &mut [f32]) {
        let width = self.parameter_count();
        assert!(params.len() == tangents.len() && params.len() == out.len(), "one row of each");
        assert_eq!(params.len() % width, 0, "whole rows of parameters");
        let rows = params.chunks_exact(width).zip(tangents.chunks_exact(width));
        for ((params, tangents), out) in rows.zip(out.chunks_exact_mut(width)) {
            match &self.kind {
                Kind::Categorical { alternatives } => {
                    let mut start = 0;
                    for count in alternatives.iter() {
                        let choice = start..start + count;
                        categorical(&params[choice.clone()], &tangents[choice.clone()], &mut out[choice]);
                        start += count;
                    }
                }
                Kind::Gaussian { dimensions, .. } => {
                    let log_std = &params[*dimensions..];
                    for at in 0..*dimensions {
                        out[at] = tangents[at] * (-2.0 * log_std[at]).exp();
                        out[dimensions + at] = 2.0 * tangents[dimensions + at];
                    }
                }
            }
        }
    }
}

/// `(diag(p) - p p^T) v`. An impossible alternative (a logit of `-inf`) takes no part.
fn categorical(logits: &[f32], tangents: &[f32], out: &mut [f32]) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for (out, logit) in out.iter_mut().zip(logits) {
        *out = (logit - max).exp();
        sum += *out;
    }
    let mut mean = 0.0;
    for (p, tangent) in out.iter_mut().zip(tangents) {
        *p /= sum;
        if *p > 0.0 {
            mean += *p * tangent;
        }
    }
    for (p, tangent) in out.iter_mut().zip(tangents) {
        *p = if *p > 0.0 { *p * (tangent - mean) } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::Space;

    #[test]
    fn the_product_is_the_curvature_of_the_divergence() {
        let cases: [(Space, Vec<f32>); 2] = [
            (Space::MultiDiscrete { nvec: vec![3, 2] }, vec![0.3, -0.7, 1.1, 0.4, -0.2]),
            (Space::boxed(&[-1.0; 2], &[1.0; 2]), vec![0.3, -0.7, 0.2, -0.4]),
        ];
        for (space, params) in cases {
            let distribution = ActionDistribution::new(&space).unwrap();
            let tangent: Vec<f32> = (0..params.len()).map(|i| 0.5 - 0.3 * i as f32).collect();
            let mut product = vec![0.0; params.len()];
            distribution.fisher_product(&params, &tangent, &mut product);
            // The divergence along v is v^T F v / 2 times the step squared.
            let step = 0.05f32;
            let moved =
                |by: f32| -> Vec<f32> { params.iter().zip(&tangent).map(|(p, t)| p + by * t).collect() };
            let divergence =
                0.5 * (distribution.kl(&params, &moved(step)) + distribution.kl(&params, &moved(-step)));
            let curvature = 2.0 * divergence / (step * step);
            let quadratic: f32 = product.iter().zip(&tangent).map(|(a, b)| a * b).sum();
            assert!((curvature - quadratic).abs() < 5e-3 * quadratic, "{space}: {curvature} and {quadratic}");
        }
    }

    #[test]
    fn impossible_alternatives_take_no_part() {
        let distribution = ActionDistribution::new(&Space::Discrete { n: 3 }).unwrap();
        let mut product = [0.0; 3];
        distribution.fisher_product(&[0.0, f32::NEG_INFINITY, 0.0], &[1.0, f32::NAN, 0.0], &mut product);
        assert_eq!(product, [0.25, 0.0, -0.25]);
    }
}
