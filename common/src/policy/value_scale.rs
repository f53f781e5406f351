//! PopArt: value estimates on one scale, whatever the rewards' (van Hasselt et al. 2016, <https://arxiv.org/abs/1602.07714>;
//! Hessel et al. 2019, <https://arxiv.org/abs/1809.04474>).
//!
//! The learner keeps the running mean and variance of the value targets. The value head is taught the normalised ones,
//! `n = (target - mean) / deviation`, and what it says stands for the value
//!
//! ```text
//! V(x) = deviation * n(x) + mean        n(x) = weight . features(x) + bias
//! ```
//!
//! Whenever the statistics move, weight and bias of the head move against them ([`absorb`]), so that every `V(x)` is what it
//! was:
//!
//! ```text
//! weight' = weight * deviation / deviation'        bias' = (deviation * bias + mean - mean') / deviation'
//! ```
//!
//! The statistics are tensors among the weights, like those of [`super::normalizer`]: they travel with every snapshot and are
//! saved in every checkpoint, but no gradient reaches them. The papers keep the mean of the squares; its variance is kept
//! here, which follows by the same rule and does not vanish beside a large mean.

use candle_core::Tensor;

use super::error::PolicyError;
use super::parameters::ParameterSpec;
use super::snapshot::Weights;
use crate::config::PolicySection;
use crate::kernels::{update_in_place, with_slice};

/// Names of the tensors, `[1]` each: the mean of value targets, their variance, and the share of both that does not come from
/// their start, by which the start is made up for.
const MEAN: &str = "value_target.mean";
/// See [`MEAN`].
const VARIANCE: &str = "value_target.variance";
/// See [`MEAN`].
const MASS: &str = "value_target.mass";

/// The head's parameters, which move against the statistics.
const HEAD: [&str; 2] = ["value.weight", "value.bias"];

/// The statistics before any target was seen.
pub(super) fn parameters() -> [ParameterSpec; 3] {
    [(MEAN, 0.0), (VARIANCE, 1.0), (MASS, 0.0)]
        .map(|(name, value)| ParameterSpec::constant(name, vec![1], value))
}

/// What the value head's numbers stand for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValueScale {
    /// The value that 0 stands for, in scaled rewards.
    pub mean: f32,
    /// By how much the values of two numbers differ whose difference is 1.
    pub deviation: f32,
}

impl ValueScale {
    /// Numbers that stand for themselves.
    pub const IDENTITY: Self = Self { mean: 0.0, deviation: 1.0 };

    /// The scale that the statistics among `weights` make; before any target it is the identity.
    ///
    /// # Errors
    /// If there are no such statistics.
    pub fn of(weights: &Weights, section: &PolicySection) -> Result<Self, PolicyError> {
        match number(weights, MASS)? {
            0.0 => Ok(Self::IDENTITY),
            _ => Ok(Self::new(number(weights, MEAN)?, number(weights, VARIANCE)?, section)),
        }
    }

    fn new(mean: f32, variance: f32, section: &PolicySection) -> Self {
        let deviation = variance.sqrt().clamp(section.min_value_deviation, section.max_value_deviation);
        Self { mean, deviation }
    }

    /// Makes what the head says values.
    pub fn denormalize(&self, numbers: &mut [f32]) {
        if *self != Self::IDENTITY {
            let (mean, deviation) = (f64::from(self.mean), f64::from(self.deviation));
            numbers.iter_mut().for_each(|n| *n = (f64::from(*n) * deviation + mean) as f32);
        }
    }

    /// Makes values what the head should say.
    pub fn normalize(&self, values: &mut [f32]) {
        if *self != Self::IDENTITY {
            let (mean, deviation) = (f64::from(self.mean), f64::from(self.deviation));
            values.iter_mut().for_each(|v| *v = ((f64::from(*v) - mean) / deviation) as f32);
        }
    }

    /// Makes differences of values, such as advantages, those of what the head says.
    pub fn normalize_differences(&self, differences: &mut [f32]) {
        if self.deviation != 1.0 {
            differences.iter_mut().for_each(|d| *d /= self.deviation);
        }
    }
}

