//! Normalisation of observations: every number of an observation on one scale, whatever its unit.
//!
//! The learner keeps the running mean and variance of all observations that it has trained on. They are tensors among the weights:
//! they travel with every snapshot and are saved in every checkpoint, but no gradient reaches them. A policy sees
//!
//! ```text
//! clip((x - mean) / sqrt(variance + 1e-8), -10, 10)
//! ```
//!
//! The learner takes a batch into account after its update, so that in lockstep the policy that acted and the one that learns
//! see the same numbers.

use candle_core::{Device, Tensor};

use super::error::PolicyError;
use super::parameters::ParameterSpec;
use super::snapshot::Weights;
use crate::kernels::{update_in_place, with_slice};

/// Names of the tensors: means `[I]`, variances `[I]`, and the number of observations `[1]` they were taken of.
const MEAN: &str = "observation.mean";
/// See [`MEAN`].
const VARIANCE: &str = "observation.variance";
/// See [`MEAN`].
const COUNT: &str = "observation.count";

/// Keeps a number that never changed from being blown up.
const EPSILON: f32 = 1e-8;

/// Bound of what the policy sees.
const CLIP: f32 = 10.0;

/// The statistics of `inputs` numbers before any observation was seen.
pub(super) fn parameters(inputs: usize) -> [ParameterSpec; 3] {
    [(MEAN, inputs, 0.0), (VARIANCE, inputs, 1.0), (COUNT, 1, 0.0)]
        .map(|(name, len, value)| ParameterSpec::constant(name, vec![len], value))
}

/// The statistics of a policy's weights, which it shares.
#[derive(Debug, Clone)]
pub(super) struct Normalizer {
    mean: Tensor,
    variance: Tensor,
}

impl Normalizer {
    /// The statistics of `inputs` numbers among `weights`.
    pub(super) fn new(weights: &Weights, inputs: usize) -> Result<Self, PolicyError> {
        Ok(Self { mean: weights.get(MEAN, &[inputs])?, variance: weights.get(VARIANCE, &[inputs])? })
    }

    /// Normalises rows of observations, `[N, I]`. Records no graph: nothing learns through observations.
    pub(super) fn apply(&self, input: &Tensor) -> Result<Tensor, PolicyError> {
        let (rows, inputs) = input.dims2()?;
        let mut out = vec![0f32; rows * inputs];
        let scale: Vec<f32> = with_slice(&self.variance, |variance: &[f32]| {
            variance.iter().map(|variance| 1.0 / (variance + EPSILON).sqrt()).collect()
        })?;
        with_slice(&self.mean, |mean: &[f32]| {
            with_slice(&input.contiguous()?, |input: &[f32]| {
                for (out, row) in out.chunks_exact_mut(inputs).zip(input.chunks_exact(inputs)) {
                    for (((out, x), mean), scale) in out.iter_mut().zip(row).zip(mean).zip(&scale) {
                        *out = ((x - mean) * scale).clamp(-CLIP, CLIP);
                    }
                }
            })
        })??;
        Ok(Tensor::from_vec(out, (rows, inputs), &Device::Cpu)?)
    }
}

/// Takes rows of observations, `[N, I]` in C order, into the statistics among `weights`, in place (Chan et al. 1979).
///
/// # Errors
/// If there are no such statistics.
pub fn absorb(weights: &Weights, inputs: usize, rows: &[f32]) -> Result<(), PolicyError> {
    let added = (rows.len() / inputs) as f64;
    if added == 0.0 {
        return Ok(());
    }
    let (mut means, mut squares) = (vec![0f64; inputs], vec![0f64; inputs]);
    for row in rows.chunks_exact(inputs) {
        means.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / added);
    }
    for row in rows.chunks_exact(inputs) {
        let deviations = squares.iter_mut().zip(row).zip(&means);
        deviations.for_each(|((square, x), mean)| *square += (f64::from(*x) - mean).powi(2));
    }
    let (mean, variance, count) =
        (weights.get(MEAN, &[inputs])?, weights.get(VARIANCE, &[inputs])?, weights.get(COUNT, &[1])?);
    let before = with_slice(&count, |count: &[f32]| f64::from(count[0]))?;
    let total = before + added;
    update_in_place(&mean, |mean| {
        update_in_place(&variance, |variance| {
            for (((mean, variance), of_rows), squares) in
                mean.iter_mut().zip(variance).zip(&means).zip(&squares)
            {
                let apart = of_rows - f64::from(*mean);
                let sum = f64::from(*variance) * before + squares + apart * apart * before * added / total;
                *variance = (sum / total) as f32;
                *mean = (f64::from(*mean) + apart * added / total) as f32;
            }
        })
    })??;
    Ok(update_in_place(&count, |count| count[0] = total as f32)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Weights {
        let tensor = |values: Vec<f32>| Tensor::new(values, &Device::Cpu).unwrap();
        Weights(vec![
            (MEAN.into(), tensor(vec![0.0; 2])),
            (VARIANCE.into(), tensor(vec![1.0; 2])),
            (COUNT.into(), tensor(vec![0.0])),
        ])
    }

    #[test]
    fn statistics_of_parts_are_those_of_the_whole() {
        let rows: Vec<f32> =
            (0..60).map(|i| (i as f32 * 0.7).sin() * 3.0 + if i % 2 == 0 { 100.0 } else { 0.0 }).collect();
        let weights = fresh();
        for part in [&rows[..6], &rows[6..40], &[], &rows[40..]] {
            absorb(&weights, 2, part).unwrap();
        }
        let values = |name: &str, len| weights.get(name, &[len]).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(COUNT, 1), [30.0]);
        for column in 0..2 {
            let of_column: Vec<f64> = rows.iter().skip(column).step_by(2).map(|x| f64::from(*x)).collect();
            let mean = of_column.iter().sum::<f64>() / 30.0;
            let variance = of_column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 30.0;
            assert!((f64::from(values(MEAN, 2)[column]) - mean).abs() < 1e-5);
            assert!((f64::from(values(VARIANCE, 2)[column]) - variance).abs() < 1e-4);
        }
    }

    #[test]
    fn what_the_policy_sees_has_mean_0_and_variance_1_within_the_clip() {
        let weights = fresh();
        let rows = [10.0f32, 5.0, 14.0, 5.0];
        absorb(&weights, 2, &rows).unwrap();
        let normalizer = Normalizer::new(&weights, 2).unwrap();
        let seen = |row: [f32; 2]| {
            normalizer.apply(&Tensor::new(&[row], &Device::Cpu).unwrap()).unwrap().to_vec2::<f32>().unwrap()
        };
        assert_eq!(seen([10.0, 5.0]), [[-1.0, 0.0]]);
        assert_eq!(seen([14.0, 5.0]), [[1.0, 0.0]]);
        assert_eq!(seen([1e6, 5.1]), [[10.0, 10.0]]);
    }
}
