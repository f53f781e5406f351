//! Discounted returns: the sum of rewards as it came, with no value function before the end.
//!
//! Sutton and Barto, "Reinforcement Learning: An Introduction", 2nd edition, 2018, equation (3.9);
//! rlax's `discounted_returns`.

use super::layout::assert_len;

/// Discounted returns of one environment column, `[T]`.
///
/// - `discounts`: `[T]`, gamma, or 0 where the episode ended
/// - `rewards`: `[T]`
/// - `bootstrap`: what is expected behind the slice; 0 when the slice ends with its episode
///
/// Backwards from `G[T] = bootstrap`:
///
/// ```text
/// G[t] = r[t] + discount[t] * G[t+1]
/// ```
///
/// # Panics
///
/// When the lengths do not agree.
pub fn discounted_returns(discounts: &[f32], rewards: &[f32], bootstrap: f32) -> Vec<f32> {
    assert_len("discounts", discounts, rewards.len(), "T");

    let mut returns = vec![0.0; rewards.len()];
    let mut return_t = bootstrap;
    for ((return_tm1, r_t), discount_t) in returns.iter_mut().zip(rewards).zip(discounts).rev() {
        *return_tm1 = r_t + discount_t * return_t;
        return_t = *return_tm1;
    }
    returns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{assert_close, trajectory};
    use super::*;

    proptest! {
        #[test]
        fn agrees_with_the_sum_of_discounted_rewards(x in trajectory(), bootstrap in -5.0f32..5.0) {
            let time = x.rewards.len();
            let by_the_sum: Vec<f64> = (0..time)
                .map(|s| {
                    let discounted = |to: usize| (s..to).map(|i| f64::from(x.discounts[i])).product::<f64>();
                    (s..time).map(|t| discounted(t) * f64::from(x.rewards[t])).sum::<f64>()
                        + discounted(time) * f64::from(bootstrap)
                })
                .collect();
            assert_close(&discounted_returns(&x.discounts, &x.rewards, bootstrap), &by_the_sum);
        }
    }

    #[test]
    fn an_episode_end_cuts_the_sum() {
        assert_eq!(discounted_returns(&[0.5, 0.0, 0.5], &[1.0, 2.0, 4.0], 8.0), [2.0, 2.0, 8.0]);
    }

    #[test]
    #[should_panic(expected = "discounts has 2 entries, but T = 1")]
    fn unequal_lengths_are_refused() {
        discounted_returns(&[0.9; 2], &[1.0], 0.0);
    }
}
