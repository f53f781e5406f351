use candle_core::{Device, Var};
use rand::Rng;

use super::*;
use crate::kernels::simd::tests::at_every_level;
use crate::random::{Purpose, Stream, stream};

const CELLS: [Cell; 2] = [Cell::Lstm, Cell::Gru];

fn numbers(count: usize, random: &mut Stream) -> Vec<f32> {
    (0..count).map(|_| random.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0).collect()
}

/// A layer's inputs and the weights of its outputs in a loss.
struct Case {
    cell: Cell,
    size: usize,
    sequence: Sequence,
    projected: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    of_outputs: Vec<f32>,
}

impl Case {
    /// L steps of B columns with resets here and there, K branches from steps that episodes ended with and others.
    fn new(cell: Cell, size: usize, (length, columns, branches): (usize, usize, usize), seed: u64) -> Self {
        let mut random = stream(seed, Purpose::Parameters, [0; 3]);
        let steps = length * columns;
        let sequence = Sequence {
            columns,
            resets: (0..steps).map(|step| u8::from((step * 7 + seed as usize).is_multiple_of(5))).collect(),
            initial: numbers(columns * cell.state_len(size), &mut random),
            branches: (0..branches).map(|branch| (branch * 5 + 1) % steps).collect(),
        };
        let (rows, width) = (sequence.rows(), cell.gates() * size);
        Self {
            cell,
            size,
            projected: numbers(rows * width, &mut random),
            weight: numbers(width * size, &mut random),
            bias: numbers(width, &mut random),
            of_outputs: numbers(rows * size, &mut random),
            sequence,
        }
    }

    fn vars(&self) -> [Var; 3] {
        let (rows, width) = (self.sequence.rows(), self.bias.len());
        let var = |values: &[f32], shape: &[usize]| Var::from_slice(values, shape, &Device::Cpu).unwrap();
        [
            var(&self.projected, &[rows, width]),
            var(&self.weight, &[width, self.size]),
            var(&self.bias, &[width]),
        ]
    }

    /// Outputs and gradients of the weighted sum of outputs, by the given implementation.
    fn run(&self, layer: impl FnOnce(&Tensor, &Tensor, &Tensor) -> Tensor) -> (Vec<f32>, [Vec<f32>; 3]) {
        let vars = self.vars();
        let out = layer(&vars[0], &vars[1], &vars[2]);
        let weights = Tensor::from_slice(&self.of_outputs, out.shape(), &Device::Cpu).unwrap();
        let grads = (&out * &weights).unwrap().sum_all().unwrap().backward().unwrap();
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        (flat(&out), vars.each_ref().map(|var| flat(grads.get(var).unwrap())))
    }

    fn fused(&self) -> (Vec<f32>, [Vec<f32>; 3]) {
        self.run(|p, w, b| recurrent(self.cell, p, w, b, self.sequence.clone()).unwrap())
    }

    /// Outputs by the formulae of the module, one number at a time in double precision.
    fn exact(&self, projected: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
        let (size, columns, steps) = (self.size, self.sequence.columns, self.sequence.resets.len());
        let state_len = self.cell.state_len(size);
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let mut states: Vec<Vec<f64>> = vec![];
        for row in 0..self.sequence.rows() {
            let before: Vec<f64> = if row >= steps {
                states[self.sequence.branches[row - steps]].clone()
            } else if self.sequence.resets[row] == 1 {
                vec![0.0; state_len]
            } else if row < columns {
                let initial = &self.sequence.initial[row * state_len..(row + 1) * state_len];
                initial.iter().map(|x| f64::from(*x)).collect()
            } else {
                states[row - columns].clone()
            };
            let p = |gate: usize, at: usize| projected[row * bias.len() + gate * size + at];
            let q = |gate: usize, at: usize| {
                let row = gate * size + at;
                bias[row] + (0..size).map(|from| weight[row * size + from] * before[from]).sum::<f64>()
            };
            let mut after = vec![0.0; state_len];
            for at in 0..size {
                match self.cell {
                    Cell::Lstm => {
                        let i = sigmoid(p(0, at) + q(0, at));
                        let f = sigmoid(p(1, at) + q(1, at));
                        let g = (p(2, at) + q(2, at)).tanh();
                        let o = sigmoid(p(3, at) + q(3, at));
                        after[size + at] = f * before[size + at] + i * g;
                        after[at] = o * after[size + at].tanh();
                    }
                    Cell::Gru => {
                        let r = sigmoid(p(0, at) + q(0, at));
                        let z = sigmoid(p(1, at) + q(1, at));
                        let n = (p(2, at) + r * q(2, at)).tanh();
                        after[at] = (1.0 - z) * n + z * before[at];
                    }
                }
            }
            states.push(after);
        }
        states.iter().flat_map(|state| state[..size].to_vec()).collect()
    }
}

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

