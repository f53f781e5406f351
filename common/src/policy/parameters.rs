//! The parameters of a network: their names and shapes, and how they start.
//!
//! A layer's weight starts as an orthogonal matrix (Saxe et al. 2013, <https://arxiv.org/abs/1312.6120>): its rows, or its
//! columns where they are fewer, have one length and are at right angles. The kernels of a convolution `[O, KH, KW, C]` are
//! the rows of such a matrix, `[O, KH KW C]`. Biases start at 0.
//!
//! Hidden layers are scaled by [`HIDDEN_GAIN`], which keeps the variance of what goes through rectifiers, and which is what
//! actor-critic practice takes for hyperbolic tangents, too (Andrychowicz et al. 2020, <https://arxiv.org/abs/2006.05990>).

use candle_core::{Device, Tensor};

use super::error::PolicyError;
use super::snapshot::Weights;
use crate::kernels::Cell;
use crate::random::{self, Stream};

/// Scale of a hidden layer's weight at the start: the square root of 2.
pub const HIDDEN_GAIN: f32 = std::f32::consts::SQRT_2;

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// An orthogonal matrix of the first dimension's rows, scaled.
    Orthogonal {
        /// Length of its rows or columns, whichever are fewer.
        gain: f32,
    },
    /// One value everywhere.
    Constant(f32),
    /// An LSTM's bias: this value at the forget gates, else 0.
    ForgetGates(f32),
}

/// One parameter: its name, shape and start.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterSpec {
    /// Name, unique within its network.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// How it starts.
    pub init: Init,
}

impl ParameterSpec {
    /// A parameter that starts with one value everywhere.
    pub fn constant(name: impl Into<String>, shape: Vec<usize>, value: f32) -> Self {
        Self { name: name.into(), shape, init: Init::Constant(value) }
    }

    /// `name.weight` of `shape`, whose first dimension counts outputs, and `name.bias`, one number an output.
    pub fn layer(name: &str, shape: Vec<usize>, gain: f32, bias: f32) -> [Self; 2] {
        let outputs = shape[0];
        let weight = Self { name: format!("{name}.weight"), shape, init: Init::Orthogonal { gain } };
        [weight, Self::constant(format!("{name}.bias"), vec![outputs], bias)]
    }

    /// Numbers that it has.
    pub fn len(&self) -> usize {
        self.shape.iter().fold(1, |n: usize, &d| n.saturating_mul(d))
    }

    /// Whether it has no number at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers that it may start with.
    fn start(&self, stream: &mut Stream) -> Vec<f32> {
        match self.init {
            Init::Constant(value) => vec![value; self.len()],
            Init::ForgetGates(value) => {
                let gate = self.shape[0] / Cell::Lstm.gates();
                (0..self.shape[0]).map(|at| if at / gate == 1 { value } else { 0.0 }).collect()
            }
            Init::Orthogonal { gain } => {
                orthogonal(self.shape[0], self.shape[1..].iter().product(), gain, stream)
            }
        }
    }
}

/// Weights that a network with these parameters may start from.
///
/// # Errors
/// If memory runs out.
pub fn initialise(parameters: Vec<ParameterSpec>, stream: &mut Stream) -> Result<Weights, PolicyError> {
    let make = |p: ParameterSpec| {
        let values = p.start(stream);
        Ok((p.name, Tensor::from_vec(values, p.shape, &Device::Cpu)?))
    };
    Ok(Weights(parameters.into_iter().map(make).collect::<Result<_, PolicyError>>()?))
}

/// A `[rows, columns]` matrix with orthonormal rows or columns, whichever are fewer, times `gain`, in C order.
fn orthogonal(rows: usize, columns: usize, gain: f32, stream: &mut Stream) -> Vec<f32> {
    let (count, len) = (rows.min(columns), rows.max(columns));
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(count);
    while basis.len() < count {
        let mut vector: Vec<f64> = (0..len).map(|_| random::normal(stream)).collect();
        // Twice is enough for orthogonality to machine precision.
        for other in basis.iter().chain(basis.iter()) {
            let along = dot(&vector, other);
            vector.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
        }
        let norm = dot(&vector, &vector).sqrt();
        if norm > 1e-6 {
            vector.iter_mut().for_each(|v| *v /= norm);
            basis.push(vector);
        }
    }
    let at =
        |row: usize, column: usize| if rows <= columns { basis[row][column] } else { basis[column][row] };
    (0..rows * columns).map(|i| (at(i / columns, i % columns) * f64::from(gain)) as f32).collect()
}

/// The inner product, its sums kept apart so that the compiler may add them as vectors.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const PARTS: usize = 8;
    let mut sums = [0.0; PARTS];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<PARTS>(), b.as_chunks::<PARTS>());
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}
