//! The dense layer `activation(x W^T + b)`, fused: forward, gradient, and a packed form for inference.

use std::cell::RefCell;

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor};

use super::elementwise::tanh_body;
use super::matmul::{Init, Left, Right, lanes, matmul, pack_transposed};
use super::storage::contiguous;
use super::{Isa, dispatch, is_fused, with_slice};

/// What a layer applies to its sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// Hyperbolic tangent.
    Tanh,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    /// What candle's own operations make of `x`.
    pub(super) fn composed(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Identity => Ok(x.clone()),
            Self::Tanh => x.tanh(),
            Self::Relu => x.relu(),
        }
    }
}

/// Applies a dense layer: `activation(x W^T + b)`.
///
/// `x` is `[N, I]`, `weight` `[O, I]` (PyTorch's layout), `bias` `[O]`, the result `[N, O]`; all `f32`. On the CPU it
/// is one operation in the graph, whose gradient leaves out inputs that no variable feeds (observations);
/// elsewhere it is made of candle's own operations.
///
/// # Errors
/// If an element type is not `f32`, a shape does not fit, or the tensors are on different devices.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    for (name, tensor) in [("input", x), ("weight", weight), ("bias", bias)] {
        if tensor.dtype() != DType::F32 {
            candle_core::bail!("linear: the {name} must be f32, not {:?}", tensor.dtype());
        }
    }
    let (&[_, inputs], &[outputs, columns], &[biases]) = (x.dims(), weight.dims(), bias.dims()) else {
        candle_core::bail!(
            "linear: expected input [N, I], weight [O, I] and bias [O], got {:?}, {:?} and {:?}",
            x.dims(),
            weight.dims(),
            bias.dims()
        )
    };
    if inputs != columns || outputs != biases || inputs * outputs == 0 {
        candle_core::bail!(
            "linear: input {:?}, weight {:?} and bias {:?} do not fit together",
            x.dims(),
            weight.dims(),
            bias.dims()
        );
    }
    if !is_fused(x.device()) {
        return activation.composed(&x.matmul(&weight.t()?)?.broadcast_add(bias)?);
    }
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Linear { activation })
}

struct Linear {
    activation: Activation,
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, _) = x_layout.shape().dims2()?;
        let outputs = bias_layout.shape().dims1()?;
        let mut out = vec![0f32; rows * outputs];
        let (x, weight, bias) =
            (contiguous(x, x_layout)?, contiguous(weight, weight_layout)?, contiguous(bias, bias_layout)?);
        linear_into(x, rows, weight, bias, self.activation, &mut out);
        Ok((CpuStorage::F32(out), (rows, outputs).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (rows, inputs) = x.dims2()?;
        let outputs = bias.dims1()?;
        let grad = grad.contiguous()?;
        let mut dx = x.track_op().then(|| vec![0f32; rows * inputs]);
        let mut dw = vec![0f32; outputs * inputs];
        let mut db = vec![0f32; outputs];
        with_slice(x, |x| {
            with_slice(weight, |weight| {
                with_slice(y, |y| {
                    with_slice(&grad, |grad| {
                        linear_backward(
                            x,
                            rows,
                            weight,
                            y,
                            grad,
                            self.activation,
                            dx.as_deref_mut(),
                            &mut dw,
                            &mut db,
                        )
                    })
                })
            })
        })????;
        let device = x.device();
        let dx = dx.map(|dx| Tensor::from_vec(dx, (rows, inputs), device)).transpose()?;
        let dw = weight.track_op().then(|| Tensor::from_vec(dw, (outputs, inputs), device)).transpose()?;
        let db = bias.track_op().then(|| Tensor::from_vec(db, outputs, device)).transpose()?;
        Ok((dx, dw, db))
    }
}

