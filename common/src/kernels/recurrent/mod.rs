//! Recurrent layers over whole sequences, fused: LSTM (Hochreiter and Schmidhuber 1997; Gers et al. 2000) and GRU
//! (Cho et al. 2014, <https://arxiv.org/abs/1406.1078>), with PyTorch's gates in PyTorch's order.
//!
//! With `p = x W_ih^T + b_ih` (the caller's, one product for all rows: [`linear`](super::linear)) and
//! `q = h W_hh^T + b_hh`, a step computes
//!
//! ```text
//! LSTM   i, f, o = sigmoid(p + q)      g = tanh(p + q)        c' = f c + i g           h' = o tanh(c')
//! GRU    r, z    = sigmoid(p + q)      n = tanh(p + r q)      h' = (1 - z) n + z h
//! ```
//!
//! for H numbers each; gates lie side by side in a row, `i f g o` and `r z n`. The state is `h` then `c` for an
//! LSTM, `h` for a GRU.
//!
//! A [`Sequence`] says which row follows which: time-major steps `[L, B]`, with states zeroed where an episode
//! begins, and then branches, single steps that go on from some step's state without being followed.
//!
//! The forward pass keeps what the gradient needs; the gradient goes back through time to the first step, takes the
//! initial state for a constant, and forms the weights' gradients as one product over all rows.
//!
//! # Layout
//!
//! - `lstm`, `gru`: the arithmetic of one step for many rows, and its gradient;
//! - `pass`: the way through a sequence, forward and back;
//! - `composed`: the same of candle's own operations, for other devices and as a check.

mod composed;
mod gru;
mod lstm;
mod pass;
#[cfg(test)]
mod tests;

use std::cell::Cell as StdCell;
use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor};

use super::linear::linear_into;
use super::storage::contiguous;
use super::{Activation, is_fused, with_slice};
use pass::Trace;

/// The kinds of recurrent cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cell {
    /// Long short-term memory.
    Lstm,
    /// Gated recurrent unit.
    Gru,
}

impl Cell {
    /// Gates of a cell: weights have this many blocks of H rows.
    pub fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru => 3,
        }
    }

    /// S: numbers of the state of a cell with `size` outputs.
    pub fn state_len(self, size: usize) -> usize {
        match self {
            Self::Lstm => 2 * size,
            Self::Gru => size,
        }
    }
}

/// Which row of a recurrent layer's input follows which.
///
/// The rows are the steps, time-major `[L, B]`, and after them the branches, `[K]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequence {
    /// B: columns, which know nothing of each other.
    pub columns: usize,
    /// `[L, B]`, 0 or 1: whether the state is zeroed before the step, because an episode begins.
    pub resets: Vec<u8>,
    /// `[B, S]`: the states before the first step.
    pub initial: Vec<f32>,
    /// `[K]`: the step, as the number of its row, whose state each branch goes on from.
    pub branches: Vec<usize>,
}

impl Sequence {
    /// `rows` single steps from the state zero.
    pub fn beginnings(rows: usize, state_len: usize) -> Self {
        Self { columns: rows, resets: vec![0; rows], initial: vec![0.0; rows * state_len], branches: vec![] }
    }

    /// All rows: L x B + K.
    pub fn rows(&self) -> usize {
        self.resets.len() + self.branches.len()
    }

    /// L: steps of each column.
    pub fn length(&self) -> usize {
        self.resets.len().checked_div(self.columns).unwrap_or(0)
    }

    fn check(&self, state_len: usize) -> Result<()> {
        let (steps, columns) = (self.resets.len(), self.columns);
        if self.length() * columns != steps {
            candle_core::bail!("recurrent: {steps} resets do not make steps of {columns} columns");
        }
        if self.initial.len() != columns * state_len {
            candle_core::bail!(
                "recurrent: {columns} columns need initial states of {state_len} numbers each, got {} numbers",
                self.initial.len()
            );
        }
        if let Some(step) = self.branches.iter().find(|step| **step >= steps) {
            candle_core::bail!("recurrent: a branch goes on from step {step} of {steps}");
        }
        Ok(())
    }
}

/// Takes a sequence through a recurrent layer: the outputs `h'` of all its rows, `[R, H]`.
///
/// `projected` is `[R, G H]` (the inputs' part of the gates, bias included), `weight` (`W_hh`) `[G H, H]`, `bias` (`b_hh`)
/// `[G H]`, all `f32`, where G is the number of gates and R that of the sequence's rows. On the CPU it is one
/// operation in the graph; elsewhere it is made of candle's own operations.
///
/// # Errors
/// If an element type is not `f32`, a shape does not fit, or the tensors are on different devices.
pub fn recurrent(
    cell: Cell,
    projected: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    sequence: Sequence,
) -> Result<Tensor> {
    for (name, tensor) in [("projected input", projected), ("weight", weight), ("bias", bias)] {
        if tensor.dtype() != DType::F32 {
            candle_core::bail!("recurrent: the {name} must be f32, not {:?}", tensor.dtype());
        }
    }
    let (rows, size) = (sequence.rows(), weight.dims().last().copied().unwrap_or(0));
    let width = cell.gates() * size;
    if size == 0
        || projected.dims() != [rows, width]
        || weight.dims() != [width, size]
        || bias.dims() != [width]
    {
        candle_core::bail!(
            "recurrent: projected input {:?}, weight {:?} and bias {:?} do not fit {rows} rows of {cell:?} cells",
            projected.dims(),
            weight.dims(),
            bias.dims()
        );
    }
    sequence.check(cell.state_len(size))?;
    if !is_fused(projected.device()) {
        return composed::recurrent(cell, projected, weight, bias, &sequence);
    }
    let op = Recurrent { cell, sequence, trace: Mutex::new(SPARE.take()) };
    projected.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)
}

