//! n-step bootstrapped returns.
//!
//! Sutton and Barto, "Reinforcement Learning: An Introduction", 2nd edition, 2018, equation (7.1); A3C
//! (<https://arxiv.org/abs/1602.01783>, algorithm S3) uses them with `n` no shorter than the unroll. At
//! the end of the slice as rlax's `n_step_bootstrapped_returns`.

use super::layout::{assert_len, assert_trajectory, row, row_and_next};

/// n-step returns of one environment column, `[T]`.
///
/// - `discounts`: `[T]`, gamma, or 0 where the episode ended
/// - `rewards`: `[T]`
/// - `values`: `[T + 1]`, the bootstrap last; `values[0]` is not used
/// - `n`: steps before bootstrapping, at least 1
///
/// ```text
/// G[t] = r[t] + discount[t] * (r[t+1] + ... * (r[m-1] + discount[m-1] * values[m])),  m = min(t + n, T)
/// ```
///
/// Where fewer than `n` steps remain, the bootstrap is the one at the end of the slice.
///
/// # Panics
///
/// When the lengths do not agree, or `n` is 0.
pub fn n_step_returns(discounts: &[f32], rewards: &[f32], values: &[f32], n: usize) -> Vec<f32> {
    let time = rewards.len();
    let mut returns = vec![0.0; time];
    n_step_returns_batch(time, 1, discounts, rewards, values, n, &mut returns);
    returns
}

/// [`n_step_returns`] on every column of a `[T, B]` batch, into the buffer `returns`.
///
/// `discounts`, `rewards` and `returns` are `[T, B]`, `values` is `[T + 1, B]`. What the buffer held
/// before does not matter.
///
/// # Panics
///
/// When a length does not agree with `time` and `batch`, or `n` is 0.
pub fn n_step_returns_batch(
    time: usize,
    batch: usize,
    discounts: &[f32],
    rewards: &[f32],
    values: &[f32],
    n: usize,
    returns: &mut [f32],
) {
    assert_trajectory(time, batch, discounts, rewards, values);
    assert_len("returns", returns, time * batch, "T * B");
    assert!(n > 0, "n is 0, but a return looks at least one step ahead");

    let first_short = time.saturating_sub(n);
    // From here on every window ends with the slice: each return extends the one after it.
    for t in (first_short..time).rev() {
        let (return_tm1, return_t) = row_and_next(returns, row(values, batch, time), batch, t);
        for j in 0..batch {
            return_tm1[j] = rewards[t * batch + j] + discounts[t * batch + j] * return_t[j];
        }
    }
    // Before that every window has its own end, and its own backward pass from there.
    for t in 0..first_short {
        let return_tm1 = &mut returns[t * batch..(t + 1) * batch];
        return_tm1.copy_from_slice(row(values, batch, t + n));
        for i in (t..t + n).rev() {
            let r_t = row(rewards, batch, i);
            let discount_t = row(discounts, batch, i);
            for j in 0..batch {
                return_tm1[j] = r_t[j] + discount_t[j] * return_tm1[j];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::discounted_returns;
    use super::super::testing::{Trajectory, assert_close, columns_of, trajectories, trajectory};
    use super::*;

    /// Equation (7.1) as a sum, in f64.
    fn by_the_sum(x: &Trajectory, n: usize) -> Vec<f64> {
        let time = x.rewards.len();
        (0..time)
            .map(|s| {
                let end = time.min(s + n);
                let discounted = |to: usize| (s..to).map(|i| f64::from(x.discounts[i])).product::<f64>();
                (s..end).map(|t| discounted(t) * f64::from(x.rewards[t])).sum::<f64>()
                    + discounted(end) * f64::from(x.values[end])
            })
            .collect()
    }

    proptest! {
        #[test]
        fn agrees_with_the_sum_of_the_book(x in trajectory(), n in 1usize..30) {
            let returns = n_step_returns(&x.discounts, &x.rewards, &x.values, n);
            assert_close(&returns, &by_the_sum(&x, n));
        }

        #[test]
        fn longer_than_the_slice_is_the_discounted_return(x in trajectory(), beyond in 0usize..5) {
            let time = x.rewards.len();
            let n = (time + beyond).max(1);
            let returns = n_step_returns(&x.discounts, &x.rewards, &x.values, n);
            prop_assert_eq!(returns, discounted_returns(&x.discounts, &x.rewards, x.values[time]));
        }

        #[test]
        fn batched_equals_column_by_column(batch in trajectories(), n in 1usize..12) {
            let mut returns = vec![f32::NAN; batch.time * batch.batch];
            let b = &batch.data;
            n_step_returns_batch(
                batch.time, batch.batch, &b.discounts, &b.rewards, &b.values, n, &mut returns,
            );
            let returns = columns_of(&returns, batch.batch);
            for (j, column) in batch.columns.iter().enumerate() {
                let expected = n_step_returns(&column.discounts, &column.rewards, &column.values, n);
                prop_assert_eq!(&returns[j], &expected);
            }
        }
    }

    #[test]
    fn the_last_steps_bootstrap_at_the_end_of_the_slice() {
        let returns = n_step_returns(&[0.5; 3], &[1.0, 2.0, 4.0], &[0.0, 10.0, 20.0, 40.0], 2);
        assert_eq!(
            returns,
            [1.0 + 0.5 * (2.0 + 0.5 * 20.0), 2.0 + 0.5 * (4.0 + 0.5 * 40.0), 4.0 + 0.5 * 40.0]
        );
    }

    #[test]
    #[should_panic(expected = "at least one step ahead")]
    fn zero_steps_are_refused() {
        n_step_returns(&[0.9], &[1.0], &[0.0, 0.0], 0);
    }

    #[test]
    #[should_panic(expected = "returns has 1 entries, but T * B = 4")]
    fn a_short_buffer_is_named() {
        n_step_returns_batch(2, 2, &[0.9; 4], &[1.0; 4], &[0.0; 6], 1, &mut [0.0]);
    }
}
