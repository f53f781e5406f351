//! The block of a residual network as one operation: `y = x + conv(relu(conv(relu(x))))` (He et al. 2016,
//! <https://arxiv.org/abs/1603.05027>, as Espeholt et al. 2018 use it).
//!
//! As one, it needs no tensor for what is between the convolutions, no pass of its own for the rectifiers, and no sums of
//! gradients in the graph.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Result, Shape, Tensor};

use super::forward::forward;
use super::geometry::{Geometry, Windows};
use super::gradient::backward;
use super::{Images, composed};
use crate::kernels::storage::contiguous;
use crate::kernels::threads::{Scratch, share_out};
use crate::kernels::{Activation, with_slice};

/// Numbers of a piece that a thread adds at a time.
const PIECE: usize = 1 << 16;

/// Applies a residual block to images: `[N, H, W, C]`, the shape of `images`.
///
/// `first` and `second` are the weight `[C, K, K, C]`, K odd, and the bias `[C]` of either convolution, which has stride 1 and
/// pads images so that they keep their size; all `f32`. On the CPU it is one operation in the graph; elsewhere it is
/// made of candle's own operations.
///
/// # Errors
/// If an element type is not `f32`, a shape does not fit, or the tensors are on different devices.
pub fn residual_block(images: &Tensor, first: [&Tensor; 2], second: [&Tensor; 2]) -> Result<Tensor> {
    let (_, height, width, channels) = images.dims4()?;
    let kernel = first[0].dims().get(1).copied().unwrap_or(0);
    for [weight, bias] in [first, second] {
        let types = [images, weight, bias].map(Tensor::dtype);
        let fits = weight.dims() == [channels, kernel, kernel, channels] && bias.dims() == [channels];
        if !fits || kernel % 2 == 0 || channels == 0 || types != [DType::F32; 3] {
            candle_core::bail!(
                "residual block: expected f32 images [N, H, W, C], weights [C, K, K, C] with an odd K, and biases [C], got \
                 {:?}, {:?} and {:?} of {types:?}",
                images.dims(),
                weight.dims(),
                bias.dims()
            );
        }
    }
    let geometry = Geometry::square(1, kernel / 2);
    if !matches!(images.device(), Device::Cpu) {
        let convolution = |x: &Tensor, [weight, bias]: [&Tensor; 2]| {
            composed::convolution(&x.relu()?, weight, bias, geometry, Activation::Identity)
        };
        return images + convolution(&convolution(images, first)?, second)?;
    }
    let windows = Windows::new([height, width], [kernel; 2], geometry)?;
    let parameters = [first[0], first[1], second[0], second[1]].map(|tensor| tensor.flatten_all());
    let [a, b, c, d] = parameters;
    let parameters = Tensor::cat(&[a?, b?, c?, d?], 0)?;
    let op = Block { windows, channels, inner: Mutex::new(None) };
    images.contiguous()?.apply_op2(&parameters, op)
}

struct Block {
    windows: Windows,
    channels: usize,
    /// What is between the convolutions, for the gradient.
    inner: Mutex<Option<Scratch>>,
}

impl Block {
    /// The two weights and biases, in the order in which they lie.
    fn split<'a>(&self, parameters: &'a [f32]) -> [(&'a [f32], &'a [f32]); 2] {
        let (first, second) = parameters.split_at(parameters.len() / 2);
        [first, second].map(|layer| layer.split_at(layer.len() - self.channels))
    }
}

impl CustomOp2 for Block {
    fn name(&self) -> &'static str {
        "residual-block"
    }

    fn cpu_fwd(
        &self,
        images: &CpuStorage,
        images_layout: &Layout,
        parameters: &CpuStorage,
        parameters_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let images: &[f32] = contiguous(images, images_layout)?;
        let [first, second] = self.split(contiguous(parameters, parameters_layout)?);
        let mut inner = Scratch::new(images.len());
        let (windows, channels) = (&self.windows, self.channels);
        let rectified = Images::Rectified(images);
        forward(rectified, channels, windows, first.0, first.1, Activation::Relu, &mut inner);
        let mut out = vec![0f32; images.len()];
        let between = Images::Floats(&inner);
        forward(between, channels, windows, second.0, second.1, Activation::Identity, &mut out);
        add(images, &mut out);
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = Some(inner);
        Ok((CpuStorage::F32(out), images_layout.shape().clone()))
    }

    fn bwd(
        &self,
        images: &Tensor,
        parameters: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(inner) = inner.as_deref() else {
            candle_core::bail!("a gradient is asked for before the result")
        };
        let mut d_images = images.track_op().then(|| vec![0f32; images.elem_count()]);
        let mut d_parameters = vec![0f32; parameters.elem_count()];
        let (d_first, d_second) = d_parameters.split_at_mut(parameters.elem_count() / 2);
        let (windows, channels) = (&self.windows, self.channels);
        with_slice(images, |images: &[f32]| {
            with_slice(parameters, |parameters| {
                with_slice(y, |y| {
                    with_slice(&grad, |grad: &[f32]| {
                        let [first, second] = self.split(parameters);
                        let mut d_inner = Scratch::new(images.len());
                        let (d_weight, d_bias) = d_second.split_at_mut(second.0.len());
                        // Without an activation `y` plays no part.
                        backward(
                            Images::Floats(inner),
                            channels,
                            windows,
                            second.0,
                            y,
                            grad,
                            Activation::Identity,
                            Some(&mut d_inner),
                            d_weight,
                            d_bias,
                        );
                        let (d_weight, d_bias) = d_first.split_at_mut(first.0.len());
                        backward(
                            Images::Rectified(images),
                            channels,
                            windows,
                            first.0,
                            inner,
                            &d_inner,
                            Activation::Relu,
                            d_images.as_deref_mut(),
                            d_weight,
                            d_bias,
                        );
                        if let Some(d_images) = &mut d_images {
                            add(grad, d_images);
                        }
                    })
                })
            })
        })????;
        let tensor = |of: &Tensor, values| Tensor::from_vec(values, of.shape(), of.device());
        let d_images = d_images.map(|values| tensor(images, values)).transpose()?;
        let d_parameters = parameters.track_op().then(|| tensor(parameters, d_parameters)).transpose()?;
        Ok((d_images, d_parameters))
    }
}

/// Adds `more` to `to`.
fn add(more: &[f32], to: &mut [f32]) {
    let worthwhile = to.len() >= 8 * PIECE;
    share_out(more.chunks(PIECE).zip(to.chunks_mut(PIECE)), worthwhile, |(more, to)| {
        to.iter_mut().zip(more).for_each(|(to, more)| *to += more);
    });
}
