//! TD(lambda) returns: every n-step return at once, geometrically weighted.
//!
//! Sutton and Barto, "Reinforcement Learning: An Introduction", 2nd edition, 2018, equation (12.9) in
//! its recursive form (12.18), truncated at the end of the slice; rlax's `lambda_returns`.

use super::layout::{assert_len, assert_trajectory, row, row_and_next};

/// Lambda returns of one environment column, `[T]`.
///
/// - `discounts`: `[T]`, gamma, or 0 where the episode ended
/// - `rewards`: `[T]`
/// - `values`: `[T + 1]`, the bootstrap last; `values[0]` is not used
/// - `lambda`: 0 is the one-step return, 1 the return up to the bootstrap
///
/// Backwards from `G[T] = values[T]`:
///
/// ```text
/// G[t] = r[t] + discount[t] * ((1 - lambda) * values[t+1] + lambda * G[t+1])
/// ```
///
/// # Panics
///
/// When the lengths do not agree.
pub fn lambda_returns(discounts: &[f32], rewards: &[f32], values: &[f32], lambda: f32) -> Vec<f32> {
    let time = rewards.len();
    let mut returns = vec![0.0; time];
    lambda_returns_batch(time, 1, discounts, rewards, values, lambda, &mut returns);
    returns
}

/// [`lambda_returns`] on every column of a `[T, B]` batch, into the buffer `returns`.
///
/// `discounts`, `rewards` and `returns` are `[T, B]`, `values` is `[T + 1, B]`. What the buffer held
/// before does not matter.
///
/// # Panics
///
/// When a length does not agree with `time` and `batch`.
pub fn lambda_returns_batch(
    time: usize,
    batch: usize,
    discounts: &[f32],
    rewards: &[f32],
    values: &[f32],
    lambda: f32,
    returns: &mut [f32],
) {
    assert_trajectory(time, batch, discounts, rewards, values);
    assert_len("returns", returns, time * batch, "T * B");

    for t in (0..time).rev() {
        let r_t = row(rewards, batch, t);
        let discount_t = row(discounts, batch, t);
        let v_t = row(values, batch, t + 1);
        let (return_tm1, return_t) = row_and_next(returns, v_t, batch, t);

        for j in 0..batch {
            let mixed_t = (1.0 - lambda) * v_t[j] + lambda * return_t[j];
            return_tm1[j] = r_t[j] + discount_t[j] * mixed_t;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Trajectory, assert_close, columns_of, trajectories, trajectory};
    use super::super::{discounted_returns, n_step_returns};
    use super::*;

    /// The return of `n` steps from `s`, bootstrapped, in f64.
    fn n_step(x: &Trajectory, s: usize, n: usize) -> f64 {
        let discounted = |to: usize| (s..to).map(|i| f64::from(x.discounts[i])).product::<f64>();
        (s..s + n).map(|t| discounted(t) * f64::from(x.rewards[t])).sum::<f64>()
            + discounted(s + n) * f64::from(x.values[s + n])
    }

    /// Equation (12.9): the mixture of all n-step returns, the longest taking the weight that is left.
    fn by_the_mixture(x: &Trajectory, lambda: f32) -> Vec<f64> {
        let (time, lambda) = (x.rewards.len(), f64::from(lambda));
        (0..time)
            .map(|s| {
                let longest = time - s;
                let weight = |n: usize| lambda.powi(n as i32 - 1);
                (1..longest).map(|n| (1.0 - lambda) * weight(n) * n_step(x, s, n)).sum::<f64>()
                    + weight(longest) * n_step(x, s, longest)
            })
            .collect()
    }

    proptest! {
        #[test]
        fn is_the_mixture_of_all_n_step_returns(x in trajectory(), lambda in 0.0f32..=1.0) {
            let returns = lambda_returns(&x.discounts, &x.rewards, &x.values, lambda);
            assert_close(&returns, &by_the_mixture(&x, lambda));
        }

        #[test]
        fn lambda_zero_looks_one_step_ahead(x in trajectory()) {
            let returns = lambda_returns(&x.discounts, &x.rewards, &x.values, 0.0);
            assert_close(&returns, &n_step_returns(&x.discounts, &x.rewards, &x.values, 1));
        }

        #[test]
        fn lambda_one_is_the_discounted_return(x in trajectory()) {
            let bootstrap = x.values[x.rewards.len()];
            let returns = lambda_returns(&x.discounts, &x.rewards, &x.values, 1.0);
            assert_close(&returns, &discounted_returns(&x.discounts, &x.rewards, bootstrap));
        }

        #[test]
        fn batched_equals_column_by_column(batch in trajectories(), lambda in 0.0f32..=1.0) {
            let mut returns = vec![f32::NAN; batch.time * batch.batch];
            let b = &batch.data;
            lambda_returns_batch(
                batch.time, batch.batch, &b.discounts, &b.rewards, &b.values, lambda, &mut returns,
            );
            let returns = columns_of(&returns, batch.batch);
            for (j, column) in batch.columns.iter().enumerate() {
                let expected = lambda_returns(&column.discounts, &column.rewards, &column.values, lambda);
                prop_assert_eq!(&returns[j], &expected);
            }
        }
    }

    #[test]
    #[should_panic(expected = "values has 2 entries, but (T + 1) * B = 3")]
    fn a_missing_bootstrap_is_named() {
        lambda_returns(&[0.9; 2], &[1.0; 2], &[0.0; 2], 1.0);
    }
}
