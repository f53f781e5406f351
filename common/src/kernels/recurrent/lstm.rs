//! A step of LSTM cells, for many rows, and its gradient.

use crate::kernels::elementwise::{exp_of, tanh_of};
use crate::kernels::{Isa, dispatch};

dispatch! {
    /// One step of `N` rows of `size` cells.
    ///
    /// `projected` and `hidden` are the gates' parts from the input and from the last output, `[N, 4 H]`, `previous`
    /// the cells before, `[N, H]`. Writes the activated gates `[N, 4 H]`, and the cells, their hyperbolic tangents
    /// and the outputs, `[N, H]` each.
    pub(super) fn forward(
        size: usize,
        projected: &[f32],
        hidden: &[f32],
        previous: &[f32],
        gates: &mut [f32],
        cells: &mut [f32],
        tanh_cells: &mut [f32],
        out: &mut [f32],
    ) = forward_body;

    /// The gradient of [`forward`].
    ///
    /// `grad` and `d_out` together are that of the outputs, `[N, H]`; `d_cells` `[N, H]` is that of the cells, and
    /// becomes that of the cells before. Writes that of the gates before activation, `[N, 4 H]`.
    pub(super) fn backward(
        size: usize,
        grad: &[f32],
        d_out: &[f32],
        gates: &[f32],
        previous: &[f32],
        tanh_cells: &[f32],
        d_cells: &mut [f32],
        d_gates: &mut [f32],
    ) = backward_body;
}

/// The logistic function; NaN stays NaN.
#[inline(always)]
pub(super) fn sigmoid_of<S: Isa>(x: f32) -> f32 {
    1.0 / (1.0 + exp_of::<S>(-x))
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel are its shape and its slices")]
fn forward_body<S: Isa>(
    size: usize,
    projected: &[f32],
    hidden: &[f32],
    previous: &[f32],
    gates: &mut [f32],
    cells: &mut [f32],
    tanh_cells: &mut [f32],
    out: &mut [f32],
) {
    for row in 0..out.len() / size {
        let wide = row * 4 * size..(row + 1) * 4 * size;
        let narrow = row * size..(row + 1) * size;
        let (projected, hidden) = (&projected[wide.clone()], &hidden[wide.clone()]);
        let gates = &mut gates[wide];
        let candidate = 2 * size..3 * size;
        for (at, gate) in gates[..2 * size].iter_mut().enumerate() {
            *gate = sigmoid_of::<S>(projected[at] + hidden[at]);
        }
        let (p, q) = (&projected[candidate.clone()], &hidden[candidate.clone()]);
        for (at, gate) in gates[candidate].iter_mut().enumerate() {
            *gate = tanh_of::<S>(p[at] + q[at]);
        }
        let (p, q) = (&projected[3 * size..], &hidden[3 * size..]);
        for (at, gate) in gates[3 * size..].iter_mut().enumerate() {
            *gate = sigmoid_of::<S>(p[at] + q[at]);
        }
        let (input, rest) = gates.split_at(size);
        let (forget, rest) = rest.split_at(size);
        let (candidate, output) = rest.split_at(size);
        let previous = &previous[narrow.clone()];
        let (cells, tanh_cells) = (&mut cells[narrow.clone()], &mut tanh_cells[narrow.clone()]);
        let out = &mut out[narrow];
        for at in 0..size {
            let cell = S::mul_add(forget[at], previous[at], input[at] * candidate[at]);
            let tanh = tanh_of::<S>(cell);
            cells[at] = cell;
            tanh_cells[at] = tanh;
            out[at] = output[at] * tanh;
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel are its shape and its slices")]
fn backward_body<S: Isa>(
    size: usize,
    grad: &[f32],
    d_out: &[f32],
    gates: &[f32],
    previous: &[f32],
    tanh_cells: &[f32],
    d_cells: &mut [f32],
    d_gates: &mut [f32],
) {
    for row in 0..grad.len() / size {
        let wide = row * 4 * size..(row + 1) * 4 * size;
        let narrow = row * size..(row + 1) * size;
        let (input, rest) = gates[wide.clone()].split_at(size);
        let (forget, rest) = rest.split_at(size);
        let (candidate, output) = rest.split_at(size);
        let (d_input, rest) = d_gates[wide].split_at_mut(size);
        let (d_forget, rest) = rest.split_at_mut(size);
        let (d_candidate, d_output) = rest.split_at_mut(size);
        let (grad, d_out) = (&grad[narrow.clone()], &d_out[narrow.clone()]);
        let (previous, tanh_cells) = (&previous[narrow.clone()], &tanh_cells[narrow.clone()]);
        let d_cells = &mut d_cells[narrow];
        for at in 0..size {
            let (i, f, g, o) = (input[at], forget[at], candidate[at], output[at]);
            let (d_h, tanh) = (grad[at] + d_out[at], tanh_cells[at]);
            let d_c = S::mul_add(d_h * o, S::mul_add(-tanh, tanh, 1.0), d_cells[at]);
            d_cells[at] = d_c * f;
            d_input[at] = d_c * g * (i * (1.0 - i));
            d_forget[at] = d_c * previous[at] * (f * (1.0 - f));
            d_candidate[at] = d_c * i * S::mul_add(-g, g, 1.0);
            d_output[at] = d_h * tanh * (o * (1.0 - o));
        }
    }
}
