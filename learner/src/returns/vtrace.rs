//! V-trace: value targets and advantages from the experience of an older policy.
//!
//! Espeholt et al., "IMPALA: Scalable Distributed Deep-RL with Importance Weighted Actor-Learner
//! Architectures", 2018, <https://arxiv.org/abs/1802.01561>: targets are equation (1), computed by the
//! recursion of Remark 1; the lambda of `c` is Remark 2. The advantages are those of rlax's
//! `vtrace_td_error_and_advantage`, which for `lambda = 1` are the ones of section 4.2.

use super::layout::{assert_len, assert_trajectory, row, row_and_next};

/// How far V-trace trusts importance weights `rho = pi(a|x) / mu(a|x)` of the target policy `pi` over
/// the behaviour policy `mu`.
///
/// The default, all ones, is the setting of the IMPALA paper.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VTraceParams {
    /// Mixes multi-step (1) and one-step (0) targets: `c = lambda * min(clip_c, rho)`. Lower means less
    /// variance and more reliance on the value function.
    pub lambda: f32,
    /// Upper bound of the weight of each temporal difference (rho-bar). It decides which policy the
    /// targets evaluate: infinity the target policy, towards 0 the behaviour policy.
    pub clip_rho: f32,
    /// Upper bound of the weight of each policy-gradient advantage.
    pub clip_pg_rho: f32,
    /// Upper bound of the trace weight (c-bar), with which later temporal differences reach earlier
    /// steps. It changes the speed and the variance, not the fixed point.
    pub clip_c: f32,
}

impl Default for VTraceParams {
    fn default() -> Self {
        Self { lambda: 1.0, clip_rho: 1.0, clip_pg_rho: 1.0, clip_c: 1.0 }
    }
}

/// What [`vtrace`] computes for one environment column of `T` steps.
#[derive(Debug, Clone, PartialEq)]
pub struct VTrace {
    /// Targets of the value function, `[T]`.
    pub vs: Vec<f32>,
    /// Advantages that weight the policy gradient, importance weight included, `[T]`.
    pub pg_advantages: Vec<f32>,
}

/// V-trace targets and policy-gradient advantages of one environment column.
///
/// - `log_rhos`: `[T]`, `log pi(a|x) - log mu(a|x)` of the actions taken
/// - `discounts`: `[T]`, gamma, or 0 where the episode ended
/// - `rewards`: `[T]`
/// - `values`: `[T + 1]`, estimates under the target policy's parameters, the bootstrap last
///
/// Backwards from `vs[T] = values[T]`, with `rho = exp(log_rho)`:
///
/// ```text
/// delta[t] = min(clip_rho, rho[t]) * (r[t] + discount[t] * values[t+1] - values[t])
/// c[t]     = lambda * min(clip_c, rho[t])
/// vs[t]    = values[t] + delta[t] + discount[t] * c[t] * (vs[t+1] - values[t+1])
/// q[t]     = r[t] + discount[t] * (lambda * vs[t+1] + (1 - lambda) * values[t+1])
/// pg_advantages[t] = min(clip_pg_rho, rho[t]) * (q[t] - values[t])
/// ```
///
/// No `log_rho`, not even an infinite one, makes NaN out of rewards and values of sane size, whatever
/// the clips: weights and targets saturate at the largest `f32`. A NaN that comes in does come out, so
/// that the learner's check for finite losses sees it.
///
/// # Panics
///
/// When the lengths do not agree.
pub fn vtrace(
    log_rhos: &[f32],
    discounts: &[f32],
    rewards: &[f32],
    values: &[f32],
    p: &VTraceParams,
) -> VTrace {
    let time = rewards.len();
    let mut vs = vec![0.0; time];
    let mut pg_advantages = vec![0.0; time];
    vtrace_batch(time, 1, log_rhos, discounts, rewards, values, p, &mut vs, &mut pg_advantages);
    VTrace { vs, pg_advantages }
}

