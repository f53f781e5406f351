//! Layer normalisation (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>) with the activation behind it, as one operation
//! with a gradient:
//!
//! ```text
//! y = activation((x - mean(x)) / sqrt(variance(x) + 1e-5) * gain + bias)
//! ```
//!
//! over the last dimension: the features of a row, or the channels of each pixel. The gradient takes mean and variance of a
//! row anew, which is cheaper than to keep them.

use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor};

use super::device::is_fused;
use super::linear::activate_slice;
use super::storage::contiguous;
use super::{Activation, Isa, dispatch, with_slice};

/// Added to a variance, which is 0 where all features are equal. PyTorch's default.
const EPSILON: f32 = 1e-5;

/// Normalises `x`, `[..., F]`, over its last dimension, scales by `gain` `[F]`, adds `bias` `[F]`, and applies
/// `activation`; all `f32`.
///
/// On the CPU it is one operation in the graph; elsewhere it is made of candle's own operations.
///
/// # Errors
/// If an element type is not `f32`, a shape does not fit, or the tensors are on different devices.
pub fn layer_norm(x: &Tensor, gain: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let features = x.dims().last().copied().unwrap_or(0);
    if [x, gain, bias].iter().any(|tensor| tensor.dtype() != DType::F32)
        || features == 0
        || gain.dims() != [features]
        || bias.dims() != [features]
    {
        candle_core::bail!(
            "layer_norm: expected f32 of [..., F], gain [F] and bias [F], got {:?} {:?}, {:?} {:?} and {:?} {:?}",
            x.dtype(),
            x.dims(),
            gain.dtype(),
            gain.dims(),
            bias.dtype(),
            bias.dims()
        );
    }
    if !is_fused(x.device()) {
        return composed(x, gain, bias, activation);
    }
    x.contiguous()?.apply_op3(&gain.contiguous()?, &bias.contiguous()?, LayerNorm { activation })
}

/// The same of candle's own operations.
fn composed(x: &Tensor, gain: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normal = centred.broadcast_div(&variance.affine(1.0, EPSILON.into())?.sqrt()?)?;
    activation.composed(&normal.broadcast_mul(gain)?.broadcast_add(bias)?)
}

struct LayerNorm {
    activation: Activation,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gain: &CpuStorage,
        gain_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = contiguous::<f32>(x, x_layout)?;
        let mut out = vec![0f32; x.len()];
        forward(x, contiguous(gain, gain_layout)?, contiguous(bias, bias_layout)?, &mut out);
        activate_slice(&mut out, self.activation);
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gain: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let mut dx = vec![0f32; if x.track_op() { x.elem_count() } else { 0 }];
        let (mut d_gain, mut d_bias) = (vec![0f32; gain.elem_count()], vec![0f32; bias.elem_count()]);
        with_slice(x, |x| {
            with_slice(gain, |gain| {
                with_slice(y, |y| {
                    with_slice(&grad, |grad| {
                        let gradient = match self.activation {
                            Activation::Identity => backward_identity,
                            Activation::Tanh => backward_tanh,
                            Activation::Relu => backward_relu,
                        };
                        gradient(x, gain, y, grad, &mut dx, &mut d_gain, &mut d_bias);
                    })
                })
            })
        })????;
        let tensor = |of: &Tensor, values| {
            of.track_op().then(|| Tensor::from_vec(values, of.shape(), of.device())).transpose()
        };
        Ok((tensor(x, dx)?, tensor(gain, d_gain)?, tensor(bias, d_bias)?))
    }
}

dispatch! {
    /// Rows of `gain.len()` features, normalised, scaled and moved.
    fn forward(x: &[f32], gain: &[f32], bias: &[f32], out: &mut [f32]) = forward_body;
    /// Gradients of rows behind which nothing is applied; an empty `dx` is not wanted.
    fn backward_identity(x: &[f32], gain: &[f32], y: &[f32], grad: &[f32], dx: &mut [f32], d_gain: &mut [f32], d_bias: &mut [f32]) = backward_identity_body;
    /// The same behind a hyperbolic tangent.
    fn backward_tanh(x: &[f32], gain: &[f32], y: &[f32], grad: &[f32], dx: &mut [f32], d_gain: &mut [f32], d_bias: &mut [f32]) = backward_tanh_body;
    /// The same behind a rectifier.
    fn backward_relu(x: &[f32], gain: &[f32], y: &[f32], grad: &[f32], dx: &mut [f32], d_gain: &mut [f32], d_bias: &mut [f32]) = backward_relu_body;
}

/// Sums kept apart, so that the compiler may add them as vectors.
const PARTS: usize = 16;

