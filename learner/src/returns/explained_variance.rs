//! Explained variance: the diagnostic that tells whether a value function predicts its targets.

use super::layout::assert_len;

/// `1 - Var[targets - predictions] / Var[targets]`.
///
/// 1 is a perfect prediction (up to a constant), 0 no better than a constant, negative worse than one.
/// NaN when the targets do not vary (none included): then there is nothing to explain. Sums run in
/// `f64`, so that large batches of nearly equal targets keep their digits.
///
/// # Panics
///
/// When the lengths do not agree.
pub fn explained_variance(predictions: &[f32], targets: &[f32]) -> f32 {
    assert_len("predictions", predictions, targets.len(), "the number of targets");

    let pairs = || targets.iter().zip(predictions).map(|(&y, &p)| (f64::from(y), f64::from(p)));
    let target_variance = variance(pairs().map(|(y, _)| y));
    if target_variance == 0.0 {
        return f32::NAN;
    }
    (1.0 - variance(pairs().map(|(y, p)| y - p)) / target_variance) as f32
}

/// Population variance, in two passes; NaN of nothing.
fn variance(xs: impl Iterator<Item = f64> + Clone) -> f64 {
    let n = xs.clone().count() as f64;
    let mean = xs.clone().sum::<f64>() / n;
    xs.map(|x| (x - mean).powi(2)).sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_perfect_prediction_explains_everything(
            targets in prop::collection::vec(-100.0f32..100.0, 2..50)
        ) {
            prop_assume!(targets.iter().any(|y| *y != targets[0]));
            prop_assert_eq!(explained_variance(&targets, &targets), 1.0);
        }

        #[test]
        fn a_constant_explains_nothing(
            targets in prop::collection::vec(-100.0f32..100.0, 2..50),
            constant in -100.0f32..100.0,
        ) {
            prop_assume!(targets.iter().any(|y| (*y - targets[0]).abs() > 1e-3));
            let explained = explained_variance(&vec![constant; targets.len()], &targets);
            prop_assert!(explained.abs() < 1e-6, "{}", explained);
        }
    }

    #[test]
    fn half_the_signal_explains_three_quarters() {
        assert_eq!(explained_variance(&[1.0, -1.0], &[2.0, -2.0]), 0.75);
    }

    #[test]
    fn the_opposite_is_worse_than_a_constant() {
        assert_eq!(explained_variance(&[-1.0, 1.0], &[1.0, -1.0]), -3.0);
    }

    #[test]
    fn a_small_variance_far_from_zero_keeps_its_digits() {
        let targets = [10_000.0, 10_000.25, 10_000.5, 10_000.25];
        assert_eq!(explained_variance(&[10_000.25; 4], &targets), 0.0);
    }

    #[test]
    fn targets_that_do_not_vary_have_nothing_to_explain() {
        assert!(explained_variance(&[1.0, 2.0], &[3.0, 3.0]).is_nan());
        assert!(explained_variance(&[], &[]).is_nan());
    }

    #[test]
    #[should_panic(expected = "predictions has 1 entries, but the number of targets = 2")]
    fn unequal_lengths_are_refused() {
        explained_variance(&[1.0], &[1.0, 2.0]);
    }
}