thread_local! {
    /// The packed weight of the layer at work, kept for the next one.
    static PACKED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    /// The gradient of a layer's sums, and a transposed weight gradient, kept for the next layer.
    static GRADIENTS: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Numbers of output after which a block of rows gets its activation, while it is still in the first-level cache.
const ACTIVATION_BLOCK: usize = 4096;

/// Below this many rows, dot products with the weight's rows beat packing it.
const PACKING_ROWS: usize = 4;

/// Applies a dense layer to `rows` rows: `out = activation(x W^T + b)`.
///
/// `x` is `[rows, I]`, `weight` `[O, I]`, `bias` `[O]`, `out` `[rows, O]`, all in C order. Allocates nothing once
/// the thread's scratch memory has grown. For weights that serve many calls, see [`PackedLinear`].
///
/// # Panics
/// If the lengths do not fit together.
pub fn linear_into(
    x: &[f32],
    rows: usize,
    weight: &[f32],
    bias: &[f32],
    activation: Activation,
    out: &mut [f32],
) {
    let outputs = bias.len();
    let inputs = weight.len().checked_div(outputs).unwrap_or(0);
    assert!(
        weight.len() == outputs * inputs && x.len() == rows * inputs && out.len() == rows * outputs,
        "linear: {} inputs, {} weights, {outputs} biases and {} outputs do not make {rows} rows of a layer",
        x.len(),
        weight.len(),
        out.len(),
    );
    if rows < PACKING_ROWS {
        dot_products(x, rows, weight, bias, out);
        activate_slice(out, activation);
        return;
    }
    PACKED.with_borrow_mut(|packed| {
        pack_transposed(weight, outputs, inputs, packed);
        packed_forward(x, rows, inputs, packed, bias, activation, out);
    });
}

/// A dense layer whose weight is laid out for the processor once, for many small batches: what an actor uses.
#[derive(Debug, Clone)]
pub struct PackedLinear {
    inputs: usize,
    lanes: usize,
    packed: Vec<f32>,
    bias: Vec<f32>,
    activation: Activation,
}

impl PackedLinear {
    /// Packs `weight` `[O, I]` with `bias` `[O]`.
    ///
    /// # Panics
    /// If the weight's length is not a multiple of the bias's.
    pub fn new(weight: &[f32], bias: &[f32], activation: Activation) -> Self {
        let inputs = weight.len().checked_div(bias.len()).unwrap_or(0);
        assert_eq!(weight.len(), inputs * bias.len(), "a weight [O, I] has a multiple of the bias's length");
        let mut packed = Vec::new();
        pack_transposed(weight, bias.len(), inputs, &mut packed);
        Self { inputs, lanes: lanes(), packed, bias: bias.to_vec(), activation }
    }

    /// Numbers in a row of input.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Numbers in a row of output.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Applies the layer to the rows of `x`, `[rows, I]` on the CPU, outside any graph: `[rows, O]`.
    ///
    /// # Errors
    /// If `x` is of another width or type.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, inputs) = x.dims2()?;
        if inputs != self.inputs {
            candle_core::bail!("linear: input {:?} does not fit a layer of {} inputs", x.dims(), self.inputs);
        }
        let mut out = vec![0f32; rows * self.outputs()];
        with_slice(&x.contiguous()?, |x| self.apply(x, rows, &mut out))?;
        Tensor::from_vec(out, (rows, self.outputs()), x.device())
    }

    /// Applies the layer to `x` `[rows, I]`, writing `out` `[rows, O]`; allocates nothing.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn apply(&self, x: &[f32], rows: usize, out: &mut [f32]) {
        assert!(
            x.len() == rows * self.inputs && out.len() == rows * self.outputs() && self.lanes == lanes(),
            "linear: {} inputs and {} outputs do not make {rows} rows of a layer {} -> {}",
            x.len(),
            out.len(),
            self.inputs,
            self.outputs(),
        );
        packed_forward(x, rows, self.inputs, &self.packed, &self.bias, self.activation, out);
    }
}