/// The sum of what `of` makes of each pair.
#[inline(always)]
fn sum_of(a: &[f32], b: &[f32], of: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0f32; PARTS];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<PARTS>(), b.as_chunks::<PARTS>());
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += of(*a, *b);
        }
    }
    for ((sum, a), b) in sums.iter_mut().zip(a_rest).zip(b_rest) {
        *sum += of(*a, *b);
    }
    sums.iter().sum()
}

/// Mean of a row, and 1 through its standard deviation.
#[inline(always)]
fn moments(row: &[f32]) -> (f32, f32) {
    let count = row.len() as f32;
    let mean = sum_of(row, row, |x, _| x) / count;
    let variance = sum_of(row, row, |x, _| (x - mean) * (x - mean)) / count;
    (mean, 1.0 / (variance + EPSILON).sqrt())
}

#[inline(always)]
fn forward_body<S: Isa>(x: &[f32], gain: &[f32], bias: &[f32], out: &mut [f32]) {
    let features = gain.len();
    for (x, out) in x.chunks_exact(features).zip(out.chunks_exact_mut(features)) {
        let (mean, scale) = moments(x);
        for (((out, x), gain), bias) in out.iter_mut().zip(x).zip(gain).zip(bias) {
            *out = S::mul_add((x - mean) * scale, *gain, *bias);
        }
    }
}

/// With `n` the normalised row and `g` the gradient times the gain: `dx = (g - mean(g) - n mean(g n)) / std`.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "a layer's inputs, output and gradients")]
fn backward_body(
    x: &[f32],
    gain: &[f32],
    y: &[f32],
    grad: &[f32],
    dx: &mut [f32],
    d_gain: &mut [f32],
    d_bias: &mut [f32],
    derivative: impl Fn(f32, f32) -> f32,
) {
    let features = gain.len();
    let count = features as f32;
    let wanted = !dx.is_empty();
    let rows = x.chunks_exact(features).zip(y.chunks_exact(features)).zip(grad.chunks_exact(features));
    for (row, ((x, y), grad)) in rows.enumerate() {
        let (mean, scale) = moments(x);
        let sums = d_gain.iter_mut().zip(d_bias.iter_mut());
        for (((x, y), grad), (d_gain, d_bias)) in x.iter().zip(y).zip(grad).zip(sums) {
            let d = derivative(*y, *grad);
            *d_bias += d;
            *d_gain += d * (x - mean) * scale;
        }
        if !wanted {
            continue;
        }
        let dx = &mut dx[row * features..][..features];
        for (((dx, y), grad), gain) in dx.iter_mut().zip(y).zip(grad).zip(gain) {
            *dx = derivative(*y, *grad) * gain;
        }
        let of_mean = sum_of(dx, x, |g, _| g) / count;
        let of_scale = sum_of(dx, x, |g, x| g * ((x - mean) * scale)) / count;
        for (dx, x) in dx.iter_mut().zip(x) {
            *dx = (*dx - of_mean - (x - mean) * scale * of_scale) * scale;
        }
    }
}

macro_rules! backward_with {
    ($name:ident, $isa:ident, $derivative:expr) => {
        #[inline(always)]
        fn $name<$isa: Isa>(
            x: &[f32],
            gain: &[f32],
            y: &[f32],
            grad: &[f32],
            dx: &mut [f32],
            d_gain: &mut [f32],
            d_bias: &mut [f32],
        ) {
            backward_body(x, gain, y, grad, dx, d_gain, d_bias, $derivative);
        }
    };
}