/// `(H, (L, B, K))`: the smallest, odd ones, several panels of the matrix product.
const SHAPES: [(usize, (usize, usize, usize)); 7] = [
    (1, (1, 1, 0)),
    (3, (4, 2, 3)),
    (16, (5, 3, 2)),
    (17, (6, 5, 0)),
    (33, (3, 7, 4)),
    (64, (6, 32, 3)),
    (70, (2, 30, 31)),
];

#[test]
fn outputs_follow_the_formulae_with_resets_and_branches() {
    at_every_level(|level| {
        for cell in CELLS {
            for (seed, (size, shape)) in SHAPES.into_iter().enumerate() {
                let case = Case::new(cell, size, shape, seed as u64);
                let exact =
                    case.exact(&doubles(&case.projected), &doubles(&case.weight), &doubles(&case.bias));
                for (at, (ours, exact)) in case.fused().0.iter().zip(&exact).enumerate() {
                    let error = (f64::from(*ours) - exact).abs();
                    assert!(error < 5e-6, "{level:?} {cell:?} {size} {shape:?} at {at}: {ours}, not {exact}");
                }
            }
        }
    });
}

#[test]
fn gradients_are_those_of_candles_own_operations() {
    at_every_level(|level| {
        for cell in CELLS {
            for (seed, (size, shape)) in SHAPES.into_iter().enumerate() {
                let case = Case::new(cell, size, shape, seed as u64);
                let (_, fused) = case.fused();
                let (_, plain) =
                    case.run(|p, w, b| composed::recurrent(cell, p, w, b, &case.sequence).unwrap());
                for (which, (fused, plain)) in fused.iter().zip(&plain).enumerate() {
                    let scale = plain.iter().fold(1f32, |scale, x| scale.max(x.abs()));
                    for (at, (fused, plain)) in fused.iter().zip(plain).enumerate() {
                        let error = (fused - plain).abs() / scale;
                        assert!(
                            error < 1e-5,
                            "{level:?} {cell:?} {size} {shape:?} {which}[{at}]: {fused} not {plain}"
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn gradients_match_finite_differences() {
    const H: f64 = 1e-6;
    for cell in CELLS {
        let case = Case::new(cell, 3, (4, 2, 3), 9);
        let (_, gradients) = case.fused();
        let inputs = [doubles(&case.projected), doubles(&case.weight), doubles(&case.bias)];
        let loss = |inputs: &[Vec<f64>; 3]| -> f64 {
            let out = case.exact(&inputs[0], &inputs[1], &inputs[2]);
            out.iter().zip(&case.of_outputs).map(|(out, weight)| out * f64::from(*weight)).sum()
        };
        for which in 0..3 {
            for at in 0..inputs[which].len() {
                let moved = |by: f64| {
                    let mut inputs = inputs.clone();
                    inputs[which][at] += by;
                    loss(&inputs)
                };
                let slope = (moved(H) - moved(-H)) / (2.0 * H);
                let ours = f64::from(gradients[which][at]);
                assert!((slope - ours).abs() < 1e-5, "{cell:?} {which}[{at}]: {ours}, not {slope}");
            }
        }
    }
}

#[test]
fn steps_one_at_a_time_are_the_sequence() {
    for cell in CELLS {
        for (size, (length, columns, _)) in SHAPES {
            let case = Case::new(cell, size, (length, columns, 0), 3);
            let (out, _) = case.fused();
            let (width, state_len) = (case.bias.len(), cell.state_len(size));
            let mut states = case.sequence.initial.clone();
            for t in 0..length {
                for column in 0..columns {
                    if case.sequence.resets[t * columns + column] == 1 {
                        states[column * state_len..(column + 1) * state_len].fill(0.0);
                    }
                }
                let mut step = vec![0.0; columns * size];
                let projected = &case.projected[t * columns * width..(t + 1) * columns * width];
                recurrent_step(cell, projected, &case.weight, &case.bias, &mut states, &mut step);
                for (ours, of_sequence) in step.iter().zip(&out[t * columns * size..]) {
                    assert!((ours - of_sequence).abs() < 2e-6, "{cell:?} {size} {columns}, step {t}");
                }
                let outputs = states.chunks_exact(state_len).flat_map(|state| &state[..size]);
                assert!(outputs.eq(&step), "the state begins with the outputs");
            }
        }
    }
}

#[test]
fn a_reset_makes_what_came_before_not_matter() {
    for cell in CELLS {
        let mut case = Case::new(cell, 5, (4, 2, 0), 1);
        case.sequence.resets = vec![0, 0, 0, 0, 1, 0, 0, 0];
        let (out, gradients) = case.fused();
        let mut other = Case::new(cell, 5, (4, 2, 0), 1);
        other.sequence = case.sequence.clone();
        other.sequence.initial.iter_mut().for_each(|x| *x += 0.5);
        let width = case.bias.len();
        other.projected[2 * width..3 * width].fill(0.7);
        let (of_other, gradients_of_other) = other.fused();
        let column =
            |values: &[f32], width: usize, rows: std::ops::Range<usize>, column: usize| -> Vec<f32> {
                rows.flat_map(|t| values[(2 * t + column) * width..][..width].to_vec()).collect()
            };
        // Column 0 begins anew at step 2, where column 1 goes on.
        assert_eq!(column(&out, 5, 2..4, 0), column(&of_other, 5, 2..4, 0));
        assert_eq!(column(&gradients[0], width, 2..4, 0), column(&gradients_of_other[0], width, 2..4, 0));
        assert_ne!(column(&out, 5, 1..2, 0), column(&of_other, 5, 1..2, 0));
        assert_ne!(column(&out, 5, 2..4, 1), column(&of_other, 5, 2..4, 1));
    }
}

#[test]
fn memory_is_reused_without_a_trace_of_the_sequence_before() {
    for cell in CELLS {
        let (large, small) = (Case::new(cell, 33, (5, 4, 3), 1), Case::new(cell, 3, (2, 2, 1), 2));
        let fresh = std::thread::spawn(move || (small.fused(), small)).join().unwrap();
        large.fused();
        assert_eq!(fresh.1.fused(), fresh.0);
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let case = Case::new(Cell::Gru, 3, (2, 2, 1), 1);
    let [p, w, b] = case.vars();
    let message =
        |cell, p: &Tensor, sequence: Sequence| recurrent(cell, p, &w, &b, sequence).unwrap_err().to_string();
    assert!(message(Cell::Lstm, &p, case.sequence.clone()).contains("do not fit 5 rows of Lstm cells"));
    let short = Sequence { branches: vec![], ..case.sequence.clone() };
    assert!(message(Cell::Gru, &p, short).contains("do not fit 4 rows"));
    let states = Sequence { initial: vec![], ..case.sequence.clone() };
    assert!(message(Cell::Gru, &p, states).contains("initial states of 3 numbers each, got 0"));
    let far = Sequence { branches: vec![4], ..case.sequence.clone() };
    assert!(message(Cell::Gru, &p, far).contains("goes on from step 4 of 4"));
    let uneven = Sequence { columns: 3, ..case.sequence.clone() };
    assert!(message(Cell::Gru, &p, uneven).contains("4 resets do not make steps of 3 columns"));
    let doubles = p.to_dtype(DType::F64).unwrap();
    assert!(message(Cell::Gru, &doubles, case.sequence.clone()).contains("must be f32"));
}

#[test]
fn nan_is_never_hidden() {
    for cell in CELLS {
        let mut case = Case::new(cell, 4, (3, 1, 0), 1);
        case.sequence.resets.fill(0);
        case.projected.fill(f32::NAN);
        assert!(case.fused().0.iter().all(|x| x.is_nan()));
    }
}