/// [`vtrace`] on every column of a `[T, B]` batch, into the buffers `vs` and `pg_advantages`.
///
/// `log_rhos`, `discounts`, `rewards`, `vs` and `pg_advantages` are `[T, B]`, `values` is
/// `[T + 1, B]`. What the two buffers held before does not matter.
///
/// # Panics
///
/// When a length does not agree with `time` and `batch`.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a block of the batch; a struct would only rename them"
)]
pub fn vtrace_batch(
    time: usize,
    batch: usize,
    log_rhos: &[f32],
    discounts: &[f32],
    rewards: &[f32],
    values: &[f32],
    params: &VTraceParams,
    vs: &mut [f32],
    pg_advantages: &mut [f32],
) {
    assert_trajectory(time, batch, discounts, rewards, values);
    assert_len("log_rhos", log_rhos, time * batch, "T * B");
    assert_len("vs", vs, time * batch, "T * B");
    assert_len("pg_advantages", pg_advantages, time * batch, "T * B");

    // The weights wait where the advantages will stand: `exp` is a scalar call that would keep the
    // loop below from being vectorised, and this way it needs no buffer of its own.
    for (rho_tm1, log_rho_tm1) in pg_advantages.iter_mut().zip(log_rhos) {
        *rho_tm1 = at_most(log_rho_tm1.exp(), f32::MAX);
    }

    let VTraceParams { lambda, clip_rho, clip_pg_rho, clip_c } = *params;
    for t in (0..time).rev() {
        let r_t = row(rewards, batch, t);
        let discount_t = row(discounts, batch, t);
        let v_tm1 = row(values, batch, t);
        let v_t = row(values, batch, t + 1);
        let (vs_tm1, vs_t) = row_and_next(vs, v_t, batch, t);
        let rho_then_advantage = &mut pg_advantages[t * batch..(t + 1) * batch];

        for j in 0..batch {
            let rho_tm1 = rho_then_advantage[j];
            let td_error = at_most(rho_tm1, clip_rho) * (r_t[j] + discount_t[j] * v_t[j] - v_tm1[j]);
            let c_tm1 = lambda * at_most(rho_tm1, clip_c);
            let trace = saturated(discount_t[j] * c_tm1 * (vs_t[j] - v_t[j]));
            vs_tm1[j] = saturated(v_tm1[j] + (td_error + trace));

            let q_bootstrap = lambda * vs_t[j] + (1.0 - lambda) * v_t[j];
            let q_tm1 = r_t[j] + discount_t[j] * q_bootstrap;
            rho_then_advantage[j] = at_most(rho_tm1, clip_pg_rho) * (q_tm1 - v_tm1[j]);
        }
    }
}

/// `min(weight, bound)` that lets a NaN weight through, where `f32::min` would return the bound.
fn at_most(weight: f32, bound: f32) -> f32 {
    if weight > bound { bound } else { weight }
}