/// Takes value targets into the statistics among `weights`, and moves the value head so that every value stays, all in
/// place; the scale from now on. Targets that are not all finite change nothing.
///
/// Mean and variance go towards those of `targets` by the share `value_statistics_step`. The first targets give them
/// altogether, and later ones more than their share until the start is forgotten, as Adam corrects its moments.
///
/// # Errors
/// If there are no such statistics, or no value head.
pub fn absorb(
    weights: &Weights,
    targets: &[f32],
    section: &PolicySection,
) -> Result<ValueScale, PolicyError> {
    let before = ValueScale::of(weights, section)?;
    let count = targets.len() as f64;
    let mean_of_targets = targets.iter().map(|t| f64::from(*t)).sum::<f64>() / count;
    let variance_of_targets =
        targets.iter().map(|t| (f64::from(*t) - mean_of_targets).powi(2)).sum::<f64>() / count;
    let representable =
        mean_of_targets.abs() < f64::from(f32::MAX) && variance_of_targets < f64::from(f32::MAX);
    // No targets make neither.
    if !(mean_of_targets.is_finite() && variance_of_targets.is_finite() && representable) {
        return Ok(before);
    }
    let [mean, variance, mass] = [MEAN, VARIANCE, MASS].map(|name| number(weights, name).map(f64::from));
    let (mean, variance, mass) = (mean?, variance?, mass?);
    let step = f64::from(section.value_statistics_step);
    let new_mass = mass + step * (1.0 - mass);
    let share = step / new_mass;
    let apart = mean_of_targets - mean;
    let new_mean = (mean + share * apart) as f32;
    let new_variance = ((1.0 - share) * variance
        + share * variance_of_targets
        + share * (1.0 - share) * apart * apart) as f32;
    let after = ValueScale::new(new_mean, new_variance, section);
    for (name, value) in [(MEAN, new_mean), (VARIANCE, new_variance), (MASS, new_mass as f32)] {
        update_in_place(&weights.get(name, &[1])?, |tensor| tensor[0] = value)?;
    }
    move_head(weights, before, after)?;
    Ok(after)
}

/// Moves the value head so that what stood for a value `before` stands for it `after`.
fn move_head(weights: &Weights, before: ValueScale, after: ValueScale) -> Result<(), PolicyError> {
    let [weight, bias] = HEAD.map(|name| tensor(weights, name));
    let (weight, bias) = (weight?, bias?);
    let ratio = f64::from(before.deviation) / f64::from(after.deviation);
    let shift = (f64::from(before.mean) - f64::from(after.mean)) / f64::from(after.deviation);
    update_in_place(&weight, |weight| {
        weight.iter_mut().for_each(|w| *w = (f64::from(*w) * ratio) as f32);
    })?;
    update_in_place(&bias, |bias| {
        bias.iter_mut().for_each(|b| *b = (f64::from(*b) * ratio + shift) as f32);
    })?;
    Ok(())
}

/// Copies of all that [`absorb`] changes, with their names.
///
/// # Errors
/// If there are no statistics, or no value head.
pub fn saved(weights: &Weights) -> Result<Weights, PolicyError> {
    let names = [MEAN, VARIANCE, MASS].into_iter().chain(HEAD);
    let named = |name: &str| Ok((name.to_owned(), tensor(weights, name)?));
    Weights(names.map(named).collect::<Result<_, PolicyError>>()?).copied()
}

/// Undoes what [`absorb`] did since `saved` was taken.
///
/// # Errors
/// If `saved` is of other weights.
pub fn go_back(weights: &Weights, saved: &Weights) -> Result<(), PolicyError> {
    for (name, from) in &saved.0 {
        let to = weights.get(name, from.dims())?;
        with_slice(from, |from: &[f32]| update_in_place(&to, |to| to.copy_from_slice(from)))??;
    }
    Ok(())
}

fn tensor(weights: &Weights, name: &str) -> Result<Tensor, PolicyError> {
    let found = weights.0.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor.clone());
    found.ok_or_else(|| PolicyError::Weights(format!("there is no {name}")))
}

