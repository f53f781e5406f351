//! A step of GRU cells, for many rows, and its gradient.

use super::lstm::sigmoid_of;
use crate::kernels::elementwise::tanh_of;
use crate::kernels::{Isa, dispatch};

dispatch! {
    /// One step of `N` rows of `size` cells.
    ///
    /// `projected` and `hidden` are the gates' parts from the input and from the last output, `[N, 3 H]`, `previous`
    /// the outputs before, `[N, H]`. Writes the activated gates and the candidate's part from the last output, `r z n q`,
    /// `[N, 4 H]`, and the outputs `[N, H]`.
    pub(super) fn forward(
        size: usize,
        projected: &[f32],
        hidden: &[f32],
        previous: &[f32],
        gates: &mut [f32],
        out: &mut [f32],
    ) = forward_body;

    /// The gradient of [`forward`].
    ///
    /// `grad` and `d_out` together are that of the outputs, `[N, H]`; `d_out` becomes that part of the gradient of the
    /// outputs before which does not go through the gates. Writes that of `projected` and of `hidden`, `[N, 3 H]` each.
    pub(super) fn backward(
        size: usize,
        grad: &[f32],
        gates: &[f32],
        previous: &[f32],
        d_out: &mut [f32],
        d_projected: &mut [f32],
        d_hidden: &mut [f32],
    ) = backward_body;
}

#[inline(always)]
fn forward_body<S: Isa>(
    size: usize,
    projected: &[f32],
    hidden: &[f32],
    previous: &[f32],
    gates: &mut [f32],
    out: &mut [f32],
) {
    for row in 0..out.len() / size {
        let wide = row * 3 * size..(row + 1) * 3 * size;
        let narrow = row * size..(row + 1) * size;
        let (projected, hidden) = (&projected[wide.clone()], &hidden[wide]);
        let gates = &mut gates[row * 4 * size..(row + 1) * 4 * size];
        for (at, gate) in gates[..2 * size].iter_mut().enumerate() {
            *gate = sigmoid_of::<S>(projected[at] + hidden[at]);
        }
        let (open, rest) = gates.split_at_mut(2 * size);
        let (reset, update) = open.split_at(size);
        let (candidate, of_output) = rest.split_at_mut(size);
        let (p, q) = (&projected[2 * size..], &hidden[2 * size..]);
        of_output.copy_from_slice(q);
        let (previous, out) = (&previous[narrow.clone()], &mut out[narrow]);
        for at in 0..size {
            let n = tanh_of::<S>(S::mul_add(reset[at], q[at], p[at]));
            candidate[at] = n;
            out[at] = S::mul_add(update[at], previous[at] - n, n);
        }
    }
}

#[inline(always)]
fn backward_body<S: Isa>(
    size: usize,
    grad: &[f32],
    gates: &[f32],
    previous: &[f32],
    d_out: &mut [f32],
    d_projected: &mut [f32],
    d_hidden: &mut [f32],
) {
    for row in 0..grad.len() / size {
        let wide = row * 3 * size..(row + 1) * 3 * size;
        let narrow = row * size..(row + 1) * size;
        let (reset, rest) = gates[row * 4 * size..(row + 1) * 4 * size].split_at(size);
        let (update, rest) = rest.split_at(size);
        let (candidate, of_output) = rest.split_at(size);
        let (d_reset, rest) = d_projected[wide.clone()].split_at_mut(size);
        let (d_update, d_candidate) = rest.split_at_mut(size);
        let (d_open, d_of_output) = d_hidden[wide].split_at_mut(2 * size);
        let (grad, previous) = (&grad[narrow.clone()], &previous[narrow.clone()]);
        let d_out = &mut d_out[narrow];
        for at in 0..size {
            let (r, z, n) = (reset[at], update[at], candidate[at]);
            let d_h = grad[at] + d_out[at];
            let d_n = d_h * (1.0 - z) * S::mul_add(-n, n, 1.0);
            d_out[at] = d_h * z;
            d_reset[at] = d_n * of_output[at] * (r * (1.0 - r));
            d_update[at] = d_h * (previous[at] - n) * (z * (1.0 - z));
            d_candidate[at] = d_n;
            d_of_output[at] = d_n * r;
        }
        d_open[..size].copy_from_slice(d_reset);
        d_open[size..].copy_from_slice(d_update);
    }
}
