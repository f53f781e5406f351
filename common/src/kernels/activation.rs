//! [`activate`]: an activation that is no part of a layer's own operation.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};

use super::device::is_fused;
use super::linear::activate_slice;
use super::storage::contiguous;
use super::{Activation, Isa, dispatch, with_slice};

/// Applies `activation` to every element of `x`, `f32`, where no layer does so as part of its own operation.
///
/// # Errors
/// If the element type is not `f32`.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    if x.dtype() != DType::F32 {
        candle_core::bail!("activate: the input must be f32, not {:?}", x.dtype());
    }
    match activation {
        Activation::Identity => Ok(x.clone()),
        _ if !is_fused(x.device()) => activation.composed(x),
        _ => x.contiguous()?.apply_op1(Activate(activation)),
    }
}

struct Activate(Activation);

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut out = contiguous::<f32>(x, layout)?.to_vec();
        activate_slice(&mut out, self.0);
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let mut dx = with_slice(&grad, <[f32]>::to_vec)?;
        with_slice(y, |y: &[f32]| match self.0 {
            Activation::Identity => {}
            Activation::Tanh => tanh_slopes(y, &mut dx),
            Activation::Relu => relu_slopes(y, &mut dx),
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

dispatch! {
    /// Multiplies gradients by the slope of the tangent where it is `y`.
    fn tanh_slopes(y: &[f32], grad: &mut [f32]) = tanh_slopes_body;
    /// Multiplies gradients by the slope of the rectifier where it is `y`.
    fn relu_slopes(y: &[f32], grad: &mut [f32]) = relu_slopes_body;
}

#[inline(always)]
fn tanh_slopes_body<S: Isa>(y: &[f32], grad: &mut [f32]) {
    for (y, grad) in y.iter().zip(grad) {
        *grad *= S::mul_add(-*y, *y, 1.0);
    }
}

#[inline(always)]
fn relu_slopes_body<S: Isa>(y: &[f32], grad: &mut [f32]) {
    for (y, grad) in y.iter().zip(grad) {
        *grad = if *y > 0.0 { *grad } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::kernels::simd::tests::at_every_level;

    #[test]
    fn values_and_slopes_are_those_of_candles_own_operations() {
        let numbers: Vec<f32> = (0..70).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
        at_every_level(|level| {
            for activation in [Activation::Identity, Activation::Tanh, Activation::Relu] {
                let x = Var::from_slice(&numbers, (7, 10), &Device::Cpu).unwrap();
                let run = |y: Tensor| {
                    let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                    [flat(&y), flat(gradients.get(&x).unwrap())].concat()
                };
                let ours = run(activate(&x, activation).unwrap());
                for (ours, plain) in ours.iter().zip(run(activation.composed(&x).unwrap())) {
                    assert!((ours - plain).abs() < 2e-6, "{level:?} {activation:?}: {ours} {plain}");
                }
            }
        });
    }

    #[test]
    fn a_rectifier_at_rest_has_no_slope_and_nan_is_never_hidden() {
        let x = Var::from_slice(&[0f32, -0.0, f32::NAN], 3, &Device::Cpu).unwrap();
        let y = activate(&x, Activation::Relu).unwrap();
        assert!(y.to_vec1::<f32>().unwrap()[2].is_nan());
        let gradients = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(gradients.get(&x).unwrap().to_vec1::<f32>().unwrap()[..2], [0.0; 2]);
    }
}
