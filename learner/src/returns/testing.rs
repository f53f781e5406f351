//! Random trajectories for the property tests of this module, and what compares their results.

use proptest::collection::vec;
use proptest::prelude::*;

/// The inputs of every estimator: one column, or a `[T, B]` batch in the same C-ordered layout.
#[derive(Debug, Clone)]
pub(super) struct Trajectory {
    pub(super) log_rhos: Vec<f32>,
    pub(super) discounts: Vec<f32>,
    pub(super) rewards: Vec<f32>,
    /// One row more than the others.
    pub(super) values: Vec<f32>,
}

/// A batch, and its columns one by one.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) time: usize,
    pub(super) batch: usize,
    pub(super) data: Trajectory,
    pub(super) columns: Vec<Trajectory>,
}

/// A column of 0 to 24 steps, about one in six of which ends an episode.
pub(super) fn trajectory() -> impl Strategy<Value = Trajectory> {
    (0usize..25).prop_flat_map(trajectory_of)
}

/// Up to 9 columns of equal length, up to 11 steps.
pub(super) fn trajectories() -> impl Strategy<Value = Batch> {
    (0usize..12, 0usize..10).prop_flat_map(|(time, batch)| {
        vec(trajectory_of(time), batch).prop_map(move |columns| {
            let interleaved = |of: fn(&Trajectory) -> &[f32], rows: usize| {
                (0..rows).flat_map(|t| columns.iter().map(move |c| of(c)[t])).collect()
            };
            let data = Trajectory {
                log_rhos: interleaved(|c| &c.log_rhos, time),
                discounts: interleaved(|c| &c.discounts, time),
                rewards: interleaved(|c| &c.rewards, time),
                values: interleaved(|c| &c.values, time + 1),
            };
            Batch { time, batch, data, columns: columns.clone() }
        })
    })
}

fn trajectory_of(time: usize) -> impl Strategy<Value = Trajectory> {
    let discount = prop_oneof![1 => Just(0.0f32), 5 => 0.5f32..=1.0];
    (vec(-3.0f32..3.0, time), vec(discount, time), vec(-2.0f32..2.0, time), vec(-5.0f32..5.0, time + 1))
        .prop_map(|(log_rhos, discounts, rewards, values)| Trajectory {
            log_rhos,
            discounts,
            rewards,
            values,
        })
}

/// The columns of a `[T, B]` result.
pub(super) fn columns_of(data: &[f32], batch: usize) -> Vec<Vec<f32>> {
    (0..batch).map(|j| data.iter().skip(j).step_by(batch).copied().collect()).collect()
}

/// Equal up to the rounding of `f32`, measured against the largest entry.
#[track_caller]
pub(super) fn assert_close<E: Copy + Into<f64>>(actual: &[f32], expected: &[E]) {
    assert_eq!(actual.len(), expected.len());
    let scale = expected.iter().map(|&e| e.into().abs()).fold(1.0, f64::max);
    for (t, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let (a, e) = (f64::from(a), e.into());
        assert!((a - e).abs() <= 1e-5 * scale, "at {t}: {a} is not {e}");
    }
}