backward_with!(backward_identity_body, S, |_, grad| grad);
backward_with!(backward_tanh_body, S, |y: f32, grad: f32| grad * S::mul_add(-y, y, 1.0));
backward_with!(backward_relu_body, S, |y: f32, grad: f32| if y > 0.0 { grad } else { 0.0 });

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use rand::Rng;

    use super::*;
    use crate::kernels::simd::tests::at_every_level;
    use crate::random::{Purpose, Stream, stream};

    const ACTIVATIONS: [Activation; 3] = [Activation::Identity, Activation::Tanh, Activation::Relu];

    fn numbers(count: usize, random: &mut Stream) -> Vec<f32> {
        (0..count).map(|_| random.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0).collect()
    }

    /// The definition, in double precision.
    fn exact(x: &[f64], gain: &[f64], bias: &[f64], activation: Activation) -> Vec<f64> {
        let features = gain.len();
        let mut out = vec![];
        for row in x.chunks(features) {
            let mean = row.iter().sum::<f64>() / features as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / features as f64;
            for ((x, gain), bias) in row.iter().zip(gain).zip(bias) {
                let z = (x - mean) / (variance + 1e-5).sqrt() * gain + bias;
                out.push(match activation {
                    Activation::Identity => z,
                    Activation::Tanh => z.tanh(),
                    Activation::Relu => z.max(0.0),
                });
            }
        }
        out
    }

    #[test]
    fn rows_match_the_definition_and_gradients_its_finite_differences() {
        let mut random = stream(1, Purpose::Parameters, [0; 3]);
        at_every_level(|level| {
            for (rows, features) in [(1, 2), (3, 5), (4, 16), (2, 33)] {
                let [x, gain, bias] = [rows * features, features, features].map(|n| numbers(n, &mut random));
                let weights = numbers(rows * features, &mut random);
                for activation in ACTIVATIONS {
                    let device = Device::Cpu;
                    let vars = [
                        Var::from_slice(&x, (rows, features), &device).unwrap(),
                        Var::from_slice(&gain, features, &device).unwrap(),
                        Var::from_slice(&bias, features, &device).unwrap(),
                    ];
                    let [x_var, gain_var, bias_var] = &vars;
                    let y = layer_norm(x_var, gain_var, bias_var, activation).unwrap();
                    let start =
                        [&x, &gain, &bias].map(|v| v.iter().map(|v| f64::from(*v)).collect::<Vec<_>>());
                    let expected = exact(&start[0], &start[1], &start[2], activation);
                    for (y, exact) in y.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().zip(&expected)
                    {
                        assert!(
                            (f64::from(*y) - exact).abs() < 1e-4,
                            "{level:?} {activation:?}: {y} {exact}"
                        );
                    }
                    let of = Tensor::from_slice(&weights, (rows, features), &device).unwrap();
                    let gradients = (y * of).unwrap().sum_all().unwrap().backward().unwrap();
                    let loss = |at: &[Vec<f64>; 3]| -> f64 {
                        let y = exact(&at[0], &at[1], &at[2], activation);
                        y.iter().zip(&weights).map(|(y, w)| y * f64::from(*w)).sum()
                    };
                    for (which, var) in vars.iter().enumerate() {
                        let gradient =
                            gradients.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                        for (element, gradient) in gradient.iter().enumerate() {
                            let moved = |by: f64| {
                                let mut at = start.clone();
                                at[which][element] += by;
                                loss(&at)
                            };
                            let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                            let error = (f64::from(*gradient) - slope).abs();
                            assert!(
                                error < 2e-3 * slope.abs().max(1.0),
                                "{level:?} {rows}x{features} {activation:?}, argument {which}: {gradient} {slope}"
                            );
                        }
                    }
                }
            }
        });
    }

    #[test]
    fn candles_own_operations_say_the_same() {
        let mut random = stream(2, Purpose::Parameters, [0; 3]);
        let var = |shape: &[usize], random: &mut Stream| {
            Var::from_vec(numbers(shape.iter().product(), random), shape, &Device::Cpu).unwrap()
        };
        let (x, gain, bias) =
            (var(&[2, 3, 4, 8], &mut random), var(&[8], &mut random), var(&[8], &mut random));
        let weights = var(&[2, 3, 4, 8], &mut random).as_detached_tensor();
        for activation in ACTIVATIONS {
            let run = |y: Tensor| {
                let gradients = (&y * &weights).unwrap().sum_all().unwrap().backward().unwrap();
                let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let of = [&x, &gain, &bias].map(|var| flat(gradients.get(var).unwrap()));
                [vec![flat(&y)], of.to_vec()].concat()
            };
            let fused = run(layer_norm(&x, &gain, &bias, activation).unwrap());
            let plain = run(composed(&x, &gain, &bias, activation).unwrap());
            for (fused, plain) in fused.iter().flatten().zip(plain.iter().flatten()) {
                assert!(
                    (fused - plain).abs() < 2e-4 * plain.abs().max(1.0),
                    "{activation:?}: {fused} {plain}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_variable_gets_no_gradient_and_what_does_not_fit_is_refused() {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let gain = Var::ones(4, DType::F32, &Device::Cpu).unwrap();
        let x = zeros(&[3, 4]);
        let y = layer_norm(&x, &gain, &zeros(&[4]), Activation::Identity).unwrap();
        let gradients = y.sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(&x).is_none() && gradients.get(&gain).is_some());
        let error = layer_norm(&zeros(&[3, 5]), &gain, &zeros(&[4]), Activation::Identity).unwrap_err();
        assert!(error.to_string().contains("expected f32 of [..., F]"), "{error}");
    }
}