fn packed_forward(
    x: &[f32],
    rows: usize,
    inputs: usize,
    packed: &[f32],
    bias: &[f32],
    activation: Activation,
    out: &mut [f32],
) {
    let outputs = bias.len();
    let product = |x: &[f32], rows: usize, out: &mut [f32]| {
        let left = Left { data: x, row_stride: inputs, depth_stride: 1 };
        matmul(rows, outputs, inputs, left, Right::Packed(packed), Init::Row(bias), out);
    };
    // Blocks only pay while they are cheap to start: where the weight fits the second-level cache.
    let block = if activation == Activation::Identity || packed.len() > 1 << 16 {
        rows
    } else {
        (ACTIVATION_BLOCK / outputs.max(1)).next_multiple_of(12).min(rows)
    };
    let mut done = 0;
    while done < rows {
        let count = block.min(rows - done);
        let out = &mut out[done * outputs..(done + count) * outputs];
        product(&x[done * inputs..(done + count) * inputs], count, out);
        activate_slice(out, activation);
        done += count;
    }
}

/// Applies `activation` to every element, in place.
pub(super) fn activate_slice(out: &mut [f32], activation: Activation) {
    match activation {
        Activation::Identity => {}
        Activation::Tanh => activate_tanh(out),
        Activation::Relu => relu(out),
    }
}

/// The gradients of a dense layer, given those of its output.
///
/// `x` is `[rows, I]`, `weight` `[O, I]`, `y` and `grad` (the layer's output and its gradient) `[rows, O]`. Writes `dx`
/// `[rows, I]` where wanted, `dw` `[O, I]` and `db` `[O]`; what they held is overwritten.
///
/// # Panics
/// If the lengths do not fit together.
#[allow(clippy::too_many_arguments, reason = "a layer's inputs, output and gradients")]
pub fn linear_backward(
    x: &[f32],
    rows: usize,
    weight: &[f32],
    y: &[f32],
    grad: &[f32],
    activation: Activation,
    dx: Option<&mut [f32]>,
    dw: &mut [f32],
    db: &mut [f32],
) {
    let outputs = db.len();
    let inputs = weight.len().checked_div(outputs).unwrap_or(0);
    assert!(
        x.len() == rows * inputs
            && weight.len() == outputs * inputs
            && dw.len() == weight.len()
            && y.len() == rows * outputs
            && grad.len() == y.len()
            && dx.as_ref().is_none_or(|dx| dx.len() == x.len()),
        "linear: gradients do not fit {rows} rows of a layer {inputs} -> {outputs}"
    );
    GRADIENTS.with_borrow_mut(|(dz, transposed)| {
        db.fill(0.0);
        let dz = match activation {
            Activation::Identity => {
                column_sums(grad, db);
                grad
            }
            Activation::Tanh => {
                dz.resize(grad.len(), 0.0);
                tanh_gradient(y, grad, dz, db);
                &dz[..]
            }
            Activation::Relu => {
                dz.resize(grad.len(), 0.0);
                relu_gradient(y, grad, dz, db);
                &dz[..]
            }
        };
        weight_gradient(x, dz, rows, inputs, outputs, transposed, dw);
        if let Some(dx) = dx {
            let left = Left { data: dz, row_stride: outputs, depth_stride: 1 };
            matmul(rows, inputs, outputs, left, Right::Rows(weight), Init::Zero, dx);
        }
    });
}

/// `dW = dZ^T X`, or its transpose `X^T dZ` where that fills the vectors better.
pub(super) fn weight_gradient(
    x: &[f32],
    dz: &[f32],
    rows: usize,
    inputs: usize,
    outputs: usize,
    transposed: &mut Vec<f32>,
    dw: &mut [f32],
) {
    let lanes = lanes();
    let direct = outputs * inputs.div_ceil(lanes);
    let turned = inputs * outputs.div_ceil(lanes);
    if direct <= turned {
        let left = Left { data: dz, row_stride: 1, depth_stride: outputs };
        matmul(outputs, inputs, rows, left, Right::Rows(x), Init::Zero, dw);
        return;
    }
    transposed.resize(inputs * outputs, 0.0);
    let left = Left { data: x, row_stride: 1, depth_stride: inputs };
    matmul(inputs, outputs, rows, left, Right::Rows(dz), Init::Zero, transposed);
    for (output, row) in dw.chunks_exact_mut(inputs).enumerate() {
        for (input, value) in row.iter_mut().enumerate() {
            *value = transposed[input * outputs + output];
        }
    }
}