/// The operation, with what its forward pass left for the gradient.
struct Recurrent {
    cell: Cell,
    sequence: Sequence,
    trace: Mutex<Trace>,
}

thread_local! {
    /// A trace that is no longer needed, whose memory the next one takes over.
    static SPARE: StdCell<Trace> = const { StdCell::new(Trace::new()) };
}

impl Drop for Recurrent {
    fn drop(&mut self) {
        let trace = std::mem::take(self.trace.get_mut().unwrap_or_else(PoisonError::into_inner));
        // A thread that is ending has no use for it.
        let _ = SPARE.try_with(|spare| spare.set(trace));
    }
}

impl CustomOp3 for Recurrent {
    fn name(&self) -> &'static str {
        "recurrent"
    }

    fn cpu_fwd(
        &self,
        projected: &CpuStorage,
        projected_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, size) = (projected_layout.shape().dims2()?.0, weight_layout.shape().dims2()?.1);
        let mut out = vec![0f32; rows * size];
        let mut trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner);
        pass::forward(
            self.cell,
            &self.sequence,
            contiguous(projected, projected_layout)?,
            contiguous(weight, weight_layout)?,
            contiguous(bias, bias_layout)?,
            &mut trace,
            &mut out,
        );
        Ok((CpuStorage::F32(out), (rows, size).into()))
    }

    fn bwd(
        &self,
        projected: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner);
        let mut d_projected = vec![0f32; projected.elem_count()];
        let mut d_weight = vec![0f32; weight.elem_count()];
        let mut d_bias = vec![0f32; bias.elem_count()];
        with_slice(weight, |weight| {
            with_slice(&grad, |grad| {
                pass::backward(
                    self.cell,
                    &self.sequence,
                    weight,
                    &trace,
                    grad,
                    &mut d_projected,
                    &mut d_weight,
                    &mut d_bias,
                );
            })
        })??;
        let tensor = |of: &Tensor, values| {
            of.track_op().then(|| Tensor::from_vec(values, of.shape(), of.device())).transpose()
        };
        Ok((tensor(projected, d_projected)?, tensor(weight, d_weight)?, tensor(bias, d_bias)?))
    }
}

thread_local! {
    /// Outputs, their part of the gates and the activated gates of a single step, kept for the next one.
    static STEP: StdCell<[Vec<f32>; 4]> = const { StdCell::new([const { Vec::new() }; 4]) };
}

/// Takes one step for each of `E` columns: what an actor does, without a graph.
///
/// `projected` is `[E, G H]`, `weight` `[G H, H]`, `bias` `[G H]`; `states` `[E, S]` become those after the step, and
/// `out` `[E, H]` the outputs. Equal to one step of [`recurrent`] up to rounding.
///
/// # Panics
/// If the lengths do not fit together.
pub fn recurrent_step(
    cell: Cell,
    projected: &[f32],
    weight: &[f32],
    bias: &[f32],
    states: &mut [f32],
    out: &mut [f32],
) {
    let size = bias.len() / cell.gates();
    let rows = out.len() / size.max(1);
    assert!(
        size > 0
            && bias.len() == cell.gates() * size
            && weight.len() == bias.len() * size
            && projected.len() == rows * bias.len()
            && states.len() == rows * cell.state_len(size)
            && out.len() == rows * size,
        "recurrent: {} projected inputs, {} weights, {} biases, {} numbers of state and {} outputs do not make a step",
        projected.len(),
        weight.len(),
        bias.len(),
        states.len(),
        out.len(),
    );
    let [mut previous, mut hidden, mut gates, mut cells] = STEP.take();
    hidden.resize(rows * bias.len(), 0.0);
    gates.resize(rows * 4 * size, 0.0);
    match cell {
        Cell::Lstm => {
            // The states' two halves, each together.
            previous.resize(2 * rows * size, 0.0);
            let (outputs, old_cells) = previous.split_at_mut(rows * size);
            for (row, state) in states.chunks_exact(2 * size).enumerate() {
                outputs[row * size..][..size].copy_from_slice(&state[..size]);
                old_cells[row * size..][..size].copy_from_slice(&state[size..]);
            }
            linear_into(outputs, rows, weight, bias, Activation::Identity, &mut hidden);
            cells.resize(2 * rows * size, 0.0);
            let (cells, tanh_cells) = cells.split_at_mut(rows * size);
            lstm::forward(size, projected, &hidden, old_cells, &mut gates, cells, tanh_cells, out);
            for (row, state) in states.chunks_exact_mut(2 * size).enumerate() {
                state[..size].copy_from_slice(&out[row * size..][..size]);
                state[size..].copy_from_slice(&cells[row * size..][..size]);
            }
        }
        Cell::Gru => {
            linear_into(states, rows, weight, bias, Activation::Identity, &mut hidden);
            gru::forward(size, projected, &hidden, states, &mut gates, out);
            states.copy_from_slice(out);
        }
    }
    STEP.set([previous, hidden, gates, cells]);
}
