//! The `[T, B]` layout that the batched functions share: its length checks and its rows.

/// Panics, naming the slice, unless it holds `expected` entries.
#[track_caller]
pub(super) fn assert_len(name: &str, slice: &[f32], expected: usize, shape: &str) {
    assert!(slice.len() == expected, "{name} has {} entries, but {shape} = {expected}", slice.len());
}

/// Checks the three inputs that every estimator takes: `[T, B]`, `[T, B]` and `[T + 1, B]`.
#[track_caller]
pub(super) fn assert_trajectory(
    time: usize,
    batch: usize,
    discounts: &[f32],
    rewards: &[f32],
    values: &[f32],
) {
    assert_len("rewards", rewards, time * batch, "T * B");
    assert_len("discounts", discounts, time * batch, "T * B");
    assert_len("values", values, (time + 1) * batch, "(T + 1) * B");
}

/// The `B` entries of step `t`.
pub(super) fn row(data: &[f32], batch: usize, t: usize) -> &[f32] {
    &data[t * batch..(t + 1) * batch]
}

/// Row `t` of a `[T, B]` result to be written, and the row after it, which a backward pass has already
/// written; behind the last row stands `bootstrap`.
pub(super) fn row_and_next<'a>(
    result: &'a mut [f32],
    bootstrap: &'a [f32],
    batch: usize,
    t: usize,
) -> (&'a mut [f32], &'a [f32]) {
    let (until_t, after_t) = result.split_at_mut((t + 1) * batch);
    let next = if after_t.is_empty() { bootstrap } else { &after_t[..batch] };
    (&mut until_t[t * batch..], next)
}