dispatch! {
    fn activate_tanh(out: &mut [f32]) = tanh_body;
    fn relu(out: &mut [f32]) = relu_body;
    fn dot_products(x: &[f32], rows: usize, weight: &[f32], bias: &[f32], out: &mut [f32]) = dot_products_body;
    pub(super) fn column_sums(grad: &[f32], db: &mut [f32]) = column_sums_body;
    fn tanh_gradient(y: &[f32], grad: &[f32], dz: &mut [f32], db: &mut [f32]) = tanh_gradient_body;
    fn relu_gradient(y: &[f32], grad: &[f32], dz: &mut [f32], db: &mut [f32]) = relu_gradient_body;
}

#[inline(always)]
fn relu_body<S: Isa>(out: &mut [f32]) {
    for value in out {
        // A NaN stays.
        *value = if *value < 0.0 { 0.0 } else { *value };
    }
}

#[inline(always)]
fn dot_products_body<S: Isa>(x: &[f32], rows: usize, weight: &[f32], bias: &[f32], out: &mut [f32]) {
    const LANES: usize = 16;
    let (outputs, inputs) = (bias.len(), x.len().checked_div(rows).unwrap_or(0));
    for row in 0..rows {
        let (x_chunks, x_rest) = x[row * inputs..(row + 1) * inputs].as_chunks::<LANES>();
        for output in 0..outputs {
            let (w_chunks, w_rest) = weight[output * inputs..(output + 1) * inputs].as_chunks::<LANES>();
            let mut sums = [0f32; LANES];
            for (x, w) in x_chunks.iter().zip(w_chunks) {
                for lane in 0..LANES {
                    sums[lane] = S::mul_add(x[lane], w[lane], sums[lane]);
                }
            }
            let mut width = LANES / 2;
            while width > 0 {
                for lane in 0..width {
                    sums[lane] += sums[lane + width];
                }
                width /= 2;
            }
            let rest = x_rest.iter().zip(w_rest).fold(bias[output], |sum, (x, w)| S::mul_add(*x, *w, sum));
            out[row * outputs + output] = sums[0] + rest;
        }
    }
}

#[inline(always)]
fn column_sums_body<S: Isa>(grad: &[f32], db: &mut [f32]) {
    for grad in grad.chunks_exact(db.len().max(1)) {
        for (sum, grad) in db.iter_mut().zip(grad) {
            *sum += grad;
        }
    }
}

/// `dz = act'(y) grad`, and its column sums, in one pass.
#[inline(always)]
fn gradient_body(
    y: &[f32],
    grad: &[f32],
    dz: &mut [f32],
    db: &mut [f32],
    derivative: impl Fn(f32, f32) -> f32,
) {
    let columns = db.len().max(1);
    for ((y, grad), dz) in
        y.chunks_exact(columns).zip(grad.chunks_exact(columns)).zip(dz.chunks_exact_mut(columns))
    {
        for (((y, grad), dz), sum) in y.iter().zip(grad).zip(dz).zip(db.iter_mut()) {
            *dz = derivative(*y, *grad);
            *sum += *dz;
        }
    }
}

#[inline(always)]
fn tanh_gradient_body<S: Isa>(y: &[f32], grad: &[f32], dz: &mut [f32], db: &mut [f32]) {
    gradient_body(y, grad, dz, db, |y, grad| grad * S::mul_add(-y, y, 1.0));
}