fn number(weights: &Weights, name: &str) -> Result<f32, PolicyError> {
    Ok(with_slice(&weights.get(name, &[1])?, |tensor: &[f32]| tensor[0])?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use proptest::prelude::*;

    use super::*;
    use crate::policy::{Policy, PolicySpec};
    use crate::space::{EnvironmentSpec, Space};

    fn section(step: f32) -> PolicySection {
        PolicySection {
            hidden: vec![7, 5].into(),
            normalize_values: true,
            value_statistics_step: step,
            ..PolicySection::default()
        }
    }

    fn spec(section: &PolicySection) -> PolicySpec {
        let observation = Space::boxed(&[f32::NEG_INFINITY; 3], &[f32::INFINITY; 3]);
        let environment = EnvironmentSpec::new("Test-v0", observation, Space::Discrete { n: 2 });
        PolicySpec::new(&environment, section).unwrap()
    }

    /// What `weights` say of some observations: the head's numbers and the values.
    fn said(spec: &PolicySpec, weights: &Weights, section: &PolicySection) -> (Vec<f32>, Vec<f32>) {
        let observations: Vec<f32> = (0..30).map(|i| (i as f32 * 1.3).sin() * 2.0).collect();
        let observations = Tensor::from_vec(observations, (10, 3), &Device::Cpu).unwrap();
        let policy = Policy::new(spec, weights).unwrap();
        let numbers = policy.forward(&observations).unwrap().values.to_vec1::<f32>().unwrap();
        let mut values = numbers.clone();
        ValueScale::of(weights, section).unwrap().denormalize(&mut values);
        (numbers, values)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn values_stay_whatever_the_targets_and_however_often_they_change(
            seed in 0u64..1000,
            step in 1e-3f32..1.0,
            shared_encoder: bool,
            batches in prop::collection::vec((-1e4f32..1e4, -3f32..4.0, 1usize..40), 1..6),
        ) {
            let section = PolicySection { shared_encoder, ..section(step) };
            let spec = spec(&section);
            let weights = spec.initialise(seed).unwrap();
            for (middle, magnitude, count) in batches {
                let spread = 10f32.powf(magnitude);
                let targets: Vec<f32> =
                    (0..count).map(|i| middle + spread * (i as f32 * 0.7 + seed as f32).sin()).collect();
                let (_, before) = said(&spec, &weights, &section);
                let old = ValueScale::of(&weights, &section).unwrap();
                let scale = absorb(&weights, &targets, &section).unwrap();
                prop_assert_eq!(scale, ValueScale::of(&weights, &section).unwrap());
                let (_, after) = said(&spec, &weights, &section);
                // The numbers that are added up, each of which is rounded to 24 bits.
                let size = [old.mean, scale.mean, old.deviation, scale.deviation];
                let size = size.iter().chain(&before).fold(0f32, |most, x| most.max(x.abs()));
                for (before, after) in before.iter().zip(&after) {
                    prop_assert!((before - after).abs() <= 4e-6 * size, "{before} became {after}: {scale:?}");
                }
            }
        }
    }

    #[test]
    fn statistics_are_weighed_means_of_the_batches_and_the_first_batch_counts_whole() {
        let section = section(0.25);
        let weights = spec(&section).initialise(1).unwrap();
        assert_eq!(ValueScale::of(&weights, &section).unwrap(), ValueScale::IDENTITY);
        let first = absorb(&weights, &[1000.0, 3000.0], &section).unwrap();
        assert_eq!(first, ValueScale { mean: 2000.0, deviation: 1000.0 });
        let second = absorb(&weights, &[-500.0, 100.0, 700.0, 700.0], &section).unwrap();
        // By first and second moments, as the paper has it, with weights 0.75 * 0.25 and 0.25.
        let (old, new) = (0.75 * 0.25, 0.25);
        let mean = (old * 2000.0 + new * 250.0) / (old + new);
        let square = (old * 5e6 + new * (25e4 + 1e4 + 98e4) / 4.0) / (old + new);
        assert!((f64::from(second.mean) - mean).abs() < 1e-3, "{second:?}");
        assert!((f64::from(second.deviation) - (square - mean * mean).sqrt()).abs() < 1e-3, "{second:?}");
    }

    #[test]
    fn the_deviation_keeps_its_bounds_and_targets_that_are_no_numbers_change_nothing() {
        let section = PolicySection { min_value_deviation: 0.5, max_value_deviation: 20.0, ..section(1.0) };
        let spec = spec(&section);
        let weights = spec.initialise(1).unwrap();
        assert_eq!(absorb(&weights, &[7.0; 3], &section).unwrap(), ValueScale { mean: 7.0, deviation: 0.5 });
        assert_eq!(absorb(&weights, &[-100.0, 100.0], &section).unwrap().deviation, 20.0);
        let before = said(&spec, &weights, &section);
        for targets in [&[1.0, f32::NAN][..], &[f32::INFINITY], &[f32::MAX, -f32::MAX], &[]] {
            let scale = absorb(&weights, targets, &section).unwrap();
            assert_eq!(scale, ValueScale { mean: 0.0, deviation: 20.0 });
            assert_eq!(said(&spec, &weights, &section), before);
        }
    }

    #[test]
    fn what_was_absorbed_can_be_undone_bit_for_bit() {
        let section = section(0.1);
        let spec = spec(&section);
        let weights = spec.initialise(1).unwrap();
        absorb(&weights, &[3.0, 9.0], &section).unwrap();
        let (before, kept) = (said(&spec, &weights, &section), saved(&weights).unwrap());
        absorb(&weights, &[-1e6, 9.0], &section).unwrap();
        assert_ne!(said(&spec, &weights, &section), before);
        go_back(&weights, &kept).unwrap();
        assert_eq!(said(&spec, &weights, &section), before);
    }
}
