//! [`StateNoise`]: the noise of generalised state-dependent exploration (Raffin et al. 2021,
//! <https://arxiv.org/abs/2005.05719>).
//!
//! Each copy keeps a matrix `E` of standard normal numbers for a number of steps or an episode. The noise of an action is
//! `sum_i phi_i exp(L_ij) E_ij`: alike in like states, so that motion is smooth. The policy gives the features `phi` and
//! the logarithms `L`, those of its present version.

use candle_core::Result;
use impresario_common::kernels::{self, with_slice};
use impresario_common::policy::NoiseFeatures;
use impresario_common::random::{self, Stream};

/// The noise functions of E copies.
#[derive(Debug, Default)]
pub(super) struct StateNoise {
    /// `[E, H, D]`: standard normal numbers.
    matrices: Vec<f32>,
    /// `[E]`: steps that a copy's matrix has served; none where a new one is due.
    ages: Vec<Option<u32>>,
    /// `[H, D]`: `exp(L)`.
    scales: Vec<f32>,
    /// `[E, D]`: the noise of the present step.
    noise: Vec<f32>,
}

impl StateNoise {
    /// The episode of `copy` has ended: the next one has a noise function of its own.
    pub(super) fn end_episode(&mut self, copy: usize) {
        if let Some(age) = self.ages.get_mut(copy) {
            *age = None;
        }
    }

    /// The matrices, and for each copy the steps that its one has served and one; 0 where a new one is due.
    pub(super) fn save(&self) -> (Vec<f32>, Vec<u32>) {
        let age = |age: &Option<u32>| age.map_or(0, |age| age.saturating_add(1));
        (self.matrices.clone(), self.ages.iter().map(age).collect())
    }

    /// Goes on from what [`Self::save`] gave.
    pub(super) fn restore(&mut self, matrices: Vec<f32>, ages: &[u32]) {
        self.matrices = matrices;
        self.ages = ages.iter().map(|age| age.checked_sub(1)).collect();
    }

    /// The noise of a step, `[E, D]`, each copy's drawn from its own of the E `streams`.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub(super) fn draw(&mut self, of: &NoiseFeatures, streams: &mut [Stream]) -> Result<&[f32]> {
        let (copies, width) = of.features.dims2()?;
        let dimensions = of.log_std.dim(1)?;
        let size = width * dimensions;
        if self.ages.len() != copies || self.matrices.len() != copies * size {
            self.ages = vec![None; copies];
            self.matrices = vec![0.0; copies * size];
        }
        self.scales.clear();
        with_slice(&of.log_std, |log_std: &[f32]| self.scales.extend_from_slice(log_std))?;
        kernels::exp(&mut self.scales);
        self.noise.clear();
        self.noise.resize(copies * dimensions, 0.0);
        let copies = self.matrices.chunks_exact_mut(size).zip(&mut self.ages).zip(streams);
        with_slice(&of.features, |features: &[f32]| {
            for ((((matrix, age), random), features), noise) in
                copies.zip(features.chunks_exact(width)).zip(self.noise.chunks_exact_mut(dimensions))
            {
                let served = age.filter(|age| of.resample_steps == 0 || *age < of.resample_steps);
                if served.is_none() {
                    matrix.fill_with(|| random::normal(random) as f32);
                }
                *age = Some(served.unwrap_or(0).saturating_add(1));
                let rows = matrix.chunks_exact(dimensions).zip(self.scales.chunks_exact(dimensions));
                for (phi, (coefficients, scales)) in features.iter().zip(rows) {
                    for ((noise, coefficient), scale) in noise.iter_mut().zip(coefficients).zip(scales) {
                        *noise += phi * scale * coefficient;
                    }
                }
            }
        })?;
        Ok(&self.noise)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use impresario_common::random::{Purpose, stream};

    use super::*;

    const LOG_STD: [[f32; 2]; 3] = [[-0.5, 0.3], [-1.0, -0.2], [0.1, -2.0]];

    fn of(rows: &[[f32; 3]; 2], resample_steps: u32) -> NoiseFeatures {
        NoiseFeatures {
            features: Tensor::new(rows, &Device::Cpu).unwrap(),
            log_std: Tensor::new(&LOG_STD, &Device::Cpu).unwrap(),
            resample_steps,
        }
    }

    fn streams() -> Vec<Stream> {
        (0..2).map(|copy| stream(1, Purpose::Actions, [0, 0, copy])).collect()
    }

    #[test]
    fn over_many_matrices_the_noise_has_the_covariance_that_the_policy_says() {
        const DRAWS: usize = 20_000;
        let phi = [0.8f32, -1.5, 0.4];
        let (features, mut streams) = (of(&[phi, phi], 1), streams());
        let mut noise = StateNoise::default();
        // Second moments of both copies' two numbers.
        let mut moments = [[0f64; 4]; 4];
        for _ in 0..DRAWS {
            let drawn = noise.draw(&features, &mut streams).unwrap();
            for (a, row) in drawn.iter().zip(&mut moments) {
                drawn.iter().zip(row).for_each(|(b, sum)| *sum += f64::from(a * b) / DRAWS as f64);
            }
        }
        let variance = |j: usize| -> f64 {
            (0..3).map(|i| f64::from(phi[i]).powi(2) * (2.0 * f64::from(LOG_STD[i][j])).exp()).sum()
        };
        for (a, row) in moments.iter().enumerate() {
            for (b, moment) in row.iter().enumerate() {
                let (of_a, of_b) = (variance(a % 2), variance(b % 2));
                let (expected, spread) = if a == b { (of_a, 2.0) } else { (0.0, 1.0) };
                let bound = 4.0 * (spread * of_a * of_b / DRAWS as f64).sqrt();
                assert!((moment - expected).abs() < bound, "{a} {b}: {moment}, expected {expected}");
            }
        }
    }

    #[test]
    fn a_noise_function_is_kept_for_its_steps_and_its_episode() {
        let mut streams = streams();
        let mut noise = StateNoise::default();
        let mut draw = |noise: &mut StateNoise, rows: [[f32; 3]; 2], steps| {
            noise.draw(&of(&rows, steps), &mut streams).unwrap().to_vec()
        };
        let (once, twice) = ([[1.0, 0.5, -1.0]; 2], [[2.0, 1.0, -2.0]; 2]);
        // It is linear in the features.
        let first = draw(&mut noise, once, 3);
        let doubled: Vec<f32> = first.iter().map(|x| 2.0 * x).collect();
        assert_eq!(draw(&mut noise, twice, 3), doubled);
        assert_eq!(draw(&mut noise, once, 3), first);
        let second = draw(&mut noise, once, 3);
        assert!(first.iter().zip(&second).all(|(a, b)| a != b));
        // The copies' functions differ; the end of an episode concerns its own copy alone.
        assert_ne!(first[..2], first[2..]);
        noise.end_episode(0);
        let third = draw(&mut noise, once, 0);
        assert!(third[..2] != second[..2] && third[2..] == second[2..]);
        for _ in 0..100 {
            assert_eq!(draw(&mut noise, once, 0), third);
        }
    }
}
