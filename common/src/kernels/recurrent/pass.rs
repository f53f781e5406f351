//! The way through a sequence, forward and back through time.

use std::cell::Cell as StdCell;
use std::ops::Range;

use super::{Cell, Sequence, gru, lstm};
use crate::kernels::linear::{column_sums, weight_gradient};
use crate::kernels::matmul::{Init, Left, Right, matmul, pack_rows, pack_transposed};

/// What the gradient needs of the forward pass, row by row.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// `[R, 4 H]`: activated gates.
    gates: Vec<f32>,
    /// `[R, H]`: the outputs before the step, zero where an episode begins.
    outputs_before: Vec<f32>,
    /// `[R, H]`: the same of the cells; of an LSTM.
    cells_before: Vec<f32>,
    /// `[R, H]`: the cells after the step; of an LSTM.
    cells: Vec<f32>,
    /// `[R, H]`: their hyperbolic tangents; of an LSTM.
    tanh_cells: Vec<f32>,
}

impl Trace {
    /// An empty one.
    pub(super) const fn new() -> Self {
        Self {
            gates: Vec::new(),
            outputs_before: Vec::new(),
            cells_before: Vec::new(),
            cells: Vec::new(),
            tanh_cells: Vec::new(),
        }
    }

    fn resize(&mut self, cell: Cell, rows: usize, size: usize) {
        self.gates.resize(rows * 4 * size, 0.0);
        self.outputs_before.resize(rows * size, 0.0);
        let cells = if cell == Cell::Lstm { rows * size } else { 0 };
        for values in [&mut self.cells_before, &mut self.cells, &mut self.tanh_cells] {
            values.resize(cells, 0.0);
        }
    }
}

/// Memory that only one pass uses, kept for the next one.
#[derive(Debug, Default)]
struct Scratch {
    /// The weight as the matrix product wants it.
    packed: Vec<f32>,
    /// `[B or K, G H]`: the gates' part from the last outputs; going back, `[R, 3 H]`, its gradient where that is not
    /// the gradient of the other part, too.
    hidden: Vec<f32>,
    /// `[B, H]`: gradients of the outputs and of the cells, from the steps after.
    carried: [Vec<f32>; 2],
    /// `[K, H]`: the same from the branches.
    from_branches: [Vec<f32>; 2],
    transposed: Vec<f32>,
}

thread_local! {
    static SCRATCH: StdCell<Option<Box<Scratch>>> = const { StdCell::new(None) };
}

/// The numbers of rows `rows` of a matrix with `width` columns.
fn span(rows: &Range<usize>, width: usize) -> Range<usize> {
    rows.start * width..rows.end * width
}

/// The state that a row goes on from.
enum Before<'a> {
    Zero,
    State(&'a [f32]),
    /// That of another row.
    After(usize),
}

/// Outputs `[R, H]` of all rows of `sequence`, and their trace. See [`recurrent`](super::recurrent) for the shapes.
pub(super) fn forward(
    cell: Cell,
    sequence: &Sequence,
    projected: &[f32],
    weight: &[f32],
    bias: &[f32],
    trace: &mut Trace,
    out: &mut [f32],
) {
    let (rows, columns, steps) = (sequence.rows(), sequence.columns, sequence.resets.len());
    let (width, size) = (bias.len(), bias.len() / cell.gates());
    let mut scratch = SCRATCH.take().unwrap_or_default();
    pack_transposed(weight, width, size, &mut scratch.packed);
    trace.resize(cell, rows, size);
    let mut pass = Forward { cell, size, projected, bias, trace, scratch: &mut scratch, out };
    let state_len = cell.state_len(size);
    for t in 0..sequence.length() {
        let block = t * columns..(t + 1) * columns;
        for row in block.clone() {
            let before = if sequence.resets[row] != 0 {
                Before::Zero
            } else if t == 0 {
                Before::State(&sequence.initial[row * state_len..][..state_len])
            } else {
                Before::After(row - columns)
            };
            pass.begin(row, before);
        }
        pass.step(block);
    }
    for (branch, &step) in sequence.branches.iter().enumerate() {
        pass.begin(steps + branch, Before::After(step));
    }
    pass.step(steps..rows);
    SCRATCH.set(Some(scratch));
}

struct Forward<'a> {
    cell: Cell,
    size: usize,
    projected: &'a [f32],
    bias: &'a [f32],
    trace: &'a mut Trace,
    scratch: &'a mut Scratch,
    out: &'a mut [f32],
}

impl Forward<'_> {
    /// Puts the state in place that `row` goes on from.
    fn begin(&mut self, row: usize, before: Before<'_>) {
        let (size, trace) = (self.size, &mut *self.trace);
        let lstm = self.cell == Cell::Lstm;
        let to = row * size..(row + 1) * size;
        match before {
            Before::Zero => {
                trace.outputs_before[to.clone()].fill(0.0);
                if lstm {
                    trace.cells_before[to].fill(0.0);
                }
            }
            Before::State(state) => {
                trace.outputs_before[to.clone()].copy_from_slice(&state[..size]);
                if lstm {
                    trace.cells_before[to].copy_from_slice(&state[size..]);
                }
            }
            Before::After(row) => {
                let from = row * size..(row + 1) * size;
                trace.outputs_before[to.clone()].copy_from_slice(&self.out[from.clone()]);
                if lstm {
                    trace.cells_before[to].copy_from_slice(&trace.cells[from]);
                }
            }
        }
    }

    /// Takes the step of rows `block`, which do not follow one another.
    fn step(&mut self, block: Range<usize>) {
        let (size, width, trace) = (self.size, self.bias.len(), &mut *self.trace);
        let (narrow, wide) = (span(&block, size), span(&block, width));
        let before = &trace.outputs_before[narrow.clone()];
        let hidden = &mut self.scratch.hidden;
        hidden.resize(wide.len(), 0.0);
        let left = Left { data: before, row_stride: size, depth_stride: 1 };
        let right = Right::Packed(&self.scratch.packed);
        matmul(block.len(), width, size, left, right, Init::Row(self.bias), hidden);
        let (projected, out) = (&self.projected[wide], &mut self.out[narrow.clone()]);
        let gates = &mut trace.gates[span(&block, 4 * size)];
        match self.cell {
            Cell::Lstm => {
                let (cells, tanh) = (&mut trace.cells[narrow.clone()], &mut trace.tanh_cells[narrow.clone()]);
                lstm::forward(size, projected, hidden, &trace.cells_before[narrow], gates, cells, tanh, out);
            }
            Cell::Gru => gru::forward(size, projected, hidden, before, gates, out),
        }
    }
}