#[inline(always)]
fn relu_gradient_body<S: Isa>(y: &[f32], grad: &[f32], dz: &mut [f32], db: &mut [f32]) {
    gradient_body(y, grad, dz, db, |y, grad| if y > 0.0 { grad } else { 0.0 });
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use rand::Rng;

    use super::*;
    use crate::kernels::simd::tests::at_every_level;
    use crate::random::{Purpose, Stream, stream};

    const ACTIVATIONS: [Activation; 3] = [Activation::Identity, Activation::Tanh, Activation::Relu];

    /// `(N, I, O)`: the smallest, odd ones, and those a small policy has.
    const SHAPES: [(usize, usize, usize); 10] = [
        (1, 1, 1),
        (1, 4, 64),
        (2, 64, 3),
        (3, 5, 7),
        (5, 1, 2),
        (17, 33, 1),
        (32, 64, 64),
        (33, 4, 65),
        (70, 100, 19),
        (40, 64, 2),
    ];

    fn numbers(count: usize, random: &mut Stream) -> Vec<f32> {
        (0..count).map(|_| random.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0).collect()
    }

    fn exact_forward(x: &[f32], n: usize, w: &[f32], b: &[f32], activation: Activation) -> Vec<f64> {
        let inputs = x.len() / n;
        let mut out = vec![];
        for row in 0..n {
            for (output, bias) in b.iter().enumerate() {
                let sum: f64 = (0..inputs)
                    .map(|i| f64::from(x[row * inputs + i]) * f64::from(w[output * inputs + i]))
                    .sum::<f64>()
                    + f64::from(*bias);
                out.push(match activation {
                    Activation::Identity => sum,
                    Activation::Tanh => sum.tanh(),
                    Activation::Relu => sum.max(0.0),
                });
            }
        }
        out
    }

    #[test]
    fn the_layer_matches_its_definition_packed_and_unpacked() {
        let mut random = stream(1, Purpose::Parameters, [0; 3]);
        at_every_level(|level| {
            for (n, i, o) in SHAPES {
                let (x, w, b) =
                    (numbers(n * i, &mut random), numbers(o * i, &mut random), numbers(o, &mut random));
                for activation in ACTIVATIONS {
                    let exact = exact_forward(&x, n, &w, &b, activation);
                    let mut out = vec![7.0; n * o];
                    linear_into(&x, n, &w, &b, activation, &mut out);
                    let mut packed_out = vec![7.0; n * o];
                    PackedLinear::new(&w, &b, activation).apply(&x, n, &mut packed_out);
                    for ((out, packed), exact) in out.iter().zip(&packed_out).zip(&exact) {
                        let close = |y: f32| (f64::from(y) - exact).abs() < 2e-5;
                        assert!(close(*out) && close(*packed), "{level:?} {n}x{i}x{o} {activation:?}");
                    }
                }
            }
        });
    }

    #[test]
    fn gradients_match_those_of_candles_own_operations() {
        let mut random = stream(2, Purpose::Parameters, [0; 3]);
        at_every_level(|level| {
            for (n, i, o) in SHAPES {
                let var = |shape: &[usize], random: &mut Stream| {
                    Var::from_vec(numbers(shape.iter().product(), random), shape, &Device::Cpu).unwrap()
                };
                let (x, w, b) =
                    (var(&[n, i], &mut random), var(&[o, i], &mut random), var(&[o], &mut random));
                let weights = var(&[n, o], &mut random).as_detached_tensor();
                for activation in ACTIVATIONS {
                    let fused = linear(&x, &w, &b, activation).unwrap();
                    let sums = x.matmul(&w.t().unwrap()).unwrap().broadcast_add(&b).unwrap();
                    let plain = match activation {
                        Activation::Identity => sums,
                        Activation::Tanh => sums.tanh().unwrap(),
                        Activation::Relu => sums.relu().unwrap(),
                    };
                    let grads = |y: &Tensor| (y * &weights).unwrap().sum_all().unwrap().backward().unwrap();
                    let (fused, plain) = (grads(&fused), grads(&plain));
                    for var in [&x, &w, &b] {
                        let difference = (fused.get(var).unwrap() - plain.get(var).unwrap()).unwrap();
                        let worst = difference.abs().unwrap().flatten_all().unwrap().max(0).unwrap();
                        assert!(
                            worst.to_scalar::<f32>().unwrap() < 2e-4,
                            "{level:?} {n}x{i}x{o} {activation:?}"
                        );
                    }
                }
            }
        });
    }

    #[test]
    fn gradients_match_finite_differences() {
        let mut random = stream(3, Purpose::Parameters, [0; 3]);
        let (n, i, o) = (5, 7, 3);
        let (x, w, b) = (numbers(n * i, &mut random), numbers(o * i, &mut random), numbers(o, &mut random));
        let weights = numbers(n * o, &mut random);
        for activation in ACTIVATIONS {
            let loss = |x: &[f32], w: &[f32], b: &[f32]| -> f64 {
                exact_forward(x, n, w, b, activation)
                    .iter()
                    .zip(&weights)
                    .map(|(y, w)| y * f64::from(*w))
                    .sum()
            };
            let mut y = vec![0.0; n * o];
            linear_into(&x, n, &w, &b, activation, &mut y);
            let (mut dx, mut dw, mut db) = (vec![9.0; n * i], vec![9.0; o * i], vec![9.0; o]);
            linear_backward(&x, n, &w, &y, &weights, activation, Some(&mut dx), &mut dw, &mut db);
            let check = |values: &[f32], grads: &[f32], loss: &dyn Fn(&[f32]) -> f64| {
                for at in 0..values.len() {
                    let moved = |by: f32| {
                        let mut values = values.to_vec();
                        values[at] += by;
                        loss(&values)
                    };
                    let slope = (moved(1.0 / 4096.0) - moved(-1.0 / 4096.0)) * 2048.0;
                    assert!(
                        (slope - f64::from(grads[at])).abs() < 1e-3,
                        "{activation:?} {at}: {slope} {}",
                        grads[at]
                    );
                }
            };
            check(&x, &dx, &|x| loss(x, &w, &b));
            check(&w, &dw, &|w| loss(&x, w, &b));
            check(&b, &db, &|b| loss(&x, &w, b));
        }
    }

    #[test]
    fn observations_get_no_gradient_and_strided_inputs_are_accepted() {
        let mut random = stream(4, Purpose::Parameters, [0; 3]);
        let x = Tensor::from_vec(numbers(12, &mut random), (3, 4), &Device::Cpu).unwrap();
        let w = Var::from_vec(numbers(6, &mut random), (2, 3), &Device::Cpu).unwrap();
        let b = Var::from_vec(numbers(2, &mut random), 2, &Device::Cpu).unwrap();
        let y = linear(&x.t().unwrap(), &w, &b, Activation::Tanh).unwrap();
        let same = linear(&x.t().unwrap().contiguous().unwrap(), &w, &b, Activation::Tanh).unwrap();
        assert_eq!(y.to_vec2::<f32>().unwrap(), same.to_vec2::<f32>().unwrap());
        let grads = y.sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&x).is_none() && grads.get(&w).is_some() && grads.get(&b).is_some());
    }

    #[test]
    fn wrong_shapes_and_types_are_named() {
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        let (x, w, b) = (zeros(&[3, 4], DType::F32), zeros(&[2, 4], DType::F32), zeros(&[2], DType::F32));
        let message =
            |x: &Tensor, w: &Tensor, b: &Tensor| linear(x, w, b, Activation::Relu).unwrap_err().to_string();
        assert!(message(&zeros(&[3, 4], DType::F64), &w, &b).contains("the input must be f32"));
        assert!(message(&x, &zeros(&[2, 5], DType::F32), &b).contains("do not fit together"));
        assert!(message(&x, &w, &zeros(&[3], DType::F32)).contains("do not fit together"));
        assert!(message(&x, &w, &zeros(&[1, 2], DType::F32)).contains("expected input [N, I]"));
        let none = (zeros(&[0, 4], DType::F32), zeros(&[0], DType::F32));
        assert!(message(&x, &none.0, &none.1).contains("do not fit together"));
    }

    #[test]
    fn an_empty_batch_is_a_batch() {
        let zeros = |shape: &[usize]| Var::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let (x, w, b) = (zeros(&[0, 4]), zeros(&[2, 4]), zeros(&[2]));
        let y = linear(&x, &w, &b, Activation::Tanh).unwrap();
        assert_eq!(y.dims(), [0, 2]);
        let grads = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(grads.get(&w).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
    }

    #[test]
    fn nan_is_never_hidden() {
        at_every_level(|_| {
            for activation in ACTIVATIONS {
                for rows in [1, 8] {
                    let mut out = vec![0.0; rows * 2];
                    linear_into(&vec![f32::NAN; rows * 3], rows, &[1.0; 6], &[0.0; 2], activation, &mut out);
                    assert!(out.iter().all(|y| y.is_nan()));
                }
            }
        });
    }
}