/// Brings an infinity back to the largest finite number, so that a discount of 0 still cuts it.
fn saturated(x: f32) -> f32 {
    x.clamp(f32::MIN, f32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Trajectory, assert_close, columns_of, trajectories, trajectory};
    use super::super::{discounted_returns, n_step_returns};
    use super::*;

    /// Equation (1) as the paper writes it, a sum of products for every start `s`, in f64.
    fn vs_by_equation_1(x: &Trajectory, p: &VTraceParams) -> Vec<f64> {
        let v = |t: usize| f64::from(x.values[t]);
        let discount = |t: usize| f64::from(x.discounts[t]);
        let rho = |t: usize| f64::from(x.log_rhos[t]).exp();
        let c = |t: usize| f64::from(p.lambda) * rho(t).min(f64::from(p.clip_c));
        let delta = |t: usize| {
            rho(t).min(f64::from(p.clip_rho)) * (f64::from(x.rewards[t]) + discount(t) * v(t + 1) - v(t))
        };
        let time = x.rewards.len();
        (0..time)
            .map(|s| {
                v(s) + (s..time)
                    .map(|t| {
                        let gammas: f64 = (s..t).map(discount).product();
                        let cs: f64 = (s..t).map(c).product();
                        gammas * cs * delta(t)
                    })
                    .sum::<f64>()
            })
            .collect()
    }

    fn advantages_by_section_4_2(x: &Trajectory, p: &VTraceParams) -> Vec<f64> {
        let mut vs = vs_by_equation_1(x, p);
        vs.push(f64::from(x.values[x.rewards.len()]));
        let lambda = f64::from(p.lambda);
        (0..x.rewards.len())
            .map(|s| {
                let rho = f64::from(x.log_rhos[s]).exp().min(f64::from(p.clip_pg_rho));
                let next = lambda * vs[s + 1] + (1.0 - lambda) * f64::from(x.values[s + 1]);
                let q = f64::from(x.rewards[s]) + f64::from(x.discounts[s]) * next;
                rho * (q - f64::from(x.values[s]))
            })
            .collect()
    }

    fn of(x: &Trajectory, p: &VTraceParams) -> VTrace {
        vtrace(&x.log_rhos, &x.discounts, &x.rewards, &x.values, p)
    }

    fn params() -> impl Strategy<Value = VTraceParams> {
        (0.0f32..=1.0, 0.1f32..3.0, 0.1f32..3.0, 0.1f32..1.5).prop_map(
            |(lambda, clip_rho, clip_pg_rho, clip_c)| VTraceParams { lambda, clip_rho, clip_pg_rho, clip_c },
        )
    }

    proptest! {
        #[test]
        fn agrees_with_equation_1_of_the_paper(x in trajectory(), p in params()) {
            let VTrace { vs, pg_advantages } = of(&x, &p);
            assert_close(&vs, &vs_by_equation_1(&x, &p));
            assert_close(&pg_advantages, &advantages_by_section_4_2(&x, &p));
        }

        #[test]
        fn on_policy_it_is_the_bootstrapped_return(x in trajectory(), clip in 1.0f32..10.0) {
            let time = x.rewards.len();
            let p = VTraceParams { lambda: 1.0, clip_rho: clip, clip_pg_rho: clip, clip_c: clip };
            let VTrace { vs, pg_advantages } =
                vtrace(&vec![0.0; time], &x.discounts, &x.rewards, &x.values, &p);
            let returns = n_step_returns(&x.discounts, &x.rewards, &x.values, time.max(1));
            assert_close(&vs, &returns);
            let advantages: Vec<f32> = returns.iter().zip(&x.values).map(|(g, v)| g - v).collect();
            assert_close(&pg_advantages, &advantages);
        }

        #[test]
        fn batched_equals_column_by_column(batch in trajectories(), p in params()) {
            // Whatever an earlier batch left in the buffers must not matter.
            let mut vs = vec![f32::NAN; batch.time * batch.batch];
            let mut pg_advantages = vs.clone();
            let b = &batch.data;
            vtrace_batch(
                batch.time, batch.batch, &b.log_rhos, &b.discounts, &b.rewards, &b.values, &p,
                &mut vs, &mut pg_advantages,
            );
            let vs = columns_of(&vs, batch.batch);
            let pg_advantages = columns_of(&pg_advantages, batch.batch);
            for (j, column) in batch.columns.iter().enumerate() {
                let expected = of(column, &p);
                prop_assert_eq!(&vs[j], &expected.vs);
                prop_assert_eq!(&pg_advantages[j], &expected.pg_advantages);
            }
        }

        #[test]
        fn no_importance_weight_makes_nan(
            x in trajectory(),
            extremes in prop::collection::vec(
                prop::sample::select(vec![f32::NEG_INFINITY, -1e4, -90.0, 0.0, 90.0, 1e4, f32::INFINITY]), 8),
            clip in prop::sample::select(vec![0.0, 1.0, 1e30, f32::INFINITY]),
            lambda in prop::sample::select(vec![0.0f32, 0.5, 1.0]),
        ) {
            let log_rhos: Vec<f32> = (0..x.rewards.len()).map(|t| extremes[t % 8]).collect();
            let p = VTraceParams { lambda, clip_rho: clip, clip_pg_rho: clip, clip_c: clip };
            let VTrace { vs, pg_advantages } = vtrace(&log_rhos, &x.discounts, &x.rewards, &x.values, &p);
            prop_assert!(vs.iter().all(|v| v.is_finite()), "{:?}", vs);
            prop_assert!(pg_advantages.iter().all(|a| !a.is_nan()), "{:?}", pg_advantages);
        }

        #[test]
        fn nothing_behind_an_episode_end_reaches_before_it(
            x in trajectory(), p in params(), jump in 1.0f32..9.0,
        ) {
            let time = x.rewards.len();
            let end = time / 2;
            prop_assume!(end < time);
            let mut x = x;
            x.discounts[end] = 0.0;
            let before = of(&x, &p);
            for t in end + 1..time {
                x.rewards[t] += jump;
                x.log_rhos[t] -= jump;
            }
            for v in &mut x.values[end + 1..] {
                *v -= jump;
            }
            let after = of(&x, &p);
            prop_assert_eq!(&before.vs[..=end], &after.vs[..=end]);
            prop_assert_eq!(&before.pg_advantages[..=end], &after.pg_advantages[..=end]);
        }
    }

    #[test]
    fn the_default_is_the_setting_of_the_paper() {
        let all_ones = VTraceParams { lambda: 1.0, clip_rho: 1.0, clip_pg_rho: 1.0, clip_c: 1.0 };
        assert_eq!(VTraceParams::default(), all_ones);
    }

    #[test]
    fn actions_the_target_policy_never_takes_leave_the_values_as_targets() {
        let values = [0.5, -1.0, 2.0];
        let out = vtrace(&[f32::NEG_INFINITY; 2], &[0.9; 2], &[5.0; 2], &values, &VTraceParams::default());
        assert_eq!(out.vs, values[..2]);
        assert_eq!(out.pg_advantages, [0.0, 0.0]);
    }

    #[test]
    fn a_nan_weight_is_not_hidden_by_the_clips() {
        let out = vtrace(&[f32::NAN], &[0.9], &[1.0], &[0.0, 0.0], &VTraceParams::default());
        assert!(out.vs[0].is_nan() && out.pg_advantages[0].is_nan());
    }

    #[test]
    fn a_whole_on_policy_episode_is_its_discounted_return() {
        let (discounts, rewards) = ([0.5, 0.5, 0.0], [1.0, 2.0, 4.0]);
        let out = vtrace(&[0.0; 3], &discounts, &rewards, &[0.0, 0.0, 0.0, 99.0], &VTraceParams::default());
        assert_eq!(out.vs, [3.0, 4.0, 4.0]);
        assert_eq!(out.vs, discounted_returns(&discounts, &rewards, 99.0));
    }

    #[test]
    fn no_steps_give_no_targets() {
        let out = vtrace(&[], &[], &[], &[1.0], &VTraceParams::default());
        assert_eq!(out, VTrace { vs: vec![], pg_advantages: vec![] });
    }

    #[test]
    #[should_panic(expected = "log_rhos has 1 entries, but T * B = 2")]
    fn a_missing_weight_is_named() {
        vtrace(&[0.0], &[0.9; 2], &[1.0; 2], &[0.0; 3], &VTraceParams::default());
    }

    #[test]
    #[should_panic(expected = "values has 2 entries, but (T + 1) * B = 3")]
    fn a_missing_bootstrap_is_named() {
        vtrace(&[0.0; 2], &[0.9; 2], &[1.0; 2], &[0.0; 2], &VTraceParams::default());
    }
}
