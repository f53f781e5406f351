//! Generalized advantage estimation.
//!
//! Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage Estimation",
//! 2015, <https://arxiv.org/abs/1506.02438>, equation (16), truncated at the end of the slice as in
//! equation (11) of the PPO paper, <https://arxiv.org/abs/1707.06347>.

use super::layout::{assert_len, assert_trajectory, row, row_and_next};

/// Advantages of one environment column, `[T]`.
///
/// - `discounts`: `[T]`, gamma, or 0 where the episode ended
/// - `rewards`: `[T]`
/// - `values`: `[T + 1]`, the bootstrap last
/// - `lambda`: 0 is the one-step temporal difference (biased, quiet), 1 the return minus the value
///   (unbiased, noisy)
///
/// Backwards from `advantage[T] = 0`:
///
/// ```text
/// delta[t]     = r[t] + discount[t] * values[t+1] - values[t]
/// advantage[t] = delta[t] + discount[t] * lambda * advantage[t+1]
/// ```
///
/// # Panics
///
/// When the lengths do not agree.
pub fn gae(discounts: &[f32], rewards: &[f32], values: &[f32], lambda: f32) -> Vec<f32> {
    let time = rewards.len();
    let mut advantages = vec![0.0; time];
    gae_batch(time, 1, discounts, rewards, values, lambda, &mut advantages);
    advantages
}

/// [`gae`] on every column of a `[T, B]` batch, into the buffer `advantages`.
///
/// `discounts`, `rewards` and `advantages` are `[T, B]`, `values` is `[T + 1, B]`. What the buffer held
/// before does not matter.
///
/// # Panics
///
/// When a length does not agree with `time` and `batch`.
pub fn gae_batch(
    time: usize,
    batch: usize,
    discounts: &[f32],
    rewards: &[f32],
    values: &[f32],
    lambda: f32,
    advantages: &mut [f32],
) {
    assert_trajectory(time, batch, discounts, rewards, values);
    assert_len("advantages", advantages, time * batch, "T * B");

    for t in (0..time).rev() {
        let r_t = row(rewards, batch, t);
        let discount_t = row(discounts, batch, t);
        let v_tm1 = row(values, batch, t);
        let v_t = row(values, batch, t + 1);
        let (advantage_tm1, advantage_t) = row_and_next(advantages, &[], batch, t);

        for j in 0..batch {
            advantage_tm1[j] = r_t[j] + discount_t[j] * v_t[j] - v_tm1[j];
        }
        // Behind the last step there is no advantage to carry back: its row is empty.
        for j in 0..advantage_t.len() {
            advantage_tm1[j] += discount_t[j] * lambda * advantage_t[j];
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Trajectory, assert_close, columns_of, trajectories, trajectory};
    use super::super::{discounted_returns, lambda_returns};
    use super::*;

    /// The sum of equation (11) of the PPO paper, one for every start, in f64.
    fn by_the_sum(x: &Trajectory, lambda: f32) -> Vec<f64> {
        let discount = |t: usize| f64::from(x.discounts[t]);
        let delta = |t: usize| {
            f64::from(x.rewards[t]) + discount(t) * f64::from(x.values[t + 1]) - f64::from(x.values[t])
        };
        let time = x.rewards.len();
        (0..time)
            .map(|s| {
                (s..time)
                    .map(|t| (s..t).map(|i| discount(i) * f64::from(lambda)).product::<f64>() * delta(t))
                    .sum()
            })
            .collect()
    }

    proptest! {
        #[test]
        fn agrees_with_the_sum_of_the_paper(x in trajectory(), lambda in 0.0f32..=1.0) {
            assert_close(&gae(&x.discounts, &x.rewards, &x.values, lambda), &by_the_sum(&x, lambda));
        }

        #[test]
        fn lambda_one_plus_the_value_is_the_discounted_return(x in trajectory()) {
            let bootstrap = x.values[x.rewards.len()];
            let advantages = gae(&x.discounts, &x.rewards, &x.values, 1.0);
            let targets: Vec<f32> = advantages.iter().zip(&x.values).map(|(a, v)| a + v).collect();
            assert_close(&targets, &discounted_returns(&x.discounts, &x.rewards, bootstrap));
        }

        #[test]
        fn plus_the_value_it_is_the_lambda_return(x in trajectory(), lambda in 0.0f32..=1.0) {
            let advantages = gae(&x.discounts, &x.rewards, &x.values, lambda);
            let targets: Vec<f32> = advantages.iter().zip(&x.values).map(|(a, v)| a + v).collect();
            assert_close(&targets, &lambda_returns(&x.discounts, &x.rewards, &x.values, lambda));
        }

        #[test]
        fn batched_equals_column_by_column(batch in trajectories(), lambda in 0.0f32..=1.0) {
            let mut advantages = vec![f32::NAN; batch.time * batch.batch];
            let b = &batch.data;
            gae_batch(
                batch.time, batch.batch, &b.discounts, &b.rewards, &b.values, lambda, &mut advantages,
            );
            let advantages = columns_of(&advantages, batch.batch);
            for (j, column) in batch.columns.iter().enumerate() {
                let expected = gae(&column.discounts, &column.rewards, &column.values, lambda);
                prop_assert_eq!(&advantages[j], &expected);
            }
        }
    }

    #[test]
    #[should_panic(expected = "discounts has 1 entries, but T * B = 2")]
    fn a_missing_discount_is_named() {
        gae(&[0.9], &[1.0; 2], &[0.0; 3], 1.0);
    }

    #[test]
    #[should_panic(expected = "advantages has 3 entries, but T * B = 4")]
    fn a_short_buffer_is_named() {
        gae_batch(2, 2, &[0.9; 4], &[1.0; 4], &[0.0; 6], 1.0, &mut [0.0; 3]);
    }
}
