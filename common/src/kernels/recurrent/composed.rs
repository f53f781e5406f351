//! A recurrent layer made of candle's own operations, for other devices and as a check of the fused one.

use candle_core::{Result, Tensor};

use super::{Cell, Sequence};

/// See [`recurrent`](super::recurrent), which has checked the shapes.
pub(super) fn recurrent(
    cell: Cell,
    projected: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    sequence: &Sequence,
) -> Result<Tensor> {
    let (size, columns, device) = (weight.dim(1)?, sequence.columns, projected.device());
    let initial = Tensor::from_slice(&sequence.initial, (columns, cell.state_len(size)), device)?;
    let keep: Vec<f32> = sequence.resets.iter().map(|reset| f32::from(u8::from(*reset == 0))).collect();
    let keep = Tensor::from_vec(keep, (sequence.resets.len(), 1), device)?;
    let weight = weight.t()?;
    let mut states = vec![];
    let mut state = initial;
    for t in 0..sequence.length() {
        state = state.broadcast_mul(&keep.narrow(0, t * columns, columns)?)?;
        state = step(cell, &projected.narrow(0, t * columns, columns)?, &weight, bias, &state)?;
        states.push(state.clone());
    }
    if !sequence.branches.is_empty() {
        let branches: Vec<u32> = sequence.branches.iter().map(|step| *step as u32).collect();
        let branches = Tensor::from_vec(branches, sequence.branches.len(), device)?;
        let before = Tensor::cat(&states, 0)?.index_select(&branches, 0)?;
        let inputs = projected.narrow(0, sequence.resets.len(), sequence.branches.len())?;
        states.push(step(cell, &inputs, &weight, bias, &before)?);
    }
    if states.is_empty() {
        return projected.narrow(1, 0, size);
    }
    Tensor::cat(&states, 0)?.narrow(1, 0, size)?.contiguous()
}

/// The states after a step of `N` rows, `[N, S]`; `weight` is `[H, G H]`.
fn step(cell: Cell, projected: &Tensor, weight: &Tensor, bias: &Tensor, state: &Tensor) -> Result<Tensor> {
    let size = weight.dim(0)?;
    let output = state.narrow(1, 0, size)?.contiguous()?;
    let hidden = output.matmul(weight)?.broadcast_add(bias)?;
    let gate = |gate: usize| projected.narrow(1, gate * size, size)? + hidden.narrow(1, gate * size, size)?;
    match cell {
        Cell::Lstm => {
            let (input, forget) = (sigmoid(&gate(0)?)?, sigmoid(&gate(1)?)?);
            let (candidate, output) = (gate(2)?.tanh()?, sigmoid(&gate(3)?)?);
            let cells = ((forget * state.narrow(1, size, size)?)? + (input * candidate)?)?;
            Tensor::cat(&[(output * cells.tanh()?)?, cells], 1)
        }
        Cell::Gru => {
            let (reset, update) = (sigmoid(&gate(0)?)?, sigmoid(&gate(1)?)?);
            let of_output = (reset * hidden.narrow(1, 2 * size, size)?)?;
            let candidate = (projected.narrow(1, 2 * size, size)? + of_output)?.tanh()?;
            (&candidate + (update * (output - &candidate)?)?)?.contiguous()
        }
    }
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}