/// The gradients of [`forward`], given that of its outputs, `grad` `[R, H]`.
///
/// Writes those of the projected inputs `[R, G H]`, of the weight and of the bias; what they held is overwritten.
#[allow(clippy::too_many_arguments, reason = "a layer's inputs, trace and gradients")]
pub(super) fn backward(
    cell: Cell,
    sequence: &Sequence,
    weight: &[f32],
    trace: &Trace,
    grad: &[f32],
    d_projected: &mut [f32],
    d_weight: &mut [f32],
    d_bias: &mut [f32],
) {
    let (rows, columns, steps) = (sequence.rows(), sequence.columns, sequence.resets.len());
    let (width, size) = (d_bias.len(), d_bias.len() / cell.gates());
    let mut scratch = SCRATCH.take().unwrap_or_default();
    let Scratch { packed, hidden, carried, from_branches, transposed } = &mut *scratch;
    pack_rows(weight, size, width, packed);
    // An LSTM's gates have one gradient, a GRU's candidate takes the two parts apart.
    hidden.resize(if cell == Cell::Gru { rows * width } else { 0 }, 0.0);
    let mut pass = Backward { cell, size, width, trace, packed, grad, d_projected, d_hidden: hidden };

    for values in from_branches.iter_mut() {
        values.clear();
        values.resize((rows - steps) * size, 0.0);
    }
    pass.gates(&(steps..rows), from_branches);
    pass.outputs_before(&(steps..rows), from_branches);
    for values in carried.iter_mut() {
        values.clear();
        values.resize(columns * size, 0.0);
    }
    for t in (0..sequence.length()).rev() {
        let block = t * columns..(t + 1) * columns;
        for (branch, step) in sequence.branches.iter().enumerate() {
            if let Some(column) = step.checked_sub(block.start).filter(|column| *column < columns) {
                for (to, from) in carried.iter_mut().zip(from_branches.iter()) {
                    let (to, from) = (&mut to[column * size..][..size], &from[branch * size..][..size]);
                    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
                }
            }
        }
        pass.gates(&block, carried);
        if t == 0 {
            // The initial states are constants.
            break;
        }
        pass.outputs_before(&block, carried);
        for (column, _) in sequence.resets[block].iter().enumerate().filter(|(_, reset)| **reset != 0) {
            carried.iter_mut().for_each(|values| values[column * size..][..size].fill(0.0));
        }
    }

    let d_hidden = if cell == Cell::Gru { &pass.d_hidden[..] } else { &pass.d_projected[..] };
    d_bias.fill(0.0);
    column_sums(d_hidden, d_bias);
    weight_gradient(&trace.outputs_before, d_hidden, rows, size, width, transposed, d_weight);
    SCRATCH.set(Some(scratch));
}

struct Backward<'a> {
    cell: Cell,
    size: usize,
    width: usize,
    trace: &'a Trace,
    packed: &'a [f32],
    grad: &'a [f32],
    d_projected: &'a mut [f32],
    d_hidden: &'a mut [f32],
}

impl Backward<'_> {
    /// Goes back through the gates of rows `block`: `carried` are the gradients of their outputs and cells from later
    /// steps, and become those of the cells before and, past the gates, of the outputs before.
    fn gates(&mut self, block: &Range<usize>, carried: &mut [Vec<f32>; 2]) {
        let (size, trace) = (self.size, self.trace);
        let (narrow, wide) = (span(block, size), span(block, self.width));
        let [d_out, d_cells] = carried;
        let (grad, gates) = (&self.grad[narrow.clone()], &trace.gates[span(block, 4 * size)]);
        let d_projected = &mut self.d_projected[wide.clone()];
        match self.cell {
            Cell::Lstm => {
                let (before, tanh) = (&trace.cells_before[narrow.clone()], &trace.tanh_cells[narrow]);
                lstm::backward(size, grad, d_out, gates, before, tanh, d_cells, d_projected);
            }
            Cell::Gru => {
                let d_hidden = &mut self.d_hidden[wide];
                gru::backward(size, grad, gates, &trace.outputs_before[narrow], d_out, d_projected, d_hidden);
            }
        }
    }

    /// Adds the way through the gates to the gradient of the outputs before rows `block`.
    fn outputs_before(&mut self, block: &Range<usize>, carried: &mut [Vec<f32>; 2]) {
        let (d_hidden, init) = match self.cell {
            // All of it.
            Cell::Lstm => (&*self.d_projected, Init::Zero),
            Cell::Gru => (&*self.d_hidden, Init::Accumulate),
        };
        let data = &d_hidden[span(block, self.width)];
        let left = Left { data, row_stride: self.width, depth_stride: 1 };
        let right = Right::Packed(self.packed);
        matmul(block.len(), self.size, self.width, left, right, init, &mut carried[0]);
    }
}
